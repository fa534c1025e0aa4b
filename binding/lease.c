/*
 * lease.c - what a computation of many callers asks of a cache: a Lease, and a store under it that says what each gets.
 *
 *   _lease(key) -> Lease ---- the value is computed ---- _keep(lease, key, value, ttl, cost, flags)
 *                                                             |
 *              (own: the caller's value, as a hit would give it; a Copy for those who waited, or None; an error, or None)
 *
 * A lease ends with its object, so that an exception anywhere leaves none open. What cannot be stored is given back as it is,
 * counted, with the error that says why. Who waited and finds neither a Copy nor the value in the cache computes for himself.
 *
 * Threads: a lease may be looked at by all, and is used by who computes.
 * Callers: src/droppable/_flight.
 */
#include "cache/lease.h"

#include <string.h>

#include "cache_object.h"
#include "copy.h"
#include "module.h"

/* More is taken from the cache, where room is asked for it: it would be a third copy of the value, and not droppable. */
enum { COPY_MOST_BYTES = 64 * 1024 };

/* How a result is kept; src/droppable/_flight/keeping.py has the same numbers. */
enum { KEEP_STORES = 1, KEEP_WRITABLE = 2, KEEP_SHARED = 4, KEEP_REPLACES = 8 };

typedef struct {
	PyObject_HEAD
	struct cache_lease lease;
	PyObject *key; /* encoded, for the lease's lifetime */
} LeaseObject;

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

struct cache_lease *lease_of(PyObject *lease)
{
	return &((LeaseObject *)lease)->lease;
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


/*
 * Whether nobody can change it, and a hit would give what cannot be told from it. A serializer may give something else for all
 * but bytes and str, and what it wrote is of another kind than a pickle.
 */
static bool is_immutable(PyObject *object, uint8_t kind, bool or_a_tuple)
{
	if (PyBytes_CheckExact(object) || PyUnicode_CheckExact(object))
		return true;
	if (kind != VALUE_PICKLE)
		return false;
	if (object == Py_None || PyLong_CheckExact(object) || PyBool_Check(object) || PyFloat_CheckExact(object) ||
	    PyComplex_CheckExact(object))
		return true;
	if (!or_a_tuple || !PyTuple_CheckExact(object))
		return false;
	for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(object); i++)
		if (!is_immutable(PyTuple_GET_ITEM(object, i), kind, false))
			return false;
	return true;
}

/* The exception that is set, without its traceback, which would hold frames. */
static PyObject *take_error(void)
{
	PyObject *type, *error, *traceback;

	PyErr_Fetch(&type, &error, &traceback);
	PyErr_NormalizeException(&type, &error, &traceback);
	Py_XDECREF(type);
	Py_XDECREF(traceback);
	return error;
}

/* One computation's result on its way. */
struct keeping {
	CacheObject *cache;
	struct cache *core;
	const struct key *key;
	const struct value *value;
	PyObject *object;
	long flags;
	PyObject *own, *copy, *error; /* what comes of it; copy and error may be NULL */
};

/* Stores it, and says in keeping->error why that could not be. 1: it is stored; 0: it is not; -1 with an exception. */
static int keep(struct keeping *keeping, LeaseObject *lease)
{
	CacheObject *self = keeping->cache;
	const struct value *value = keeping->value;
	PyThreadState *saved = NULL;

	if (keeping->flags & KEEP_REPLACES)
		cache_lease_supersede(&lease->lease);
	if (value->bytes >= GIL_RELEASE_BYTES)
		saved = PyEval_SaveThread();
	const int status = self->is_disabled
				   ? cache_object_accept(self, keeping->core, keeping->key)
				   : cache_set_leased(keeping->core, keeping->key->data, keeping->key->bytes, &value->item,
						      &lease->lease);
	if (saved)
		PyEval_RestoreThread(saved);
	switch (status) {
	case DRP_OK:
		return 1;
	case DRP_STALE:
		return 0;
	case DRP_TOO_LARGE:
		atomic_fetch_add(&self->unstorable[UNSTORABLE_TOO_LARGE], 1);
		core_raise_too_large(value->bytes, self->max_bytes);
		break;
	case DRP_REFUSED:
	case DRP_NO_MEMORY:
		atomic_fetch_add(&self->unstorable[UNSTORABLE_REFUSED], 1);
		atomic_fetch_add(&self->uncached, status == DRP_NO_MEMORY); /* the core has counted the other one */
		core_raise(status, "keeping this result");
		break;
	default:
		core_raise(status, status == DRP_CLOSED ? "this cache" : "storing this value");
		return -1;
	}
	keeping->error = take_error();
	return keeping->error ? 0 : -1;
}

/* The caller's own value from the copy, or what was computed where it does not load: a later hit tells about that. */
static int load_own(struct keeping *keeping, bool writable)
{
	bool failed_twice;

	keeping->own = copy_load(keeping->copy, writable, &failed_twice);
	if (keeping->own || !failed_twice)
		return keeping->own ? 0 : -1;
	PyErr_Clear();
	keeping->own = Py_NewRef(keeping->object);
	Py_SETREF(keeping->copy, copy_of_itself(keeping->cache->core, keeping->object));
	return keeping->copy ? 0 : -1;
}

/*
 * What was stored a moment ago, as a hit would give it, but counted as none. 1, and own and copy are there; 0: it is gone, or
 * there is no memory for a copy of it; -1 with an exception. A copy to write to is the caller's alone: the others look into the
 * cache.
 */
