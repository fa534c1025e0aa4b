/*
 * test_many.c - many look-ups at once give what one after the other would, on prim_fake: values of each layout, what is absent,
 * expired or dropped, drops at each step, and counts.
 */
#include "cache/many.h"

#include "cache/cache.h"
#include "cache_client.h"
#include "store/internal.h"
#include "cache_on_fake.h"
#include "check.h"
#include "check_counts.h"
#include "os/hash.h"
#include "prim_fake.h"

enum { PAGE = 4096, SEGMENT = 64 * PAGE, KEYS = 40 };

static struct client_sink sinks[MANY_KEYS_MOST];

static size_t bytes_of(uint64_t key)
{
	static const size_t sizes[] = {0, 100, 100, 100, 700, 6000, 2 * PAGE, 20 * PAGE, 17000, 17000};
	return sizes[key % 10];
}

static struct cache *make(enum prim_backing backing, unsigned shards)
{
	const struct cache_config config = {.backing = backing, .shards = shards, .segment_bytes = SEGMENT};
	struct cache *cache = fake_cache_make(&config);

	for (uint64_t key = 0; key < KEYS; key++)
		if (key % 4 != 3) /* the others are absent */
			CHECK_EQ(client_set(cache, key, 1 + key, bytes_of(key), false, SET_ALWAYS), DRP_OK);
	CHECK_EQ(cache_settle(cache), DRP_OK);
	return cache;
}

static void check_value(const struct client_sink *sink, uint64_t key)
{
	unsigned char *expected = malloc(bytes_of(key) + 1);
	uint64_t meta[2];

	client_fill(expected, key, 1 + key, bytes_of(key));
	memcpy(meta, sink->meta, sizeof(meta));
	CHECK(sink->meta_bytes == sizeof(meta) && meta[0] == 1 + key && sink->bytes == bytes_of(key) && sink->kind == (key & 7));
	CHECK(sink->bytes == 0 || memcmp(sink->value, expected, sink->bytes) == 0);
	free(expected);
}

/* All keys, in any order, some of them twice. Returns how many were found. */
static size_t look_up(struct cache *cache, size_t count, bool may_miss, int missing)
{
	struct cache_wanted wanted[MANY_KEYS_MOST];
	uint64_t keys[MANY_KEYS_MOST];
	size_t found = 0;

	for (size_t i = 0; i < count; i++) {
		keys[i] = i * 7 % KEYS;
		sinks[i].base = (struct cache_sink){.reserve = client_reserve};
		wanted[i] = (struct cache_wanted){.key = &keys[i], .key_bytes = sizeof(keys[i]), .sink = &sinks[i].base};
	}
	cache_get_many(cache, wanted, count);
	for (size_t i = 0; i < count; i++) {
		const bool is_set = keys[i] % 4 != 3;
		if (wanted[i].status == WANTED_ALONE) {
			struct cache_pin pin;
			CHECK(may_miss || bytes_of(keys[i]) == 2 * PAGE || bytes_of(keys[i]) == 20 * PAGE);
			wanted[i].status = cache_get(cache, &keys[i], sizeof(keys[i]), GET_COPY, &sinks[i].base, &pin, NULL);
		}
		if (wanted[i].status == DRP_OK) {
			CHECK(is_set);
			check_value(&sinks[i], keys[i]);
			found++;
		} else {
			CHECK_EQ(wanted[i].status, missing);
			CHECK(may_miss || !is_set);
		}
	}
	return found;
}

static void gives_what_is_there(enum prim_backing backing, unsigned shards)
{
	struct cache *cache = make(backing, shards);
	struct cache_stats stats;
	size_t asked = 0, found = 0;

	for (size_t count = 0; count <= MANY_KEYS_MOST; count++) {
		asked += count;
		found += look_up(cache, count, false, DRP_MISS);
	}
	cache_read_stats(cache, &stats);
	CHECK_EQ(stats.hits, found);
	CHECK_EQ(stats.misses[MISS_ABSENT], asked - found);
	check_counts(cache);
	for (size_t page = 0; page < fake_pages(); page++)
		if (fake_page_in_use(page))
			fake_drop(page);
	(void)look_up(cache, KEYS, true, DRP_MISS);
	check_counts(cache);
	cache_close(cache);
	CHECK_EQ(look_up(cache, KEYS, true, DRP_CLOSED), 0);
	fake_cache_end(cache);
}

