/*
 * test_update.c - changes that depend on what is there, and new times to live, on prim_fake.
 */
#include "cache/update.h"

#include "cache/cache.h"
#include "cache_client.h"
#include "store/internal.h"
#include "cache_on_fake.h"
#include "check.h"
#include "check_counts.h"
#include "lease_client.h"
#include "prim_fake.h"

enum { PAGE = 4096, SEGMENT = 64 * PAGE, KEY = 17, SIZES = 5 };

static const uint64_t second_ns = UINT64_C(1000000000);
/* in one page; over two; pages among others; the same with zeros in it; alone */
static const size_t sizes[SIZES] = {100, 6000, 2 * PAGE, 7 * PAGE, 20 * PAGE};

static struct cache *make(enum prim_backing backing)
{
	const struct cache_config config = {.backing = backing, .shards = 1, .segment_bytes = SEGMENT};
	return fake_cache_make(&config);
}

struct change { /* beside what struct cache_update has */
	uint64_t version; /* of the value, as the client has it */
	size_t bytes;
	uint64_t ttl_ns;
	bool versioned;
};

static int update(struct cache *cache, uint64_t key, struct change change, struct cache_update *how)
{
	unsigned char *value = malloc(change.bytes + 1);
	const uint64_t meta[] = {change.version, change.bytes};
	const struct drp_part part = {value, change.bytes};
	const struct cache_item item = {.parts = &part, .part_count = 1, .meta = meta, .meta_bytes = sizeof(meta),
					.kind = (uint8_t)(key & 7), .own_pages = change.bytes >= PAGE,
					.ttl_ns = change.ttl_ns, .versioned = change.versioned};

	client_fill(value, key, change.version, change.bytes);
	int status = cache_update(cache, &key, sizeof(key), &item, how);
	free(value);
	return status;
}

static int store(struct cache *cache, uint64_t key, struct change change)
{
	struct cache_update always = {.mode = SET_ALWAYS};
	return update(cache, key, change, &always);
}

static int touch(struct cache *cache, uint64_t key, uint64_t ttl_ns)
{
	return cache_touch(cache, &key, sizeof(key), ttl_ns);
}

static int look(struct cache *cache, uint64_t key, struct cache_about *about)
{
	struct cache_pin pin;

	sink.base.reserve = client_reserve;
	int status = cache_get(cache, &key, sizeof(key), GET_COPY, &sink.base, &pin, about);
	if (status == DRP_OK)
		CHECK_EQ(version_of(cache, key), *(const uint64_t *)sink.meta); /* and its bytes are right */
	return status;
}

static void use_up_memory(struct cache *cache)
{
	fake_headroom(100 << 20, 100 << 20, 0);
	atomic_store(&cache->room_until_ns, 0); /* it is to be read now */
}

static void give_memory_back(struct cache *cache)
{
	fake_headroom(UINT64_MAX, 0, 0);
	atomic_store(&cache->room_until_ns, 0);
}

/* What is counted, but for hits and misses. */
static void check_untouched(struct cache *cache, const struct cache_stats *before)
{
	struct cache_stats now;

	cache_read_stats(cache, &now);
	CHECK_EQ(now.sets, before->sets);
	CHECK_EQ(now.replaced, before->replaced);
	CHECK_EQ(now.deletes, before->deletes);
	CHECK_EQ(now.entries, before->entries);
	CHECK_EQ(now.dropped, before->dropped);
	CHECK_EQ(now.refused, before->refused);
}