static int take_stored(struct keeping *keeping)
{
	const bool writable = keeping->flags & KEEP_WRITABLE;
	struct value_sink sink;
	struct cache_pin pin;

	value_sink_init(&sink);
	sink.writable = writable;
	int status = cache_get_kept(keeping->core, keeping->key->data, keeping->key->bytes, !writable, &sink.base, &pin);
	if (status != DRP_OK) {
		value_sink_clear(&sink);
		PyErr_Clear(); /* of reserve(): no memory */
		return 0;
	}
	keeping->copy = copy_of_found(keeping->cache, &sink, &pin);
	value_sink_clear(&sink);
	if (!keeping->copy || load_own(keeping, false) < 0)
		return -1;
	if (writable && keeping->own != keeping->object)
		Py_CLEAR(keeping->copy);
	return 1;
}

/*
 * The caller's own value, and what makes one for each who waits. What is large is taken from the cache, so that there is no
 * third copy of it; where it is not there the caller gets what was computed, as it is.
 */
static int share(struct keeping *keeping, bool is_stored)
{
	const bool is_large = keeping->value->bytes > COPY_MOST_BYTES, somebody_waits = keeping->flags & KEEP_SHARED;

	if (is_immutable(keeping->object, keeping->value->item.kind, true)) {
		keeping->own = Py_NewRef(keeping->object);
		if (is_stored && !somebody_waits)
			return 0; /* who comes to wait from now on finds it in the cache */
		keeping->copy = copy_of_itself(keeping->cache->core, keeping->object);
		return keeping->copy ? 0 : -1;
	}
	if (is_stored && is_large) {
		const int found = take_stored(keeping);
		if (found != 0)
			return found < 0 ? -1 : 0;
	}
	const bool as_it_is = keeping->error || is_large;
	const bool no_memory = keeping->error && !PyErr_GivenExceptionMatches(keeping->error, PyExc_ValueError);
	if (!as_it_is || (somebody_waits && !(is_large && no_memory))) {
		keeping->copy = copy_of_value(keeping->cache, keeping->value);
		if (!keeping->copy && !PyErr_ExceptionMatches(PyExc_MemoryError))
			return -1;
		PyErr_Clear(); /* who waits computes for himself */
	}
	if (as_it_is || !keeping->copy) {
		keeping->own = Py_NewRef(keeping->object);
		return 0;
	}
	return load_own(keeping, keeping->flags & KEEP_WRITABLE);
}

/* It could not be encoded: an exception is set. 0, if that says that it can never be stored or that memory is short; or -1. */
static int give_back(struct keeping *keeping)
{
	if (core_error_is_unpicklable()) {
		atomic_fetch_add(&keeping->cache->unstorable[UNSTORABLE_UNPICKLABLE], 1);
		keeping->error = take_error();
		keeping->copy = copy_of_itself(keeping->cache->core, keeping->object);
		if (!keeping->copy)
			return -1;
	} else if (PyErr_ExceptionMatches(PyExc_MemoryError)) {
		atomic_fetch_add(&keeping->cache->unstorable[UNSTORABLE_REFUSED], 1);
		atomic_fetch_add(&keeping->cache->uncached, 1);
		keeping->error = take_error();
	} else {
		return -1;
	}
	keeping->own = Py_NewRef(keeping->object);
	return 0;
}

PyObject *cache_object_keep(CacheObject *self, PyObject *const *arguments, Py_ssize_t count)
{
	struct cache *cache = cache_object_core(self);
	struct value value;
	struct key key;

	if (!cache)
		return NULL;
	if (count != 6 || !Py_IS_TYPE(arguments[0], self->core->lease_type)) {
		PyErr_SetString(PyExc_TypeError, "_keep() takes a lease, key, value, ttl, cost, and flags");
		return NULL;
	}
	LeaseObject *lease = (LeaseObject *)arguments[0];
	struct keeping keeping = {self, cache, &key, &value, arguments[2], PyLong_AsLong(arguments[5]), NULL, NULL, NULL};
	if (keeping.flags == -1 && PyErr_Occurred())
		return NULL;
	if (lease->lease.cache != cache) {
		PyErr_SetString(PyExc_ValueError, "this lease is not of this cache, or has ended");
		return NULL;
	}
	key.data = key.inline_data; /* for key_free() */
	int stored = -1, status = -1;
	if (cache_object_read_item(self, &value, arguments[2], arguments[3], arguments[4]) < 0)
		status = give_back(&keeping);
	else if (key_encode(self->core, &key, arguments[1]) == 0)
		stored = keeping.flags & KEEP_STORES ? keep(&keeping, lease) : 0;
	if (stored >= 0)
		status = share(&keeping, stored > 0);
	key_free(&key);
	value_free(&value);
	PyObject *result = NULL;
	if (status == 0)
		result = PyTuple_Pack(3, keeping.own, keeping.copy ? keeping.copy : Py_None,
				      keeping.error ? keeping.error : Py_None);
	Py_XDECREF(keeping.own);
	Py_XDECREF(keeping.copy);
	Py_XDECREF(keeping.error);
	return result;
}

int core_add_lease(PyObject *module)
{
	struct core_state *core = core_of_module(module);

	core->lease_type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &lease_spec, NULL);
	return core->lease_type ? PyModule_AddObjectRef(module, "Lease", (PyObject *)core->lease_type) : -1;
}
