/*
 * errors.c - the one table from the C core's status codes to Python exceptions, and their classes.
 *
 *   DroppableError
 *     ClosedError (ValueError)         your code closed it before
 *     ValueTooLargeError (ValueError)  your value can never fit
 *     UnsupportedError (OSError)       this kernel does not offer it
 *     RefusedError (MemoryError)       no room now
 *     Dropped (LookupError)            the kernel took pages that a Region's reader needed; only Region raises it
 */
#include <errno.h>
#include <string.h>

#include "droppable.h"
#include "module.h"

static struct {
	const char *name;
	const char *doc;
	PyObject **base; /* second base */
	PyObject *type;
} classes[] = {
	{"droppable.ClosedError", "Your code closed this object before; make a new one.", &PyExc_ValueError, NULL},
	{"droppable.ValueTooLargeError", "Your value can never fit: raise max_bytes, or store it in parts.",
	 &PyExc_ValueError, NULL},
	{"droppable.UnsupportedError", "This kernel does not offer what was asked for; see droppable.features().",
	 &PyExc_OSError, NULL},
	{"droppable.RefusedError", "There is no memory left for this, not even by dropping; nothing was stored.",
	 &PyExc_MemoryError, NULL},
	{"droppable.Dropped", "The kernel took pages that were about to be read; create the content again.\n\n"
	 "offsets: the byte ranges (start, stop) of the region that went, whole pages, ascending.",
	 &PyExc_LookupError, NULL},
};
enum { CLOSED, TOO_LARGE, UNSUPPORTED, REFUSED, DROPPED, CLASS_COUNT };

PyObject *core_raise(int status, const char *what)
{
	int saved_errno = errno;
	switch (status) {
	case DRP_NO_MEMORY:
		PyErr_Format(PyExc_MemoryError,
			     "%s: the system has no address space or memory for this (%s); "
			     "raise RLIMIT_AS or the memory limit, or ask for less", what, strerror(saved_errno));
		break;
	case DRP_REFUSED:
		PyErr_Format(classes[REFUSED].type, "%s: no memory is left, not even by dropping", what);
		break;
	case DRP_TOO_LARGE:
		PyErr_Format(classes[TOO_LARGE].type,
			     "%s: the value can never fit; raise max_bytes, or store it in parts", what);
		break;
	case DRP_UNSUPPORTED:
		PyErr_Format(classes[UNSUPPORTED].type,
			     "%s: this kernel does not offer it; `droppable doctor` tells what there is", what);
		break;
	case DRP_INVALID:
		PyErr_SetString(PyExc_ValueError, what);
		break;
	case DRP_CLOSED:
		PyErr_Format(classes[CLOSED].type, "%s: your code closed it before", what);
		break;
	case DRP_FAULT:
		PyErr_SetString(classes[DROPPED].type, what);
		break;
	default:
		errno = saved_errno;
		PyErr_SetFromErrno(PyExc_OSError);
	}
	return NULL;
}

PyObject *core_raise_dropped(const char *what, PyObject *offsets)
{
	PyObject *first = PyTuple_GetSlice(offsets, 0, 3);
	PyObject *message = !first ? NULL : PyUnicode_FromFormat(
		"%s: the kernel took pages of it, %zd byte range(s)%s: %R; create the content again", what,
		PyTuple_GET_SIZE(offsets), PyTuple_GET_SIZE(offsets) > 3 ? ", the first" : "", first);
	PyObject *error = message ? PyObject_CallOneArg(classes[DROPPED].type, message) : NULL;

	if (error && PyObject_SetAttrString(error, "offsets", offsets) == 0)
		PyErr_SetObject(classes[DROPPED].type, error);
	Py_XDECREF(first);
	Py_XDECREF(message);
	Py_XDECREF(error);
	return NULL;
}

int core_add_errors(PyObject *module)
{
	PyObject *root = PyErr_NewExceptionWithDoc("droppable.DroppableError",
		"Base of droppable's own errors. Each says whose doing it was and what to do.", NULL, NULL);
	if (!root || PyModule_AddObjectRef(module, "DroppableError", root) < 0)
		return -1;
	for (int i = 0; i < CLASS_COUNT; i++) {
		PyObject *bases = PyTuple_Pack(2, root, *classes[i].base);
		if (!bases)
			return -1;
		classes[i].type = PyErr_NewExceptionWithDoc(classes[i].name, classes[i].doc, bases, NULL);
		Py_DECREF(bases);
		if (!classes[i].type ||
		    PyModule_AddObjectRef(module, strchr(classes[i].name, '.') + 1, classes[i].type) < 0)
			return -1;
	}
	Py_DECREF(root);
	PyObject *nothing = PyTuple_New(0); /* for a Dropped that somebody makes himself */
	if (!nothing || PyObject_SetAttrString(classes[DROPPED].type, "offsets", nothing) < 0)
		return -1;
	Py_DECREF(nothing);
	return 0;
}
