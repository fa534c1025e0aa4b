/*
 * lease.c - what a computation of many callers asks of a cache: a Lease, a store under it, and a Copy for those who waited.
 *
 *   _lease(key) -> Lease ---- the value is computed ---- _keep(lease, key, value, ...) -> Copy ---- load(), by each waiter
 *
 * A lease ends with its object, so that an exception anywhere leaves none open. A copy is what the value was encoded to, and
 * makes a value of his own for each, as a hit would; of bytes and str, which nobody can change, it is the object itself.
 *
 * Threads: a lease may be looked at by all, and is used by who computes; a copy never changes.
 * Callers: src/droppable/_flight.
 */
#include "cache_lease.h"

#include <string.h>

#include "cache_object.h"
#include "module.h"

/* More would be a second copy of a large value in memory that cannot be dropped: who waited looks into the cache instead. */
enum { COPY_MOST_BYTES = 256 * 1024 };

typedef struct {
	PyObject_HEAD
	struct cache_lease lease;
	PyObject *key; /* encoded, for the lease's lifetime */
} LeaseObject;

typedef struct {
	PyObject_HEAD
	PyObject *itself;       /* the value itself; else NULL, and the value is */
	PyObject *data, *meta;  /* bytes */
	PyObject *decode;
	uint8_t kind;
} CopyObject;

static PyObject *lease_stale(LeaseObject *self, void *unused)
{
	(void)unused;
	return PyBool_FromLong(cache_lease_is_stale(&self->lease));
}

static void lease_dealloc(LeaseObject *self)
{
	PyTypeObject *type = Py_TYPE(self);

	cache_lease_end(&self->lease);
	Py_XDECREF(self->key);
	type->tp_free(self);
	Py_DECREF(type);
}

