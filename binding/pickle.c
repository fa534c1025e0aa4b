/*
 * pickle.c - the standard library's pickle, protocol 5: for keys and values that have no native form. What is unpickled
 * was pickled by this process itself.
 */
#include "module.h"

static PyObject *dumps, *loads;

PyObject *core_pickle_dumps(PyObject *object, const char *what)
{
	PyObject *protocol = PyLong_FromLong(5);
	if (!protocol)
		return NULL;
	PyObject *arguments[] = {object, protocol};
	PyObject *bytes = PyObject_Vectorcall(dumps, arguments, 2, NULL);
	Py_DECREF(protocol);
	if (!bytes && PyErr_ExceptionMatches(PyExc_Exception) && !PyErr_ExceptionMatches(PyExc_MemoryError)) {
		PyObject *type, *cause, *traceback;
		PyErr_Fetch(&type, &cause, &traceback);
		PyErr_NormalizeException(&type, &cause, &traceback);
		PyErr_Format(PyExc_TypeError, "your %s of type %.100s cannot be pickled: %S", what,
			     Py_TYPE(object)->tp_name, cause);
		PyObject *error_type, *error, *error_traceback;
		PyErr_Fetch(&error_type, &error, &error_traceback);
		PyErr_NormalizeException(&error_type, &error, &error_traceback);
		PyException_SetCause(error, cause); /* steals the reference */
		PyErr_Restore(error_type, error, error_traceback);
		Py_XDECREF(type);
		Py_XDECREF(traceback);
	}
	return bytes;
}

PyObject *core_pickle_loads(const char *data, Py_ssize_t bytes)
{
	PyObject *view = PyMemoryView_FromMemory((char *)data, bytes, PyBUF_READ);
	if (!view)
		return NULL;
	PyObject *object = PyObject_CallOneArg(loads, view);
	Py_DECREF(view);
	return object;
}

int core_add_pickle(PyObject *module)
{
	(void)module;
	PyObject *pickle = PyImport_ImportModule("pickle");
	if (!pickle)
		return -1;
	dumps = PyObject_GetAttrString(pickle, "dumps");
	loads = PyObject_GetAttrString(pickle, "loads");
	Py_DECREF(pickle);
	return dumps && loads ? 0 : -1;
}
