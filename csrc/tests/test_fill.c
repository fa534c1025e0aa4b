/*
 * test_fill.c - values that the caller writes where they are to lie, on prim_fake: whatever goes or fails on the way, a key gives
 * what was written, or misses, and nothing is left mapped or promised.
 */
#include "cache/fill.h"

#include <sys/wait.h>
#include <unistd.h>

#include "cache/cache.h"
#include "cache_client.h"
#include "store/internal.h"
#include "cache_on_fake.h"
#include "policy/headroom.h"
#include "check.h"
#include "check_counts.h"
#include "lease_client.h"
#include "prim_fake.h"

enum { PAGE = 4096, SEGMENT = 32 * PAGE, KEY = 17, SIZES = 6 };

/* nothing; in a log; a page; some pages; not whole ones, and with zeros in them; alone */
static const size_t sizes[SIZES] = {0, 300, PAGE, 3 * PAGE, 7 * PAGE - 9, 20 * PAGE};

static struct cache *make(enum prim_backing backing, bool share)
{
	const struct cache_config config = {.backing = backing, .shards = 1, .segment_bytes = SEGMENT, .share_on_fork = share};
	return fake_cache_make(&config);
}

static int begin(struct cache *cache, uint64_t key, size_t bytes, struct cache_fill *fill)
{
	const struct cache_item item = {.meta_bytes = 2 * sizeof(uint64_t), .own_pages = bytes >= PAGE};

	return cache_set_begin(cache, &key, sizeof(key), &item, bytes, fill);
}

static int commit(struct cache_fill *fill, uint64_t key, uint64_t version, struct cache_update *update)
{
	const uint64_t meta[] = {version, fill->value_bytes};
	const struct cache_item item = {.meta = meta, .meta_bytes = sizeof(meta), .kind = (uint8_t)(key & 7), .versioned = true};

	return cache_set_commit(fill, &key, sizeof(key), &item, update);
}

/* As it comes in: by pieces, in their order. */
static void write_value(const struct cache_fill *fill, uint64_t key, uint64_t version)
{
	unsigned char *whole = malloc(fill->value_bytes + 1);

	client_fill(whole, key, version, fill->value_bytes);
	for (size_t at = 0, piece; at < fill->value_bytes; at += piece) {
		piece = fill->value_bytes - at < 1000 ? fill->value_bytes - at : 1000;
		memcpy((char *)fill->value + at, whole + at, piece);
		prim_step();
	}
	free(whole);
}

static int store(struct cache *cache, uint64_t key, uint64_t version, size_t bytes)
{
	struct cache_update update = {.mode = SET_ALWAYS};
	struct cache_fill fill;

	int status = begin(cache, key, bytes, &fill);
	if (status != DRP_OK)
		return status;
	write_value(&fill, key, version);
	return commit(&fill, key, version, &update);
}

static void nothing_is_promised(struct cache *cache, uint64_t room_bytes)
{
	fake_headroom(100 << 20, (100 << 20) - room_bytes, 0);
	atomic_store(&cache->room_until_ns, 0);
	CHECK(cache_has_headroom(cache, &cache->shards[0], room_bytes - (3 << 20), 0));
	fake_headroom(UINT64_MAX, 0, 0);
	atomic_store(&cache->room_until_ns, 0);
}

static void stores_and_aborts(enum prim_backing backing, size_t bytes)
{
	struct cache *cache = make(backing, false);
	struct cache_update absent = {.mode = SET_IF_ABSENT};
	struct cache_fill fill, other;

	for (uint64_t version = 1; version < 40; version++) {
		CHECK_EQ(store(cache, KEY, version, bytes), DRP_OK);
		CHECK_EQ(version_of(cache, KEY), version);
		CHECK_EQ(begin(cache, KEY, bytes, &fill), DRP_OK);
		CHECK_EQ(fill.in_place, bytes >= PAGE && backing == PRIM_LAZYFREE);
		CHECK_EQ(version_of(cache, KEY), version); /* until the commit */
		write_value(&fill, KEY, version + 100);
		if (version % 2) {
			cache_set_abort(&fill);
		} else {
			CHECK_EQ(commit(&fill, KEY, version + 100, &absent), DRP_EXISTS);
		}
		cache_set_abort(&fill); /* it has ended */
		CHECK_EQ(commit(&fill, KEY, 1, &absent), DRP_INVALID);
		CHECK_EQ(version_of(cache, KEY), version);
		/* Two at once, for one key. */
		CHECK_EQ(begin(cache, KEY + 1, bytes, &fill), DRP_OK);
		CHECK_EQ(begin(cache, KEY + 1, bytes, &other), DRP_OK);
		CHECK(fill.value != other.value);
		write_value(&other, KEY + 1, version);
		write_value(&fill, KEY + 1, version + 50);
		CHECK_EQ(commit(&fill, KEY + 1, version + 50, &absent), DRP_OK);
		CHECK_EQ(commit(&other, KEY + 1, version, &absent), DRP_EXISTS);
		CHECK_EQ(version_of(cache, KEY + 1), version + 50);
		const uint64_t key = KEY + 1;
		CHECK_EQ(cache_delete(cache, &key, sizeof(key), 0), DRP_OK);
		check_counts(cache);
	}
	nothing_is_promised(cache, 10 << 20);
	fake_cache_end(cache);
}

