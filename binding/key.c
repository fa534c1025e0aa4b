/*
 * key.c - keys of str, bytes, int, float, bool, None and tuples of them, and the arguments of calls: all that is encoded
 * without running Python code. See key.h for the format.
 */
#include "key.h"

#include <stdlib.h>
#include <string.h>

int key_reserve(struct key *key, size_t more)
{
	if (key->size - key->bytes >= more)
		return 0;
	size_t size = (key->bytes + more) * 2;
	unsigned char *data = PyMem_Malloc(size);
	if (!data) {
		PyErr_NoMemory();
		return -1;
	}
	memcpy(data, key->data, key->bytes);
	key_free(key);
	key->data = data;
	key->size = size;
	return 0;
}

static int append_object_bytes(struct key *key, char tag, PyObject *bytes)
{
	if (!bytes)
		return -1;
	int result = key_append(key, tag, PyBytes_AS_STRING(bytes), (size_t)PyBytes_GET_SIZE(bytes));
	Py_DECREF(bytes);
	return result;
}

static int append_str(struct key *key, PyObject *object)
{
	Py_ssize_t length;

	if (PyUnicode_IS_COMPACT_ASCII(object)) /* nearly all: no call for it */
		return key_append(key, 's', PyUnicode_DATA(object), (size_t)PyUnicode_GET_LENGTH(object));
	const char *text = PyUnicode_AsUTF8AndSize(object, &length);
	if (text)
		return key_append(key, 's', text, (size_t)length);
	if (!PyErr_ExceptionMatches(PyExc_UnicodeEncodeError))
		return -1;
	PyErr_Clear(); /* lone surrogates */
	return append_object_bytes(key, 's', PyUnicode_AsEncodedString(object, "utf-8", "surrogatepass"));
}

/* The value of an int of one digit, as nearly all are, without a call. */
static inline bool is_one_digit(PyObject *object, int64_t *value)
{
#if PY_VERSION_HEX >= 0x030C0000
	if (!PyUnstable_Long_IsCompact((PyLongObject *)object))
		return false;
	*value = PyUnstable_Long_CompactValue((PyLongObject *)object);
#else
	if (Py_SIZE(object) < -1 || Py_SIZE(object) > 1)
		return false;
	*value = (int64_t)Py_SIZE(object) * (int64_t)((PyLongObject *)object)->ob_digit[0];
#endif
	return true;
}

static int append_int(struct key *key, PyObject *object)
{
	int overflow;
	int64_t value = PyLong_AsLongLongAndOverflow(object, &overflow);
	if (!overflow) {
		if (value == -1 && PyErr_Occurred())
			return -1;
		return key_append(key, 'i', &value, sizeof(value));
	}
	PyObject *digits = PyNumber_ToBase(object, 16);
	if (!digits)
		return -1;
	Py_ssize_t length;
	const char *text = PyUnicode_AsUTF8AndSize(digits, &length);
	int result = text ? key_append(key, 'I', text, (size_t)length) : -1;
	Py_DECREF(digits);
	return result;
}

static int encode_native(struct key *key, PyObject *object, int depth);

int key_append_head(struct key *key, char tag, size_t count)
{
	const uint32_t stored = (uint32_t)count;

	if (count != stored) {
		PyErr_SetString(PyExc_OverflowError, "a key with more than 4 294 967 295 elements");
		return -1;
	}
	return key_append(key, tag, &stored, sizeof(stored));
}

/* A part of each of its callers here: a call costs a short key as much as the key does. */
__attribute__((always_inline)) static inline int append_leaf(struct key *key, PyObject *object)
{
	if (PyUnicode_CheckExact(object))
		return append_str(key, object);
	if (PyLong_CheckExact(object)) {
		int64_t value;
		return is_one_digit(object, &value) ? key_append(key, 'i', &value, sizeof(value)) : append_int(key, object);
	}
	if (PyBytes_CheckExact(object))
		return key_append(key, 'b', PyBytes_AS_STRING(object), (size_t)PyBytes_GET_SIZE(object));
	if (PyFloat_CheckExact(object)) {
		double value = PyFloat_AS_DOUBLE(object);
		return key_append(key, 'f', &value, sizeof(value));
	}
	if (object == Py_None || PyBool_Check(object))
		return key_append(key, object == Py_None ? 'n' : object == Py_True ? 'T' : 'F', "", 0);
	return 1;
}

static inline void append_scope(unsigned char *at, uint64_t scope)
{
	at[0] = '@';
	memcpy(at + 1, &scope, sizeof(scope));
}

