/*
 * test_region.c - regions on the kernel that runs. Drops are made by MADV_PAGEOUT: the kernel's own, at the moment the
 * test wants, without pressure.
 */
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"
#include "region/region.h"

enum { STORM_ROUNDS = CHECK_LESS ? 30 : 300 };
enum { PAGES = 32, MAX_TRIES = 100, REFILLS_SEEN = 1000 };

static size_t page;

/* NULL, with the case skipped by the caller, where the kernel does not offer it. */
static struct region *opened(enum region_on_drop on_drop, enum prim_backing backing)
{
	struct region_options options = {.on_drop = on_drop, .backing = backing, .name = "test"};
	struct region *region = NULL;
	int status = region_open(PAGES * page, &options, &region);

	if (status == DRP_UNSUPPORTED)
		return NULL;
	REQUIRE(status == DRP_OK);
	return region;
}

#define OPEN_OR_SKIP(name, on_drop, backing)                                                                            \
	struct region *name = opened(on_drop, backing);                                                                 \
	if (!name)                                                                                                      \
	SKIP("this kernel does not offer it")

static void fill(unsigned char *bytes, size_t length, unsigned seed)
{
	for (size_t i = 0; i < length; i++)
		bytes[i] = (unsigned char)((i * 7 + seed) % 255 + 1);
}

static bool is_zero(const unsigned char *bytes, size_t length)
{
	return bytes[0] == 0 && memcmp(bytes, bytes + 1, length - 1) == 0;
}

/* Pages with content. An old kernel's census takes the zero page, which a read of a dropped page maps, for content. */
static size_t resident_pages(const unsigned char *at, size_t count)
{
	static unsigned char states[4 * PAGES];
	struct prim_census census;

	REQUIRE(count <= sizeof(states));
	REQUIRE(prim_census(at, count * page, states, &census) == DRP_OK);
	if (!census.exact)
		for (size_t i = 0; i < count; i++)
			census.resident_pages -= states[i] == PRIM_RESIDENT && is_zero(at + i * page, page);
	return census.resident_pages;
}

/*
 * Drops the pages for sure. The kernel skips a page that is referenced at the moment, or that waits in another
 * processor's batch for its list: so again, and on each processor.
 */
static void drop(struct region *region, size_t first, size_t count)
{
	const unsigned char *at = (unsigned char *)region_memory(region) + first * page;
	cpu_set_t all, one;
	size_t left = 1;

	REQUIRE(sched_getaffinity(0, sizeof(all), &all) == 0);
	for (int tries = 0; tries < MAX_TRIES * CPU_SETSIZE && left > 0; tries++) {
		if (!CPU_ISSET(tries % CPU_SETSIZE, &all))
			continue;
		CPU_ZERO(&one);
		CPU_SET(tries % CPU_SETSIZE, &one);
		REQUIRE(sched_setaffinity(0, sizeof(one), &one) == 0);
		REQUIRE(region_page_out(region, first * page, count * page) == DRP_OK);
		left = resident_pages(at, count);
	}
	REQUIRE(sched_setaffinity(0, sizeof(all), &all) == 0);
	REQUIRE(left == 0);
}

static void check_gone(struct region_gone *gone, size_t first, size_t end)
{
	if (CHECK_EQ(gone->count, 1)) {
		CHECK_EQ(gone->ranges[0].start, first * page);
		CHECK_EQ(gone->ranges[0].stop, end * page);
	}
	region_gone_free(gone);
}

static void lengths_are_refused(void)
{
	struct region_options options = {.any_backing = true};
	struct region *region;

	CHECK_EQ(region_open(0, &options, &region), DRP_INVALID);
	CHECK_EQ(region_open(page + 1, &options, &region), DRP_INVALID);
	CHECK_EQ(region_open(SIZE_MAX / page * page, &options, &region), DRP_INVALID);
	if (sizeof(void *) > 4) /* beyond any address space; 32 bits have no length that is neither wrong nor to be had */
		CHECK_EQ(region_open(SIZE_MAX / 4 / page * page, &options, &region), DRP_NO_MEMORY);
}