/* Each page, and all at once, at each step from the begin to the end of the commit. */
static void drops_at_each_step(enum prim_backing backing, size_t bytes)
{
	size_t steps = 1, pages = 1, runs = 0;

	for (size_t step = 1; step <= steps; step++)
		for (size_t page = 0; page <= pages && check_failures() < 10; page++, runs++) {
			if (page > 0 && page < pages && !check_makes(runs)) /* the first tells how many steps and pages there are */
				continue;
			struct cache *cache = make(backing, false);
			CHECK_EQ(store(cache, KEY, 1, bytes), DRP_OK);
			CHECK_EQ(store(cache, KEY, 2, bytes), DRP_OK); /* where places are written again */
			CHECK_EQ(cache_settle(cache), DRP_OK);
			pages = fake_pages();
			fake_drop_at_step(step, page == pages ? FAKE_EVERY_PAGE : page);
			const int status = store(cache, KEY, 3, bytes);
			if (fake_steps() > steps)
				steps = fake_steps();
			fake_drop_at_step(0, 0);
			CHECK(status == DRP_OK || status == DRP_REFUSED);
			const uint64_t version = version_of(cache, KEY);
			CHECK(version == 3 || version == 0);
			check_counts(cache);
			CHECK_EQ(store(cache, KEY, 4, bytes), DRP_OK);
			CHECK_EQ(version_of(cache, KEY), 4);
			fake_cache_end(cache);
		}
}

static void every_call_fails(enum prim_backing backing, size_t bytes)
{
	bool reached = true;

	for (size_t call = 1; reached; call++) {
		struct cache *cache = make(backing, false);
		struct cache_stats stats;
		CHECK_EQ(store(cache, KEY, 1, bytes), DRP_OK);
		fake_fail_call(call);
		const int status = store(cache, KEY + 1, 2, bytes);
		reached = fake_calls() >= call;
		fake_fail_call(0);
		atomic_store(&cache->room_until_ns, 0); /* a get of a large value looks at the limits, too, which could not be read */
		CHECK(status == DRP_OK || status == DRP_REFUSED || status == DRP_NO_MEMORY);
		CHECK_EQ(version_of(cache, KEY + 1), status == DRP_OK ? 2 : 0);
		cache_read_stats(cache, &stats);
		CHECK(version_of(cache, KEY) == 1 || stats.dropped == 1); /* it made way where nothing could be mapped */
		check_counts(cache);
		nothing_is_promised(cache, 10 << 20);
		fake_cache_end(cache);
	}
}

static void refused(enum prim_backing backing, size_t bytes)
{
	struct cache *cache = make(backing, false);
	struct cache_stats stats;
	struct cache_fill fill;

	CHECK_EQ(store(cache, KEY, 1, bytes), DRP_OK);
	fake_headroom(100 << 20, 100 << 20, 0);
	atomic_store(&cache->room_until_ns, 0);
	CHECK_EQ(begin(cache, KEY, bytes, &fill), DRP_REFUSED);
	cache_set_abort(&fill); /* it never was open */
	fake_headroom(UINT64_MAX, 0, 0);
	atomic_store(&cache->room_until_ns, 0);
	CHECK_EQ(version_of(cache, KEY), 1);
	cache_read_stats(cache, &stats);
	CHECK_EQ(stats.refused, 1);
	CHECK_EQ(begin(cache, KEY, SIZE_MAX, &fill), DRP_TOO_LARGE);
	cache_set_abort(&fill);
	nothing_is_promised(cache, 10 << 20);
	/* What is promised to one is not promised to another. */
	fake_headroom(100 << 20, 90 << 20, 0);
	atomic_store(&cache->room_until_ns, 0);
	CHECK_EQ(begin(cache, KEY, 6 << 20, &fill), DRP_OK);
	struct cache_fill second;
	CHECK_EQ(begin(cache, KEY + 1, 6 << 20, &second), DRP_REFUSED);
	cache_set_abort(&fill);
	fake_headroom(UINT64_MAX, 0, 0);
	atomic_store(&cache->room_until_ns, 0);
	nothing_is_promised(cache, 10 << 20);
	check_counts(cache);
	fake_cache_end(cache);
}

