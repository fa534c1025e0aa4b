/*
 * cache_object.h - _core.Cache, as the files of the binding see it: its fields, and what they call of one another.
 *
 * Callers: binding/cache.c, binding/cache_many.c, binding/cache_update.c, binding/copy.c, binding/lease.c, binding/memo.c.
 */
#ifndef DRP_CACHE_OBJECT_H
#define DRP_CACHE_OBJECT_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "cache/cache.h"
#include "key.h"
#include "module.h"
#include "turn.h"
#include "value.h"

/* Why a computed result was returned and not kept. */
enum unstorable { UNSTORABLE_UNPICKLABLE, UNSTORABLE_TOO_LARGE, UNSTORABLE_REFUSED, UNSTORABLE_CAUSES };

/*
 * cache is NULL until __init__() has done everything else, and stays from then on. Of several __init__() at once, or one
 * within the other, the one that moves made from false goes on.
 */
typedef struct {
	PyObject_HEAD
	_Atomic(struct cache *) cache;
	PyObject *encode, *decode, *unloadable;
	uint64_t default_ttl_ns;
	uint64_t max_bytes;
	_Atomic uint64_t uncached; /* results that were returned and not kept, for want of memory that the core has not counted */
	_Atomic uint64_t unstorable[UNSTORABLE_CAUSES];
	struct core_state *core;
	PyObject *module; /* whose state core is */
	atomic_bool made, closed;
	bool is_disabled; /* DROPPABLE_DISABLE: what is set is accepted and counted, and not kept */
	bool has_below; /* a lower tier, which is asked for what is not here: TieredCore._missed() */
	_Atomic(unsigned long long) accepted;
	struct turn turn;
} CacheObject;

/* The core's cache; NULL with an exception if there is none. */
static inline struct cache *cache_object_core(CacheObject *self)
{
	struct cache *cache = atomic_load_explicit(&self->cache, memory_order_acquire);

	if (!cache)
		core_raise_unmade("this cache");
	return cache;
}

/* The same for calls that would answer still after close(). */
static inline struct cache *cache_object_open(CacheObject *self)
{
	if (!atomic_load_explicit(&self->closed, memory_order_acquire))
		return cache_object_core(self);
	core_raise(DRP_CLOSED, "this cache");
	return NULL;
}

/*
 * cache is of core_state.cache_type or derives from it. 1 and a new reference in *result; 0: a miss, counted; or -1. copy: on
 * memory that the caller may write to. about, if not NULL, tells of the entry that was found.
 */
int cache_object_find(PyObject *cache, const struct key *key, bool copy, struct cache_about *about, PyObject **result);

/* Encodes a value, and reads what is said with it; ttl and cost may be NULL or None. 0 or -1; value_free() either way. */
int cache_object_read_item(CacheObject *self, struct value *value, PyObject *object, PyObject *ttl, PyObject *cost);

/* What a disabled cache does in the place of a set, or of a keep. DRP_CLOSED. */
int cache_object_accept(CacheObject *self, struct cache *cache, const struct key *key);

/* part.c: methods of Cache. */
PyObject *cache_object_scope(CacheObject *self, PyObject *const *arguments, Py_ssize_t count);
PyObject *cache_object_count(CacheObject *self, PyObject *scope);
PyObject *cache_object_get_in(CacheObject *self, PyObject *const *arguments, Py_ssize_t count);
PyObject *cache_object_delete_prefix(CacheObject *self, PyObject *const *arguments, Py_ssize_t count);
PyObject *cache_object_revoke(CacheObject *self, PyObject *scope);

/* A fast call with keywords, in a table of methods. */
#define CORE_FAST(function) (PyCFunction)(void (*)(void))(function), METH_FASTCALL | METH_KEYWORDS
/* Calls that unmap or mark as much as there is, a third of a second for 4 GB: other threads run meanwhile. */
int cache_object_without_gil(struct cache *cache, int (*call)(struct cache *));

/* cache_update.c, cache_many.c, cache_told.c: methods of Cache. */
extern PyMethodDef cache_update_methods[], cache_many_methods[], cache_told_methods[];

/* The same as cache_object_find(), and what is known of the entry; about may be NULL. */
int cache_object_find_about(CacheObject *self, const struct key *key, struct cache_about *about, PyObject **result);
/* What was found at a place and would not load is forgotten, and a miss: 0, or -1 with an exception. */
int cache_object_give_up(CacheObject *self, struct cache *cache, const struct key *key, uint64_t place,
			 struct value_sink *sink);
/* What the core said to "forget this key": 1: it is gone; 0: it was not there; -1 with an exception. */
int cache_object_forgotten(int status);

/* lease.c: the lease that a Lease holds. */
struct cache_lease;
struct cache_lease *lease_of(PyObject *lease);
/* lease.c: methods of Cache. */
PyObject *cache_object_lease(CacheObject *self, PyObject *key);
PyObject *cache_object_keep(CacheObject *self, PyObject *const *arguments, Py_ssize_t count);

#endif
