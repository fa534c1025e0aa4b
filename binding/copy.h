/*
 * copy.h - a Copy: what makes a value for each caller of one computation, as a hit would.
 *
 *   itself    nobody can change it (bytes, str, numbers, short tuples of them), or there is no copy of it: the same for all
 *   memory    what the value was encoded to, as bytes, or pinned in the cache: load() decodes it for each
 *
 * Threads: a copy never changes, and any thread may load from it. Callers: binding/lease.c.
 */
#ifndef DRP_COPY_H
#define DRP_COPY_H

#include <stdbool.h>

#include "cache_object.h"
#include "module.h"
#include "value.h"

/* Each gives a new reference, or NULL with an exception. */
PyObject *copy_of_itself(struct core_state *core, PyObject *object);
/* Of what object was encoded to. Takes as much ordinary memory as the value. */
PyObject *copy_of_value(CacheObject *cache, const struct value *value);
/* Of what a get found: sink->object is taken over, and pin too if it is set. */
PyObject *copy_of_found(CacheObject *cache, struct value_sink *sink, struct cache_pin *pin);

/* writable: on memory of its own. NULL with an exception; *failed_twice as core_try_twice(). */
PyObject *copy_load(PyObject *copy, bool writable, bool *failed_twice);

#endif
