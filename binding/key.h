/*
 * key.h - a Python key as bytes, and back: its type first, so that 1, 1.0, True and "1" are four keys.
 *
 *   's' UTF-8         'i' 8 bytes, little end first     'f' 8 bytes, IEEE 754     'n' None    't' tuple: u32 count, then for
 *   'b' bytes         'I' hexadecimal digits            'T' 'F' bool              'p' pickle      each element u32 length, key
 *
 *   'S' frozenset: as 't', the elements' bytes in ascending order         'g' a class or function: its module ':' its name
 *   'o' any other object: as 't', what src/droppable/_keys.py takes it apart into (its class and what it is made of)
 *   inside of 'o': 'l' list, 'e' set, 'd' dict (of 't' pairs), each as 't', the last two in ascending order; 'a' bytearray
 *   'D' 32 bytes: a keyed digest, for what would be longer than KEY_LONGEST_BYTES
 *   '@' 8 bytes, the number of a part of the cache (a scope: csrc/cache/scope.h), then a key as above, or one with '@' again: the
 *       cell of a part within that part (src/droppable/_namespace.py)
 *
 * This form is canonical: it depends on types and values, never on which objects are the same one or in which order a set
 * was filled. A subclass is another type. So two keys of equal bytes are equal (but for 'D': ADR 0013), and equal keys of
 * one type have equal bytes where their class can be taken apart into equal parts. An object that contains itself cannot
 * be written down as a tree: the whole key is its pickle then ('p'), which may make equal keys unequal and never the other
 * way round.
 *
 * The arguments of a call are a key as well: the tuple (number of positional arguments, those, then name and value of each
 * keyword argument). The number keeps f("a", 1) and f(a=1) apart. A method may have the number of its class or instance in
 * it too, above the lowest 24 bits: see memo_self.c.
 *
 * Callers: binding/cache.c, binding/memo.c. key.c has what is found out without Python code, key_tree.c the rest of the
 * encoding, key_decode.c the way back, key_scope.c the parts of a cache.
 */
#ifndef DRP_KEY_H
#define DRP_KEY_H

#include <stdbool.h>
#include <string.h>

#include "module.h"

enum {
	KEY_INLINE_BYTES = 256,
	KEY_LONGEST_BYTES = 4096,
	KEY_DIGEST_BYTES = 32,
	KEY_SCOPE_BYTES = sizeof(uint64_t),
	KEY_HEAD_BYTES = 1 + KEY_SCOPE_BYTES, /* of a key with a scope: '@' and the scope */
	KEY_NATIVE_BYTES = 65536, /* key.c goes on so far: a tuple in many places is found by the encoding of trees */
	KEY_DEEPEST = 2000, /* beside the interpreter's own limit, which a program may have raised above what the stack holds */
};

enum { SCOPE_NONE = 0 }; /* the keys of the cache itself */

struct key {
	struct core_state *core;
	unsigned char *data;
	size_t bytes, size;
	size_t start; /* where the key begins, behind its scope */
	size_t hashed_bytes; /* what digests were made of, where some part of the key is long */
	unsigned char inline_data[KEY_INLINE_BYTES];
};

/*
 * 0, or -1 with an exception: TypeError for keys that cannot be hashed or pickled; RecursionError. key_free() either way.
 * May run Python code of the key's classes. A scope comes in front of whatever the object is, also of an EncodedKey.
 */
int key_encode(struct core_state *core, struct key *key, PyObject *object);
int key_encode_scoped(struct core_state *core, struct key *key, PyObject *object, uint64_t scope);
void key_free(struct key *key);
/*
 * The same bytes, for those keys that most calls have (a str of ASCII, an int of 64 bits) and that fit in so much room: how many
 * they are. 0: it is no such key, and nothing was done; key_encode_scoped() is to be called.
 */
size_t key_encode_short(PyObject *object, uint64_t scope, unsigned char *into, size_t room);

/*
 * The arguments of a fast call, keywords being NULL or the names of the last ones: as bytes, without making the tuple, and
 * as the tuple itself. The bytes are those of key_encode_scoped() of the tuple. by_name: keyword arguments in any order are
 * one key; else they stand in the order of the call. number: of the class or instance that it is a method of, or 0. first: what
 * stands in the place of the first argument, or NULL: that argument does.
 */
int key_encode_call(struct core_state *core, struct key *key, PyObject *const *arguments, size_t count,
		    PyObject *keywords, bool by_name, uint64_t scope, uint64_t number, PyObject *first);
PyObject *key_of_call(PyObject *const *arguments, size_t count, PyObject *keywords, bool by_name, uint64_t number,
		      PyObject *first);

enum { KEY_COUNT_BITS = 24 }; /* more positional arguments than that only functions without a number can have */

static inline uint64_t key_first_of_call(size_t count, uint64_t number)
{
	return (uint64_t)count + (number << KEY_COUNT_BITS);
}

/* The key of these bytes, without its scope; key_is_digest() tells that there is no way back to it. */
PyObject *key_decode(struct core_state *core, const unsigned char *data, size_t bytes);
static inline bool key_is_digest(const unsigned char *data)
{
	return data[0] == 'D';
}

/*
 * key_scope.c. key_in_scope() tells whether these are a key of this scope, no cell, and where the key itself begins.
 * key_read_scope(): a scope as Python holds it, 8 bytes; None or NULL: SCOPE_NONE. 0, or -1 with an exception.
 */
bool key_in_scope(const unsigned char *data, size_t bytes, uint64_t scope, size_t *start);
int key_read_scope(PyObject *object, uint64_t *scope);
PyObject *key_new_scope(PyObject *module, PyObject *unused);

/* key_encoded.c: the key as an EncodedKey, which key_encode() takes as it is. A new reference, or NULL with an exception. */
PyObject *key_as_object(const struct key *key);

/* From here on: between the files of the key. */

int key_reserve(struct key *key, size_t more);
static inline int key_append(struct key *key, char tag, const void *data, size_t bytes)
{
	if (key->size - key->bytes <= bytes && key_reserve(key, bytes + 1) < 0)
		return -1;
	key->data[key->bytes++] = (unsigned char)tag;
	memcpy(key->data + key->bytes, data, bytes);
	key->bytes += bytes;
	return 0;
}
int key_append_head(struct key *key, char tag, size_t count); /* of what has elements */

/* str, bytes, int, float, None, bool. 0, -1 with an exception, or 1: of no such type, nothing was appended. */
int key_append_leaf(struct key *key, PyObject *object);

/* A new reference to a function of droppable._keys. */
PyObject *key_helper(struct core_state *core, const char *name);

/* key_encoded.c: what an EncodedKey holds, as it is: it has been made short enough, and may have a scope of its own. */
int key_append_encoded(struct key *key, PyObject *encoded);

/* Whatever it is, in place of what the key holds now. 0, or -1 with an exception. */
int key_encode_tree(struct key *key, PyObject *object);

/* Puts a digest in place of the bytes from `start` on. */
int key_digest(struct key *key, size_t start);

#endif
