/*
 * test_region_repair.c - readers hear of repairs that they meet, and holds are found wherever they lie; on prim_fake.
 *
 *   reader    |------- reading ---------|
 *   kernel         takes page 2
 *   other thread        repairs page 2          the reader saw zeros, and at its end everything is there
 *
 * What happens inside a repair is done from the fake's look at purges: while the page that went is purged, and before its
 * new content is written.
 */
#include "region/region.h"

#include <pthread.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "region/region_holds.h"
#include "check.h"
#include "prim_fake.h"

enum { PAGES = 8, MAX_PAGE_BYTES = 65536, HOLDS = 300, PLACES = 64 };

static unsigned char content[PAGES * MAX_PAGE_BYTES], got[PAGES * MAX_PAGE_BYTES];
static size_t page;

static struct region *opened(enum prim_backing backing, bool keep_on_fork)
{
	const struct region_options options = {.on_drop = REGION_RAISE, .backing = backing, .keep_on_fork = keep_on_fork,
					       .name = "repair"};
	struct region_gone gone = {0};
	struct region *region = NULL;

	fake_reset();
	page = prim_page_size();
	for (size_t i = 0; i < PAGES * page; i++)
		content[i] = (unsigned char)(i % 251 + 1);
	REQUIRE(region_open(PAGES * page, &options, &region) == DRP_OK);
	REQUIRE(region_write(region, 0, content, PAGES * page, &gone) == DRP_OK);
	REQUIRE(region_settle(region, 0, PAGES * page) == DRP_OK);
	return region;
}

static void drop(struct region *region, size_t number)
{
	fake_drop_at((unsigned char *)region_memory(region) + number * page);
}

static int write_pages(struct region *region, size_t first, size_t end)
{
	struct region_gone gone = {0};
	int status = region_write(region, first * page, content + first * page, (end - first) * page, &gone);
	region_gone_free(&gone);
	return status;
}

static void begin(struct region *region, struct region_hold *hold, size_t first, size_t end)
{
	struct region_gone gone = {0};
	REQUIRE(region_hold_begin(region, REGION_HOLD_READ, first * page, (end - first) * page, hold, &gone) == DRP_OK);
}

/* The hold ends; pages [first, end) are told to be gone, or none if they are equal. */
static void finish(struct region *region, struct region_hold *hold, size_t first, size_t end)
{
	struct region_gone gone = {0};
	int status = region_hold_end(region, hold, &gone);

	CHECK_EQ(status, first == end ? DRP_OK : DRP_FAULT);
	CHECK_EQ(gone.count, first == end ? 0 : 1);
	if (gone.count == 1) {
		CHECK_EQ(gone.ranges[0].start, first * page);
		CHECK_EQ(gone.ranges[0].stop, end * page);
	}
	region_gone_free(&gone);
}

static void check_read(struct region *region, int wanted)
{
	struct region_gone gone = {0};
	int status = region_read(region, 0, got, PAGES * page, &gone);

	CHECK_EQ(status, wanted);
	if (status == DRP_OK)
		CHECK(memcmp(got, content, PAGES * page) == 0);
	region_gone_free(&gone);
}

static void a_repair_is_told_to_who_reads_the_page(enum prim_backing backing)
{
	struct region *region = opened(backing, false);
	struct region_hold all, of_it, before, behind, again;

	begin(region, &all, 0, PAGES);
	begin(region, &of_it, 2, 3);
	begin(region, &before, 0, 2);
	begin(region, &behind, 3, PAGES);
	drop(region, 2);
	CHECK_EQ(write_pages(region, 2, 3), DRP_OK);
	begin(region, &again, 0, PAGES);
	check_read(region, DRP_OK);
	finish(region, &behind, 0, 0);
	finish(region, &all, 2, 3);
	finish(region, &again, 0, 0);
	finish(region, &before, 0, 0);
	finish(region, &of_it, 2, 3);
	region_close(region);
	CHECK_EQ(fake_mappings(), 0);
}

static void a_purge_is_told_to_who_reads_the_pages(enum prim_backing backing)
{
	struct region *region = opened(backing, false);
	struct region_hold hold;

	begin(region, &hold, 1, 6);
	drop(region, 4);
	CHECK_EQ(region_purge(region, 4 * page, page), DRP_OK); /* zeros by rights from here on, but not for this reader */
	finish(region, &hold, 4, 5);
	begin(region, &hold, 1, 6);
	finish(region, &hold, 0, 0);
	region_close(region);
}

static void two_repairs_in_one_reading(enum prim_backing backing)
{
	struct region *region = opened(backing, false);
	struct region_hold hold;

	begin(region, &hold, 0, PAGES);
	drop(region, 5);
	CHECK_EQ(write_pages(region, 5, 6), DRP_OK);
	drop(region, 3);
	CHECK_EQ(write_pages(region, 3, 4), DRP_OK);
	finish(region, &hold, 3, 6); /* and what lies between: which of it, is not noted */
	region_close(region);
}

