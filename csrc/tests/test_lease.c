/*
 * test_lease.c - what makes a lease stale and what does not, that a stale one stores nothing, and that no list keeps what
 * ended, on prim_fake.
 */
#include "cache/lease.h"

#include <sys/wait.h>
#include <unistd.h>

#include "cache/cache.h"
#include "cache_client.h"
#include "store/internal.h"
#include "cache_on_fake.h"
#include "check.h"
#include "lease_client.h"
#include "prim_fake.h"

enum { PAGE = 4096, SEGMENT = 64 * PAGE, SMALL = 100, LARGE = 3 * PAGE, KEY = 17, OTHER = 18 };

static struct cache *make(unsigned shards)
{
	const struct cache_config config = {.shards = shards, .segment_bytes = SEGMENT};
	return fake_cache_make(&config);
}

static int begin(struct cache *cache, uint64_t key, struct cache_lease *lease)
{
	return cache_lease_begin(cache, &key, sizeof(key), lease);
}

/* Nothing of it is read, for its length alone says so. */
static int set_too_large(struct cache *cache, uint64_t key)
{
	const struct drp_part part = {&key, SIZE_MAX - PAGE};
	const struct cache_item item = {.parts = &part, .part_count = 1};

	return cache_set(cache, &key, sizeof(key), &item, SET_ALWAYS);
}

static int set(struct cache *cache, uint64_t key, uint64_t version)
{
	return client_set(cache, key, version, SMALL, false, SET_ALWAYS);
}

static void use_up_memory(struct cache *cache)
{
	fake_headroom(100 << 20, 100 << 20, 0);
	atomic_store(&cache->room_until_ns, 0); /* it is to be read now */
}

enum change {
	SET, SET_LARGE, SET_REFUSED, ADD, DELETE_PRESENT, DELETE_ABSENT, DELETE_ELSEWHERE, CLEAR, REVOKE, /* make it stale */
	NOTHING, SET_OTHER, DELETE_OTHER, ADD_PRESENT, SET_TOO_LARGE, SET_BY_LEASE, EXPIRE, DROP, LOOK /* do not */
};

static void change_key(struct cache *cache, enum change change)
{
	const uint64_t key = KEY;
	struct cache_lease lease = {0};

	switch (change) {
	case SET:
		CHECK_EQ(set(cache, KEY, 2), DRP_OK);
		break;
	case SET_LARGE:
		CHECK_EQ(client_set(cache, KEY, 2, LARGE, true, SET_ALWAYS), DRP_OK);
		break;
	case SET_REFUSED:
		use_up_memory(cache);
		CHECK_EQ(client_set(cache, KEY, 2, 1 << 20, true, SET_ALWAYS), DRP_REFUSED);
		break;
	case ADD:
		CHECK_EQ(client_set(cache, KEY, 2, SMALL, false, SET_IF_ABSENT), DRP_OK);
		break;
	case DELETE_PRESENT:
		CHECK_EQ(cache_delete(cache, &key, sizeof(key), 0), DRP_OK);
		break;
	case DELETE_ABSENT:
		CHECK_EQ(cache_delete(cache, &key, sizeof(key), 0), DRP_MISS);
		break;
	case DELETE_ELSEWHERE:
		CHECK_EQ(cache_delete(cache, &key, sizeof(key), 1), DRP_MISS);
		break;
	case CLEAR:
		CHECK_EQ(cache_clear(cache), DRP_OK);
		break;
	case REVOKE:
		CHECK_EQ(cache_revoke(cache, &key, sizeof(key)), DRP_OK);
		break;
	case NOTHING:
		break;
	case SET_OTHER:
		CHECK_EQ(set(cache, OTHER, 2), DRP_OK);
		break;
	case DELETE_OTHER:
		for (uint64_t other = 100; other < 400; other++) /* in each bucket, and each shard */
			CHECK_EQ(cache_delete(cache, &other, sizeof(other), 0), DRP_MISS);
		break;
	case ADD_PRESENT:
		CHECK_EQ(client_set(cache, KEY, 2, SMALL, false, SET_IF_ABSENT), DRP_EXISTS);
		break;
	case SET_TOO_LARGE:
		CHECK_EQ(set_too_large(cache, KEY), DRP_TOO_LARGE);
		break;
	case SET_BY_LEASE:
		CHECK_EQ(begin(cache, KEY, &lease), DRP_OK);
		CHECK_EQ(set_leased(cache, KEY, 3, SMALL, &lease), DRP_OK);
		cache_lease_end(&lease);
		break;
	case EXPIRE:
		cache_advance_clock(cache, UINT64_C(3600000000000));
		CHECK_EQ(version_of(cache, KEY), 0);
		break;
	case DROP:
		cache_settle(cache);
		for (size_t page = 0; page < fake_pages(); page++)
			if (fake_page_in_use(page))
				fake_drop(page);
		CHECK_EQ(version_of(cache, KEY), 0);
		break;
	case LOOK:
		CHECK_EQ(version_of(cache, KEY), 1);
		CHECK_EQ(cache_contains(cache, &key, sizeof(key)), 1);
		break;
	}
}

