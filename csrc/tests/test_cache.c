/*
 * test_cache.c - the cache on the kernel that runs: what each call promises, a long run against a model, and threads that
 * read, write, delete and pin while the kernel takes pages.
 */
#include "cache/cache.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cache_client.h"
#include "store/internal.h"
#include "policy/reclaim.h"
#include "policy/unpin.h"
#include "check.h"

enum { SCALE = CHECK_LESS ? 1 : 4 };

static bool offered(enum prim_backing backing)
{
	void *at;
	if (prim_map(backing, prim_page_size(), 0, &at) != DRP_OK)
		return false;
	prim_unmap(at, prim_page_size());
	return true;
}

#define SKIP_UNLESS_OFFERED(backing)                                                                                   \
	if (!offered(backing))                                                                                         \
	SKIP("this kernel has no such backing")

static struct cache *make(const struct cache_config *config)
{
	struct cache *cache = NULL;
	REQUIRE(cache_create(config, &cache) == DRP_OK);
	return cache;
}

static void end(struct cache *cache)
{
	cache_close(cache);
	cache_unref(cache);
}

static void stores_and_forgets(enum prim_backing backing)
{
	SKIP_UNLESS_OFFERED(backing);
	struct cache *cache = make(&(struct cache_config){.backing = backing});
	struct client_sink sink = {0};
	static const size_t sizes[] = {0, 1, 100, 4095, 4096, 4097, 30000, 40000, 500000, 3000000};
	uint64_t version = 0;
	bool wrong;

	for (uint64_t key = 0; key < 20; key++) {
		size_t bytes = sizes[key / 2];
		CHECK_EQ(client_set(cache, key, 1, bytes, key & 1, SET_ALWAYS), DRP_OK);
		CHECK_EQ(client_set(cache, key, 2, bytes, key & 1, SET_IF_ABSENT), DRP_EXISTS);
		for (int mode = GET_COPY; mode <= GET_PIN; mode++) {
			CHECK_EQ(client_get(cache, &sink, key, mode, &version, &wrong), DRP_OK);
			CHECK(version == 1 && !wrong);
		}
		CHECK_EQ(client_set(cache, key, 3, bytes / 2, key & 1, SET_ALWAYS), DRP_OK);
		CHECK_EQ(client_get(cache, &sink, key, GET_COPY, &version, &wrong), DRP_OK);
		CHECK(version == 3 && !wrong);
		CHECK(cache_contains(cache, &key, sizeof(key)));
		CHECK_EQ(cache_delete(cache, &key, sizeof(key), 0), DRP_OK);
		CHECK_EQ(cache_delete(cache, &key, sizeof(key), 0), DRP_MISS);
		CHECK_EQ(client_get(cache, &sink, key, GET_COPY, &version, &wrong), DRP_MISS);
	}
	struct cache_stats stats;
	cache_read_stats(cache, &stats);
	CHECK_EQ(stats.entries, 0);
	CHECK_EQ(stats.bytes, 0);
	CHECK_EQ(stats.pinned_bytes, 0);
	cache_close(cache);
	CHECK_EQ(client_get(cache, &sink, 1, GET_COPY, &version, &wrong), DRP_CLOSED);
	CHECK_EQ(client_set(cache, 1, 1, 10, false, SET_ALWAYS), DRP_CLOSED);
	cache_unref(cache);
	free(sink.value);
}