static void writing_what_is_there_is_no_repair(enum prim_backing backing)
{
	struct region *region = opened(backing, false);
	struct region_gone gone = {0};
	struct region_hold hold;

	begin(region, &hold, 0, PAGES);
	CHECK_EQ(write_pages(region, 1, 4), DRP_OK);
	CHECK_EQ(region_write(region, 5 * page + 10, content + 5 * page + 10, 100, &gone), DRP_OK);
	CHECK_EQ(region_settle(region, 0, PAGES * page), DRP_OK);
	finish(region, &hold, 0, 0);
	region_close(region);
}

/* A drop at each step of a write of all pages, beside a reader of all of them. */
static void a_page_that_goes_while_it_is_written(enum prim_backing backing)
{
	for (size_t step = 1, steps = 1; step <= steps; step++) {
		struct region *region = opened(backing, false);
		struct region_gone gone = {0};
		struct region_hold hold;

		begin(region, &hold, 0, PAGES);
		fake_drop_at_step(step, FAKE_EVERY_PAGE);
		int written = write_pages(region, 0, PAGES);
		steps = fake_steps();
		fake_drop_at_step(0, 0);
		int status = region_hold_end(region, &hold, &gone);
		/* Zeros could be read at that step, unless nothing could go there. */
		if (written == DRP_OK && status == DRP_OK)
			check_read(region, DRP_OK);
		region_gone_free(&gone);
		region_close(region);
	}
}

/* In the middle of a repair */

static struct {
	struct region *region;
	struct region_hold hold;
	bool done;
} middle;

static void *fork_elsewhere(void *unused)
{
	(void)unused;
	fflush(stdout);
	pid_t pid = fork();
	if (pid == 0) {
		struct region_gone gone = {0};
		/* Its writer is not here: the page that it had begun to repair is gone, whatever its content looks like. */
		CHECK_EQ(region_read(middle.region, 2 * page, got, page, &gone), DRP_FAULT);
		region_gone_free(&gone);
		CHECK_EQ(write_pages(middle.region, 0, PAGES), DRP_OK);
		check_read(middle.region, DRP_OK);
		_exit(check_failures());
	}
	int status;
	REQUIRE(waitpid(pid, &status, 0) == pid);
	CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
	return NULL;
}

static bool in_the_middle(void *unused)
{
	(void)unused;
	if (middle.done)
		return false;
	middle.done = true;
	begin(middle.region, &middle.hold, 1, 4);
	check_read(middle.region, DRP_FAULT);
	return false;
}

static void a_reader_that_begins_during_a_repair_is_told(void)
{
	struct region *region = opened(PRIM_LAZYFREE, false);

	drop(region, 2);
	middle = (typeof(middle)){.region = region};
	fake_watch_lock(in_the_middle, NULL);
	CHECK_EQ(write_pages(region, 2, 3), DRP_OK);
	fake_watch_lock(NULL, NULL);
	CHECK(middle.done);
	finish(region, &middle.hold, 2, 3);
	check_read(region, DRP_OK);
	region_close(region);
}

/* Half of the page is there, and its first byte, which would be its witness. */
static void a_fork_during_another_threads_repair(bool keep_on_fork)
{
	struct region *region = opened(PRIM_LAZYFREE, keep_on_fork);
	struct region_hold writer = {.kind = REGION_HOLD_WRITE, .first_page = 2, .end_page = 3};
	pthread_t thread;

	middle = (typeof(middle)){.region = region};
	pthread_mutex_lock(&region->lock);
	region_link_hold(region, &writer);
	pthread_mutex_unlock(&region->lock);
	region_repair_by_hold(region, &writer);
	REQUIRE(prim_purge(region_page(region, 2), page) == DRP_OK);
	region_set_state(region, 2, STATE_EMPTY);
	memcpy(region_page(region, 2), content + 2 * page, page / 2);
	REQUIRE(pthread_create(&thread, NULL, fork_elsewhere, NULL) == 0);
	REQUIRE(pthread_join(thread, NULL) == 0);
	memcpy(region_page(region, 2), content + 2 * page, page);
	region_set_state(region, 2, STATE_OPEN);
	pthread_mutex_lock(&region->lock);
	region_unlink_hold(region, &writer);
	CHECK_EQ(region_settle_locked(region, 2, 3, SETTLE_KNOWN), DRP_OK);
	pthread_mutex_unlock(&region->lock);
	check_read(region, DRP_OK);
	region_close(region);
}

/* The child goes on with the reading that its thread had begun. */
static void a_fork_during_a_reading(bool keep_on_fork)
{
	struct region *region = opened(PRIM_LAZYFREE, keep_on_fork);
	struct region_hold hold;

	begin(region, &hold, 0, PAGES);
	fflush(stdout);
	pid_t pid = fork();
	REQUIRE(pid >= 0);
	if (pid == 0) {
		if (keep_on_fork)
			drop(region, 3);
		CHECK_EQ(write_pages(region, 0, PAGES), DRP_OK);
		finish(region, &hold, 0, PAGES);
		check_read(region, DRP_OK);
		_exit(check_failures());
	}
	int status;
	REQUIRE(waitpid(pid, &status, 0) == pid);
	CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
	finish(region, &hold, 0, 0);
	region_close(region);
}

