/*
 * cache_many.c - methods of _core.Cache for many keys at once.
 *
 *   get_many()   64 keys are encoded -- cache_get_many(): values copied, a lock for each shard -- decoded, put into the dict
 *
 * Python code runs only before and after, as the keys' and values' classes have it; it may use the cache.
 */
#include <string.h>

#include "arguments.h"
#include "cache/lease.h"
#include "cache/many.h"
#include "cache_object.h"
#include "key.h"
#include "module.h"
#include "value.h"

struct asked { /* one key of a batch */
	struct cache_sink sink; /* the first field, for reserve() */
	PyObject *object;
	unsigned char *own_key; /* its bytes, where there was no room for them in the batch's; or NULL */
	/* Of the value: bytes or a str, and for the other kinds what value_finish() makes it of. */
	PyObject *value;
	unsigned char *meta;
	size_t meta_bytes;
	uint8_t kind;
};

/* So few that most of it stays in the processor's nearest cache; values of 100 B take as much again. */
enum { BATCH_KEY_BYTES = MANY_KEYS_MOST * 48 };

static void clear_value(struct asked *one)
{
	Py_CLEAR(one->value);
	PyMem_Free(one->meta);
	one->meta = NULL;
	one->meta_bytes = 0;
}

/* Called under a shard's lock, and again if a value was dropped while it was copied. */
static int reserve(struct cache_sink *base, uint8_t kind, size_t meta_bytes, size_t value_bytes, void **meta, void **value)
{
	struct asked *one = (struct asked *)base;

	if (one->value)
		clear_value(one);
	one->kind = kind;
	if (meta_bytes > 0) {
		one->meta = PyMem_Malloc(meta_bytes);
		if (!one->meta)
			return PyErr_NoMemory(), -1;
		one->meta_bytes = meta_bytes;
		*meta = one->meta;
	}
	one->value = kind == VALUE_ASCII ? PyUnicode_New((Py_ssize_t)value_bytes, 127)
					 : PyBytes_FromStringAndSize(NULL, (Py_ssize_t)value_bytes);
	if (!one->value)
		return -1;
	*value = kind == VALUE_ASCII ? PyUnicode_DATA(one->value) : PyBytes_AS_STRING(one->value);
	return 0;
}

/* What is to be a list of keys: a new list or tuple, or NULL with an exception. */
static PyObject *read_keys(PyObject *object)
{
	if (PyUnicode_Check(object) || PyBytes_Check(object) || !(Py_TYPE(object)->tp_iter || PySequence_Check(object))) {
		PyErr_Format(PyExc_TypeError, "keys must be a list or another iterable of keys; you gave %R", object);
		return NULL;
	}
	return PySequence_Fast(object, "keys must be a list or another iterable of keys");
}

/* The key of its bytes, for calls that want one; not for key_free(). */
static void view_key(CacheObject *self, const struct cache_wanted *wanted, struct key *key)
{
	key->core = self->core;
	key->data = (unsigned char *)(uintptr_t)wanted->key;
	key->bytes = wanted->key_bytes;
}

/* Makes the object of what was copied. As finish(). */
static int decode(CacheObject *self, struct asked *asked, const struct cache_wanted *wanted, PyObject **value)
{
	struct cache_pin no_pin = {0};
	struct value_sink sink;
	struct key key;
	bool failed_twice;

	value_sink_init(&sink);
	sink.kind = asked->kind;
	if (asked->meta) {
		sink.meta = asked->meta;
		sink.meta_bytes = asked->meta_bytes;
		asked->meta = NULL;
	}
	sink.object = asked->value;
	asked->value = NULL;
	*value = value_finish(self->core, &sink, &no_pin, self->decode, &failed_twice);
	if (failed_twice) {
		view_key(self, wanted, &key);
		return cache_object_give_up(self, self->cache, &key, wanted->place, &sink);
	}
	return *value ? 1 : -1;
}

/* A value that was found: a new reference in *value, and 1; 0: a miss after all; -1 with an exception. Not the plain ones. */
static int finish(CacheObject *self, struct asked *asked, const struct cache_wanted *wanted, PyObject **value)
{
	struct key key;

	switch (wanted->status) {
	case DRP_OK:
		return decode(self, asked, wanted, value);
	case DRP_MISS:
		return 0;
	case WANTED_ALONE:
		view_key(self, wanted, &key);
		return cache_object_find_about(self, &key, NULL, value);
	default:
		if (!PyErr_Occurred())
			core_raise(wanted->status == DRP_REFUSED ? DRP_NO_MEMORY : wanted->status,
				   wanted->status == DRP_CLOSED ? "this cache" : "get_many");
		return -1;
	}
}