/* A value of an earlier time is there if was_there; then a lease, the change, and a store under the lease. */
static void changed_meanwhile(unsigned shards, bool was_there, enum change change, size_t bytes, bool is_stale)
{
	struct cache *cache = make(shards);
	struct cache_lease lease = {0};

	if (was_there) {
		const struct drp_part none = {NULL, 0};
		const uint64_t key = KEY, meta[] = {1, 0};
		const struct cache_item item = {.parts = &none, .part_count = 1, .meta = meta, .meta_bytes = sizeof(meta),
						.kind = KEY & 7, .ttl_ns = change == EXPIRE ? 1000 : 0};
		CHECK_EQ(cache_set(cache, &key, sizeof(key), &item, SET_ALWAYS), DRP_OK);
	}
	CHECK_EQ(begin(cache, KEY, &lease), DRP_OK);
	CHECK_EQ(open_leases(cache), 1);
	change_key(cache, change);
	CHECK_EQ(cache_lease_is_stale(&lease), is_stale);
	const uint64_t before = version_of(cache, KEY);
	if (change == SET_REFUSED)
		fake_headroom(UINT64_MAX, 0, 0);
	CHECK_EQ(set_leased(cache, KEY, 9, bytes, &lease), is_stale ? DRP_STALE : DRP_OK);
	CHECK_EQ(version_of(cache, KEY), is_stale ? before : 9);
	cache_lease_end(&lease);
	CHECK_EQ(cache_lease_is_stale(&lease), is_stale);
	cache_lease_end(&lease);
	CHECK_EQ(open_leases(cache), 0);
	fake_cache_end(cache);
}

/* A stale lease that would be refused, too: what somebody else stored stays. */
static void stale_before_refused(void)
{
	struct cache *cache = make(1);
	struct cache_lease lease = {0};

	CHECK_EQ(begin(cache, KEY, &lease), DRP_OK);
	CHECK_EQ(set(cache, KEY, 2), DRP_OK);
	use_up_memory(cache);
	CHECK_EQ(set_leased(cache, KEY, 9, 1 << 20, &lease), DRP_STALE);
	fake_headroom(UINT64_MAX, 0, 0);
	CHECK_EQ(version_of(cache, KEY), 2);
	cache_lease_end(&lease);
	fake_cache_end(cache);
}

/* Many at once, ended in an order of their own: those of other keys stay fresh, and the lists whole. */
static void many(unsigned shards)
{
	enum { COUNT = 1000 };
	static struct cache_lease leases[2 * COUNT];
	struct cache *cache = make(shards);

	for (uint64_t i = 0; i < 2 * COUNT; i++)
		CHECK_EQ(begin(cache, i % COUNT, &leases[i]), DRP_OK); /* two for each key */
	CHECK_EQ(open_leases(cache), 2 * COUNT);
	for (uint64_t key = 0; key < COUNT; key += 3)
		CHECK_EQ(set(cache, key, 1), DRP_OK);
	for (size_t i = 0; i < 2 * COUNT; i++)
		CHECK_EQ(cache_lease_is_stale(&leases[i]), i % COUNT % 3 == 0);
	for (size_t i = 0; i < 2 * COUNT; i++) {
		cache_lease_end(&leases[i * 7 % (2 * COUNT)]); /* 7 has no factor in common with 2000 */
		CHECK_EQ(open_leases(cache), 2 * COUNT - 1 - i);
	}
	fake_cache_end(cache);
}

