/*
 * index_search.h - how a slot is found: what a page and a slot look like, and the search, which each look-up does.
 *
 * The search is here and not in index.c so that it becomes a part of its callers: a call costs a look-up more than a slot does.
 *
 * Callers: cache, index.c. index.h has the picture.
 */
#ifndef DRP_INDEX_SEARCH_H
#define DRP_INDEX_SEARCH_H

#include <stdatomic.h>

#include "store/index.h"

enum { INDEX_CHUNK_PAGES = 64, INDEX_BUCKET_SLOTS = 8, INDEX_DEPTH_SHIFT = 27 };

#define INDEX_PAGE_MASK ((1u << INDEX_DEPTH_SHIFT) - 1)
#define INDEX_PLACE_MASK ((UINT64_C(1) << INDEX_PLACE_BITS) - 1)
#define INDEX_HOT_BIT (UINT64_C(1) << INDEX_PLACE_BITS)
#define INDEX_DISTANCE_SHIFT (INDEX_PLACE_BITS + 1)
#define INDEX_TAG_SHIFT (64 - INDEX_TAG_BITS)
#define INDEX_GUARD UINT64_MAX     /* no slot ever looks like this: place 0 with a tag is a tombstone, all ones is neither */
#define INDEX_TOMBSTONE INDEX_HOT_BIT    /* place 0: no entry, but a search goes on */

/*
 * LOST: found dropped and counted off, and not begun anew yet. It is gone for everybody from then on, also for a processor that
 * sees its slots through a stale translation still. FREE: no cell names it.
 */
enum index_page_state { INDEX_PAGE_USED = 1, INDEX_PAGE_DIRTY = 2, INDEX_PAGE_FREE = 4, INDEX_PAGE_LOST = 8 };

static inline uint64_t index_load(const uint64_t *slot)
{
	return atomic_load_explicit((const _Atomic uint64_t *)slot, memory_order_relaxed);
}

static inline size_t index_slots_per_page(void)
{
	return prim_page_size() / sizeof(uint64_t);
}

static inline size_t index_buckets_per_page(void)
{
	return prim_page_size() / (INDEX_BUCKET_SLOTS * sizeof(uint64_t));
}

static inline uint64_t *index_page_address(const struct index *index, size_t number)
{
	return index->chunks[number / INDEX_CHUNK_PAGES] + number % INDEX_CHUNK_PAGES * index_slots_per_page();
}

static inline uint32_t index_cell_at(unsigned depth, uint64_t hash)
{
	return depth == 0 ? 0 : (uint32_t)(hash >> (64 - depth));
}

static inline uint32_t index_cell_of(const struct index *index, uint64_t hash)
{
	return index_cell_at(index->depth, hash);
}

static inline size_t index_home_of(uint64_t hash)
{
	return hash & (index_buckets_per_page() - 1);
}

static inline bool index_has_entry(uint64_t slot)
{
	return (slot & INDEX_PLACE_MASK) != 0 && slot != INDEX_GUARD;
}

/* A page is gone, and its entries with it. */
void index_note_lost(struct index *index, uint32_t page_number);

/* Is the page there? If it is found dropped, it is counted off. */
static inline bool index_has_page(struct index *index, uint32_t page_number)
{
	const unsigned state = index->states[page_number] & (INDEX_PAGE_USED | INDEX_PAGE_LOST);

	if (state == INDEX_PAGE_USED && index_load(index_page_address(index, page_number)) == INDEX_GUARD)
		return true;
	if (state == INDEX_PAGE_USED)
		index_note_lost(index, page_number);
	return false;
}

/* Begins a search; then index_next() until it returns false. Any change of the index ends a search. */
static inline void index_find(struct index *index, uint64_t hash, struct index_cursor *cursor)
{
	uint32_t number = index->directory[index_cell_of(index, hash)] & INDEX_PAGE_MASK;
	*cursor = (struct index_cursor){.hash = hash, .page = index_page_address(index, number), .page_number = number,
					.cpu = prim_cpu()};
	cursor->has_page = index_has_page(index, number);
	prim_step();
	if (!cursor->has_page)
		cursor->page_lost = index->states[number] & INDEX_PAGE_USED;
}

/* The next slot of a bucket that begins with these bits, or NULL. Unrolled: a slot costs four instructions then, else nine. */
static inline uint64_t *index_slot_like(uint64_t *bucket, unsigned from, uint64_t tag_and_distance)
{
#pragma GCC unroll 8
	for (unsigned i = 0; i < INDEX_BUCKET_SLOTS; i++)
		if (index_load(&bucket[i]) >> INDEX_DISTANCE_SHIFT == tag_and_distance && i >= from)
			return &bucket[i];
	return NULL;
}

/* An insert would have taken that slot, so that a search ends there. */
static inline bool index_has_empty(const uint64_t *bucket)
{
#pragma GCC unroll 8
	for (unsigned i = 0; i < INDEX_BUCKET_SLOTS; i++)
		if (index_load(&bucket[i]) == 0)
			return true;
	return false;
}

static inline bool index_next(struct index *index, struct index_cursor *cursor)
{
	const uint64_t tag = cursor->hash >> INDEX_TAG_SHIFT << (INDEX_TAG_SHIFT - INDEX_DISTANCE_SHIFT);
	const size_t home = index_home_of(cursor->hash), buckets = index_buckets_per_page();

	(void)index;
	if (!cursor->has_page)
		return false;
	for (; cursor->distance < INDEX_REACH; cursor->distance++, cursor->next = 0) {
		uint64_t *bucket = cursor->page + ((home + cursor->distance) & (buckets - 1)) * INDEX_BUCKET_SLOTS, *slot;
		while ((slot = index_slot_like(bucket, cursor->next, tag | cursor->distance)) != NULL) {
			const uint64_t value = index_load(slot);
			cursor->next = (unsigned)(slot - bucket) + 1;
			if (!index_has_entry(value))
				continue;
			cursor->slot = slot;
			cursor->place = value & INDEX_PLACE_MASK;
			return true;
		}
		if (index_has_empty(bucket))
			return false;
	}
	return false;
}

#endif
