/*
 * errors.c - the one table from the C core's status codes to Python exceptions, and their classes.
 *
 *   DroppableError
 *     ClosedError (ValueError)         your code called close() on it before
 *     ValueTooLargeError (ValueError)  your value can never fit
 *     UnsupportedError (OSError)       this kernel does not offer it
 *     RefusedError (MemoryError)       no room now
 *     Dropped (LookupError)            the kernel took pages that a Region's reader needed; only Region raises it
 *     UnpicklableError (PicklingError, TypeError)  your key or value does not go through pickle, or your serializer
 *
 * There is one set of classes for an interpreter, in a dict that the interpreter keeps: whoever imports the extension
 * first makes them, and later imports find them again. So `except` matches whichever import made the object that raises.
 *
 *   PyInterpreterState_GetDict() -> "droppable errors" -> name -> class
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "droppable.h"
#include "module.h"
#include "os/prim.h"

enum { CLOSED, TOO_LARGE, UNSUPPORTED, REFUSED, DROPPED, UNPICKLABLE, CLASS_COUNT };

static const char root_name[] = "droppable.DroppableError";

static const struct {
	const char *name;
	const char *doc;
	PyObject **base; /* second base */
} classes[CLASS_COUNT] = {
	[CLOSED] = {"droppable.ClosedError", "Your code closed this object before; make a new one.", &PyExc_ValueError},
	[TOO_LARGE] = {"droppable.ValueTooLargeError",
		       "Your value can never fit: raise max_bytes, or store it in parts.", &PyExc_ValueError},
	[UNSUPPORTED] = {"droppable.UnsupportedError",
			 "This kernel does not offer what was asked for; see droppable.features().", &PyExc_OSError},
	[REFUSED] = {"droppable.RefusedError",
		     "There is no memory left for this, not even by dropping; nothing was stored.", &PyExc_MemoryError},
	[DROPPED] = {"droppable.Dropped",
		     "The kernel took pages that were about to be read; create the content again.\n\n"
		     "offsets: the byte ranges (start, stop) of the region that went, whole pages, ascending.",
		     &PyExc_LookupError},
	[UNPICKLABLE] = {"droppable.UnpicklableError",
			 "Your key or value cannot be pickled, so it cannot be stored; the message says why.", &PyExc_TypeError},
};

/* The dict of classes of the interpreter that runs, borrowed, made if need be; NULL with an exception. */
static PyObject *shared_classes(void)
{
	PyObject *interpreter = PyInterpreterState_GetDict(PyInterpreterState_Get());
	PyObject *name = interpreter ? PyUnicode_InternFromString("droppable errors") : NULL;
	PyObject *none = name ? PyDict_New() : NULL;
	PyObject *shared = none ? PyDict_SetDefault(interpreter, name, none) : NULL;

	Py_XDECREF(name);
	Py_XDECREF(none);
	if (!shared && !PyErr_Occurred()) /* the interpreter is at its end */
		PyErr_SetString(PyExc_RuntimeError, "droppable: this interpreter keeps no state any more");
	return shared;
}

/* A new reference to a class, or NULL with another exception. */
static PyObject *find_named(const char *name)
{
	PyObject *shared = shared_classes(), *text = shared ? PyUnicode_FromString(name) : NULL;
	PyObject *class = text ? PyDict_GetItemWithError(shared, text) : NULL;

	Py_XDECREF(text);
	if (text && !class && !PyErr_Occurred())
		PyErr_Format(PyExc_RuntimeError, "%s went from this interpreter", name);
	return Py_XNewRef(class);
}

static PyObject *find_class(int which)
{
	return find_named(classes[which].name);
}

static void raise_class(int which, const char *format, const char *what)
{
	PyObject *class = find_class(which);

	if (class)
		PyErr_Format(class, format, what);
	Py_XDECREF(class);
}

