/*
 * cache_client.h - what tests of the cache share: values that tell whose they are, and a sink that takes them.
 *
 *   value of (key, version, bytes): words of a generator seeded by the three, so that any wrong byte shows; every eighth
 *   page is zeros, as real arrays have them
 */
#ifndef DRP_CACHE_CLIENT_H
#define DRP_CACHE_CLIENT_H

#include <stdlib.h>
#include <string.h>

#include "cache/cache.h"

struct client_sink {
	struct cache_sink base;
	unsigned char *value;
	size_t bytes, size;
	unsigned char meta[16];
	size_t meta_bytes;
	uint8_t kind;
};

static inline int client_reserve(struct cache_sink *base, uint8_t kind, size_t meta_bytes, size_t value_bytes,
				 void **meta, void **value)
{
	struct client_sink *sink = (struct client_sink *)base;

	if (meta_bytes > sizeof(sink->meta))
		return -1;
	if (value_bytes > sink->size) {
		free(sink->value);
		sink->value = malloc(value_bytes);
		sink->size = value_bytes;
	}
	sink->kind = kind;
	sink->bytes = value_bytes;
	sink->meta_bytes = meta_bytes;
	*meta = sink->meta;
	if (value)
		*value = sink->value;
	return 0;
}

static inline void client_fill(unsigned char *value, uint64_t key, uint64_t version, size_t bytes)
{
	uint64_t state = key * UINT64_C(0x9e3779b97f4a7c15) ^ version * UINT64_C(0xbf58476d1ce4e5b9) ^ bytes;

	for (size_t at = 0; at < bytes; at += sizeof(state)) {
		state ^= state << 13;
		state ^= state >> 7;
		state ^= state << 17;
		uint64_t word = bytes > 4096 && (at >> 12) % 8 == 5 ? 0 : state;
		memcpy(value + at, &word, bytes - at < sizeof(word) ? bytes - at : sizeof(word));
	}
}

static inline int client_set(struct cache *cache, uint64_t key, uint64_t version, size_t bytes, bool own_pages,
			     enum cache_set_mode mode)
{
	unsigned char *value = malloc(bytes + 1);
	client_fill(value, key, version, bytes);
	const struct drp_part parts[] = {{value, bytes / 3}, {value + bytes / 3, bytes - bytes / 3}};
	const uint64_t meta[] = {version, bytes};
	const struct cache_item item = {.parts = parts, .part_count = 2, .meta = meta, .meta_bytes = sizeof(meta),
					.kind = (uint8_t)(key & 7), .own_pages = own_pages};
	int status = cache_set(cache, &key, sizeof(key), &item, mode);
	free(value);
	return status;
}

/* DRP_OK: a value came back, *version says which; its bytes are compared, and *wrong tells the outcome. */
static inline int client_get(struct cache *cache, struct client_sink *sink, uint64_t key, enum cache_get_mode mode,
			     uint64_t *version, bool *wrong)
{
	struct cache_pin pin;
	uint64_t meta[2];

	sink->base.reserve = client_reserve;
	*wrong = false;
	int status = cache_get(cache, &key, sizeof(key), mode, &sink->base, &pin, NULL);
	if (status != DRP_OK)
		return status;
	memcpy(meta, sink->meta, sizeof(meta));
	const unsigned char *value = pin.cache ? pin.value : sink->value;
	size_t bytes = pin.cache ? pin.value_bytes : sink->bytes;
	unsigned char *expected = malloc(bytes + 1);
	client_fill(expected, key, meta[0], bytes);
	*wrong = sink->meta_bytes != sizeof(meta) || meta[1] != bytes || sink->kind != (key & 7) ||
		 (bytes > 0 && memcmp(value, expected, bytes) != 0);
	*version = meta[0];
	free(expected);
	if (pin.cache)
		cache_unpin(&pin);
	return DRP_OK;
}

#endif
