/*
 * cache.c - droppable._core.Cache: the C core's cache as a Python type, with the methods that are called often. The rest
 * of droppable.Cache is in src/droppable/_cache.py, which derives from it.
 *
 * No Python code runs under a lock of the core: keys and values are encoded before, decoded after.
 */
#include <limits.h>
#include <stdatomic.h>
#include <string.h>

#include "arguments.h"
#include "cache/cache.h"
#include "cache/lease.h"
#include "cache_object.h"
#include "key.h"
#include "module.h"
#include "value.h"

static PyObject *raise_closed(void)
{
	return core_raise(DRP_CLOSED, "this cache");
}

int cache_object_without_gil(struct cache *cache, int (*call)(struct cache *))
{
	int status;

	Py_BEGIN_ALLOW_THREADS
	status = call(cache);
	Py_END_ALLOW_THREADS
	return status;
}

/*
 * For calls that keep the GIL, and find at their end that much memory goes. Only a thread that has it can give it: large sets
 * have given it before.
 */
static void *give_gil(void)
{
#if PY_VERSION_HEX >= 0x030D0000
	PyThreadState *has_it = PyThreadState_GetUnchecked();
#else
	PyThreadState *has_it = _PyThreadState_UncheckedGet();
#endif
	PyThreadState *mine = PyGILState_GetThisThreadState();
	return mine && mine == has_it ? PyEval_SaveThread() : NULL;
}

static void take_gil(void *given)
{
	if (given)
		PyEval_RestoreThread(given);
}

static const struct drp_waits gil_waits = {give_gil, take_gil};

/*
 * The value is there, but nothing can be made of it: its class is gone, or wants other arguments than pickle has for it. It
 * is forgotten, and a miss: 0, or -1 with an exception.
 */
int cache_object_give_up(CacheObject *self, struct cache *cache, const struct key *key, uint64_t place, struct value_sink *sink)
{
	PyObject *type, *error, *traceback, *told = NULL;

	PyErr_Fetch(&type, &error, &traceback);
	PyErr_NormalizeException(&type, &error, &traceback);
	int status = cache_reject(cache, key->data, key->bytes, place);
	PyObject *meta = PyBytes_FromStringAndSize((const char *)sink->meta, (Py_ssize_t)sink->meta_bytes);
	if (status == DRP_CLOSED)
		raise_closed();
	else if (meta && self->unloadable)
		told = PyObject_CallFunction(self->unloadable, "iOOO", (int)sink->kind, meta, sink->object, error);
	Py_XDECREF(meta);
	value_sink_clear(sink);
	Py_XDECREF(type);
	Py_XDECREF(error);
	Py_XDECREF(traceback);
	Py_XDECREF(told);
	return told ? 0 : -1;
}

/* FIND_RAW: the memory itself, as (kind, buffer), instead of the value. FIND_COPY: on memory that the caller may write to. */
enum find_mode { FIND_VALUE, FIND_RAW, FIND_COPY };