/* With mlockall(MCL_FUTURE) the kernel refuses to mark new memory as droppable, in the same way as if it could not do that. */
static bool has_locked_memory(void)
{
	unsigned long long locked_kib = 0;
	char line[128];
	void *page; /* without it nothing may be locked yet */

	if (prim_map(PRIM_PLAIN, prim_page_size(), 0, &page) != DRP_OK)
		return false;
	FILE *file = fopen("/proc/self/status", "re");
	while (file && locked_kib == 0 && fgets(line, sizeof(line), file))
		if (strncmp(line, "VmLck:", 6) == 0)
			locked_kib = strtoull(line + 6, NULL, 10);
	if (file)
		fclose(file);
	prim_best_effort(prim_unmap(page, prim_page_size())); /* a page of address space */
	return locked_kib > 0;
}

void core_raise_unsupported(const char *what, const char *why)
{
	PyObject *class = find_class(UNSUPPORTED);

	if (class)
		PyErr_Format(class, "%s: %s", what, why);
	Py_XDECREF(class);
}

void core_raise_absent(PyObject *key, const char *note)
{
	PyErr_SetObject(PyExc_KeyError, key);
	core_add_note(note);
}

void core_add_note(const char *note)
{
	PyObject *type, *error, *traceback;
	PyErr_Fetch(&type, &error, &traceback);
	PyErr_NormalizeException(&type, &error, &traceback);
	PyObject *none = error ? PyObject_CallMethod(error, "add_note", "s", note) : NULL;
	if (!none)
		PyErr_Clear(); /* the error itself matters more than its note */
	Py_XDECREF(none);
	PyErr_Restore(type, error, traceback);
}

/* The subclass of OSError that belongs to the number, as Python's own calls raise it. */
static void raise_system(int number, const char *what)
{
	PyObject *text = PyUnicode_FromFormat("%s: %s", what, strerror(number));
	PyObject *error = text ? PyObject_CallFunction(PyExc_OSError, "iO", number, text) : NULL;

	if (error)
		PyErr_SetObject((PyObject *)Py_TYPE(error), error);
	Py_XDECREF(error);
	Py_XDECREF(text);
}

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
		raise_class(REFUSED, "%s: no memory is left, not even by dropping", what);
		break;
	case DRP_TOO_LARGE:
		raise_class(TOO_LARGE, "%s: the value can never fit; raise max_bytes, or store it in parts", what);
		break;
	case DRP_UNSUPPORTED:
		core_raise_unsupported(what, has_locked_memory()
			? "this process locks its memory (mlockall), and the kernel takes no locked pages; call munlockall() before"
			: "this kernel does not offer it; `droppable doctor` tells what there is");
		break;
	case DRP_INVALID:
		PyErr_SetString(PyExc_ValueError, what);
		break;
	case DRP_CLOSED:
		raise_class(CLOSED, "%s is closed: your code called close() before; make another one", what);
		break;
	case DRP_FAULT:
		raise_class(DROPPED, "%s", what);
		break;
	default:
		raise_system(saved_errno, what);
	}
	return NULL;
}

PyObject *core_raise_unmade(const char *what)
{
	raise_class(CLOSED, "%s was never made: call its __init__() before anything else", what);
	return NULL;
}

PyObject *core_raise_dropped(const char *what, PyObject *offsets)
{
	PyObject *class = find_class(DROPPED), *first = class ? PyTuple_GetSlice(offsets, 0, 3) : NULL;
	PyObject *message = !first ? NULL : PyUnicode_FromFormat(
		"%s: the kernel took pages of it, %zd byte range(s)%s: %R; create the content again", what,
		PyTuple_GET_SIZE(offsets), PyTuple_GET_SIZE(offsets) > 3 ? ", the first" : "", first);
	PyObject *error = message ? PyObject_CallOneArg(class, message) : NULL;

	if (error && PyObject_SetAttrString(error, "offsets", offsets) == 0)
		PyErr_SetObject(class, error);
	Py_XDECREF(class);
	Py_XDECREF(first);
	Py_XDECREF(message);
	Py_XDECREF(error);
	return NULL;
}

