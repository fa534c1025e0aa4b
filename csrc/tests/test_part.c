/*
 * test_part.c - cells that say where a part of a cache is, and keys that begin alike, on prim_fake.
 */
#include "cache/part.h"

#include <string.h>

#include "cache/cache.h"
#include "store/internal.h"
#include "cache/lease.h"
#include "cache_on_fake.h"
#include "check.h"
#include "prim_fake.h"
#include "cache/scope.h"

enum { PAGE = 4096, SEGMENT = 64 * PAGE, KEYS = 500 };

static const char CELL[] = "cell", OTHER_CELL[] = "other cell";

static struct cache *make(unsigned shards)
{
	const struct cache_config config = {.shards = shards, .segment_bytes = SEGMENT};
	return fake_cache_make(&config);
}

static struct cache_stats stats_of(struct cache *cache)
{
	struct cache_stats stats;

	cache_read_stats(cache, &stats);
	return stats;
}

static void set(struct cache *cache, const char *key)
{
	const struct drp_part part = {key, strlen(key)};
	const struct cache_item item = {.parts = &part, .part_count = 1};

	CHECK_EQ(cache_set(cache, key, strlen(key), &item, SET_ALWAYS), DRP_OK);
}

static void a_cell_is_made_once(unsigned shards)
{
	struct cache *cache = make(shards);
	uint64_t scope = 0, again = 0, other = 0;

	CHECK_EQ(cache_part_find(cache, CELL, sizeof(CELL), PART_PEEK, &scope), DRP_MISS);
	CHECK_EQ(stats_of(cache).misses[MISS_ABSENT], 0);
	CHECK_EQ(cache_part_find(cache, CELL, sizeof(CELL), PART_LOOK, &scope), DRP_MISS);
	CHECK_EQ(stats_of(cache).misses[MISS_ABSENT], 1);
	CHECK_EQ(cache_part_make(cache, CELL, sizeof(CELL), &scope), DRP_OK);
	CHECK_EQ(cache_part_make(cache, OTHER_CELL, sizeof(OTHER_CELL), &other), DRP_OK);
	CHECK(scope != other && scope >= SCOPE_FIRST && other >= SCOPE_FIRST);
	CHECK_EQ(cache_part_make(cache, CELL, sizeof(CELL), &again), DRP_OK);
	CHECK_EQ(again, scope);
	for (int mode = PART_LOOK; mode <= PART_PEEK; mode++) {
		CHECK_EQ(cache_part_find(cache, CELL, sizeof(CELL), (enum part_mode)mode, &again), DRP_OK);
		CHECK_EQ(again, scope);
	}
	const struct cache_stats stats = stats_of(cache);
	CHECK_EQ(stats.hits, 0);
	CHECK_EQ(stats.misses[MISS_ABSENT], 1);
	CHECK_EQ(stats.entries, 2);
	fake_cache_end(cache);
}

static void a_lost_cell_gets_another_scope(unsigned shards)
{
	struct cache *cache = make(shards);
	uint64_t scope = 0, again = 0;

	CHECK_EQ(cache_part_make(cache, CELL, sizeof(CELL), &scope), DRP_OK);
	CHECK_EQ(cache_settle(cache), DRP_OK);
	fake_drop(FAKE_EVERY_PAGE);
	CHECK_EQ(cache_part_find(cache, CELL, sizeof(CELL), PART_LOOK, &again), DRP_MISS);
	CHECK_EQ(stats_of(cache).misses[MISS_DROPPED], 1);
	CHECK_EQ(cache_part_make(cache, CELL, sizeof(CELL), &again), DRP_OK);
	CHECK(again != scope);
	fake_cache_end(cache);
}