static void closed_and_gone(void)
{
	struct cache *cache = make(1);
	struct cache_lease lease = {0}, late = {0};

	CHECK_EQ(begin(cache, KEY, &lease), DRP_OK);
	cache_close(cache);
	cache_unref(cache);
	CHECK_EQ(begin(cache, KEY, &late), DRP_CLOSED); /* the lease holds the cache's memory */
	CHECK_EQ(set_leased(cache, KEY, 9, SMALL, &lease), DRP_CLOSED);
	cache_lease_end(&late);
	cache_lease_end(&lease);
	CHECK_EQ(fake_mappings(), 0);
}

static void in_a_child(bool share)
{
	const struct cache_config config = {.shards = 1, .segment_bytes = SEGMENT, .share_on_fork = share};
	struct cache *cache = fake_cache_make(&config);
	struct cache_lease mine = {0}, others[3] = {0}, fresh = {0};
	int status;

	CHECK_EQ(begin(cache, KEY, &mine), DRP_OK);
	for (int i = 0; i < 3; i++)
		CHECK_EQ(begin(cache, KEY, &others[i]), DRP_OK);
	pid_t child = fork();
	REQUIRE(child >= 0);
	if (child == 0) {
		memset(others, 0xff, sizeof(others)); /* their threads' stacks are used for something else */
		CHECK_EQ(open_leases(cache), 0);
		CHECK_EQ(set(cache, KEY, 2), DRP_OK); /* walks no list */
		CHECK_EQ(set_leased(cache, KEY, 9, SMALL, &mine), DRP_STALE);
		CHECK_EQ(begin(cache, KEY, &fresh), DRP_OK);
		cache_lease_end(&mine);
		CHECK_EQ(open_leases(cache), 1);
		CHECK_EQ(set_leased(cache, KEY, 9, SMALL, &fresh), DRP_OK);
		cache_lease_end(&fresh);
		_exit(check_failures());
	}
	REQUIRE(waitpid(child, &status, 0) == child);
	CHECK_EQ(status, 0);
	CHECK_EQ(open_leases(cache), 4);
	CHECK_EQ(set_leased(cache, KEY, 9, SMALL, &mine), DRP_OK);
	cache_lease_end(&mine);
	for (int i = 0; i < 3; i++)
		cache_lease_end(&others[i]);
	fake_cache_end(cache);
}

int main(void)
{
	for (unsigned shards = 1; shards <= 4; shards += 3) {
		for (int large = 0; large < 2; large++) {
			const size_t bytes = large ? LARGE : SMALL;
			RUN(changed_meanwhile, shards, false, SET, bytes, true);
			RUN(changed_meanwhile, shards, true, SET, bytes, true);
			RUN(changed_meanwhile, shards, true, SET_LARGE, bytes, true);
			RUN(changed_meanwhile, shards, true, SET_REFUSED, bytes, true);
			RUN(changed_meanwhile, shards, false, ADD, bytes, true);
			RUN(changed_meanwhile, shards, true, DELETE_PRESENT, bytes, true);
			RUN(changed_meanwhile, shards, false, DELETE_ABSENT, bytes, true);
			RUN(changed_meanwhile, shards, true, DELETE_ELSEWHERE, bytes, true);
			RUN(changed_meanwhile, shards, true, CLEAR, bytes, true);
			RUN(changed_meanwhile, shards, false, CLEAR, bytes, true);
			RUN(changed_meanwhile, shards, false, REVOKE, bytes, true);
			RUN(changed_meanwhile, shards, true, NOTHING, bytes, false);
			RUN(changed_meanwhile, shards, false, NOTHING, bytes, false);
			RUN(changed_meanwhile, shards, true, SET_OTHER, bytes, false);
			RUN(changed_meanwhile, shards, true, DELETE_OTHER, bytes, false);
			RUN(changed_meanwhile, shards, true, ADD_PRESENT, bytes, false);
			RUN(changed_meanwhile, shards, false, SET_BY_LEASE, bytes, false);
			RUN(changed_meanwhile, shards, true, EXPIRE, bytes, false);
			RUN(changed_meanwhile, shards, true, DROP, bytes, false);
			RUN(changed_meanwhile, shards, true, LOOK, bytes, false);
		}
		RUN(many, shards);
	}
	RUN(stale_before_refused);
	RUN(closed_and_gone);
	RUN(in_a_child, false);
	RUN(in_a_child, true);
	return check_done();
}
