/*
 * test_lease_threads.c - leases in several threads at once, on the kernel that runs: prim_fake.c serves one thread alone.
 */
#include "cache/lease.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>

#include "cache/cache.h"
#include "cache_client.h"
#include "store/internal.h"
#include "check.h"
#include "lease_client.h"

enum { PAGE = 4096, SEGMENT = 64 * PAGE, SMALL = 100, LARGE = 3 * PAGE };

static struct cache *make(void)
{
	const struct cache_config config = {.shards = 2, .segment_bytes = SEGMENT};
	struct cache *cache = NULL;

	REQUIRE(cache_create(&config, &cache) == DRP_OK);
	return cache;
}

/*
 * The source counts up, and says so by deleting the key; others read the source, compute, and store under their leases.
 * Whatever a get finds was read from the source after the last deletion that had returned when the get began.
 */
enum { RACERS = 3, RACE_KEYS = 4, RACE_ROUNDS = 3000 };
static struct {
	struct cache *cache;
	_Atomic uint64_t source[RACE_KEYS], deleted[RACE_KEYS];
	_Atomic bool stop;
} race;

static void *compute(void *number)
{
	for (uint64_t i = (uintptr_t)number; !atomic_load(&race.stop); i++) {
		const uint64_t key = i % RACE_KEYS;
		struct cache_lease lease = {0};

		CHECK_EQ(cache_lease_begin(race.cache, &key, sizeof(key), &lease), DRP_OK);
		const uint64_t version = atomic_load(&race.source[key]) + 1;
		if (i % 5 == 0)
			sched_yield();
		const int status = set_leased(race.cache, key, version, i % 2 ? SMALL : LARGE, &lease);
		CHECK(status == DRP_OK || status == DRP_STALE);
		cache_lease_end(&lease);
	}
	return NULL;
}

static void threads(void)
{
	pthread_t racers[RACERS];

	race.cache = make();
	for (uintptr_t i = 0; i < RACERS; i++)
		REQUIRE(pthread_create(&racers[i], NULL, compute, (void *)i) == 0);
	for (uint64_t i = 0; i < RACE_ROUNDS; i++) {
		const uint64_t key = i % RACE_KEYS;
		const uint64_t version = atomic_fetch_add(&race.source[key], 1) + 2;
		cache_delete(race.cache, &key, sizeof(key), 0);
		const uint64_t found = version_of(race.cache, key);
		CHECK(found == 0 || found >= version);
	}
	atomic_store(&race.stop, true);
	for (int i = 0; i < RACERS; i++)
		pthread_join(racers[i], NULL);
	CHECK_EQ(open_leases(race.cache), 0);
	cache_close(race.cache);
	cache_unref(race.cache);
	free(sink.value);
	sink.value = NULL;
}

int main(void)
{
	RUN(threads);
	return check_done();
}
