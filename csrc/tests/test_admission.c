/*
 * test_admission.c - nothing leaves while memory is free, on the kernel that runs. What leaves while it is short: test_recovery.c.
 */
#include <stdlib.h>

#include "cache/cache.h"
#include "cache_client.h"
#include "policy/admission.h"
#include "store/internal.h"
#include "check.h"

enum { NEW_KEYS = 20000 };

static uint64_t old_count(size_t bytes)
{
	return bytes < 512 ? 3000 : bytes < 100000 ? 300 : 60;
}

static struct cache *make(enum prim_backing backing)
{
	struct cache *cache = NULL;
	const struct cache_config config = {
		.backing = backing, .shards = 1, .segment_bytes = 16 * prim_page_size(), .span_bytes = 1 << 30};
	int status = cache_create(&config, &cache);
	CHECK(status == DRP_OK || (status == DRP_UNSUPPORTED && backing == PRIM_DROPPABLE));
	return cache;
}

/* Before a drop is seen, everything stays, whether it is asked for or not. */
static void all_stays_while_there_is_room(enum prim_backing backing, size_t bytes)
{
	struct cache *cache = make(backing);
	struct cache_stats stats;

	if (!cache)
		SKIP("this kernel has no such backing");
	for (uint64_t key = 0; key < 10 * old_count(bytes); key++)
		CHECK_EQ(client_set(cache, key, 1, bytes, false, SET_ALWAYS), DRP_OK);
	cache_read_stats(cache, &stats);
	CHECK_EQ(stats.evicted, 0);
	CHECK_EQ(stats.entries, 10 * old_count(bytes));
	cache_close(cache);
	cache_unref(cache);
}

/* In segments whose directory is longer than their values need: its unused pages were not dropped. */
static void nothing_looks_dropped_that_was_not_there(void)
{
	const struct cache_config config = {.shards = 1, .segment_bytes = ARENA_SEGMENT_MAX};
	struct cache *cache = NULL;

	CHECK_EQ(cache_create(&config, &cache), DRP_OK);
	for (uint64_t i = 0; i < 400; i++)
		CHECK_EQ(client_set(cache, i % 100, i, 100000, false, SET_ALWAYS), DRP_OK);
	CHECK(!cache->shards[0].arena.memory_is_short);
	CHECK_EQ(cache->shards[0].admission.budget_bytes, 0);
	cache_close(cache);
	cache_unref(cache);
}

/* Half of all pages go, once, while memory is free: then nothing is short, and nothing leaves for what comes. */
static void drops_while_memory_is_free_change_nothing(enum prim_backing backing, size_t bytes)
{
	struct cache *cache = make(backing);
	const uint64_t old = old_count(bytes);
	struct client_sink sink = {0};
	struct cache_drop drop;
	struct cache_stats stats;
	uint64_t version = 0;
	bool wrong;

	if (!cache)
		SKIP("this kernel has no such backing");
	for (uint64_t key = 0; key < old; key++)
		CHECK_EQ(client_set(cache, key, 1, bytes, false, SET_ALWAYS), DRP_OK);
	CHECK_EQ(cache_drop(cache, 0.5, 1, &drop), DRP_OK);
	if (drop.dropped_pages == 0)
		SKIP("the kernel keeps pages that it is asked to take");
	for (uint64_t key = 0; key < 3 * old; key++) {
		CHECK_EQ(client_set(cache, NEW_KEYS + key, 1, bytes, false, SET_ALWAYS), DRP_OK);
		(void)client_get(cache, &sink, key % old, GET_COPY, &version, &wrong);
		CHECK(!wrong);
	}
	cache_read_stats(cache, &stats);
	CHECK(stats.dropped > 0 || stats.index_lost_pages > 0);
	const bool is_free = atomic_load(&cache->memory_is_free);
	if (is_free) {
		CHECK(!cache->shards[0].arena.memory_is_short);
		CHECK_EQ(stats.evicted, 0);
	}
	cache_close(cache);
	cache_unref(cache);
	free(sink.value);
	if (!is_free)
		SKIP("this machine's memory is not free");
}

/* Costs are compared for each KiB. The main log's mean follows what is costly; where costs are not told they decide nothing. */
static void while_memory_is_short_costs_decide(void)
{
	enum { USUAL_NS = 1000, COSTLY_NS = 1000000, KIB = 1024, ANY_HASH = 12345 };
	struct cache *cache = make(PRIM_LAZYFREE);
	struct shard *shard = &cache->shards[0];
	struct admission *admission = &shard->admission;

	admission->examined_cost = USUAL_NS;
	CHECK_EQ(admission_choose(shard, ANY_HASH, USUAL_NS, KIB), ARENA_MAIN);
	shard->arena.memory_is_short = true;
	CHECK_EQ(admission_choose(shard, ANY_HASH, 0, KIB), ARENA_SMALL);
	CHECK_EQ(admission_choose(shard, ANY_HASH, USUAL_NS, KIB), ARENA_SMALL);
	CHECK_EQ(admission->cost, 0);
	CHECK_EQ(admission_choose(shard, ANY_HASH, COSTLY_NS, KIB), ARENA_MAIN);
	CHECK_EQ(admission->cost, COSTLY_NS);
	CHECK_EQ(admission_choose(shard, ANY_HASH, COSTLY_NS, KIB * KIB), ARENA_SMALL);
	CHECK(admission_is_cheap(shard, USUAL_NS, KIB));
	CHECK(admission_is_cheap(shard, COSTLY_NS, KIB * KIB));
	CHECK(!admission_is_cheap(shard, COSTLY_NS, KIB));
	CHECK(!admission_is_cheap(shard, 0, KIB));
	shard->arena.memory_is_short = false;
	cache_close(cache);
	cache_unref(cache);
}

int main(void)
{
	static const size_t sizes[] = {100, 1000, 4096, 20000, 300000}; /* in the log, on pages among others, alone */

	RUN(nothing_looks_dropped_that_was_not_there, );
	RUN(while_memory_is_short_costs_decide);
	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		RUN(all_stays_while_there_is_room, PRIM_LAZYFREE, sizes[i]);
		RUN(drops_while_memory_is_free_change_nothing, PRIM_LAZYFREE, sizes[i]);
		RUN(drops_while_memory_is_free_change_nothing, PRIM_DROPPABLE, sizes[i]);
	}
	return check_done();
}
