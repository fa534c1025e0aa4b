/*
 * test_reuse.c - pages of dead values are written again, on prim_fake: which, when, and never under a reader.
 */
#include "cache/cache.h"

#include "cache_client.h"
#include "cache_on_fake.h"
#include "check.h"
#include "prim_fake.h"

enum { PAGE = 4096, BYTES = 5 * PAGE - 9, VALUES = 60, SEGMENT = 64 * PAGE };

static struct client_sink sink;

static struct cache *make(enum prim_backing backing)
{
	const struct cache_config config = {.backing = backing, .shards = 1, .segment_bytes = SEGMENT};
	struct cache *cache = fake_cache_make(&config);

	for (uint64_t key = 0; key < VALUES; key++)
		CHECK_EQ(client_set(cache, key, 1, BYTES, true, SET_ALWAYS), DRP_OK);
	return cache;
}

static uint64_t mapped(struct cache *cache)
{
	struct cache_stats stats;

	cache_read_stats(cache, &stats);
	return stats.mapped_bytes;
}

static void check_value(struct cache *cache, uint64_t key, uint64_t expected)
{
	uint64_t version = 0;
	bool wrong = true;

	CHECK_EQ(client_get(cache, &sink, key, GET_COPY, &version, &wrong), DRP_OK);
	CHECK(!wrong);
	CHECK_EQ(version, expected);
}

/* In no order: what is replaced lies anywhere. */
static void replacing_takes_no_more_memory(enum prim_backing backing)
{
	struct cache *cache = make(backing);
	uint64_t versions[VALUES], state = 1;
	const uint64_t before = mapped(cache);

	for (int i = 0; i < VALUES; i++)
		versions[i] = 1;
	for (uint64_t version = 2; version < 20 * VALUES; version++) {
		state = state * UINT64_C(6364136223846793005) + 1;
		const uint64_t key = (state >> 33) % VALUES;
		CHECK_EQ(client_set(cache, key, version, BYTES, true, SET_ALWAYS), DRP_OK);
		versions[key] = version;
	}
	CHECK(mapped(cache) <= before + 2 * SEGMENT); /* one more head each: of values, and of their entries */
	for (uint64_t key = 0; key < VALUES; key++)
		check_value(cache, key, versions[key]);
	fake_cache_end(cache);
}

/* Of another size, and for a lost directory: new pages. */
static void what_does_not_fit_is_left(enum prim_backing backing)
{
	struct cache *cache = make(backing);
	uint64_t key = 3;

	CHECK_EQ(cache_delete(cache, &key, sizeof(key), 0), DRP_OK);
	CHECK_EQ(client_set(cache, 100, 1, BYTES + PAGE, true, SET_ALWAYS), DRP_OK);
	check_value(cache, 100, 1);
	CHECK_EQ(cache_settle(cache), DRP_OK);
	fake_drop(FAKE_EVERY_PAGE);
	CHECK_EQ(client_set(cache, 101, 1, BYTES, true, SET_ALWAYS), DRP_OK);
	check_value(cache, 101, 1);
	fake_cache_end(cache);
}

/* The new value's directory entry is what finds it again: marked, dropped, or there. */
static void a_value_on_old_pages_can_be_dropped(enum prim_backing backing)
{
	struct cache *cache = make(backing);
	uint64_t key = 3, version;
	bool wrong;

	CHECK_EQ(cache_delete(cache, &key, sizeof(key), 0), DRP_OK);
	CHECK_EQ(client_set(cache, 100, 1, BYTES, true, SET_ALWAYS), DRP_OK);
	check_value(cache, 100, 1);
	CHECK_EQ(cache_settle(cache), DRP_OK);
	for (size_t page = 0; page < fake_pages(); page++) /* each page for itself, from the last */
		fake_drop(fake_pages() - 1 - page);
	CHECK_EQ(client_get(cache, &sink, 100, GET_COPY, &version, &wrong), DRP_MISS);
	fake_cache_end(cache);
}

static void nothing_is_written_under_a_reader(void)
{
	struct cache *cache = make(PRIM_LAZYFREE);
	struct cache_pin pin;
	unsigned char *expected = malloc(BYTES);
	uint64_t held = 3;

	REQUIRE(expected != NULL);
	sink.base.reserve = client_reserve;
	CHECK_EQ(cache_get(cache, &held, sizeof(held), GET_PIN, &sink.base, &pin, NULL), DRP_OK);
	REQUIRE(pin.cache != NULL);
	for (uint64_t version = 2; version < 6; version++)
		for (uint64_t key = 0; key < VALUES; key++) /* the one that is held among them */
			CHECK_EQ(client_set(cache, key, version, BYTES, true, SET_ALWAYS), DRP_OK);
	client_fill(expected, held, 1, BYTES);
	CHECK_EQ(memcmp(pin.value, expected, BYTES), 0);
	free(expected);
	cache_unpin(&pin);
	for (uint64_t key = 0; key < VALUES; key++)
		check_value(cache, key, 5);
	fake_cache_end(cache);
}

/* While a value is copied without the lock, others replace it and store values of its size. */
static struct cache *changed;

static void replace_all(struct cache_sink *sink, size_t bytes)
{
	(void)sink, (void)bytes;
	for (uint64_t version = 2; version < 6; version++)
		for (uint64_t key = 0; key < VALUES; key++)
			CHECK_EQ(client_set(changed, key, version, BYTES, true, SET_ALWAYS), DRP_OK);
}

static void nothing_is_written_under_a_copy(enum prim_backing backing)
{
	uint64_t version = 0;
	bool wrong = true;

	changed = make(backing);
	sink.base.begin_copy = replace_all;
	CHECK_EQ(client_get(changed, &sink, 3, GET_COPY, &version, &wrong), DRP_OK);
	sink.base.begin_copy = NULL;
	CHECK(!wrong);
	CHECK_EQ(version, 1);
	for (uint64_t key = 0; key < VALUES; key++)
		check_value(changed, key, 5);
	fake_cache_end(changed);
}

int main(void)
{
	RUN(replacing_takes_no_more_memory, PRIM_LAZYFREE);
	RUN(replacing_takes_no_more_memory, PRIM_DROPPABLE);
	RUN(what_does_not_fit_is_left, PRIM_LAZYFREE);
	RUN(what_does_not_fit_is_left, PRIM_DROPPABLE);
	RUN(a_value_on_old_pages_can_be_dropped, PRIM_LAZYFREE);
	RUN(a_value_on_old_pages_can_be_dropped, PRIM_DROPPABLE);
	RUN(nothing_is_written_under_a_reader, );
	RUN(nothing_is_written_under_a_copy, PRIM_LAZYFREE);
	RUN(nothing_is_written_under_a_copy, PRIM_DROPPABLE);
	free(sink.value);
	return check_done();
}
