/*
 * cache/lease.c - see cache/lease.h. All lists are under their shard's lock.
 */
#include "cache/cache.h"
#include "cache/lease.h"

#include <string.h>

#include "policy/unlock.h"
#include "policy/cost.h"
#include "cache/fork.h"
#include "store/internal.h"
#include "os/drp_assert.h"
#include "os/hash.h"

int cache_lease_begin(struct cache *cache, const void *key, size_t key_bytes, struct cache_lease *lease)
{
	const uint64_t hash = hash_bytes(cache->secret, key, key_bytes);
	struct shard *shard = shard_of(cache, hash);
	struct cache_lease **bucket = leases_bucket(&shard->leases, hash);

	pthread_mutex_lock(&shard->lock);
	if (shard->closed) {
		shard_unlock(shard);
		return DRP_CLOSED;
	}
	lease->cache = cache;
	lease->key = NULL;
	lease->key_bytes = 0;
	lease->hash = hash;
	lease->fork_count = shard->leases.fork_count;
	atomic_init(&lease->is_stale, false);
	lease->is_overtaken = false;
	lease->next = *bucket;
	lease->link = bucket;
	if (*bucket)
		(*bucket)->link = &lease->next;
	*bucket = lease;
	shard->leases.open++;
	atomic_fetch_add_explicit(&cache->references, 1, memory_order_relaxed);
	shard_unlock(shard);
	return DRP_OK;
}

void cache_lease_name(struct cache_lease *lease, const void *key, size_t key_bytes)
{
	struct shard *shard = shard_of(lease->cache, lease->hash);

	DRP_ASSERT(lease->hash == hash_bytes(lease->cache->secret, key, key_bytes));
	pthread_mutex_lock(&shard->lock);
	lease->key = key;
	lease->key_bytes = key_bytes;
	shard_unlock(shard);
}

void cache_lease_end(struct cache_lease *lease)
{
	struct cache *cache = lease->cache;

	if (!cache)
		return;
	lease->cache = NULL;
	struct shard *shard = shard_of(cache, lease->hash);
	pthread_mutex_lock(&shard->lock);
	if (lease->fork_count == shard->leases.fork_count) { /* else a fork took it from its list, in this process */
		*lease->link = lease->next;
		if (lease->next)
			lease->next->link = lease->link;
		DRP_ASSERT(shard->leases.open > 0);
		shard->leases.open--;
	}
	shard_unlock(shard);
	cache_release(cache);
}

/* A bucket's list begins with the lease that was opened last. */
void cache_lease_supersede(struct cache_lease *lease)
{
	DRP_ASSERT(lease->cache);
	struct shard *shard = shard_of(lease->cache, lease->hash);

	pthread_mutex_lock(&shard->lock);
	if (leases_hold(&shard->leases, lease))
		for (struct cache_lease *older = lease->next; older; older = older->next)
			if (older->hash == lease->hash)
				atomic_store_explicit(&older->is_stale, true, memory_order_release);
	shard_unlock(shard);
}

int cache_get_kept(struct cache *cache, const void *key, size_t key_bytes, bool pins, struct cache_sink *sink,
		   struct cache_pin *pin)
{
	int there = cache_contains(cache, key, key_bytes);
	struct cache_about about;

	pin->cache = NULL;
	if (there <= 0)
		return there < 0 ? there : DRP_MISS;
	int status = cache_get(cache, key, key_bytes, pins ? GET_PIN_OWN : GET_COPY, sink, pin, &about);
	if (status == DRP_OK) {
		struct shard *shard = shard_of(cache, hash_bytes(cache->secret, key, key_bytes));
		pthread_mutex_lock(&shard->lock);
		DRP_ASSERT(shard->hits > 0);
		shard->hits--;
		cost_take_back(shard, about.cost_ns);
		shard_unlock(shard);
	}
	return status;
}

int cache_revoke(struct cache *cache, const void *key, size_t key_bytes)
{
	const uint64_t hash = hash_bytes(cache->secret, key, key_bytes);
	struct shard *shard = shard_of(cache, hash);

	pthread_mutex_lock(&shard->lock);
	const int status = shard->closed ? DRP_CLOSED : DRP_OK;
	leases_revoke(&shard->leases, hash);
	shard_unlock(shard);
	return status;
}
