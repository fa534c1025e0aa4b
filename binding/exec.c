/*
 * exec.c - becomes another program, with the arguments and the environment as the bytes that they are. os.execve() takes a
 * dict: it cannot hand on what an environment may hold all the same, names that are empty or come twice, and entries that
 * have no "=".
 *
 * Callers: Python, `droppable run`.
 */
#include <unistd.h>

#include "module.h"

/* An array for execve() that points into the bytes objects of the list, which has to live as long. For PyMem_Free(). */
static char **strings_of(PyObject *list)
{
	const Py_ssize_t count = PyList_GET_SIZE(list);
	char **strings = PyMem_New(char *, (size_t)count + 1);

	if (!strings) {
		PyErr_NoMemory();
		return NULL;
	}
	for (Py_ssize_t i = 0; i < count; i++)
		if (PyBytes_AsStringAndSize(PyList_GET_ITEM(list, i), &strings[i], NULL) < 0) { /* ValueError: with a NUL in it */
			PyMem_Free(strings);
			return NULL;
		}
	strings[count] = NULL;
	return strings;
}

static PyObject *exec_program(PyObject *module, PyObject *arguments)
{
	PyObject *path, *argument_list, *environment_list;

	(void)module;
	if (!PyArg_ParseTuple(arguments, "SO!O!", &path, &PyList_Type, &argument_list, &PyList_Type, &environment_list))
		return NULL;
	char **strings = strings_of(argument_list);
	char **environment = strings ? strings_of(environment_list) : NULL;
	if (environment) {
		execve(PyBytes_AS_STRING(path), strings, environment);
		PyErr_SetFromErrno(PyExc_OSError);
	}
	PyMem_Free(environment);
	PyMem_Free(strings);
	return NULL;
}

static PyMethodDef functions[] = {
	{"exec_program", exec_program, METH_VARARGS,
	 "exec_program(path, arguments, environment, /)\n--\n\n"
	 "execve(2): all of bytes, environment as a list of entries. Returns only to raise OSError."},
	{NULL, NULL, 0, NULL},
};

int core_add_exec(PyObject *module)
{
	return PyModule_AddFunctions(module, functions);
}
