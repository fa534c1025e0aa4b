/*
 * test_smaps.c - the equation of a cache's pages (cache_pages.h) on the kernel that runs, after every call.
 *
 *   what smaps has of the cache's mappings as anonymous and not as lazyfree  =  resident pages that are in a count
 *
 * Calls in an order that a seed chooses: cache_calls.h. It needs a kernel whose smaps has LazyFree (4.12). The kernel marks pages in batches of each processor, and smaps has
 * those of an unfinished batch as not lazyfree yet: so the test stays on one processor, and ends the batch before it reads.
 */
#include <inttypes.h>
#include <sched.h>
#include <string.h>

#include "cache_calls.h"
#include "store/internal.h"
#include "cache_pages.h"

enum { SEEDS = CHECK_LESS ? 1 : 3, CALLS_A_SEED = CHECK_LESS ? 150 : 600 };

static void *batch_ender; /* a page of its own */

static void calls_drop_pages(struct cache *cache, uint64_t seed)
{
	struct cache_drop drop;

	CHECK_EQ(cache_drop(cache, 0.02, seed, &drop), DRP_OK);
}

static void calls_change_room(void)
{
}

/*
 * Some of what is counted may be clean: the last page of a log after cache_settle(), say. It is made dirty here, as a write
 * would do that the cache reckons with, so that both sides are equal unless a page is dirty that no count has.
 */
static size_t dirty_what_is_counted(const struct cache *cache, unsigned char *from, size_t bytes)
{
	const size_t page = prim_page_size();
	unsigned char *states = malloc(bytes / page);
	struct prim_census census;
	size_t counted = 0;

	REQUIRE(states != NULL && prim_census(from, bytes, states, &census) == DRP_OK);
	for (size_t i = 0; i < bytes / page; i++) {
		const unsigned counts = counted_in_cache(cache, from + i * page);
		CHECK(counts <= 1);
		if (states[i] != PRIM_RESIDENT || counts == 0)
			continue;
		prim_pin(from + i * page, page);
		counted++;
	}
	free(states);
	return counted;
}

struct pages {
	size_t unmarked; /* as smaps has it */
	size_t counted;  /* of those that are resident; each is made dirty */
};

/* Of the mappings that are wiped on fork: this program has no others than the cache's and the one page. */
static struct pages read_pages(const struct cache *cache)
{
	unsigned long first, behind, from = 0, to = 0, kb, anonymous_kb = 0, lazyfree_kb = 0;
	struct pages pages = {0};
	char line[512];

	FILE *smaps = fopen("/proc/self/smaps", "r");
	REQUIRE(smaps != NULL);
	while (fgets(line, sizeof(line), smaps)) {
		if (sscanf(line, "%lx-%lx ", &first, &behind) == 2) /* 1 for a name that begins with A to F */
			from = first, to = behind;
		else if (sscanf(line, "Anonymous: %lu kB", &kb) == 1)
			anonymous_kb = kb;
		else if (sscanf(line, "LazyFree: %lu kB", &kb) == 1)
			lazyfree_kb = kb;
		else if (strncmp(line, "VmFlags:", 8) == 0 && strstr(line, " wf")) {
			pages.unmarked += (anonymous_kb - lazyfree_kb) * 1024 / prim_page_size();
			if (cache)
				pages.counted += dirty_what_is_counted(cache, (unsigned char *)from, to - from);
		}
	}
	fclose(smaps);
	return pages;
}

static void smaps_agrees(uint64_t seed, unsigned shards, uint64_t max_bytes)
{
	const struct cache_config config = {.shards = shards, .segment_bytes = 16 * prim_page_size(), .max_bytes = max_bytes};
	struct cache *cache = NULL;

	REQUIRE(cache_create(&config, &cache) == DRP_OK);
	random_state = seed;
	for (uint64_t version = 1; version <= CALLS_A_SEED && check_failures() == 0; version++) {
		call_one(cache, version);
		prim_best_effort(prim_cold(batch_ender, prim_page_size())); /* without it the numbers differ, and the test tells */
		const size_t counted = read_pages(cache).counted;
		CHECK_EQ(read_pages(NULL).unmarked, counted);
		CHECK(pins_are_counted(cache));
		if (check_failures() > 0)
			printf("# call %" PRIu64 " of seed %" PRIu64 "\n", version, seed);
	}
	let_all_go();
	cache_close(cache);
	cache_unref(cache);
	CHECK_EQ(read_pages(NULL).unmarked, 0);
}

static bool stays_on_one_processor(void)
{
	cpu_set_t one;

	CPU_ZERO(&one);
	CPU_SET(prim_cpu(), &one);
	return sched_setaffinity(0, sizeof(one), &one) == 0;
}

static void each_call(void)
{
	if (!stays_on_one_processor())
		SKIP("this process may not choose its processor");
	for (uint64_t seed = 1; seed <= SEEDS; seed++) {
		smaps_agrees(seed, 1, 0);
		smaps_agrees(seed, 2, 0);
		smaps_agrees(seed, 1, 400 * 1024);
	}
}

int main(void)
{
	REQUIRE(prim_map(PRIM_LAZYFREE, prim_page_size(), 0, &batch_ender) == DRP_OK);
	RUN(each_call);
	free(sink.value);
	return check_done();
}
