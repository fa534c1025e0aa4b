/*
 * test_cache_headroom.c - no call takes memory that is not there, on prim_fake: values that were dropped, limits that are used up or
 * cannot be read, address space that ends.
 *
 * The fake tells what headroom a test says, whatever is mapped; what is inserted does not change it.
 */
#include "cache/cache.h"

#include "cache_client.h"
#include "store/internal.h"
#include "cache_on_fake.h"
#include "check.h"
#include "check_counts.h"
#include "prim_fake.h"

enum { PAGE = 4096, MB = 1 << 20, LARGE_PAGES = 1280 /* mapped alone, without any rounding */, MS = 1000 /* readings of the fake's clock */ };

/* A sink that tells what was asked of it, and can do something in the middle of a copy. */
struct told_sink {
	struct client_sink client;
	size_t reserved_bytes, calls;
	void (*meanwhile)(struct told_sink *sink);
	struct cache *cache;
	int status;
};

static int told_reserve(struct cache_sink *base, uint8_t kind, size_t meta_bytes, size_t value_bytes, void **meta,
			void **value)
{
	struct told_sink *sink = (struct told_sink *)base;

	sink->calls++;
	sink->reserved_bytes += value_bytes;
	return client_reserve(base, kind, meta_bytes, value_bytes, meta, value);
}

static void told_begin(struct cache_sink *base, size_t bytes)
{
	struct told_sink *sink = (struct told_sink *)base;

	(void)bytes;
	if (sink->meanwhile)
		sink->meanwhile(sink);
}

static struct told_sink sink = {.client.base = {told_reserve, told_begin, NULL}};

static struct cache *make(enum prim_backing backing)
{
	const struct cache_config config = {.backing = backing, .shards = 1, .segment_bytes = 512 * 1024};
	struct cache *cache = fake_cache_make(&config);

	sink.reserved_bytes = sink.calls = 0;
	sink.meanwhile = NULL;
	sink.cache = cache;
	return cache;
}

static void pass(unsigned ms)
{
	for (unsigned i = 0; i < ms * MS; i++)
		(void)prim_now_ns();
}

static int set(struct cache *cache, uint64_t key, size_t bytes)
{
	return client_set(cache, key, 1, bytes, true, SET_ALWAYS);
}

static int get(struct cache *cache, uint64_t key, enum cache_get_mode mode)
{
	struct cache_pin pin;
	int status = cache_get(cache, &key, sizeof(key), mode, &sink.client.base, &pin, NULL);

	if (status == DRP_OK && pin.cache)
		cache_unpin(&pin);
	return status;
}

static uint64_t misses(struct cache *cache, enum cache_miss cause)
{
	struct cache_stats stats;
	cache_read_stats(cache, &stats);
	return stats.misses[cause];
}

static uint64_t entries(struct cache *cache)
{
	struct cache_stats stats;
	cache_read_stats(cache, &stats);
	return stats.entries;
}

/* Where the only large value is. */
static const unsigned char *large_value(struct cache *cache)
{
	const struct arena *arena = &cache->shards[0].arena;
	const struct segment *segment = arena_next(arena, NULL);

	while (segment && segment->kind != SEGMENT_WHOLE)
		segment = arena_next(arena, segment);
	REQUIRE(segment != NULL);
	return segment->base;
}

static bool is_zero(const unsigned char *page)
{
	return page[0] == 0 && memcmp(page, page + 1, PAGE - 1) == 0;
}

static void a_value_that_went_takes_no_memory(enum prim_backing backing, enum cache_get_mode mode)
{
	struct cache *cache = make(backing);

	CHECK_EQ(set(cache, 1, LARGE_PAGES * PAGE), DRP_OK);
	const unsigned char *value = large_value(cache);
	for (size_t i = 0; i < LARGE_PAGES; i++)
		fake_drop_at(value + i * PAGE);
	CHECK_EQ(get(cache, 1, mode), DRP_MISS);
	CHECK_EQ(sink.calls, 0); /* no buffer was asked for */
	CHECK_EQ(misses(cache, MISS_DROPPED), 1);
	CHECK_EQ(entries(cache), 0);
	fake_cache_end(cache);
}

