/*
 * index_home.h - the first two steps of a search, one at a time, for who looks many hashes up: another one's step can be done
 * while memory is waited for. index.h has the picture.
 *
 *   hash --index_home()--> its home bucket, which is asked for --index_home_slot()--> the slot there that has its tag, if any
 *
 * It is a hint: an entry may lie elsewhere, and the slot may be another key's. index_find() tells.
 *
 * Callers: cache/many.c.
 */
#ifndef DRP_INDEX_HOME_H
#define DRP_INDEX_HOME_H

#include "store/index_search.h"

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
