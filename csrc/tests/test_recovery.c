/*
 * test_recovery.c - what memory pressure changed in a cache, and that nothing of it is left when it is over, on prim_fake.
 *
 *   the fake tells of a group with a limit of 100 MB: short of memory (nothing is free), or with half of it free
 *   FREE --drops are found while it is short--> SHORT --bytes come in while it is free--> FREE      (policy/admission.h)
 */
#include "policy/cleaner.h"
#include "cache/cache.h"

#include "cache_client.h"
#include "policy/admission.h"
#include "store/internal.h"
#include "store/move.h"
#include "cache_on_fake.h"
#include "check.h"
#include "droppable.h"
#include "os/hash.h"
#include "os/prim.h"
#include "prim_fake.h"
#include "set_and_get.h"

enum {
	PAGE = 4096,
	SEGMENT = 16 * PAGE,
	MB = 1 << 20,
	READING_LASTS = 110000, /* readings of the fake's clock, a microsecond each */
	USED = 12,
	ROUNDS = 10,
	USED_KEYS = 10000,
	NEW_KEYS = 20000,
};

static void headroom_is_read_again(void)
{
	for (int i = 0; i < READING_LASTS; i++)
		(void)prim_now_ns();
}

static void memory_gets_short(void)
{
	fake_headroom(100 * MB, 99 * MB, 60 * MB);
	headroom_is_read_again();
}

static void memory_gets_free(void)
{
	fake_headroom(100 * MB, 50 * MB, 30 * MB);
	headroom_is_read_again();
}

static struct cache *make(enum prim_backing backing)
{
	const struct cache_config config = {.backing = backing, .shards = 1, .segment_bytes = SEGMENT, .span_bytes = 1 << 30};
	return fake_cache_make(&config);
}

static bool is_short(const struct cache *cache)
{
	return cache->shards[0].arena.memory_is_short;
}

static uint64_t evicted(struct cache *cache)
{
	struct cache_stats stats;

	cache_read_stats(cache, &stats);
	return stats.evicted;
}

/* The kernel takes half of all pages, and the cache finds out while new values come, of which one in two is asked for. */
static uint64_t lose_pages(struct cache *cache, uint64_t key, size_t bytes, size_t most)
{
	struct cache_drop drop;

	CHECK_EQ(cache_drop(cache, 0.5, 1, &drop), DRP_OK);
	CHECK(drop.dropped_pages > 0);
	for (const uint64_t end = key + most; key < end && !is_short(cache); key++) {
		set(cache, key, bytes);
		if (key % 2)
			CHECK(get(cache, key));
	}
	return key;
}

static uint64_t fill(struct cache *cache, size_t bytes)
{
	const uint64_t count = 200 * PAGE / bytes + 40;

	for (uint64_t key = 0; key < count; key++)
		set(cache, key, bytes);
	CHECK_EQ(cache_settle(cache), DRP_OK);
	return count;
}

/* Enough for what the state waits for, several times. */
static uint64_t bring_in(struct cache *cache, uint64_t key, size_t bytes)
{
	for (const uint64_t end = key + 20 * SEGMENT / bytes + 4; key < end; key++)
		set(cache, key, bytes);
	return key;
}

/* Drops, then a stream of new values of which a few are asked for: those are there at the end, if no drop took them. */
static void what_is_used_stays(enum prim_backing backing, size_t bytes)
{
	struct cache *cache = make(backing);
	const uint64_t old = bytes < 512 ? 3000 : bytes < 100000 ? 300 : 60;
	struct cache_drop drop;
	struct cache_stats stats;
	size_t gone = 0;

	memory_gets_short();
	for (uint64_t key = 0; key < old; key++)
		set(cache, key, bytes);
	CHECK_EQ(cache_drop(cache, 0.5, 1, &drop), DRP_OK);
	CHECK(drop.dropped_pages > 0);
	/* The look at the segments that are opened finds the drops, and from then on what is new is in the small queue. */
	for (uint64_t key = 0; key < USED; key++)
		set(cache, key + USED_KEYS, bytes);
	for (uint64_t key = old; key < 2 * old; key++) {
		set(cache, key, bytes);
		CHECK(get(cache, USED_KEYS + key % USED));
	}
	CHECK(is_short(cache));
	for (int round = 0; round < ROUNDS; round++) {
		for (uint64_t key = 0; key < USED; key++)
			CHECK(get(cache, key + USED_KEYS));
		for (uint64_t key = 0; key < old; key++) {
			set(cache, NEW_KEYS + (uint64_t)round * old + key, bytes);
			CHECK(get(cache, USED_KEYS + key % USED));
		}
		/* Each look that finds drops lets as much go again. */
		for (uint64_t key = 0; key < old; key++)
			(void)get(cache, key);
	}
	cache_read_stats(cache, &stats);
	CHECK(stats.evicted > 0);
	CHECK_EQ(stats.refused, 0);
	for (uint64_t key = 0; key < USED; key++)
		CHECK(get(cache, key + USED_KEYS));
	/* What left is a miss; set again, it is back like any other. */
	for (uint64_t key = old; key < 2 * old; key++) {
		if (get(cache, key))
			continue;
		gone++;
		set(cache, key, bytes);
		CHECK(get(cache, key));
	}
	CHECK(gone > 0);
	fake_cache_end(cache);
}