static void a_page_that_went_is_zero(enum prim_backing backing)
{
	unsigned char written[4 * 65536], read[sizeof(written)];
	struct region_gone gone = {0};
	struct region_census census;
	OPEN_OR_SKIP(region, REGION_ZERO, backing);

	fill(written, 4 * page, 1);
	REQUIRE(region_write(region, 2 * page, written, 4 * page, &gone) == DRP_OK);
	drop(region, 3, 1);
	CHECK_EQ(region_census(region, 0, PAGES * page, &census, &gone), DRP_OK);
	CHECK_EQ(census.dropped_pages, 1);
	check_gone(&gone, 3, 4);
	CHECK_EQ(region_read(region, 2 * page, read, 4 * page, &gone), DRP_OK);
	memset(written + page, 0, page);
	CHECK_EQ(memcmp(read, written, 4 * page), 0);
	region_close(region);
}

static void a_reader_hears_of_what_went(enum prim_backing backing)
{
	unsigned char written[4 * 65536], read[sizeof(written)];
	struct region_gone gone = {0};
	OPEN_OR_SKIP(region, REGION_RAISE, backing);

	fill(written, 4 * page, 2);
	REQUIRE(region_write(region, 2 * page, written, 4 * page, &gone) == DRP_OK);
	CHECK_EQ(region_read(region, 2 * page, read, 4 * page, &gone), DRP_OK);
	CHECK_EQ(memcmp(read, written, 4 * page), 0);
	drop(region, 3, 2);
	CHECK_EQ(region_read(region, 2 * page, read, 4 * page, &gone), DRP_FAULT);
	check_gone(&gone, 3, 5);
	CHECK_EQ(region_read(region, 2 * page, read, page, &gone), DRP_OK);
	/* one byte of a page that went is not to be had by writing another */
	CHECK_EQ(region_write(region, 3 * page + 5, written, 10, &gone), DRP_FAULT);
	check_gone(&gone, 3, 4);
	/* the whole page is; the one behind it stays gone */
	CHECK_EQ(region_write(region, 3 * page, written, page, &gone), DRP_OK);
	CHECK_EQ(region_read(region, 3 * page, read, page, &gone), DRP_OK);
	CHECK_EQ(memcmp(read, written, page), 0);
	CHECK_EQ(region_read(region, 4 * page + 9, read, 1, &gone), DRP_FAULT);
	check_gone(&gone, 4, 5);
	CHECK_EQ(region_purge(region, 4 * page, page), DRP_OK);
	CHECK_EQ(region_read(region, 4 * page, read, page, &gone), DRP_OK);
	CHECK_EQ(read[0], 0);
	region_close(region);
}

static void zeros_need_no_proof(enum prim_backing backing)
{
	static unsigned char zeros[65536], read[65536];
	struct region_gone gone = {0};
	OPEN_OR_SKIP(region, REGION_RAISE, backing);

	memset(read, 1, page);
	REQUIRE(region_write(region, 0, read, page, &gone) == DRP_OK);
	REQUIRE(region_write(region, 0, zeros, page, &gone) == DRP_OK);
	drop(region, 0, 1);
	CHECK_EQ(region_read(region, 0, read, page, &gone), DRP_OK);
	CHECK_EQ(memcmp(read, zeros, page), 0);
	region_close(region);
}

/* At every place of the only byte that is not zero, and written whole or as a part of the page. */
static void one_byte_proves_its_page(enum prim_backing backing)
{
	static unsigned char content[65536], read[65536];
	struct region_gone gone = {0};
	OPEN_OR_SKIP(region, REGION_RAISE, backing);

	for (size_t at = 0; at < page; at += at < 64 || at + 64 > page ? 1 : page / 16) {
		for (int whole = 0; whole < 2; whole++) {
			memset(content, 0, page);
			content[at] = 1;
			REQUIRE(region_purge(region, page, page) == DRP_OK);
			if (whole)
				CHECK_EQ(region_write(region, page, content, page, &gone), DRP_OK);
			else
				CHECK_EQ(region_write(region, page + at, content + at, 1, &gone), DRP_OK);
			CHECK_EQ(region_read(region, page, read, page, &gone), DRP_OK);
			CHECK_EQ(memcmp(read, content, page), 0);
			drop(region, 1, 1);
			CHECK_EQ(region_read(region, page, read, page, &gone), DRP_FAULT);
			region_gone_free(&gone);
		}
	}
	region_close(region);
}