/* From one time to live to another: it expires then and not before; 0: never. */
static void expires_as_touched(enum prim_backing backing, size_t bytes, uint64_t from_s, uint64_t to_s)
{
	struct cache *cache = make(backing);
	struct cache_about old, new;
	struct cache_stats before;

	CHECK_EQ(store(cache, KEY, (struct change){1, bytes, from_s * second_ns, true}), DRP_OK);
	CHECK_EQ(store(cache, KEY + 1, (struct change){1, bytes, 0, false}), DRP_OK);
	CHECK_EQ(look(cache, KEY, &old), DRP_OK);
	CHECK_EQ(old.expires_ns != 0, from_s != 0);
	cache_read_stats(cache, &before);
	CHECK_EQ(touch(cache, KEY, to_s * second_ns), DRP_OK);
	check_untouched(cache, &before);
	CHECK_EQ(look(cache, KEY, &new), DRP_OK);
	CHECK_EQ(new.version, old.version);
	CHECK_EQ(new.expires_ns != 0, to_s != 0);
	const uint64_t remaining_ns = cache_remaining_ns(cache, &new);
	CHECK(remaining_ns <= to_s * second_ns && remaining_ns + second_ns > to_s * second_ns);
	CHECK_EQ(cache_settle(cache), DRP_OK);
	check_counts(cache);
	cache_advance_clock(cache, (to_s ? to_s - 1 : 3600) * second_ns);
	CHECK_EQ(look(cache, KEY, &new), DRP_OK);
	CHECK_EQ(touch(cache, KEY, to_s * second_ns), DRP_OK); /* again, from then on */
	cache_advance_clock(cache, (to_s ? to_s - 1 : 3600) * second_ns);
	CHECK_EQ(look(cache, KEY, &new), DRP_OK);
	cache_advance_clock(cache, 2 * second_ns);
	CHECK_EQ(look(cache, KEY, &new), to_s ? DRP_MISS : DRP_OK);
	CHECK_EQ(touch(cache, KEY, second_ns), to_s ? DRP_MISS : DRP_OK);
	CHECK_EQ(look(cache, KEY + 1, &new), DRP_OK);
	check_counts(cache);
	fake_cache_end(cache);
}

static void a_touch_that_misses(enum prim_backing backing, size_t bytes)
{
	struct cache *cache = make(backing);
	struct cache_stats before, after;

	CHECK_EQ(touch(cache, KEY, second_ns), DRP_MISS);
	CHECK_EQ(store(cache, KEY, (struct change){1, bytes, 0, false}), DRP_OK);
	cache_read_stats(cache, &before);
	CHECK_EQ(cache_settle(cache), DRP_OK);
	for (size_t page = 0; page < fake_pages(); page++)
		if (fake_page_in_use(page))
			fake_drop(page);
	CHECK_EQ(touch(cache, KEY, second_ns), DRP_MISS);
	cache_read_stats(cache, &after);
	CHECK_EQ(after.dropped, before.dropped + 1);
	check_counts(cache);
	cache_close(cache);
	CHECK_EQ(touch(cache, KEY, second_ns), DRP_CLOSED);
	fake_cache_end(cache);
}

/* No memory for the new head: the entry stays, and expires as it would have. */
static void a_touch_that_is_refused(enum prim_backing backing, size_t bytes)
{
	struct cache *cache = make(backing);
	struct cache_about old, new;
	struct cache_stats stats;

	CHECK_EQ(store(cache, KEY, (struct change){1, bytes, 10 * second_ns, true}), DRP_OK);
	CHECK_EQ(look(cache, KEY, &old), DRP_OK);
	use_up_memory(cache);
	CHECK_EQ(touch(cache, KEY, 100 * second_ns), DRP_REFUSED);
	CHECK_EQ(touch(cache, KEY, 0), DRP_REFUSED);
	give_memory_back(cache);
	CHECK_EQ(look(cache, KEY, &new), DRP_OK);
	CHECK(new.place == old.place && new.expires_ns == old.expires_ns && new.version == old.version);
	cache_read_stats(cache, &stats);
	CHECK_EQ(stats.refused, 2);
	check_counts(cache);
	fake_cache_end(cache);
}

/* The clock of the fake moves a little with each reading. */
static bool is_about(uint64_t left_ns, uint64_t expected_ns)
{
	return left_ns <= expected_ns && expected_ns - left_ns < second_ns;
}

/* A time of more than there is does not come out as one that is over. */
static void lives_as_long_as_there_is(size_t bytes)
{
	static const uint64_t ttls_ns[] = {INT64_MAX, UINT64_C(1) << 63, UINT64_MAX - 1, UINT64_MAX};
	const uint64_t years_292_ns = INT64_MAX;

	for (size_t i = 0; i < sizeof(ttls_ns) / sizeof(ttls_ns[0]); i++) {
		struct cache *cache = make(PRIM_LAZYFREE);
		struct cache_about about;
		CHECK_EQ(store(cache, KEY, (struct change){1, bytes, ttls_ns[i], false}), DRP_OK);
		CHECK_EQ(look(cache, KEY, &about), DRP_OK);
		CHECK(is_about(cache_remaining_ns(cache, &about), years_292_ns));
		CHECK_EQ(touch(cache, KEY, second_ns), DRP_OK);
		CHECK_EQ(touch(cache, KEY, ttls_ns[i]), DRP_OK);
		cache_advance_clock(cache, 1000000 * second_ns);
		CHECK_EQ(look(cache, KEY, &about), DRP_OK);
		CHECK(is_about(cache_remaining_ns(cache, &about), years_292_ns - 1000000 * second_ns));
		check_counts(cache);
		cache_close(cache);
		cache_unref(cache);
	}
}