/* Whoever reads no limit can lose pages too: as if memory were short. */
static void drops_count_where_nobody_can_tell(void)
{
	struct cache *cache = make(PRIM_LAZYFREE);
	const uint64_t count = fill(cache, 5 * PAGE);

	(void)lose_pages(cache, count, 5 * PAGE, count);
	CHECK(is_short(cache));
	fake_cache_end(cache);
}

static void drops_found_while_memory_is_free_change_nothing(enum prim_backing backing, size_t bytes)
{
	struct cache *cache = make(backing);
	struct shard *shard = &cache->shards[0];
	uint64_t key, count;

	memory_gets_free();
	count = fill(cache, bytes);
	key = lose_pages(cache, count, bytes, count);
	for (uint64_t k = 0; k < key; k++)
		(void)get(cache, k);
	key = bring_in(cache, key, bytes);
	CHECK(!is_short(cache));
	CHECK(!shard->arena.logs[ARENA_SMALL].newest);
	CHECK_EQ(evicted(cache), 0);
	fake_cache_end(cache);
}

/* Short, free, and short again: what begins ends, and begins again. */
static void begins_and_ends_with_the_pressure(enum prim_backing backing, size_t bytes)
{
	struct cache *cache = make(backing);
	struct shard *shard = &cache->shards[0];
	uint64_t key;

	memory_gets_short();
	key = fill(cache, bytes);
	for (int wave = 0; wave < 3; wave++) {
		key = lose_pages(cache, key, bytes, key);
		CHECK(is_short(cache));
		CHECK(shard->admission.budget_bytes > 0);
		for (uint64_t k = 0; k < key; k++)
			(void)get(cache, k);
		key = bring_in(cache, key, bytes); /* some in the small queue */
		CHECK(shard->arena.logs[ARENA_SMALL].newest != NULL);

		memory_gets_free();
		const uint64_t before = evicted(cache);
		const struct admission *admission = &shard->admission;
		set(cache, key++, bytes);
		CHECK_EQ(admission->budget_bytes, 0);
		admission_note_dropped(shard, 100 * PAGE); /* found late */
		key = bring_in(cache, key, bytes);
		CHECK(!is_short(cache));
		CHECK_EQ(evicted(cache), before);
		CHECK(admission->budget_bytes == 0 && admission->debt_bytes == 0 && admission->free_bytes == 0);
		CHECK_EQ(admission_choose(shard, 7, 0, bytes), ARENA_MAIN);
		memory_gets_short();
	}
	fake_cache_end(cache);
}

/* Memory is free for a moment only, again and again: the state stays, but nothing leaves in those moments. */
static void usage_that_swings_changes_little(enum prim_backing backing)
{
	enum { BYTES = 5 * PAGE };
	struct cache *cache = make(backing);
	unsigned changes = 0;
	uint64_t key;

	memory_gets_short();
	key = fill(cache, BYTES);
	key = lose_pages(cache, key, BYTES, key);
	REQUIRE(is_short(cache));
	for (int swing = 0; swing < 100; swing++) {
		memory_gets_free();
		const uint64_t before = evicted(cache);
		for (int i = 0; i < 2; i++) {
			const bool was_short = is_short(cache);
			admission_note_dropped(&cache->shards[0], PAGE);
			set(cache, key++, BYTES);
			changes += is_short(cache) != was_short;
		}
		CHECK_EQ(evicted(cache), before);
		memory_gets_short();
		const bool was_short = is_short(cache);
		admission_note_dropped(&cache->shards[0], PAGE);
		set(cache, key++, BYTES);
		changes += is_short(cache) != was_short;
	}
	CHECK_EQ(changes, 0);
	memory_gets_free();
	(void)bring_in(cache, key, BYTES);
	CHECK(!is_short(cache));
	fake_cache_end(cache);
}

static bool lists(const struct free_extent *list, unsigned count, const struct segment *segment, size_t page)
{
	for (unsigned i = 0; i < count; i++)
		if (list[i].segment == segment->serial && list[i].page == page)
			return true;
	return false;
}

/* Where the value of a key lies. */
static struct segment *place_of(struct cache *cache, uint64_t key, size_t *page)
{
	struct shard *shard = &cache->shards[0];
	struct entry_extent extent;
	struct found found;

