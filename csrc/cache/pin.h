/*
 * cache/pin.h - values in place, for a look-up that found one. cache/pin.c has the order of things.
 *
 * Callers: cache/cache.c.
 */
#ifndef DRP_CACHE_PIN_H
#define DRP_CACHE_PIN_H

#include "cache/cache.h"
#include "store/internal.h"

/* Both take the lock over and give it back, but not in between. PIN_RETRY: look the entry up once more. */
enum { PIN_RETRY = 1 };
int cache_share_pin(struct cache *cache, struct shard *shard, struct pin *of, size_t value_bytes, struct cache_pin *pin);
int cache_take_pin(struct cache *cache, struct shard *shard, struct segment *segment, unsigned char *address,
		   size_t value_bytes, const uint16_t *witnesses, struct cache_sink *sink, struct cache_pin *pin);

#endif
