/*
 * test_probation.c - what is new leaves before what was asked for, once the kernel was seen to take pages; until then
 * nothing leaves.
 */
#include <stdlib.h>

#include "cache.h"
#include "cache_client.h"
#include "cache_internal.h"
#include "check.h"

enum { USED = 12, ROUNDS = 10, USED_KEYS = 10000, NEW_KEYS = 20000 };

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
	CHECK(!cache->shards[0].probation.begun);
	CHECK_EQ(cache->shards[0].probation.credit_bytes, 0);
	cache_close(cache);
	cache_unref(cache);
}

/* Drops, then a stream of new values of which a few are asked for: those are there at the end, if no drop took them. */
static void what_is_used_stays(enum prim_backing backing, size_t bytes)
{
	struct cache *cache = make(backing);
	const uint64_t old = old_count(bytes);
	struct client_sink sink = {0};
	struct cache_drop drop;
	struct cache_stats stats;
	uint64_t version = 0;
	size_t gone = 0;
	bool wrong;

	if (!cache)
		SKIP("this kernel has no such backing");
	for (uint64_t key = 0; key < old; key++)
		CHECK_EQ(client_set(cache, key, 1, bytes, false, SET_ALWAYS), DRP_OK);
	CHECK_EQ(cache_drop(cache, 0.5, 1, &drop), DRP_OK);
	if (drop.dropped_pages == 0)
		SKIP("the kernel keeps pages that it is asked to take");
	/* The look at the segments that are opened finds the drops, and from then on what is new is on probation. */
	for (uint64_t key = 0; key < USED; key++)
		CHECK_EQ(client_set(cache, key + USED_KEYS, 1, bytes, false, SET_ALWAYS), DRP_OK);
	for (uint64_t key = old; key < 2 * old; key++) {
		CHECK_EQ(client_set(cache, key, 1, bytes, false, SET_ALWAYS), DRP_OK);
		CHECK_EQ(client_get(cache, &sink, USED_KEYS + key % USED, GET_COPY, &version, &wrong), DRP_OK);
	}
	for (int round = 0; round < ROUNDS; round++) {
		for (uint64_t key = 0; key < USED; key++) {
			CHECK_EQ(client_get(cache, &sink, key + USED_KEYS, GET_COPY, &version, &wrong), DRP_OK);
			CHECK(!wrong);
		}
		for (uint64_t key = 0; key < old; key++) {
			CHECK_EQ(client_set(cache, NEW_KEYS + round * old + key, 1, bytes, false, SET_ALWAYS), DRP_OK);
			CHECK_EQ(client_get(cache, &sink, USED_KEYS + key % USED, GET_COPY, &version, &wrong), DRP_OK);
		}
		/* Each look that finds drops lets as much go again. */
		for (uint64_t key = 0; key < old; key++)
			(void)client_get(cache, &sink, key, GET_COPY, &version, &wrong);
	}
	cache_read_stats(cache, &stats);
	CHECK(stats.evicted > 0);
	CHECK_EQ(stats.refused, 0);
	for (uint64_t key = 0; key < USED; key++)
		CHECK_EQ(client_get(cache, &sink, key + USED_KEYS, GET_COPY, &version, &wrong), DRP_OK);
	/* What left is a miss; set again, it is back like any other. */
	for (uint64_t key = old; key < 2 * old; key++) {
		if (client_get(cache, &sink, key, GET_COPY, &version, &wrong) == DRP_OK) {
			CHECK(!wrong);
			continue;
		}
		gone++;
		CHECK_EQ(client_set(cache, key, 2, bytes, false, SET_ALWAYS), DRP_OK);
		CHECK_EQ(client_get(cache, &sink, key, GET_COPY, &version, &wrong), DRP_OK);
		CHECK(version == 2 && !wrong);
	}
	CHECK(gone > 0);
	cache_close(cache);
	cache_unref(cache);
	free(sink.value);
}

int main(void)
{
	static const size_t sizes[] = {100, 1000, 4096, 20000, 300000}; /* in the log, on pages among others, alone */

	RUN(nothing_looks_dropped_that_was_not_there, );
	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		RUN(all_stays_while_there_is_room, PRIM_LAZYFREE, sizes[i]);
		RUN(what_is_used_stays, PRIM_LAZYFREE, sizes[i]);
		RUN(what_is_used_stays, PRIM_DROPPABLE, sizes[i]);
	}
	return check_done();
}