/* 1 and *result; 0: a miss; -1 with an exception. */
static int find(CacheObject *self, const struct key *key, enum find_mode mode, struct cache_about *about, PyObject **result)
{
	struct value_sink sink;
	struct cache_pin pin;
	struct cache_about own;

	struct cache *cache = cache_object_core(self);
	if (!cache)
		return -1;
	if (!about)
		about = &own;
	value_sink_init(&sink);
	sink.writable = mode == FIND_COPY;
	int status = cache_get(cache, key->data, key->bytes,
			       mode == FIND_VALUE ? GET_PIN_OWN : mode == FIND_RAW ? GET_PIN : GET_COPY, &sink.base, &pin,
			       about);
	if (status == DRP_OK && mode == FIND_RAW) {
		PyObject *buffer = pin.cache ? pin_object(self->core, &pin) : Py_NewRef(sink.object);
		*result = buffer ? Py_BuildValue("iN", sink.kind, buffer) : NULL;
		value_sink_clear(&sink);
		return *result ? 1 : -1;
	}
	if (status == DRP_OK && (sink.kind == VALUE_BYTES || sink.kind == VALUE_ASCII) && !pin.cache) {
		*result = sink.object; /* as value_finish() would, without a call */
		return *result ? 1 : -1;
	}
	if (status == DRP_OK) {
		bool failed_twice;
		*result = value_finish(self->core, &sink, &pin, self->decode, &failed_twice);
		if (failed_twice)
			return cache_object_give_up(self, cache, key, about->place, &sink);
		return *result ? 1 : -1;
	}
	if (sink.object || sink.meta != sink.inline_meta) /* nearly always nothing was begun */
		value_sink_clear(&sink);
	if (status == DRP_MISS)
		return 0;
	if (!PyErr_Occurred())
		core_raise(status == DRP_REFUSED ? DRP_NO_MEMORY : status, status == DRP_CLOSED ? "this cache" : "get");
	return -1;
}

static int look_up(CacheObject *self, PyObject *key_object, enum find_mode mode, PyObject **result)
{
	struct key key;
	int found = key_encode(self->core, &key, key_object) < 0 ? -1 : find(self, &key, mode, NULL, result);
	key_free(&key);
	return found;
}

int cache_object_find(PyObject *cache, const struct key *key, bool copy, struct cache_about *about, PyObject **result)
{
	return find((CacheObject *)cache, key, copy ? FIND_COPY : FIND_VALUE, about, result);
}

/* copy=: NULL where it was not given. -1 with an exception. */
static int read_copy(PyObject *object)
{
	return object ? PyObject_IsTrue(object) : 0;
}

/* The calls by which the tiers themselves look here have the key encoded, and ask below by themselves. */
static bool asks_below(const CacheObject *self, PyObject *key)
{
	return self->has_below && !Py_IS_TYPE(key, self->core->encoded_key_type);
}

static PyObject *ask_below(CacheObject *self, PyObject *key, PyObject *fallback, bool copy)
{
	return PyObject_CallMethod((PyObject *)self, "_missed", "OOO", key, fallback, copy ? Py_True : Py_False);
}

static PyObject *cache_object_get(CacheObject *self, PyObject *const *arguments, Py_ssize_t count, PyObject *keywords)
{
	static const char *const names[] = {"key", "default", "copy"};
	PyObject *slots[3] = {NULL}, *result;
	int copy = 0;

	if (!keywords && (count == 1 || count == 2)) {
		slots[0] = arguments[0];
		slots[1] = count == 2 ? arguments[1] : NULL;
	} else if (read_arguments("get", arguments, count, keywords, names, 1, slots, count > 2 ? 2 : 3) < 0 ||
		   (copy = read_copy(slots[2])) < 0) { /* copy by its name alone */
		return NULL;
	}
	int found = look_up(self, slots[0], copy ? FIND_COPY : FIND_VALUE, &result);
	if (found == 0 && asks_below(self, slots[0]))
		return ask_below(self, slots[0], slots[1] ? slots[1] : Py_None, copy);
	if (found == 0)
		return Py_NewRef(slots[1] ? slots[1] : Py_None);
	return found > 0 ? result : NULL;
}

static PyObject *cache_object_getitem(CacheObject *self, PyObject *key)
{
	PyObject *result;
	int found = look_up(self, key, FIND_VALUE, &result);
	if (found == 0 && asks_below(self, key)) {
		result = ask_below(self, key, (PyObject *)self, false); /* no cache has itself as a value */
		found = result != NULL && result != (PyObject *)self;
		if (result == (PyObject *)self)
			Py_DECREF(result);
		else if (!result)
			return NULL;
	}
	if (found == 0)
		PyErr_SetObject(PyExc_KeyError, key);
	return found > 0 ? result : NULL;
}