void core_raise_unpicklable(const char *what, PyObject *object, PyObject *cause)
{
	PyObject *class = find_class(UNPICKLABLE);

	if (!class)
		return;
	PyErr_Format(class, "your %s of type %.100s cannot be pickled: %S", what, Py_TYPE(object)->tp_name, cause);
	Py_DECREF(class);
	PyObject *type, *error, *traceback;
	PyErr_Fetch(&type, &error, &traceback);
	PyErr_NormalizeException(&type, &error, &traceback);
	PyException_SetCause(error, Py_NewRef(cause));
	PyErr_Restore(type, error, traceback);
}

static bool error_is_of(const char *name)
{
	PyObject *type, *error, *traceback;

	PyErr_Fetch(&type, &error, &traceback);
	PyObject *class = find_named(name);
	const bool is_one = class && PyErr_GivenExceptionMatches(type, class);
	Py_XDECREF(class);
	PyErr_Restore(type, error, traceback);
	return is_one;
}

bool core_error_is_unpicklable(void)
{
	return error_is_of(classes[UNPICKLABLE].name);
}

bool core_error_is_ours(void)
{
	return error_is_of(root_name);
}

void core_raise_too_large(size_t value_bytes, uint64_t max_bytes)
{
	PyObject *class = find_class(TOO_LARGE);

	if (class && max_bytes > 0)
		PyErr_Format(class, "your value of %zu bytes can never fit, with its key and its head, in max_bytes of %llu; "
			     "raise max_bytes, or store it in parts", value_bytes, (unsigned long long)max_bytes);
	else if (class)
		PyErr_Format(class, "your value of %zu bytes is larger than any that a cache can hold; store it in parts",
			     value_bytes);
	Py_XDECREF(class);
}

/* The class called name of this interpreter, borrowed; made, if it is not there. Two who make it get the same one. */
static PyObject *share_class(PyObject *shared, const char *name, const char *doc, PyObject *bases)
{
	PyObject *class = PyDict_GetItemString(shared, name), *key, *made;

	if (class)
		return class;
	key = PyUnicode_FromString(name);
	made = key ? PyErr_NewExceptionWithDoc(name, doc, bases, NULL) : NULL;
	if (made)
		class = PyDict_SetDefault(shared, key, made);
	Py_XDECREF(key);
	Py_XDECREF(made);
	return class;
}

/* DroppableError and what else the class is, as a tuple. */
static PyObject *bases_of(int which, PyObject *root)
{
	if (which != UNPICKLABLE)
		return PyTuple_Pack(2, root, *classes[which].base);
	PyObject *pickle = PyImport_ImportModule("pickle");
	PyObject *pickling = pickle ? PyObject_GetAttrString(pickle, "PicklingError") : NULL;
	PyObject *bases = pickling ? PyTuple_Pack(3, root, pickling, *classes[which].base) : NULL;
	Py_XDECREF(pickling);
	Py_XDECREF(pickle);
	return bases;
}

static int add_class(PyObject *module, PyObject *class, const char *name)
{
	return class ? PyModule_AddObjectRef(module, strchr(name, '.') + 1, class) : -1;
}

int core_add_errors(PyObject *module)
{
	PyObject *shared = shared_classes(), *nothing;
	PyObject *root = !shared ? NULL : share_class(shared, root_name,
		"Base of droppable's own errors. Each says whose doing it was and what to do.", NULL);

	if (add_class(module, root, root_name) < 0)
		return -1;
	for (int i = 0; i < CLASS_COUNT; i++) {
		PyObject *bases = bases_of(i, root);
		PyObject *class = bases ? share_class(shared, classes[i].name, classes[i].doc, bases) : NULL;
		Py_XDECREF(bases);
		if (add_class(module, class, classes[i].name) < 0)
			return -1;
	}
	nothing = PyTuple_New(0); /* for a Dropped that somebody makes himself */
	int result = nothing ? PyObject_SetAttrString(PyDict_GetItemString(shared, classes[DROPPED].name), "offsets", nothing)
			     : -1;
	Py_XDECREF(nothing);
	return result;
}
