/*
 * arguments.c - see arguments.h.
 */
#include "arguments.h"

static const double NS_PER_SECOND = 1e9;
static const double LONGEST_SECONDS = 9e9; /* 285 years: what 63 bits of nanoseconds hold */

/* 0, or -1 with an exception that names the parameter. */
static int read_number(PyObject *object, const char *name, double *number)
{
	*number = PyFloat_AsDouble(object);
	if (*number != -1.0 || !PyErr_Occurred())
		return 0;
	if (PyErr_ExceptionMatches(PyExc_TypeError))
		PyErr_Format(PyExc_TypeError, "%s must be a number of seconds, or None; you gave %R", name, object);
	return -1;
}

int read_seconds(PyObject *object, const char *name, uint64_t fallback, uint64_t *ns)
{
	double seconds;

	*ns = fallback;
	if (!object || object == Py_None)
		return 0;
	if (read_number(object, name, &seconds) < 0)
		return -1;
	if (!(seconds > 0)) {
		PyErr_Format(PyExc_ValueError, "%s must be more than 0 seconds, or None; you gave %R", name, object);
		return -1;
	}
	*ns = seconds >= LONGEST_SECONDS ? (uint64_t)(LONGEST_SECONDS * NS_PER_SECOND)
					 : (uint64_t)(seconds * NS_PER_SECOND) + 1;
	return 0;
}

int read_cost(PyObject *object, uint64_t *ns)
{
	double seconds;

	if (!object || object == Py_None)
		return 0;
	if (read_number(object, "cost", &seconds) < 0)
		return -1;
	if (!(seconds >= 0)) {
		PyErr_Format(PyExc_ValueError, "cost must be 0 seconds or more, or None; you gave %R", object);
		return -1;
	}
	*ns = seconds >= LONGEST_SECONDS ? UINT64_MAX : (uint64_t)(seconds * NS_PER_SECOND);
	return 0;
}

int read_unsigned(PyObject *object, const char *name, uint64_t most, uint64_t *value)
{
	PyObject *number = PyNumber_Index(object);
	if (!number)
		return -1;
	*value = PyLong_AsUnsignedLongLong(number);
	Py_DECREF(number);
	const bool overflows = PyErr_Occurred() != NULL; /* there is no other error for an int */
	if (overflows || *value > most) {
		PyErr_Format(PyExc_ValueError, "%s must be from 0 to %llu; you gave %R", name, (unsigned long long)most,
			     object);
		return -1;
	}
	return 0;
}

int read_arguments(const char *function, PyObject *const *arguments, Py_ssize_t count, PyObject *keywords,
		   const char *const *names, size_t required, PyObject **slots, size_t slot_count)
{
	if ((size_t)count > slot_count) {
		PyErr_Format(PyExc_TypeError, "%s() takes at most %zu arguments (%zd given)", function, slot_count, count);
		return -1;
	}
	for (Py_ssize_t i = 0; i < count; i++)
		slots[i] = arguments[i];
	for (Py_ssize_t i = 0; keywords && i < PyTuple_GET_SIZE(keywords); i++) {
		PyObject *keyword = PyTuple_GET_ITEM(keywords, i);
		size_t at = 0;
		while (at < slot_count && PyUnicode_CompareWithASCIIString(keyword, names[at]) != 0)
			at++;
		if (at == slot_count || slots[at]) {
			PyErr_Format(PyExc_TypeError, "%s() got %s argument '%U'", function,
				     at == slot_count ? "an unexpected keyword" : "multiple values for", keyword);
			return -1;
		}
		slots[at] = arguments[count + i];
	}
	for (size_t i = 0; i < required; i++)
		if (!slots[i]) {
			PyErr_Format(PyExc_TypeError, "%s() missing required argument: '%s'", function, names[i]);
			return -1;
		}
	return 0;
}