/* Any one page of a value is lost, in the sample or not: a miss, and of the copy only what comes before it was written. */
static void one_page_that_went_stops_it(enum prim_backing backing, enum cache_get_mode mode)
{
	for (size_t lost = 0; lost < LARGE_PAGES; lost += 61) {
		struct cache *cache = make(backing);
		CHECK_EQ(set(cache, 1, LARGE_PAGES * PAGE), DRP_OK);
		const unsigned char *value = large_value(cache);
		const bool told = !is_zero(value + lost * PAGE); /* a page of zeros is not missed */
		fake_drop_at(value + lost * PAGE);
		sink.client.value = realloc(sink.client.value, LARGE_PAGES * PAGE);
		sink.client.size = LARGE_PAGES * PAGE;
		memset(sink.client.value, 0xee, LARGE_PAGES * PAGE);
		CHECK_EQ(get(cache, 1, mode), told ? DRP_MISS : DRP_OK);
		const size_t steps = lost / 512 * 512; /* of two MiB, whole */
		size_t written = 0;
		for (size_t i = steps * PAGE; i < LARGE_PAGES * PAGE; i += PAGE)
			written += sink.client.value[i] != 0xee;
		CHECK(!told || written == 0);
		fake_cache_end(cache);
	}
}

static void a_large_get_asks_for_room(enum prim_backing backing, enum cache_get_mode mode)
{
	struct cache *cache = make(backing);

	CHECK_EQ(set(cache, 1, 4 * MB), DRP_OK);
	CHECK_EQ(set(cache, 2, 40000), DRP_OK);
	fake_headroom(100 * MB, 100 * MB, 5 * MB); /* less a margin of 1.6 MB */
	pass(150);
	CHECK_EQ(get(cache, 1, mode), DRP_MISS);
	CHECK_EQ(sink.calls, 0);
	CHECK_EQ(misses(cache, MISS_DROPPED), 1);
	CHECK_EQ(get(cache, 2, mode), DRP_OK);
	CHECK_EQ(entries(cache), 2); /* it stays, for when there is room again */
	uint64_t key = 1;
	CHECK_EQ(cache_contains(cache, &key, sizeof(key)), 1);
	fake_headroom(100 * MB, 100 * MB, 6 * MB);
	pass(150);
	CHECK_EQ(get(cache, 1, mode), DRP_OK);
	fake_cache_end(cache);
}

static void insert_another(struct told_sink *told)
{
	told->status = set(told->cache, 2, 2 * MB);
}

/* While a large copy is made, nobody else is given the same room. */
static void room_is_promised_once(void)
{
	struct cache *cache = make(PRIM_LAZYFREE);

	CHECK_EQ(set(cache, 1, 2 * MB), DRP_OK);
	fake_headroom(100 * MB, 99 * MB, 4 * MB); /* 3.4 MB: enough for one */
	pass(150);
	sink.meanwhile = insert_another;
	CHECK_EQ(get(cache, 1, GET_COPY), DRP_OK);
	CHECK_EQ(sink.status, DRP_REFUSED);
	sink.meanwhile = NULL;
	CHECK_EQ(set(cache, 2, 2 * MB), DRP_OK); /* it was kept: the room is free again */
	fake_headroom(100 * MB, 99 * MB, 40 * MB);
	pass(150);
	sink.meanwhile = insert_another;
	CHECK_EQ(get(cache, 1, GET_COPY), DRP_OK);
	CHECK_EQ(sink.status, DRP_OK);
	fake_cache_end(cache);
}

static size_t inserted_bytes(struct cache *cache, size_t bytes, size_t most)
{
	static uint64_t key = 100;
	size_t inserted = 0;

	for (; inserted < most && set(cache, key, bytes) == DRP_OK; key++)
		inserted += bytes;
	return inserted;
}

static size_t most_dirty_pages;

static void count_dirty_pages(void)
{
	static unsigned points;
	size_t count = 0;

	if (points++ % 61 != 0)
		return;
	for (size_t i = 0; i < fake_pages(); i++)
		count += fake_page_is_dirty(i);
	if (count > most_dirty_pages)
		most_dirty_pages = count;
}

/* A value is larger than what may be inserted on hope. It is written in steps, of which only one cannot be dropped at any moment. */
static void without_a_limit_a_large_value_takes_a_step_at_a_time(size_t bytes)
{
	const struct cache_config config = {.shards = 1, .segment_bytes = 512 * 1024};
	struct cache *cache;

	fake_reset();
	fake_unread(PRIM_UNREAD_MEMBERSHIP);
	REQUIRE(cache_create(&config, &cache) == DRP_OK);
	most_dirty_pages = 0;
	fake_at_each_point(count_dirty_pages);
	CHECK_EQ(set(cache, 1, bytes), DRP_OK);
	fake_at_each_point(NULL);
	printf("# %zu pages dirty at most\n", most_dirty_pages);
	CHECK(most_dirty_pages > 0 && most_dirty_pages <= 32 + 16); /* and the heads of the logs */
	CHECK_EQ(get(cache, 1, GET_COPY), DRP_MISS); /* a copy takes all of it at once, beside the margin */
	CHECK_EQ(set(cache, 2, bytes), DRP_OK);
	pass(150);
	CHECK_EQ(get(cache, 1, GET_COPY), DRP_OK);
	fake_cache_end(cache);
}