static PyObject *cache_object_raw(CacheObject *self, PyObject *key)
{
	PyObject *result;
	int found = look_up(self, key, FIND_RAW, &result);
	if (found == 0)
		Py_RETURN_NONE;
	return found > 0 ? result : NULL;
}

int cache_object_read_item(CacheObject *self, struct value *value, PyObject *object, PyObject *ttl, PyObject *cost)
{
	if (value_encode(self->core, value, object, self->encode) < 0 ||
	    read_ttl(ttl, self->default_ttl_ns, &value->item.ttl_ns) < 0)
		return -1;
	return read_cost(cost, &value->item.cost_ns);
}

/* A disabled cache, as if the value had been evicted at once. */
int cache_object_accept(CacheObject *self, struct cache *cache, const struct key *key)
{
	const int status = cache_revoke(cache, key->data, key->bytes);

	if (status == DRP_OK)
		atomic_fetch_add_explicit(&self->accepted, 1, memory_order_relaxed);
	return status;
}

/* 1: stored; 0: refused for want of memory, or, if_absent, there already; -1 with an exception: if_absent, RefusedError too. */
static int store(CacheObject *self, PyObject *key_object, PyObject *object, PyObject *ttl, PyObject *cost, bool if_absent)
{
	struct cache *cache = cache_object_core(self);
	struct value value;
	struct key key;
	PyThreadState *saved = NULL;
	int status, result = -1;

	key.data = key.inline_data; /* for key_free(); not an initializer, which would clear the rest too */
	if (!cache)
		return -1;
	if (cache_object_read_item(self, &value, object, ttl, cost) < 0 || key_encode(self->core, &key, key_object) < 0)
		goto out;
	if (value.bytes >= GIL_RELEASE_BYTES)
		saved = PyEval_SaveThread();
	if (self->is_disabled)
		status = cache_object_accept(self, cache, &key);
	else
		status = cache_set(cache, key.data, key.bytes, &value.item, if_absent ? SET_IF_ABSENT : SET_ALWAYS);
	if (saved)
		PyEval_RestoreThread(saved);
	switch (status) {
	case DRP_OK:
		result = 1;
		break;
	case DRP_REFUSED:
		if (if_absent) { /* False says that the key is there */
			core_raise(status, "add");
			break;
		} /* fall through */
	case DRP_EXISTS:
		result = 0;
		break;
	case DRP_TOO_LARGE:
		core_raise_too_large(value.bytes, self->max_bytes);
		break;
	default:
		core_raise(status, status == DRP_CLOSED ? "this cache" : "storing this value");
	}
out:
	key_free(&key);
	value_free(&value);
	return result;
}

static PyObject *store_call(CacheObject *self, const char *function, PyObject *const *arguments, Py_ssize_t count,
			    PyObject *keywords, bool if_absent)
{
	static const char *const names[] = {"key", "value", "ttl", "cost"};
	PyObject *slots[4] = {NULL};

	if (read_arguments(function, arguments, count, keywords, names, 2, slots, 4) < 0)
		return NULL;
	int stored = store(self, slots[0], slots[1], slots[2], slots[3], if_absent);
	if (stored < 0)
		return NULL;
	return PyBool_FromLong(stored);
}

static PyObject *cache_object_set(CacheObject *self, PyObject *const *arguments, Py_ssize_t count, PyObject *keywords)
{
	return store_call(self, "set", arguments, count, keywords, false);
}

static PyObject *cache_object_add(CacheObject *self, PyObject *const *arguments, Py_ssize_t count, PyObject *keywords)
{
	return store_call(self, "add", arguments, count, keywords, true);
}

/* What the core said to "forget this key": 1: it is gone; 0: it was not there; -1 with an exception. */
int cache_object_forgotten(int status)
{
	if (status == DRP_CLOSED)
		raise_closed();
	return status == DRP_OK ? 1 : status == DRP_MISS ? 0 : -1;
}

