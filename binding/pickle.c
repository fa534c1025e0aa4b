/*
 * pickle.c - the standard library's pickle, protocol 5: for keys and values that have no native form. What is unpickled
 * was pickled by this process itself.
 */
#include "module.h"

static bool is_ordinary_error(void)
{
	return PyErr_ExceptionMatches(PyExc_Exception) && !PyErr_ExceptionMatches(PyExc_MemoryError);
}

PyObject *core_try_twice(PyObject *(*make)(const void *context), const void *context, bool *failed_twice)
{
	PyObject *result = make(context), *type, *error, *traceback;

	*failed_twice = false;
	if (result || !is_ordinary_error())
		return result;
	PyErr_Fetch(&type, &error, &traceback);
	result = make(context);
	if (!result && !is_ordinary_error()) { /* no memory, or an interrupt: that one counts */
		Py_XDECREF(type);
		Py_XDECREF(error);
		Py_XDECREF(traceback);
		return NULL;
	}
	*failed_twice = !result;
	Py_XDECREF(result);
	PyErr_Restore(type, error, traceback); /* in the place of the second one */
	return NULL;
}

struct dump {
	struct core_state *core;
	PyObject *object;
};

static PyObject *dump(const void *context)
{
	const struct dump *of = context;
	PyObject *protocol = PyLong_FromLong(5);
	if (!protocol)
		return NULL;
	PyObject *arguments[] = {of->object, protocol};
	PyObject *bytes = PyObject_Vectorcall(of->core->pickle_dumps, arguments, 2, NULL);
	Py_DECREF(protocol);
	return bytes;
}

PyObject *core_pickle_dumps(struct core_state *core, PyObject *object, const char *what)
{
	const struct dump of = {core, object};
	bool failed_twice;
	PyObject *bytes = core_try_twice(dump, &of, &failed_twice);

	if (!bytes && failed_twice) {
		PyObject *type, *cause, *traceback;
		PyErr_Fetch(&type, &cause, &traceback);
		PyErr_NormalizeException(&type, &cause, &traceback);
		core_raise_unpicklable(what, object, cause);
		Py_XDECREF(cause);
		Py_XDECREF(type);
		Py_XDECREF(traceback);
	}
	return bytes;
}

PyObject *core_pickle_loads(struct core_state *core, const char *data, Py_ssize_t bytes)
{
	PyObject *view = PyMemoryView_FromMemory((char *)data, bytes, PyBUF_READ);
	if (!view)
		return NULL;
	PyObject *object = PyObject_CallOneArg(core->pickle_loads, view);
	Py_DECREF(view);
	return object;
}

int core_add_pickle(PyObject *module)
{
	struct core_state *core = core_of_module(module);
	PyObject *pickle = PyImport_ImportModule("pickle");
	if (!pickle)
		return -1;
	core->pickle_dumps = PyObject_GetAttrString(pickle, "dumps");
	core->pickle_loads = PyObject_GetAttrString(pickle, "loads");
	Py_DECREF(pickle);
	return core->pickle_dumps && core->pickle_loads ? 0 : -1;
}
