/*
 * arena.h - address space in segments: a log that appends at its head and takes the oldest segment back at its tail.
 *
 *   by age:   [segment 7] [segment 9] [segment 12] ... [segment 31: head of entries] [segment 30: head of extents]
 *              oldest                                    ^ used: appended so far; marked: given to the kernel so far
 *
 * A segment has a number that is not used again while anything can still name it, so a place (number, offset) that
 * outlives its segment finds nothing. Three kinds: ENTRIES holds entries one behind the other; EXTENTS holds values of
 * a page or more, each on pages of its own, behind a directory of whose they are; WHOLE is one large value.
 *
 *   EXTENTS   | directory: {key's hash, first page, stamp}... | value | value    | value ...
 *
 * The directory is droppable like everything else: losing it means that those values cannot be moved, only forgotten.
 *
 * users counts who may touch a segment outside the lock: pins, and copies under way. A segment that is retired while it
 * has users becomes a ZOMBIE: no number leads to it any more, its memory stays until the last user lets go.
 *
 * Callers: cache, under the lock of the shard that owns the arena. Nothing here locks.
 */
#ifndef DRP_ARENA_H
#define DRP_ARENA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "prim.h"

enum {
	ARENA_NUMBER_BITS = 24, /* of a segment's number: 0 is no segment */
	ARENA_UNIT = 16,        /* bytes; offsets in places are multiples of it */
	ARENA_OFFSET_BITS = 17, /* of an offset in units: a segment of entries is at most 2 MiB */
	ARENA_SEGMENT_MAX = ARENA_UNIT << ARENA_OFFSET_BITS,
	ARENA_PLACE_BITS = ARENA_NUMBER_BITS + ARENA_OFFSET_BITS,
};

enum segment_kind { SEGMENT_ENTRIES, SEGMENT_EXTENTS, SEGMENT_WHOLE };
enum segment_state { SEGMENT_FREE, SEGMENT_OPEN, SEGMENT_SEALED, SEGMENT_ZOMBIE };

struct segment {
	struct segment *older, *newer; /* by age; in the list of free segments, newer alone */
	unsigned char *base;
	size_t length;
	size_t used;       /* bytes appended */
	size_t marked;     /* bytes already marked droppable; page aligned */
	size_t live_bytes; /* of entries or extents not yet known to be dead */
	size_t live_count;
	size_t swept;      /* ENTRIES: how far the sweep came that empties it */
	uint32_t audited;  /* the caller's: round in which its live counts were last put right */
	bool spared;       /* WHOLE: was given a second chance by the sweep and not used since */
	uint64_t hash;     /* WHOLE: of its key */
	uint32_t number;
	uint32_t users, resting; /* resting: users among them that give way when they are asked to (cache_window.h) */
	uint32_t extents; /* EXTENTS: entries of the directory in use */
	uint8_t kind, state;
};

struct arena {
	enum prim_backing backing;
	unsigned map_flags;
	bool closed; /* arena_destroy() was called: what still has users is unmapped by the last of them */
	size_t segment_bytes;
	uint64_t mapped_bytes;     /* address space held: open, sealed and free segments */
	uint64_t span_limit_bytes; /* above it, the caller makes room before it opens another segment */
	struct segment **table;    /* by number, table_size a power of two: table[number % table_size] */
	uint32_t table_size, table_used;
	uint32_t next_number;
	struct segment *oldest, *newest;
	struct segment *free;
	struct segment *doomed; /* to be unmapped by arena_bury(), outside the lock */
	struct segment *entries, *extents; /* heads of the log, or NULL */
};

struct arena_extent { /* what the directory of an EXTENTS segment says of one value */
	uint64_t hash;
	uint32_t page;
	uint32_t stamp; /* the segment's; anything else: dropped */
};

/* segment_bytes: a power of two, from one page to ARENA_SEGMENT_MAX. Maps nothing yet. */
int arena_init(struct arena *arena, enum prim_backing backing, unsigned map_flags, size_t segment_bytes);
/* Takes everything out of use for good; zombies wait for their last arena_release(). No number leads anywhere after. */
void arena_destroy(struct arena *arena);
/* The arena's own memory, once it is destroyed and nothing of it has users. */
void arena_free(struct arena *arena);

/* The segment of a number, or NULL when it is gone. */
static inline struct segment *arena_segment(const struct arena *arena, uint32_t number)
{
	struct segment *segment = arena->table[number & (arena->table_size - 1)];
	return segment && segment->number == number ? segment : NULL;
}

/* What every piece and directory entry of a segment begins with; never 0. */
static inline uint32_t arena_stamp(uint32_t number)
{
	return number << 8 | 0x5a;
}

/* A place: where an entry begins. 0 is no place. */
static inline uint64_t arena_place(const struct segment *segment, size_t offset)
{
	return (uint64_t)segment->number << ARENA_OFFSET_BITS | offset / ARENA_UNIT;
}

static inline uint32_t arena_place_number(uint64_t place)
{
	return (uint32_t)(place >> ARENA_OFFSET_BITS);
}

static inline size_t arena_place_offset(uint64_t place)
{
	return (size_t)(place & ((1u << ARENA_OFFSET_BITS) - 1)) * ARENA_UNIT;
}

/*
 * Opens a new head of the kind and seals the one before it. Takes a free segment, else maps one (WHOLE: always maps,
 * length bytes, and is born sealed). DRP_NO_MEMORY: no address space.
 */
int arena_open(struct arena *arena, enum segment_kind kind, size_t length, struct segment **out);

/* True if arena_open() would have to map beyond span_limit_bytes. length: of a WHOLE, else ignored. */
bool arena_is_full(const struct arena *arena, enum segment_kind kind, size_t length);
/* Gives one free segment's address space up. False: there is none. */
bool arena_trim(struct arena *arena);

/* Takes a segment out of use: free for reuse (WHOLE: unmapped), or a zombie while it has users. */
void arena_retire(struct arena *arena, struct segment *segment);

/* One user less; the last one of a zombie gives its memory back. */
void arena_release(struct arena *arena, struct segment *segment);
/* Makes the segment the newest of all. */
void arena_renew(struct arena *arena, struct segment *segment);

/* Takes the list of segments that wait to be unmapped; arena_bury() unmaps them and needs no lock. */
struct segment *arena_take_doomed(struct arena *arena);
void arena_bury(struct segment *doomed);

/*
 * Marks what was appended to a segment of entries since the last time, with part_pages also the page that is being
 * filled; of EXTENTS the directory alone, for each extent is marked by who wrote it. One call for much: see prim_mark().
 */
int arena_mark(struct segment *segment, bool part_pages);

/* EXTENTS: bytes that the directory takes at the segment's start, and its entries. */
size_t arena_directory_bytes(size_t segment_bytes);
struct arena_extent *arena_directory(const struct segment *segment);

#endif
