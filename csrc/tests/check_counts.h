/*
 * check_counts.h - counts all there is in a cache from scratch, and compares: what the index names, what lies in the segments,
 * and what was counted on the way.
 *
 *   slots of standing pages --count--> index.entries, live of each page, live_count of each segment of entries
 *   heads that are there ----sum-----> live_bytes of each segment, and each page of values belongs to one value
 *   sets = entries + dropped + evicted + expired + deletes + replaced + cleared
 *
 * To be called while no other thread uses the cache and nothing is pinned.
 */
#ifndef DRP_CHECK_COUNTS_H
#define DRP_CHECK_COUNTS_H

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "store/internal.h"
#include "check.h"
#include "log/witness.h"

struct counted { /* of one segment */
	struct segment *segment;
	size_t count, bytes;
	unsigned char *taken; /* pages of values */
};

static inline struct counted *counted_of(struct counted *list, size_t count, const struct segment *segment)
{
	for (size_t i = 0; i < count; i++)
		if (list[i].segment == segment)
			return &list[i];
	return NULL;
}

/* What the entry at a place takes, and its value. */
static inline void count_entry(struct shard *shard, struct counted *list, size_t segments, uint64_t place)
{
	struct found found = {.segment = arena_segment(&shard->arena, arena_place_number(place)),
			      .offset = arena_place_offset(place)};
	struct counted *counted = counted_of(list, segments, found.segment);
	struct entry_extent extent;
	unsigned char *address;

	REQUIRE(counted != NULL);
	CHECK(found.segment->kind == SEGMENT_ENTRIES && found.offset < found.segment->used);
	counted->count++;
	if (segment_is_dropped(found.segment, found.offset) || !shard_open_entry(&found))
		return;
	counted->bytes += found_end(&found) - found.offset;
	entry_copy(&found.reader, NULL, found.entry.key_bytes + found.entry.meta_bytes);
	if (!(found.entry.flags & ENTRY_EXTENT) || !shard_read_extent(&found, &extent))
		return;
	struct segment *segment = shard_extent_segment(shard, &extent, &address);
	if (!segment)
		return;
	struct counted *value = counted_of(list, segments, segment);
	const size_t pages = witness_count((size_t)extent.value_bytes);
	value->count++;
	value->bytes += pages * prim_page_size();
	for (size_t i = 0; i < pages; i++)
		CHECK(value->taken[extent.page + i]++ == 0);
}

static inline void check_segment(struct shard *shard, const struct counted *counted)
{
	const struct segment *segment = counted->segment;
	const bool told = shard->index.blind_losses == shard->seen_blind_losses && segment->serial >= shard->told_serial;

	CHECK(counted->count <= segment->live_count);
	CHECK(counted->bytes <= segment->live_bytes);
	if (segment->kind == SEGMENT_ENTRIES && told)
		CHECK_EQ(counted->count, segment->live_count);
	CHECK(segment->users == segment->deferred);
	CHECK(segment->used <= segment->length && segment->purged_pages <= segment->length / prim_page_size());
	if (!shard->emptied)
		CHECK(segment->state != SEGMENT_SEALED || segment->live_count > 0);
}

/* Buckets of a standing page are filled from their begin: index_home_look() goes by it. */
static inline void check_buckets(const uint64_t *page)
{
	for (size_t i = 0; i < index_slots_per_page(); i++)
		CHECK(i % INDEX_BUCKET_SLOTS == 0 || page[i] == 0 || page[i - 1] != 0);
}

static inline void check_shard_counts(struct shard *shard)
{
	struct arena *arena = &shard->arena;
	size_t segments = 0, n = 0, resident_pages = 0;
	uint64_t named = 0, orphans = 0, bytes = 0, mapped_bytes = 0;

	for (struct segment *segment = NULL; (segment = arena_next(arena, segment)) != NULL;)
		segments++;
	CHECK_EQ(segments, arena->table_used);
	struct counted *list = calloc(segments + 1, sizeof(*list));
	for (struct segment *segment = NULL; (segment = arena_next(arena, segment)) != NULL;) {
		list[n].taken = calloc(segment->length / prim_page_size(), 1);
		list[n++].segment = segment;
		resident_pages += segment->resident_pages;
		mapped_bytes += segment->length;
		bytes += segment->live_bytes;
		CHECK(arena_find(arena, segment->serial) == segment);
		CHECK(arena_segment(arena, segment->number) == segment);
	}
	CHECK_EQ(resident_pages, arena->resident_pages);
	CHECK_EQ(bytes, shard->counts.bytes);
	for (struct segment *segment = arena->free; segment; segment = segment->newer)
		mapped_bytes += segment->length;
	for (int kind = 0; kind < SEGMENT_KINDS; kind++)
		for (struct segment *segment = arena->kept[kind]; segment; segment = segment->newer)
			mapped_bytes += segment->length;
	CHECK_EQ(mapped_bytes, arena->mapped_bytes);

	uint64_t *places = malloc(index_slots_per_page() * sizeof(*places));
	for (uint32_t prefix = 0; prefix < INDEX_PREFIXES;) {
		const struct index *index = &shard->index;
		const uint32_t page = index->directory[prefix >> (INDEX_TAG_BITS - index->depth)] & INDEX_PAGE_MASK;
		const size_t count = index_list(&shard->index, &prefix, places);
		size_t of_page = 0;
		for (size_t i = 0; i < count; i++) {
			if (arena_place_number(places[i]) == 0)
				continue;
			of_page++;
			const struct segment *segment = arena_segment(arena, arena_place_number(places[i]));
			if (segment && segment->kind == SEGMENT_ENTRIES)
				count_entry(shard, list, segments, places[i]);
			else
				orphans++;
		}
		CHECK_EQ(of_page, shard->index.live[page]);
		if (index_has_page(&shard->index, page))
			check_buckets(index_page_address(&shard->index, page));
		named += of_page;
	}
	CHECK_EQ(named, shard->index.entries);
	for (size_t page = 0; page < shard->index.page_count; page++)
		named -= shard->index.live[page];
	CHECK_EQ(named, 0); /* pages that no cell leads to name nothing */
	CHECK(shard->index.orphans <= orphans);
	if (shard->index.blind_losses == 0)
		CHECK_EQ(shard->index.orphans, orphans);
	for (size_t i = 0; i < segments; i++) {
		check_segment(shard, &list[i]);
		free(list[i].taken);
	}
	free(places);
	free(list);
}

static inline void check_counts(struct cache *cache)
{
	struct cache_stats stats;
	uint64_t held_bytes = 0;

	for (unsigned i = 0; i < cache->shard_count; i++) {
		pthread_mutex_lock(&cache->shards[i].lock);
		check_shard_counts(&cache->shards[i]);
		held_bytes += cache->shards[i].held_bytes;
		pthread_mutex_unlock(&cache->shards[i].lock);
	}
	CHECK_EQ(held_bytes, atomic_load(&cache->held_bytes));
	cache_read_stats(cache, &stats);
	CHECK_EQ(stats.sets, stats.entries + stats.dropped + stats.evicted + stats.expired + stats.deletes + stats.replaced +
			     stats.cleared);
}

#endif
