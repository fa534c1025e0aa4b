/*
 * arguments.h - what callers give as counts, sizes and seconds, read and checked: 0, or -1 with an exception that names it.
 *
 * Callers: binding/cache.c.
 */
#ifndef DRP_ARGUMENTS_H
#define DRP_ARGUMENTS_H

#include "module.h"

/*
 * Times are numbers of seconds, or timedeltas; the messages are those of src/droppable/_arguments.py.
 * A time to live in nanoseconds; 0: never, which is what infinity (droppable.NEVER) gives. None or NULL gives the fallback.
 */
int read_ttl(PyObject *object, uint64_t fallback_ns, uint64_t *ns);
/* Any other time of more than 0. */
int read_seconds(PyObject *object, const char *name, uint64_t *ns);
/* Seconds that it takes to create a value again; None or NULL leaves *ns as it is. */
int read_cost(PyObject *object, uint64_t *ns);
/* What a count or size may be: 0 and up, as far as most. */
int read_unsigned(PyObject *object, const char *name, uint64_t most, uint64_t *value);
/* Positional and keyword arguments of a fast call into slots; missing ones stay NULL. */
int read_arguments(const char *function, PyObject *const *arguments, Py_ssize_t count, PyObject *keywords,
		   const char *const *names, size_t required, PyObject **slots, size_t slot_count);

#endif
