/*
 * memo.h - droppable.Memo, as the files of the memo see it: a function with a cache in front of it.
 *
 *   memo(a, b=c) -> the arguments as key bytes -> the core's get -> a hit: the value
 *                                                                  a miss: keeper.miss(memo, key, a, b=c)
 *
 * memo.c has the call and the type, memo_self.c and memo_numbers.c what stands for `self` in the key of a method, memo_bound.c
 * the method of one instance. What happens besides a hit is the keeper's: an object of src/droppable/_memo_keeper.py.
 */
#ifndef DRP_MEMO_H
#define DRP_MEMO_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>

#include "cache_object.h"
#include "key.h"
#include "module.h"

/* What stands for the first argument in the key. */
enum memo_self {
	SELF_VALUE,     /* itself, as any argument */
	SELF_ATTRIBUTE, /* its class, and its attribute of the name `identity` */
	SELF_FUNCTION,  /* its class, and what identity(self) returns */
	SELF_NUMBER,    /* the instance's own number */
};

/*
 * Set while it is made, but for: the counts; owner, which is set before the class that has this method can be used; scope,
 * which cache_clear() replaces; watches_self, which becomes false once.
 */
typedef struct memo_object MemoObject;

/* The key of a call as bytes: as key_encode_call(). key_free() either way. */
typedef int memo_encode(MemoObject *self, struct key *key, PyObject *const *arguments, size_t count, PyObject *keywords,
			uint64_t scope);

struct memo_object {
	PyObject_HEAD
	vectorcallfunc vectorcall;
	memo_encode *encode; /* NULL: all arguments are the key, by their values */
	PyObject *cache, *keeper, *miss; /* miss: keeper.miss */
	PyObject *key;      /* a function that makes the key; NULL: all arguments are */
	PyObject *identity; /* of `self`: see enum memo_self; NULL where it needs none */
	PyObject *owner;    /* the class that it was defined in, or NULL */
	PyObject *dict, *weak_references;
	struct core_state *core; /* of the cache's module, which the cache keeps */
	_Atomic(unsigned long long) hits, misses;
	_Atomic(uint64_t) scope; /* of its keys; SCOPE_NONE: the cache is its own */
	uint64_t stale_ns; /* for so long beyond their time to live results are given out still */
	enum memo_self self_is;
	bool asks_scope; /* a namespace says at each call which scope its keys have: keeper.scope() */
	bool looks_up; /* a hit is found by the call; else by keeper.miss(): a coroutine looks when it is awaited */
	bool by_name;  /* the order of keyword arguments does not matter */
	bool copies;   /* hits are on memory that the caller may write to */
	bool binds;    /* key is made from the signature, and takes what stands for `self` in its place */
	atomic_bool watches_self; /* a large `self` that is part of the key by its value was not told yet */
};

enum { MEMO_INLINE_ARGUMENTS = 8 };

/* Of the keys of a function whose scope is its own. */
static inline uint64_t memo_own_scope(MemoObject *self)
{
	return atomic_load_explicit(&self->scope, memory_order_relaxed);
}

/* memo.c. What key= makes of a call's arguments; a new reference, or NULL with an exception, which says so if it was the call's. */
PyObject *memo_make_key(MemoObject *self, PyObject *const *arguments, size_t count, PyObject *keywords);
/* memo.c. The scope of a call's key. 0, or -1 with an exception. */
int memo_scope(MemoObject *self, uint64_t *scope);

typedef PyObject *memo_function(MemoObject *self, PyObject *const *arguments, size_t count, PyObject *keywords);

PyObject *memo_call_arguments(MemoObject *self, PyObject *const *arguments, size_t count, PyObject *keywords);
memo_function memo_cache_key, memo_invalidate, memo_refresh;

/* memo_self.c. How the key is made with what stands for `self` in its place, or NULL: SELF_VALUE. And the key as an object. */
memo_encode *memo_self_encoder(const MemoObject *self);
PyObject *memo_self_key(MemoObject *self, PyObject *const *arguments, size_t count, PyObject *keywords);

/*
 * memo_numbers.c. The number of an instance or a class, which has no other one in this process; the first time it is given.
 * 0, or -1 with an exception: it cannot be referenced weakly.
 */
int memo_number_of(PyObject *module, PyObject *object, uint64_t *number);

/* memo_bound.c. A new reference to the method of this instance. */
PyObject *memo_bind(PyObject *memo, PyObject *instance);

#endif