/* What key.h says of key_encode_short(). */
__attribute__((always_inline)) static inline size_t encode_short(PyObject *object, uint64_t scope, unsigned char *into, size_t room)
{
	const size_t start = scope == SCOPE_NONE ? 0 : KEY_HEAD_BYTES;
	const void *data;
	int64_t number;
	size_t bytes;
	char tag = 's';

	if (PyUnicode_CheckExact(object) && PyUnicode_IS_COMPACT_ASCII(object)) {
		data = PyUnicode_DATA(object);
		bytes = (size_t)PyUnicode_GET_LENGTH(object);
	} else if (PyLong_CheckExact(object)) {
		int overflow = 0;
		if (!is_one_digit(object, &number))
			number = PyLong_AsLongLongAndOverflow(object, &overflow);
		if (overflow)
			return 0;
		tag = 'i';
		data = &number;
		bytes = sizeof(number);
	} else {
		return 0;
	}
	if (bytes >= KEY_LONGEST_BYTES || start + 1 + bytes > room)
		return 0;
	if (scope != SCOPE_NONE)
		append_scope(into, scope);
	into[start] = (unsigned char)tag;
	__asm__("" : "+r"(bytes)); /* the compiler forgets the bound: knowing it, it copies by rep movs, three times as long */
	memcpy(into + start + 1, data, bytes);
	return start + 1 + bytes;
}

/* 1: the element is of no native type, or so long that only its digest fits, or the key so long that parts may be shared. */
static int append_element(struct key *key, PyObject *object, int depth)
{
	uint32_t length;
	size_t at = key->bytes;
	if (at > KEY_NATIVE_BYTES)
		return 1;
	if (key->size - at > sizeof(length)) { /* nearly all are short, and there is room: no call for them */
		length = (uint32_t)encode_short(object, SCOPE_NONE, key->data + at + sizeof(length), key->size - at - sizeof(length));
		if (length > 0) {
			memcpy(key->data + at, &length, sizeof(length));
			key->bytes = at + sizeof(length) + length;
			return 0;
		}
	}
	if (key_reserve(key, sizeof(length)) < 0)
		return -1;
	key->bytes += sizeof(length);
	int result = PyTuple_CheckExact(object) ? encode_native(key, object, depth) : append_leaf(key, object);
	if (result != 0)
		return result;
	length = (uint32_t)(key->bytes - at - sizeof(length));
	if (length != key->bytes - at - sizeof(length))
		return 1;
	memcpy(key->data + at, &length, sizeof(length));
	return 0;
}

static int append_tuple(struct key *key, PyObject *object, int depth)
{
	const Py_ssize_t count = PyTuple_GET_SIZE(object);
	int result = key_append_head(key, 't', (size_t)count);
	for (Py_ssize_t i = 0; i < count && result == 0; i++)
		result = append_element(key, PyTuple_GET_ITEM(object, i), depth);
	return result;
}

int key_append_leaf(struct key *key, PyObject *object)
{
	return append_leaf(key, object);
}

/* 0, -1 with an exception, or 1: not a native type; what was appended is of no use then. */
static int encode_native(struct key *key, PyObject *object, int depth)
{
	if (!PyTuple_CheckExact(object))
		return append_leaf(key, object);
	if (depth == KEY_DEEPEST)
		return 1; /* for the encoding of trees to refuse */
	if (Py_EnterRecursiveCall(" in a droppable key"))
		return -1;
	int result = append_tuple(key, object, depth + 1);
	Py_LeaveRecursiveCall();
	return result;
}

__attribute__((always_inline)) static inline void begin(struct core_state *core, struct key *key, uint64_t scope)
{
	key->core = core;
	key->data = key->inline_data;
	key->size = sizeof(key->inline_data);
	key->start = scope == SCOPE_NONE ? 0 : KEY_HEAD_BYTES;
	key->bytes = key->start;
	key->hashed_bytes = 0;
	if (scope != SCOPE_NONE)
		append_scope(key->data, scope);
}

__attribute__((always_inline)) static inline int finish(struct key *key, int result)
{
	return result == 0 && key->bytes - key->start > KEY_LONGEST_BYTES ? key_digest(key, key->start) : result;
}

int key_encode(struct core_state *core, struct key *key, PyObject *object)
{
	return key_encode_scoped(core, key, object, SCOPE_NONE);
}

int key_encode_scoped(struct core_state *core, struct key *key, PyObject *object, uint64_t scope)
{
	begin(core, key, scope);
	const size_t short_bytes = encode_short(object, scope, key->inline_data, sizeof(key->inline_data));
	if (short_bytes) { /* nearly all: a part of this function, and no call for the copy */
		key->bytes = short_bytes;
		return 0;
	}
	int result = PyTuple_CheckExact(object) ? encode_native(key, object, 0) : append_leaf(key, object);
	if (result == 1 && Py_IS_TYPE(object, core->encoded_key_type))
		return key_append_encoded(key, object);
	if (result == 1)
		result = key_encode_tree(key, object);
	return finish(key, result);
}

