/*
 * test_counts.c - counts never drift, on prim_fake: random calls, drops of any page at any step, numbers of 8 bits; and after
 * every call all is counted from scratch (check_counts.h). At the end each key is looked up: then len, walk and look-ups agree.
 */
#include "cache/cache.h"

#include "cache_client.h"
#include "store/move.h"
#include "cache_on_fake.h"
#include "cache/update.h"
#include "policy/reclaim.h"
#include "check.h"
#include "check_counts.h"
#include "os/hash.h"
#include "prim_fake.h"

enum { CALLS = CHECK_LESS ? 600 : 8000 };
enum { PAGE = 4096, SEGMENT = 8 * PAGE, KEYS = 1500, TTL_NS = 50000 };

static struct client_sink sink;
static uint64_t random_state;

static unsigned draw(unsigned below)
{
	random_state = random_state * UINT64_C(6364136223846793005) + 1442695040888963407;
	return (unsigned)(random_state >> 33) % below;
}

static size_t draw_bytes(void)
{
	switch (draw(8)) {
	case 0:
		return PAGE * (1 + draw(2)); /* among others */
	case 1:
		return PAGE * (3 + draw(6)); /* alone */
	case 2:
		return draw(3 * PAGE / 2);
	default:
		return draw(300);
	}
}

static void set(struct cache *cache, uint64_t key, uint64_t version, size_t bytes, uint64_t ttl_ns, enum cache_set_mode mode)
{
	unsigned char *value = malloc(bytes + 1);
	client_fill(value, key, version, bytes);
	const struct drp_part part = {value, bytes};
	const uint64_t meta[] = {version, bytes};
	const struct cache_item item = {.parts = &part, .part_count = 1, .meta = meta, .meta_bytes = sizeof(meta),
					.kind = (uint8_t)(key & 7), .own_pages = draw(2) == 0, .ttl_ns = ttl_ns, .versioned = version % 3 == 0};
	struct cache_update update = {.mode = mode, .version = mode == SET_IF_SAME ? 1 + draw((unsigned)version + 1) : 0};
	const int status = cache_update(cache, &key, sizeof(key), &item, &update);

	CHECK(status == DRP_OK || status == DRP_REFUSED || status == DRP_NO_MEMORY || status == DRP_EXISTS ||
	      (status == DRP_MISS && mode >= SET_IF_PRESENT));
	free(value);
}

static bool get(struct cache *cache, uint64_t key)
{
	uint64_t version;
	bool wrong;
	const int status = client_get(cache, &sink, key, draw(2) ? GET_COPY : GET_PIN, &version, &wrong);

	CHECK(!wrong);
	CHECK(status == DRP_OK || status == DRP_MISS);
	return status == DRP_OK;
}

static int count_key(void *context, const void *key, size_t key_bytes)
{
	(void)key;
	CHECK_EQ(key_bytes, sizeof(uint64_t));
	++*(size_t *)context;
	return DRP_OK;
}

static size_t walk(struct cache *cache)
{
	uint64_t cursor = 0;
	size_t count = 0;

	while (cache_walk(cache, &cursor, count_key, &count) == DRP_OK)
		;
	return count;
}

static void one_call(struct cache *cache, unsigned drops, uint64_t version)
{
	const uint64_t key = draw(KEYS);
	struct cache_drop dropped;
	int status;

	switch (draw(120)) {
	case 0 ... 44:
		set(cache, key, version, draw_bytes(), draw(6) == 0 ? TTL_NS : 0, draw(4) ? SET_ALWAYS : (enum cache_set_mode)draw(SET_IF_SAME + 1));
		break;
	case 45 ... 79:
		(void)get(cache, key);
		break;
	case 80 ... 86:
		(void)cache_delete(cache, &key, sizeof(key), 0);
		break;
	case 87 ... 89:
		(void)cache_contains(cache, &key, sizeof(key));
		break;
	case 90:
		(void)walk(cache);
		break;
	case 91 ... 92:
		CHECK_EQ(cache_settle(cache), DRP_OK);
		break;
	case 93:
		cache_advance_clock(cache, TTL_NS / 4);
		break;
	case 94:
		(void)cache_give_back(16 * PAGE);
		break;
	case 95:
		if (drops > 1 && draw(8) == 0)
			CHECK_EQ(cache_drop(cache, 0.2, version, &dropped), DRP_OK);
		break;
	case 96:
		if (draw(60) == 0)
			CHECK_EQ(cache_clear(cache), DRP_OK);
		break;
	case 97: /* few are left, so that pages of the index become one */
		for (uint64_t gone = draw(60) == 0 ? 0 : KEYS; gone < KEYS; gone++)
			if (gone % 16 != version % 16)
				(void)cache_delete(cache, &gone, sizeof(gone), 0);
		break;
	case 98 ... 113:
		status = cache_touch(cache, &key, sizeof(key), draw(3) ? (1 + draw(100)) * TTL_NS : 0);
		CHECK(status == DRP_OK || status == DRP_MISS || status == DRP_REFUSED || status == DRP_NO_MEMORY);
		break;
	case 114 ... 116:
		status = cache_delete_version(cache, &key, sizeof(key), 1 + draw((unsigned)version + 1));
		CHECK(status == DRP_OK || status == DRP_MISS || status == DRP_EXISTS);
		break;
	default:
		for (unsigned i = 0; i < drops * 2 && fake_pages() > 0; i++)
			fake_drop(draw((unsigned)fake_pages()));
	}
}

