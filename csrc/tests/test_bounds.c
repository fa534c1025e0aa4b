/*
 * test_bounds.c - what a cache takes is bounded, on prim_fake: after clear() it is as small as a new one, and nothing large is
 * given back while a lock is held.
 */
#include "cache.h"

#include "cache_client.h"
#include "cache_internal.h"
#include "cache_on_fake.h"
#include "check.h"
#include "prim_fake.h"

enum { PAGE = 4096, SEGMENT = 64 * PAGE, INDEX_CHUNK_PAGES = 64 };

static struct client_sink sink;

static void set(struct cache *cache, uint64_t key, size_t bytes)
{
	CHECK_EQ(client_set(cache, key, 1, bytes, false, SET_ALWAYS), DRP_OK);
}

static bool get(struct cache *cache, uint64_t key)
{
	uint64_t version;
	bool wrong;
	int status = client_get(cache, &sink, key, GET_COPY, &version, &wrong);

	CHECK(status == DRP_OK || status == DRP_MISS);
	CHECK(!wrong);
	return status == DRP_OK;
}

static bool is_locked(void *context)
{
	pthread_mutex_t *lock = &((struct cache *)context)->shards[0].lock;

	if (pthread_mutex_trylock(lock) != 0)
		return true;
	pthread_mutex_unlock(lock);
	return false;
}

static struct cache *make(enum prim_backing backing)
{
	const struct cache_config config = {.backing = backing, .shards = 1, .segment_bytes = SEGMENT};
	return fake_cache_make(&config);
}

enum { SMALL = 60000, PAGES_EACH = 3, EXTENTS = 200, WHOLES = 20 };

/* All kinds of segments, some chunks of index, and segments that were kept for reuse. */
static void fill(struct cache *cache)
{
	for (uint64_t key = 0; key < SMALL; key++)
		set(cache, key, 8);
	for (uint64_t key = SMALL; key < SMALL + EXTENTS; key++)
		set(cache, key, PAGES_EACH * PAGE);
	for (uint64_t key = SMALL + EXTENTS; key < SMALL + EXTENTS + WHOLES; key++)
		set(cache, key, SEGMENT);
	for (uint64_t key = SMALL; key < SMALL + EXTENTS + WHOLES; key += 2)
		CHECK_EQ(cache_delete(cache, &key, sizeof(key), 0), DRP_OK);
	CHECK(cache->shards[0].index.chunk_count > 2);
}

static void clear_gives_back_without_the_lock(enum prim_backing backing)
{
	struct cache *cache = make(backing);

	for (int round = 0; round < 2; round++) {
		fill(cache);
		fake_watch_lock(is_locked, cache);
		CHECK_EQ(cache_clear(cache), DRP_OK);
		CHECK(fake_pages_given_back_under_lock() <= INDEX_CHUNK_PAGES);
		CHECK_EQ(fake_mappings(), 1); /* of the index */
		CHECK(!get(cache, 1) && !get(cache, SMALL + 1) && !get(cache, SMALL + EXTENTS + 1));
	}
	fake_cache_end(cache);
}

static void close_gives_back_without_the_lock(enum prim_backing backing)
{
	struct cache *cache = make(backing);

	fill(cache);
	fake_watch_lock(is_locked, cache);
	cache_close(cache);
	CHECK(fake_pages_given_back_under_lock() <= INDEX_CHUNK_PAGES);
	CHECK_EQ(fake_mappings(), 1);
	fake_watch_lock(NULL, NULL);
	cache_unref(cache);
	CHECK_EQ(fake_mappings(), 0);
}

/* A pin and a mark under way see their memory until they are done with it. */
static void clear_leaves_what_is_in_use(void)
{
	struct cache *cache = make(PRIM_LAZYFREE);
	struct index *index = &cache->shards[0].index;
	struct cache_pin pin;
	struct iovec ranges[64];
	uint64_t key = SMALL + EXTENTS + 1;

	fill(cache);
	sink.base.reserve = client_reserve;
	REQUIRE(cache_get(cache, &key, sizeof(key), GET_PIN, &sink.base, &pin, NULL) == DRP_OK);
	REQUIRE(pin.cache);
	unsigned char *expected = malloc(SEGMENT);
	client_fill(expected, key, 1, SEGMENT);
	const size_t count = index_take_dirty(index, ranges, 64);
	CHECK(count > 0);
	CHECK_EQ(cache_clear(cache), DRP_OK);
	CHECK_EQ(memcmp(pin.value, expected, SEGMENT), 0);
	CHECK_EQ(index_mark_taken(index, ranges, count), DRP_OK); /* touches them */
	cache_unpin(&pin);
	CHECK_EQ(cache_clear(cache), DRP_OK);
	CHECK_EQ(fake_mappings(), 1);
	free(expected);
	fake_cache_end(cache);
}

static size_t index_pages_in_use(struct cache *cache)
{
	const struct index *index = &cache->shards[0].index;
	size_t count = 0;

	for (size_t i = 0; i < index->page_count; i++)
		count += index->states[i] != 0;
	return count;
}

static void index_begins_anew_after_clear(enum prim_backing backing)
{
	struct cache *cache = make(backing);
	enum { FEW = 2000 };

	for (uint64_t key = 0; key < FEW; key++)
		set(cache, key, 8);
	const size_t fresh = index_pages_in_use(cache);
	for (uint64_t key = 0; key < SMALL; key++)
		set(cache, key, 8);
	CHECK(index_pages_in_use(cache) > 10 * fresh);
	CHECK_EQ(cache_clear(cache), DRP_OK);
	CHECK_EQ(index_pages_in_use(cache), 0);
	CHECK_EQ(cache->shards[0].index.depth, 0);
	for (uint64_t key = 0; key < FEW; key++)
		set(cache, key, 8);
	CHECK_EQ(index_pages_in_use(cache), fresh);
	for (uint64_t key = 0; key < FEW; key++)
		CHECK(get(cache, key));
	CHECK(!get(cache, FEW));
	fake_cache_end(cache);
}

/* Whatever call fails while it is cleared: it is empty, and goes on. */
static void clear_bears_calls_that_fail(enum prim_backing backing)
{
	for (size_t call = 1; call <= 12; call++) {
		struct cache *cache = make(backing);
		fill(cache);
		fake_fail_call(call);
		CHECK_EQ(cache_clear(cache), DRP_OK);
		fake_fail_call(0);
		CHECK(!get(cache, 1));
		for (uint64_t key = 0; key < SMALL; key += 100)
			set(cache, key, 8);
		for (uint64_t key = 0; key < SMALL; key += 100)
			CHECK(get(cache, key));
		fake_cache_end(cache);
	}
}

int main(void)
{
	RUN(clear_gives_back_without_the_lock, PRIM_LAZYFREE);
	RUN(clear_gives_back_without_the_lock, PRIM_DROPPABLE);
	RUN(close_gives_back_without_the_lock, PRIM_LAZYFREE);
	RUN(close_gives_back_without_the_lock, PRIM_DROPPABLE);
	RUN(clear_leaves_what_is_in_use, );
	RUN(index_begins_anew_after_clear, PRIM_LAZYFREE);
	RUN(index_begins_anew_after_clear, PRIM_DROPPABLE);
	RUN(clear_bears_calls_that_fail, PRIM_LAZYFREE);
	free(sink.value);
	return check_done();
}
