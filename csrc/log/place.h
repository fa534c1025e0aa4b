/*
 * place.h - where an entry begins: the number of its segment and the offset in it, in one word that fits in a slot of the
 * index. 0 is no place.
 *
 *   | number 24 | offset / 8, 18 |
 *
 * Numbers go round: they are the low bits of a serial that is never given again (segment.h). What names what, and why it
 * cannot come to mean something else:
 *
 *   name                            bits     why
 *   serial of a segment             64       counts up at each open: 2^64 are never reached. Extents of entries, places to be
 *                                            written again, directories to be marked, the hands of census, tidying and yielding,
 *                                            and "is it the same segment still" use it, and arena_find() compares all of it
 *   place in a slot of the index    24 + 18  a segment that is retired while slots name it: its number is not given again
 *                                            before a whole round cleared them (arena_note_named()). Retired without: no slot
 *                                            names it, for live_count is never less than the slots that do
 *   place in an open search         24 + 18  under one lock, its entry live: neither it nor its segment leaves meanwhile
 *   place that cache_get() tells    46 + 18  the serial's low bits: 2^46 segments of a page are more than is ever written
 *   stamp of a piece                24       is looked at where a slot leads, or where it is found by walking pages; then it
 *                                            counts only if a slot leads there. A page that is kept and opened again has old
 *                                            stamps behind what is written; no slot leads to them
 *   stamp in a directory            24       those below `extents` were written since the segment was opened, or are 0
 *   extent: page, bytes             16, 48   compared with what is used of the segment: shard_extent_segment()
 *   page of the index               27       a split is refused when they are used up, and entries are displaced
 *   tag in a slot                   19       a hint: the key is compared
 *   pin by address                  64       its segment has a user, so that the address stays mapped and is nobody else's
 *   round of audits                 32       one more costs a segment one audit that is left out
 *   cursor of a walk                16 + 48  shard and page of the index: an index that shrank ends the shard's walk
 *   rounds, sums of bytes           64       counted up by one, or by bytes of memory: 2^64 are never reached
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

/* Which of so many shards, a power of two, has the key of that hash. */
static inline unsigned place_shard(uint64_t hash, unsigned shards)
{
	return (unsigned)(hash >> 8) & (shards - 1);
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
