/*
 * cache_pages.h - the equation of a cache's pages: each that the kernel could not take is in exactly one count.
 *
 *   dirty pages  =  pinned (held, being taken or given back, resting)  +  tails of logs that are not marked yet
 *                   +  directories that are not marked yet  +  pages of the index that count as dirty
 *
 * For the thread that works with the cache, between two of its calls.
 */
#ifndef DRP_CACHE_PAGES_H
#define DRP_CACHE_PAGES_H

#include "store/internal.h"
#include "check.h"
#ifdef PRIM_FAKE
#include "prim_fake.h"
#endif

static inline bool page_in(const unsigned char *at, const unsigned char *from, size_t bytes)
{
	return at >= from && at < from + bytes;
}

static inline bool counted_in_segment(const struct shard *shard, const struct segment *segment, const unsigned char *at)
{
	const size_t page = prim_page_size();

	if (segment->kind == SEGMENT_ENTRIES)
		return at >= segment->base + (segment->marked & ~(page - 1)) /* of a sealed one, if a mark failed */ &&
		       at < segment->base + segment->used;
	if (segment->kind != SEGMENT_EXTENTS || !page_in(at, segment->base, arena_directory_bytes(segment->length)))
		return false;
	for (unsigned i = 0; i < shard->reuse.directory_count; i++)
		if (shard->reuse.directories[i] == segment->serial)
			return true;
	return segment->state == SEGMENT_OPEN || segment->marked == 0;
}

/* How many counts of a shard the page is in. */
static inline unsigned counted_in_shard(const struct shard *shard, const unsigned char *at)
{
	const size_t page = prim_page_size();
	unsigned counts = 0;

	for (size_t i = 0; i < shard->pins.bucket_count; i++)
		for (const struct pin *pin = shard->pins.buckets[i]; pin; pin = pin->next)
			counts += page_in(at, pin->address, pin->bytes);
	for (const struct segment *segment = arena_next(&shard->arena, NULL); segment;
	     segment = arena_next(&shard->arena, segment))
		if (page_in(at, segment->base, segment->length))
			counts += counted_in_segment(shard, segment, at);
	for (size_t i = 0; i < shard->index.chunk_count; i++) {
		void *chunk;
		size_t bytes;
		index_chunk(&shard->index, i, &chunk, &bytes);
		if (page_in(at, chunk, bytes)) /* 2: dirty, as index.c has it */
			counts += shard->index.states[(bytes * i + (size_t)(at - (unsigned char *)chunk)) / page] >> 1 & 1;
	}
	return counts;
}

static inline void tell_if_in(const char *list, const struct segment *segment, const unsigned char *at)
{
	if (page_in(at, segment->base, segment->length))
		printf("# page %zu of a segment %s: kind %d, state %d, used %zu, marked %zu, users %u\n",
		       (size_t)(at - segment->base) / prim_page_size(), list, segment->kind, segment->state, segment->used,
		       segment->marked, segment->users);
}

static inline void tell_where(const struct cache *cache, const unsigned char *at)
{
	for (unsigned i = 0; i < cache->shard_count; i++) {
		const struct arena *arena = &cache->shards[i].arena;
		for (const struct segment *segment = arena_next(arena, NULL); segment; segment = arena_next(arena, segment))
			tell_if_in("in use", segment, at);
		for (const struct segment *segment = arena->zombies; segment; segment = segment->newer)
			tell_if_in("that is a zombie", segment, at);
		for (const struct segment *segment = arena->free; segment; segment = segment->newer)
			tell_if_in("that is free", segment, at);
		for (int kind = 0; kind < SEGMENT_KINDS; kind++)
			for (const struct segment *segment = arena->kept[kind]; segment; segment = segment->newer)
				tell_if_in("that is kept", segment, at);
	}
}

/* How many counts of the cache the page is in. */
static inline unsigned counted_in_cache(const struct cache *cache, const unsigned char *at)
{
	unsigned counts = 0;

	for (unsigned i = 0; i < cache->shard_count; i++)
		counts += counted_in_shard(&cache->shards[i], at);
	return counts;
}

/* False: the counts of pinned bytes are not their pins'. */
static inline bool pins_are_counted(const struct cache *cache)
{
	bool right = true;

	for (unsigned i = 0; i < cache->shard_count; i++) {
		const struct pins *pins = &cache->shards[i].pins;
		size_t pinned = 0, resting = 0;
		for (size_t k = 0; k < pins->bucket_count; k++)
			for (const struct pin *pin = pins->buckets[k]; pin; pin = pin->next)
				*(pin->deferred ? &resting : &pinned) += pin->bytes;
		right &= CHECK_EQ(pinned, pins->pinned_bytes) && CHECK_EQ(resting, pins->deferred_bytes);
	}
	return right;
}

#ifdef PRIM_FAKE
/* False: a page is dirty and in no count, or in two; or the counts of pinned bytes are not their pins'. */
static inline bool pages_are_counted(struct cache *cache)
{
	bool right = pins_are_counted(cache);

	for (size_t n = 0; n < fake_pages(); n++) {
		if (!fake_page_is_dirty(n))
			continue;
		const unsigned counts = counted_in_cache(cache, fake_page_at(n));
		if (counts != 1)
			tell_where(cache, fake_page_at(n));
		right &= CHECK_EQ(counts, 1) != 0;
	}
	return right;
}
#endif

#endif
