/*
 * test_update_threads.c - compare and set in several threads at once, on the kernel that runs: they count up, and none is lost.
 */
#include "cache/update.h"

#include <pthread.h>
#include <stdatomic.h>

#include "cache/cache.h"
#include "cache_client.h"
#include "store/internal.h"
#include "cache/lease.h"
#include "check.h"
#include "check_counts.h"

enum { ROUNDS = CHECK_LESS ? 1500 : 10000 };
enum { PAGE = 4096, SEGMENT = 64 * PAGE, COUNTERS = 4, COUNTER_KEYS = 3, OTHER_KEYS = 2000 };

enum way { BY_VERSION, BY_PLACE, BY_LEASE, WAYS };

static struct {
	struct cache *cache;
	enum way way;
	size_t bytes; /* of a counter's value, which begins with the count */
	_Atomic bool stop;
	_Atomic uint64_t misses, retries;
} race;

struct counter_sink {
	struct cache_sink base;
	unsigned char value[2 * PAGE];
};

static int reserve(struct cache_sink *base, uint8_t kind, size_t meta_bytes, size_t value_bytes, void **meta, void **value)
{
	struct counter_sink *sink = (struct counter_sink *)base;

	(void)kind;
	(void)meta;
	*value = sink->value;
	return meta_bytes == 0 && value_bytes <= sizeof(sink->value) ? 0 : -1;
}

static int add_one(uint64_t key)
{
	struct counter_sink sink = {.base = {.reserve = reserve}};
	struct cache_update how = {.mode = race.way == BY_LEASE ? SET_IF_PRESENT : SET_IF_SAME, .keep_expiry = true};
	const struct drp_part part = {sink.value, race.bytes};
	const struct cache_item item = {.parts = &part, .part_count = 1, .versioned = race.way == BY_VERSION};
	struct cache_lease lease = {0};
	struct cache_about about;
	struct cache_pin pin;
	uint64_t count;

	if (race.way == BY_LEASE) {
		CHECK_EQ(cache_lease_begin(race.cache, &key, sizeof(key), &lease), DRP_OK);
		how.lease = &lease;
		how.is_strict = true;
	}
	int status = cache_get(race.cache, &key, sizeof(key), GET_COPY, &sink.base, &pin, &about);
	if (status == DRP_OK) {
		how.version = race.way == BY_VERSION ? about.version : 0;
		how.place = race.way == BY_PLACE ? about.place : 0;
		memcpy(&count, sink.value, sizeof(count));
		count++;
		memcpy(sink.value, &count, sizeof(count));
		status = cache_update(race.cache, &key, sizeof(key), &item, &how);
	}
	cache_lease_end(&lease);
	return status;
}

static void *count_up(void *number)
{
	for (uint64_t i = 0; i < ROUNDS; i++) {
		int status;
		while ((status = add_one((i + (uintptr_t)number) % COUNTER_KEYS)) == DRP_EXISTS || status == DRP_STALE)
			atomic_fetch_add(&race.retries, 1);
		CHECK(status == DRP_OK || status == DRP_MISS || status == DRP_REFUSED);
		if (status != DRP_OK)
			atomic_fetch_add(&race.misses, 1);
	}
	return NULL;
}

/* New times to live, and other values by the thousand, so that entries are moved about. */
static void *disturb(void *unused)
{
	(void)unused;
	for (uint64_t i = 0; !atomic_load(&race.stop); i++) {
		const uint64_t key = i % COUNTER_KEYS;
		const int status = cache_touch(race.cache, &key, sizeof(key), UINT64_C(3600000000000) * (1 + i % 50));
		CHECK(status == DRP_OK || status == DRP_MISS || status == DRP_REFUSED);
		const int stored = client_set(race.cache, 100 + i % OTHER_KEYS, i, i % 7 ? 300 : 3 * PAGE, true, SET_ALWAYS);
		CHECK(stored == DRP_OK || stored == DRP_REFUSED);
	}
	return NULL;
}

static void none_is_lost(enum way way, size_t bytes)
{
	const struct cache_config config = {.shards = 2, .segment_bytes = SEGMENT, .span_bytes = 400 * SEGMENT};
	unsigned char zeros[2 * PAGE] = {0};
	const struct drp_part part = {zeros, bytes};
	const struct cache_item item = {.parts = &part, .part_count = 1, .versioned = way == BY_VERSION};
	struct counter_sink sink = {.base = {.reserve = reserve}};
	pthread_t counters[COUNTERS], disturber;
	struct cache_stats stats;
	struct cache_pin pin;
	uint64_t sum = 0;

	race.way = way;
	race.bytes = bytes;
	atomic_store(&race.stop, false);
	atomic_store(&race.misses, 0);
	REQUIRE(cache_create(&config, &race.cache) == DRP_OK);
	for (uint64_t key = 0; key < COUNTER_KEYS; key++)
		REQUIRE(cache_set(race.cache, &key, sizeof(key), &item, SET_ALWAYS) == DRP_OK);
	REQUIRE(pthread_create(&disturber, NULL, disturb, NULL) == 0);
	for (uintptr_t i = 0; i < COUNTERS; i++)
		REQUIRE(pthread_create(&counters[i], NULL, count_up, (void *)i) == 0);
	for (int i = 0; i < COUNTERS; i++)
		pthread_join(counters[i], NULL);
	atomic_store(&race.stop, true);
	pthread_join(disturber, NULL);
	check_counts(race.cache);
	bool all = true;
	for (uint64_t key = 0; key < COUNTER_KEYS; key++) {
		uint64_t count = 0;
		all &= cache_get(race.cache, &key, sizeof(key), GET_COPY, &sink.base, &pin, NULL) == DRP_OK;
		memcpy(&count, sink.value, sizeof(count));
		sum += count;
	}
	cache_read_stats(race.cache, &stats);
	cache_close(race.cache);
	cache_unref(race.cache);
	if (stats.dropped + stats.evicted > 0 && (!all || atomic_load(&race.misses) > 0))
		SKIP("memory is short: the kernel took a counter");
	CHECK(all);
	CHECK_EQ(sum, COUNTERS * ROUNDS);
	CHECK_EQ(atomic_load(&race.misses), 0);
}

int main(void)
{
	for (int way = 0; way < WAYS; way++) {
		RUN(none_is_lost, way, 100);
		RUN(none_is_lost, way, 2 * PAGE);
	}
	printf("# %llu times somebody else was first\n", (unsigned long long)atomic_load(&race.retries));
	return check_done();
}
