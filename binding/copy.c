/*
 * copy.c - see copy.h.
 */
#include "copy.h"

#include <string.h>

typedef struct {
	PyObject_HEAD
	PyObject *itself;  /* else NULL, and the others are there */
	PyObject *memory;  /* bytes, or a Pin */
	PyObject *meta;    /* bytes */
	PyObject *decode;
	uint8_t kind;
} CopyObject;

static CopyObject *new_copy(struct core_state *core)
{
	return (CopyObject *)core->copy_type->tp_alloc(core->copy_type, 0);
}

PyObject *copy_of_itself(struct core_state *core, PyObject *object)
{
	CopyObject *self = new_copy(core);

	if (self)
		self->itself = Py_NewRef(object);
	return (PyObject *)self;
}

/* The value's bytes: its pickle, which is there already, or its parts one behind the other. */
static PyObject *join_parts(const struct value *value)
{
	if (value->owner && PyBytes_CheckExact(value->owner))
		return Py_NewRef(value->owner);
	PyObject *bytes = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)value->bytes);
	if (!bytes)
		return NULL;
	char *at = PyBytes_AS_STRING(bytes);
	for (size_t i = 0; i < value->item.part_count; i++) {
		const struct drp_part *part = &value->item.parts[i];
		if (part->bytes > 0)
			memcpy(at, part->data, part->bytes);
		at += part->bytes;
	}
	return bytes;
}

/* Takes memory over, also on failure. */
static PyObject *copy_of_memory(CacheObject *cache, uint8_t kind, const void *meta, size_t meta_bytes, PyObject *memory)
{
	CopyObject *self = memory ? new_copy(cache->core) : NULL;

	if (!self) {
		Py_XDECREF(memory);
		return NULL;
	}
	self->kind = kind;
	if (kind == VALUE_BYTES) {
		self->itself = memory;
		return (PyObject *)self;
	}
	self->memory = memory;
	self->meta = PyBytes_FromStringAndSize(meta, (Py_ssize_t)meta_bytes);
	self->decode = Py_XNewRef(cache->decode);
	if (!self->meta)
		Py_CLEAR(self);
	return (PyObject *)self;
}

PyObject *copy_of_value(CacheObject *cache, const struct value *value)
{
	return copy_of_memory(cache, value->item.kind, value->item.meta, value->item.meta_bytes, join_parts(value));
}

PyObject *copy_of_found(CacheObject *cache, struct value_sink *sink, struct cache_pin *pin)
{
	PyObject *memory = pin->cache ? pin_object(cache->core, pin) : Py_NewRef(sink->object);

	return copy_of_memory(cache, sink->kind, sink->meta, sink->meta_bytes, memory);
}

/* A new reference to memory that the value may be made on. */
static PyObject *memory_for(const CopyObject *self, bool writable)
{
	return writable && self->kind >= VALUE_CODED ? PyByteArray_FromObject(self->memory) : Py_NewRef(self->memory);
}

PyObject *copy_load(PyObject *copy, bool writable, bool *failed_twice)
{
	CopyObject *self = (CopyObject *)copy;
	struct core_state *core = core_of_type(Py_TYPE(self));
	struct cache_pin no_pin = {0};
	struct value_sink sink;
	void *meta;

	*failed_twice = false;
	if (!core)
		return NULL;
	if (self->itself)
		return Py_NewRef(self->itself);
	PyObject *memory = memory_for(self, writable);
	if (!memory)
		return NULL;
	value_sink_init(&sink);
	const size_t meta_bytes = (size_t)PyBytes_GET_SIZE(self->meta);
	if (sink.base.reserve(&sink.base, self->kind, meta_bytes, 0, &meta, NULL) < 0) {
		value_sink_clear(&sink);
		Py_DECREF(memory);
		return NULL;
	}
	memcpy(meta, PyBytes_AS_STRING(self->meta), meta_bytes);
	sink.object = memory;
	PyObject *result = value_finish(core, &sink, &no_pin, self->decode, failed_twice);
	if (*failed_twice)
		value_sink_clear(&sink);
	return result;
}

static PyObject *load(PyObject *self, PyObject *const *arguments, Py_ssize_t count)
{
	bool failed_twice;

	if (count != 2) {
		PyErr_SetString(PyExc_TypeError, "load() takes whether the value is to be writable, and a default");
		return NULL;
	}
	PyObject *value = copy_load(self, arguments[0] == Py_True, &failed_twice);
	if (!value && failed_twice) {
		PyErr_Clear();
		return Py_NewRef(arguments[1]);
	}
	return value;
}

static int copy_traverse(CopyObject *self, visitproc visit, void *arg)
{
	Py_VISIT(Py_TYPE(self));
	Py_VISIT(self->itself);
	Py_VISIT(self->decode);
	return 0;
}

static int copy_clear(CopyObject *self)
{
	Py_CLEAR(self->itself);
	Py_CLEAR(self->decode);
	return 0;
}

static void copy_dealloc(CopyObject *self)
{
	PyTypeObject *type = Py_TYPE(self);

	PyObject_GC_UnTrack(self);
	(void)copy_clear(self);
	Py_XDECREF(self->memory);
	Py_XDECREF(self->meta);
	type->tp_free(self);
	Py_DECREF(type);
}

static PyMethodDef copy_methods[] = {
	{"load", (PyCFunction)(void (*)(void))load, METH_FASTCALL,
	 "load($self, writable, default, /)\n--\n\n"
	 "A value of one's own, as from a hit, or default where it does not load; writable: on memory of its own."},
	{NULL, NULL, 0, NULL},
};

static PyType_Slot copy_slots[] = {
	{Py_tp_doc, "What makes a value for each caller of one computation."},
	{Py_tp_dealloc, copy_dealloc},
	{Py_tp_traverse, copy_traverse},
	{Py_tp_clear, copy_clear},
	{Py_tp_methods, copy_methods},
	{0, NULL},
};

static PyType_Spec copy_spec = {
	.name = "droppable._core.Copy",
	.basicsize = sizeof(CopyObject),
	.flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION | Py_TPFLAGS_IMMUTABLETYPE,
	.slots = copy_slots,
};

int core_add_copy(PyObject *module)
{
	struct core_state *core = core_of_module(module);

	core->copy_type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &copy_spec, NULL);
	return core->copy_type ? PyModule_AddObjectRef(module, "Copy", (PyObject *)core->copy_type) : -1;
}
