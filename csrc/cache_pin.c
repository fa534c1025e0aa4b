/*
 * cache_pin.c - values in place: pinned for their first holder, shared by later ones, droppable again after the last.
 *
 * See pins.h for the states. Dirtying, checking and marking pages happens without the lock; the state keeps everybody
 * else away meanwhile, and the pin's hold on the segment keeps the memory mapped.
 */
#include <stdlib.h>

#include "cache_internal.h"
#include "witness.h"

static void hand_out(struct cache *cache, struct shard *shard, struct pin *of, size_t value_bytes, struct cache_pin *pin)
{
	atomic_fetch_add_explicit(&cache->references, 1, memory_order_relaxed);
	*pin = (struct cache_pin){.cache = cache, .of = of, .shard = (unsigned)(shard - cache->shards),
				  .value = of->address, .value_bytes = value_bytes};
}

int cache_take_pin(struct cache *cache, struct shard *shard, const struct entry_extent *extent,
		   const uint16_t *witnesses, struct cache_sink *sink, struct cache_pin *pin)
{
	const size_t page = prim_page_size(), value_bytes = (size_t)extent->value_bytes;
	struct segment *segment = arena_segment(&shard->arena, extent->segment);
	unsigned char *address = segment->base + (size_t)extent->page * page;
	struct pin *of = pins_find(&shard->pins, address);

	if (of && of->state != PIN_HELD) {
		pthread_cond_wait(&shard->pin_changed, &shard->lock);
		return PIN_RETRY; /* the entry may have changed while the lock was gone */
	}
	if (of) {
		of->count++;
		hand_out(cache, shard, of, value_bytes, pin);
		return DRP_OK;
	}
	of = pins_add(&shard->pins, segment, address, witness_count(value_bytes) * page);
	if (!of)
		return DRP_REFUSED;
	segment->users++;
	pthread_mutex_unlock(&shard->lock);

	if (sink->begin_copy)
		sink->begin_copy(sink, value_bytes);
	prim_pin(address, value_bytes);
	bool intact = witness_intact(address, value_bytes, witnesses);
	if (!intact)
		(void)prim_purge(address, of->bytes); /* dirty zeros, of no use to anybody */

	/* Waiters are told before end_copy(), which may itself wait for one of them. */
	pthread_mutex_lock(&shard->lock);
	if (intact) {
		of->state = PIN_HELD;
		hand_out(cache, shard, of, value_bytes, pin);
	} else {
		pins_remove(&shard->pins, of);
		arena_release(&shard->arena, segment);
	}
	pthread_cond_broadcast(&shard->pin_changed);
	if (sink->end_copy) {
		pthread_mutex_unlock(&shard->lock);
		sink->end_copy(sink);
		pthread_mutex_lock(&shard->lock);
	}
	return intact ? DRP_OK : DRP_MISS;
}

void cache_unpin(struct cache_pin *pin)
{
	struct cache *cache = pin->cache;
	struct shard *shard = &cache->shards[pin->shard];
	struct pin *of = pin->of;
	bool forgotten = false;

	pin->cache = NULL;
	pthread_mutex_lock(&shard->lock);
	if (--of->count == 0) {
		of->state = PIN_FREEING;
		do { /* the entry may be forgotten while its pages are being marked */
			forgotten = of->forgotten;
			pthread_mutex_unlock(&shard->lock);
			if (forgotten) {
				(void)prim_purge(of->address, of->bytes);
			} else {
				(void)prim_mark(of->address, of->bytes);
				prim_touch(of->address, of->bytes); /* it was in use until now */
			}
			pthread_mutex_lock(&shard->lock);
		} while (of->forgotten && !forgotten);
		struct segment *segment = of->segment;
		pins_remove(&shard->pins, of);
		arena_release(&shard->arena, segment);
		pthread_cond_broadcast(&shard->pin_changed);
	}
	shard_unlock(shard);
	cache_unref(cache);
}