static int discard(CacheObject *self, PyObject *key_object)
{
	struct cache *cache = cache_object_core(self);
	struct key key;
	int gone = -1;

	if (!cache)
		return -1;
	if (key_encode(self->core, &key, key_object) == 0)
		gone = cache_object_forgotten(cache_delete(cache, key.data, key.bytes, 0));
	key_free(&key);
	return gone;
}

/* A hit is one call in C; at a miss Python goes on with the encoded key: _create() in src/droppable/_cache.py. */
static PyObject *cache_object_get_or_create(CacheObject *self, PyObject *const *arguments, Py_ssize_t count,
					    PyObject *keywords)
{
	static const char *const names[] = {"key", "factory", "ttl", "copy"};
	PyObject *slots[4] = {NULL}, *result = NULL;
	struct key key;
	int copy;

	if (read_arguments("get_or_create", arguments, count, keywords, names, 2, slots, count > 3 ? 3 : 4) < 0 ||
	    (copy = read_copy(slots[3])) < 0)
		return NULL;
	const enum find_mode mode = copy ? FIND_COPY : FIND_VALUE;
	int found = key_encode(self->core, &key, slots[0]) < 0 ? -1 : find(self, &key, mode, NULL, &result);
	PyObject *encoded = found == 0 ? key_as_object(&key) : NULL;
	key_free(&key);
	if (encoded)
		result = PyObject_CallMethod((PyObject *)self, "_create", "NOOO", encoded, slots[1],
					     slots[2] ? slots[2] : Py_None, copy ? Py_True : Py_False);
	return result;
}

static int cache_object_setitem(CacheObject *self, PyObject *key, PyObject *value)
{
	if (value)
		return store(self, key, value, NULL, NULL, false) < 0 ? -1 : 0;
	int gone = discard(self, key);
	if (gone == 0)
		PyErr_SetObject(PyExc_KeyError, key);
	return gone > 0 ? 0 : -1;
}

static PyObject *cache_object_discard(CacheObject *self, PyObject *key)
{
	int gone = discard(self, key);
	return gone < 0 ? NULL : PyBool_FromLong(gone);
}

static int cache_object_contains(CacheObject *self, PyObject *key_object)
{
	struct cache *cache = cache_object_core(self);
	struct key key;
	int there = -1;

	if (!cache)
		return -1;
	if (key_encode(self->core, &key, key_object) == 0)
		there = cache_contains(cache, key.data, key.bytes);
	key_free(&key);
	if (there == DRP_CLOSED)
		raise_closed();
	return there < 0 ? -1 : there;
}

static Py_ssize_t cache_object_length(CacheObject *self)
{
	struct cache *cache = cache_object_open(self);
	struct cache_stats stats;

	if (!cache)
		return -1;
	cache_read_stats(cache, &stats);
	return (Py_ssize_t)stats.entries;
}

struct walk {
	struct core_state *core;
	uint64_t scope; /* whose keys */
	PyObject *keys;
};

struct encoded {
	struct core_state *core;
	const void *data;
	size_t bytes;
};

static PyObject *decode_key(const void *context)
{
	const struct encoded *encoded = context;
	return key_decode(encoded->core, encoded->data, encoded->bytes);
}

static int append_key(void *context, const void *data, size_t bytes)
{
	const struct walk *walk = context;
	size_t start;
	if (!key_in_scope(data, bytes, walk->scope, &start) || key_is_digest((const unsigned char *)data + start))
		return DRP_OK;
	const struct encoded encoded = {walk->core, (const unsigned char *)data + start, bytes - start};
	bool failed_twice;
	PyObject *key = core_try_twice(decode_key, &encoded, &failed_twice);
	if (failed_twice) {
		PyErr_Clear(); /* nobody can make this key any more: its class is gone, say */
		return DRP_OK;
	}
	int result = key ? PyList_Append(walk->keys, key) : -1;
	Py_XDECREF(key);
	return result < 0 ? DRP_INVALID : DRP_OK;
}

