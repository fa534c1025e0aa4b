/*
 * test_bounds.c - what a cache takes is bounded, on prim_fake: after clear() it is as small as a new one, nothing large is
 * given back while a lock is held, what expired leaves without being asked for, and max_bytes bounds
 * what is resident, dead or alive.
 */
#include "cache/cache.h"

#include "cache_client.h"
#include "store/internal.h"
#include "cache_on_fake.h"
#include "check.h"
#include "prim_fake.h"
#include "set_and_get.h"

enum { PAGE = 4096, SEGMENT = 64 * PAGE };

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

static void set_for(struct cache *cache, uint64_t key, size_t bytes, uint64_t ttl_ns)
{
	unsigned char *value = malloc(bytes + 1);

	client_fill(value, key, 1, bytes);
	const struct drp_part part = {value, bytes};
	const uint64_t meta[] = {1, bytes};
	const struct cache_item item = {.parts = &part, .part_count = 1, .meta = meta, .meta_bytes = sizeof(meta),
					.kind = (uint8_t)(key & 7), .ttl_ns = ttl_ns};
	CHECK_EQ(cache_set(cache, &key, sizeof(key), &item, SET_ALWAYS), DRP_OK);
	free(value);
}

static struct cache_stats stats_of(struct cache *cache)
{
	struct cache_stats stats;

	cache_read_stats(cache, &stats);
	return stats;
}

#define SECOND UINT64_C(1000000000)

/* None has a page of zeros, which the fake takes for one that was dropped; the last is too large to share a segment. */
static const size_t sizes[] = {8, 900, 3000, PAGE, 3 * PAGE, 9000, 5 * PAGE};
enum { SIZES = sizeof(sizes) / sizeof(sizes[0]), EACH = 60, SMALL_SEGMENT = 16 * PAGE };

static struct cache *make_of_small_segments(enum prim_backing backing)
{
	const struct cache_config config = {.backing = backing, .shards = 1, .segment_bytes = SMALL_SEGMENT};
	return fake_cache_make(&config);
}

/* Pages of what lies in the log, not of the index. */
static void drop_some(struct cache *cache, unsigned one_in)
{
	unsigned count = 0;

	for (struct segment *segment = NULL; (segment = arena_next(&cache->shards[0].arena, segment)) != NULL;)
		for (size_t offset = 0; offset < segment->used; offset += PAGE)
			if (++count % one_in == 0)
				fake_drop_at(segment->base + offset);
}

/* Of every size some that expire and some that do not: those that expired are counted, and their memory goes. */
static void what_expired_leaves(enum prim_backing backing, uint64_t ttl_ns)
{
	struct cache *cache = make_of_small_segments(backing);
	uint64_t key = 0, lasting_bytes = 0;

	for (int i = 0; i < EACH; i++)
		for (int size = 0; size < SIZES; size++)
			set(cache, key++, sizes[size]);
	lasting_bytes = stats_of(cache).bytes;
	const uint64_t mapped_bytes = stats_of(cache).mapped_bytes, lasting = key;
	for (int i = 0; i < EACH; i++)
		for (int size = 0; size < SIZES; size++)
			set_for(cache, key++, sizes[size], ttl_ns);
	CHECK_EQ(stats_of(cache).entries, 2 * lasting);
	cache_advance_clock(cache, ttl_ns + SECOND);
	const struct cache_stats stats = stats_of(cache);
	CHECK_EQ(stats.entries, lasting);
	CHECK_EQ(stats.expired, lasting);
	CHECK_EQ(stats.bytes, lasting_bytes);
	CHECK_EQ(stats.evicted + stats.dropped, 0);
	/* What is kept to be written again is little beside it. */
	CHECK(stats.mapped_bytes <= mapped_bytes + mapped_bytes / 3 + 20 * SMALL_SEGMENT);
	for (uint64_t k = 0; k < key; k++)
		CHECK_EQ(get(cache, k), k < lasting);
	fake_cache_end(cache);
}

