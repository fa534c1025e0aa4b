/*
 * segment.h - one piece of address space in an arena: what lies in it, and how much of that is alive.
 *
 *   base |=== marked ===|--- appended, dirty ---|        | length
 *                                               ^ used
 *   referenced  1 0 0 1 1 ...   which pages of it were referenced lately
 *   dropped     0 1 0 0 0 ...   of ENTRIES: which were found dropped; they are never written again
 *
 * What follows says who moves what, along which arrow; tests/test_states.c goes along each.
 *
 * A segment (state). A WHOLE is born SEALED. Its unmapping may be deferred in any state: then it is in the list to_unmap.
 *
 *   map_segment() --> OPEN --arena_seal(): full, or to be emptied--> SEALED
 *                      ^ '---------.                                   |
 *         arena_open() |           v  shard_retire(): nothing in it lives, or what lives is given up
 *                     FREE <--no users-- arena_retire() --users > 0--> ZOMBIE
 *                      |  '<-----------arena_release(): the last user-----'
 *                      '--arena_trim(), arena_end_emptying()--> to_unmap --arena_unmap(), without the lock--> unmapped
 *
 *   One that may not be used again (dirty, unwiped), or a WHOLE too many, goes to to_unmap instead of FREE.
 *
 * An extent: the pages of one value, in EXTENTS and WHOLE. No field says its state; each place below is one.
 *
 *   shard_take_extent() --> written; its writer is a user of the segment --witness_write(): marked--> LIVE
 *   LIVE    --cache_take_pin(): made dirty--> pinned (pins.h) --unpin_give_back(): marked--> LIVE
 *   LIVE    --the kernel takes a page--> dropped; found by a reader's witnesses, or by policy/census.c
 *   any     --shard_free_extent(): its entry left--> DEAD: a free place (reuse_keep(), reuse_note_absent()), or nothing
 *   DEAD    --reuse_take()--> written, for another value; --shard_retire()--> gone with its segment
 *
 * An entry, in ENTRIES. A slot of the index names it from the second arrow on.
 *
 *   shard_append() --> appended --index_insert(), shard_replace()--> LIVE --shard_move_entry()--> LIVE in another segment
 *   LIVE    --shard_forget(), shard_replace(): counted by cause--> dead bytes, until the segment is retired
 *   LIVE    --the kernel takes its page--> dropped; found by shard_find(), or by shard_is_stale() once the page is noted as dropped
 *   LIVE    --shard_retire() of its segment--> orphan: its slot leads nowhere, and is cleared by who comes by
 *   LIVE    --the page of the index goes--> nothing leads to it: end_round() counts it off its segment
 *
 * Callers: arena, and the files of the cache, under the lock of the shard that owns the arena.
 */
#ifndef DRP_SEGMENT_H
#define DRP_SEGMENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "os/prim_page.h"

enum segment_kind { SEGMENT_ENTRIES, SEGMENT_EXTENTS, SEGMENT_WHOLE, SEGMENT_KINDS };
enum segment_state { SEGMENT_FREE, SEGMENT_OPEN, SEGMENT_SEALED, SEGMENT_ZOMBIE };
enum fork_plan { FORK_NONE, FORK_KEEP, FORK_COPY }; /* what is held in it: how does it come to the child? */