static PyObject *cache_object_walk(CacheObject *self, PyObject *const *arguments, Py_ssize_t count)
{
	struct cache *cache = cache_object_core(self);
	struct walk walk = {.core = self->core};

	if (!cache)
		return NULL;
	if (count < 1 || count > 2) {
		PyErr_SetString(PyExc_TypeError, "_walk() takes a cursor and a scope");
		return NULL;
	}
	uint64_t cursor = PyLong_AsUnsignedLongLong(arguments[0]);
	if (PyErr_Occurred() || key_read_scope(count > 1 ? arguments[1] : NULL, &walk.scope) < 0)
		return NULL;
	walk.keys = PyList_New(0);
	if (!walk.keys)
		return NULL;
	int status = cache_walk(cache, &cursor, append_key, &walk);
	if (status == DRP_OK)
		return Py_BuildValue("KN", (unsigned long long)cursor, walk.keys);
	Py_DECREF(walk.keys);
	if (status == DRP_MISS)
		Py_RETURN_NONE;
	return PyErr_Occurred() ? NULL : core_raise(status, "this cache");
}

static PyObject *cache_object_clear(CacheObject *self, PyObject *unused)
{
	(void)unused;
	struct cache *cache = cache_object_core(self);
	if (!cache)
		return NULL;
	if (cache_object_without_gil(cache, cache_clear) == DRP_CLOSED)
		return raise_closed();
	Py_RETURN_NONE;
}

static int close_core(struct cache *cache)
{
	cache_close(cache);
	return DRP_OK;
}

static PyObject *cache_object_close(CacheObject *self, PyObject *unused)
{
	struct cache *cache = atomic_load_explicit(&self->cache, memory_order_acquire);

	(void)unused;
	atomic_store_explicit(&self->closed, true, memory_order_release);
	if (cache)
		cache_object_without_gil(cache, close_core);
	Py_RETURN_NONE;
}

static PyObject *cache_object_new(PyTypeObject *type, PyObject *arguments, PyObject *keywords)
{
	PyObject *module = PyType_GetModuleByDef(type, &core_module); /* type derives from a type of this module */
	CacheObject *self = module ? (CacheObject *)type->tp_alloc(type, 0) : NULL;

	(void)arguments; /* for __init__() */
	(void)keywords;
	if (!self)
		return NULL;
	atomic_init(&self->cache, NULL);
	atomic_init(&self->made, false);
	atomic_init(&self->closed, false);
	atomic_init(&self->uncached, 0);
	for (int cause = 0; cause < UNSTORABLE_CAUSES; cause++)
		atomic_init(&self->unstorable[cause], 0);
	self->core = core_of_module(module);
	self->module = Py_NewRef(module);
	return (PyObject *)self;
}