static void a_page_lost_within_a_reading_hold_is_told_at_its_end(void)
{
	unsigned char written[4 * 65536];
	struct region_gone gone = {0};
	struct region_hold hold;
	OPEN_OR_SKIP(region, REGION_RAISE, PRIM_LAZYFREE);

	fill(written, 4 * page, 3);
	REQUIRE(region_write(region, 0, written, 4 * page, &gone) == DRP_OK);
	REQUIRE(region_hold_begin(region, REGION_HOLD_READ, 10, 3 * page, &hold, &gone) == DRP_OK);
	CHECK_EQ(region_hold_end(region, &hold, &gone), DRP_OK);
	REQUIRE(region_hold_begin(region, REGION_HOLD_READ, 10, 3 * page, &hold, &gone) == DRP_OK);
	drop(region, 3, 1); /* the last byte of the hold lies in it */
	CHECK_EQ(region_hold_end(region, &hold, &gone), DRP_FAULT);
	check_gone(&gone, 3, 4);
	region_close(region);
}

static void a_pinned_page_stays(enum region_on_drop on_drop)
{
	unsigned char written[4 * 65536], read[sizeof(written)];
	struct region_gone gone = {0};
	struct region_hold pin, other;
	OPEN_OR_SKIP(region, on_drop, PRIM_LAZYFREE);

	fill(written, 4 * page, 4);
	REQUIRE(region_write(region, 0, written, 4 * page, &gone) == DRP_OK);
	REQUIRE(region_settle(region, 0, PAGES * page) == DRP_OK);
	CHECK_EQ(region_hold_begin(region, REGION_HOLD_PIN, 0, 2 * page, &pin, &gone), DRP_OK);
	CHECK_EQ(region_hold_begin(region, REGION_HOLD_PIN, page, 2 * page, &other, &gone), DRP_OK);
	CHECK_EQ(region_purge(region, 0, page), DRP_EXISTS);
	CHECK_EQ(region_resize(region, page), DRP_EXISTS);
	CHECK_EQ(region_hold_end(region, &pin, &gone), DRP_OK); /* page 1 is still held by other */
	for (int i = 0; i < 3; i++)
		REQUIRE(region_page_out(region, 0, 4 * page) == DRP_OK);
	memset(read, 0, sizeof(read));
	CHECK_EQ(region_read(region, page, read, 2 * page, &gone), DRP_OK);
	CHECK_EQ(memcmp(read, written + page, 2 * page), 0);
	CHECK_EQ(region_hold_end(region, &other, &gone), DRP_OK);
	drop(region, 0, 4);
	if (on_drop != REGION_ZERO) {
		CHECK_EQ(region_hold_begin(region, REGION_HOLD_PIN, 0, 2 * page, &pin, &gone), DRP_FAULT);
		check_gone(&gone, 0, 2);
		CHECK_EQ(region_purge(region, 0, page), DRP_OK); /* nothing is held after the refusal */
	}
	region_close(region);
}

static void a_writing_hold_keeps_and_settles(enum region_on_drop on_drop)
{
	unsigned char written[3 * 65536], read[sizeof(written)];
	struct region_gone gone = {0};
	struct region_hold hold;
	OPEN_OR_SKIP(region, on_drop, PRIM_LAZYFREE);

	REQUIRE(region_hold_begin(region, REGION_HOLD_WRITE, page, 3 * page, &hold, &gone) == DRP_OK);
	fill(written, 3 * page, 5);
	memcpy((char *)region_memory(region) + page, written, 3 * page);
	REQUIRE(region_page_out(region, 0, PAGES * page) == DRP_OK); /* dirty, held: stays */
	CHECK_EQ(region_read(region, page, read, 3 * page, &gone), DRP_OK);
	CHECK_EQ(memcmp(read, written, 3 * page), 0);
	CHECK_EQ(region_hold_end(region, &hold, &gone), DRP_OK);
	drop(region, 1, 3);
	CHECK_EQ(region_read(region, page, read, 3 * page, &gone), on_drop == REGION_ZERO ? DRP_OK : DRP_FAULT);
	region_gone_free(&gone);
	region_close(region);
}

