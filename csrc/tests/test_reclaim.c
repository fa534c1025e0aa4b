/*
 * test_reclaim.c - memory is given back while others take it fast, on prim_fake: when, how much, and of what.
 *
 * The fake's group is told to the cache: its limit is used up; then pages of this process go (told by prim_resident()),
 * and ordinary memory grows (told by what is reclaimable no more). The fake drops nothing by itself: what is missing
 * afterwards was given back.
 */
#include "cache/cache.h"

#include "cache_client.h"
#include "cache_on_fake.h"
#include "policy/reclaim.h"
#include "check.h"
#include "prim_fake.h"

enum { PAGE = 4096, BYTES = 5 * PAGE, MB = 1 << 20, MS = 1000 /* readings of the fake's clock */, VALUES = 120, USED = 10 };

static struct client_sink sink;

static struct cache *make(void)
{
	const struct cache_config config = {.shards = 2, .segment_bytes = 64 * PAGE};
	return fake_cache_make(&config);
}

static void pass(unsigned ms)
{
	for (unsigned i = 0; i < ms * MS; i++)
		(void)prim_now_ns();
}

static uint64_t yielded(struct cache *cache)
{
	struct cache_stats stats;

	cache_read_stats(cache, &stats);
	return stats.yielded_bytes;
}

static int get(struct cache *cache, uint64_t key)
{
	uint64_t version;
	bool wrong;
	int status = client_get(cache, &sink, key, GET_COPY, &version, &wrong);

	CHECK(status != DRP_OK || !wrong);
	return status;
}

/* The group has a limit of 100 MB that is used up, with so much ordinary memory in it; so much is resident of this process. */
static void tell(uint64_t ordinary_bytes, uint64_t resident_bytes)
{
	fake_headroom(100 * MB, 100 * MB, 100 * MB - ordinary_bytes);
	fake_group(resident_bytes);
}

/* Values of some pages; the first few are asked for. The look at the end finds nothing wrong. */
static struct cache *in_a_full_group(size_t bytes, uint64_t values)
{
	struct cache *cache = make();

	for (uint64_t key = 0; key < values; key++)
		CHECK_EQ(client_set(cache, key, 1, bytes, false, SET_ALWAYS), DRP_OK);
	tell(40 * MB, 60 * MB);
	for (int i = 0; i < 2; i++) { /* reads the limit, then how much is resident */
		pass(150);
		cache_reclaim();
	}
	for (uint64_t key = 0; key < USED; key++)
		CHECK_EQ(get(cache, key), DRP_OK);
	CHECK_EQ(yielded(cache), 0);
	return cache;
}

/* Pages go for ordinary memory that grows by so much in 4 ms: as much will be wanted. */
static void wave(uint64_t bytes)
{
	tell(40 * MB, 58 * MB);
	pass(2);
	cache_reclaim();
	tell(40 * MB + bytes, 56 * MB);
	pass(4);
	cache_reclaim();
}

static void a_wave_takes_what_was_not_asked_for(void)
{
	struct cache *cache = in_a_full_group(BYTES, VALUES);
	unsigned gone = 0;

	wave(VALUES / 2 * BYTES);
	CHECK(yielded(cache) > VALUES / 3 * BYTES);
	for (uint64_t key = 0; key < VALUES; key++) {
		int status = get(cache, key);
		CHECK(status == DRP_OK || key >= USED);
		gone += status == DRP_MISS;
	}
	CHECK_EQ(gone, yielded(cache) / BYTES);
	fake_cache_end(cache);
}

static void small_entries_go_by_the_page(void)
{
	struct cache *cache = in_a_full_group(500, 4000);
	unsigned gone = 0;

	wave(300 * PAGE);
	CHECK(yielded(cache) > 200 * PAGE);
	for (uint64_t key = 0; key < 4000; key++) {
		int status = get(cache, key);
		CHECK(status == DRP_OK || key >= USED);
		gone += status == DRP_MISS;
	}
	CHECK(gone > 200 * 6);
	fake_cache_end(cache);
}

static void asked_for_once_is_not_asked_for_ever(void)
{
	struct cache *cache = in_a_full_group(BYTES, VALUES);

	wave(VALUES / 2 * BYTES);
	const uint64_t once = yielded(cache);
	for (int i = 0; i < 2; i++) { /* it goes on: the hand comes round, nobody asked again */
		tell(50 * MB + 6u * (unsigned)i * MB, 50 * MB);
		pass(3);
		cache_reclaim();
	}
	CHECK(yielded(cache) >= once + BYTES);
	unsigned there = 0;
	for (uint64_t key = 0; key < USED; key++)
		there += get(cache, key) == DRP_OK;
	CHECK(there < USED);
	fake_cache_end(cache);
}