struct segment {
	struct segment *older, *newer; /* by age; in the list of free segments, newer alone */
	unsigned char *base;
	size_t length;
	size_t used;       /* bytes appended */
	size_t marked;     /* bytes already marked droppable; page aligned */
	size_t live_bytes; /* of entries or extents not yet known to be dead */
	size_t live_count;
	size_t cleaned;    /* ENTRIES: how far the cleaner came that empties it */
	size_t examined;   /* in the small queue: how far that went, of any kind; see policy/admission.c */
	uint64_t filled_at; /* in the small queue: bytes appended to that log when it was last appended to */
	uint32_t examined_extents;
	uint32_t resident_pages; /* when last counted; of a sealed segment */
	uint32_t purged_pages;   /* given back while it was open */
	uint32_t held_pages;     /* that may be resident: written and not given back; those that the kernel took among them */
	uint32_t touched_pages;  /* from its start, some of which were given back since */
	uint32_t seen_in_round; /* slots that name it, of the pages of the index that this round came by */
	uint32_t audited;  /* the caller's: round in which its live counts were last put right */
	bool had_second_chance; /* WHOLE: was given a second chance by the cleaner and not used since */
	uint64_t hash;     /* WHOLE: of its key */
	uint64_t expires_first_ns, expires_last_ns; /* ENTRIES: of what expires in it; last 0: nothing does */
	uint64_t serial;   /* which of all segments of its arena this is, from 1; never given again. 0: it is in no use */
	uint32_t number;   /* the serial's low bits: what an index slot has room for; see place.h */
	uint32_t users, deferred; /* deferred: users among them that give way when they are asked to (store/deferred.h) */
	uint32_t extents; /* EXTENTS: entries of the directory in use */
	uint8_t kind, state;
	uint8_t part;      /* enum arena_part: the log that it belongs to */
	uint8_t life;      /* ENTRIES: which of the log's heads it is or was */
	bool has_extents;  /* ENTRIES: some stand for values on pages of their own */
	bool reused;       /* its pages were resident when it was opened: they keep their place in the reclaim order */
	bool dirty;        /* pages of it that nothing counts could not be marked: it is unmapped, never used again */
	bool unwiped;      /* its content would be in a forked child: to be put right, or unmapped; see cache/fork.c */
	uint8_t fork_plan; /* while a fork is under way: enum fork_plan */
	bool left_behind;  /* in a forked child: other threads of the parent were in it */
	/* A bit a page, of WHOLE the first alone; side by side, for a look-up asks for both. */
	struct segment_pages {
		uint64_t referenced; /* since policy/reclaim.c came by */
		uint64_t dropped; /* found dropped */
	} pages[];
};

struct arena_extent { /* what the directory of an EXTENTS segment says of one value */
	uint64_t hash;
	uint32_t page;
	uint32_t stamp; /* the segment's; anything else: dropped */
};

/* EXTENTS: bytes that the directory takes at the segment's start, and its entries. */
static inline size_t arena_directory_bytes(size_t segment_bytes)
{
	const size_t page = prim_page_size();
	const size_t bytes = segment_bytes / page * sizeof(struct arena_extent);
	return (bytes + page - 1) & ~(page - 1);
}

static inline struct arena_extent *arena_directory(const struct segment *segment)
{
	return (struct arena_extent *)segment->base;
}

/* Elements of pages[] in a segment of that many bytes. */
static inline size_t segment_words(enum segment_kind kind, size_t length)
{
	return kind == SEGMENT_WHOLE ? 1 : (length / prim_page_size() + 63) / 64;
}

/* Notes that the bytes from one offset to another were referenced. Writes only where that is news. */
static inline void segment_note_referenced(struct segment *segment, size_t from, size_t to)
{
	const size_t page = prim_page_size();

	for (size_t i = from / page; i <= (to - 1) / page; i++)
		if (!(segment->pages[i / 64].referenced >> (i % 64) & 1))
			segment->pages[i / 64].referenced |= UINT64_C(1) << (i % 64);
}

static inline bool segment_is_referenced(const struct segment *segment, size_t page)
{
	return segment->pages[page / 64].referenced >> (page % 64) & 1;
}

static inline void segment_note_dropped(struct segment *segment, size_t page)
{
	segment->pages[page / 64].dropped |= UINT64_C(1) << (page % 64);
}

/* ENTRIES: was the page found dropped that the byte at offset lies in? */
static inline bool segment_is_dropped(const struct segment *segment, size_t offset)
{
	const size_t page = offset / prim_page_size();
	return segment->pages[page / 64].dropped >> (page % 64) & 1;
}

#endif
