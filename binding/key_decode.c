/*
 * key_decode.c - the way back from a key's bytes to an object like the one that they were made of: for iteration. See
 * key.h for the format. What is decoded was encoded by this process (or the one that it was forked from).
 */
#include <string.h>

#include "key.h"

/* A function of droppable._keys, called; takes over the reference to the argument, which may be NULL. */
static PyObject *call_helper(struct core_state *core, const char *name, PyObject *argument)
{
	PyObject *function = argument ? key_helper(core, name) : NULL;
	PyObject *result = function ? PyObject_CallOneArg(function, argument) : NULL;
	Py_XDECREF(function);
	Py_XDECREF(argument);
	return result;
}

static PyObject *decode_elements(struct core_state *core, const unsigned char *data, size_t bytes)
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
		PyObject *item = key_decode(core, data + at, length);
		if (!item) {
			Py_DECREF(tuple);
			return NULL;
		}
		PyTuple_SET_ITEM(tuple, i, item);
		at += length;
	}
	return tuple;
}

/* make() of the elements as a tuple. */
static PyObject *decode_container(struct core_state *core, const unsigned char *data, size_t bytes, PyObject *(*make)(PyObject *))
{
	PyObject *elements = decode_elements(core, data, bytes);
	PyObject *container = elements ? make(elements) : NULL;
	Py_XDECREF(elements);
	return container;
}

static PyObject *make_dict(PyObject *pairs)
{
	PyObject *dict = PyDict_New();
	if (dict && PyDict_MergeFromSeq2(dict, pairs, 1) < 0)
		Py_CLEAR(dict);
	return dict;
}

static PyObject *decode_nested(struct core_state *core, const unsigned char *data, size_t bytes)
{
	switch (data[0]) {
	case 't':
		return decode_elements(core, data + 1, bytes - 1);
	case 'S':
		return decode_container(core, data + 1, bytes - 1, PyFrozenSet_New);
	case 'e':
		return decode_container(core, data + 1, bytes - 1, PySet_New);
	case 'l':
		return decode_container(core, data + 1, bytes - 1, PySequence_List);
	case 'd':
		return decode_container(core, data + 1, bytes - 1, make_dict);
	case 'o':
		return call_helper(core, "put_together", decode_elements(core, data + 1, bytes - 1));
	default:
		return core_pickle_loads(core, (const char *)data + 1, (Py_ssize_t)bytes - 1);
	}
}

PyObject *key_decode(struct core_state *core, const unsigned char *data, size_t bytes)
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
	case 'a':
		return PyByteArray_FromStringAndSize(text, length);
	case 'g':
		return call_helper(core, "named", PyUnicode_DecodeUTF8(text, length, NULL));
	default:
		break;
	}
	if (Py_EnterRecursiveCall(" in a droppable key"))
		return NULL;
	PyObject *object = decode_nested(core, data, bytes);
	Py_LeaveRecursiveCall();
	return object;
}