static void drops_are_misses(enum prim_backing backing)
{
	SKIP_UNLESS_OFFERED(backing);
	struct cache *cache = make(&(struct cache_config){.backing = backing});
	struct client_sink sink = {0};
	struct cache_drop drop;
	struct cache_stats stats;
	uint64_t version = 0;
	bool wrong;

	for (uint64_t key = 0; key < 1000; key++)
		CHECK_EQ(client_set(cache, key, 1, key * 50, key & 1, SET_ALWAYS), DRP_OK);
	/* The index of a shard is one page or two: a larger share could take those of all. */
	CHECK_EQ(cache_drop(cache, 0.05, 7, &drop), DRP_OK);
	CHECK(drop.chosen_pages > 0 && drop.dropped_pages <= drop.chosen_pages);
	CHECK(drop.chosen_pages < drop.resident_pages);
	size_t hits = 0;
	for (uint64_t key = 0; key < 1000; key++) {
		hits += client_get(cache, &sink, key, GET_PIN, &version, &wrong) == DRP_OK;
		CHECK(!wrong);
	}
	CHECK(hits > 0 && hits < 1000);
	CHECK_EQ(cache_drop(cache, 1.0, 7, &drop), DRP_OK);
	for (uint64_t key = 0; drop.dropped_pages == drop.resident_pages && key < 1000; key++)
		CHECK_EQ(client_get(cache, &sink, key, GET_PIN, &version, &wrong), DRP_MISS);
	cache_read_stats(cache, &stats);
	CHECK(stats.misses[MISS_DROPPED] > 0);
	CHECK_EQ(client_set(cache, 5, 9, 100000, true, SET_ALWAYS), DRP_OK);
	CHECK_EQ(client_get(cache, &sink, 5, GET_PIN, &version, &wrong), DRP_OK);
	CHECK(version == 9 && !wrong);
	end(cache);
	free(sink.value);
}

static void pins_survive_everything(void)
{
	struct cache *cache = make(&(struct cache_config){.backing = PRIM_LAZYFREE});
	struct client_sink sink = {.base = {.reserve = client_reserve}};
	struct cache_drop drop;
	struct cache_pin pins[3];
	const size_t bytes = 200000;
	unsigned char *expected = malloc(bytes);
	uint64_t key = 4;

	client_fill(expected, key, 1, bytes);
	CHECK_EQ(client_set(cache, key, 1, bytes, true, SET_ALWAYS), DRP_OK);
	for (int i = 0; i < 3; i++)
		CHECK_EQ(cache_get(cache, &key, sizeof(key), GET_PIN_OWN, &sink.base, &pins[i], NULL), DRP_OK);
	REQUIRE(pins[0].cache && pins[1].cache && pins[2].cache);
	CHECK(pins[0].value == pins[1].value);
	CHECK_EQ(cache_drop(cache, 1.0, 1, &drop), DRP_OK);
	CHECK(memcmp(pins[0].value, expected, bytes) == 0);
	cache_unpin(&pins[0]);
	CHECK_EQ(cache_drop(cache, 1.0, 1, &drop), DRP_OK);
	CHECK(memcmp(pins[1].value, expected, bytes) == 0);
	CHECK_EQ(client_set(cache, key, 2, bytes, true, SET_ALWAYS), DRP_OK); /* replaced while it is pinned */
	CHECK(memcmp(pins[1].value, expected, bytes) == 0);
	cache_clear(cache);
	CHECK(memcmp(pins[1].value, expected, bytes) == 0);
	cache_unpin(&pins[1]);
	cache_close(cache);
	cache_unref(cache);
	CHECK(memcmp(pins[2].value, expected, bytes) == 0); /* the last holder of the cache itself */
	cache_unpin(&pins[2]);
	free(expected);
	free(sink.value);
}

/* What nobody holds any more stays pinned for a while, and a drop on order can take it all the same. */
static void rests_and_is_dropped(void)
{
	struct cache *cache = make(&(struct cache_config){.backing = PRIM_LAZYFREE});
	struct client_sink sink = {0};
	struct cache_drop drop;
	struct cache_stats stats;
	uint64_t version = 0;
	bool wrong;

	for (uint64_t key = 0; key < 8; key++) {
		CHECK_EQ(client_set(cache, key, 1, 300000, true, SET_ALWAYS), DRP_OK);
		for (int i = 0; i < 2; i++) {
			CHECK_EQ(client_get(cache, &sink, key, GET_PIN_OWN, &version, &wrong), DRP_OK);
			CHECK(!wrong);
		}
	}
	cache_read_stats(cache, &stats);
	CHECK(stats.window_bytes > 0);
	CHECK_EQ(stats.pinned_bytes, 0);
	CHECK_EQ(cache_drop(cache, 1.0, 1, &drop), DRP_OK);
	for (uint64_t key = 0; drop.dropped_pages == drop.resident_pages && key < 8; key++)
		CHECK_EQ(client_get(cache, &sink, key, GET_PIN_OWN, &version, &wrong), DRP_MISS);
	cache_read_stats(cache, &stats);
	CHECK_EQ(stats.window_bytes, 0);
	end(cache);
	free(sink.value);
}

