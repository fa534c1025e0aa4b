/*
 * test_places.c - what was dropped leaves places, in the log and in the index, and they are used again, on prim_fake: a
 * cache that lives long takes no more address space, index and entries than a young one. Every value that comes back is right.
 *
 *   each round   new values come, are asked for, and so get to the main log; then some pages of it are dropped
 */
#include "cache/cache.h"

#include "cache_client.h"
#include "store/internal.h"
#include "cache_on_fake.h"
#include "check.h"
#include "prim_fake.h"
#include "set_and_get.h"

enum { PAGE = 4096, SEGMENT = 64 * PAGE, ROUNDS = 400, SHARE = 40 /* one in so many is new, and one page in so many is dropped */ };

static uint64_t random_state = 1;

static unsigned draw(unsigned below)
{
	random_state = random_state * UINT64_C(6364136223846793005) + 1442695040888963407;
	return (unsigned)(random_state >> 33) % below;
}

static struct cache *make(enum prim_backing backing)
{
	const struct cache_config config = {.backing = backing, .shards = 1, .segment_bytes = SEGMENT};
	return fake_cache_make(&config);
}

/* Pages of values alone, or of entries alone: a kernel takes what is not used, and directories and the index are. */
static void drop_some(struct cache *cache, enum segment_kind kind, unsigned share)
{
	for (struct segment *segment = NULL; (segment = arena_next(&cache->shards[0].arena, segment)) != NULL;) {
		if (segment->kind != kind)
			continue;
		const size_t first = kind == SEGMENT_EXTENTS ? arena_directory_bytes(segment->length) : 0;
		for (size_t offset = first; offset < segment->used; offset += PAGE)
			if (draw(share) == 0)
				fake_drop_at(segment->base + offset);
	}
}

/* Nothing is counted twice, and nothing is forgotten: as long as no page of the index goes. */
static void check_counts(struct cache *cache)
{
	struct cache_stats stats;

	cache_read_stats(cache, &stats);
	if (stats.index_lost_pages == 0)
		CHECK_EQ(stats.sets, stats.entries + stats.dropped + stats.evicted);
}

static size_t used_bytes(struct cache *cache, enum segment_kind kind)
{
	size_t bytes = 0;

	for (struct segment *segment = NULL; (segment = arena_next(&cache->shards[0].arena, segment)) != NULL;)
		bytes += segment->kind == kind ? segment->used : 0;
	return bytes;
}

static void values_fill_what_was_dropped(enum prim_backing backing, size_t bytes, uint64_t count)
{
	struct cache *cache = make(backing);
	const size_t pages = (bytes + PAGE - 1) / PAGE;
	uint64_t key = 0;

	for (; key < count; key++)
		set(cache, key, bytes);
	const uint64_t before_bytes = cache->shards[0].arena.mapped_bytes;
	for (int round = 0; round < ROUNDS; round++) {
		for (uint64_t end_key = key + count / SHARE; key < end_key; key++) {
			set(cache, key, bytes);
			CHECK(get(cache, key));
		}
		drop_some(cache, SEGMENT_EXTENTS, SHARE * (unsigned)pages);
		for (int i = 0; i < 50; i++)
			(void)get(cache, key - draw((unsigned)count));
		check_counts(cache);
	}
	/* Ten times as much came in the meantime. What is in the small queue comes on top, and a head of each kind. */
	CHECK(cache->shards[0].arena.mapped_bytes <= before_bytes * 3 / 2 + 6 * SEGMENT);
	CHECK(used_bytes(cache, SEGMENT_ENTRIES) <= 4 * SEGMENT);
	fake_cache_end(cache);
}

static void slots_of_dropped_entries_are_used_again(void)
{
	enum { COUNT = 6000, BYTES = 60 };
	struct cache *cache = make(PRIM_LAZYFREE); /* on which the index, not marked while it is so small, is not dropped */
	const struct index *index = &cache->shards[0].index;
	uint64_t key = 0;

	for (; key < COUNT; key++)
		set(cache, key, BYTES);
	const size_t before_pages = index->page_count;
	for (int round = 0; round < ROUNDS; round++) {
		for (uint64_t end_key = key + COUNT / SHARE; key < end_key; key++) {
			set(cache, key, BYTES);
			CHECK(get(cache, key));
		}
		drop_some(cache, SEGMENT_ENTRIES, SHARE);
		check_counts(cache);
	}
	CHECK(index->page_count <= 3 * before_pages); /* one for one as ghosts of what was evicted, and its pages are not full */
	/* What is counted is there, after each was looked for once. */
	struct cache_stats stats;
	uint64_t there = 0;
	for (uint64_t i = 0; i < key; i++)
		there += get(cache, i);
	cache_read_stats(cache, &stats);
	CHECK_EQ(stats.entries, there);
	check_counts(cache);
	fake_cache_end(cache);
}

/*
 * Entries of values on pages fill a segment slowly. When it is sealed at last, the values that came while it was filled do not
 * wait for it to grow old: no more is in the small queue than is to be.
 */
static void the_small_queue_keeps_its_share(void)
{
	enum { COUNT = 6000, BYTES = PAGE };
	struct cache *cache = make(PRIM_LAZYFREE);
	struct shard *shard = &cache->shards[0];
	size_t most_bytes = 0;
	uint64_t key = 0;

	for (; key < COUNT; key++)
		set(cache, key, BYTES);
	drop_some(cache, SEGMENT_EXTENTS, 20);
	for (; key < 8 * COUNT; key++) {
		set(cache, key, BYTES);
		(void)get(cache, key - draw(COUNT / 2)); /* or new values would not be in the small queue */
		if (key % 64 == 0)
			drop_some(cache, SEGMENT_EXTENTS, 500); /* and none would have to leave */
		size_t bytes = 0;
		for (struct segment *s = shard->arena.logs[ARENA_SMALL].oldest; s; s = s->newer)
			bytes += s->kind == SEGMENT_EXTENTS ? s->used : 0;
		if (bytes > most_bytes)
			most_bytes = bytes;
	}
	CHECK(shard->arena.memory_is_short);
	CHECK(most_bytes > SEGMENT);
	printf("# at most %zu KiB in the small queue, of %zu KiB\n", most_bytes >> 10, shard->arena.resident_pages * PAGE >> 10);
	CHECK(most_bytes <= (size_t)COUNT * BYTES / 14 + 5 * SEGMENT);
	fake_cache_end(cache);
}

int main(void)
{
	RUN(values_fill_what_was_dropped, PRIM_LAZYFREE, PAGE, 1200);
	RUN(values_fill_what_was_dropped, PRIM_DROPPABLE, PAGE, 1200);
	RUN(values_fill_what_was_dropped, PRIM_LAZYFREE, 5 * PAGE, 300);
	RUN(values_fill_what_was_dropped, PRIM_DROPPABLE, 5 * PAGE, 300);
	RUN(slots_of_dropped_entries_are_used_again, );
	RUN(the_small_queue_keeps_its_share, );
	free(sink.value);
	return check_done();
}