/* Nothing is known of memory from the start: little gets in, then what the cache has clean itself; and what expires goes on. */
static void a_limit_that_was_never_read_is_the_least(size_t bytes)
{
	const struct cache_config config = {.shards = 1, .segment_bytes = 512 * 1024};
	struct cache *cache;

	fake_reset();
	fake_unread(PRIM_UNREAD_MEMBERSHIP);
	REQUIRE(cache_create(&config, &cache) == DRP_OK);
	size_t inserted = inserted_bytes(cache, bytes, 8 * MB);
	for (int i = 0; i < 60 && inserted <= 16 * MB; i++) { /* seconds: a little each, until what is there itself tells that there is room */
		CHECK(i < 20 || inserted > 0);
		pass(1100);
		inserted += inserted_bytes(cache, bytes, 8 * MB);
	}
	CHECK(inserted > 16 * MB);
	CHECK(atomic_load(&cache->span_bytes) <= 256 * MB);
	CHECK(!atomic_load(&cache->memory_is_free));
	/* All of it is taken: the hope begins anew, small. */
	fake_drop(FAKE_EVERY_PAGE);
	pass(150);
	CHECK(inserted_bytes(cache, bytes, 8 * MB) <= 4 * MB);
	fake_cache_end(cache);
}

static void a_limit_that_cannot_be_read_any_more_is_the_last_known(enum prim_unread unread)
{
	struct cache *cache = make(PRIM_LAZYFREE);

	fake_headroom(1000 * MB, 999 * MB, 3 * MB); /* next to nothing, but for the margin */
	pass(150);
	CHECK_EQ(set(cache, 1, 100 * PAGE), DRP_REFUSED);
	fake_unread(unread);
	pass(150);
	CHECK(inserted_bytes(cache, 10 * PAGE, 64 * MB) <= 1 * MB);
	CHECK_EQ(atomic_load(&cache->span_bytes), sizeof(void *) == 4 ? UINT64_C(512) * MB : UINT64_C(4000) * MB);
	CHECK_EQ(set(cache, 2, 10 * MB), DRP_REFUSED);
	fake_headroom(1000 * MB, 100 * MB, 0);
	pass(150);
	CHECK_EQ(set(cache, 2, 10 * MB), DRP_OK);
	fake_cache_end(cache);
}

/* A limit that was read once is no reason to let less in: a share of the room that there was, then what is clean, in many shards too. */
static void a_limit_that_was_read_once_lets_as_much_in(size_t bytes)
{
	const struct cache_config config = {.shards = 16};
	struct cache *cache;

	fake_reset();
	fake_headroom(1000 * MB, 100 * MB, 0);
	REQUIRE(cache_create(&config, &cache) == DRP_OK);
	CHECK_EQ(set(cache, 1, bytes), DRP_OK);
	fake_unread(PRIM_UNREAD_GROUP);
	pass(150);
	CHECK(inserted_bytes(cache, bytes, 16 * MB) >= 16 * MB);
	fake_cache_end(cache);
}

/* Parts of the figures: they bound what gets in like any others. */
static void what_can_be_read_counts_too(void)
{
	struct cache *cache = make(PRIM_LAZYFREE);

	CHECK(inserted_bytes(cache, 10 * PAGE, 16 * MB) >= 16 * MB); /* clean, and there */
	fake_unread(PRIM_UNREAD_GROUP);
	pass(150);
	CHECK_EQ(set(cache, 1, 1 * MB), DRP_OK);
	fake_headroom(100 * MB, 100 * MB, 0);
	pass(150);
	CHECK_EQ(set(cache, 1, PAGE), DRP_REFUSED);
	fake_cache_end(cache);
}

