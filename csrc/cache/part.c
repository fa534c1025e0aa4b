/*
 * cache/part.c - see cache/part.h.
 */
#include "cache/part.h"

#include <string.h>

#include "cache/cache.h"
#include "store/internal.h"
#include "cache/lease.h"
#include "os/drp_assert.h"
#include "os/hash.h"
#include "cache/scope.h"

struct cell_sink {
	struct cache_sink base;
	uint64_t scope;
};

static int reserve_cell(struct cache_sink *sink, uint8_t kind, size_t meta_bytes, size_t value_bytes, void **meta, void **value)
{
	struct cell_sink *cell = (struct cell_sink *)sink;

	(void)kind;
	*meta = NULL;
	*value = &cell->scope;
	return meta_bytes != 0 || value_bytes != sizeof(cell->scope);
}

static void uncount_hit(struct cache *cache, const void *key, size_t key_bytes)
{
	struct shard *shard = shard_of(cache, hash_bytes(cache->secret, key, key_bytes));

	pthread_mutex_lock(&shard->lock);
	DRP_ASSERT(shard->hits > 0);
	shard->hits--;
	shard_unlock(shard);
}

int cache_part_find(struct cache *cache, const void *cell, size_t cell_bytes, enum part_mode mode, uint64_t *scope)
{
	struct cell_sink sink = {.base = {.reserve = reserve_cell}};
	struct cache_pin pin;

	if (mode == PART_PEEK) {
		const int there = cache_contains(cache, cell, cell_bytes);
		if (there <= 0)
			return there < 0 ? there : DRP_MISS;
	}
	const int status = cache_get(cache, cell, cell_bytes, GET_COPY, &sink.base, &pin, NULL);
	if (status != DRP_OK)
		return status;
	uncount_hit(cache, cell, cell_bytes);
	*scope = sink.scope;
	return DRP_OK;
}

int cache_part_make(struct cache *cache, const void *cell, size_t cell_bytes, uint64_t *scope)
{
	for (;;) {
		int status = cache_part_find(cache, cell, cell_bytes, PART_PEEK, scope);
		if (status != DRP_MISS)
			return status;
		status = scope_new(scope);
		if (status != DRP_OK)
			return status;
		const struct drp_part part = {scope, sizeof(*scope)};
		const struct cache_item item = {.parts = &part, .part_count = 1};
		status = cache_set(cache, cell, cell_bytes, &item, SET_IF_ABSENT);
		if (status != DRP_EXISTS)
			return status;
		/* Another thread was faster: its scope is taken, or, if that one is gone already, this is tried again. */
	}
}

struct prefix {
	struct cache *cache;
	const void *data;
	size_t bytes;
	uint64_t deleted;
};

static int take_key(void *context, const void *key, size_t key_bytes)
{
	struct prefix *prefix = context;

	if (key_bytes < prefix->bytes || memcmp(key, prefix->data, prefix->bytes) != 0)
		return DRP_OK;
	const int status = cache_delete(prefix->cache, key, key_bytes, 0);
	if (status != DRP_OK)
		return status == DRP_MISS ? DRP_OK : status; /* it left by itself meanwhile */
	prefix->deleted++;
	return DRP_OK;
}

int cache_prefix_delete(struct cache *cache, const void *data, size_t bytes, uint64_t *count)
{
	struct prefix prefix = {.cache = cache, .data = data, .bytes = bytes};
	uint64_t cursor = 0;

	/* First, so that what they would store later is not stored, and what they stored before is found by the walk. */
	int status = cache_prefix_revoke(cache, data, bytes);
	while (status == DRP_OK)
		status = cache_walk(cache, &cursor, take_key, &prefix);
	*count = prefix.deleted;
	return status == DRP_MISS ? DRP_OK : status;
}

int cache_prefix_revoke(struct cache *cache, const void *data, size_t bytes)
{
	int status = DRP_OK;

	for (unsigned i = 0; i < cache->shard_count; i++) {
		struct shard *shard = &cache->shards[i];
		pthread_mutex_lock(&shard->lock);
		if (shard->closed)
			status = DRP_CLOSED;
		leases_revoke_prefix(&shard->leases, data, bytes);
		shard_unlock(shard);
	}
	return status;
}