static int cache_object_init(CacheObject *self, PyObject *arguments, PyObject *keywords)
{
	static char *names[] = {"backing", "share_on_fork", "max_bytes", "ttl", "shards", "segment_bytes", "span_bytes",
				"encode", "decode", "unloadable", "disabled", "has_below", NULL};
	struct cache_config config = {0};
	PyObject *max_bytes, *ttl, *shards_object, *segment_object, *span_bytes, *encode, *decode, *unloadable;
	uint64_t shards, segment_bytes, default_ttl_ns;
	struct cache *cache;
	int backing, share_on_fork, is_disabled, has_below;
	bool made = false;

	if (!PyArg_ParseTupleAndKeywords(arguments, keywords, "$ipOOOOOOOOpp", names, &backing, &share_on_fork, &max_bytes,
					 &ttl, &shards_object, &segment_object, &span_bytes, &encode, &decode, &unloadable,
					 &is_disabled, &has_below))
		return -1;
	if (read_ttl(ttl, 0, &default_ttl_ns) < 0 ||
	    read_unsigned(max_bytes, "max_bytes", UINT64_MAX, &config.max_bytes) < 0 ||
	    read_unsigned(shards_object, "shards", UINT_MAX, &shards) < 0 ||
	    read_unsigned(segment_object, "segment_bytes", SIZE_MAX, &segment_bytes) < 0 ||
	    read_unsigned(span_bytes, "span_bytes", UINT64_MAX, &config.span_bytes) < 0)
		return -1;
	config.backing = (enum prim_backing)backing;
	config.share_on_fork = share_on_fork;
	config.shards = (unsigned)shards;
#ifndef Py_GIL_DISABLED
	config.one_by_one = true; /* but for copies of large values, which are made without a lock of the core */
#endif
	config.segment_bytes = (size_t)segment_bytes;
	config.waits = &gil_waits;
	/* Numbers were read before, for theirs is code that may call __init__() again; none runs from here on. */
	if (!atomic_compare_exchange_strong(&self->made, &made, true)) {
		PyErr_SetString(PyExc_RuntimeError, "this cache is there already; make a new one");
		return -1;
	}
	int status = cache_create(&config, &cache);
	if (status != DRP_OK) {
		atomic_store(&self->made, false);
		if (status == DRP_INVALID)
			PyErr_Format(PyExc_ValueError,
				     "layout: shards must be a power of two up to 64, segment_bytes a power of two up to 2 MiB, and "
				     "max_bytes, where there are several shards, 4 * shards * segment_bytes or more (a segment has "
				     "8 pages at least); you gave shards=%u, segment_bytes=%zu, max_bytes=%llu",
				     config.shards, config.segment_bytes, (unsigned long long)config.max_bytes);
		else
			core_raise(status, "making a cache");
		return -1;
	}
	self->default_ttl_ns = default_ttl_ns;
	self->max_bytes = config.max_bytes;
	self->is_disabled = is_disabled;
	self->has_below = has_below;
	self->encode = encode == Py_None ? NULL : Py_NewRef(encode);
	self->decode = Py_NewRef(decode);
	self->unloadable = Py_NewRef(unloadable);
	atomic_store_explicit(&self->cache, cache, memory_order_release);
	return 0;
}

/* encode and decode may hold a serializer, and that whatever it likes. */
static int cache_object_traverse(CacheObject *self, visitproc visit, void *arg)
{
	Py_VISIT(Py_TYPE(self));
	Py_VISIT(self->encode);
	Py_VISIT(self->decode);
	Py_VISIT(self->unloadable);
	Py_VISIT(self->module);
	return 0;
}

/* What still runs finds a closed cache, and decodes nothing. The module stays, for its state. */
static int cache_object_tp_clear(CacheObject *self)
{
	struct cache *cache = atomic_load_explicit(&self->cache, memory_order_acquire);

	if (cache)
		cache_object_without_gil(cache, close_core);
	Py_CLEAR(self->encode);
	Py_CLEAR(self->decode);
	Py_CLEAR(self->unloadable);
	return 0;
}

static int end_core(struct cache *cache)
{
	cache_close(cache);
	cache_unref(cache);
	return DRP_OK;
}

/* Nobody can reach the object any more, so that other threads may run while its memory goes. */
static void cache_object_dealloc(CacheObject *self)
{
	PyTypeObject *type = Py_TYPE(self);
	struct cache *cache = atomic_load_explicit(&self->cache, memory_order_acquire);

	PyObject_GC_UnTrack(self);
	if (cache)
		cache_object_without_gil(cache, end_core);
	Py_CLEAR(self->encode);
	Py_CLEAR(self->decode);
	Py_CLEAR(self->unloadable);
	Py_DECREF(self->module);
	type->tp_free(self);
	Py_DECREF(type);
}

#define FAST(function) (PyCFunction)(void (*)(void))(function), METH_FASTCALL | METH_KEYWORDS

