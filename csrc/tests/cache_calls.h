/*
 * cache_calls.h - calls of a small cache in an order that a seed chooses: stores of all layouts, values taken in place, held
 * for a while and let go, deletions, expiry, drops, short memory, and now and then everything forgotten. What is held is
 * compared each time.
 *
 * Who includes it defines calls_drop_pages(), which lets a few pages go, and calls_change_room(), which changes how much
 * memory there is.
 */
#ifndef DRP_CACHE_CALLS_H
#define DRP_CACHE_CALLS_H

#include "cache/cache.h"
#include "cache_client.h"
#include "policy/unpin.h"
#include "check.h"

static void calls_drop_pages(struct cache *cache, uint64_t seed);
static void calls_change_room(void);

enum { PAGE = 4096, KEYS = 40, HELD = 6, MB = 1 << 20 };

static struct client_sink sink;

static struct held {
	struct cache_pin pin;
	uint64_t key, version;
	size_t bytes;
} held[HELD];

static uint64_t random_state;

static inline uint64_t pick(uint64_t below)
{
	random_state = random_state * UINT64_C(6364136223846793005) + 1442695040888963407u;
	return (random_state >> 33) % below;
}

static inline size_t pick_bytes(void)
{
	static const size_t most[] = {200, 3000, 12000, 4 * PAGE, 12 * PAGE};
	return 1 + (size_t)pick(most[pick(5)]);
}

static inline bool is_value(const void *value, uint64_t key, uint64_t version, size_t bytes)
{
	unsigned char *expected = malloc(bytes + 1);
	client_fill(expected, key, version, bytes);
	const bool same = memcmp(value, expected, bytes) == 0;
	free(expected);
	return same;
}

static inline void hold(struct cache *cache, struct held *place, uint64_t key)
{
	uint64_t meta[2];

	sink.base = (struct cache_sink){.reserve = client_reserve};
	if (cache_get(cache, &key, sizeof(key), GET_PIN, &sink.base, &place->pin, NULL) != DRP_OK || !place->pin.cache)
		return;
	memcpy(meta, sink.meta, sizeof(meta));
	place->key = key;
	place->version = meta[0];
	place->bytes = (size_t)meta[1];
}

static inline void let_go(struct held *place)
{
	CHECK(is_value(place->pin.value, place->key, place->version, place->bytes));
	if (!cache_unpin_quick(&place->pin))
		cache_unpin(&place->pin);
	place->pin.cache = NULL;
}

static inline void set_some(struct cache *cache, uint64_t key, uint64_t version)
{
	const size_t bytes = pick_bytes();
	unsigned char *value = malloc(bytes);
	client_fill(value, key, version, bytes);
	const struct drp_part part = {value, bytes};
	const uint64_t meta[] = {version, bytes};
	const struct cache_item item = {.parts = &part, .part_count = 1, .meta = meta, .meta_bytes = sizeof(meta),
					.kind = (uint8_t)(key & 7), .own_pages = pick(2), .ttl_ns = pick(4) ? 0 : 1 + pick(MB)};
	int status = cache_set(cache, &key, sizeof(key), &item, SET_ALWAYS);
	CHECK(status == DRP_OK || status == DRP_REFUSED || status == DRP_TOO_LARGE || status == DRP_NO_MEMORY);
	free(value);
}

static inline void call_one(struct cache *cache, uint64_t version)
{
	const uint64_t key = pick(KEYS), what = pick(100);
	struct held *place = &held[pick(HELD)];
	struct cache_drop drop;
	uint64_t found;
	bool wrong;

	if (what < 35) {
		set_some(cache, key, version);
	} else if (what < 55) {
		int status = client_get(cache, &sink, key, what & 1 ? GET_COPY : GET_PIN, &found, &wrong);
		CHECK(status == DRP_MISS || (status == DRP_OK && !wrong));
	} else if (what < 75) {
		if (place->pin.cache)
			let_go(place);
		else
			hold(cache, place, key);
	} else if (what < 82) {
		(void)cache_delete(cache, &key, sizeof(key), 0);
	} else if (what < 86) {
		cache_advance_clock(cache, pick(MB));
	} else if (what < 92) {
		calls_drop_pages(cache, version);
	} else if (what < 94) {
		calls_change_room();
	} else if (what < 96) {
		CHECK_EQ(cache_settle(cache), DRP_OK);
	} else if (what < 97) {
		int status = cache_drop(cache, 0.3, version, &drop);
		CHECK(status == DRP_OK || status == DRP_SYSTEM);
	} else if (what < 98) {
		(void)unpin_all();
	} else if (what < 99) {
		(void)cache_contains(cache, &key, sizeof(key));
	} else {
		CHECK_EQ(cache_clear(cache), DRP_OK);
	}
}

static inline void let_all_go(void)
{
	for (int i = 0; i < HELD; i++)
		if (held[i].pin.cache)
			let_go(&held[i]);
}

#endif
