/*
 * place.h - where an entry begins: the number of its segment and the offset in it, in one word that fits in a slot of the
 * index. 0 is no place.
 *
 *   | number 24 | offset / 8, 18 |
 *
 * Callers: arena, cache.
 */
#ifndef DRP_PLACE_H
#define DRP_PLACE_H

#include <stddef.h>
#include <stdint.h>

enum {
	ARENA_NUMBER_BITS = 24, /* of a segment's number: 0 is no segment */
	ARENA_UNIT = 8,         /* bytes; offsets in places are multiples of it */
	ARENA_OFFSET_BITS = 18, /* of an offset in units: a segment of entries is at most 2 MiB */
	ARENA_SEGMENT_MAX = ARENA_UNIT << ARENA_OFFSET_BITS,
	ARENA_PLACE_BITS = ARENA_NUMBER_BITS + ARENA_OFFSET_BITS,
};

/* What every piece and directory entry of a segment begins with; never 0. */
static inline uint32_t arena_stamp(uint32_t number)
{
	return number << 8 | 0x5a;
}

static inline uint64_t place_make(uint32_t number, size_t offset)
{
	return (uint64_t)number << ARENA_OFFSET_BITS | offset / ARENA_UNIT;
}

static inline uint32_t arena_place_number(uint64_t place)
{
	return (uint32_t)(place >> ARENA_OFFSET_BITS);
}

static inline size_t arena_place_offset(uint64_t place)
{
	return (size_t)(place & ((1u << ARENA_OFFSET_BITS) - 1)) * ARENA_UNIT;
}

#endif