static void all_keys_are_looked_up(struct cache *cache)
{
	struct cache_stats stats;
	size_t found = 0;

	for (uint64_t key = 0; key < KEYS; key++)
		(void)get(cache, key);
	for (uint64_t key = 0; key < KEYS; key++)
		found += cache_contains(cache, &key, sizeof(key)) == 1;
	cache_read_stats(cache, &stats);
	CHECK_EQ(stats.entries, found);
	CHECK_EQ(walk(cache), found);
	check_counts(cache);
}

static void counts_never_drift(enum prim_backing backing, uint64_t max_bytes, uint32_t number_mask, unsigned drops, uint64_t seed)
{
	const struct cache_config config = {.backing = backing, .shards = 1, .segment_bytes = SEGMENT, .max_bytes = max_bytes};
	struct cache *cache = fake_cache_make(&config);

	random_state = seed;
	cache->shards[0].arena.number_mask = number_mask;
	for (uint64_t call = 0; call < CALLS && check_failures() == 0; call++) {
		if (drops > 0 && draw(4) == 0) /* in the midst of a call */
			fake_drop_at_step(1 + draw(60), draw(200) ? draw((unsigned)fake_pages() + 1) : FAKE_EVERY_PAGE);
		one_call(cache, drops, call);
		fake_drop_at_step(0, 0);
		check_counts(cache);
		if (call % 500 == 499)
			all_keys_are_looked_up(cache);
	}
	all_keys_are_looked_up(cache);
	struct cache_stats stats;
	cache_read_stats(cache, &stats);
	printf("# %llu sets, %llu entries, %llu dropped, %llu of them with %llu pages of the index; segments %llu, rounds %llu\n",
	       (unsigned long long)stats.sets, (unsigned long long)stats.entries, (unsigned long long)stats.dropped,
	       (unsigned long long)cache->shards[0].index.blind_losses, (unsigned long long)stats.index_lost_pages,
	       (unsigned long long)cache->shards[0].arena.next_serial, (unsigned long long)cache->shards[0].arena.rounds);
	fake_cache_end(cache);
}

/* Pages of the index alone go: what they named is counted off as dropped, when each key was looked up at the latest. */
static void an_index_is_lost(enum prim_backing backing, size_t bytes, uint64_t count)
{
	const struct cache_config config = {.backing = backing, .shards = 1, .segment_bytes = 64 * PAGE};
	struct cache *cache = fake_cache_make(&config);
	struct shard *shard = &cache->shards[0];
	struct cache_stats stats;

	for (uint64_t key = 0; key < count; key++)
		REQUIRE(client_set(cache, key, 1, bytes, true, SET_ALWAYS) == DRP_OK);
	CHECK_EQ(cache_settle(cache), DRP_OK);
	for (size_t page = 0; page < shard->index.page_count; page++)
		fake_drop_at((char *)shard->index.chunks[page / 64] + page % 64 * PAGE);
	for (uint64_t key = 0; key < count; key++)
		CHECK(!get(cache, key));
	cache_read_stats(cache, &stats);
	CHECK_EQ(stats.entries, 0);
	CHECK_EQ(stats.dropped, count);
	CHECK_EQ(walk(cache), 0);
	check_counts(cache);
	/* And their segments: after whole rounds of the index what nothing leads to any more is given back. */
	pthread_mutex_lock(&shard->lock);
	for (size_t page = 0; page < 3 * shard->index.page_count; page++)
		shard_scrub(shard);
	shard_unlock(shard);
	for (uint64_t key = count; key < count + 200; key++)
		REQUIRE(client_set(cache, key, 1, bytes, true, SET_ALWAYS) == DRP_OK);
	CHECK(!shard->emptied);
	cache_read_stats(cache, &stats);
	CHECK(stats.bytes <= 200 * (bytes + 256) + 3 * config.segment_bytes); /* heads do not go */
	check_counts(cache);
	fake_cache_end(cache);
}

/* A page of the index that cannot be split: each new entry takes the slot of another, which is evicted, its value too. */
static void entries_are_displaced(enum prim_backing backing, size_t bytes)
{
	const struct cache_config config = {.backing = backing, .shards = 1, .segment_bytes = 64 * PAGE};
	struct cache *cache = fake_cache_make(&config);
	struct shard *shard = &cache->shards[0];
	struct cache_stats stats;
	size_t values = 0;

	shard->index.pages_most = 1;
	for (uint64_t key = 0; key < 2000; key++) {
		CHECK_EQ(client_set(cache, key, 1, bytes, true, SET_ALWAYS), DRP_OK);
		CHECK(get(cache, key));
		if (key % 50 == 0)
			check_counts(cache);
	}
	cache_read_stats(cache, &stats);
	CHECK_EQ(stats.entries + stats.evicted, 2000);
	CHECK(stats.evicted > 1000 && stats.dropped == 0);
	for (struct segment *segment = NULL; (segment = arena_next(&shard->arena, segment)) != NULL;)
		values += segment->kind == SEGMENT_ENTRIES ? 0 : segment->live_count;
	CHECK_EQ(values, bytes >= PAGE ? stats.entries : 0);
	check_counts(cache);
	fake_cache_end(cache);
}