/* What was at the places before is dead: it is given back, and the keys that are never touched stay. */
static void touched_for_ever(enum prim_backing backing, uint64_t max_bytes, size_t bytes)
{
	const struct cache_config config = {.backing = backing, .shards = 1, .segment_bytes = 8 * PAGE,
					    .span_bytes = 64 * 8 * PAGE, .max_bytes = max_bytes};
	struct cache *cache = fake_cache_make(&config);
	struct cache_stats before, stats;

	for (uint64_t key = 0; key < 4; key++)
		CHECK_EQ(store(cache, key, (struct change){1, bytes, key % 2 * second_ns, true}), DRP_OK);
	cache_read_stats(cache, &before);
	for (uint64_t i = 0; i < 20000 && check_failures() == 0; i++) {
		CHECK_EQ(touch(cache, i % 2, (1 + i % 100000) * second_ns), DRP_OK);
		if (i % 1000 == 0)
			check_counts(cache);
	}
	check_untouched(cache, &before);
	cache_read_stats(cache, &stats);
	CHECK(stats.mapped_bytes <= config.span_bytes);
	CHECK(stats.evicted == 0);
	for (uint64_t key = 0; key < 4; key++)
		CHECK_EQ(version_of(cache, key), 1);
	check_counts(cache);
	fake_cache_end(cache);
}

/* All address space is used: others make room for what is touched, and what is counted stays right. */
static void touched_where_nothing_can_be_mapped(enum prim_backing backing, size_t bytes)
{
	enum { LEFT_PAGES = 4 };
	const struct cache_config config = {.backing = backing, .shards = 1, .segment_bytes = 8 * PAGE};
	const uint64_t keys = bytes < PAGE ? 2000 : 100; /* some segments */
	struct cache *cache = fake_cache_make(&config);
	struct cache_stats stats;
	size_t touched = 0;

	for (uint64_t key = 0; key < keys; key++)
		CHECK_EQ(store(cache, key, (struct change){1, bytes, 0, true}), DRP_OK);
	CHECK_EQ(cache_settle(cache), DRP_OK);
	fake_space(fake_pages() + LEFT_PAGES);
	for (uint64_t i = 0; i < 4000 && check_failures() == 0; i++) {
		const int status = touch(cache, i % keys, second_ns << i % 20); /* the oldest, which go first; of each life, so that each needs a head */
		CHECK(status == DRP_OK || status == DRP_MISS);
		touched += status == DRP_OK;
		if (i % 50 == 0)
			check_counts(cache);
	}
	for (uint64_t key = 0; key < keys; key++)
		CHECK(version_of(cache, key) <= 1);
	cache_read_stats(cache, &stats);
	CHECK_EQ(stats.sets, keys);
	CHECK(touched > 0 && stats.entries > 0);
	check_counts(cache);
	fake_space(0);
	fake_cache_end(cache);
}

static void leases_hold_over_a_touch(void)
{
	struct cache *cache = make(PRIM_LAZYFREE);
	struct cache_lease lease = {0};
	const uint64_t key = KEY;

	CHECK_EQ(store(cache, KEY, (struct change){1, 100, 0, false}), DRP_OK);
	CHECK_EQ(cache_lease_begin(cache, &key, sizeof(key), &lease), DRP_OK);
	CHECK_EQ(touch(cache, KEY, second_ns), DRP_OK);
	CHECK(!cache_lease_is_stale(&lease));
	struct cache_update strict = {.mode = SET_IF_PRESENT, .lease = &lease, .is_strict = true};
	CHECK_EQ(update(cache, KEY, (struct change){2, 100, 0, false}, &strict), DRP_OK);
	CHECK_EQ(version_of(cache, KEY), 2);
	cache_lease_end(&lease);
	fake_cache_end(cache);
}