static void what_slows_lets_a_trickle_in(void)
{
	struct cache *cache = make(PRIM_LAZYFREE);

	fake_headroom(100 * MB, 101 * MB, 0);
	fake_slows(UINT64_C(900) * MB);
	pass(150);
	CHECK_EQ(set(cache, 1, 10 * PAGE), DRP_OK);
	CHECK_EQ(set(cache, 2, 1 * MB), DRP_REFUSED);
	fake_headroom(100 * MB, 110 * MB, 0); /* the kernel puts whoever allocates to sleep */
	fake_slows(UINT64_C(900) * MB);
	pass(150);
	CHECK_EQ(set(cache, 1, 10 * PAGE), DRP_REFUSED);
	fake_headroom(100 * MB, 101 * MB, 0); /* and near the limit that kills nothing gets in */
	fake_slows(MB);
	pass(150);
	CHECK_EQ(set(cache, 1, 10 * PAGE), DRP_REFUSED);
	fake_cache_end(cache);
}

/* No address space for one large value: it does not get in, and nothing else changes. */
static void a_value_without_address_space_changes_nothing(size_t bytes)
{
	struct cache *cache = make(PRIM_LAZYFREE);

	for (uint64_t key = 1000; key < 2000; key++)
		CHECK_EQ(set(cache, key, 10000), DRP_OK);
	CHECK_EQ(set(cache, 1, PAGE), DRP_OK);
	fake_space(fake_pages() + 100);
	CHECK_EQ(set(cache, 1, bytes), DRP_NO_MEMORY);
	CHECK_EQ(entries(cache), 1001);
	CHECK_EQ(get(cache, 1, GET_COPY), DRP_OK);
	fake_space(0);
	CHECK_EQ(set(cache, 1, bytes), DRP_OK);
	CHECK_EQ(entries(cache), 1001);
	fake_cache_end(cache);
}

/* For a smaller one older values make room, as many as it takes. */
static void a_value_takes_the_address_space_that_it_needs(void)
{
	struct cache *cache = make(PRIM_LAZYFREE);

	for (uint64_t key = 1000; key < 3000; key++)
		CHECK_EQ(set(cache, key, 10000), DRP_OK);
	fake_space(fake_pages() + 10);
	CHECK_EQ(set(cache, 1, 4 * MB), DRP_OK);
	CHECK(entries(cache) > 1000);
	CHECK_EQ(get(cache, 1, GET_COPY), DRP_OK);
	fake_cache_end(cache);
}

static void after_the_limit_is_lifted_it_grows(void)
{
	struct cache *cache = make(PRIM_LAZYFREE);

	for (uint64_t key = 0; key < 500; key++)
		CHECK_EQ(set(cache, key, 10000), DRP_OK);
	const size_t pages = fake_pages();
	fake_space(pages);
	for (uint64_t key = 0; key < 3000; key++)
		CHECK_EQ(set(cache, key, 10000), DRP_OK);
	CHECK(fake_pages() <= pages);
	CHECK(entries(cache) > 200 && entries(cache) < 1000);
	fake_space(0);
	pass(150);
	for (uint64_t key = 0; key < 3000; key++)
		CHECK_EQ(set(cache, key, 10000), DRP_OK);
	CHECK_EQ(entries(cache), 3000);
	fake_cache_end(cache);
}

/* Values of little more than a page: half of what they take is theirs, and to copy all of a segment's gains nothing. */
static void room_is_made_of_values_that_fill_half_their_pages(enum prim_backing backing, size_t bytes, size_t segment_bytes)
{
	const struct cache_config config = {.backing = backing, .shards = 1, .segment_bytes = segment_bytes,
					    .span_bytes = 12 * segment_bytes};
	struct cache *cache = fake_cache_make(&config);

	for (uint64_t key = 0; key < 2000; key++)
		CHECK_EQ(client_set(cache, key, 1, key % 50 == 49 ? 3 * segment_bytes : bytes, true, SET_ALWAYS), DRP_OK);
	check_counts(cache);
	fake_cache_end(cache);
}