static void expires(void)
{
	struct cache *cache = make(&(struct cache_config){.backing = PRIM_LAZYFREE});
	struct client_sink sink = {.base = {.reserve = client_reserve}};
	struct cache_pin pin;
	struct cache_stats stats;
	const struct drp_part part = {"value", 5};
	const struct cache_item item = {.parts = &part, .part_count = 1, .ttl_ns = 60000000000};

	CHECK_EQ(cache_set(cache, "k", 1, &item, SET_ALWAYS), DRP_OK);
	CHECK_EQ(cache_get(cache, "k", 1, GET_COPY, &sink.base, &pin, NULL), DRP_OK);
	cache_advance_clock(cache, 61000000000);
	CHECK(!cache_contains(cache, "k", 1));
	CHECK_EQ(cache_get(cache, "k", 1, GET_COPY, &sink.base, &pin, NULL), DRP_MISS);
	cache_read_stats(cache, &stats);
	CHECK_EQ(stats.expired, 1);
	CHECK_EQ(stats.entries, 0);
	end(cache);
	free(sink.value);
}

/* One thread, small segments, a small span or a bound: everything is cleaned, moved, evicted many times over. */
static void keeps_to_its_model(enum prim_backing backing, uint64_t max_bytes, uint64_t span_bytes)
{
	SKIP_UNLESS_OFFERED(backing);
	enum { KEYS = 3000 };
	struct cache *cache = make(&(struct cache_config){.backing = backing, .shards = 1, .segment_bytes = 65536,
							  .span_bytes = span_bytes, .max_bytes = max_bytes});
	static uint64_t newest[KEYS];
	struct client_sink sink = {0};
	struct cache_stats stats;
	struct cache_drop drop;
	uint64_t state = 88172645463325252u, version = 0, hits = 0;
	bool wrong;

	memset(newest, 0, sizeof(newest));
	for (uint64_t i = 1; i <= 60000 * SCALE; i++) {
		state ^= state << 13;
		state ^= state >> 7;
		state ^= state << 17;
		uint64_t key = (state >> 20) % KEYS, what = state % 16;
		if (what < 6) {
			size_t bytes = what == 0 ? (state >> 40) % 40000 : (state >> 40) % 600;
			CHECK_EQ(client_set(cache, key, i, bytes, state >> 33 & 1, SET_ALWAYS), DRP_OK);
			newest[key] = i;
		} else if (what == 6) {
			(void)cache_delete(cache, &key, sizeof(key), 0);
			newest[key] = 0;
		} else {
			if (client_get(cache, &sink, key, state >> 34 & 1 ? GET_PIN : GET_COPY, &version, &wrong) == DRP_OK) {
				CHECK(!wrong);
				CHECK_EQ(version, newest[key]);
				hits++;
			}
		}
		if (i % 20000 == 0)
			CHECK_EQ(cache_drop(cache, 0.2, i, &drop), DRP_OK);
		if (check_failures() > 5)
			break;
	}
	cache_read_stats(cache, &stats);
	CHECK(hits > 1000);
	if (max_bytes)
		CHECK(stats.bytes <= max_bytes + 50000);
	CHECK(stats.mapped_bytes <= span_bytes + 4 * 65536 + (1 << 20) || max_bytes);
	CHECK(stats.evicted > 0);
	printf("# hits %llu evicted %llu dropped %llu entries %llu bytes %llu mapped %llu\n", (unsigned long long)hits,
	       (unsigned long long)stats.evicted, (unsigned long long)stats.dropped, (unsigned long long)stats.entries,
	       (unsigned long long)stats.bytes, (unsigned long long)stats.mapped_bytes);
	end(cache);
	free(sink.value);
}

static void serves_many_entries(void)
{
	enum { ENTRIES = 50000 * SCALE };
	struct cache *cache = make(&(struct cache_config){.backing = PRIM_LAZYFREE});
	struct client_sink sink = {0};
	struct cache_stats stats;
	uint64_t version = 0;
	bool wrong;

	for (uint64_t key = 0; key < ENTRIES; key++)
		CHECK_EQ(client_set(cache, key, key, 40, false, SET_ALWAYS), DRP_OK);
	for (uint64_t key = 0; key < ENTRIES; key++) {
		CHECK_EQ(client_get(cache, &sink, key, GET_COPY, &version, &wrong), DRP_OK);
		CHECK(version == key && !wrong);
		if (check_failures() > 5)
			break;
	}
	cache_read_stats(cache, &stats);
	CHECK_EQ(stats.entries, ENTRIES);
	end(cache);
	free(sink.value);
}

