/*
 * store/registry.c - all caches of the process, in a list. See store/registry.h.
 */
#include "store/registry.h"

#include "store/internal.h"

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct cache *first_cache;

void registry_lock(void)
{
	pthread_mutex_lock(&lock);
}

bool registry_try_lock(struct cache **first)
{
	if (pthread_mutex_trylock(&lock) != 0)
		return false;
	*first = first_cache;
	return true;
}

void registry_unlock(void)
{
	pthread_mutex_unlock(&lock);
}

struct cache *registry_first(void)
{
	return first_cache;
}

void registry_add(struct cache *cache)
{
	cache->registry_previous = NULL;
	cache->registry_next = first_cache;
	if (first_cache)
		first_cache->registry_previous = cache;
	first_cache = cache;
}

void registry_remove(struct cache *cache)
{
	*(cache->registry_previous ? &cache->registry_previous->registry_next : &first_cache) = cache->registry_next;
	if (cache->registry_next)
		cache->registry_next->registry_previous = cache->registry_previous;
}
