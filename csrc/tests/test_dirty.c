/*
 * test_dirty.c - after every call, each page that the kernel could not take is in exactly one count (cache_pages.h).
 *
 * Calls in an order that a seed chooses (cache_calls.h), on prim_fake: single pages are dropped, and calls fail.
 * test_smaps.c is the same on the kernel that runs.
 */
#include "cache_calls.h"
#include "cache_on_fake.h"
#include "cache_pages.h"
#include "prim_fake.h"

enum { CALLS = CHECK_LESS ? 400 : 3000 };

static void calls_drop_pages(struct cache *cache, uint64_t seed)
{
	(void)cache, (void)seed;
	for (int pages = 0; pages < 3; pages++)
		fake_drop(pick(fake_pages()));
}

static void calls_change_room(void)
{
	const uint64_t used = pick(4) ? 10 * MB : 97 * MB + 512 * 1024; /* at times there is hardly any */

	fake_headroom(100 * MB, used, 0);
	for (int i = 0; i < 200000; i++)
		(void)prim_now_ns();
}

static void each_page_is_counted(uint64_t seed, unsigned shards, uint64_t span_bytes, uint64_t max_bytes,
				 bool fails)
{
	const struct cache_config config = {.shards = shards, .segment_bytes = 16 * PAGE, .span_bytes = span_bytes,
					    .max_bytes = max_bytes};
	struct cache *cache = fake_cache_make(&config);

	random_state = seed;
	for (uint64_t version = 1; version <= CALLS; version++) {
		if (fails)
			fake_fail_call(pick(3) ? 0 : 1 + pick(6));
		call_one(cache, version);
		fake_fail_call(0);
		if (!pages_are_counted(cache) || check_failures() > 0) {
			printf("# call %llu of seed %llu\n", (unsigned long long)version, (unsigned long long)seed);
			break;
		}
	}
	let_all_go();
	fake_cache_end(cache);
}

int main(void)
{
	for (uint64_t seed = 1; seed <= 3; seed++)
		for (int fails = 0; fails <= 1; fails++) {
			RUN(each_page_is_counted, seed, 1, 0, 0, fails);
			RUN(each_page_is_counted, seed, 2, 0, 0, fails);
			RUN(each_page_is_counted, seed, 1, 24 * 16 * PAGE, 0, fails);
			RUN(each_page_is_counted, seed, 1, 0, 400 * 1024, fails);
		}
	free(sink.value);
	return check_done();
}