	REQUIRE(shard_find(cache, shard, hash_bytes(cache->secret, &key, sizeof(key)), &key, sizeof(key), &found) < 0);
	entry_copy(&found.reader, NULL, found.entry.meta_bytes);
	REQUIRE(shard_read_extent(&found, &extent));
	*page = extent.page;
	return arena_find(&shard->arena, extent.segment);
}

enum finder { BY_GET, BY_REPLACING, BY_COUNTING };

/* The place of a value that lost a page has no pages any more, whoever finds it; that of one that is replaced keeps them. */
static void a_lost_place_is_not_resident(enum prim_backing backing, enum finder finder)
{
	enum { BYTES = 3 * PAGE, COUNT = 60 };
	struct cache *cache = make(backing);
	struct shard *shard = &cache->shards[0];
	struct reuse *reuse = &shard->reuse;
	size_t page;

	memory_gets_free();
	for (uint64_t key = 0; key < COUNT; key++)
		set(cache, key, BYTES);
	CHECK_EQ(cache_settle(cache), DRP_OK);
	set(cache, 3, BYTES);
	CHECK_EQ(reuse->resident_count, 1);
	set(cache, COUNT, BYTES); /* takes that place */
	CHECK_EQ(reuse->resident_count, 0);
	struct segment *segment = place_of(cache, 1, &page);
	fake_drop_at(segment->base + (page + 1) * PAGE);
	if (finder == BY_GET)
		CHECK(!get(cache, 1));
	else if (finder == BY_REPLACING)
		set(cache, 1, BYTES); /* which does not look, and need not: what is taken for resident is only touched more */
	else
		shard_count_pages(cache, shard, segment);
	if (finder == BY_REPLACING) {
		CHECK(lists(reuse->resident, reuse->resident_count, segment, page));
	} else {
		CHECK_EQ(reuse->resident_count, 0);
		CHECK(lists(reuse->absent, reuse->absent_count, segment, page));
		for (size_t i = 0; i < 3; i++) {
			unsigned char state;
			struct prim_census census;
			CHECK_EQ(prim_census(segment->base + (page + i) * PAGE, PAGE, &state, &census), DRP_OK);
			CHECK_EQ(state, PRIM_ABSENT);
		}
	}
	set(cache, 100, BYTES); /* and is used again in any case */
	CHECK(!lists(reuse->resident, reuse->resident_count, segment, page));
	CHECK(!lists(reuse->absent, reuse->absent_count, segment, page));
	CHECK(get(cache, 100));
	fake_cache_end(cache);
}

/* Pages that stayed while memory was free go back once it is short, a place with each set; and stay again later. */
static void dead_pages_go_back_while_memory_is_short(void)
{
	enum { BYTES = 3 * PAGE };
	struct cache *cache = make(PRIM_LAZYFREE);
	struct reuse *reuse = &cache->shards[0].reuse;
	uint64_t key, left, there = 0, serials[64];

	memory_gets_free();
	key = fill(cache, BYTES);
	for (uint64_t dead = 0; dead < 60; dead += 2) /* or whole segments would be dead */
		CHECK_EQ(cache_delete(cache, &dead, sizeof(dead), 0), DRP_OK);
	left = reuse->resident_count;
	REQUIRE(left > 8 && left <= 64);
	for (uint64_t i = 0; i < left; i++)
		serials[i] = reuse->resident[i].segment;
	memory_gets_short();
	key = lose_pages(cache, key, 2 * BYTES, key);
	CHECK(is_short(cache));
	for (int i = 0; i < 40; i++)
		set(cache, key++, 2 * BYTES);
	CHECK_EQ(reuse->resident_count, 0);
	for (uint64_t i = 0; i < left; i++) /* the others' segments came to hold nothing, and their places went with them */
		there += arena_find(&cache->shards[0].arena, serials[i]) != NULL;
	CHECK(there > 8);
	CHECK(reuse->absent_count >= there);
	memory_gets_free();
	key = bring_in(cache, key, BYTES);
	CHECK(!is_short(cache));
	for (uint64_t dead = key - 4; dead < key; dead++)
		CHECK_EQ(cache_delete(cache, &dead, sizeof(dead), 0), DRP_OK);
	CHECK(reuse->resident_count > 0);
	fake_cache_end(cache);
}

/*
 * A segment in the small queue that was examined in part stays so while memory is free. What dies there leaves no place to write:
 * a value there would go unseen when the examining goes on, and be counted for ever.
 */
