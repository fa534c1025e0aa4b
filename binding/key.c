/*
 * key.c - see key.h for the format.
 */
#include "key.h"

#include <string.h>

static int reserve(struct key *key, size_t more)
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

static int append(struct key *key, char tag, const void *data, size_t bytes)
{
	if (reserve(key, bytes + 1) < 0)
		return -1;
	key->data[key->bytes++] = (unsigned char)tag;
	memcpy(key->data + key->bytes, data, bytes);
	key->bytes += bytes;
	return 0;
}

static int append_object_bytes(struct key *key, char tag, PyObject *bytes)
{
	if (!bytes)
		return -1;
	int result = append(key, tag, PyBytes_AS_STRING(bytes), (size_t)PyBytes_GET_SIZE(bytes));
	Py_DECREF(bytes);
	return result;
}

static int append_str(struct key *key, PyObject *object)
{
	Py_ssize_t length;
	const char *text = PyUnicode_AsUTF8AndSize(object, &length);
	if (text)
		return append(key, 's', text, (size_t)length);
	if (!PyErr_ExceptionMatches(PyExc_UnicodeEncodeError))
		return -1;
	PyErr_Clear(); /* lone surrogates */
	return append_object_bytes(key, 's', PyUnicode_AsEncodedString(object, "utf-8", "surrogatepass"));
}

static int append_int(struct key *key, PyObject *object)
{
	int overflow;
	int64_t value = PyLong_AsLongLongAndOverflow(object, &overflow);
	if (!overflow) {
		if (value == -1 && PyErr_Occurred())
			return -1;
		return append(key, 'i', &value, sizeof(value));
	}
	PyObject *digits = PyNumber_ToBase(object, 16);
	if (!digits)
		return -1;
	Py_ssize_t length;
	const char *text = PyUnicode_AsUTF8AndSize(digits, &length);
	int result = text ? append(key, 'I', text, (size_t)length) : -1;
	Py_DECREF(digits);
	return result;
}

static int append_pickle(struct key *key, PyObject *object)
{
	if (PyObject_Hash(object) == -1) /* what a dict would refuse; TypeError: unhashable type */
		return -1;
	return append_object_bytes(key, 'p', core_pickle_dumps(object, "key"));
}

static int encode_native(struct key *key, PyObject *object);

/* 1: an element is of no native type. */
static int append_tuple(struct key *key, PyObject *object)
{
	uint32_t count = (uint32_t)PyTuple_GET_SIZE(object);
	if (append(key, 't', &count, sizeof(count)) < 0)
		return -1;
	for (uint32_t i = 0; i < count; i++) {
		uint32_t length = 0;
		size_t at = key->bytes;
		if (reserve(key, sizeof(length)) < 0)
			return -1;
		key->bytes += sizeof(length);
		int result = encode_native(key, PyTuple_GET_ITEM(object, i));
		if (result != 0)
			return result;
		length = (uint32_t)(key->bytes - at - sizeof(length));
		memcpy(key->data + at, &length, sizeof(length));
	}
	return 0;
}

/* 0, -1 with an exception, or 1: not a native type; what was appended is of no use then. */
static int encode_native(struct key *key, PyObject *object)
{
	if (PyUnicode_CheckExact(object))
		return append_str(key, object);
	if (PyLong_CheckExact(object))
		return append_int(key, object);
	if (PyBytes_CheckExact(object))
		return append(key, 'b', PyBytes_AS_STRING(object), (size_t)PyBytes_GET_SIZE(object));
	if (PyFloat_CheckExact(object)) {
		double value = PyFloat_AS_DOUBLE(object);
		return append(key, 'f', &value, sizeof(value));
	}
	if (object == Py_None || PyBool_Check(object))
		return append(key, object == Py_None ? 'n' : object == Py_True ? 'T' : 'F', "", 0);
	if (PyTuple_CheckExact(object)) {
		if (Py_EnterRecursiveCall(" in a droppable key"))
			return -1;
		int result = append_tuple(key, object);
		Py_LeaveRecursiveCall();
		return result;
	}
	return 1;
}

int key_encode(struct key *key, PyObject *object)
{
	key->data = key->inline_data;
	key->size = sizeof(key->inline_data);
	key->bytes = 0;
	int result = encode_native(key, object);
	if (result == 1) {
		key->bytes = 0;
		result = append_pickle(key, object);
	}
	return result;
}

void key_free(struct key *key)
{
	if (key->data != key->inline_data)
		PyMem_Free(key->data);
}

static PyObject *decode_tuple(const unsigned char *data, size_t bytes)
{
	uint32_t count, length;

	memcpy(&count, data, sizeof(count));
	PyObject *tuple = PyTuple_New(count);
	if (!tuple)
		return NULL;
	size_t at = sizeof(count);
	for (uint32_t i = 0; i < count && at + sizeof(length) <= bytes; i++) {
		memcpy(&length, data + at, sizeof(length));
		at += sizeof(length);
		PyObject *item = key_decode(data + at, length);
		if (!item) {
			Py_DECREF(tuple);
			return NULL;
		}
		PyTuple_SET_ITEM(tuple, i, item);
		at += length;
	}
	return tuple;
}

PyObject *key_decode(const unsigned char *data, size_t bytes)
{
	const char *text = (const char *)data + 1;
	const Py_ssize_t length = (Py_ssize_t)bytes - 1;
	int64_t integer;
	double real;

	switch (data[0]) {
	case 's':
		return PyUnicode_DecodeUTF8(text, length, "surrogatepass");
	case 'b':
		return PyBytes_FromStringAndSize(text, length);
	case 'i':
		memcpy(&integer, text, sizeof(integer));
		return PyLong_FromLongLong(integer);
	case 'I': {
		PyObject *digits = PyUnicode_FromStringAndSize(text, length);
		PyObject *result = digits ? PyLong_FromUnicodeObject(digits, 16) : NULL;
		Py_XDECREF(digits);
		return result;
	}
	case 'f':
		memcpy(&real, text, sizeof(real));
		return PyFloat_FromDouble(real);
	case 'n':
		Py_RETURN_NONE;
	case 'T':
		Py_RETURN_TRUE;
	case 'F':
		Py_RETURN_FALSE;
	case 't':
		return decode_tuple(data + 1, bytes - 1);
	default:
		return core_pickle_loads(text, length);
	}
}