static void page_cache_is_no_wave(void)
{
	struct cache *cache = in_a_full_group(BYTES, VALUES);

	for (uint64_t left = 58; left > 40; left -= 2) { /* our pages go, ordinary memory does not grow */
		tell(40 * MB, left * MB);
		pass(2);
		cache_reclaim();
	}
	CHECK_EQ(yielded(cache), 0);
	fake_cache_end(cache);
}

static void slow_growth_is_left_to_reclaim(void)
{
	struct cache *cache = in_a_full_group(BYTES, VALUES);

	for (uint64_t i = 0; i < 50; i++) { /* 60 MB a second */
		tell(40 * MB + i * MB / 4, 60 * MB - i * MB / 4);
		pass(4);
		cache_reclaim();
	}
	CHECK_EQ(yielded(cache), 0);
	fake_cache_end(cache);
}

static void free_memory_is_not_added_to(void)
{
	struct cache *cache = in_a_full_group(BYTES, VALUES);

	tell(40 * MB, 58 * MB);
	pass(2);
	cache_reclaim();
	fake_headroom(100 * MB, 88 * MB, 46 * MB); /* grown by 2 MB; 12 MB are free, more than 4 ms take */
	fake_group(46 * MB);
	pass(1);
	cache_reclaim();
	CHECK_EQ(yielded(cache), 0);
	fake_cache_end(cache);
}

/* A wave in a group that cannot be read any more is over: what was measured there says nothing of the group that is read later. */
static void a_wave_ends_with_its_group(void)
{
	struct cache *cache = in_a_full_group(BYTES, VALUES);

	wave(VALUES / 2 * BYTES);
	const uint64_t before = yielded(cache);
	CHECK(before > 0);
	fake_headroom(100 * MB, 100 * MB, 60 * MB); /* of no group */
	pass(150);
	cache_reclaim();
	tell(50 * MB, 50 * MB); /* a full group again, in which nothing grows */
	for (int i = 0; i < 5; i++) {
		pass(150);
		cache_reclaim();
	}
	CHECK_EQ(yielded(cache), before);
	fake_cache_end(cache);
}

static void what_is_held_stays(void)
{
	struct cache *cache = make();
	struct cache_pin pin;
	uint64_t key = 7;

	for (uint64_t k = 0; k < VALUES; k++)
		CHECK_EQ(client_set(cache, k, 1, BYTES, true, SET_ALWAYS), DRP_OK);
	sink.base.reserve = client_reserve;
	CHECK_EQ(cache_get(cache, &key, sizeof(key), GET_PIN, &sink.base, &pin, NULL), DRP_OK);
	REQUIRE(pin.cache != NULL);
	for (int i = 0; i < 20; i++)
		(void)cache_give_back(100 * MB);
	CHECK(yielded(cache) > 0);
	unsigned char *expected = malloc(BYTES);
	REQUIRE(expected != NULL);
	client_fill(expected, key, 1, BYTES);
	CHECK_EQ(memcmp(pin.value, expected, BYTES), 0);
	free(expected);
	cache_unpin(&pin);
	CHECK_EQ(get(cache, key), DRP_OK);
	fake_cache_end(cache);
}

static void the_dead_go_first(void)
{
	struct cache *cache = make();
	enum { KEYS = 60, BYTES_EACH = 3000 };

	for (int round = 0; round < 12; round++) /* segments die, and are kept to be written again */
		for (uint64_t key = 0; key < KEYS; key++)
			CHECK_EQ(client_set(cache, key, 1, BYTES_EACH, false, SET_ALWAYS), DRP_OK);
	CHECK(cache_give_back(1) >= 64 * PAGE);
	CHECK_EQ(yielded(cache), 0);
	for (uint64_t key = 0; key < KEYS; key++)
		CHECK_EQ(get(cache, key), DRP_OK);
	fake_cache_end(cache);
}

int main(void)
{
	RUN(a_wave_takes_what_was_not_asked_for, );
	RUN(small_entries_go_by_the_page, );
	RUN(asked_for_once_is_not_asked_for_ever, );
	RUN(page_cache_is_no_wave, );
	RUN(slow_growth_is_left_to_reclaim, );
	RUN(free_memory_is_not_added_to, );
	RUN(a_wave_ends_with_its_group, );
	RUN(what_is_held_stays, );
	RUN(the_dead_go_first, );
	free(sink.value);
	return check_done();
}