static PyGetSetDef lease_attributes[] = {
	{"stale", (getter)lease_stale, NULL, "Whether the key was set, deleted or cleared since.", NULL},
	{NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot lease_slots[] = {
	{Py_tp_doc, "An open lease on a key, until it is kept or gone."},
	{Py_tp_dealloc, lease_dealloc},
	{Py_tp_getset, lease_attributes},
	{0, NULL},
};

static PyType_Spec lease_spec = {
	.name = "droppable._core.Lease",
	.basicsize = sizeof(LeaseObject),
	.flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION | Py_TPFLAGS_IMMUTABLETYPE,
	.slots = lease_slots,
};

static PyObject *copy_load(CopyObject *self, PyObject *unused)
{
	struct core_state *core = core_of_type(Py_TYPE(self));
	struct cache_pin no_pin = {0};
	struct value_sink sink;
	void *meta, *value;
	bool failed_twice;

	(void)unused;
	if (!core)
		return NULL;
	if (self->itself)
		return Py_NewRef(self->itself);
	value_sink_init(&sink);
	const size_t meta_bytes = (size_t)PyBytes_GET_SIZE(self->meta);
	if (sink.base.reserve(&sink.base, self->kind, meta_bytes, 0, &meta, &value) < 0) {
		value_sink_clear(&sink);
		return NULL;
	}
	memcpy(meta, PyBytes_AS_STRING(self->meta), meta_bytes);
	Py_SETREF(sink.object, Py_NewRef(self->data));
	PyObject *result = value_finish(core, &sink, &no_pin, self->decode, &failed_twice);
	if (failed_twice)
		value_sink_clear(&sink);
	return result;
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
	Py_XDECREF(self->data);
	Py_XDECREF(self->meta);
	type->tp_free(self);
	Py_DECREF(type);
}

static PyMethodDef copy_methods[] = {
	{"load", (PyCFunction)copy_load, METH_NOARGS, "load($self, /)\n--\n\nA value of one's own. Raises what loading it raises."},
	{NULL, NULL, 0, NULL},
};

static PyType_Slot copy_slots[] = {
	{Py_tp_doc, "What makes a value for each who waited for it."},
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

/* A new reference: a Copy, or None where it would be large. */
static PyObject *copy_of(CacheObject *cache, const struct value *value, PyObject *object)
{
	const bool is_itself = PyBytes_CheckExact(object) || PyUnicode_CheckExact(object);

	if (!is_itself && value->bytes > COPY_MOST_BYTES)
		Py_RETURN_NONE;
	PyTypeObject *type = cache->core->copy_type;
	CopyObject *self = (CopyObject *)type->tp_alloc(type, 0);
	if (!self)
		return NULL;
	self->kind = value->item.kind;
	if (is_itself) {
		self->itself = Py_NewRef(object);
		return (PyObject *)self;
	}
	self->data = join_parts(value);
	self->meta = PyBytes_FromStringAndSize(value->item.meta, (Py_ssize_t)value->item.meta_bytes);
	self->decode = Py_XNewRef(cache->decode);
	if (!self->data || !self->meta)
		Py_CLEAR(self);
	return (PyObject *)self;
}

PyObject *cache_object_lease(CacheObject *self, PyObject *key_object)
{
	struct cache *cache = cache_object_core(self);
	PyTypeObject *type = self->core->lease_type;
	LeaseObject *lease = cache ? (LeaseObject *)type->tp_alloc(type, 0) : NULL;
	struct key key;

	if (!lease)
		return NULL;
	int status = DRP_INVALID; /* an exception is set */
	if (key_encode(self->core, &key, key_object) == 0 && (lease->key = key_as_object(&key)))
		status = cache_lease_begin(cache, key.data, key.bytes, &lease->lease);
	key_free(&key);
	if (status == DRP_OK) {
		cache_lease_name(&lease->lease, PyBytes_AS_STRING(lease->key), (size_t)PyBytes_GET_SIZE(lease->key));
		return (PyObject *)lease;
	}
	Py_DECREF(lease);
	return status == DRP_CLOSED ? core_raise(DRP_CLOSED, "this cache") : NULL;
}

/* 0, or -1 with an exception. What finds no room, or can never fit, is counted and returned to its caller all the same. */
static int keep(CacheObject *self, struct cache *cache, const struct key *key, const struct value *value, LeaseObject *lease)
{
	PyThreadState *saved = NULL;

	if (value->bytes >= GIL_RELEASE_BYTES)
		saved = PyEval_SaveThread();
	const int status = self->is_disabled ? cache_object_accept(self, cache, key)
					     : cache_set_leased(cache, key->data, key->bytes, &value->item, &lease->lease);
	if (saved)
		PyEval_RestoreThread(saved);
	switch (status) {
	case DRP_OK:
	case DRP_STALE:
	case DRP_REFUSED:
		return 0;
	case DRP_TOO_LARGE:
	case DRP_NO_MEMORY:
		atomic_fetch_add(&self->uncached, 1);
		return 0;
	default:
		core_raise(status, status == DRP_CLOSED ? "this cache" : "storing this value");
		return -1;
	}
}

PyObject *cache_object_keep(CacheObject *self, PyObject *const *arguments, Py_ssize_t count)
{
	struct cache *cache = cache_object_core(self);
	PyObject *result = NULL;
	struct value value;
	struct key key;

	if (!cache)
		return NULL;
	if (count != 6 || !Py_IS_TYPE(arguments[0], self->core->lease_type)) {
		PyErr_SetString(PyExc_TypeError, "_keep() takes a lease, key, value, ttl, cost, and whether to make copies");
		return NULL;
	}
	LeaseObject *lease = (LeaseObject *)arguments[0];
	if (lease->lease.cache != cache) {
		PyErr_SetString(PyExc_ValueError, "this lease is not of this cache, or has ended");
		return NULL;
	}
	key.data = key.inline_data; /* for key_free() */
	if (cache_object_read_item(self, &value, arguments[2], arguments[3], arguments[4]) < 0) {
		if (PyErr_ExceptionMatches(PyExc_MemoryError)) { /* to encode it; the value itself is there */
			PyErr_Clear();
			atomic_fetch_add(&self->uncached, 1);
			result = Py_NewRef(Py_None);
		}
	} else if (key_encode(self->core, &key, arguments[1]) == 0 && keep(self, cache, &key, &value, lease) == 0) {
		result = arguments[5] == Py_True ? copy_of(self, &value, arguments[2]) : Py_NewRef(Py_None);
	}
	cache_lease_end(&lease->lease);
	key_free(&key);
	value_free(&value);
	return result;
}

int core_add_lease(PyObject *module)
{
	struct core_state *core = core_of_module(module);

	core->lease_type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &lease_spec, NULL);
	core->copy_type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &copy_spec, NULL);
	if (!core->lease_type || !core->copy_type)
		return -1;
	if (PyModule_AddObjectRef(module, "Lease", (PyObject *)core->lease_type) < 0)
		return -1;
	return PyModule_AddObjectRef(module, "Copy", (PyObject *)core->copy_type);
}