/* An exposed region finds out by itself what was written by address; where the kernel cannot tell, it marks all. */
static void a_settle_finds_what_was_written(void)
{
	struct region_census census;
	struct region_gone gone = {0};
	OPEN_OR_SKIP(region, REGION_ZERO, PRIM_LAZYFREE);
	char *memory = region_memory(region);

	REQUIRE(region_expose(region) == DRP_OK);
	memory[5 * page] = memory[9 * page + 7] = 1;
	for (int round = 0; round < 3; round++) {
		REQUIRE(region_settle(region, 0, PAGES * page) == DRP_OK);
		drop(region, 0, PAGES);
		CHECK_EQ(region_census(region, 0, PAGES * page, &census, &gone), DRP_OK);
		CHECK_EQ(census.dropped_pages, 2);
		CHECK_EQ(memory[5 * page], 0);
		memory[5 * page] = memory[9 * page + 7] = 1; /* pages that are new again are found again */
		region_gone_free(&gone);
	}
	region_close(region);
}

static void absent_pages_signal(void)
{
	unsigned char written[4 * 65536], read[sizeof(written)];
	struct region_gone gone = {0};
	struct region_hold hold;
	size_t filled = 0;
	OPEN_OR_SKIP(region, REGION_SIGNAL, PRIM_LAZYFREE);
	char *memory = region_memory(region);

	CHECK_EQ(region_read(region, 0, read, 1, &gone), DRP_FAULT); /* never filled */
	check_gone(&gone, 0, 1);
	fill(written, 4 * page, 6);
	CHECK_EQ(region_write(region, page + 3, written, 2 * page, &gone), DRP_OK); /* parts of empty pages: zeros around */
	CHECK_EQ(region_read(region, page, read, 3 * page, &gone), DRP_OK);
	CHECK_EQ(memcmp(read + 3, written, 2 * page), 0);
	CHECK_EQ(read[0], 0);
	drop(region, 0, PAGES);
	CHECK_EQ(region_read(region, page, read, 3 * page, &gone), DRP_FAULT);
	check_gone(&gone, 1, 4);
	CHECK_EQ(region_write(region, page + 3, written, 2 * page, &gone), DRP_FAULT);
	CHECK_EQ(gone.count, 2); /* the edges; the middle would have been whole */
	region_gone_free(&gone);
	CHECK_EQ(region_hold_begin(region, REGION_HOLD_READ, page, page, &hold, &gone), DRP_FAULT);
	region_gone_free(&gone);

	struct iovec to = {read, 16}, from = {memory + page, 16};
	CHECK_EQ(process_vm_readv(getpid(), &to, 1, &from, 1, 0), -1); /* a system call: EFAULT, no signal */
	CHECK_EQ(errno, EFAULT);

	CHECK_EQ(region_write(region, 2 * page, written, page, &gone), DRP_OK);
	CHECK_EQ(region_refill(region, page, written, 4 * page, &filled), DRP_OK);
	CHECK_EQ(filled, 3 * page); /* the live one is kept */
	CHECK_EQ(region_read(region, page, read, 4 * page, &gone), DRP_OK);
	CHECK_EQ(memcmp(read, written, page), 0);
	CHECK_EQ(memcmp(read + page, written, page), 0);
	CHECK_EQ(memcmp(read + 2 * page, written + 2 * page, 2 * page), 0);
	CHECK_EQ(region_hold_begin(region, REGION_HOLD_READ, page, 4 * page, &hold, &gone), DRP_OK);
	REQUIRE(region_page_out(region, 0, PAGES * page) == DRP_OK);
	CHECK_EQ(memcmp(memory + 4 * page, written + 3 * page, page), 0); /* by address: pinned for the hold */
	CHECK_EQ(region_hold_end(region, &hold, &gone), DRP_OK);
	drop(region, 0, PAGES);
	region_close(region);
}

