/*
 * index_home.h - what the home bucket of a hash alone tells. Nearly all entries lie there, so most calls need no more.
 *
 *   hash --index_home()--> its home bucket, which is asked for --index_home_slot()--> the slot there that has its tag, if any
 *                                                              --index_home_look()--> may it be elsewhere? where would it go?
 *
 * A slot that is found is a hint: it may be another key's, and the entry may lie elsewhere. index_find() tells. That nothing is
 * found, where the search ends in the bucket, is certain.
 *
 * Callers: cache/small.h, cache/many.c, cache/set.c.
 */
#ifndef DRP_INDEX_HOME_H
#define DRP_INDEX_HOME_H

#include "store/index_search.h"

struct index_home {
	uint64_t *bucket;      /* NULL: its page is not there */
	uint64_t *alike;       /* the first slot with its tag, or NULL */
	uint64_t *vacant;      /* the first that names no entry, where one may be written, or NULL */
	uint64_t changes;      /* of the index when this was seen */
	uint32_t page_number;
	unsigned cpu;          /* on which it was seen: index_stands.h */
	bool ends;             /* a slot was never used: each search for this home ends here */
};

/* The bucket, or NULL: its page is not there. */
static inline uint64_t *index_home(const struct index *index, uint64_t hash)
{
	const uint32_t number = index->directory[index_cell_of(index, hash)] & INDEX_PAGE_MASK;

	if ((index->states[number] & (INDEX_PAGE_USED | INDEX_PAGE_LOST)) != INDEX_PAGE_USED)
		return NULL;
	uint64_t *bucket = index_page_address(index, number) + index_home_of(hash) * INDEX_BUCKET_SLOTS;
	__builtin_prefetch(bucket);
	return bucket;
}

/*
 * The first slot like it, or NULL. All are compared, without a branch: which one it is nobody can foretell, and a wrong guess costs
 * the processor more than the eight together.
 */
static inline uint64_t *index_home_slot(uint64_t *bucket, uint64_t hash)
{
	const uint64_t tag = hash >> INDEX_TAG_SHIFT << (INDEX_TAG_SHIFT - INDEX_DISTANCE_SHIFT);
	unsigned alike = 0;

#pragma GCC unroll 8
	for (unsigned i = 0; i < INDEX_BUCKET_SLOTS; i++)
		alike |= (unsigned)(index_load(&bucket[i]) >> INDEX_DISTANCE_SHIFT == tag) << i;
	return alike ? &bucket[__builtin_ctz(alike)] : NULL;
}

/* A search that stands on this slot: what index_home_slot() found, and nothing changed since. */
static inline void index_home_find(const struct index *index, uint64_t hash, uint64_t *slot, struct index_cursor *cursor)
{
	uint64_t *page = (uint64_t *)((uintptr_t)slot & ~(uintptr_t)(prim_page_size() - 1));

	*cursor = (struct index_cursor){.hash = hash, .page = page, .slot = slot, .place = index_load(slot) & INDEX_PLACE_MASK,
					.next = (unsigned)(slot - page) % INDEX_BUCKET_SLOTS + 1,
					.page_number = index->directory[index_cell_of(index, hash)] & INDEX_PAGE_MASK,
					.cpu = prim_cpu(), .has_page = true};
}

/* A bucket is filled from its begin, so that nothing is behind a slot that was never used. */
static inline struct index_home index_home_look(const struct index *index, uint64_t hash)
{
	const uint64_t tag = hash >> INDEX_TAG_SHIFT << (INDEX_TAG_SHIFT - INDEX_DISTANCE_SHIFT);
	struct index_home home = {.bucket = index_home(index, hash), .changes = index->changes, .cpu = prim_cpu()};

	if (!home.bucket)
		return home;
	home.page_number = index->directory[index_cell_of(index, hash)] & INDEX_PAGE_MASK;
#pragma GCC unroll 8
	for (unsigned i = 0; i < INDEX_BUCKET_SLOTS; i++) {
		const uint64_t slot = index_load(&home.bucket[i]);
		if (slot == 0) {
			home.ends = true;
			home.vacant = home.vacant ? home.vacant : &home.bucket[i];
			break;
		}
		if (slot >> INDEX_DISTANCE_SHIFT == tag) {
			home.alike = &home.bucket[i];
			break;
		}
		if ((slot & INDEX_PLACE_MASK) == 0 && !home.vacant) /* the guard has a place, too */
			home.vacant = &home.bucket[i];
	}
	return home;
}

/* Is that still so, and the hash is certain to have no entry? Then one may be written to home->vacant. */
static inline bool index_home_is_free(const struct index *index, const struct index_home *home)
{
	return home->ends && !home->alike && home->changes == index->changes;
}

/*
 * Adds an entry where index_home_is_free(). False: the page was dropped, and nothing was added: index_insert() begins it anew.
 */
bool index_home_insert(struct index *index, const struct index_home *home, uint64_t hash, uint64_t place);

/* A search that stands on home->alike, if nothing changed since. */
static inline struct index_cursor index_home_cursor(const struct index *index, const struct index_home *home, uint64_t hash)
{
	return (struct index_cursor){.hash = hash, .page = index_page_address(index, home->page_number), .slot = home->alike,
				     .place = index_load(home->alike) & INDEX_PLACE_MASK, .page_number = home->page_number,
				     .has_page = true};
}

/* Notes that the entry of this slot was used. */
static inline void index_home_set_hot(struct index *index, uint64_t hash, uint64_t *slot)
{
	struct index_cursor cursor;

	if (index_load(slot) & INDEX_HOT_BIT)
		return;
	index_find(index, hash, &cursor);
	cursor.slot = slot;
	if (cursor.has_page)
		index_set_hot(index, &cursor);
}

#endif
