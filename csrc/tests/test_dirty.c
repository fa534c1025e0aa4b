/*
 * test_dirty.c - after every call, each page that the kernel could not take is in exactly one count (cache_pages.h).
 *
 * Calls in an order that a seed chooses, on a small cache on prim_fake: stores of all layouts, values taken in place, held for
 * a while and let go, deletions, expiry, drops of single pages, short memory, and now and then everything forgotten. What
 * is held is compared each time.
 */
#include "cache.h"

#include "cache_client.h"
#include "cache_on_fake.h"
#include "cache_pages.h"
#include "cache_window.h"
#include "check.h"
#include "prim_fake.h"

#ifdef __SANITIZE_THREAD__
enum { CALLS = 400 };
#else
enum { CALLS = 3000 };
#endif

enum { PAGE = 4096, KEYS = 40, HELD = 6, MB = 1 << 20 };

static struct client_sink sink;

static struct held {
	struct cache_pin pin;
	uint64_t key, version;
	size_t bytes;
} held[HELD];

static uint64_t random_state;

static uint64_t pick(uint64_t below)
{
	random_state = random_state * UINT64_C(6364136223846793005) + 1442695040888963407u;
	return (random_state >> 33) % below;
}

static size_t pick_bytes(void)
{
	static const size_t most[] = {200, 3000, 12000, 4 * PAGE, 12 * PAGE};
	return 1 + (size_t)pick(most[pick(5)]);
}

static bool is_value(const void *value, uint64_t key, uint64_t version, size_t bytes)
{
	unsigned char *expected = malloc(bytes + 1);
	client_fill(expected, key, version, bytes);
	const bool same = memcmp(value, expected, bytes) == 0;
	free(expected);
	return same;
}

static void hold(struct cache *cache, struct held *place, uint64_t key)
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

static void let_go(struct held *place)
{
	CHECK(is_value(place->pin.value, place->key, place->version, place->bytes));
	if (!cache_unpin_quick(&place->pin))
		cache_unpin(&place->pin);
	place->pin.cache = NULL;
}

static void set_some(struct cache *cache, uint64_t key, uint64_t version)
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

static void change_room(void)
{
	const uint64_t used = pick(4) ? 10 * MB : 97 * MB + 512 * 1024; /* at times there is hardly any */

	fake_headroom(100 * MB, used, 0);
	for (int i = 0; i < 200000; i++)
		(void)prim_now_ns();
}

static void call_one(struct cache *cache, uint64_t version)
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
		for (int pages = 0; pages < 3; pages++)
			fake_drop(pick(fake_pages()));
	} else if (what < 94) {
		change_room();
	} else if (what < 96) {
		CHECK_EQ(cache_settle(cache), DRP_OK);
	} else if (what < 97) {
		int status = cache_drop(cache, 0.3, version, &drop);
		CHECK(status == DRP_OK || status == DRP_SYSTEM);
	} else if (what < 98) {
		(void)window_release();
	} else if (what < 99) {
		(void)cache_contains(cache, &key, sizeof(key));
	} else {
		CHECK_EQ(cache_clear(cache), DRP_OK);
	}
}

static void each_page_is_counted(uint64_t seed, unsigned shards, uint64_t span_bytes, uint64_t max_bytes,
				 bool fails)
{
	const struct cache_config config = {.shards = shards, .segment_bytes = 16 * PAGE, .span_bytes = span_bytes,
					    .max_bytes = max_bytes};
	struct cache *cache = fake_cache_make(&config);

	random_state = seed;
	for (uint64_t version = 1; version <= CALLS; version++) {
		if (fails)
			fake_fail_call(pick(3) ? 0 : 1 + pick(6));
		call_one(cache, version);
		fake_fail_call(0);
		if (!pages_are_counted(cache) || check_failures() > 0) {
			printf("# call %llu of seed %llu\n", (unsigned long long)version, (unsigned long long)seed);
			break;
		}
	}
	for (int i = 0; i < HELD; i++)
		if (held[i].pin.cache)
			let_go(&held[i]);
	fake_cache_end(cache);
}

int main(void)
{
	for (uint64_t seed = 1; seed <= 3; seed++)
		for (int fails = 0; fails <= 1; fails++) {
			RUN(each_page_is_counted, seed, 1, 0, 0, fails);
			RUN(each_page_is_counted, seed, 2, 0, 0, fails);
			RUN(each_page_is_counted, seed, 1, 24 * 16 * PAGE, 0, fails);
			RUN(each_page_is_counted, seed, 1, 0, 400 * 1024, fails);
		}
	free(sink.value);
	return check_done();
}
