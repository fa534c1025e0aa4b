/*
 * pin.c - the Python object that holds a pin: a read-only buffer over the cache's own memory. The value stays while the
 * object lives, and everything made from it (memoryviews, arrays, their slices) keeps it alive.
 */
#include "value.h"

typedef struct {
	PyObject_HEAD
	struct cache_pin pin;
} PinObject;

PyObject *pin_object(struct core_state *core, struct cache_pin *pin)
{
	PinObject *self = PyObject_New(PinObject, core->pin_type);
	if (!self) {
		cache_unpin(pin);
		return NULL;
	}
	self->pin = *pin;
	pin->cache = NULL;
	return (PyObject *)self;
}

static void pin_dealloc(PinObject *self)
{
	PyTypeObject *type = Py_TYPE(self);

	if (cache_unpin_quick(&self->pin)) {
		/* nothing was waited for, no system call made: the GIL stays */
	} else if (self->pin.value_bytes >= GIL_RELEASE_BYTES) {
		/* A dealloc may run while an exception is on its way: it is kept over the switch of threads. */
		PyObject *error_type, *error, *traceback;
		PyErr_Fetch(&error_type, &error, &traceback);
		Py_BEGIN_ALLOW_THREADS
		cache_unpin(&self->pin);
		Py_END_ALLOW_THREADS
		PyErr_Restore(error_type, error, traceback);
	} else {
		cache_unpin(&self->pin);
	}
	PyObject_Free(self);
	Py_DECREF(type);
}

static int pin_get_buffer(PinObject *self, Py_buffer *view, int flags)
{
	if (flags & PyBUF_WRITABLE) {
		/* The text is made once: NumPy asks for memory to write to first, with each array. */
		struct core_state *core = PyType_GetModuleState(Py_TYPE(self));
		view->obj = NULL;
		if (core)
			PyErr_SetObject(PyExc_BufferError, core->read_only_text);
		return -1;
	}
	return PyBuffer_FillInfo(view, (PyObject *)self, (void *)self->pin.value, (Py_ssize_t)self->pin.value_bytes, 1,
				 flags);
}

static PyType_Slot pin_slots[] = {
	{Py_tp_doc, "A cached value in place, pinned while this object lives. Exports its bytes, read-only."},
	{Py_tp_dealloc, pin_dealloc},
	{Py_bf_getbuffer, pin_get_buffer},
	{0, NULL},
};

static PyType_Spec pin_spec = {
	.name = "droppable._core.Pin",
	.basicsize = sizeof(PinObject),
	.flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION | Py_TPFLAGS_IMMUTABLETYPE,
	.slots = pin_slots,
};

int core_add_pin(PyObject *module)
{
	struct core_state *core = core_of_module(module);

	core->read_only_text = PyUnicode_FromString("cached memory is read-only: others may be reading it; copy it to change it");
	if (!core->read_only_text)
		return -1;
	core->pin_type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &pin_spec, NULL);
	return core->pin_type ? PyModule_AddObjectRef(module, "Pin", (PyObject *)core->pin_type) : -1;
}
