/*
 * test_limits.c - where the system gives nothing more, on prim_fake: memory that cannot be marked (mlockall), no mapping to be
 * had (vm.max_map_count), lengths whose sum is more than a size can say.
 *
 *   locked:   pages --prim_mark--> still dirty: what is stored from then on would be taken from others for good
 *   no maps:  [ segment ] [ segment ]: no third one, and the two are written again, also where both are heads of a log
 */
#include "cache/cache.h"

#include "cache_client.h"
#include "cache_on_fake.h"
#include "check.h"
#include "droppable.h"
#include "prim_fake.h"
#include "set_and_get.h"

enum {
	PAGE = 4096,
	SEGMENT = 16 * PAGE,
	EARLIER = 40,
	MANY = 3000,
	DIRTY_MOST = 5 * SEGMENT / PAGE, /* of both logs a segment of entries and one of values, and the index */
};

static struct cache *make(void)
{
	const struct cache_config config = {.backing = PRIM_LAZYFREE, .shards = 1, .segment_bytes = SEGMENT, .span_bytes = 1 << 30};
	return fake_cache_make(&config);
}

static size_t dirty_pages(void)
{
	size_t count = 0;

	for (size_t i = 0; i < fake_pages(); i++)
		count += fake_page_is_dirty(i);
	return count;
}

static size_t set_many(struct cache *cache, uint64_t key, size_t bytes, int refusal)
{
	size_t stored = 0;

	for (const uint64_t end = key + MANY; key < end; key++) {
		int status = client_set(cache, key, 1, bytes, false, SET_ALWAYS);
		CHECK(status == DRP_OK || status == refusal);
		CHECK_EQ(get(cache, key), status == DRP_OK);
		stored += status == DRP_OK;
	}
	return stored;
}

static void what_cannot_be_marked_does_not_pile_up(size_t bytes)
{
	struct cache *cache = make();
	struct cache_stats stats;
	size_t left = 0;

	for (uint64_t key = 0; key < EARLIER; key++)
		CHECK_EQ(client_set(cache, key, 1, bytes, false, SET_ALWAYS), DRP_OK);
	CHECK_EQ(cache_settle(cache), DRP_OK);
	const size_t before = dirty_pages(), pages = fake_pages();
	fake_lock(true);
	const size_t stored = set_many(cache, 1000, bytes, DRP_REFUSED);
	CHECK(stored * bytes <= SEGMENT);
	CHECK(dirty_pages() <= before + DIRTY_MOST);
	CHECK(fake_pages() <= pages + DIRTY_MOST + 64); /* of the index a step of 64 pages */
	cache_read_stats(cache, &stats);
	CHECK_EQ(stats.refused, MANY - stored);
	for (uint64_t key = 0; key < EARLIER; key++)
		left += get(cache, key);
	CHECK(left >= EARLIER / 2); /* to the fake a page of zeros is one that is gone: it looks as if memory were short */

	const uint64_t last = EARLIER - 1, second = EARLIER - 2;
	CHECK(get(cache, last) && get(cache, second));
	CHECK_EQ(client_set(cache, last, 2, bytes, false, SET_ALWAYS), DRP_REFUSED);
	CHECK(!get(cache, last)); /* the older value does not stand in for it */
	CHECK_EQ(cache_delete(cache, &second, sizeof(second), 0), DRP_OK);
	CHECK(!get(cache, second));
	CHECK_EQ(cache_clear(cache), DRP_OK);
	for (uint64_t key = 0; key < EARLIER; key++)
		CHECK(!get(cache, key));

	fake_lock(false);
	CHECK_EQ(set_many(cache, 10000, bytes, DRP_OK), MANY);
	fake_cache_end(cache);
}

static void without_mappings_what_there_is_is_written_again(size_t bytes, size_t segments)
{
	struct cache *cache = make();
	uint64_t key = 0;

	CHECK_EQ(client_set(cache, key++, 1, bytes, false, SET_ALWAYS), DRP_OK);
	while (fake_mappings() < 1 + segments) /* one is the index's */
		CHECK_EQ(client_set(cache, key++, 1, bytes, false, SET_ALWAYS), DRP_OK);
	fake_no_mappings(true);
	CHECK_EQ(set_many(cache, 1000, bytes, DRP_OK), MANY);
	fake_no_mappings(false);
	for (int i = 0; i < 200000; i++)
		(void)prim_now_ns(); /* of the fake's clock, a microsecond each */
	CHECK_EQ(set_many(cache, 5000, bytes, DRP_OK), MANY);
	CHECK(fake_mappings() > 1 + segments);
	fake_cache_end(cache);
}

static void a_large_value_without_a_mapping_costs_others_little(void)
{
	struct cache *cache = make();
	size_t left = 0;

	for (uint64_t key = 0; key < MANY; key++)
		CHECK_EQ(client_set(cache, key, 1, 1000, false, SET_ALWAYS), DRP_OK);
	fake_no_mappings(true);
	for (int i = 0; i < 100; i++)
		CHECK_EQ(client_set(cache, 10000, 1, SEGMENT, false, SET_ALWAYS), DRP_NO_MEMORY);
	for (uint64_t key = 0; key < MANY; key++)
		left += get(cache, key);
	CHECK(left > MANY * 9 / 10);
	CHECK_EQ(set_many(cache, 20000, 1000, DRP_OK), MANY);
	fake_cache_end(cache);
}

static void sums_of_lengths_do_not_wrap(void)
{
	struct cache *cache = make();
	const uint64_t key = 1;
	unsigned char byte = 1;
	const struct drp_part wraps[] = {{&byte, SIZE_MAX}, {&byte, 1 + 2 * PAGE}}, halves[] = {{&byte, SIZE_MAX / 2}, {&byte, PAGE}};
	struct cache_item item = {.parts = wraps, .part_count = 2};

	CHECK_EQ(cache_set(cache, &key, sizeof(key), &item, SET_ALWAYS), DRP_TOO_LARGE);
	item.parts = halves;
	CHECK_EQ(cache_set(cache, &key, sizeof(key), &item, SET_ALWAYS), DRP_TOO_LARGE);
	item.part_count = 0;
	item.meta = &byte;
	item.meta_bytes = SIZE_MAX - 8;
	CHECK_EQ(cache_set(cache, &key, sizeof(key), &item, SET_ALWAYS), DRP_TOO_LARGE);
	fake_cache_end(cache);
}

int main(void)
{
	RUN(what_cannot_be_marked_does_not_pile_up, 100);
	RUN(what_cannot_be_marked_does_not_pile_up, 3000);
	RUN(what_cannot_be_marked_does_not_pile_up, 3 * PAGE);
	RUN(what_cannot_be_marked_does_not_pile_up, 40 * PAGE);
	RUN(without_mappings_what_there_is_is_written_again, 100, 1);
	RUN(without_mappings_what_there_is_is_written_again, 100, 3);
	RUN(without_mappings_what_there_is_is_written_again, 3000, 2);
	RUN(without_mappings_what_there_is_is_written_again, 2 * PAGE, 2);
	RUN(without_mappings_what_there_is_is_written_again, 2 * PAGE, 4);
	RUN(a_large_value_without_a_mapping_costs_others_little);
	RUN(sums_of_lengths_do_not_wrap);
	free(sink.value);
	return check_done();
}
