/*
 * cache/pin.c - values in place: pinned for their first holder, shared by later ones, and after the last one kept for a
 * while, or droppable again.
 *
 * See pins.h for the states. Dirtying, checking and marking pages happens without the lock; the state keeps everybody
 * else away meanwhile, and the pin's hold on the segment keeps the memory mapped.
 */
#include <stdlib.h>

#include "cache/fork.h"
#include "store/internal.h"
#include "policy/unpin.h"
#include "store/deferred.h"
#include "log/witness.h"
#include "cache/pin.h"

static void hand_out(struct cache *cache, struct pin *of, size_t value_bytes, struct cache_pin *pin)
{
	*pin = (struct cache_pin){.cache = cache, .of = of, .shard = of->shard, .value = of->address,
				  .value_bytes = value_bytes};
}

int cache_share_pin(struct cache *cache, struct shard *shard, struct pin *of, size_t value_bytes, struct cache_pin *pin)
{
	if (of->state != PIN_HELD) {
		pthread_cond_wait(&shard->pin_changed, &shard->lock);
		return PIN_RETRY; /* the entry may have changed while the lock was gone */
	}
	if (of->deferred)
		deferred_use(shard, of);
	of->count++;
	hand_out(cache, of, value_bytes, pin);
	return DRP_OK;
}

/* A value is looked at piece by piece before it is dirtied: each page that is gone would take memory, for zeros. */
static bool dirty_and_check(unsigned char *address, size_t bytes, const uint16_t *witnesses)
{
	for (size_t at = 0; at < bytes; at += WITNESS_STEP_BYTES) {
		const uint16_t *those = witnesses + at / prim_page_size();
		const size_t length = bytes - at < WITNESS_STEP_BYTES ? bytes - at : WITNESS_STEP_BYTES;
		if (!witness_intact(address + at, length, those))
			return false;
		prim_pin(address + at, length);
		if (!witness_intact(address + at, length, those))
			return false;
	}
	return true;
}

int cache_take_pin(struct cache *cache, struct shard *shard, struct segment *segment, unsigned char *address,
		   size_t value_bytes, const uint16_t *witnesses, struct cache_sink *sink, struct cache_pin *pin)
{
	struct pin *of = pins_add(&shard->pins, segment, address, witness_count(value_bytes) * prim_page_size());

	if (!of)
		return DRP_REFUSED;
	of->cache = cache;
	of->shard = (unsigned)(shard - cache->shards);
	atomic_fetch_add_explicit(&cache->references, 1, memory_order_relaxed);
	segment->users++;
	pthread_mutex_unlock(&shard->lock);

	cache_begin_copy(sink, value_bytes, shard, segment, of);
	bool intact = dirty_and_check(address, value_bytes, witnesses), dirty = false;
	if (!intact) /* dirty zeros, and what was left, of no use to anybody */
		dirty = !give_up_pages(address, of->bytes);

	/* Waiters are told before end_copy(), which may itself wait for one of them. */
	pthread_mutex_lock(&shard->lock);
	if (intact) {
		of->state = PIN_HELD;
		hand_out(cache, of, value_bytes, pin);
	} else {
		segment->dirty |= dirty;
		pins_remove(&shard->pins, of);
		arena_release(&shard->arena, segment);
		atomic_fetch_sub_explicit(&cache->references, 1, memory_order_relaxed); /* the caller has one too */
	}
	pthread_cond_broadcast(&shard->pin_changed);
	if (sink->end_copy) { /* nothing is under way any more that a fork would have to know of */
		pthread_mutex_unlock(&shard->lock);
		sink->end_copy(sink);
		pthread_mutex_lock(&shard->lock);
	}
	return intact ? DRP_OK : DRP_MISS;
}

bool cache_unpin_quick(struct cache_pin *pin)
{
	struct shard *shard = &pin->cache->shards[pin->shard];
	struct pin *of = pin->of;

	pthread_mutex_lock(&shard->lock);
	bool quick = of->count > 1 || (of->in_ring && unpin_defer(shard, of));
	if (quick) {
		of->count--;
		pin->cache = NULL;
	}
	pthread_mutex_unlock(&shard->lock);
	return quick;
}

void cache_unpin(struct cache_pin *pin)
{
	struct shard *shard = &pin->cache->shards[pin->shard];
	struct pin *of = pin->of;

	pin->cache = NULL;
	pthread_mutex_lock(&shard->lock);
	const bool last = --of->count == 0, kept = last && unpin_defer(shard, of);
	if (last && !kept) {
		pins_begin_free(of);
		of->ring_next = NULL;
	}
	pthread_mutex_unlock(&shard->lock);
	if (kept)
		unpin_trim();
	else if (last)
		unpin_give_back(of);
}