static void drops_at_each_step(enum prim_backing backing)
{
	size_t steps = 1;

	for (size_t step = 1; step <= steps; step++) {
		if (step % 4 != 0 && !check_makes(step)) /* the fourth part always, for it tells how many steps there are */
			continue;
		struct cache *cache = make(backing, 1);
		struct cache_stats stats;
		fake_drop_at_step(step, step / 4 % 2 ? FAKE_EVERY_PAGE : step % fake_pages());
		const size_t found = look_up(cache, KEYS, true, DRP_MISS);
		if (fake_steps() > steps)
			steps = fake_steps();
		fake_drop_at_step(0, 0);
		cache_read_stats(cache, &stats);
		CHECK_EQ(stats.hits, found);
		CHECK_EQ(stats.hits + stats.misses[MISS_ABSENT] + stats.misses[MISS_DROPPED], KEYS);
		check_counts(cache);
		fake_cache_end(cache);
	}
	printf("# %zu steps\n", steps);
}

static void what_expired_is_not_there(void)
{
	struct cache *cache = make(PRIM_LAZYFREE, 2);
	const struct drp_part none = {NULL, 0};
	const struct cache_item item = {.parts = &none, .part_count = 1, .ttl_ns = 1000};
	struct cache_stats stats;

	for (uint64_t key = 0; key < KEYS; key++)
		CHECK_EQ(cache_set(cache, &key, sizeof(key), &item, SET_ALWAYS), DRP_OK);
	cache_advance_clock(cache, UINT64_C(3600000000000));
	CHECK_EQ(look_up(cache, KEYS, true, DRP_MISS), 0);
	cache_read_stats(cache, &stats);
	CHECK_EQ(stats.misses[MISS_EXPIRED], KEYS);
	CHECK_EQ(stats.expired, KEYS);
	fake_cache_end(cache);
}

/* Keys of each length that differ in one byte, wherever that is; with a time to live and a version or without. */
static void keys_of_each_length(void)
{
	enum { LONGEST = 20 };
	struct cache *cache = make(PRIM_LAZYFREE, 2);
	unsigned char keys[MANY_KEYS_MOST][LONGEST];
	struct cache_wanted wanted[MANY_KEYS_MOST];
	struct cache_stats stats;
	size_t found = 0, saved_ns = 0;

	for (size_t length = 1; length <= LONGEST; length++) {
		size_t count = 0;
		for (size_t at = 0; at < length; at++, count += 2) {
			memset(keys[count], 'k', length);
			keys[count][at] = (unsigned char)(1 + at);
			memcpy(keys[count + 1], keys[count], length);
			keys[count + 1][at] = (unsigned char)(101 + at); /* is not stored */
			const uint64_t value = length * 100 + at;
			const struct drp_part part = {&value, sizeof(value)};
			const struct cache_item item = {.parts = &part, .part_count = 1, .meta = "meta", .meta_bytes = at % 5,
							.ttl_ns = at % 3 ? 1000000000 : 0, .cost_ns = at % 4 ? 7 : 0,
							.versioned = at % 2};
			CHECK_EQ(cache_set(cache, keys[count], length, &item, SET_ALWAYS), DRP_OK);
		}
		for (size_t i = 0; i < count; i++) {
			sinks[i].base = (struct cache_sink){.reserve = client_reserve};
			wanted[i] = (struct cache_wanted){.key = keys[i], .key_bytes = length, .sink = &sinks[i].base};
		}
		cache_get_many(cache, wanted, count);
		for (size_t i = 0; i < count; i++) {
			const uint64_t value = length * 100 + i / 2;
			CHECK_EQ(wanted[i].status, i % 2 ? DRP_MISS : DRP_OK);
			CHECK(i % 2 || (sinks[i].bytes == sizeof(value) && memcmp(sinks[i].value, &value, sizeof(value)) == 0));
			CHECK(i % 2 || sinks[i].meta_bytes == i / 2 % 5);
			found += i % 2 == 0;
			saved_ns += i % 2 == 0 && i / 2 % 4 ? 7 : 0;
		}
	}
	cache_read_stats(cache, &stats);
	CHECK_EQ(stats.hits, found);
	CHECK_EQ(stats.saved_ns, saved_ns);
	CHECK_EQ(stats.misses[MISS_ABSENT], found);
	check_counts(cache);
	fake_cache_end(cache);
}

