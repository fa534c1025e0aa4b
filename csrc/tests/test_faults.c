/*
 * test_faults.c - the cache on prim_fake: pages vanish at every step of every operation, calls fail one by one.
 *
 * A scenario is built anew for each fault: a small cache with a value of each layout. Then one operation runs, with one
 * fault in it. Whatever happens, afterwards every key gives what was stored or is a miss, and nothing is leaked.
 *
 *   operation has S steps, the cache P pages: S x (P + 1) runs (each page alone, and all at once)
 */
#include "cache/cache.h"

#include "cache_client.h"
#include "cache/update.h"
#include "check.h"
#include "prim_fake.h"

enum { KEYS = 7 };

/* inline in one page, inline over two, an extent of two pages, a value alone with zeros in it, inline, extent, nothing */
static const size_t sizes[KEYS] = {100, 6000, 2 * 4096 - 100, 6 * 4096 - 9, 600, 5000, 0};
static const bool own_pages[KEYS] = {false, false, true, false, false, true, false};

static struct client_sink sink;

static struct cache *make(enum prim_backing backing, uint64_t max_bytes)
{
	const struct cache_config config = {.backing = backing, .shards = 1, .segment_bytes = 16 * 4096,
					    .span_bytes = 64 * 4096, .max_bytes = max_bytes};
	struct cache *cache = NULL;
	CHECK_EQ(cache_create(&config, &cache), DRP_OK);
	return cache;
}

static struct cache *make_filled(enum prim_backing backing)
{
	struct cache *cache = make(backing, 0);
	for (uint64_t key = 0; key < KEYS; key++)
		CHECK_EQ(client_set(cache, key, 1, sizes[key], own_pages[key], SET_ALWAYS), DRP_OK);
	cache_settle(cache);
	return cache;
}

/* Each key gives one of the versions stored, whole, or misses. newest: versions of each key after the operation. */
static void check_all(struct cache *cache, const uint64_t *newest, const bool *gone)
{
	for (uint64_t key = 0; key < KEYS; key++) {
		uint64_t version = 0;
		bool wrong;
		int status = client_get(cache, &sink, key, key & 1 ? GET_PIN : GET_COPY, &version, &wrong);
		CHECK(!wrong);
		if (status == DRP_OK) {
			CHECK_EQ(version, newest[key]);
			CHECK(!gone[key]);
		} else {
			CHECK_EQ(status, DRP_MISS);
		}
	}
}

enum operation { OP_GET, OP_PIN, OP_REPLACE, OP_ADD, OP_DELETE, OP_CONTAINS, OP_WALK, OP_TOUCH, OP_UPDATE, OP_COUNT };

static int ignore_key(void *context, const void *key, size_t key_bytes)
{
	uint64_t value;
	++*(size_t *)context;
	CHECK_EQ(key_bytes, sizeof(value));
	memcpy(&value, key, sizeof(value));
	CHECK(value < KEYS);
	return DRP_OK;
}

static void operate(struct cache *cache, enum operation operation, uint64_t key, uint64_t *newest, bool *gone)
{
	uint64_t version = 0, cursor = 0;
	size_t walked = 0;
	bool wrong = false;
	int status;

	switch (operation) {
	case OP_GET:
	case OP_PIN:
		status = client_get(cache, &sink, key, operation == OP_PIN ? GET_PIN : GET_COPY, &version, &wrong);
		CHECK(status == DRP_OK ? version == 1 && !wrong : status == DRP_MISS);
		break;
	case OP_REPLACE:
		status = client_set(cache, key, 2, sizes[(key + 3) % KEYS], own_pages[key], SET_ALWAYS);
		if (status == DRP_OK) /* refused: dropped while it was written, again and again; then neither is there */
			newest[key] = 2;
		else
			CHECK_EQ(status, DRP_REFUSED);
		gone[key] = status == DRP_REFUSED;
		break;
	case OP_ADD:
		status = client_set(cache, key, 2, sizes[key], own_pages[key], SET_IF_ABSENT);
		if (status == DRP_OK)
			newest[key] = 2;
		else
			CHECK(status == DRP_EXISTS || status == DRP_REFUSED);
		break;
	case OP_DELETE:
		status = cache_delete(cache, &key, sizeof(key), 0);
		CHECK(status == DRP_OK || status == DRP_MISS);
		gone[key] = true;
		break;
	case OP_CONTAINS:
		(void)cache_contains(cache, &key, sizeof(key));
		break;
	case OP_WALK:
		while ((status = cache_walk(cache, &cursor, ignore_key, &walked)) == DRP_OK)
			;
		CHECK_EQ(status, DRP_MISS);
		CHECK(walked <= KEYS);
		break;
	case OP_TOUCH: /* the value is what it was, if it is there */
		status = cache_touch(cache, &key, sizeof(key), UINT64_C(3600000000000));
		CHECK(status == DRP_OK || status == DRP_MISS || status == DRP_REFUSED);
		break;
	case OP_UPDATE:
		status = client_set(cache, key, 2, sizes[(key + 3) % KEYS], own_pages[key], SET_IF_PRESENT);
		CHECK(status == DRP_OK || status == DRP_MISS || status == DRP_REFUSED);
		if (status == DRP_OK)
			newest[key] = 2;
		gone[key] = status != DRP_OK;
		break;
	case OP_COUNT:
		break;
	}
}