/* Each mode, with the key absent, present, and with the versions that it may have. */
static void conditions(enum prim_backing backing, size_t bytes)
{
	struct cache *cache = make(backing);
	struct cache_update absent = {.mode = SET_IF_ABSENT}, present = {.mode = SET_IF_PRESENT}, same = {.mode = SET_IF_SAME};
	struct cache_about about;

	CHECK_EQ(update(cache, KEY, (struct change){1, bytes, 0, true}, &present), DRP_MISS);
	same.version = 1;
	CHECK_EQ(update(cache, KEY, (struct change){1, bytes, 0, true}, &same), DRP_MISS);
	CHECK_EQ(version_of(cache, KEY), 0);
	CHECK_EQ(update(cache, KEY, (struct change){2, bytes, 0, true}, &absent), DRP_OK);
	CHECK(absent.new_version != 0);
	CHECK_EQ(look(cache, KEY, &about), DRP_OK);
	CHECK_EQ(about.version, absent.new_version);
	CHECK_EQ(update(cache, KEY, (struct change){3, bytes, 0, true}, &absent), DRP_EXISTS);
	CHECK_EQ(version_of(cache, KEY), 2);
	CHECK_EQ(update(cache, KEY, (struct change){4, bytes, 0, true}, &present), DRP_OK);
	CHECK_EQ(version_of(cache, KEY), 4);
	same.version = about.version;
	CHECK_EQ(update(cache, KEY, (struct change){5, bytes, 0, true}, &same), DRP_EXISTS);
	CHECK_EQ(version_of(cache, KEY), 4);
	same.version = present.new_version;
	CHECK_EQ(update(cache, KEY, (struct change){6, bytes, 0, true}, &same), DRP_OK);
	CHECK_EQ(version_of(cache, KEY), 6);
	CHECK_EQ(look(cache, KEY, &about), DRP_OK);
	same = (struct cache_update){.mode = SET_IF_SAME, .place = about.place};
	CHECK_EQ(update(cache, KEY, (struct change){7, bytes, 0, false}, &same), DRP_OK);
	CHECK_EQ(same.new_version, 0);
	CHECK_EQ(update(cache, KEY, (struct change){8, bytes, 0, true}, &same), DRP_EXISTS);
	CHECK_EQ(version_of(cache, KEY), 7);
	check_counts(cache);
	/* Without memory what depends on the present entry changes nothing, and says first whether it could have. */
	use_up_memory(cache);
	CHECK_EQ(update(cache, KEY, (struct change){9, bytes, 0, true}, &absent), DRP_EXISTS);
	CHECK_EQ(update(cache, KEY, (struct change){9, bytes, 0, true}, &same), DRP_EXISTS);
	CHECK_EQ(look(cache, KEY, &about), bytes < 16 * PAGE ? DRP_OK : DRP_MISS /* nor for a copy that is large */);
	same.place = 0;
	CHECK_EQ(update(cache, KEY, (struct change){9, bytes, 0, true}, &same), DRP_REFUSED);
	give_memory_back(cache);
	CHECK_EQ(version_of(cache, KEY), 7);
	use_up_memory(cache);
	CHECK_EQ(update(cache, KEY, (struct change){9, bytes, 0, true}, &present), DRP_REFUSED);
	give_memory_back(cache);
	CHECK_EQ(version_of(cache, KEY), 0);
	check_counts(cache);
	cache_close(cache);
	CHECK_EQ(update(cache, KEY, (struct change){9, bytes, 0, true}, &present), DRP_CLOSED);
	fake_cache_end(cache);
}

static void keeps_the_expiry(size_t bytes, uint64_t old_ttl_ns)
{
	struct cache *cache = make(PRIM_LAZYFREE);
	struct cache_update keep = {.mode = SET_ALWAYS, .keep_expiry = true};
	struct cache_about old, new;

	CHECK_EQ(store(cache, KEY, (struct change){1, bytes, old_ttl_ns, false}), DRP_OK);
	CHECK_EQ(look(cache, KEY, &old), DRP_OK);
	for (uint64_t ttl_ns = 0; ttl_ns < 2; ttl_ns++) {
		CHECK_EQ(update(cache, KEY, (struct change){2 + ttl_ns, bytes, ttl_ns * 77 * second_ns, true}, &keep), DRP_OK);
		CHECK_EQ(look(cache, KEY, &new), DRP_OK);
		CHECK_EQ(new.expires_ns, old.expires_ns);
		CHECK_EQ(version_of(cache, KEY), 2 + ttl_ns);
	}
	CHECK_EQ(update(cache, KEY + 1, (struct change){1, bytes, 5 * second_ns, false}, &keep), DRP_OK);
	CHECK_EQ(look(cache, KEY + 1, &new), DRP_OK);
	CHECK(new.expires_ns != 0);
	CHECK_EQ(update(cache, KEY + 2, (struct change){1, bytes, 0, false}, &keep), DRP_OK);
	CHECK_EQ(look(cache, KEY + 2, &new), DRP_OK);
	CHECK_EQ(new.expires_ns, 0);
	check_counts(cache);
	fake_cache_end(cache);
}

