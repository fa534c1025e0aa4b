/*
 * part.c - what namespaces ask of _core.Cache: the scope in a part's cell, and keys that begin alike. See csrc/cache/part.h.
 *
 *   _get_in(cell, key, default, copy) -> value     _scope(cell, mode) -> 8 bytes     _count(scope)     _delete_prefix(prefix, scope)     _revoke(scope)
 *
 * Callers: src/droppable/_namespace.py and _cache.py.
 */
#include "cache/part.h"

#include <string.h>

#include "cache_object.h"
#include "os/hash.h"
#include "key.h"
#include "module.h"
#include "cache/scope.h"

enum { MODE_LOOK, MODE_PEEK, MODE_MAKE, MODES }; /* as in _namespace.py */

/*
 * A disabled cache keeps no cell, but callers who ask at the same moment are to wait for one computation, and a clear() is to find
 * it. So the scope follows from the cell: nothing is ever stored under it.
 */
static uint64_t scope_of_disabled(const struct key *cell)
{
	static const uint64_t secret[2];
	return hash_bytes(secret, cell->data, cell->bytes) | SCOPE_FIRST;
}

static int find_scope(CacheObject *self, struct cache *cache, const struct key *cell, long mode, uint64_t *scope)
{
	if (self->is_disabled) {
		*scope = scope_of_disabled(cell);
		return DRP_OK;
	}
	if (mode == MODE_MAKE)
		return cache_part_make(cache, cell->data, cell->bytes, scope);
	return cache_part_find(cache, cell->data, cell->bytes, mode == MODE_LOOK ? PART_LOOK : PART_PEEK, scope);
}

PyObject *cache_object_scope(CacheObject *self, PyObject *const *arguments, Py_ssize_t count)
{
	struct cache *cache = cache_object_core(self);
	int status = DRP_INVALID; /* an exception is set */
	uint64_t scope = SCOPE_NONE;
	struct key cell;

	if (!cache)
		return NULL;
	const long mode = count == 2 ? PyLong_AsLong(arguments[1]) : -1;
	if (mode < 0 || mode >= MODES) {
		PyErr_SetString(PyExc_TypeError, "_scope() takes a cell and a mode");
		return NULL;
	}
	if (key_encode(self->core, &cell, arguments[0]) == 0)
		status = find_scope(self, cache, &cell, mode, &scope);
	key_free(&cell);
	if (status == DRP_OK)
		return PyBytes_FromStringAndSize((const char *)&scope, sizeof(scope));
	if (status == DRP_MISS)
		Py_RETURN_NONE;
	return PyErr_Occurred() ? NULL : core_raise(status, status == DRP_CLOSED ? "this cache" : "storing a namespace's number");
}

/* 1 and *result; 0: the part has no such key, or there is no part; -1 with an exception: the key is none, say. */
static int find_in(CacheObject *self, struct cache *cache, PyObject *cell_object, PyObject *key_object, int copy, PyObject **result)
{
	uint64_t scope = SCOPE_NONE;
	struct key cell, key;
	int status = DRP_INVALID; /* an exception is set */

	if (key_encode(self->core, &cell, cell_object) == 0)
		status = find_scope(self, cache, &cell, MODE_LOOK, &scope);
	key_free(&cell);
	if (status != DRP_OK && status != DRP_MISS) {
		if (!PyErr_Occurred())
			core_raise(status, status == DRP_CLOSED ? "this cache" : "looking for a namespace's number");
		return -1;
	}
	int found = key_encode_scoped(self->core, &key, key_object, scope);
	if (found == 0 && status == DRP_OK)
		found = cache_object_find((PyObject *)self, &key, copy, NULL, result);
	key_free(&key);
	return found;
}

PyObject *cache_object_get_in(CacheObject *self, PyObject *const *arguments, Py_ssize_t count)
{
	struct cache *cache = cache_object_core(self);
	PyObject *result = NULL;

	if (!cache)
		return NULL;
	const int copy = count == 4 ? PyObject_IsTrue(arguments[3]) : -1;
	if (copy < 0) {
		if (!PyErr_Occurred())
			PyErr_SetString(PyExc_TypeError, "_get_in() takes a cell, a key, a default and copy");
		return NULL;
	}
	const int found = find_in(self, cache, arguments[0], arguments[1], copy, &result);
	return found == 0 ? Py_NewRef(arguments[2]) : result;
}

/* How all keys of a scope begin. 0, or -1 with an exception. */
static int begin_of_scope(PyObject *object, unsigned char head[KEY_HEAD_BYTES])
{
	uint64_t scope;

	if (key_read_scope(object, &scope) < 0)
		return -1;
	head[0] = '@';
	memcpy(head + 1, &scope, sizeof(scope));
	return 0;
}

struct count {
	uint64_t scope, count;
};

static int count_key(void *context, const void *key, size_t key_bytes)
{
	struct count *count = context;
	size_t start;

	count->count += key_in_scope(key, key_bytes, count->scope, &start);
	return DRP_OK;
}

PyObject *cache_object_count(CacheObject *self, PyObject *scope_object)
{
	struct cache *cache = cache_object_core(self);
	struct count count = {0};
	uint64_t cursor = 0;
	int status;

	if (!cache || key_read_scope(scope_object, &count.scope) < 0)
		return NULL;
	Py_BEGIN_ALLOW_THREADS
	do
		status = cache_walk(cache, &cursor, count_key, &count);
	while (status == DRP_OK);
	Py_END_ALLOW_THREADS
	if (status != DRP_MISS)
		return core_raise(status, "this cache");
	return PyLong_FromUnsignedLongLong(count.count);
}

PyObject *cache_object_delete_prefix(CacheObject *self, PyObject *const *arguments, Py_ssize_t count)
{
	struct cache *cache = cache_object_core(self);
	int status = DRP_INVALID; /* an exception is set */
	uint64_t scope, deleted;
	struct key prefix;

	if (!cache)
		return NULL;
	if (count != 2 || !(PyUnicode_CheckExact(arguments[0]) || PyBytes_CheckExact(arguments[0]))) {
		PyErr_SetString(PyExc_TypeError, "_delete_prefix() takes a str or bytes, and a scope or None");
		return NULL;
	}
	if (key_read_scope(arguments[1], &scope) < 0)
		return NULL;
	if (key_encode_scoped(self->core, &prefix, arguments[0], scope) == 0) {
		Py_BEGIN_ALLOW_THREADS
		status = cache_prefix_delete(cache, prefix.data, prefix.bytes, &deleted);
		Py_END_ALLOW_THREADS
	}
	key_free(&prefix);
	if (status == DRP_OK)
		return PyLong_FromUnsignedLongLong(deleted);
	return PyErr_Occurred() ? NULL : core_raise(status, status == DRP_CLOSED ? "this cache" : "looking for a prefix");
}

PyObject *cache_object_revoke(CacheObject *self, PyObject *scope)
{
	struct cache *cache = cache_object_core(self);
	unsigned char head[KEY_HEAD_BYTES];

	if (!cache || begin_of_scope(scope, head) < 0)
		return NULL;
	if (cache_prefix_revoke(cache, head, sizeof(head)) == DRP_CLOSED)
		return core_raise(DRP_CLOSED, "this cache");
	Py_RETURN_NONE;
}