/* The key's bytes, at a place for them or on memory of their own. 0, or -1 with an exception. */
static int encode_long(CacheObject *self, struct asked *one, struct cache_wanted *wanted, uint64_t scope, unsigned char *into,
		       size_t room)
{
	struct key key;
	int status = key_encode_scoped(self->core, &key, one->object, scope);

	if (status == 0 && key.bytes > room) {
		into = one->own_key = PyMem_Malloc(key.bytes);
		if (!into) {
			PyErr_NoMemory();
			status = -1;
		}
	}
	if (status == 0) {
		memcpy(into, key.data, key.bytes);
		wanted->key = into;
		wanted->key_bytes = key.bytes;
	}
	key_free(&key);
	return status;
}

/* Up to MANY_KEYS_MOST keys, from *at on. 0, or -1 with an exception. */
static int get_batch(CacheObject *self, struct cache *cache, PyObject *keys, Py_ssize_t *at, uint64_t scope, PyObject *result)
{
	struct cache_wanted wanted[MANY_KEYS_MOST];
	struct asked asked[MANY_KEYS_MOST];
	unsigned char key_data[BATCH_KEY_BYTES];
	size_t count = 0, used = 0;
	int status = 0;

	/* A list may get shorter while its keys are encoded. */
	for (; status == 0 && count < MANY_KEYS_MOST && *at < PySequence_Fast_GET_SIZE(keys); count++) {
		struct asked *one = &asked[count];
		struct cache_wanted *want = &wanted[count];
		*one = (struct asked){.sink = {.reserve = reserve}, .object = Py_NewRef(PySequence_Fast_GET_ITEM(keys, (*at)++))};
		want->sink = &one->sink;
		want->status = DRP_MISS;
		want->key = key_data + used;
		want->key_bytes = key_encode_short(one->object, scope, key_data + used, sizeof(key_data) - used);
		if (want->key_bytes == 0)
			status = encode_long(self, one, want, scope, key_data + used, sizeof(key_data) - used);
		used += one->own_key || status < 0 ? 0 : want->key_bytes;
	}
	if (status == 0)
		cache_get_many(cache, wanted, count);
	for (size_t i = 0; i < count; i++) {
		struct asked *one = &asked[i];
		int found = status == 0;
		if (found && !(wanted[i].status == DRP_OK && (one->kind == VALUE_BYTES || one->kind == VALUE_ASCII))) {
			PyObject *value = NULL;
			found = finish(self, one, &wanted[i], &value);
			clear_value(one);
			one->value = value;
		}
		if (found < 0 || (found > 0 && PyDict_SetItem(result, one->object, one->value) < 0))
			status = -1;
		Py_XDECREF(one->value);
		Py_DECREF(one->object);
		if (one->own_key || one->meta) {
			PyMem_Free(one->own_key);
			PyMem_Free(one->meta);
		}
	}
	return status < 0 || PyErr_CheckSignals() < 0 ? -1 : 0;
}

/* With places for that many, where Python offers it: to grow takes as long as to fill it. */
static PyObject *new_dict(Py_ssize_t count)
{
#if PY_VERSION_HEX < 0x030D0000
	return _PyDict_NewPresized(count < MANY_KEYS_MOST ? count : 2 * MANY_KEYS_MOST);
#else
	(void)count;
	return PyDict_New();
#endif
}

static PyObject *get_all(CacheObject *self, PyObject *keys_object, uint64_t scope)
{
	struct cache *cache = cache_object_core(self);
	PyObject *keys = cache ? read_keys(keys_object) : NULL, *result = keys ? new_dict(PySequence_Fast_GET_SIZE(keys)) : NULL;
	int status = result ? 0 : -1;
	Py_ssize_t at = 0;

	while (status == 0 && at < PySequence_Fast_GET_SIZE(keys))
		status = get_batch(self, cache, keys, &at, scope, result);
	Py_XDECREF(keys);
	if (status < 0)
		Py_CLEAR(result);
	return result;
}

/* Keys and values of a mapping, or pairs of them, as a list or tuple of pairs; a new reference, or NULL with an exception. */
static PyObject *read_items(PyObject *object)
{
	if (PyDict_CheckExact(object))
		return PyDict_Items(object);
	if (PyObject_HasAttrString(object, "keys"))
		return PyMapping_Items(object);
	if (PyUnicode_Check(object) || PyBytes_Check(object) || !(Py_TYPE(object)->tp_iter || PySequence_Check(object)))
		return PyErr_Format(PyExc_TypeError, "items must be a mapping or an iterable of pairs of key and value; you gave %R", object);
	return PySequence_Fast(object, "items must be a mapping or an iterable of pairs of key and value");
}