/* While an entry is moved the page of the index that names it may be dropped, and begun anew by the round through the index. */
static void the_index_is_lost_as_an_entry_moves(enum prim_backing backing, size_t bytes)
{
	enum { STEPS_MOST = 4000 };
	const struct cache_config config = {.backing = backing, .shards = 1, .segment_bytes = SEGMENT};
	const uint64_t key = 3;
	bool is_over = false;

	for (size_t step = 1; step < STEPS_MOST && !is_over; step++) {
		struct cache *cache = fake_cache_make(&config);
		struct shard *shard = &cache->shards[0];
		struct found found;

		for (uint64_t other = 0; other < 20; other++)
			CHECK_EQ(client_set(cache, other, 1, bytes, true, SET_ALWAYS), DRP_OK);
		CHECK_EQ(cache_settle(cache), DRP_OK);
		pthread_mutex_lock(&shard->lock);
		REQUIRE(shard_find(cache, shard, hash_bytes(cache->secret, &key, sizeof(key)), &key, sizeof(key), &found) < 0);
		arena_seal(&shard->arena, shard->arena.logs[ARENA_MAIN].entries[0]); /* so that it opens another segment, */
		shard->admission.scrub_debt = UINT64_MAX / 2; /* and goes round the index before */
		fake_drop_at_step(step, 0); /* the page of the index is the first that was mapped */
		CHECK(shard_move_entry(cache, shard, ARENA_MAIN, &found, NULL));
		is_over = fake_steps() < step;
		fake_drop_at_step(0, 0);
		shard_unlock(shard);
		check_counts(cache);
		const int status = cache_delete(cache, &key, sizeof(key), 0);
		CHECK(status == DRP_OK || status == DRP_MISS);
		check_counts(cache);
		fake_cache_end(cache);
	}
	CHECK(is_over);
}

/* Keys that a page of the index holds at most, plus the one for which it is split. */
static uint64_t fill_page(struct cache *cache, uint64_t keys)
{
	const struct index *index = &cache->shards[0].index;
	uint64_t key = 0;

	for (; key < keys && index->page_count == 1; key++)
		CHECK_EQ(client_set(cache, key, 1, 0, false, SET_ALWAYS), DRP_OK);
	return key;
}

static void the_index_is_lost_as_a_page_is_split(void)
{
	const struct cache_config config = {.backing = PRIM_DROPPABLE, .shards = 1, .segment_bytes = SEGMENT};
	struct cache *cache = fake_cache_make(&config);
	const uint64_t last = fill_page(cache, PAGE) - 1;
	size_t steps = 1;

	CHECK_EQ(cache->shards[0].index.page_count, 2);
	fake_cache_end(cache);
	for (size_t step = 1; step <= steps; step++) {
		cache = fake_cache_make(&config);
		(void)fill_page(cache, last);
		fake_drop_at_step(step, 0); /* the page of the index is the first that was mapped */
		CHECK_EQ(client_set(cache, last, 1, 0, false, SET_ALWAYS), DRP_OK);
		if (fake_steps() > steps)
			steps = fake_steps();
		fake_drop_at_step(0, 0);
		check_counts(cache);
		fake_cache_end(cache);
	}
	printf("# %zu steps\n", steps);
}

int main(void)
{
	static const enum prim_backing backings[] = {PRIM_LAZYFREE, PRIM_DROPPABLE};

	for (size_t i = 0; i < 2; i++) {
		RUN(an_index_is_lost, backings[i], 100, 20000);
		RUN(an_index_is_lost, backings[i], 2 * PAGE, 1156);
		RUN(entries_are_displaced, backings[i], 100);
		RUN(entries_are_displaced, backings[i], PAGE);
		RUN(entries_are_displaced, backings[i], 20 * PAGE);
		RUN(the_index_is_lost_as_an_entry_moves, backings[i], 100);
		RUN(the_index_is_lost_as_an_entry_moves, backings[i], PAGE + 904);
	}
	RUN(the_index_is_lost_as_a_page_is_split);
	for (unsigned drops = 0; drops < 3; drops++)
		for (uint64_t seed = 1; seed <= 2; seed++) {
			RUN(counts_never_drift, PRIM_LAZYFREE, 0, 0xffffff, drops, seed);
			RUN(counts_never_drift, PRIM_LAZYFREE, 0, 0xff, drops, seed);
			RUN(counts_never_drift, PRIM_DROPPABLE, 0, 0xff, drops, seed);
			RUN(counts_never_drift, PRIM_LAZYFREE, 64 * PAGE, 0xff, drops, seed);
			RUN(counts_never_drift, PRIM_DROPPABLE, 64 * PAGE, 0x3f, drops, seed);
		}
	return check_done();
}