static void a_cell_needs_memory(void)
{
	struct cache *cache = make(1);
	uint64_t scope = 0;

	fake_headroom(100 << 20, 100 << 20, 0);
	atomic_store(&cache->room_until_ns, 0); /* it is to be read now */
	CHECK_EQ(cache_part_make(cache, CELL, sizeof(CELL), &scope), DRP_REFUSED);
	CHECK_EQ(cache_part_find(cache, CELL, sizeof(CELL), PART_PEEK, &scope), DRP_MISS);
	CHECK_EQ(stats_of(cache).refused, 1);
	cache_close(cache);
	CHECK_EQ(cache_part_find(cache, CELL, sizeof(CELL), PART_PEEK, &scope), DRP_CLOSED);
	CHECK_EQ(cache_part_make(cache, CELL, sizeof(CELL), &scope), DRP_CLOSED);
	cache_unref(cache);
}

static void keys_that_begin_alike_are_deleted(unsigned shards)
{
	struct cache *cache = make(shards);
	char key[32];
	uint64_t count = 0;

	for (int i = 0; i < KEYS; i++) {
		snprintf(key, sizeof(key), i % 3 == 0 ? "one %d" : "on %d", i);
		set(cache, key);
	}
	set(cache, "o");
	set(cache, "one ");
	CHECK_EQ(cache_prefix_delete(cache, "one ", 4, &count), DRP_OK);
	CHECK_EQ(count, (KEYS + 2) / 3 + 1);
	for (int i = 0; i < KEYS; i++) {
		snprintf(key, sizeof(key), i % 3 == 0 ? "one %d" : "on %d", i);
		CHECK_EQ(cache_contains(cache, key, strlen(key)), i % 3 != 0);
	}
	CHECK_EQ(cache_contains(cache, "o", 1), 1);
	CHECK_EQ(stats_of(cache).deletes, count);
	CHECK_EQ(cache_prefix_delete(cache, "one ", 4, &count), DRP_OK);
	CHECK_EQ(count, 0);
	CHECK_EQ(cache_prefix_delete(cache, "", 0, &count), DRP_OK);
	CHECK_EQ(count, KEYS - (KEYS + 2) / 3 + 1);
	CHECK_EQ(stats_of(cache).entries, 0);
	cache_close(cache);
	CHECK_EQ(cache_prefix_delete(cache, "", 0, &count), DRP_CLOSED);
	CHECK_EQ(cache_prefix_revoke(cache, "", 0), DRP_CLOSED);
	cache_unref(cache);
}

static void their_leases_are_stale(unsigned shards, bool deletes)
{
	static const char *const keys[] = {"one", "one 1", "two", "on", "not named"};
	static const bool stale[] = {true, true, false, false, true};
	struct cache *cache = make(shards);
	struct cache_lease leases[5];
	uint64_t count;

	for (int i = 0; i < 5; i++) {
		CHECK_EQ(cache_lease_begin(cache, keys[i], strlen(keys[i]), &leases[i]), DRP_OK);
		if (i < 4)
			cache_lease_name(&leases[i], keys[i], strlen(keys[i]));
	}
	CHECK_EQ(deletes ? cache_prefix_delete(cache, "one", 3, &count) : cache_prefix_revoke(cache, "one", 3), DRP_OK);
	for (int i = 0; i < 5; i++) {
		CHECK_EQ(cache_lease_is_stale(&leases[i]), stale[i]);
		cache_lease_end(&leases[i]);
	}
	CHECK_EQ(cache_prefix_revoke(cache, "one", 3), DRP_OK); /* of leases that have ended nothing is read */
	fake_cache_end(cache);
}

int main(void)
{
	for (unsigned shards = 1; shards <= 4; shards *= 4) {
		RUN(a_cell_is_made_once, shards);
		RUN(a_lost_cell_gets_another_scope, shards);
		RUN(keys_that_begin_alike_are_deleted, shards);
		RUN(their_leases_are_stale, shards, true);
		RUN(their_leases_are_stale, shards, false);
	}
	RUN(a_cell_needs_memory);
	return check_done();
}