/* Entries of one head expire one by one while others come: each is counted within a second or two. */
static void slow_heads_are_gone_through(void)
{
	struct cache *cache = make(PRIM_LAZYFREE);
	enum { TTL = 10, SECONDS = 200 };

	for (uint64_t second = 0; second < SECONDS; second++) {
		set_for(cache, second, second % 3 == 0 ? PAGE : 100, TTL * SECOND);
		cache_advance_clock(cache, SECOND);
		const struct cache_stats stats = stats_of(cache);
		CHECK(stats.entries <= TTL + 3);
		CHECK_EQ(stats.entries + stats.expired, second + 1);
	}
	fake_cache_end(cache);
}

/* A pinned value outlives its time. */
static void a_pin_outlives_expiry(void)
{
	for (size_t bytes = PAGE; bytes <= 2 * SEGMENT; bytes *= 2) {
		struct cache *cache = make(PRIM_LAZYFREE);
		unsigned char *expected = malloc(bytes);
		struct cache_pin pin;
		uint64_t key = 7;

		client_fill(expected, key, 1, bytes);
		set_for(cache, key, bytes, SECOND);
		sink.base.reserve = client_reserve;
		REQUIRE(cache_get(cache, &key, sizeof(key), GET_PIN, &sink.base, &pin, NULL) == DRP_OK && pin.cache);
		cache_advance_clock(cache, 2 * SECOND);
		CHECK_EQ(stats_of(cache).expired, 1);
		CHECK_EQ(stats_of(cache).entries, 0);
		fake_drop(FAKE_EVERY_PAGE);
		for (uint64_t other = 100; other < 140; other++)
			set(cache, other, bytes);
		CHECK_EQ(memcmp(pin.value, expected, bytes), 0);
		cache_unpin(&pin);
		free(expected);
		fake_cache_end(cache);
	}
}

static int take_nothing(void *context, const void *key, size_t key_bytes)
{
	(void)context;
	(void)key;
	(void)key_bytes;
	return 0;
}

/* Whatever a cache is asked for, in whatever shard, what expired anywhere leaves. */
static void any_call_lets_it_go(int call)
{
	const struct cache_config config = {.shards = 4, .segment_bytes = SEGMENT};
	struct cache *cache = fake_cache_make(&config);
	uint64_t lasting = 1000000, cursor = 0, version, left = 0;
	bool wrong;

	set(cache, lasting, 8);
	for (uint64_t key = 0; key < 1000; key++)
		set_for(cache, key, 8, SECOND);
	for (int seconds = 0; seconds < 5; seconds++) {
		cache_advance_clock(cache, SECOND);
		switch (call) {
		case 0:
			CHECK_EQ(client_get(cache, &sink, lasting, GET_COPY, &version, &wrong), DRP_OK);
			break;
		case 1:
			CHECK_EQ(client_get(cache, &sink, lasting + 1, GET_COPY, &version, &wrong), DRP_MISS);
			break;
		case 2:
			set(cache, lasting, 8);
			break;
		case 3:
			CHECK_EQ(cache_contains(cache, &lasting, sizeof(lasting)), 1);
			break;
		case 4:
			cursor = lasting + 2;
			CHECK_EQ(cache_delete(cache, &cursor, sizeof(cursor), 0), DRP_MISS);
			break;
		case 5:
			cursor = 0;
			CHECK_EQ(cache_walk(cache, &cursor, take_nothing, NULL), DRP_OK);
			break;
		}
	}
	for (unsigned i = 0; i < cache->shard_count; i++)
		left += shard_entries(&cache->shards[i]);
	CHECK_EQ(left, 1);
	fake_cache_end(cache);
}

/* The kernel takes what it likes meanwhile: each entry is counted once. */
static void expired_and_dropped_add_up(enum prim_backing backing)
{
	for (unsigned round = 0; round < 20; round++) {
		struct cache *cache = make_of_small_segments(backing);
		uint64_t key = 0;

		for (int i = 0; i < EACH; i++)
			for (int size = 0; size < SIZES; size++, key++)
				set_for(cache, key, sizes[size], (1 + key % 5) * SECOND);
		CHECK_EQ(cache_settle(cache), DRP_OK);
		drop_some(cache, 3 + round);
		cache_advance_clock(cache, 3 * SECOND);
		struct cache_stats stats = stats_of(cache);
		CHECK(stats.expired > 0);
		CHECK_EQ(stats.entries + stats.expired + stats.dropped, key);
		for (uint64_t k = 0; k < key; k++)
			(void)get(cache, k);
		cache_advance_clock(cache, 10 * SECOND);
		stats = stats_of(cache);
		CHECK_EQ(stats.expired + stats.dropped, key);
		CHECK_EQ(stats.entries, 0);
		fake_cache_end(cache);
	}
}