size_t key_encode_short(PyObject *object, uint64_t scope, unsigned char *into, size_t room)
{
	return encode_short(object, scope, into, room);
}

void key_free(struct key *key)
{
	if (key->data != key->inline_data)
		PyMem_Free(key->data);
}

/* Keyword arguments of a call, by name. */
struct named {
	PyObject *name, *value;
};

enum { NAMED_INLINE = 8 };

static int compare_names(const void *left, const void *right)
{
	return PyUnicode_Compare(((const struct named *)left)->name, ((const struct named *)right)->name);
}

/* into has room for NAMED_INLINE; returns it, or a larger one for PyMem_Free(), or NULL with an exception. */
static struct named *pair(struct named *into, PyObject *const *values, PyObject *names, size_t count, bool by_name)
{
	if (count > NAMED_INLINE) {
		into = PyMem_New(struct named, count);
		if (!into) {
			PyErr_NoMemory();
			return NULL;
		}
	}
	for (size_t i = 0; i < count; i++)
		into[i] = (struct named){PyTuple_GET_ITEM(names, i), values[i]};
	if (count > 1 && by_name)
		qsort(into, count, sizeof(*into), compare_names);
	return into;
}

/* As append_element(). */
static int append_keywords(struct key *key, PyObject *const *values, PyObject *names, size_t count, bool by_name)
{
	struct named inline_named[NAMED_INLINE], *named = pair(inline_named, values, names, count, by_name);
	int result = named ? 0 : -1;

	for (size_t i = 0; i < count && result == 0; i++) {
		result = append_element(key, named[i].name, 1);
		if (result == 0)
			result = append_element(key, named[i].value, 1);
	}
	if (named != inline_named)
		PyMem_Free(named);
	return result;
}

/* The head of the tuple and its first element: at once, for each call has them, and a key that was just begun has room. */
static int append_call_head(struct key *key, size_t elements, uint64_t first)
{
	const uint32_t stored = (uint32_t)elements, integer_bytes = 1 + sizeof(int64_t);
	unsigned char *at = key->data + key->bytes;

	if (elements != stored)
		return key_append_head(key, 't', elements);
	at[0] = 't';
	memcpy(at + 1, &stored, 4);
	memcpy(at + 5, &integer_bytes, 4);
	at[9] = 'i';
	memcpy(at + 10, &first, 8);
	key->bytes += 18;
	return 0;
}

int key_encode_call(struct core_state *core, struct key *key, PyObject *const *arguments, size_t count,
		    PyObject *keywords, bool by_name, uint64_t scope, uint64_t number, PyObject *first)
{
	const size_t named = keywords ? (size_t)PyTuple_GET_SIZE(keywords) : 0;

	begin(core, key, scope);
	int result = append_call_head(key, 1 + count + 2 * named, key_first_of_call(count, number));
	size_t i = 0;
	if (first && count > 0 && result == 0) {
		result = append_element(key, first, 1);
		i = 1;
	}
	for (; i < count && result == 0; i++)
		result = append_element(key, arguments[i], 1);
	if (named > 0 && result == 0)
		result = append_keywords(key, arguments + count, keywords, named, by_name);
	if (result == 1) {
		PyObject *tuple = key_of_call(arguments, count, keywords, by_name, number, first);
		result = tuple ? key_encode_tree(key, tuple) : -1;
		Py_XDECREF(tuple);
	}
	return finish(key, result);
}

PyObject *key_of_call(PyObject *const *arguments, size_t count, PyObject *keywords, bool by_name, uint64_t number,
		      PyObject *first)
{
	const size_t named_count = keywords ? (size_t)PyTuple_GET_SIZE(keywords) : 0;
	struct named inline_named[NAMED_INLINE], *named = inline_named;
	Py_ssize_t at = 0;

	if (named_count > 0) {
		named = pair(inline_named, arguments + count, keywords, named_count, by_name);
		if (!named)
			return NULL;
	}
	PyObject *tuple = PyTuple_New((Py_ssize_t)(1 + count + 2 * named_count));
	PyObject *positional = PyLong_FromUnsignedLongLong(key_first_of_call(count, number));
	if (tuple && positional) {
		PyTuple_SET_ITEM(tuple, at++, positional);
		for (size_t i = 0; i < count; i++)
			PyTuple_SET_ITEM(tuple, at++, Py_NewRef(i == 0 && first ? first : arguments[i]));
		for (size_t i = 0; i < named_count; i++) {
			PyTuple_SET_ITEM(tuple, at++, Py_NewRef(named[i].name));
			PyTuple_SET_ITEM(tuple, at++, Py_NewRef(named[i].value));
		}
	} else {
		Py_CLEAR(tuple);
		Py_XDECREF(positional);
	}
	if (named != inline_named)
		PyMem_Free(named);
	return tuple;
}