/* 1: stored; 0: refused for want of memory; -1 with an exception. */
static int set_one(CacheObject *self, struct cache *cache, PyObject *key_object, PyObject *object, uint64_t ttl_ns, uint64_t scope)
{
	PyThreadState *saved = NULL;
	struct value value;
	struct key key;
	int status, result = -1;

	key.data = key.inline_data; /* for key_free() */
	if (value_encode(self->core, &value, object, self->encode) < 0 ||
	    key_encode_scoped(self->core, &key, key_object, scope) < 0)
		goto out;
	value.item.ttl_ns = ttl_ns;
	if (value.bytes >= GIL_RELEASE_BYTES)
		saved = PyEval_SaveThread();
	status = self->is_disabled ? cache_object_accept(self, cache, &key)
				   : cache_set(cache, key.data, key.bytes, &value.item, SET_ALWAYS);
	if (saved)
		PyEval_RestoreThread(saved);
	if (status == DRP_OK || status == DRP_REFUSED)
		result = status == DRP_OK;
	else if (status == DRP_TOO_LARGE)
		core_raise_too_large(value.bytes, self->max_bytes);
	else
		core_raise(status, status == DRP_CLOSED ? "this cache" : "storing this value");
out:
	key_free(&key);
	value_free(&value);
	return result;
}

/* A pair's key and value, as new references. */
static int read_pair(PyObject *item, PyObject **key, PyObject **value)
{
	PyObject *pair = PyUnicode_Check(item) || PyBytes_Check(item) ? NULL : PySequence_Fast(item, "");

	if (!pair && PyErr_Occurred() && !PyErr_ExceptionMatches(PyExc_TypeError))
		return -1;
	if (!pair || PySequence_Fast_GET_SIZE(pair) != 2) {
		PyErr_Format(PyExc_TypeError, "items must be a mapping or an iterable of pairs of key and value; %R is no pair", item);
		Py_XDECREF(pair);
		return -1;
	}
	*key = Py_NewRef(PySequence_Fast_GET_ITEM(pair, 0));
	*value = Py_NewRef(PySequence_Fast_GET_ITEM(pair, 1));
	Py_DECREF(pair);
	return 0;
}

static PyObject *set_all(CacheObject *self, PyObject *items_object, PyObject *ttl, uint64_t scope)
{
	struct cache *cache = cache_object_core(self);
	PyObject *items = NULL, *refused = NULL;
	uint64_t ttl_ns;

	if (!cache || read_ttl(ttl, self->default_ttl_ns, &ttl_ns) < 0 || !(items = read_items(items_object)))
		return NULL;
	int status = (refused = PyList_New(0)) ? 0 : -1;
	for (Py_ssize_t i = 0; status == 0 && i < PySequence_Fast_GET_SIZE(items); i++) {
		PyObject *item = Py_NewRef(PySequence_Fast_GET_ITEM(items, i)), *key, *value;
		status = read_pair(item, &key, &value);
		Py_DECREF(item);
		if (status < 0)
			break;
		const int stored = set_one(self, cache, key, value, ttl_ns, scope);
		if (stored < 0 || (stored == 0 && PyList_Append(refused, key) < 0) || PyErr_CheckSignals() < 0)
			status = -1;
		Py_DECREF(key);
		Py_DECREF(value);
	}
	Py_DECREF(items);
	if (status < 0)
		Py_CLEAR(refused);
	return refused;
}

static PyObject *delete_all(CacheObject *self, PyObject *keys_object, uint64_t scope)
{
	struct cache *cache = cache_object_core(self);
	PyObject *keys = cache ? read_keys(keys_object) : NULL;
	int status = keys ? 0 : -1;
	Py_ssize_t gone = 0;

	for (Py_ssize_t i = 0; status == 0 && i < PySequence_Fast_GET_SIZE(keys); i++) {
		PyObject *object = Py_NewRef(PySequence_Fast_GET_ITEM(keys, i));
		struct key key;
		status = key_encode_scoped(self->core, &key, object, scope);
		const int was_there = status < 0 ? -1 : cache_object_forgotten(cache_delete(cache, key.data, key.bytes, 0));
		key_free(&key);
		Py_DECREF(object);
		if (was_there < 0 || PyErr_CheckSignals() < 0)
			status = -1;
		gone += was_there > 0;
	}
	Py_XDECREF(keys);
	return status < 0 ? NULL : PyLong_FromSsize_t(gone);
}