enum { MAX_BYTES = 2 << 20 };

static size_t resident_bytes(void)
{
	size_t pages = 0;

	for (size_t i = 0; i < fake_pages(); i++)
		pages += fake_page_in_use(i);
	return pages * PAGE;
}

/* What docs/cache.md tells of max_bytes. */
static bool is_within_bound(size_t max_bytes)
{
	const size_t share = max_bytes / 8 > 16 * PAGE ? max_bytes / 8 : 16 * PAGE;
	return resident_bytes() <= max_bytes + share + max_bytes / 16 + 8 * PAGE;
}

/* A few keys are replaced again and again, others are deleted, expire, or stay: the memory is bounded, and what stays does. */
static void dead_bytes_count(enum prim_backing backing, size_t bytes, size_t varies, size_t max_bytes)
{
	const struct cache_config config = {.backing = backing, .max_bytes = max_bytes};
	struct cache *cache = fake_cache_make(&config);
	const uint64_t often = max_bytes / 16 / (bytes + varies) + 1, many = 12 * max_bytes / bytes;
	uint64_t lasting = 0;

	for (uint64_t i = 0; i < many; i++) {
		const size_t size = bytes + (varies ? i * 7919 % varies : 0);
		set(cache, i % often, size);
		const uint64_t brief = 1000000 + i;
		set_for(cache, brief, size, SECOND);
		if (i % 3 == 0)
			CHECK_EQ(cache_delete(cache, &brief, sizeof(brief), 0), DRP_OK);
		if (i % 96 == 0)
			set(cache, 2000000 + lasting++, bytes);
		if (i % (often / 2 + 1) == 0)
			cache_advance_clock(cache, SECOND + 1);
		if (i % (many / 12) == 0)
			CHECK(is_within_bound(max_bytes));
	}
	CHECK(is_within_bound(max_bytes));
	CHECK_EQ(stats_of(cache).evicted, 0);
	for (uint64_t i = 0; i < lasting; i++)
		CHECK(get(cache, 2000000 + i));
	fake_cache_end(cache);
}

/* More lives than there may be: the bound is kept, and not much is left unused. */
static void what_is_too_much_leaves(size_t bytes, size_t max_bytes)
{
	const struct cache_config config = {.max_bytes = max_bytes};
	struct cache *cache = fake_cache_make(&config);
	const uint64_t many = 4 * max_bytes / bytes;

	for (uint64_t i = 0; i < many; i++) {
		set(cache, i, bytes);
		(void)get(cache, i * 7919 % (i + 1));
		if (i % (many / 10 + 1) == 0)
			CHECK(is_within_bound(max_bytes));
	}
	CHECK(is_within_bound(max_bytes));
	const struct cache_stats stats = stats_of(cache);
	CHECK(stats.evicted > 0);
	CHECK(stats.bytes > max_bytes * 7 / 10);
	CHECK_EQ(stats.entries + stats.evicted, many);
	fake_cache_end(cache);
}

/* Small values first, then large ones: what the index and the log of small ones took is free again. */
static void sizes_may_change(void)
{
	const struct cache_config config = {.max_bytes = MAX_BYTES};
	struct cache *cache = fake_cache_make(&config);

	for (uint64_t round = 0; round < 4; round++) {
		const size_t bytes = round % 2 == 0 ? 16 : 5 * PAGE;
		for (uint64_t i = 0; i < 3 * MAX_BYTES / (bytes + 100); i++)
			set(cache, round << 32 | i, bytes);
		CHECK(is_within_bound(MAX_BYTES));
		CHECK(get(cache, round << 32 | (3 * MAX_BYTES / (bytes + 100) - 1)));
	}
	fake_cache_end(cache);
}