static void resizing_keeps_what_is_there(enum region_on_drop on_drop, enum prim_backing backing)
{
	unsigned char written[2 * 65536], read[sizeof(written)];
	struct region_gone gone = {0};
	struct region_census census;
	OPEN_OR_SKIP(region, on_drop, backing);

	fill(written, 2 * page, 8);
	REQUIRE(region_write(region, 0, written, 2 * page, &gone) == DRP_OK);
	REQUIRE(region_write(region, 20 * page, written, 2 * page, &gone) == DRP_OK);
	drop(region, 21, 1);
	CHECK_EQ(region_resize(region, 4 * PAGES * page), DRP_OK);
	CHECK_EQ(region_length(region), 4 * PAGES * page);
	CHECK_EQ(region_read(region, 0, read, 2 * page, &gone), DRP_OK);
	CHECK_EQ(memcmp(read, written, 2 * page), 0);
	CHECK_EQ(region_read(region, 20 * page, read, page, &gone), DRP_OK);
	CHECK_EQ(memcmp(read, written, page), 0);
	CHECK_EQ(region_census(region, 0, 4 * PAGES * page, &census, &gone), DRP_OK);
	CHECK_EQ(census.dropped_pages, 1);
	check_gone(&gone, 21, 22);
	drop(region, 0, 4 * PAGES); /* what moved is settled */
	CHECK_EQ(region_resize(region, 2 * page), DRP_OK);
	CHECK_EQ(region_resize(region, PAGES * page), DRP_OK);
	CHECK_EQ(region_census(region, 0, PAGES * page, &census, &gone), DRP_OK);
	CHECK_EQ(census.dropped_pages, 2); /* 0 and 1; the shrinking forgot 20 and 21 */
	region_gone_free(&gone);
	region_close(region);
}

static void a_forked_child_has_the_mapping_without_its_content(enum region_on_drop on_drop, enum prim_backing backing)
{
	unsigned char written[2 * 65536], read[sizeof(written)];
	struct region_gone gone = {0};
	struct region_hold hold;
	int status;
	OPEN_OR_SKIP(region, on_drop, backing);

	fill(written, 2 * page, 9);
	REQUIRE(region_write(region, 0, written, 2 * page, &gone) == DRP_OK);
	REQUIRE(region_settle(region, 0, page) == DRP_OK); /* the second page stays pending where that is done */
	if (on_drop != REGION_RAISE || backing == PRIM_LAZYFREE) {
		REQUIRE(region_hold_begin(region, REGION_HOLD_WRITE, 4 * page, page, &hold, &gone) == DRP_OK);
		memset((char *)region_memory(region) + 4 * page, 1, page);
	} else {
		REQUIRE(region_write(region, 4 * page, written, page, &gone) == DRP_OK);
	}
	fflush(stdout);
	pid_t child = fork();
	if (child == 0) {
		for (size_t i = 0; i < 5; i += i == 1 ? 3 : 1) { /* settled, pending, held */
			CHECK_EQ(region_read(region, i * page, read, page, &gone), on_drop == REGION_ZERO ? DRP_OK : DRP_FAULT);
			if (on_drop == REGION_ZERO)
				CHECK_EQ(read[7], 0);
			else
				check_gone(&gone, i, i + 1);
		}
		CHECK_EQ(region_write(region, 0, written, page, &gone), DRP_OK);
		CHECK_EQ(region_read(region, 0, read, page, &gone), DRP_OK);
		CHECK_EQ(memcmp(read, written, page), 0);
		drop(region, 0, 1);
		CHECK_EQ(region_read(region, 0, read, page, &gone), on_drop == REGION_ZERO ? DRP_OK : DRP_FAULT);
		_exit(check_failures());
	}
	REQUIRE(waitpid(child, &status, 0) == child);
	CHECK_EQ(status, 0);
	CHECK_EQ(region_read(region, 0, read, 2 * page, &gone), DRP_OK);
	CHECK_EQ(memcmp(read, written, 2 * page), 0);
	region_close(region);
}

