/*
 * test_names.c - what names something never comes to name something else, on prim_fake, with number spaces so small that
 * numbers go round many times in a test.
 *
 *   entry of A --extent--> segment 5, taken by the kernel, retired     ...     segment 5 again: B's
 *                 '----------------------- a miss, never these -------------------^
 */
#include "cache/cache.h"

#include "cache_client.h"
#include "store/internal.h"
#include "store/move.h"
#include "cache_on_fake.h"
#include "check.h"
#include "check_counts.h"
#include "prim_fake.h"

enum { PAGE = 4096, SEGMENT = 16 * PAGE, A = 1, B = 2, OTHERS = 1000, OPENS_MOST = 5000 };

static struct client_sink sink;

static struct cache *make(enum prim_backing backing, uint32_t number_mask)
{
	const struct cache_config config = {.backing = backing, .shards = 1, .segment_bytes = SEGMENT};
	struct cache *cache = fake_cache_make(&config);

	cache->shards[0].arena.number_mask = number_mask;
	return cache;
}

static int get(struct cache *cache, uint64_t key, enum cache_get_mode mode)
{
	uint64_t version;
	bool wrong;
	int status = client_get(cache, &sink, key, mode, &version, &wrong);

	CHECK(!wrong);
	return status;
}

/* The segment of the values, which is the only one of its kind there is. */
static struct segment *only_segment_of_values(struct cache *cache)
{
	struct segment *only = NULL;

	for (struct segment *segment = NULL; (segment = arena_next(&cache->shards[0].arena, segment)) != NULL;)
		if (segment->kind != SEGMENT_ENTRIES) {
			CHECK(!only);
			only = segment;
		}
	return only;
}

/* Stores A; then the kernel takes all pages of its segment, as the census finds out. */
static uint32_t store_and_lose(struct cache *cache, size_t bytes)
{
	struct shard *shard = &cache->shards[0];

	REQUIRE(client_set(cache, A, 1, bytes, true, SET_ALWAYS) == DRP_OK);
	CHECK_EQ(cache_settle(cache), DRP_OK);
	struct segment *segment = only_segment_of_values(cache);
	REQUIRE(segment != NULL);
	const uint32_t number = segment->number;
	for (size_t offset = 0; offset < segment->used; offset += PAGE)
		fake_drop_at(segment->base + offset);
	pthread_mutex_lock(&shard->lock);
	shard_retire(cache, shard, segment);
	shard_unlock(shard);
	CHECK(!arena_segment(&shard->arena, number));
	return number;
}

/* Its number is then that of B's segment, whose size may differ. */
static struct cache *give_number_of_a_to_b(enum prim_backing backing, size_t a_bytes, size_t b_bytes)
{
	struct cache *cache = make(backing, 0xff);
	struct arena *arena = &cache->shards[0].arena;
	const uint32_t number = store_and_lose(cache, a_bytes);

	while ((arena->next_serial & arena->number_mask) != number) /* as after so many segments */
		arena->next_serial++;
	REQUIRE(client_set(cache, B, 1, b_bytes, true, SET_ALWAYS) == DRP_OK);
	struct segment *segment = only_segment_of_values(cache);
	REQUIRE(segment && segment->number == number);
	return cache;
}

/* The same without a hand on the arena: values come until the number has gone round. */
static void numbers_go_round(enum prim_backing backing)
{
	struct cache *cache = make(backing, 0xff);
	const uint32_t number = store_and_lose(cache, 50 * PAGE);
	struct segment *segment;
	int opens = 0;

	do {
		REQUIRE(client_set(cache, B, (uint64_t)opens, 50 * PAGE, true, SET_ALWAYS) == DRP_OK);
		segment = arena_segment(&cache->shards[0].arena, number);
	} while ((!segment || segment->kind == SEGMENT_ENTRIES) && opens++ < OPENS_MOST);
	CHECK(opens < OPENS_MOST);
	CHECK_EQ(get(cache, A, GET_COPY), DRP_MISS);
	CHECK_EQ(get(cache, B, GET_COPY), DRP_OK);
	fake_cache_end(cache);
}

