/*
 * arena.h - address space in segments: two logs, each of which appends at its heads and gives segments back.
 *
 *   main        oldest [segment 7] [segment 9] ... [segment 31: head of entries] [segment 30: head of extents] newest
 *   small queue oldest [segment 28] [segment 29] ... [segment 32: head of entries]                             newest
 *                                                     ^ used: appended so far; marked: given to the kernel so far
 *
 * A segment has a serial that is never given again, so what names a segment by it finds that one or nothing. The slots of
 * the index have room for the serial's low bits alone, its number: see place.h. Three kinds: ENTRIES holds entries one behind the other; EXTENTS holds values of
 * a page or more, each on pages of its own, behind a directory of whose they are; WHOLE is one large value.
 *
 *   EXTENTS   | directory: {key's hash, first page, stamp}... | value | value    | value ...
 *
 * The directory is droppable like the rest: losing it means that those values cannot be moved, only forgotten.
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

#include "log/board.h"
#include "log/place.h"
#include "os/prim.h"
#include "log/segment.h"

enum arena_part { ARENA_MAIN, ARENA_SMALL, ARENA_PARTS };
enum { ARENA_LIVES = 6 }; /* heads of entries in each log, for entries that live about as long: policy/expire.c */

struct arena_log {
	struct segment *oldest, *newest;
	struct segment *entries[ARENA_LIVES], *extents; /* heads, or NULL */
	unsigned lives; /* heads of entries from here on were never opened */
};

struct arena {
	enum prim_backing backing;
	unsigned map_flags;
	bool closed; /* arena_destroy() was called: what still has users is unmapped by the last of them */
	bool emptying; /* what is retired goes to the list to_unmap, pages and all */
	size_t segment_bytes;
	uint64_t mapped_bytes;     /* address space held: open, sealed and free segments */
	uint64_t span_limit_bytes; /* above it, the caller makes room before it opens another segment */
	struct segment **table;    /* by number, table_size a power of two: table[number % table_size] */
	uint32_t table_size, table_used;
	uint64_t *named;           /* by number, as the table: NAMED_* of one that was retired and that slots may name; 0 */
	uint64_t rounds;           /* that went through the whole index */
	uint64_t next_serial;
	uint32_t number_mask; /* the serial's bits that are its number; tests take fewer, so that numbers go round soon */
	struct arena_log logs[ARENA_PARTS];
	size_t resident_pages;  /* of sealed segments, as last counted */
	size_t held_pages;      /* of all segments but zombies: written and not given back */
	struct segment *free;   /* without pages */
	struct segment *kept[SEGMENT_KINDS]; /* with their pages, which are cheaper to write again than new ones; newest first */
	unsigned kept_count[SEGMENT_KINDS];
	bool memory_is_short; /* set by the caller: what the main log retires gives its pages back (policy/admission.h) */
	struct board_shard *board; /* readers in other processes are told of segments there; NULL: there are none */
	struct segment *to_unmap, *zombies; /* to be unmapped by arena_unmap(), outside the lock; retired, and still in use */
};

/* segment_bytes: a power of two, from one page to ARENA_SEGMENT_MAX. Maps nothing yet. */
int arena_init(struct arena *arena, enum prim_backing backing, unsigned map_flags, size_t segment_bytes);
/* Between these two what is retired is not kept but waits to be unmapped, then all that was kept does: by arena_unmap(). */
void arena_begin_emptying(struct arena *arena);
void arena_end_emptying(struct arena *arena);
/* Takes everything out of use for good; zombies wait for their last arena_release(). No number leads anywhere after. */
void arena_destroy(struct arena *arena);
/* The arena's own memory, once it is destroyed and nothing of it has users. */
void arena_free(struct arena *arena);

/* The segment of a number, as a slot of the index names it, or NULL when it is gone. */
static inline struct segment *arena_segment(const struct arena *arena, uint32_t number)
{
	struct segment *segment = arena->table[number & (arena->table_size - 1)];
	return segment && segment->number == number ? segment : NULL;
}