static void deletes_that_version(enum prim_backing backing, size_t bytes)
{
	struct cache *cache = make(backing);
	struct cache_lease lease = {0};
	struct cache_about about;
	const uint64_t key = KEY;

	CHECK_EQ(cache_delete_version(cache, &key, sizeof(key), 1), DRP_MISS);
	CHECK_EQ(store(cache, KEY, (struct change){1, bytes, 0, true}), DRP_OK);
	CHECK_EQ(look(cache, KEY, &about), DRP_OK);
	CHECK_EQ(touch(cache, KEY, second_ns), DRP_OK);
	CHECK_EQ(cache_lease_begin(cache, &key, sizeof(key), &lease), DRP_OK);
	CHECK_EQ(cache_delete_version(cache, &key, sizeof(key), about.version + 1), DRP_EXISTS);
	CHECK(!cache_lease_is_stale(&lease));
	CHECK_EQ(version_of(cache, KEY), 1);
	CHECK_EQ(cache_delete_version(cache, &key, sizeof(key), about.version), DRP_OK);
	CHECK(cache_lease_is_stale(&lease));
	CHECK_EQ(version_of(cache, KEY), 0);
	check_counts(cache);
	cache_lease_end(&lease);
	cache_close(cache);
	CHECK_EQ(cache_delete_version(cache, &key, sizeof(key), 1), DRP_CLOSED);
	fake_cache_end(cache);
}

/* Strict stores compare and set; a value that was computed elsewhere and stored under a lease counts as a change, too. */
static void strict_leases(size_t bytes)
{
	enum { NOTHING, SET, DELETE, LEASED, STRICT, TOUCH, EXPIRE, CHANGES };

	for (int change = NOTHING; change < CHANGES; change++) {
		struct cache *cache = make(PRIM_LAZYFREE);
		struct cache_lease mine = {0}, other = {0}, late = {0};
		const uint64_t key = KEY;
		struct cache_update strict = {.mode = SET_IF_PRESENT, .lease = &mine, .is_strict = true, .keep_expiry = true};
		struct cache_update of_other = {.mode = SET_ALWAYS, .lease = &other, .is_strict = change == STRICT};

		CHECK_EQ(store(cache, KEY, (struct change){1, bytes, change == EXPIRE ? second_ns : 0, false}), DRP_OK);
		CHECK_EQ(cache_lease_begin(cache, &key, sizeof(key), &mine), DRP_OK);
		CHECK_EQ(cache_lease_begin(cache, &key, sizeof(key), &other), DRP_OK);
		switch (change) {
		case SET:
			CHECK_EQ(store(cache, KEY, (struct change){2, bytes, 0, false}), DRP_OK);
			break;
		case DELETE:
			CHECK_EQ(cache_delete(cache, &key, sizeof(key), 0), DRP_OK);
			break;
		case LEASED:
		case STRICT:
			CHECK_EQ(update(cache, KEY, (struct change){2, bytes, 0, false}, &of_other), DRP_OK);
			CHECK_EQ(cache_lease_is_stale(&mine), change == STRICT);
			break;
		case TOUCH:
			CHECK_EQ(touch(cache, KEY, 3600 * second_ns), DRP_OK);
			break;
		case EXPIRE:
			cache_advance_clock(cache, 2 * second_ns);
			break;
		}
		const bool holds = change == NOTHING || change == TOUCH;
		const int status = update(cache, KEY, (struct change){9, bytes, 0, false}, &strict);
		CHECK_EQ(status, holds ? DRP_OK : change == EXPIRE ? DRP_MISS : DRP_STALE);
		CHECK_EQ(version_of(cache, KEY), holds ? 9 : change == DELETE || change == EXPIRE ? 0 : change == NOTHING ? 1 : 2);
		CHECK_EQ(cache_lease_is_stale(&other), holds || change == SET || change == DELETE || change == STRICT);
		CHECK_EQ(cache_lease_begin(cache, &key, sizeof(key), &late), DRP_OK);
		CHECK(!cache_lease_is_stale(&late) && !late.is_overtaken);
		cache_lease_end(&late);
		cache_lease_end(&mine);
		cache_lease_end(&other);
		check_counts(cache);
		fake_cache_end(cache);
	}
}