static void drop_at_every_step(enum prim_backing backing, enum operation operation, bool moves)
{
	size_t runs = 0; /* as many as there could be */

	for (uint64_t key = 0; key < KEYS; key++) {
		size_t steps = 1, pages[64] = {FAKE_EVERY_PAGE}, page_count = 1;
		uint64_t unlooked[KEYS];
		bool unasked[KEYS];
		struct cache *filled = make_filled(backing);
		operate(filled, operation, key, unlooked, unasked); /* pages that it takes can go while it writes them */
		for (size_t page = 0; page < fake_pages(); page++)
			if (fake_page_in_use(page) && page_count < 64)
				pages[page_count++] = page;
		cache_close(filled);
		cache_unref(filled);
		for (size_t step = 1; step <= steps; step++)
			for (size_t page = 0; page < page_count; page++, runs++) {
				if (page > 0 && !check_makes(runs)) /* all pages at once always: that tells how many steps there are */
					continue;
				uint64_t newest[KEYS] = {1, 1, 1, 1, 1, 1, 1};
				bool gone[KEYS] = {false};
				fake_reset();
				struct cache *cache = make_filled(backing);
				fake_move_between_cpus(moves);
				fake_drop_at_step(step, pages[page]);
				operate(cache, operation, key, newest, gone);
				fake_move_between_cpus(false); /* a reader that moves in each copy finds nothing */
				if (fake_steps() > steps) /* more than before: the fault made it go another way */
					steps = fake_steps();
				fake_drop_at_step(0, 0);
				check_all(cache, newest, gone);
				cache_settle(cache);
				fake_drop(FAKE_EVERY_PAGE);
				for (uint64_t k = 0; k < KEYS; k++) /* what dropped is a miss, and can be stored again */
					CHECK(!cache_contains(cache, &k, sizeof(k)) || sizes[k] == 0);
				CHECK_EQ(client_set(cache, key, 3, sizes[key], own_pages[key], SET_ALWAYS), DRP_OK);
				uint64_t version = 0;
				bool wrong;
				CHECK_EQ(client_get(cache, &sink, key, GET_PIN, &version, &wrong), DRP_OK);
				CHECK(version == 3 && !wrong);
				cache_close(cache);
				cache_unref(cache);
				CHECK_EQ(fake_mappings(), 0);
				if (check_failures() > 10)
					return;
			}
	}
	printf("# %zu runs\n", runs);
}

static void fail_every_call(enum prim_backing backing)
{
	for (size_t call = 1;; call++) {
		const struct cache_config config = {.backing = backing, .shards = 2, .segment_bytes = 16 * 4096,
						    .span_bytes = 8 * 16 * 4096};
		struct cache *cache = NULL;
		bool stored[64] = {false};
		fake_reset();
		fake_fail_call(call);
		int status = cache_create(&config, &cache);
		for (uint64_t key = 0; cache && key < 64; key++) {
			int result = client_set(cache, key, 1, sizes[key % KEYS], own_pages[key % KEYS], SET_ALWAYS);
			CHECK(result == DRP_OK || result == DRP_NO_MEMORY || result == DRP_REFUSED);
			stored[key] = result == DRP_OK;
		}
		bool reached = fake_calls() >= call;
		fake_fail_call(0);
		for (uint64_t key = 0; cache && key < 64; key++) {
			uint64_t version;
			bool wrong;
			int result = client_get(cache, &sink, key, GET_COPY, &version, &wrong);
			CHECK(!wrong);
			CHECK(result == DRP_MISS || (result == DRP_OK && stored[key]));
		}
		if (cache) {
			cache_close(cache);
			cache_unref(cache);
		} else {
			CHECK(status != DRP_OK);
		}
		CHECK_EQ(fake_mappings(), 0);
		if (!reached)
			break;
	}
}

static void refuses_before_the_limit(void)
{
	fake_reset();
	struct cache *cache = make(PRIM_LAZYFREE, 0);
	struct cache_stats stats;
	uint64_t version;
	bool wrong;

	fake_headroom(100 << 20, 50 << 20, 0);
	CHECK_EQ(client_set(cache, 1, 1, 1000, false, SET_ALWAYS), DRP_OK);
	fake_headroom(100 << 20, (100 << 20) - 4096, 0); /* nothing left, and nothing to drop */
	cache_advance_clock(cache, 1000000000);
	for (int i = 0; i < 200000; i++) /* the fake's clock runs with its readings */
		(void)prim_now_ns();
	CHECK_EQ(client_set(cache, 1, 2, 1000, false, SET_ALWAYS), DRP_REFUSED);
	CHECK_EQ(client_get(cache, &sink, 1, GET_COPY, &version, &wrong), DRP_MISS); /* never the older version */
	fake_headroom(100 << 20, (100 << 20) - 4096, 60 << 20); /* full, but of what can be dropped */
	for (int i = 0; i < 200000; i++)
		(void)prim_now_ns();
	CHECK_EQ(client_set(cache, 1, 3, 1000, false, SET_ALWAYS), DRP_OK);
	cache_read_stats(cache, &stats);
	CHECK_EQ(stats.refused, 1);
	cache_close(cache);
	cache_unref(cache);
}

int main(void)
{
	for (int backing = PRIM_LAZYFREE; backing <= PRIM_DROPPABLE; backing++)
		for (int operation = 0; operation < OP_COUNT; operation++)
			RUN(drop_at_every_step, backing, operation, false);
	for (int operation = OP_GET; operation <= OP_ADD; operation++)
		RUN(drop_at_every_step, PRIM_DROPPABLE, operation, true);
	RUN(fail_every_call, PRIM_LAZYFREE);
	RUN(fail_every_call, PRIM_DROPPABLE);
	RUN(refuses_before_the_limit, );
	free(sink.value);
	return check_done();
}