/* So many that a search often meets entries of other keys with the same bits of the hash; all keys begin alike. */
static void absent_keys_are_not_found(void)
{
	enum { STORED = 40000, LENGTH = 12 };
	struct cache *cache = make(PRIM_LAZYFREE, 1);
	struct cache_wanted wanted[MANY_KEYS_MOST];
	unsigned char keys[MANY_KEYS_MOST][LENGTH];

	for (uint32_t i = 0; i < 2 * STORED; i++) {
		const size_t at = i % MANY_KEYS_MOST;
		memset(keys[at], 'k', LENGTH);
		memcpy(keys[at] + LENGTH - sizeof(i), &i, sizeof(i));
		if (i < STORED) {
			const struct drp_part part = {&i, sizeof(i)};
			const struct cache_item item = {.parts = &part, .part_count = 1};
			CHECK_EQ(cache_set(cache, keys[at], LENGTH, &item, SET_ALWAYS), DRP_OK);
			continue;
		}
		sinks[at].base = (struct cache_sink){.reserve = client_reserve};
		wanted[at] = (struct cache_wanted){.key = keys[at], .key_bytes = LENGTH, .sink = &sinks[at].base};
		if (at + 1 < MANY_KEYS_MOST)
			continue;
		cache_get_many(cache, wanted, MANY_KEYS_MOST);
		for (size_t k = 0; k < MANY_KEYS_MOST; k++)
			CHECK_EQ(wanted[k].status, DRP_MISS);
	}
	fake_cache_end(cache);
}

/* What was looked up many at a time is marked as used, as what was looked up alone is. */
static void a_look_up_notes_the_use(void)
{
	const struct cache_config config = {.backing = PRIM_LAZYFREE, .shards = 1, .segment_bytes = SEGMENT,
					    .max_bytes = UINT64_C(1) << 30};
	struct cache *cache = fake_cache_make(&config);
	struct shard *shard = &cache->shards[0];
	struct index_cursor cursor;
	const uint64_t key = 0;

	CHECK_EQ(client_set(cache, key, 1, 0, false, SET_ALWAYS), DRP_OK);
	const uint64_t hash = hash_bytes(cache->secret, &key, sizeof(key));
	index_find(&shard->index, hash, &cursor);
	CHECK(index_next(&shard->index, &cursor) && !index_is_hot(&cursor));
	struct segment *segment = arena_segment(&shard->arena, arena_place_number(cursor.place));
	const size_t page = arena_place_offset(cursor.place) / PAGE;
	segment->pages[0].referenced = 0;
	CHECK_EQ(look_up(cache, 1, false, DRP_MISS), 1);
	CHECK(index_is_hot(&cursor) && segment_is_referenced(segment, page));
	fake_cache_end(cache);
}

int main(void)
{
	for (int backing = PRIM_LAZYFREE; backing <= PRIM_DROPPABLE; backing++) {
		for (unsigned shards = 1; shards <= 64; shards *= 2)
			RUN(gives_what_is_there, backing, shards);
		RUN(drops_at_each_step, backing);
	}
	RUN(what_expired_is_not_there);
	RUN(keys_of_each_length);
	RUN(absent_keys_are_not_found);
	RUN(a_look_up_notes_the_use);
	for (size_t i = 0; i < MANY_KEYS_MOST; i++)
		free(sinks[i].value);
	return check_done();
}