/* What somebody holds of values that left is his, and takes no room from what lives. */
static void pins_of_what_left_do_not_count(size_t bytes)
{
	const struct cache_config config = {.max_bytes = MAX_BYTES};
	struct cache *cache = fake_cache_make(&config);
	enum { HELD = 24 };
	struct cache_pin pins[HELD];

	sink.base.reserve = client_reserve;
	for (uint64_t i = 0; i < HELD; i++) {
		set(cache, i, bytes);
		REQUIRE(cache_get(cache, &i, sizeof(i), GET_PIN, &sink.base, &pins[i], NULL) == DRP_OK && pins[i].cache);
		CHECK_EQ(cache_delete(cache, &i, sizeof(i), 0), DRP_OK);
	}
	for (uint64_t i = 0; i < MAX_BYTES / 2000; i++)
		set(cache, 1000 + i, 1000);
	CHECK_EQ(stats_of(cache).evicted, 0);
	for (uint64_t i = 0; i < HELD; i++)
		cache_unpin(&pins[i]);
	fake_cache_end(cache);
}

/* What the kernel took counts as held until it is found: that ends, so that the cache fills its bound again. */
static void fills_again_after_drops(enum prim_backing backing, size_t bytes)
{
	const struct cache_config config = {.backing = backing, .max_bytes = MAX_BYTES};
	struct cache *cache = fake_cache_make(&config);
	const uint64_t many = 2 * MAX_BYTES / bytes;

	for (uint64_t round = 0; round < 6; round++) {
		for (uint64_t i = 0; i < many; i++)
			set(cache, round << 32 | i, bytes);
		const struct cache_stats stats = stats_of(cache);
		CHECK(stats.bytes > MAX_BYTES * 6 / 10);
		CHECK(stats.entries * bytes > MAX_BYTES / 2);
		CHECK(get(cache, round << 32 | (many - 1)));
		CHECK_EQ(cache_settle(cache), DRP_OK);
		if (round % 2 == 0)
			fake_drop(FAKE_EVERY_PAGE);
		else
			drop_some(cache, 2);
	}
	fake_cache_end(cache);
}

/* One value as large as the bound stays when it is set. */
static void a_value_as_large_as_the_bound(size_t max_bytes)
{
	const struct cache_config config = {.max_bytes = max_bytes};
	struct cache *cache = fake_cache_make(&config);

	for (uint64_t i = 0; i < 20; i++) {
		set(cache, i, max_bytes - 8 * PAGE);
		CHECK(get(cache, i));
		CHECK(is_within_bound(max_bytes));
	}
	fake_cache_end(cache);
}

/* What is left of an index that was large: after most entries left, however they did, it is small again. */
enum leaving { BY_DELETION, BY_EXPIRY };

static void index_shrinks(enum leaving how, enum prim_backing backing)
{
	struct cache *cache = make(backing);
	enum { MANY = 60000, FEW = 500 };
	const struct index *index = &cache->shards[0].index;

	for (uint64_t key = 0; key < MANY; key++) {
		if (how == BY_EXPIRY && key >= FEW)
			set_for(cache, key, 8, (1 + key % 50) * SECOND);
		else
			set(cache, key, 8);
	}
	const size_t large = index_pages(index);
	CHECK(large > 100);
	for (uint64_t key = FEW; key < MANY && how == BY_DELETION; key++)
		CHECK_EQ(cache_delete(cache, &key, sizeof(key), 0), DRP_OK);
	if (how == BY_EXPIRY)
		cache_advance_clock(cache, 100 * SECOND);
	CHECK_EQ(stats_of(cache).entries, FEW);
	if (how == BY_EXPIRY)
		for (uint64_t i = 0; i < 8 * large; i++)
			set(cache, i % FEW, 8); /* as many calls as there are steps */
	CHECK(index_pages(index) <= 10);
	for (uint64_t key = 0; key < FEW; key++)
		CHECK(get(cache, key));
	CHECK_EQ(stats_of(cache).entries, FEW);
	for (uint64_t key = FEW; key < MANY; key++) /* and grows again */
		set(cache, key, 8);
	CHECK_EQ(stats_of(cache).entries, MANY);
	CHECK(index_pages(index) <= large + large / 4);
	for (uint64_t key = 0; key < MANY; key += 7)
		CHECK(get(cache, key));
	fake_cache_end(cache);
}

struct seen {
	unsigned char counts[60000];
};