static PyObject *cache_object_get_many(CacheObject *self, PyObject *keys)
{
	return get_all(self, keys, SCOPE_NONE);
}

static PyObject *cache_object_set_many(CacheObject *self, PyObject *const *arguments, Py_ssize_t count, PyObject *keywords)
{
	static const char *const names[] = {"items", "ttl"};
	PyObject *slots[2] = {NULL};

	if (read_arguments("set_many", arguments, count, keywords, names, 1, slots, 2) < 0)
		return NULL;
	return set_all(self, slots[0], slots[1], SCOPE_NONE);
}

static PyObject *cache_object_delete_many(CacheObject *self, PyObject *keys)
{
	return delete_all(self, keys, SCOPE_NONE);
}

/* The same for a part of the cache: its scope is the last argument. */
static bool read_scoped(const char *function, PyObject *const *arguments, Py_ssize_t count, Py_ssize_t wanted, uint64_t *scope)
{
	if (count != wanted) {
		PyErr_Format(PyExc_TypeError, "%s() takes %zd arguments, the last of them a scope", function, wanted);
		return false;
	}
	return key_read_scope(arguments[count - 1], scope) == 0;
}

static PyObject *get_many_scoped(CacheObject *self, PyObject *const *arguments, Py_ssize_t count)
{
	uint64_t scope;
	return read_scoped("_get_many", arguments, count, 2, &scope) ? get_all(self, arguments[0], scope) : NULL;
}

static PyObject *set_many_scoped(CacheObject *self, PyObject *const *arguments, Py_ssize_t count)
{
	uint64_t scope;
	return read_scoped("_set_many", arguments, count, 3, &scope) ? set_all(self, arguments[0], arguments[1], scope) : NULL;
}

static PyObject *delete_many_scoped(CacheObject *self, PyObject *const *arguments, Py_ssize_t count)
{
	uint64_t scope;
	return read_scoped("_delete_many", arguments, count, 2, &scope) ? delete_all(self, arguments[0], scope) : NULL;
}

#define SCOPED(function) (PyCFunction)(void (*)(void))(function), METH_FASTCALL

PyMethodDef cache_many_methods[] = {
	{"get_many", (PyCFunction)cache_object_get_many, METH_O,
	 "get_many($self, keys, /)\n--\n\n"
	 "A dict of the keys that are there, in the order asked for, and their values, each as get() gives it. Faster than as\n"
	 "many calls of get(): a hundred short values take half of the time or less.\n\n"
	 "Keys that are equal for a dict (1 and True, say) have one place in it: the last of them that is there counts. Each\n"
	 "key counts as a hit or a miss. It is no snapshot: other threads may change keys between two look-ups.\n\n"
	 "Args:\n    keys: a list or another iterable of keys.\n\n"
	 "Raises:\n    TypeError: keys is a str or bytes, or a key cannot be hashed or pickled.\n    ClosedError."},
	{"set_many", CORE_FAST(cache_object_set_many),
	 "set_many($self, items, ttl=None)\n--\n\n"
	 "Stores many values, one after the other, each as set() does, and returns the list of the keys that were not stored\n"
	 "because no memory is left for them. Other threads see some of them before the others.\n\n"
	 "Args:\n"
	 "    items: a mapping, or an iterable of pairs of key and value.\n"
	 "    ttl: of all of them: seconds, a timedelta, or NEVER; None: the cache's default.\n\n"
	 "Raises:\n"
	 "    TypeError, ValueTooLargeError: a value cannot be stored, or a key. What stands before it is stored, it and what\n"
	 "        stands behind it is not, and keeps its older values.\n"
	 "    ClosedError."},
	{"delete_many", (PyCFunction)cache_object_delete_many, METH_O,
	 "delete_many($self, keys, /)\n--\n\n"
	 "Forgets many keys, one after the other, each as delete() does, and returns how many were there.\n\n"
	 "Args:\n    keys: a list or another iterable of keys.\n\n"
	 "Raises:\n"
	 "    TypeError: keys is a str or bytes, or a key cannot be hashed or pickled; those before it are forgotten.\n"
	 "    ClosedError."},
	{"_get_many", SCOPED(get_many_scoped), "_get_many($self, keys, scope, /)\n--\n\nget_many() in a part of the cache."},
	{"_set_many", SCOPED(set_many_scoped), "_set_many($self, items, ttl, scope, /)\n--\n\nset_many() in a part of the cache."},
	{"_delete_many", SCOPED(delete_many_scoped),
	 "_delete_many($self, keys, scope, /)\n--\n\ndelete_many() in a part of the cache."},
	{NULL, NULL, 0, NULL},
};
