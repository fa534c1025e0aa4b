/*
 * cache_object.h - what _core.Cache offers to the rest of the binding.
 *
 * Callers: binding/memo.c.
 */
#ifndef DRP_CACHE_OBJECT_H
#define DRP_CACHE_OBJECT_H

#include "key.h"
#include "module.h"

/* cache is of core_state.cache_type or a class that derives from it. 1 and a new reference in *result; 0: a miss, counted; -1 with an exception. */
int cache_object_find(PyObject *cache, const struct key *key, PyObject **result);

#endif