/* The cache is cleared, or closed and forgotten, while a value comes in. */
static void cleared_meanwhile(enum prim_backing backing, size_t bytes, bool aborts)
{
	struct cache_update update = {.mode = SET_ALWAYS};
	struct cache *cache = make(backing, false);
	struct cache_fill fill;

	CHECK_EQ(store(cache, KEY, 1, bytes), DRP_OK);
	CHECK_EQ(begin(cache, KEY, bytes, &fill), DRP_OK);
	write_value(&fill, KEY, 2);
	CHECK_EQ(cache_clear(cache), DRP_OK);
	for (uint64_t key = 100; key < 140; key++) /* where it lay before */
		CHECK_EQ(store(cache, key, 1, bytes), DRP_OK);
	if (aborts)
		cache_set_abort(&fill);
	else
		CHECK_EQ(commit(&fill, KEY, 2, &update), DRP_OK);
	const uint64_t version = version_of(cache, KEY);
	CHECK(version == 0 || (version == 2 && !aborts));
	check_counts(cache);
	CHECK_EQ(begin(cache, KEY, bytes, &fill), DRP_OK);
	write_value(&fill, KEY, 3);
	cache_close(cache);
	cache_unref(cache);
	if (aborts)
		cache_set_abort(&fill);
	else
		CHECK_EQ(commit(&fill, KEY, 3, &update), DRP_CLOSED);
	CHECK_EQ(fake_mappings(), 0);
}

static void in_a_child(bool share, size_t bytes, bool aborts)
{
	struct cache_update update = {.mode = SET_ALWAYS};
	struct cache *cache = make(PRIM_LAZYFREE, share);
	struct cache_fill fill;
	int status;

	CHECK_EQ(store(cache, KEY, 1, bytes), DRP_OK);
	CHECK_EQ(begin(cache, KEY, bytes, &fill), DRP_OK);
	write_value(&fill, KEY, 2);
	pid_t child = fork();
	REQUIRE(child >= 0);
	if (child == 0) {
		if (aborts)
			cache_set_abort(&fill);
		else
			CHECK_EQ(commit(&fill, KEY, 2, &update), DRP_STALE);
		CHECK_EQ(version_of(cache, KEY), share ? 1 : 0);
		CHECK_EQ(store(cache, KEY, 3, bytes), DRP_OK);
		CHECK_EQ(version_of(cache, KEY), 3);
		check_counts(cache);
		nothing_is_promised(cache, 10 << 20);
		cache_close(cache);
		cache_unref(cache);
		CHECK_EQ(fake_mappings(), 0);
		_exit(check_failures());
	}
	REQUIRE(waitpid(child, &status, 0) == child);
	CHECK_EQ(status, 0);
	CHECK_EQ(commit(&fill, KEY, 2, &update), DRP_OK);
	CHECK_EQ(version_of(cache, KEY), 2);
	check_counts(cache);
	fake_cache_end(cache);
}

/* An older value of other bytes was there: nothing of it comes back, wherever the new one ends. */
static void shorter_than_before(void)
{
	struct cache *cache = make(PRIM_LAZYFREE, false);

	for (uint64_t version = 1; version < 200; version++) {
		const size_t bytes = 4 * PAGE - version * 9 % PAGE;
		CHECK_EQ(store(cache, version % 5, version, bytes), DRP_OK);
		CHECK_EQ(version_of(cache, version % 5), version);
		if (version % 20 == 0)
			CHECK_EQ(cache_settle(cache), DRP_OK);
		if (version % 10 == 0)
			fake_drop(version % fake_pages());
	}
	check_counts(cache);
	fake_cache_end(cache);
}

int main(void)
{
	for (int backing = PRIM_LAZYFREE; backing <= PRIM_DROPPABLE; backing++)
		for (int size = 0; size < SIZES; size++) {
			RUN(stores_and_aborts, backing, sizes[size]);
			RUN(every_call_fails, backing, sizes[size]);
			RUN(refused, backing, sizes[size]);
			RUN(cleared_meanwhile, backing, sizes[size], false);
			RUN(cleared_meanwhile, backing, sizes[size], true);
			if (sizes[size] < 16 * PAGE)
				RUN(drops_at_each_step, backing, sizes[size]);
		}
	for (int size = 0; size < SIZES; size++)
		for (int share = 0; share < 2; share++) {
			RUN(in_a_child, share, sizes[size], false);
			RUN(in_a_child, share, sizes[size], true);
		}
	RUN(shorter_than_before);
	free(sink.value);
	return check_done();
}