/* Reads, then whatever gives the older value's pages back: B's are not A's to give. */
static void the_number_is_anothers(enum prim_backing backing, size_t a_bytes, size_t b_bytes)
{
	static const enum cache_get_mode modes[] = {GET_COPY, GET_PIN_OWN, GET_PIN};
	const uint64_t key = A;

	for (size_t i = 0; i < sizeof(modes) / sizeof(modes[0]); i++) {
		struct cache *cache = give_number_of_a_to_b(backing, a_bytes, b_bytes);
		CHECK_EQ(get(cache, A, modes[i]), DRP_MISS);
		CHECK_EQ(get(cache, B, modes[i]), DRP_OK);
		fake_cache_end(cache);
	}
	struct cache *cache = give_number_of_a_to_b(backing, a_bytes, b_bytes);
	CHECK_EQ(cache_contains(cache, &key, sizeof(key)), 0);
	CHECK_EQ(get(cache, B, GET_COPY), DRP_OK);
	fake_cache_end(cache);

	cache = give_number_of_a_to_b(backing, a_bytes, b_bytes);
	(void)cache_delete(cache, &key, sizeof(key), 0);
	CHECK_EQ(get(cache, B, GET_COPY), DRP_OK);
	fake_cache_end(cache);

	cache = give_number_of_a_to_b(backing, a_bytes, b_bytes);
	CHECK_EQ(client_set(cache, A, 2, 100, false, SET_ALWAYS), DRP_OK);
	CHECK_EQ(get(cache, A, GET_COPY), DRP_OK);
	CHECK_EQ(get(cache, B, GET_COPY), DRP_OK);
	fake_cache_end(cache);
}

/* As many segments as there are numbers: a store is refused or makes room; it neither hangs nor takes another's number. */
static void all_numbers_are_taken(enum prim_backing backing, uint32_t number_mask, size_t bytes)
{
	struct cache *cache = make(backing, number_mask);
	uint64_t kept = 0;

	for (uint64_t key = 0; key < 20 * (uint64_t)number_mask; key++) {
		const int status = client_set(cache, key, 1, bytes, true, SET_ALWAYS);
		CHECK(status == DRP_OK || status == DRP_NO_MEMORY);
		CHECK(status != DRP_OK || get(cache, key, GET_COPY) == DRP_OK);
	}
	CHECK(cache->shards[0].arena.table_used <= number_mask);
	for (uint64_t key = 0; key < 20 * (uint64_t)number_mask; key++)
		kept += get(cache, key, GET_COPY) == DRP_OK;
	CHECK(kept > 0);
	fake_cache_end(cache);
}

/* Slots lead to a segment that is gone with all its entries: its number is not another's before they are cleared. */
static void slots_outlive_their_segment(enum prim_backing backing, uint32_t number_mask, size_t lost_segments)
{
	struct cache *cache = make(backing, number_mask);
	struct shard *shard = &cache->shards[0];
	uint64_t key = OTHERS;

	for (size_t i = 0; i < lost_segments; i++) {
		struct segment *segment = NULL;
		while (!segment || segment->state != SEGMENT_SEALED) {
			REQUIRE(client_set(cache, key++, 1, 200, false, SET_ALWAYS) == DRP_OK);
			segment = shard->arena.logs[ARENA_MAIN].oldest;
		}
		pthread_mutex_lock(&shard->lock);
		CHECK(segment->live_count > 100);
		shard_retire(cache, shard, segment); /* as the census does, when its pages are gone */
		shard_unlock(shard);
	}
	check_counts(cache);
	for (uint32_t open = 0; open <= number_mask; open++) {
		const uint64_t serial = shard->arena.next_serial;
		if (open == 0)
			shard->arena.next_serial += number_mask + 1 - lost_segments - 1; /* back at the first of them */
		while (shard->arena.next_serial <= serial)
			REQUIRE(client_set(cache, key++, 1, 2000, false, SET_ALWAYS) == DRP_OK);
		check_counts(cache);
		CHECK(client_set(cache, A, open, 100, false, SET_ALWAYS) == DRP_OK && get(cache, A, GET_COPY) == DRP_OK);
	}
	fake_cache_end(cache);
}