static void nothing_is_written_where_examining_is_to_go_on(void)
{
	enum { BYTES = 2 * PAGE };
	struct cache *cache = make(PRIM_LAZYFREE);
	struct shard *shard = &cache->shards[0];
	struct cache_stats stats;
	uint64_t key;

	memory_gets_short();
	key = fill(cache, BYTES);
	for (int wave = 0; wave < 4; wave++) {
		key = lose_pages(cache, key, BYTES, key);
		for (int i = 0; i < 200; i++) {
			set(cache, key, BYTES);
			if (i % 2)
				CHECK(get(cache, key));
			key++;
			if (i % 16 == 0)
				admission_note_dropped(shard, PAGE);
		}
		memory_gets_free();
		key = bring_in(cache, key, BYTES);
		CHECK(!is_short(cache));
		for (struct segment *s = shard->arena.logs[ARENA_SMALL].oldest; s; s = s->newer)
			if (s->kind == SEGMENT_EXTENTS)
				for (uint32_t i = 0; i < s->extents; i += 2) {
					struct found found;
					struct entry_extent extent;
					const uint64_t serial = s->serial;
					const struct arena_extent listed = arena_directory(s)[i];
					if (shard_find_by_extent(shard, listed.hash, serial, listed.page, &found, &extent))
						shard_forget_extent(cache, shard, &found, &extent, LEAVE_DELETED, PAGES_REUSED);
					if (arena_find(&shard->arena, serial) != s)
						goto next; /* that was its last */
				}
next:
		for (unsigned i = 0; i < shard->reuse.resident_count; i++)
			CHECK_EQ(arena_find(&shard->arena, shard->reuse.resident[i].segment)->part, ARENA_MAIN);
		for (int i = 0; i < 100; i++)
			set(cache, key++, BYTES);
		memory_gets_short();
	}
	cache_read_stats(cache, &stats);
	CHECK_EQ(stats.sets, stats.entries + stats.dropped + stats.evicted + stats.deletes);
	fake_cache_end(cache);
}

/* Pins rest again after pressure in a program that only reads, and that let none rest meanwhile. */
static void pins_rest_again_without_an_insert(void)
{
	enum { BYTES = 5 * PAGE };
	struct cache *cache = make(PRIM_LAZYFREE);
	struct cache_stats stats;
	uint64_t key = 3, version = 0;
	bool wrong;

	memory_gets_free();
	(void)fill(cache, BYTES);
	fake_headroom(100 * MB, 100 * MB, 0);
	headroom_is_read_again();
	CHECK_EQ(client_set(cache, USED_KEYS, 1, BYTES, true, SET_ALWAYS), DRP_REFUSED); /* by which it is read */
	for (int i = 0; i < 1000; i++) {
		CHECK_EQ(client_get(cache, &sink, key, GET_PIN, &version, &wrong), DRP_OK);
		CHECK(!wrong);
	}
	cache_read_stats(cache, &stats);
	CHECK_EQ(stats.window_bytes, 0);
	memory_gets_free();
	headroom_is_read_again();
	for (int i = 0; i < 1000; i++)
		CHECK_EQ(client_get(cache, &sink, key, GET_PIN, &version, &wrong), DRP_OK);
	cache_read_stats(cache, &stats);
	CHECK(stats.window_bytes >= BYTES);
	fake_cache_end(cache);
}

int main(void)
{
	static const size_t sizes[] = {100, 1000, PAGE, 5 * PAGE, 75 * PAGE}; /* in the log, on pages among others, alone */

	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		RUN(what_is_used_stays, PRIM_LAZYFREE, sizes[i]);
		RUN(what_is_used_stays, PRIM_DROPPABLE, sizes[i]);
		RUN(drops_found_while_memory_is_free_change_nothing, PRIM_LAZYFREE, sizes[i]);
		RUN(drops_found_while_memory_is_free_change_nothing, PRIM_DROPPABLE, sizes[i]);
		RUN(begins_and_ends_with_the_pressure, PRIM_LAZYFREE, sizes[i]);
		RUN(begins_and_ends_with_the_pressure, PRIM_DROPPABLE, sizes[i]);
	}
	RUN(drops_count_where_nobody_can_tell, );
	RUN(usage_that_swings_changes_little, PRIM_LAZYFREE);
	RUN(usage_that_swings_changes_little, PRIM_DROPPABLE);
	RUN(a_lost_place_is_not_resident, PRIM_LAZYFREE, BY_GET);
	RUN(a_lost_place_is_not_resident, PRIM_DROPPABLE, BY_GET);
	RUN(a_lost_place_is_not_resident, PRIM_LAZYFREE, BY_COUNTING);
	RUN(a_lost_place_is_not_resident, PRIM_DROPPABLE, BY_COUNTING);
	RUN(a_lost_place_is_not_resident, PRIM_LAZYFREE, BY_REPLACING);
	RUN(dead_pages_go_back_while_memory_is_short, );
	RUN(pins_rest_again_without_an_insert, );
	RUN(nothing_is_written_where_examining_is_to_go_on, );
	free(sink.value);
	return check_done();
}
