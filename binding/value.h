/*
 * value.h - a Python value as the core's kind, meta and parts, and back.
 *
 *   kind            meta                          value
 *   VALUE_BYTES     -                             the bytes                             -> bytes
 *   VALUE_ASCII     -                             a str of ASCII only                   -> str
 *   VALUE_STR       -                             its UTF-8                             -> str
 *   VALUE_PICKLE    -                             a short pickle, protocol 5            -> whatever it was
 *   VALUE_CODED+n   what encode() gave            the parts that encode() gave          -> decode(n, meta, buffer)
 *
 * encode and decode are Python functions (droppable._values): arrays, long pickles, and buffers out of band. Their values
 * are laid out so that they can be pinned, and decode() gets the pinned memory itself. Most arrays are made without it.
 *
 * Callers: binding/cache.c; array_make() is for value.c.
 */
#ifndef DRP_VALUE_H
#define DRP_VALUE_H

#include "cache/cache.h"
#include "module.h"

enum value_kind { VALUE_BYTES, VALUE_ASCII, VALUE_STR, VALUE_PICKLE, VALUE_CODED, VALUE_ARRAY = VALUE_CODED };

enum { VALUE_INLINE_PARTS = 4, VALUE_INLINE_META_BYTES = 256, GIL_RELEASE_BYTES = 256 * 1024 };

struct value {
	struct cache_item item;
	struct drp_part inline_parts[VALUE_INLINE_PARTS], *parts;
	Py_buffer inline_buffers[VALUE_INLINE_PARTS], *buffers;
	size_t buffer_count;
	PyObject *owner; /* keeps what the parts point to alive, or NULL */
	size_t bytes;
};

/* 0, or -1 with an exception. value_free() either way. encode may be NULL: everything else is pickled in band. */
int value_encode(struct core_state *core, struct value *value, PyObject *object, PyObject *encode);
void value_free(struct value *value);

/* Receives a value from the core. */
struct value_sink {
	struct cache_sink base;
	uint8_t kind;
	unsigned char *meta; /* inline_meta, or from PyMem_Malloc() */
	size_t meta_bytes;
	PyObject *object; /* bytes or str under construction, or a bytearray; NULL: nothing yet, or it is pinned */
	bool writable;    /* what decode() gets is a bytearray of its own, so that arrays on it can be written to */
	PyThreadState *saved;
	unsigned char inline_meta[VALUE_INLINE_META_BYTES];
};

void value_sink_init(struct value_sink *sink);
void value_sink_clear(struct value_sink *sink);
/*
 * The finished object; pin->cache is taken over if it is set. It is loaded a second time where the first raised: see
 * core_try_twice(). If that fails too, *failed_twice is true and the exception set, and the caller calls value_sink_clear()
 * when he has looked at what would not load: sink->object.
 */
PyObject *value_finish(struct core_state *core, struct value_sink *sink, struct cache_pin *pin, PyObject *decode,
		       bool *failed_twice);

/*
 * array.c. 1 and *array; 0: nothing is known of such a meta, decode() is to be asked; -1 with an exception. plain: 0 also where
 * code of Python would run.
 */
int array_make(struct core_state *core, const void *meta, size_t meta_bytes, PyObject *memory, bool plain, PyObject **array);

/* A Python object that holds a pin and exports its memory, read-only. Takes the pin over, also on failure. */
PyObject *pin_object(struct core_state *core, struct cache_pin *pin);

#endif