/* The segment of a serial, as all else names it, or NULL when it is gone. */
static inline struct segment *arena_find(const struct arena *arena, uint64_t serial)
{
	struct segment *segment = arena->table[serial & arena->number_mask & (arena->table_size - 1)];
	return segment && segment->serial == serial ? segment : NULL;
}

/* A place: where an entry begins. 0 is no place. */
static inline uint64_t arena_place(const struct segment *segment, size_t offset)
{
	return place_make(segment->number, offset);
}

/*
 * Opens a new head of the kind and seals the one before it. Takes a free segment, else maps one. WHOLE: of length bytes or
 * some more, and is born sealed. life: of ENTRIES, else 0. DRP_NO_MEMORY: no address space, or no number.
 */
int arena_open(struct arena *arena, enum arena_part part, unsigned life, enum segment_kind kind, size_t length,
	       struct segment **out);

/* True if arena_open() would have to map beyond span_limit_bytes. length: of a WHOLE, else ignored. */
bool arena_is_full(struct arena *arena, enum segment_kind kind, size_t length);
/* Gives one free segment's address space up, that of a WHOLE first. False: there is none. */
bool arena_trim(struct arena *arena);
bool arena_trim_whole(struct arena *arena);

/* Takes a segment out of use: free for reuse (some of WHOLE: unmapped), or a zombie while it has users. */
void arena_retire(struct arena *arena, struct segment *segment);
/* Slots may name it still: its number is not given again before a later round cleared them, and tells if all expired. */
void arena_note_named(struct arena *arena, const struct segment *segment, bool expired);
bool arena_expired(const struct arena *arena, uint32_t number);
void arena_end_round(struct arena *arena);
bool arena_has_number(const struct arena *arena);
/* One user less; the last one of a zombie gives its memory back. */
void arena_release(struct arena *arena, struct segment *segment);
/* Gives the memory of zombies back whose users are gone without a release. */
void arena_unmap_zombies(struct arena *arena);
/* Makes the segment the newest of a log; a head stays in its own. */
void arena_renew(struct arena *arena, enum arena_part part, struct segment *segment);
/* Goes through all segments in use: the first after NULL, NULL after the last. */
struct segment *arena_next(const struct arena *arena, const struct segment *segment);
/* Notes how many pages of a sealed segment are resident. */
void arena_count(struct arena *arena, struct segment *segment, size_t resident_pages);
/* Notes that so much of a segment is used now; and that pages amid it were given back, or are written again. */
void arena_note_appended(struct arena *arena, struct segment *segment, size_t used);
void arena_note_given_back(struct arena *arena, struct segment *segment, size_t pages);
void arena_note_held(struct arena *arena, struct segment *segment, size_t pages);
/* Seals the head of a log, so that it can be emptied. */
void arena_seal(struct arena *arena, struct segment *head);
/* Notes that pages of a segment were given back, or will be, so that counting will not find them; are written again. */
void arena_note_purged(struct arena *arena, struct segment *segment, size_t pages);
void arena_note_written(struct arena *arena, struct segment *segment, size_t pages);
/* Gives the pages of a dead segment back that were kept to be written again: how many bytes; 0: there is none. */
size_t arena_purge_kept(struct arena *arena);
/* Takes the list of segments that wait to be unmapped; arena_unmap() unmaps them and needs no lock. */
struct segment *arena_take_unmaps(struct arena *arena);
void arena_unmap(struct segment *to_unmap);
size_t arena_unmap_bytes(const struct segment *to_unmap);

/*
 * Marks what was appended to a segment of entries since the last time, with part_pages also the page that is being
 * filled; of EXTENTS the directory alone, for each extent is marked by who wrote it. One call for much: see prim_mark().
 */
int arena_mark(struct segment *segment, bool part_pages);

#endif