/* The storm */

enum { STORM_KEYS = 400, STORM_THREADS = 4 };

struct storm {
	struct cache *cache;
	_Atomic uint64_t newest[STORM_KEYS]; /* the version that a writer is about to store, or has stored */
	_Atomic uint64_t reads, hits, wrong, failed;
	_Atomic bool over;
};

static void *storm_worker(void *argument)
{
	struct storm *storm = argument;
	struct client_sink sink = {0};
	uint64_t state = (uint64_t)(uintptr_t)&sink | 1, version = 0;
	bool wrong;

	for (int i = 0; i < 15000 * SCALE; i++) {
		state ^= state << 13;
		state ^= state >> 7;
		state ^= state << 17;
		uint64_t key = (state >> 20) % STORM_KEYS, what = state % 8;
		if (what < 2) {
			size_t bytes = (state >> 30) % 16 == 0 ? (state >> 40) % 600000 : (state >> 40) % 9000;
			version = atomic_fetch_add(&storm->newest[key], 1) + 1;
			int status = client_set(storm->cache, key, version, bytes, state >> 33 & 1, SET_ALWAYS);
			if (status != DRP_OK && status != DRP_REFUSED)
				atomic_fetch_add(&storm->failed, 1);
		} else if (what == 2) {
			(void)cache_delete(storm->cache, &key, sizeof(key), 0);
		} else {
			atomic_fetch_add(&storm->reads, 1);
			int status = client_get(storm->cache, &sink, key, what & 1 ? GET_PIN : GET_COPY, &version, &wrong);
			if (status == DRP_OK) {
				atomic_fetch_add(&storm->hits, 1);
				if (wrong || version > atomic_load(&storm->newest[key]))
					atomic_fetch_add(&storm->wrong, 1);
			} else if (status != DRP_MISS) {
				atomic_fetch_add(&storm->failed, 1);
			}
		}
	}
	free(sink.value);
	return NULL;
}

static void *storm_dropper(void *argument)
{
	struct storm *storm = argument;
	struct cache_drop drop;

	for (uint64_t seed = 0; !atomic_load(&storm->over); seed++) {
		/* As if memory got free and short again: what that begins and ends is in the storm too. */
		atomic_store(&storm->cache->memory_is_free, seed % 8 < 4);
		if (cache_drop(storm->cache, 0.02, seed, &drop) != DRP_OK)
			atomic_fetch_add(&storm->failed, 1);
		if (seed % 4 == 0)
			(void)cache_give_back(1 << 18);
		(void)unpin_all();
	}
	return NULL;
}

/* Caches come and go meanwhile; their deferred pins are in the one ring of the process. */
static void *storm_visitor(void *argument)
{
	struct storm *storm = argument;
	struct client_sink sink = {0};
	uint64_t version = 0;
	bool wrong;

	while (!atomic_load(&storm->over)) {
		struct cache *cache = make(&(struct cache_config){.shards = 1, .segment_bytes = 65536});
		for (uint64_t key = 0; key < 40; key++) {
			if (client_set(cache, key % 8, key, 5000, true, SET_ALWAYS) != DRP_OK)
				atomic_fetch_add(&storm->failed, 1);
			int status = client_get(cache, &sink, key % 8, GET_PIN, &version, &wrong);
			if (status != DRP_OK && status != DRP_MISS)
				atomic_fetch_add(&storm->failed, 1);
			else if (status == DRP_OK && (wrong || version != key))
				atomic_fetch_add(&storm->wrong, 1);
		}
		end(cache);
	}
	free(sink.value);
	return NULL;
}