/* Entries that are used go to the head of the log while a segment is emptied for max_bytes, and a head may find no mapping. */
static void no_mapping_is_to_be_had_while_a_segment_is_emptied(enum prim_backing backing, size_t bytes, size_t max_bytes)
{
	const struct cache_config config = {.backing = backing, .shards = 1, .segment_bytes = 8 * PAGE, .max_bytes = max_bytes};
	struct cache *cache = fake_cache_make(&config);
	static unsigned char value[3000];
	struct client_sink sink = {.base.reserve = client_reserve};
	struct cache_pin pin;

	for (uint64_t key = 0; key < 6000; key++) {
		const struct drp_part part = {value, key % 3 ? bytes : bytes / 4};
		const uint64_t life = key % 5;
		const struct cache_item item = {.parts = &part, .part_count = 1,
						.ttl_ns = life ? UINT64_C(2000000000) << 4 * life : 0};
		fake_fail_call(1 + key % 9);
		cache_advance_clock(cache, 50000000);
		const int status = cache_set(cache, &key, sizeof(key), &item, SET_ALWAYS);
		CHECK(status == DRP_OK || status == DRP_NO_MEMORY || status == DRP_REFUSED);
		for (uint64_t used = 0; used < 4; used++) {
			const uint64_t older = key - used * used * used * 7 % 200;
			const int got = cache_get(cache, &older, sizeof(older), GET_COPY, &sink.base, &pin, NULL);
			CHECK(got == DRP_OK || got == DRP_MISS);
		}
	}
	fake_fail_call(0);
	check_counts(cache);
	free(sink.value);
	fake_cache_end(cache);
}

int main(void)
{
	/* First, while no limit was ever told to this process; and what may be inserted on hope is the process's. */
	RUN(without_a_limit_a_large_value_takes_a_step_at_a_time, 5 * MB);
	RUN(without_a_limit_a_large_value_takes_a_step_at_a_time, 7 * MB - PAGE);
	RUN(a_limit_that_was_never_read_is_the_least, PAGE);
	RUN(a_limit_that_was_never_read_is_the_least, 100);
	RUN(a_limit_that_was_never_read_is_the_least, 8 * PAGE);
	RUN(a_value_that_went_takes_no_memory, PRIM_LAZYFREE, GET_COPY);
	RUN(a_value_that_went_takes_no_memory, PRIM_LAZYFREE, GET_PIN);
	RUN(a_value_that_went_takes_no_memory, PRIM_DROPPABLE, GET_COPY);
	RUN(one_page_that_went_stops_it, PRIM_LAZYFREE, GET_COPY);
	RUN(one_page_that_went_stops_it, PRIM_LAZYFREE, GET_PIN_OWN);
	RUN(one_page_that_went_stops_it, PRIM_DROPPABLE, GET_COPY);
	RUN(a_large_get_asks_for_room, PRIM_LAZYFREE, GET_COPY);
	RUN(a_large_get_asks_for_room, PRIM_LAZYFREE, GET_PIN);
	RUN(a_large_get_asks_for_room, PRIM_DROPPABLE, GET_COPY);
	RUN(room_is_promised_once);
	RUN(a_limit_that_cannot_be_read_any_more_is_the_last_known, PRIM_UNREAD_MEMBERSHIP);
	RUN(a_limit_that_cannot_be_read_any_more_is_the_last_known, PRIM_UNREAD_GROUP);
	RUN(a_limit_that_was_read_once_lets_as_much_in, 100);
	RUN(a_limit_that_was_read_once_lets_as_much_in, 8 * PAGE);
	RUN(what_can_be_read_counts_too);
	RUN(what_slows_lets_a_trickle_in);
	RUN(a_value_without_address_space_changes_nothing, 64 * MB);
	RUN(a_value_without_address_space_changes_nothing, 9 * MB);
	RUN(a_value_takes_the_address_space_that_it_needs);
	RUN(after_the_limit_is_lifted_it_grows);
	RUN(room_is_made_of_values_that_fill_half_their_pages, PRIM_LAZYFREE, PAGE + 323, 8 * PAGE);
	RUN(room_is_made_of_values_that_fill_half_their_pages, PRIM_DROPPABLE, PAGE + 104, 16 * PAGE);
	RUN(no_mapping_is_to_be_had_while_a_segment_is_emptied, PRIM_LAZYFREE, 1000, 100000);
	RUN(no_mapping_is_to_be_had_while_a_segment_is_emptied, PRIM_LAZYFREE, 3000, 200000);
	RUN(no_mapping_is_to_be_had_while_a_segment_is_emptied, PRIM_LAZYFREE, 3000, 500000);
	RUN(no_mapping_is_to_be_had_while_a_segment_is_emptied, PRIM_DROPPABLE, 1000, 100000);
	RUN(no_mapping_is_to_be_had_while_a_segment_is_emptied, PRIM_DROPPABLE, 3000, 200000);
	RUN(no_mapping_is_to_be_had_while_a_segment_is_emptied, PRIM_DROPPABLE, 3000, 500000);
	free(sink.client.value);
	return check_done();
}