static int note_seen(void *context, const void *key, size_t key_bytes)
{
	uint64_t number;

	CHECK_EQ(key_bytes, sizeof(number));
	memcpy(&number, key, sizeof(number));
	if (CHECK(number < sizeof(((struct seen *)context)->counts)))
		((struct seen *)context)->counts[number]++;
	return 0;
}

/* While the index shrinks or grows between two steps of a walk, what stays is seen once. */
static void walks_see_what_stays_once(bool shrinks)
{
	struct cache *cache = make(PRIM_LAZYFREE);
	struct seen *seen = calloc(1, sizeof(*seen));
	enum { MANY = sizeof(seen->counts), FEW = 4000 };
	uint64_t cursor = 0, next = FEW;
	size_t steps = 0;
	int status;

	for (uint64_t key = 0; key < (shrinks ? MANY : FEW); key++)
		set(cache, key, 8);
	const size_t before = index_pages(&cache->shards[0].index);
	while ((status = cache_walk(cache, &cursor, note_seen, seen)) == DRP_OK) {
		const uint64_t end = next + (shrinks ? 1500 : 9000);
		for (; next < MANY && next < end; next++) {
			if (shrinks)
				CHECK_EQ(cache_delete(cache, &next, sizeof(next), 0), DRP_OK);
			else
				set(cache, next, 8);
		}
		steps++;
	}
	CHECK_EQ(status, DRP_MISS);
	CHECK(steps > 4);
	const size_t after = index_pages(&cache->shards[0].index);
	CHECK(shrinks ? after < before / 3 : after > before * 3);
	for (uint64_t key = 0; key < FEW; key++)
		CHECK_EQ(seen->counts[key], 1);
	free(seen);
	fake_cache_end(cache);
}

/* Pages of the index are dropped at any step while it shrinks, and calls fail: what is found is right, and goes on to be. */
static void shrinking_bears_drops(enum prim_backing backing)
{
	unsigned merged = 0;

	for (size_t at = 1; at < 4000; at += 37) {
		struct cache *cache = make(backing);
		const struct index *index = &cache->shards[0].index;
		enum { MANY = 3000, FEW = 60 };

		for (uint64_t key = 0; key < MANY; key++)
			set(cache, key, 8);
		for (uint64_t key = FEW; key < MANY; key++)
			if (key % 8 != 0)
				(void)cache_delete(cache, &key, sizeof(key), 0);
		CHECK_EQ(cache_settle(cache), DRP_OK);
		const size_t before = index_pages(index);
		fake_drop_at_step(at, at % fake_pages());
		if (at % 2)
			fake_fail_call(at % 31 + 1);
		for (uint64_t key = FEW; key < MANY; key++)
			(void)cache_delete(cache, &key, sizeof(key), 0);
		fake_drop_at_step(0, 0);
		fake_fail_call(0);
		merged += index_pages(index) < before;
		for (uint64_t key = 0; key < MANY; key++) {
			const bool there = get(cache, key);
			CHECK(!there || key < FEW);
			set(cache, key, 8);
			CHECK(get(cache, key));
		}
		fake_cache_end(cache);
	}
	CHECK(merged > 50);
}

/* What a caller does while much is unmapped: it may use the cache, for no lock is held. */
static struct cache *waited_for;
static size_t begun, ended;

static void *begin_wait(void)
{
	CHECK(!is_locked(waited_for));
	(void)get(waited_for, 1);
	begun++;
	return &begun;
}

static void end_wait(void *given)
{
	CHECK(given == &begun);
	CHECK(!is_locked(waited_for));
	ended++;
}

static void small_sets_that_evict_much_let_others_run(enum prim_backing backing)
{
	static const struct drp_waits waits = {begin_wait, end_wait};
	const struct cache_config config = {.backing = backing, .shards = 1, .segment_bytes = SEGMENT,
					    .max_bytes = 24 << 20, .waits = &waits};
	enum { LARGE = 12, LARGE_BYTES = 3 << 19 }; /* more than are kept to be written again */
	struct cache *cache = waited_for = fake_cache_make(&config);

	begun = ended = 0;
	for (uint64_t key = 0; key < LARGE; key++)
		set(cache, key, LARGE_BYTES);
	CHECK_EQ(begun, 0);
	for (uint64_t key = LARGE; begun == 0 && key < 12000; key++)
		set(cache, key, 4000);
	CHECK(begun > 0);
	CHECK_EQ(ended, begun);
	fake_cache_end(cache);
}