/* What was just set and is not asked for goes at the hand's second round at the latest, whatever came before. */
static void gives_back_what_nobody_asks_for(struct cache *cache)
{
	enum { VALUES = 400, BYTES = 10000, MOST_STEPS = 10000 };
	struct cache_stats before, after;

	for (uint64_t key = 0; key < VALUES; key++)
		CHECK_EQ(client_set(cache, key, 1, BYTES, true, SET_ALWAYS), DRP_OK);
	CHECK_EQ(cache_settle(cache), DRP_OK);
	cache_read_stats(cache, &before);
	for (int i = 0; i < MOST_STEPS; i++) { /* a step is bounded by time too */
		(void)cache_give_back(1 << 20);
		cache_read_stats(cache, &after);
		if (after.yielded_bytes > before.yielded_bytes)
			break;
	}
	CHECK(after.yielded_bytes > before.yielded_bytes);
}

static void weathers_a_storm(enum prim_backing backing, uint64_t max_bytes, uint64_t span_bytes)
{
	SKIP_UNLESS_OFFERED(backing);
	static struct storm storm;
	pthread_t workers[STORM_THREADS], dropper, visitor;

	memset(&storm, 0, sizeof(storm));
	storm.cache = make(&(struct cache_config){.backing = backing, .shards = 2, .segment_bytes = 262144,
						  .max_bytes = max_bytes, .span_bytes = span_bytes});
	REQUIRE(pthread_create(&dropper, NULL, storm_dropper, &storm) == 0);
	REQUIRE(pthread_create(&visitor, NULL, storm_visitor, &storm) == 0);
	for (int i = 0; i < STORM_THREADS; i++)
		REQUIRE(pthread_create(&workers[i], NULL, storm_worker, &storm) == 0);
	for (int i = 0; i < STORM_THREADS; i++)
		pthread_join(workers[i], NULL);
	atomic_store(&storm.over, true);
	pthread_join(dropper, NULL);
	pthread_join(visitor, NULL);
	CHECK_EQ(storm.wrong, 0);
	CHECK_EQ(storm.failed, 0);
	CHECK(storm.hits > 0);
	struct cache_stats stats;
	cache_read_stats(storm.cache, &stats);
	printf("# reads %llu hits %llu dropped %llu evicted %llu yielded %llu KiB\n", (unsigned long long)storm.reads,
	       (unsigned long long)storm.hits, (unsigned long long)stats.dropped, (unsigned long long)stats.evicted,
	       (unsigned long long)stats.yielded_bytes >> 10);
	CHECK_EQ(stats.pinned_bytes, 0);
	gives_back_what_nobody_asks_for(storm.cache);
	end(storm.cache);
}

static void forks_empty(enum prim_backing backing)
{
	SKIP_UNLESS_OFFERED(backing);
	struct cache *cache = make(&(struct cache_config){.backing = backing});
	struct client_sink sink = {.base = {.reserve = client_reserve}};
	struct cache_pin pin = {0};
	struct cache_stats stats;
	uint64_t key = 3, version = 0;
	bool wrong;
	int status;

	for (uint64_t k = 0; k < 100; k++)
		CHECK_EQ(client_set(cache, k, 1, 10000 * (k % 5), true, SET_ALWAYS), DRP_OK);
	for (uint64_t k = 0; k < 50; k++)
		CHECK_EQ(client_get(cache, &sink, k, GET_PIN, &version, &wrong), DRP_OK);
	CHECK_EQ(cache_get(cache, &key, sizeof(key), GET_PIN_OWN, &sink.base, &pin, NULL), DRP_OK);
	cache_read_stats(cache, &stats);
	const uint64_t rested_bytes = stats.window_bytes;
	pid_t child = fork();
	REQUIRE(child >= 0);
	cache_read_stats(cache, &stats);
	CHECK_EQ(stats.window_bytes, child == 0 ? 0 : rested_bytes);
	if (child == 0) {
		unsigned char expected[30000];
		client_fill(expected, key, 1, sizeof(expected));
		if (pin.cache) {
			CHECK(memcmp(pin.value, expected, sizeof(expected)) == 0);
			cache_unpin(&pin);
		}
		for (uint64_t k = 0; k < 100; k++)
			CHECK_EQ(client_get(cache, &sink, k, GET_COPY, &version, &wrong), DRP_MISS);
		for (uint64_t k = 0; k < 100; k++)
			CHECK_EQ(client_set(cache, k, 2, 10000 * (k % 5), true, SET_ALWAYS), DRP_OK);
		for (uint64_t k = 0; k < 100; k++) {
			CHECK_EQ(client_get(cache, &sink, k, GET_PIN, &version, &wrong), DRP_OK);
			CHECK(version == 2 && !wrong);
		}
		_exit(check_failures());
	}
	REQUIRE(waitpid(child, &status, 0) == child);
	CHECK_EQ(status, 0);
	if (pin.cache)
		cache_unpin(&pin);
	for (uint64_t k = 0; k < 100; k++) {
		CHECK_EQ(client_get(cache, &sink, k, GET_PIN, &version, &wrong), DRP_OK);
		CHECK(version == 1 && !wrong);
	}
	end(cache);
	free(sink.value);
}

