/* cache/tick.c - what calls of a cache do on their way. See cache/tick.h. */
#include "cache/tick.h"

#include "policy/expire.h"
#include "store/internal.h"
#include "policy/headroom.h"
#include "policy/reclaim.h"

enum { CALM_NS = 100000000, FULL_NS = 10000000, WAVE_NS = 1000000 };

uint64_t cache_tick(struct cache *cache)
{
	cache_watch_headroom(cache);
	const uint64_t wait_ns = cache_reclaim_once();
	expiry_pass(cache, EXPIRY_CALL_NS);
	return wait_ns >= CALM_NS / 2 ? CALM_NS : wait_ns >= WAVE_NS ? FULL_NS : WAVE_NS;
}