/* What cache_get() told of an entry is that entry's name alone, also when its number and offset are another's of its key. */
static void a_name_is_not_told_twice(enum prim_backing backing)
{
	struct cache *cache = make(backing, 7);
	const uint64_t key = A;
	struct cache_about about;
	struct cache_pin pin;
	uint64_t first = 0;

	sink.base.reserve = client_reserve;
	for (uint64_t version = 0; version < 3000; version++) {
		REQUIRE(client_set(cache, A, version, 2000, false, SET_ALWAYS) == DRP_OK);
		REQUIRE(cache_get(cache, &key, sizeof(key), GET_COPY, &sink.base, &pin, &about) == DRP_OK);
		CHECK(about.place != first);
		first = first ? first : about.place;
		CHECK_EQ(cache_delete(cache, &key, sizeof(key), version ? first : UINT64_MAX), DRP_MISS);
	}
	CHECK_EQ(cache_delete(cache, &key, sizeof(key), about.place), DRP_OK);
	fake_cache_end(cache);
}

/* Also of an entry whose segment has a number that was given before. */
static void what_is_rejected_is_gone(enum prim_backing backing)
{
	struct cache *cache = make(backing, 7);
	const uint64_t key = A;
	struct cache_about about;
	struct cache_stats stats;
	struct cache_pin pin;

	sink.base.reserve = client_reserve;
	for (uint64_t version = 0; version < 3000; version++) {
		REQUIRE(client_set(cache, A, version, 2000, false, SET_ALWAYS) == DRP_OK);
		REQUIRE(cache_get(cache, &key, sizeof(key), GET_COPY, &sink.base, &pin, &about) == DRP_OK);
		CHECK_EQ(cache_reject(cache, &key, sizeof(key), about.place), DRP_OK);
		REQUIRE(cache_contains(cache, &key, sizeof(key)) == 0);
	}
	cache_read_stats(cache, &stats);
	CHECK_EQ(stats.deletes, 3000);
	CHECK_EQ(stats.misses[MISS_REJECTED], 3000);
	check_counts(cache);
	fake_cache_end(cache);
}

int main(void)
{
	static const enum prim_backing backings[] = {PRIM_LAZYFREE, PRIM_DROPPABLE};

	for (size_t i = 0; i < 2; i++) {
		RUN(numbers_go_round, backings[i]);
		RUN(a_name_is_not_told_twice, backings[i]);
		RUN(what_is_rejected_is_gone, backings[i]);
		RUN(slots_outlive_their_segment, backings[i], 0xff, 1);
		RUN(slots_outlive_their_segment, backings[i], 0x3f, 5);
		RUN(slots_outlive_their_segment, backings[i], 0xf, 9);
		RUN(the_number_is_anothers, backings[i], 50 * PAGE, 50 * PAGE);
		RUN(the_number_is_anothers, backings[i], 50 * PAGE, 7 * PAGE); /* what lies behind it is not mapped */
		RUN(the_number_is_anothers, backings[i], 5 * PAGE, 2 * PAGE);  /* among others, whose segment is long enough */
		RUN(the_number_is_anothers, backings[i], 2 * PAGE, 4 * PAGE);
		RUN(the_number_is_anothers, backings[i], 2 * PAGE, 2 * PAGE);  /* the very same pages */
		RUN(all_numbers_are_taken, backings[i], 15, 8 * PAGE);
		RUN(all_numbers_are_taken, backings[i], 15, 3 * PAGE);
		RUN(all_numbers_are_taken, backings[i], 7, 1000);
	}
	return check_done();
}
