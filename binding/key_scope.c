/*
 * key_scope.c - keys of a part of a cache: a scope, 8 bytes, in front of the key. See key.h for the format and csrc/cache/scope.h for
 * the numbers.
 *
 *   '@' 0123456789ABCDEF 's' "name"                            "name" in that part
 *   '@' 0123456789ABCDEF '@' 0100000000000000 's' "inner"      the cell of the part "inner" within it: no key of the part
 *
 * Python holds a scope as bytes, which a cache stores and gives back without pickle.
 */
#include "key.h"

#include <string.h>

#include "droppable.h"
#include "cache/scope.h"

bool key_in_scope(const unsigned char *data, size_t bytes, uint64_t scope, size_t *start)
{
	*start = scope == SCOPE_NONE ? 0 : KEY_HEAD_BYTES;
	if (bytes <= *start || data[*start] == '@')
		return false;
	return scope == SCOPE_NONE || (data[0] == '@' && memcmp(data + 1, &scope, sizeof(scope)) == 0);
}

int key_read_scope(PyObject *object, uint64_t *scope)
{
	*scope = SCOPE_NONE;
	if (!object || object == Py_None)
		return 0;
	if (!PyBytes_Check(object)) {
		PyErr_Format(PyExc_TypeError, "scope must be bytes that new_scope() gave, or None; you gave %R", object);
		return -1;
	}
	if (PyBytes_GET_SIZE(object) != KEY_SCOPE_BYTES) {
		PyErr_Format(PyExc_ValueError, "scope must be 8 bytes, as new_scope() gives; you gave %R", object);
		return -1;
	}
	memcpy(scope, PyBytes_AS_STRING(object), sizeof(*scope));
	return 0;
}

PyObject *key_new_scope(PyObject *module, PyObject *unused)
{
	uint64_t scope;

	(void)module;
	(void)unused;
	const int status = scope_new(&scope);
	if (status != DRP_OK)
		return core_raise(status, "a random number from the kernel");
	return PyBytes_FromStringAndSize((const char *)&scope, sizeof(scope));
}
