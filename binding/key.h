/*
 * key.h - a Python key as bytes, and back: its type first, so that 1, 1.0, True and "1" are four keys.
 *
 *   's' UTF-8         'i' 8 bytes, little end first     'f' 8 bytes, IEEE 754     'n' None    't' u32 count, then for each
 *   'b' bytes         'I' hexadecimal digits            'T' 'F' bool              'p' pickle   element u32 length, key
 *
 * Exact types only: a subclass, like everything else, goes through its pickle, which may make equal keys unequal (a false
 * miss) and never the other way round.
 *
 * The arguments of a call are a key as well: the tuple (number of positional arguments, those, then name and value of each
 * keyword argument, by name). The number keeps f("a", 1) and f(a=1) apart.
 *
 * Callers: binding/cache.c, binding/memo.c.
 */
#ifndef DRP_KEY_H
#define DRP_KEY_H

#include "module.h"

enum { KEY_INLINE_BYTES = 256 };

struct key {
	struct core_state *core;
	unsigned char *data;
	size_t bytes, size;
	unsigned char inline_data[KEY_INLINE_BYTES];
};

/* 0, or -1 with an exception: TypeError for keys that cannot be hashed or pickled. key_free() either way. */
int key_encode(struct core_state *core, struct key *key, PyObject *object);
void key_free(struct key *key);

/*
 * The arguments of a fast call, keywords being NULL or the names of the last ones: as bytes, without making the tuple, and
 * as the tuple itself. The bytes are those of key_encode() of the tuple.
 */
int key_encode_call(struct core_state *core, struct key *key, PyObject *const *arguments, size_t count,
		    PyObject *keywords);
PyObject *key_of_call(PyObject *const *arguments, size_t count, PyObject *keywords);

PyObject *key_decode(struct core_state *core, const unsigned char *data, size_t bytes);

#endif