/* Holds */

static unsigned random_below(unsigned *state, unsigned bound)
{
	*state = *state * 1103515245u + 12345u;
	return (*state >> 16) % bound;
}

/* The tree answers as a list of all holds would. */
static void check_holds(struct region *region, const struct region_hold *holds, const bool *held)
{
	bool is_held[PLACES] = {false};

	for (size_t i = 0; i < HOLDS; i++)
		for (size_t at = holds[i].first_page; held[i] && at < holds[i].end_page; at++)
			is_held[at] = true;
	for (size_t first = 0; first < PLACES; first++) {
		bool any = false;
		for (size_t end = first + 1; end <= PLACES; end++) {
			any = any || is_held[end - 1];
			CHECK_EQ(region_is_held(region, first, end), any);
		}
	}
	for (size_t at = 0, run_end, seen = 0; ; at = run_end) {
		bool more = region_next_unheld(region, &at, PLACES, &run_end);
		for (; seen < (more ? at : PLACES); seen++)
			CHECK(is_held[seen]);
		if (!more)
			break;
		for (; seen < run_end; seen++)
			CHECK(!is_held[seen]);
	}
}

/* Two pages went, and the write of both fails at each call that it makes: what it gave back is no page of zeros now. */
static void what_a_failed_repair_gave_back_is_still_gone(enum prim_backing backing)
{
	size_t failures = 0;

	for (size_t call = 1; ; call++) {
		struct region *region = opened(backing, false);
		struct region_gone gone = {0};
		drop(region, 2);
		drop(region, 3);
		fake_fail_call(call);
		const int status = write_pages(region, 2, 4);
		fake_fail_call(0);
		for (size_t at = 2; at < 4; at++) {
			const int there = region_read(region, at * page, got, page, &gone);
			CHECK(there == DRP_FAULT || memcmp(got, content + at * page, page) == 0);
			region_gone_free(&gone);
		}
		if (status != DRP_OK) { /* whatever it was that failed, it can be written again */
			failures++;
			CHECK_EQ(write_pages(region, 2, 4), DRP_OK);
		}
		check_read(region, DRP_OK);
		region_close(region);
		if (status == DRP_OK)
			break;
	}
	CHECK(failures >= 2); /* the purge of each page */
}

static void holds_are_found(void)
{
	static struct region_hold holds[HOLDS];
	static bool held[HOLDS];
	struct region *region = opened(PRIM_LAZYFREE, false);
	unsigned state = 1;

	for (unsigned round = 0; round < 3000; round++) {
		size_t i = random_below(&state, HOLDS);
		if (held[i]) {
			region_unlink_hold(region, &holds[i]);
		} else {
			size_t first = random_below(&state, PLACES), most = round % 2 ? 3 : PLACES;
			size_t end = first + 1 + random_below(&state, most);
			holds[i].first_page = first;
			holds[i].end_page = end < PLACES ? end : PLACES;
			region_link_hold(region, &holds[i]);
		}
		held[i] = !held[i];
		if (round % 50 == 0)
			check_holds(region, holds, held);
	}
	for (size_t i = 0; i < HOLDS; i++) {
		region_unlink_hold(region, &holds[i]); /* those that are in no tree, too */
		held[i] = false;
	}
	check_holds(region, holds, held);
	CHECK(!region->holds);
	region_close(region);
}

int main(void)
{
	RUN(a_repair_is_told_to_who_reads_the_page, PRIM_LAZYFREE);
	RUN(a_repair_is_told_to_who_reads_the_page, PRIM_DROPPABLE);
	RUN(a_purge_is_told_to_who_reads_the_pages, PRIM_LAZYFREE);
	RUN(a_purge_is_told_to_who_reads_the_pages, PRIM_DROPPABLE);
	RUN(two_repairs_in_one_reading, PRIM_LAZYFREE);
	RUN(two_repairs_in_one_reading, PRIM_DROPPABLE);
	RUN(writing_what_is_there_is_no_repair, PRIM_LAZYFREE);
	RUN(writing_what_is_there_is_no_repair, PRIM_DROPPABLE);
	RUN(a_page_that_goes_while_it_is_written, PRIM_LAZYFREE);
	RUN(a_page_that_goes_while_it_is_written, PRIM_DROPPABLE);
	RUN(what_a_failed_repair_gave_back_is_still_gone, PRIM_LAZYFREE);
	RUN(what_a_failed_repair_gave_back_is_still_gone, PRIM_DROPPABLE);
	RUN(a_reader_that_begins_during_a_repair_is_told);
	RUN(a_fork_during_another_threads_repair, false);
	RUN(a_fork_during_another_threads_repair, true);
	RUN(a_fork_during_a_reading, false);
	RUN(a_fork_during_a_reading, true);
	RUN(holds_are_found);
	return check_done();
}
