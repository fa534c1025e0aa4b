/*
 * index.h - from a key's hash to places in the log: an extendible hash table whose pages may be dropped.
 *
 *   directory (ordinary memory)           pages (droppable), 512 slots of 8 bytes in buckets of 8 (a cache line)
 *   hash's top bits ->  [page 5, depth 3] ----> |guard|slot|slot|slot|slot|slot|slot|slot|   bucket 0
 *                       [page 2, depth 2] --.   |slot |slot|...                          |   bucket 1
 *                       [page 2, depth 2] --'-> ...
 *
 *   slot   | tag: hash's top 19 bits | distance 2 | hot 1 | place 42 |      0: empty, never used
 *
 * The first slot of a page is its guard, never 0 once the page is in use: a page that was dropped reads 0 there, and all
 * its entries are gone at once, which is misses and nothing else. An entry lies in its home bucket or in one of the
 * three behind it; a search ends at a bucket with an empty slot. A page that is full splits in two by the next bit of
 * the hash, which the tag holds, so that growing touches one page and no entry. Two that are nearly empty become one.
 *
 * The slots say where an entry may be, never that it is the one: the caller compares the key. Ordinary memory: seven bytes
 * for each page of about 350 entries.
 *
 * An entry is what a slot of a standing page names: how many they are is kept for each page in ordinary memory, so that a page
 * that is found dropped counts its entries off.
 *
 * Callers: cache, under the lock of the shard that owns the index. Nothing here locks.
 */
#ifndef DRP_INDEX_H
#define DRP_INDEX_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "log/board.h"
#include "os/prim.h"

enum index_fate { INDEX_STAYS, INDEX_GONE, INDEX_ORPHAN /* and so is its segment, or no longer that segment */ };

enum { INDEX_PLACE_BITS = 42, INDEX_TAG_BITS = 19, INDEX_REACH = 4 /* buckets searched */ };

struct index {
	enum prim_backing backing;
	unsigned map_flags;
	uint32_t *directory;     /* page number | depth of that page << 27 */
	unsigned depth;          /* the directory has 1 << depth cells */
	uint64_t **chunks;       /* mappings of CHUNK_PAGES pages each */
	unsigned char *states;   /* a byte a page: enum index_page_state */
	uint16_t *live;          /* entries that a page's slots name */
	size_t chunk_count, page_count;
	size_t pages_most;       /* as many as a cell can name; tests take fewer */
	size_t free_count;       /* of those pages, are not used any more */
	size_t deepest_count;    /* pages that need all of the directory's cells */
	size_t shrink_cell;      /* where index_shrink() goes on */
	uint64_t entries;        /* the sum of live */
	uint64_t orphans;        /* of those, whose segments are known to be gone: so many at least */
	uint64_t lost_entries;   /* named no more, for they or their page were dropped; since the start */
	uint64_t blind_losses;   /* of those, whose segments were not told, for their page was dropped */
	size_t dirty_pages;      /* written since they were marked */
	uint64_t changes;        /* of any page or of the directory, since the start */
	uint64_t lost_pages;     /* found dropped, since the start */
	_Atomic unsigned users;  /* who knows addresses of pages without the lock: no mapping ends meanwhile */
	struct index_chunks {
		uint64_t **list;
		size_t count;
	} to_unmap;                /* to be unmapped by index_unmap(), outside the lock */
	/* Is the entry at this place gone for sure? If so its slot is cleared now. scrub: a round comes by, slot after slot. */
	enum index_fate (*is_stale)(void *context, uint64_t place, bool scrub);
	void *context;
	struct board_shard *board; /* readers in other processes are told there; NULL: there are none */
};

/* Where a search stands. place is the candidate, found by tag. */
struct index_cursor {
	uint64_t hash;
	uint64_t *page;
	uint64_t *slot;
	uint64_t place;
	uint32_t page_number;
	unsigned distance; /* buckets from home */
	unsigned next;     /* slot within the bucket to look at next */
	unsigned cpu;      /* on which it began; see index_stands.h */
	bool page_lost;    /* the page was written once and is gone: the entry, if there was one, was dropped */
	bool has_page;     /* it stands */
};

/* Where readers look from now on, in shared memory. Before the index has entries. */
void index_publish(struct index *index, struct board_shard *board);

int index_init(struct index *index, enum prim_backing backing, unsigned map_flags);
void index_destroy(struct index *index);

/* A search: index_search.h. */

/*
 * Adds an entry. DRP_REFUSED: its page was dropped again and again. *displaced: the place of an entry that had to go for it,
 * or 0; the caller counts it.
 */
int index_insert(struct index *index, uint64_t hash, uint64_t place, uint64_t *displaced);

/*
 * Changes the candidate that the search stands on. False: the page was dropped meanwhile, so there is no such entry; it is
 * counted off with the page, as lost. A place in segment 0 stands for no entry.
 */
bool index_replace(struct index *index, struct index_cursor *cursor, uint64_t place);
bool index_erase(struct index *index, struct index_cursor *cursor);
/* Clears its slot, if the entry is gone for sure. */
void index_clear_stale(struct index *index, struct index_cursor *cursor);

/* The hot bit: set on use, read and cleared by the policy. */
void index_set_hot(struct index *index, struct index_cursor *cursor);
bool index_is_hot(const struct index_cursor *cursor);

/*
 * Forgets everything, and is as small as it was at first. What index_take_unmaps() takes then is unmapped by index_unmap(),
 * which needs no lock.
 */
void index_clear(struct index *index);
struct index_chunks index_take_unmaps(struct index *index);
void index_unmap(struct index_chunks to_unmap);

/* Where chunk number lies, for drops on order. */
void index_chunk(const struct index *index, size_t number, void **address, size_t *bytes);

/* Makes one page of two, if their entries have room in half of it: one step; they follow one another through the directory. */
void index_shrink(struct index *index);
static inline size_t index_pages(const struct index *index)
{
	return index->page_count - index->free_count;
}

/* Clears the slots of a page whose entries are gone for sure, or, if the page was dropped, counts its entries off. */
void index_scrub(struct index *index, size_t page_number);
/* So many entries' segment is gone. */
void index_note_orphans(struct index *index, uint64_t entries);

/*
 * Places for walks, in the order of hashes: those in the page of the hashes that begin with prefix, but for the hashes before;
 * returns how many (at most index_slots_per_page()), and moves prefix behind that page, at last to INDEX_PREFIXES. However
 * the index grows and shrinks between two calls, an entry that stays is listed once.
 */
enum { INDEX_PREFIXES = 1 << INDEX_TAG_BITS };
size_t index_list(struct index *index, uint32_t *prefix, uint64_t *places);

#endif