/* Two want the same value at once: the second one asks while the first one pins it, and waits. */
static struct {
	struct cache *cache;
	_Atomic bool second_asked; /* it has the lock from here until it waits */
	pthread_t second;
} pinners;

static int note_second(struct cache_sink *sink, uint8_t kind, size_t meta_bytes, size_t value_bytes, void **meta, void **value)
{
	atomic_store(&pinners.second_asked, true);
	return client_reserve(sink, kind, meta_bytes, value_bytes, meta, value);
}

static int pin_and_unpin(struct cache_sink *sink)
{
	const uint64_t key = 1;
	struct cache_pin pin;

	const int status = cache_get(pinners.cache, &key, sizeof(key), GET_PIN, sink, &pin, NULL);
	CHECK(status != DRP_OK || pin.cache);
	if (status == DRP_OK)
		cache_unpin(&pin);
	return status;
}

static void *pin_second(void *unused)
{
	struct client_sink sink = {.base = {.reserve = note_second}};

	CHECK_EQ(pin_and_unpin(&sink.base), DRP_OK);
	free(sink.value);
	return unused;
}

static void begin_second(struct cache_sink *sink, size_t bytes)
{
	(void)sink, (void)bytes;
	REQUIRE(pthread_create(&pinners.second, NULL, pin_second, NULL) == 0);
	while (!atomic_load(&pinners.second_asked))
		sched_yield();
}

static void who_waits_for_a_pin_is_woken(void)
{
	struct client_sink sink = {.base = {.reserve = client_reserve, .begin_copy = begin_second}};

	pinners.cache = make(&(struct cache_config){.backing = PRIM_LAZYFREE});
	CHECK_EQ(client_set(pinners.cache, 1, 1, 1 << 20, true, SET_ALWAYS), DRP_OK);
	CHECK_EQ(pin_and_unpin(&sink.base), DRP_OK);
	pthread_join(pinners.second, NULL);
	cache_close(pinners.cache);
	cache_unref(pinners.cache);
	free(sink.value);
}

int main(void)
{
	RUN(stores_and_forgets, PRIM_LAZYFREE);
	RUN(stores_and_forgets, PRIM_DROPPABLE);
	RUN(drops_are_misses, PRIM_LAZYFREE);
	RUN(drops_are_misses, PRIM_DROPPABLE);
	RUN(pins_survive_everything, );
	RUN(who_waits_for_a_pin_is_woken);
	RUN(rests_and_is_dropped, );
	RUN(expires, );
	RUN(forks_empty, PRIM_LAZYFREE);
	RUN(forks_empty, PRIM_DROPPABLE);
	if (!CHECK_THREADS_ALONE) {
		RUN(serves_many_entries, );
		RUN(keeps_to_its_model, PRIM_LAZYFREE, 400000, 0);
		RUN(keeps_to_its_model, PRIM_LAZYFREE, 0, 1 << 20);
		RUN(keeps_to_its_model, PRIM_DROPPABLE, 400000, 0);
		RUN(keeps_to_its_model, PRIM_DROPPABLE, 0, 1 << 20);
	}
	RUN(weathers_a_storm, PRIM_LAZYFREE, 0, 0);
	RUN(weathers_a_storm, PRIM_LAZYFREE, 0, 16 << 20);
	RUN(weathers_a_storm, PRIM_LAZYFREE, 8 << 20, 0);
	RUN(weathers_a_storm, PRIM_DROPPABLE, 0, 16 << 20);
	return check_done();
}
