/*
 * arguments.c - see arguments.h.
 */
#include "arguments.h"

#include <math.h>

static const double NS_PER_SECOND = 1e9;
static const double LONGEST_SECONDS = 9e9; /* 285 years: what 63 bits of nanoseconds hold */

/*
 * A timedelta's seconds, where object is one. It is asked for by name: no program has a timedelta without the module. 1 and
 * *number; 0: it is something else; -1 with an exception.
 */
static int read_timedelta(PyObject *object, double *number)
{
	PyObject *module = PyImport_ImportModule("datetime");
	PyObject *class = module ? PyObject_GetAttrString(module, "timedelta") : NULL;
	int is_one = class ? PyObject_IsInstance(object, class) : -1;

	if (is_one > 0) {
		PyObject *seconds = PyObject_CallMethod(object, "total_seconds", NULL);
		*number = seconds ? PyFloat_AsDouble(seconds) : -1.0;
		Py_XDECREF(seconds);
		if (*number == -1.0 && PyErr_Occurred())
			is_one = -1;
	}
	Py_XDECREF(class);
	Py_XDECREF(module);
	return is_one;
}

/* 0, or -1 with an exception that names the parameter and says what it must be. */
static int read_time(PyObject *object, const char *name, const char *must_be, double *number)
{
	*number = PyFloat_AsDouble(object);
	if (*number != -1.0 || !PyErr_Occurred())
		return 0;
	if (PyErr_ExceptionMatches(PyExc_OverflowError)) {
		PyErr_Clear();
		PyErr_Format(PyExc_ValueError, "%s is a number of too many digits; you gave %R", name, object);
	} else if (PyErr_ExceptionMatches(PyExc_TypeError)) {
		PyErr_Clear();
		int is_one = read_timedelta(object, number);
		if (is_one > 0)
			return 0;
		if (is_one == 0)
			PyErr_Format(PyExc_TypeError, "%s must be %s; you gave %R", name, must_be, object);
	}
	return -1;
}

/* More than 0, or -1 with an exception. */
static int read_positive(PyObject *object, const char *name, const char *must_be, double *seconds)
{
	if (read_time(object, name, must_be, seconds) < 0)
		return -1;
	if (*seconds > 0)
		return 0;
	PyErr_Format(PyExc_ValueError, "%s must be more than 0 seconds; you gave %R", name, object);
	return -1;
}

static uint64_t as_ns(double seconds)
{
	return seconds >= LONGEST_SECONDS ? (uint64_t)(LONGEST_SECONDS * NS_PER_SECOND)
					  : (uint64_t)ceil(seconds * NS_PER_SECOND);
}

int read_ttl(PyObject *object, uint64_t fallback_ns, uint64_t *ns)
{
	double seconds;

	*ns = fallback_ns;
	if (!object || object == Py_None)
		return 0;
	if (read_positive(object, "ttl", "seconds (a number), a timedelta, or droppable.NEVER", &seconds) < 0)
		return -1;
	*ns = isinf(seconds) ? 0 : as_ns(seconds);
	return 0;
}

int read_seconds(PyObject *object, const char *name, uint64_t *ns)
{
	double seconds;

	if (read_positive(object, name, "seconds (a number) or a timedelta", &seconds) < 0)
		return -1;
	*ns = as_ns(seconds);
	return 0;
}

int read_cost(PyObject *object, uint64_t *ns)
{
	double seconds;

	if (!object || object == Py_None)
		return 0;
	if (read_time(object, "cost", "seconds (a number), a timedelta, or None", &seconds) < 0)
		return -1;
	if (!(seconds >= 0)) {
		PyErr_Format(PyExc_ValueError, "cost must be 0 seconds or more; you gave %R", object);
		return -1;
	}
	*ns = seconds >= LONGEST_SECONDS ? UINT64_MAX : (uint64_t)(seconds * NS_PER_SECOND);
	return 0;
}

int read_unsigned(PyObject *object, const char *name, uint64_t most, uint64_t *value)
{
	PyObject *number = PyNumber_Index(object);
	if (!number) {
		if (PyErr_ExceptionMatches(PyExc_TypeError))
			PyErr_Format(PyExc_TypeError, "%s must be a whole number; you gave %R", name, object);
		return -1;
	}
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
