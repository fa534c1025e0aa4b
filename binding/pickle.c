/*
 * pickle.c - the standard library's pickle, protocol 5: for keys and values that have no native form. What is unpickled
 * was pickled by this process itself.
 */
#include "module.h"

static bool is_ordinary_error(void)
{
	return PyErr_ExceptionMatches(PyExc_Exception) && !PyErr_ExceptionMatches(PyExc_MemoryError);
}

void core_fetch_error(struct core_error *error)
{
	PyErr_Fetch(&error->type, &error->value, &error->traceback);
}

void core_restore_error(struct core_error *error)
{
	PyErr_Restore(error->type, error->value, error->traceback);
	*error = (struct core_error){0};
}

void core_drop_error(struct core_error *error)
{
	Py_CLEAR(error->type);
	Py_CLEAR(error->value);
	Py_CLEAR(error->traceback);
}

/* The next attempt at what failed, for its exception alone. 1: there is none; 0: an ordinary one, in *error; -1: it is set. */
static int fail_again(PyObject *(*make)(const void *context), const void *context, struct core_error *error)
{
	PyObject *result = make(context);

	if (result) {
		Py_DECREF(result);
		return 1;
	}
	if (!is_ordinary_error()) /* no memory, or an interrupt: that one counts */
		return -1;
	core_fetch_error(error);
	return 0;
}

PyObject *core_try_twice(PyObject *(*make)(const void *context), const void *context, bool *failed_twice)
{
	struct core_error first = {0}, second = {0}, third = {0};
	PyObject *result = make(context);

	*failed_twice = false;
	if (result || !is_ordinary_error())
		return result;
	core_fetch_error(&first);
	int status = fail_again(make, context, &second);
	if (status == 0 && second.type == first.type) {
		*failed_twice = true;
	} else if (status == 0) {
		/* One of them is not the object's. That of the third attempt is. */
		status = fail_again(make, context, &third);
		if (status == 0 && third.type == first.type) {
			core_drop_error(&first);
			first = second;
			second = (struct core_error){0};
		}
	}
	if (status >= 0)
		core_restore_error(&first);
	core_drop_error(&first);
	core_drop_error(&second);
	core_drop_error(&third);
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
