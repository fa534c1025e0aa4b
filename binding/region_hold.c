/*
 * region_hold.c - RegionHold: a range of a RawRegion that is held, as a buffer. What `reading`, `writing` and `pin` are made of.
 *
 * A hold counts as a user of its region once while it is active, and once for each of its buffers: see region.c.
 */
#include "region_object.h"

#include "droppable.h"

/*
 * uses holds two things in one word, so that a buffer cannot be given out between the end of the hold and the count that
 * finish() returns: whether the hold is active, and how many of its buffers are alive.
 */
struct hold_object {
	PyObject_HEAD
	struct raw_region *owner;
	struct region_hold hold;
	_Atomic size_t uses;
};

enum { HOLD_ACTIVE = 1, HOLD_BUFFER = 2 };

static const char *const hold_names[] = {"read", "write", "pin", NULL};
static const char *const hold_calls[] = {"Region.reading", "Region.writing", "Region.pin"};

PyObject *raw_region_hold(PyObject *self, PyObject *args)
{
	struct raw_region *raw = as_raw(self);
	struct region_gone gone = {0};
	struct byte_range range;
	PyObject *kind_name, *start_object, *stop_object;
	Py_ssize_t start, stop;
	int status = DRP_OK;

	if (!PyArg_ParseTuple(args, "OOO:hold", &kind_name, &start_object, &stop_object))
		return NULL;
	int kind = raw_region_index_of("kind", hold_names, kind_name, 0);
	if (kind < 0 || raw_region_read_bytes(hold_calls[kind], "start", start_object, &start) < 0 ||
	    raw_region_read_bytes(hold_calls[kind], "stop", stop_object, &stop) < 0 || !raw_region_enter(raw))
		return NULL;
	if (raw_region_check_range(raw, hold_calls[kind], start, stop, false, &range) < 0)
		goto err_leave;
	struct core_state *core = core_of_type(Py_TYPE(self));
	struct hold_object *hold = core ? (struct hold_object *)core->hold_type->tp_alloc(core->hold_type, 0) : NULL;
	if (!hold)
		goto err_leave;
	hold->owner = (struct raw_region *)Py_NewRef(self);
	hold->hold.kind = (enum region_hold_kind)kind; /* an empty range is held without the core */
	hold->hold.offset = range.start;
	Py_BEGIN_ALLOW_THREADS
	if (range.length > 0)
		status = region_hold_begin(raw->region, (enum region_hold_kind)kind, range.start, range.length, &hold->hold,
					   &gone);
	Py_END_ALLOW_THREADS
	if (status == DRP_OK) {
		atomic_store(&hold->uses, HOLD_ACTIVE);
		return (PyObject *)hold;
	}
	Py_DECREF(hold);
	if (status == DRP_UNSUPPORTED && region_backing(raw->region) == PRIM_DROPPABLE)
		core_raise_unsupported(hold_calls[kind], kind == REGION_HOLD_PIN
			? "nothing keeps a page of backing='droppable'; make the region with backing='lazyfree'"
			: "nothing keeps a page of backing='droppable' that is written in part; use write(), or make the region with "
			  "backing='lazyfree'");
	else
		raw_region_raise(raw, status, hold_calls[kind], &gone);
err_leave:
	raw_region_leave(raw);
	return NULL;
}

static int hold_end(struct hold_object *self, struct region_gone *gone)
{
	int status = DRP_OK;

	if (!(atomic_fetch_and(&self->uses, ~(size_t)HOLD_ACTIVE) & HOLD_ACTIVE))
		return DRP_OK;
	if (self->hold.length > 0) {
		Py_BEGIN_ALLOW_THREADS
		status = region_hold_end(self->owner->region, &self->hold, gone);
		Py_END_ALLOW_THREADS
	}
	raw_region_leave(self->owner);
	return status;
}

static PyObject *hold_finish(PyObject *self, PyObject *Py_UNUSED(ignored))
{
	struct hold_object *hold = (struct hold_object *)self;
	struct region_gone gone = {0};

	int status = hold_end(hold, &gone);
	if (status != DRP_OK)
		return raw_region_raise(hold->owner, status, hold_calls[hold->hold.kind], &gone);
	return PyLong_FromSize_t(atomic_load(&hold->uses) / HOLD_BUFFER);
}

/* An heir of RawRegion may hold its own block. No tp_clear: what such a region has breaks the circle. */
static int hold_traverse(PyObject *self, visitproc visit, void *arg)
{
	Py_VISIT(Py_TYPE(self));
	Py_VISIT(((struct hold_object *)self)->owner);
	return 0;
}

static void hold_dealloc(PyObject *self)
{
	struct hold_object *hold = (struct hold_object *)self;
	PyTypeObject *type = Py_TYPE(self);
	struct region_gone gone = {0};

	PyObject_GC_UnTrack(self);
	prim_best_effort(hold_end(hold, &gone)); /* a hold that nobody finished: nobody is there to hear of it */
	region_gone_free(&gone);
	Py_XDECREF(hold->owner);
	type->tp_free(self);
	Py_DECREF(type);
}

static int hold_getbuffer(PyObject *self, Py_buffer *view, int flags)
{
	struct hold_object *hold = (struct hold_object *)self;
	size_t uses = atomic_load(&hold->uses);

	view->obj = NULL;
	do {
		if (!(uses & HOLD_ACTIVE)) {
			PyErr_SetString(PyExc_BufferError, "the block of this view has ended");
			return -1;
		}
	} while (!atomic_compare_exchange_weak(&hold->uses, &uses, uses + HOLD_BUFFER));
	if (!raw_region_enter(hold->owner))
		goto err_uses;
	if (PyBuffer_FillInfo(view, self, (char *)region_memory(hold->owner->region) + hold->hold.offset,
			      (Py_ssize_t)hold->hold.length, hold->hold.kind != REGION_HOLD_WRITE, flags) == 0)
		return 0;
	raw_region_leave(hold->owner);
err_uses:
	atomic_fetch_sub(&hold->uses, HOLD_BUFFER);
	return -1;
}

static void hold_releasebuffer(PyObject *self, Py_buffer *Py_UNUSED(view))
{
	atomic_fetch_sub(&((struct hold_object *)self)->uses, HOLD_BUFFER);
	raw_region_leave(((struct hold_object *)self)->owner);
}

static PyMethodDef hold_methods[] = {
	{"finish", hold_finish, METH_NOARGS, PyDoc_STR(
		"finish($self, /)\n--\n\nEnds it; twice is fine. A read raises Dropped if something went meanwhile.\n\n"
		"Returns how many buffers of it are still alive.")},
	{NULL, NULL, 0, NULL},
};

static PyType_Slot hold_slots[] = {
	{Py_tp_doc, PyDoc_STR("A range of a RawRegion that is held, as a buffer.")},
	{Py_tp_dealloc, hold_dealloc},
	{Py_tp_traverse, hold_traverse},
	{Py_tp_methods, hold_methods},
	{Py_bf_getbuffer, hold_getbuffer},
	{Py_bf_releasebuffer, hold_releasebuffer},
	{0, NULL},
};

static PyType_Spec hold_spec = {
	.name = "droppable.lowlevel.RegionHold",
	.basicsize = sizeof(struct hold_object),
	.flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE | Py_TPFLAGS_DISALLOW_INSTANTIATION,
	.slots = hold_slots,
};

int core_add_region_hold(PyObject *module)
{
	PyTypeObject *hold_type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &hold_spec, NULL);

	core_of_module(module)->hold_type = hold_type;
	return hold_type ? PyModule_AddObjectRef(module, "RegionHold", (PyObject *)hold_type) : -1;
}