static PyMethodDef cache_methods[] = {
	{"get", FAST(cache_object_get),
	 "get($self, key, default=None, *, copy=False)\n--\n\n"
	 "The value of key, or default when it is absent, expired, evicted or dropped.\n\n"
	 "bytes, str and pickled values come back equal to what was stored. Arrays of a page or more come back read-only\n"
	 "on the cache's own memory, which stays while any reference to it lives; with copy=True they are writable, on\n"
	 "memory of the caller's own. Any thread may call it; values of 256 KiB or more are copied without the GIL.\n\n"
	 "Raises:\n    ClosedError: the cache was closed.\n    TypeError: the key cannot be hashed or pickled."},
	{"set", FAST(cache_object_set),
	 "set($self, key, value, ttl=None, cost=None)\n--\n\n"
	 "Stores value under key, instead of what was there. True, or False when no memory is left for it: the insert was\n"
	 "refused and counted, and key is absent.\n\n"
	 "Args:\n    ttl: seconds or a timedelta until it expires, or droppable.NEVER; None: the cache's own ttl.\n"
	 "    cost: seconds that it takes to create it again; None: unknown.\n\n"
	 "Raises:\n    ValueTooLargeError: it can never fit. ValueError: ttl or cost out of range.\n"
	 "    UnpicklableError: key or value cannot be pickled; it is a TypeError and a pickle.PicklingError.\n"
	 "    MemoryError: no address space (RLIMIT_AS). ClosedError: the cache was closed."},
	{"add", FAST(cache_object_add),
	 "add($self, key, value, ttl=None, cost=None)\n--\n\n"
	 "As set(), but only if key is not there: True if it was stored. One of several threads wins."},
	{"get_or_create", FAST(cache_object_get_or_create),
	 "get_or_create($self, key, factory, ttl=None, *, copy=False)\n--\n\n"
	 "The value of key, or factory()'s, which is stored. One caller computes, the others wait for it.\n\n"
	 "Each caller gets a value of his own, as get() gives it: whoever computes too. With copy=True arrays are writable.\n"
	 "A result that cannot be stored (it cannot be pickled, can never fit, or memory is short) is returned as it is,\n"
	 "counted, and told once on the logger `droppable`. The time that factory() takes is stored as the entry's cost. An\n"
	 "exception in factory() reaches everybody who waits, each a copy of his own, and nothing is stored. Neither is a\n"
	 "result whose key was set, deleted or cleared while factory() ran: it is returned to those who waited for it, and\n"
	 "later callers compute anew. A factory that asks for the same key, itself, in child tasks or in threads that it\n"
	 "waits for, computes it there: no deadlock; as a backstop nobody waits longer than the cache's wait_seconds.\n\n"
	 "Raises:\n    TypeError: the key cannot be hashed or pickled; factory is no function, or a coroutine function.\n"
	 "    Whatever factory() raises."},
	{"discard", (PyCFunction)cache_object_discard, METH_O,
	 "discard($self, key, /)\n--\n\nForgets key. True if it was there."},
	{"delete", (PyCFunction)cache_object_discard, METH_O,
	 "delete($self, key, /)\n--\n\nThe same as discard()."},
	{"clear", (PyCFunction)cache_object_clear, METH_NOARGS,
	 "clear($self, /)\n--\n\nForgets everything and gives its memory back. Arrays that are held stay valid."},
	{"close", (PyCFunction)cache_object_close, METH_NOARGS,
	 "close($self, /)\n--\n\nAs clear(), and for good: every later call raises ClosedError. May be called again."},
	{"_raw", (PyCFunction)cache_object_raw, METH_O, "_raw($self, key, /)\n--\n\n(kind, buffer), or None."},
	{"_lease", (PyCFunction)cache_object_lease, METH_O,
	 "_lease($self, key, /)\n--\n\nA Lease: stale once key was set, deleted or cleared."},
	{"_keep", (PyCFunction)(void (*)(void))cache_object_keep, METH_FASTCALL,
	 "_keep($self, lease, key, value, ttl, cost, flags, /)\n--\n\n"
	 "Stores what was computed under lease, and ends it: (own, copy, error). own is the caller's value, as from a hit;\n"
	 "copy a Copy for those who waited, or None: they look into the cache; error says why it cannot be stored, or None.\n"
	 "flags: 1: it is to be stored; 2: own is to be writable; 4: somebody waits."},
	{"_walk", (PyCFunction)(void (*)(void))cache_object_walk, METH_FASTCALL,
	 "_walk($self, cursor, scope=None, /)\n--\n\n"
	 "(next cursor, list of keys), or None at the end. Begin with 0. Without a scope: keys that have none."},
	{"_scope", (PyCFunction)(void (*)(void))cache_object_scope, METH_FASTCALL,
	 "_scope($self, cell, mode, /)\n--\n\n"
	 "The scope in a cell. mode 0: None if there is none, counted as a miss; 1: the same, not counted; 2: one is made."},
	{"_get_in", (PyCFunction)(void (*)(void))cache_object_get_in, METH_FASTCALL,
	 "_get_in($self, cell, key, default, copy, /)\n--\n\nget() in the part of the cache that this cell is of."},
	{"_count", (PyCFunction)cache_object_count, METH_O, "_count($self, scope, /)\n--\n\nHow many keys it has."},
	{"_delete_prefix", (PyCFunction)(void (*)(void))cache_object_delete_prefix, METH_FASTCALL,
	 "_delete_prefix($self, prefix, scope, /)\n--\n\nHow many keys were deleted that begin so. scope may be None."},
	{"_revoke", (PyCFunction)cache_object_revoke, METH_O,
	 "_revoke($self, scope, /)\n--\n\nMakes the open leases of keys of this scope stale."},
	{NULL, NULL, 0, NULL},
};

