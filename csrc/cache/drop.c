/*
 * cache/drop.c - real drops on order, without memory pressure: for tests of this cache and of what is built on it.
 *
 * Under the lock everything is marked and the mappings are listed, each segment held by a user more. The pages then go
 * without the lock, beside whatever other threads do, as they would under pressure.
 */
#include <stdlib.h>

#include "cache/cache.h"
#include "store/internal.h"
#include "store/deferred.h"

enum { TRIES = 8 };

struct mapping {
	unsigned char *address;
	size_t bytes;
	struct segment *segment; /* or NULL: a part of the index, which stays while it has users */
};

static uint64_t next_random(uint64_t *state)
{
	/* SplitMix64 (Steele, Lea, Flood, 2014) */
	uint64_t z = (*state += UINT64_C(0x9e3779b97f4a7c15));
	z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
	return z ^ z >> 31;
}

static int list_mappings(struct shard *shard, struct mapping **out, size_t *count)
{
	const size_t page = prim_page_size();
	size_t size = shard->index.chunk_count, n = 0;

	for (struct segment *segment = arena_next(&shard->arena, NULL); segment;
	     segment = arena_next(&shard->arena, segment))
		size++;
	struct mapping *list = calloc(size ? size : 1, sizeof(*list));
	if (!list)
		return DRP_NO_MEMORY;
	for (struct segment *segment = arena_next(&shard->arena, NULL); segment;
	     segment = arena_next(&shard->arena, segment)) {
		size_t bytes = (segment->used + page - 1) & ~(page - 1);
		if (bytes == 0)
			continue;
		segment->users++;
		list[n++] = (struct mapping){segment->base, bytes, segment};
	}
	for (size_t i = 0; i < shard->index.chunk_count; i++) {
		struct mapping *mapping = &list[n++];
		void *address;
		index_chunk(&shard->index, i, &address, &mapping->bytes);
		mapping->address = address;
	}
	*out = list;
	*count = n;
	return DRP_OK;
}

/* Chooses among the resident pages of a mapping, lets them go, and looks what is left. */
static int drop_mapping(const struct mapping *mapping, double share, uint64_t *random, struct cache_drop *out)
{
	const size_t page = prim_page_size(), pages = mapping->bytes / page;
	struct prim_census census;
	int status = DRP_NO_MEMORY;
	size_t left = 0;

	unsigned char *states = malloc(2 * pages), *chosen = states + pages;
	if (!states)
		return status;
	status = prim_census(mapping->address, mapping->bytes, states, &census);
	if (status != DRP_OK)
		goto out_free;
	out->resident_pages += census.resident_pages;
	for (size_t i = 0; i < pages; i++) {
		chosen[i] = states[i] == PRIM_RESIDENT && (double)(next_random(random) >> 11) * 0x1p-53 < share;
		left += chosen[i];
	}
	const size_t asked = left;
	/* A page that is referenced at that moment is passed over: again. */
	for (int tries = 0; tries < TRIES && left > 0; tries++) {
		for (size_t i = 0, end; i < pages; i = end) {
			for (end = i; end < pages && chosen[end] && states[end] == PRIM_RESIDENT;)
				end++;
			if (end == i) {
				end++;
				continue;
			}
			status = prim_page_out(mapping->address + i * page, (end - i) * page);
			if (status != DRP_OK)
				goto out_free;
		}
		status = prim_census(mapping->address, mapping->bytes, states, &census);
		if (status != DRP_OK)
			goto out_free;
		left = 0;
		for (size_t i = 0; i < pages; i++)
			left += chosen[i] && states[i] == PRIM_RESIDENT;
	}
	out->chosen_pages += asked;
	out->dropped_pages += asked - left;
out_free:
	free(states);
	return status;
}

int cache_drop(struct cache *cache, double share, uint64_t seed, struct cache_drop *out)
{
	int status = DRP_OK;

	*out = (struct cache_drop){0};
	for (unsigned i = 0; i < cache->shard_count && status == DRP_OK; i++) {
		struct shard *shard = &cache->shards[i];
		struct mapping *list = NULL;
		size_t count = 0;

		pthread_mutex_lock(&shard->lock);
		deferred_free_all(shard);
		shard_unlock(shard); /* which marks their pages */

		pthread_mutex_lock(&shard->lock);
		if (shard->closed)
			status = DRP_CLOSED;
		if (status == DRP_OK) {
			shard_mark(shard, true);
			status = list_mappings(shard, &list, &count);
		}
		if (list)
			index_hold(&shard->index);
		shard_unlock(shard);

		for (size_t k = 0; k < count && status == DRP_OK; k++)
			status = drop_mapping(&list[k], share, &seed, out);
		if (list)
			index_release(&shard->index);

		pthread_mutex_lock(&shard->lock);
		for (size_t k = 0; k < count; k++)
			if (list[k].segment)
				arena_release(&shard->arena, list[k].segment);
		shard_unlock(shard);
		free(list);
	}
	return status;
}
