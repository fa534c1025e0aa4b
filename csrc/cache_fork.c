/*
 * cache_fork.c - what fork() means for caches: the one piece of global state, a list of them.
 *
 *   prepare   all locks are taken, so that the child's copy of the ordinary memory is consistent; the window is given
 *             back; what is held is set to be kept (the mappings are wiped in the child otherwise)
 *   parent    back to wiping; locks released
 *   child     the same, and each cache is emptied: its pages are zeros there. Pins stay valid, on a copy of the pages
 *
 * Threads of the parent that were copying a value at that moment do not exist in the child: the segments that they used
 * stay mapped there.
 */
#include <stdlib.h>

#include "cache_internal.h"
#include "cache_room.h"
#include "cache_window.h"

static pthread_mutex_t registry_lock = PTHREAD_MUTEX_INITIALIZER;
static struct cache *registry;
static bool handlers_installed;

static void keep_pinned(struct shard *shard, bool keep)
{
	for (size_t i = 0; i < shard->pins.bucket_count; i++)
		for (struct pin *pin = shard->pins.buckets[i]; pin; pin = pin->next)
			(void)prim_fork_content(pin->address, pin->bytes, keep);
}

static void before_fork(void)
{
	pthread_mutex_lock(&registry_lock);
	for (struct cache *cache = registry; cache; cache = cache->registry_next)
		for (unsigned i = 0; i < cache->shard_count; i++) {
			pthread_mutex_lock(&cache->shards[i].lock);
			window_leave(&cache->shards[i], NULL, true);
			if (!cache->config.share_on_fork)
				keep_pinned(&cache->shards[i], true);
		}
	window_lock();
}

static void after_fork_in_parent(void)
{
	window_unlock();
	for (struct cache *cache = registry; cache; cache = cache->registry_next)
		for (unsigned i = 0; i < cache->shard_count; i++) {
			if (!cache->config.share_on_fork)
				keep_pinned(&cache->shards[i], false);
			pthread_mutex_unlock(&cache->shards[i].lock);
		}
	pthread_mutex_unlock(&registry_lock);
}

static void empty_in_child(struct cache *cache, struct shard *shard)
{
	/* Pins that another thread was just taking or giving back have nobody to finish that: they are held for good. */
	for (size_t i = 0; i < shard->pins.bucket_count; i++)
		for (struct pin *pin = shard->pins.buckets[i]; pin; pin = pin->next)
			pin->state = PIN_HELD;
	pthread_cond_init(&shard->pin_changed, NULL);
	atomic_store_explicit(&shard->index.users, 0, memory_order_relaxed); /* so were those */
	leases_forget(&shard->leases);
	if (cache->config.share_on_fork)
		return;
	keep_pinned(shard, false);
	shard_empty(cache, shard);
	arena_bury(arena_take_doomed(&shard->arena));
	index_bury(index_take_doomed(&shard->index));
}

static void after_fork_in_child(void)
{
	window_unlock();
	cache_room_in_child();
	for (struct cache *cache = registry; cache; cache = cache->registry_next)
		for (unsigned i = 0; i < cache->shard_count; i++) {
			empty_in_child(cache, &cache->shards[i]);
			pthread_mutex_unlock(&cache->shards[i].lock);
		}
	pthread_mutex_unlock(&registry_lock);
}

int cache_register(struct cache *cache)
{
	int status = DRP_OK;

	pthread_mutex_lock(&registry_lock);
	if (!handlers_installed) {
		if (pthread_atfork(before_fork, after_fork_in_parent, after_fork_in_child) == 0)
			handlers_installed = true;
		else
			status = DRP_NO_MEMORY;
	}
	if (status == DRP_OK) {
		cache->registry_previous = NULL;
		cache->registry_next = registry;
		if (registry)
			registry->registry_previous = cache;
		registry = cache;
	}
	pthread_mutex_unlock(&registry_lock);
	return status;
}

void cache_unregister(struct cache *cache)
{
	pthread_mutex_lock(&registry_lock);
	*(cache->registry_previous ? &cache->registry_previous->registry_next : &registry) = cache->registry_next;
	if (cache->registry_next)
		cache->registry_next->registry_previous = cache->registry_previous;
	pthread_mutex_unlock(&registry_lock);
}

bool registry_try_lock(struct cache **first)
{
	if (pthread_mutex_trylock(&registry_lock) != 0)
		return false;
	*first = registry;
	return true;
}

void registry_unlock(void)
{
	pthread_mutex_unlock(&registry_lock);
}