static void a_shared_region_is_copied_on_write(enum region_on_drop on_drop)
{
	struct region_options options = {.on_drop = on_drop, .any_backing = true, .keep_on_fork = true};
	unsigned char written[65536], read[65536];
	struct region_gone gone = {0};
	struct region *region;
	int status;

	status = region_open(PAGES * page, &options, &region);
	if (status == DRP_UNSUPPORTED)
		SKIP("this kernel does not offer it");
	REQUIRE(status == DRP_OK);
	fill(written, page, 10);
	REQUIRE(region_write(region, 0, written, page, &gone) == DRP_OK);
	fflush(stdout);
	pid_t child = fork();
	if (child == 0) {
		CHECK_EQ(region_read(region, 0, read, page, &gone), DRP_OK);
		CHECK_EQ(memcmp(read, written, page), 0);
		CHECK_EQ(region_write(region, 0, "child", 5, &gone), DRP_OK);
		if (on_drop == REGION_SIGNAL) {
			CHECK_EQ(region_read(region, page, read, 1, &gone), DRP_FAULT); /* armed in the child too */
			region_gone_free(&gone);
		}
		_exit(check_failures());
	}
	REQUIRE(waitpid(child, &status, 0) == child);
	CHECK_EQ(status, 0);
	CHECK_EQ(region_read(region, 0, read, page, &gone), DRP_OK);
	CHECK_EQ(memcmp(read, written, page), 0);
	region_close(region);
}

struct refills {
	struct region *region;
	_Atomic int stop;
};

/* A page of one letter, then of another, ...; gone in between. */
static void *refill_again_and_again(void *context)
{
	static unsigned char content[65536];
	struct refills *refills = context;

	for (unsigned round = 0; !atomic_load(&refills->stop); round++) {
		size_t filled;
		memset(content, (int)('a' + round % 26), page);
		CHECK_EQ(region_purge(refills->region, 3 * page, page), DRP_OK);
		CHECK_EQ(region_refill(refills->region, 3 * page, content, page, &filled), DRP_OK);
	}
	return NULL;
}

static void a_refilled_page_is_seen_whole_or_not_at_all(void)
{
	static unsigned char read[65536];
	struct refills refills = {0};
	struct region_gone gone = {0};
	pthread_t thread;
	long whole = 0, absent = 0;
	OPEN_OR_SKIP(region, REGION_SIGNAL, PRIM_LAZYFREE);

	refills.region = region;
	REQUIRE(pthread_create(&thread, NULL, refill_again_and_again, &refills) == 0);
	while (whole < REFILLS_SEEN) {
		int status = region_read(region, 3 * page, read, 8, &gone); /* short: nothing goes in between */
		if (status == DRP_OK && CHECK(read[0] >= 'a' && memcmp(read, read + 1, 7) == 0))
			whole++;
		else
			absent++;
		region_gone_free(&gone);
		if (check_failures())
			break;
	}
	atomic_store(&refills.stop, 1);
	pthread_join(thread, NULL);
	printf("# seen %ld times, absent %ld times\n", whole, absent);
	region_close(region);
}

struct storm {
	struct region *region;
	_Atomic int stop;
	_Atomic long dropped;
};

static void *page_out_storm(void *context)
{
	struct storm *storm = context;
	while (!atomic_load(&storm->stop))
		(void)prim_page_out(region_memory(storm->region), PAGES * page);
	return NULL;
}