int main(void)
{
	RUN(small_sets_that_evict_much_let_others_run, PRIM_LAZYFREE);
	RUN(small_sets_that_evict_much_let_others_run, PRIM_DROPPABLE);
	RUN(clear_gives_back_without_the_lock, PRIM_LAZYFREE);
	RUN(clear_gives_back_without_the_lock, PRIM_DROPPABLE);
	RUN(close_gives_back_without_the_lock, PRIM_LAZYFREE);
	RUN(close_gives_back_without_the_lock, PRIM_DROPPABLE);
	RUN(clear_leaves_what_is_in_use, );
	RUN(index_begins_anew_after_clear, PRIM_LAZYFREE);
	RUN(index_begins_anew_after_clear, PRIM_DROPPABLE);
	RUN(clear_bears_calls_that_fail, PRIM_LAZYFREE);
	RUN(what_expired_leaves, PRIM_LAZYFREE, SECOND);
	RUN(what_expired_leaves, PRIM_DROPPABLE, SECOND);
	RUN(what_expired_leaves, PRIM_LAZYFREE, 100000 * SECOND);
	RUN(slow_heads_are_gone_through, );
	RUN(a_pin_outlives_expiry, );
	RUN(any_call_lets_it_go, 0);
	RUN(any_call_lets_it_go, 1);
	RUN(any_call_lets_it_go, 2);
	RUN(any_call_lets_it_go, 3);
	RUN(any_call_lets_it_go, 4);
	RUN(any_call_lets_it_go, 5);
	RUN(expired_and_dropped_add_up, PRIM_LAZYFREE);
	RUN(expired_and_dropped_add_up, PRIM_DROPPABLE);
	RUN(dead_bytes_count, PRIM_LAZYFREE, 100, 0, MAX_BYTES);
	RUN(dead_bytes_count, PRIM_LAZYFREE, 1000, 2000, MAX_BYTES);
	RUN(dead_bytes_count, PRIM_LAZYFREE, PAGE, 3 * PAGE, MAX_BYTES);
	RUN(dead_bytes_count, PRIM_LAZYFREE, 4 * PAGE, 12 * PAGE, MAX_BYTES);
	RUN(dead_bytes_count, PRIM_DROPPABLE, 1000, 2000, MAX_BYTES);
	RUN(dead_bytes_count, PRIM_DROPPABLE, PAGE, 3 * PAGE, MAX_BYTES);
	RUN(dead_bytes_count, PRIM_LAZYFREE, 300, 300, 100000);
	RUN(what_is_too_much_leaves, 50, MAX_BYTES);
	RUN(what_is_too_much_leaves, 1000, MAX_BYTES);
	RUN(what_is_too_much_leaves, PAGE, MAX_BYTES);
	RUN(what_is_too_much_leaves, 4 * PAGE, MAX_BYTES);
	RUN(what_is_too_much_leaves, 1000, 100000);
	RUN(sizes_may_change, );
	RUN(pins_of_what_left_do_not_count, 2 * PAGE);
	RUN(pins_of_what_left_do_not_count, 40 * PAGE);
	for (size_t i = 0; i < SIZES; i++) {
		if (sizes[i] >= 900)
			RUN(fills_again_after_drops, PRIM_LAZYFREE, sizes[i]);
		if (sizes[i] >= 900)
			RUN(fills_again_after_drops, PRIM_DROPPABLE, sizes[i]);
	}
	RUN(a_value_as_large_as_the_bound, 100000);
	RUN(a_value_as_large_as_the_bound, MAX_BYTES);
	RUN(index_shrinks, BY_DELETION, PRIM_LAZYFREE);
	RUN(index_shrinks, BY_DELETION, PRIM_DROPPABLE);
	RUN(index_shrinks, BY_EXPIRY, PRIM_LAZYFREE);
	RUN(walks_see_what_stays_once, true);
	RUN(walks_see_what_stays_once, false);
	RUN(shrinking_bears_drops, PRIM_LAZYFREE);
	RUN(shrinking_bears_drops, PRIM_DROPPABLE);
	free(sink.value);
	return check_done();
}