static PyType_Slot cache_slots[] = {
	{Py_tp_doc,
	 "Cache(*, backing, share_on_fork, max_bytes, ttl, shards, segment_bytes, span_bytes, encode, decode, unloadable,"
	 " disabled, has_below)\n--\n\n"
	 "The C core's cache. Use droppable.Cache."},
	{Py_tp_new, cache_object_new},
	{Py_tp_init, cache_object_init},
	{Py_tp_dealloc, cache_object_dealloc},
	{Py_tp_traverse, cache_object_traverse},
	{Py_tp_clear, cache_object_tp_clear},
	{Py_tp_methods, cache_methods},
	{Py_mp_subscript, cache_object_getitem},
	{Py_mp_ass_subscript, cache_object_setitem},
	{Py_mp_length, cache_object_length},
	{Py_sq_contains, cache_object_contains},
	{0, NULL},
};

static PyType_Spec cache_spec = {
	.name = "droppable._core.Cache",
	.basicsize = sizeof(CacheObject),
	.flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC,
	.slots = cache_slots,
};

/* What the files beside this one call of it. */
int cache_object_find_about(CacheObject *self, const struct key *key, struct cache_about *about, PyObject **result)
{
	return find(self, key, FIND_VALUE, about, result);
}

/* A type is made with one table of methods; those of other files are put beside them. */
static int add_methods(PyTypeObject *type, PyMethodDef *methods)
{
	for (; methods->ml_name; methods++) {
		PyObject *method = PyDescr_NewMethod(type, methods);
		const int status = method ? PyObject_SetAttrString((PyObject *)type, methods->ml_name, method) : -1;
		Py_XDECREF(method);
		if (status < 0)
			return -1;
	}
	return 0;
}

int core_add_cache(PyObject *module)
{
	PyTypeObject *type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &cache_spec, NULL);

	core_of_module(module)->cache_type = type;
	if (type && (add_methods(type, cache_update_methods) < 0 || add_methods(type, cache_many_methods) < 0 ||
		     add_methods(type, cache_told_methods) < 0))
		return -1;
	return type ? PyModule_AddObjectRef(module, "Cache", (PyObject *)type) : -1;
}