/* Readers and a storm of drops: every read is right or told to be gone. */
static void a_storm_gives_no_wrong_bytes(enum region_on_drop on_drop, enum prim_backing backing)
{
	static unsigned char written[PAGES * 65536], read[PAGES * 65536];
	struct storm storm = {0};
	struct region_gone gone = {0};
	pthread_t thread;
	long good = 0, lost = 0, refused = 0;
	OPEN_OR_SKIP(region, on_drop, backing);

	storm.region = region;
	REQUIRE(pthread_create(&thread, NULL, page_out_storm, &storm) == 0);
	for (unsigned round = 0; round < STORM_ROUNDS; round++) {
		fill(written, PAGES * page, round);
		int status = region_write(region, 0, written, PAGES * page, &gone);
		if (!CHECK(status == DRP_OK || (backing == PRIM_DROPPABLE && status == DRP_REFUSED)))
			break;
		refused += status == DRP_REFUSED; /* dropped while it was written: on a slow machine that can be each one */
		REQUIRE(region_settle(region, 0, PAGES * page) == DRP_OK);
		for (size_t i = 0; status == DRP_OK && i < PAGES; i++) {
			if (round % 4 == 0 && i == PAGES / 2) /* on a busy machine the storm may not get to run */
				(void)prim_page_out(region_memory(region), PAGES * page);
			size_t at = i * page + (round * 37) % page, length = (PAGES - i) * page - (round * 37) % page;
			int got = region_read(region, at, read, length, &gone);
			if (got == DRP_OK && CHECK_EQ(memcmp(read, written + at, length), 0))
				good++;
			else
				lost++;
			region_gone_free(&gone);
		}
	}
	atomic_store(&storm.stop, 1);
	pthread_join(thread, NULL);
	printf("# %ld reads right, %ld dropped; %ld writes dropped\n", good, lost, refused);
	CHECK(lost + refused > 0);
	region_close(region);
}

int main(void)
{
	page = prim_page_size();
	RUN(lengths_are_refused);
	RUN(a_page_that_went_is_zero, PRIM_LAZYFREE);
	RUN(a_page_that_went_is_zero, PRIM_DROPPABLE);
	RUN(a_reader_hears_of_what_went, PRIM_LAZYFREE);
	RUN(a_reader_hears_of_what_went, PRIM_DROPPABLE);
	RUN(zeros_need_no_proof, PRIM_LAZYFREE);
	RUN(zeros_need_no_proof, PRIM_DROPPABLE);
	RUN(one_byte_proves_its_page, PRIM_LAZYFREE);
	RUN(one_byte_proves_its_page, PRIM_DROPPABLE);
	RUN(a_page_lost_within_a_reading_hold_is_told_at_its_end);
	RUN(a_pinned_page_stays, REGION_ZERO);
	RUN(a_pinned_page_stays, REGION_RAISE);
	RUN(a_pinned_page_stays, REGION_SIGNAL);
	RUN(a_writing_hold_keeps_and_settles, REGION_ZERO);
	RUN(a_writing_hold_keeps_and_settles, REGION_RAISE);
	RUN(a_writing_hold_keeps_and_settles, REGION_SIGNAL);
	RUN(a_settle_finds_what_was_written);
	RUN(absent_pages_signal);
	RUN(a_refilled_page_is_seen_whole_or_not_at_all);
	RUN(resizing_keeps_what_is_there, REGION_ZERO, PRIM_LAZYFREE);
	RUN(resizing_keeps_what_is_there, REGION_ZERO, PRIM_DROPPABLE);
	RUN(resizing_keeps_what_is_there, REGION_RAISE, PRIM_LAZYFREE);
	RUN(resizing_keeps_what_is_there, REGION_RAISE, PRIM_DROPPABLE);
	RUN(resizing_keeps_what_is_there, REGION_SIGNAL, PRIM_LAZYFREE);
	RUN(a_forked_child_has_the_mapping_without_its_content, REGION_ZERO, PRIM_LAZYFREE);
	RUN(a_forked_child_has_the_mapping_without_its_content, REGION_ZERO, PRIM_DROPPABLE);
	RUN(a_forked_child_has_the_mapping_without_its_content, REGION_RAISE, PRIM_LAZYFREE);
	RUN(a_forked_child_has_the_mapping_without_its_content, REGION_RAISE, PRIM_DROPPABLE);
	RUN(a_forked_child_has_the_mapping_without_its_content, REGION_SIGNAL, PRIM_LAZYFREE);
	RUN(a_shared_region_is_copied_on_write, REGION_ZERO);
	RUN(a_shared_region_is_copied_on_write, REGION_RAISE);
	RUN(a_shared_region_is_copied_on_write, REGION_SIGNAL);
	RUN(a_storm_gives_no_wrong_bytes, REGION_RAISE, PRIM_LAZYFREE);
	RUN(a_storm_gives_no_wrong_bytes, REGION_RAISE, PRIM_DROPPABLE);
	RUN(a_storm_gives_no_wrong_bytes, REGION_SIGNAL, PRIM_LAZYFREE);
	return check_done();
}