/* A version is given once, over all that can happen; entries that ask for none have none, and not a byte of it. */
static void versions_are_given_once(enum prim_backing backing, uint64_t max_bytes)
{
	enum { KEYS = 40, CALLS = 6000 };
	const struct cache_config config = {.backing = backing, .shards = 2, .segment_bytes = 8 * PAGE,
					    .span_bytes = 64 * 8 * PAGE, .max_bytes = max_bytes};
	struct cache *cache = fake_cache_make(&config);
	uint64_t newest[KEYS] = {0}, last = 0, state = 1;

	for (uint64_t i = 0; i < CALLS && check_failures() == 0; i++) {
		state = state * UINT64_C(6364136223846793005) + 1442695040888963407;
		const uint64_t key = (state >> 33) % KEYS;
		struct cache_update how = {.mode = SET_ALWAYS};
		struct cache_about about = {0};

		switch ((state >> 40) % 8) {
		case 0 ... 2:
			CHECK_EQ(update(cache, key, (struct change){i, sizes[i % SIZES], 0, true}, &how), DRP_OK);
			CHECK(how.new_version > last);
			last = newest[key] = how.new_version;
			break;
		case 3 ... 4:
			(void)touch(cache, key, second_ns * (1 + i % 5000));
			break;
		case 5:
			if (i % 64 == 5)
				CHECK_EQ(cache_clear(cache), DRP_OK);
			break;
		default:
			if (look(cache, key, &about) == DRP_OK)
				CHECK_EQ(about.version, newest[key]);
		}
	}
	check_counts(cache);
	fake_cache_end(cache);
}

static void no_version_no_byte(void)
{
	struct cache *cache = make(PRIM_LAZYFREE);
	struct cache_stats before, with, without;

	cache_read_stats(cache, &before);
	for (uint64_t key = 0; key < 100; key++)
		CHECK_EQ(store(cache, key, (struct change){1, 100, 0, true}), DRP_OK);
	cache_read_stats(cache, &with);
	CHECK_EQ(cache_clear(cache), DRP_OK);
	for (uint64_t key = 0; key < 100; key++)
		CHECK_EQ(store(cache, key, (struct change){1, 100, 0, false}), DRP_OK);
	cache_read_stats(cache, &without);
	CHECK_EQ(with.bytes - without.bytes, 100 * sizeof(uint64_t));
	fake_cache_end(cache);
}

int main(void)
{
	static const uint64_t ttls_s[] = {0, 5, 100, 100000};
	enum { TTLS = sizeof(ttls_s) / sizeof(ttls_s[0]) };

	for (int backing = PRIM_LAZYFREE; backing <= PRIM_DROPPABLE; backing++) {
		for (int size = 0; size < SIZES; size++) {
			for (int from = 0; from < TTLS; from++)
				for (int to = 0; to < TTLS; to++)
					RUN(expires_as_touched, backing, sizes[size], ttls_s[from], ttls_s[to]);
			RUN(a_touch_that_misses, backing, sizes[size]);
			RUN(touched_where_nothing_can_be_mapped, backing, sizes[size]);
			RUN(a_touch_that_is_refused, backing, sizes[size]);
			RUN(conditions, backing, sizes[size]);
			RUN(deletes_that_version, backing, sizes[size]);
		}
		RUN(touched_for_ever, backing, 0, 100);
		RUN(touched_for_ever, backing, 40 * PAGE, 100);
		RUN(touched_for_ever, backing, 40 * PAGE, 3 * PAGE);
		RUN(versions_are_given_once, backing, 0);
		RUN(versions_are_given_once, backing, 64 * PAGE);
	}
	for (int size = 0; size < SIZES; size++) {
		RUN(lives_as_long_as_there_is, sizes[size]);
		RUN(keeps_the_expiry, sizes[size], 0);
		RUN(keeps_the_expiry, sizes[size], 3600 * second_ns);
		RUN(strict_leases, sizes[size]);
	}
	RUN(leases_hold_over_a_touch);
	RUN(no_version_no_byte);
	free(sink.value);
	return check_done();
}
