/*
 * store/clock.h - the time that a cache goes by: the coarse clock, and what tests have added to it.
 *
 * Callers: whatever expires. The coarse clock goes on every few milliseconds, and reading it costs a load.
 */
#ifndef DRP_STORE_CLOCK_H
#define DRP_STORE_CLOCK_H

#include "store/internal.h"

static inline uint64_t cache_now_ns(struct cache *cache)
{
	return prim_now_coarse_ns() + atomic_load_explicit(&cache->skew_ns, memory_order_relaxed);
}

/* When what lives so long from now on expires; 0: never, as ttl_ns. More than 292 years are so many: the sum does not wrap. */
static inline uint64_t cache_expires_ns(struct cache *cache, uint64_t ttl_ns)
{
	return ttl_ns ? cache_now_ns(cache) + (ttl_ns < INT64_MAX ? ttl_ns : INT64_MAX) : 0;
}

#endif
