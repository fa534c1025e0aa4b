/*
 * key.h - a Python key as bytes, and back: its type first, so that 1, 1.0, True and "1" are four keys.
 *
 *   's' UTF-8         'i' 8 bytes, little end first     'f' 8 bytes, IEEE 754     'n' None    't' u32 count, then for each
 *   'b' bytes         'I' hexadecimal digits            'T' 'F' bool              'p' pickle   element u32 length, key
 *
 * Exact types only: a subclass, like everything else, goes through its pickle, which may make equal keys unequal (a false
 * miss) and never the other way round.
 *
 * Callers: binding/cache.c.
 */
#ifndef DRP_KEY_H
#define DRP_KEY_H

#include "module.h"

enum { KEY_INLINE_BYTES = 256 };

struct key {
	unsigned char *data;
	size_t bytes, size;
	unsigned char inline_data[KEY_INLINE_BYTES];
};

/* 0, or -1 with an exception: TypeError for keys that cannot be hashed or pickled. key_free() either way. */
int key_encode(struct key *key, PyObject *object);
void key_free(struct key *key);
PyObject *key_decode(const unsigned char *data, size_t bytes);

#endif
