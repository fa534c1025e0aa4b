/*
 * policy/census.c - a segment is looked through for what the kernel took.
 *
 *   EXTENTS   | directory | value: all there | value: a page is gone | value: gone |
 *                                              ^ its other pages are given back at once, and it is a drop
 *
 * Reclaim takes pages, not values. What is left of a value that lost one is of no use to anybody and would take memory
 * from others until somebody asks for it, so it is not waited for.
 */
#include <stdlib.h>
#include <string.h>

#include "store/internal.h"
#include "policy/admission.h"
#include "store/move.h"
#include "policy/cleaner.h"

/* Forgets the value whose first page that is, unless what is gone of it was zeros anyhow. True: it did. */
static bool forget_if_lost(struct cache *cache, struct shard *shard, uint64_t hash, uint64_t serial, uint32_t page)
{
	struct entry_extent extent;
	struct found found;

	if (!shard_find_by_extent(shard, hash, serial, page, &found, &extent) ||
	    !shard_open_entry(&found))
		return false;
	entry_copy(&found.reader, NULL, found.entry.key_bytes);
	if (shard_is_whole(shard, &found))
		return false;
	shard_forget_extent(cache, shard, &found, &extent, LEAVE_DROPPED, PAGES_REUSED);
	return true;
}

/* Evicts a value of the main log that costs too little to be there. */
static void forget_if_cheap(struct cache *cache, struct shard *shard, uint64_t hash, uint64_t serial, uint32_t page)
{
	struct entry_extent extent;
	struct found found;

	if (shard_find_by_extent(shard, hash, serial, page, &found, &extent) &&
	    admission_is_cheap(shard, found.entry.cost_ns, (size_t)extent.value_bytes))
		shard_forget_extent(cache, shard, &found, &extent, LEAVE_EVICTED, PAGES_REUSED);
}

static size_t count_absent(const unsigned char *states, size_t from, size_t to)
{
	size_t count = 0;

	for (size_t i = from; i < to; i++)
		count += states[i] == PRIM_ABSENT;
	return count;
}

static void look_at_values(struct cache *cache, struct shard *shard, struct segment *segment,
			   const unsigned char *states, size_t pages)
{
	const bool costs = segment->part == ARENA_MAIN && shard->arena.memory_is_short && shard->admission.cost > 0;
	const uint64_t serial = segment->serial;
	const uint32_t stamp = arena_stamp(segment->number), count = segment->extents;
	const struct arena_extent *directory = arena_directory(segment);
	size_t counted_twice = 0; /* as gone: by the census, and when the value that it was of was given back */

	if (segment->kind == SEGMENT_WHOLE) {
		if (count_absent(states, 0, pages) > 0)
			forget_if_lost(cache, shard, segment->hash, serial, 0);
		else if (costs)
			forget_if_cheap(cache, shard, segment->hash, serial, 0);
		return;
	}
	segment->users++; /* stays itself while its last values leave */
	for (uint32_t i = 0; i < count; i++) {
		if (states[i * sizeof(*directory) / prim_page_size()] != PRIM_RESIDENT)
			continue; /* of the directory, looked at it would be there again */
		const struct arena_extent listed = directory[i];
		size_t end = pages;
		if (i + 1 < count) {
			if (directory[i + 1].stamp != stamp)
				continue; /* where it ends is not known */
			end = directory[i + 1].page;
		}
		if (listed.stamp != stamp || listed.page >= pages || end > pages)
			continue;
		const size_t absent = count_absent(states, listed.page, end);
		if (absent > 0)
			counted_twice += forget_if_lost(cache, shard, listed.hash, serial, listed.page) ? absent : 0;
		else if (costs)
			forget_if_cheap(cache, shard, listed.hash, serial, listed.page);
	}
	if (arena_find(&shard->arena, serial) == segment)
		arena_count(&shard->arena, segment, segment->resident_pages + counted_twice);
	arena_release(&shard->arena, segment);
}

/* What lies on pages of entries that are gone need not be looked for any more: the index may use its slots. */
static void note_gone(struct segment *segment, const unsigned char *states, size_t pages)
{
	for (size_t i = 0; i < pages; i++)
		if (states[i] != PRIM_RESIDENT)
			segment_note_dropped(segment, i);
}

/*
 * Entries that stand for values on pages of their own: a lost page of them takes a hundred pages along, and writing alone
 * does not touch it again. They are kept young.
 */
static void keep_young(const struct segment *segment, const unsigned char *states, size_t pages)
{
	const size_t page = prim_page_size();

	for (size_t i = 0; i < pages; i++)
		if (states[i] == PRIM_RESIDENT)
			prim_touch(segment->base + i * page, 1);
}

void shard_count_pages(struct cache *cache, struct shard *shard, struct segment *segment)
{
	const size_t page = prim_page_size(), pages = (segment->used + page - 1) / page, counted = segment->resident_pages;
	struct prim_census census;

	unsigned char *states = malloc(pages);
	if (!states)
		return;
	if (prim_census(segment->base, pages * page, states, &census) != DRP_OK)
		goto out;
	if (census.resident_pages < counted)
		admission_note_dropped(shard, (counted - census.resident_pages) * page);
	arena_count(&shard->arena, segment, census.resident_pages);
	if (census.resident_pages == 0) {
		shard_retire(cache, shard, segment);
	} else if (segment->kind != SEGMENT_ENTRIES) {
		look_at_values(cache, shard, segment, states, pages);
	} else {
		note_gone(segment, states, pages);
		if (shard_is_extent_backed(shard)) {
			keep_young(segment, states, pages);
			shard_note_sparse(shard, segment);
		}
	}
out:
	free(states);
}
