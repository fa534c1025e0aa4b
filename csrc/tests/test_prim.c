/*
 * test_prim.c - prim.h against the kernel that runs: what each call promises, for both backings.
 *
 * Drops are real: prim_page_out() makes the kernel reclaim the pages. It is best effort (a page that is referenced just
 * then is passed over), so page_out_all() repeats it until the census finds nothing resident, a bounded number of times.
 */
#include "os/prim.h"

#include <errno.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"
#include "droppable.h"

enum { PAGES = 64, PAGE_OUT_TRIES = 100 };

static size_t page, size; /* of one page, of PAGES pages; bytes */

static bool offered(enum prim_backing backing)
{
	void *at;
	if (prim_map(backing, page, 0, &at) != DRP_OK)
		return false;
	prim_unmap(at, page);
	return true;
}

static const char *const no_droppable = "this kernel has no MAP_DROPPABLE (Linux 6.11, 64-bit kernels)";
static const char *const no_page_out = "this kernel does not page out on request (Linux 5.4)";

static unsigned char *map(enum prim_backing backing, unsigned flags)
{
	void *at = NULL;
	REQUIRE(prim_map(backing, size, flags, &at) == DRP_OK);
	return at;
}

static unsigned char *map_filled(enum prim_backing backing, unsigned flags)
{
	unsigned char *at = map(backing, flags);
	memset(at, 0x5a, size);
	return at;
}

static size_t pages_with(const unsigned char *at, unsigned char value)
{
	size_t count = 0;
	for (size_t i = 0; i < PAGES; i++)
		count += at[i * page] == value && at[i * page + page - 1] == value;
	return count;
}

static struct prim_census census_of(const void *at, unsigned char *states)
{
	struct prim_census census = {0};
	REQUIRE(prim_census(at, size, states, &census) == DRP_OK);
	CHECK_EQ(census.pages, PAGES);
	CHECK_EQ(census.resident_pages + census.zero_pages + census.absent_pages, PAGES);
	return census;
}

/*
 * Pages with content. A census that is not exact (before Linux 6.7) takes the shared page of zeros, which a read of a
 * dropped page maps and no page-out takes away, for content.
 */
static size_t pages_left(const unsigned char *at)
{
	unsigned char states[PAGES];
	struct prim_census census = census_of(at, states);

	if (!census.exact)
		for (size_t i = 0; i < PAGES; i++)
			census.resident_pages -= states[i] == PRIM_RESIDENT && at[i * page] == 0 && at[i * page + page - 1] == 0;
	return census.resident_pages;
}

/*
 * Every page goes, or the case fails. False, and nothing went: this kernel cannot page out. All of main() runs on one
 * processor, for a page that waits in the batch of another one for its list can be neither marked nor paged out.
 */
static bool page_out_all(unsigned char *at)
{
	size_t left = PAGES;

	for (int tries = 0; tries < PAGE_OUT_TRIES && left > 0; tries++) {
		int status = prim_page_out(at, size);
		if (status == DRP_UNSUPPORTED && tries == 0)
			return false;
		CHECK_EQ(status, DRP_OK);
		left = pages_left(at);
	}
	CHECK_EQ(left, 0);
	return true;
}

static cpu_set_t everywhere; /* that we may run */

static void stay_on_this_processor(void)
{
	cpu_set_t here;

	REQUIRE(sched_getaffinity(0, sizeof(everywhere), &everywhere) == 0);
	CPU_ZERO(&here);
	CPU_SET(sched_getcpu(), &here);
	REQUIRE(sched_setaffinity(0, sizeof(here), &here) == 0);
}

static void a_page_is_a_power_of_two(void)
{
	CHECK(page >= 4096);
	CHECK_EQ(page & (page - 1), 0);
	CHECK_EQ(page, sysconf(_SC_PAGESIZE));
}

static void map_gives_aligned_zeros_and_nothing_resident(enum prim_backing backing)
{
	if (!offered(backing))
		SKIP(no_droppable);
	unsigned char *at = map(backing, 0);
	CHECK_EQ((uintptr_t)at % page, 0);
	CHECK_EQ(census_of(at, NULL).absent_pages, PAGES);
	CHECK_EQ(pages_with(at, 0), PAGES);
	CHECK_EQ(prim_unmap(at, size), DRP_OK);
}

static void marked_pages_keep_their_content_without_pressure(enum prim_backing backing)
{
	if (!offered(backing))
		SKIP(no_droppable);
	unsigned char *at = map_filled(backing, 0);
	CHECK_EQ(prim_mark(at, size), DRP_OK);
	CHECK_EQ(prim_cold(at, size), DRP_OK);
	/* Something else on the machine may take a page at any time: what is there is right, what is not is zero. */
	CHECK_EQ(pages_with(at, 0x5a) + pages_with(at, 0), PAGES);
	prim_unmap(at, size);
}

/* Every other page of a range, in one go: those and no others go under page-out, which passes over what is dirty. */
static void marks_ranges_that_lie_apart(void)
{
	unsigned char *at = map_filled(PRIM_LAZYFREE, 0);
	struct iovec ranges[PAGES / 2];
	unsigned char states[PAGES];
	int status = DRP_OK;

	for (size_t i = 0; i < PAGES / 2; i++)
		ranges[i] = (struct iovec){at + 2 * i * page, page};
	CHECK_EQ(prim_mark_ranges(ranges, PAGES / 2), DRP_OK);
	for (int tries = 0; tries < PAGE_OUT_TRIES && status == DRP_OK; tries++) {
		status = prim_page_out(at, size);
		if (census_of(at, states).absent_pages == PAGES / 2)
			break;
	}
	if (status == DRP_UNSUPPORTED)
		SKIP(no_page_out);
	CHECK_EQ(status, DRP_OK);
	for (size_t i = 0; i < PAGES; i += 2)
		CHECK_EQ(states[i], PRIM_ABSENT);
	for (size_t i = 1; i < PAGES; i += 2)
		CHECK_EQ(at[i * page], 0x5a);
	prim_unmap(at, size);
}

static void page_out_drops_marked_pages(enum prim_backing backing)
{
	if (!offered(backing))
		SKIP(no_droppable);
	unsigned char *at = map_filled(backing, 0);
	CHECK_EQ(prim_mark(at, size), DRP_OK);
	if (!page_out_all(at))
		SKIP(no_page_out);
	CHECK_EQ(pages_with(at, 0), PAGES);
	prim_unmap(at, size);
}

static void page_out_leaves_dirty_lazyfree_pages(void)
{
	unsigned char *at = map_filled(PRIM_LAZYFREE, 0);
	prim_page_out(at, size); /* to swap, at most */
	CHECK_EQ(pages_with(at, 0x5a), PAGES);
	CHECK_EQ(prim_mark(at, size), DRP_OK);
	memset(at, 0x33, size); /* a write after the mark keeps the page again */
	prim_page_out(at, size);
	CHECK_EQ(pages_with(at, 0x33), PAGES);
	prim_unmap(at, size);
}

static void plain_pages_are_never_dropped(void)
{
	unsigned char *at = map_filled(PRIM_PLAIN, 0);
	prim_page_out(at, size);
	CHECK_EQ(pages_with(at, 0x5a), PAGES);
	prim_unmap(at, size);
}

static void pinned_pages_stay_until_marked_again(void)
{
	unsigned char *at = map_filled(PRIM_LAZYFREE, 0);
	CHECK_EQ(prim_mark(at, size), DRP_OK);
	prim_pin(at + page / 2, 2 * page); /* any range of bytes: touches three pages */
	for (int tries = 0; tries < PAGE_OUT_TRIES; tries++)
		prim_page_out(at, size);
	for (size_t i = 0; i < 3; i++)
		CHECK_EQ(at[i * page], 0x5a);
	CHECK(pages_with(at, 0x5a) + pages_with(at, 0) == PAGES);

	/* Where there is a swap disk, a pinned page may be on its way to it: a mark passes over it, and the next one does not. */
	for (int tries = 0; tries < PAGE_OUT_TRIES && pages_with(at, 0) < PAGES; tries++) {
		CHECK_EQ(prim_mark(at, size), DRP_OK);
		if (!page_out_all(at))
			SKIP(no_page_out);
	}
	CHECK_EQ(pages_with(at, 0), PAGES);
	prim_unmap(at, size);
}

static void run_on(int processor)
{
	cpu_set_t one;

	CPU_ZERO(&one);
	CPU_SET(processor, &one);
	REQUIRE(sched_setaffinity(0, sizeof(one), &one) == 0);
}

/*
 * Pages that are new wait in a batch of the processor that touched them first (15 or 31 of them). Marked from another
 * one meanwhile they may be passed over, and stay: ordinary memory, until they are marked again.
 */
static void pages_in_another_processors_batch_go_when_they_are_marked_again(void)
{
	enum { BATCH = 8 };
	int processors[2], count = 0;
	cpu_set_t before;

	REQUIRE(sched_getaffinity(0, sizeof(before), &before) == 0);
	REQUIRE(sched_setaffinity(0, sizeof(everywhere), &everywhere) == 0);
	for (int i = 0; i < CPU_SETSIZE && count < 2; i++)
		if (CPU_ISSET(i, &everywhere))
			processors[count++] = i;
	if (count < 2) {
		REQUIRE(sched_setaffinity(0, sizeof(before), &before) == 0);
		SKIP("it takes two processors");
	}
	unsigned char *at = map(PRIM_LAZYFREE, 0);
	run_on(processors[0]);
	for (size_t i = 0; i < BATCH; i++)
		memset(at + i * page, 0x5a, page);
	run_on(processors[1]);
	CHECK_EQ(prim_mark(at, size), DRP_OK);
	if (prim_page_out(at, size) == DRP_UNSUPPORTED)
		SKIP(no_page_out);
	printf("# %zu of %d pages were passed over\n", pages_left(at), (int)BATCH);
	/*
	 * A mark empties the batches of its own processor first. Which that is cannot be told: if another program emptied the
	 * first one's before, the page-out tried these pages, in vain, and left them in the batch of the second.
	 */
	for (int tries = 0; tries < PAGE_OUT_TRIES && pages_left(at) > 0; tries++) {
		run_on(processors[tries % 2]);
		CHECK_EQ(prim_mark(at, size), DRP_OK);
		CHECK_EQ(prim_page_out(at, size), DRP_OK);
	}
	CHECK_EQ(pages_left(at), 0);
	REQUIRE(sched_setaffinity(0, sizeof(before), &before) == 0);
	prim_unmap(at, size);
}

static void pinning_what_was_dropped_gives_zeros(void)
{
	unsigned char *at = map_filled(PRIM_LAZYFREE, 0);
	CHECK_EQ(prim_purge(at, size), DRP_OK);
	prim_pin(at, size);
	CHECK_EQ(census_of(at, NULL).resident_pages, PAGES);
	CHECK_EQ(pages_with(at, 0), PAGES);
	prim_unmap(at, size);
}

static void purge_gives_back_now(enum prim_backing backing)
{
	if (!offered(backing))
		SKIP(no_droppable);
	unsigned char *at = map_filled(backing, 0);
	CHECK_EQ(prim_purge(at + page, page), DRP_OK);
	CHECK_EQ(at[page], 0);
	CHECK_EQ(prim_purge(at, size), DRP_OK);
	CHECK_EQ(census_of(at, NULL).absent_pages, PAGES);
	CHECK_EQ(pages_with(at, 0), PAGES);
	prim_unmap(at, size);
}

static void census_tells_zero_pages_from_resident_ones(enum prim_backing backing)
{
	unsigned char states[PAGES];

	if (!offered(backing))
		SKIP(no_droppable);
	unsigned char *at = map(backing, 0);
	volatile unsigned char *touch = at;
	touch[0] = 1;           /* page 0: resident */
	(void)touch[2 * page];  /* page 2: read only, so the shared zero page */
	struct prim_census census = census_of(at, states);
	if (!census.exact)
		SKIP("this kernel has no PAGEMAP_SCAN (Linux 6.7): the census counts zero pages as resident");
	CHECK_EQ(census.resident_pages, 1);
	CHECK_EQ(census.zero_pages, 1);
	CHECK_EQ(states[0], PRIM_RESIDENT);
	CHECK_EQ(states[1], PRIM_ABSENT);
	CHECK_EQ(states[2], PRIM_ZERO);
	CHECK_EQ(states[PAGES - 1], PRIM_ABSENT);
	prim_unmap(at, size);
}

/* More alternations than one batch of PAGEMAP_SCAN holds. */
static void census_counts_many_small_ranges(void)
{
	enum { MANY = 2048 };
	static unsigned char states[MANY];
	struct prim_census census = {0};
	void *mapped = NULL;

	REQUIRE(prim_map(PRIM_LAZYFREE, MANY * page, 0, &mapped) == DRP_OK);
	unsigned char *at = mapped;
	for (size_t i = 0; i < MANY; i += 2)
		at[i * page] = 1;
	CHECK_EQ(prim_census(at, MANY * page, states, &census), DRP_OK);
	CHECK_EQ(census.resident_pages, MANY / 2);
	CHECK_EQ(census.absent_pages, MANY / 2);
	for (size_t i = 0; i < MANY; i++)
		if (!CHECK_EQ(states[i], i % 2 == 0 ? PRIM_RESIDENT : PRIM_ABSENT))
			break;
	prim_unmap(at, MANY * page);
}

/* What a child forked now finds at `at`: its pages with 0x5a, or -1 where it did not end well. */
static int pages_seen_by_child(const unsigned char *at)
{
	int status;

	fflush(stdout);
	pid_t child = fork();
	REQUIRE(child >= 0);
	if (child == 0)
		_exit((int)pages_with(at, 0x5a));
	REQUIRE(waitpid(child, &status, 0) == child);
	return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static void a_fork_sees(enum prim_backing backing, unsigned flags, int pages)
{
	if (!offered(backing))
		SKIP(no_droppable);
	unsigned char *at = map_filled(backing, flags);
	CHECK_EQ(pages_seen_by_child(at), pages);
	CHECK_EQ(pages_with(at, 0x5a), PAGES);
	prim_unmap(at, size);
}

static void fork_content_can_be_chosen_later(void)
{
	unsigned char *at = map_filled(PRIM_LAZYFREE, 0);
	CHECK_EQ(prim_fork_content(at, size / 2, true), DRP_OK);
	CHECK_EQ(pages_seen_by_child(at), PAGES / 2);
	CHECK_EQ(prim_fork_content(at, size / 2, false), DRP_OK);
	CHECK_EQ(pages_seen_by_child(at), 0);
	prim_unmap(at, size);
}

static void droppable_offers_no_fork_content(void)
{
	void *at = NULL;

	errno = 0;
	CHECK_EQ(prim_map(PRIM_DROPPABLE, size, PRIM_KEEP_ON_FORK, &at), DRP_UNSUPPORTED);
	CHECK_EQ(errno, EINVAL);
	CHECK(at == NULL);
	if (!offered(PRIM_DROPPABLE))
		SKIP(no_droppable);
	at = map(PRIM_DROPPABLE, 0);
	CHECK_EQ(prim_fork_content(at, size, true), DRP_UNSUPPORTED);
	prim_unmap(at, size);
}

static void flags_for_pages_and_dumps_are_taken(enum prim_backing backing)
{
	if (!offered(backing))
		SKIP(no_droppable);
	unsigned char *at = map_filled(backing, PRIM_HUGE_PAGES | PRIM_DUMPABLE);
	CHECK_EQ(prim_mark(at, size), DRP_OK);
	prim_unmap(at, size);
}

static void too_much_is_no_memory(void)
{
	void *at = NULL;
	size_t most = SIZE_MAX & ~(page - 1);

	CHECK_EQ(prim_map(PRIM_LAZYFREE, most, 0, &at), DRP_NO_MEMORY);
	CHECK(at == NULL);
}

/* Signal mode: the fault's address, then back to where the access began. */
static sigjmp_buf before_access;
static volatile uintptr_t fault_address;
static volatile int fault_code;

static void on_bus(int number, siginfo_t *info, void *context)
{
	(void)number;
	(void)context;
	fault_address = (uintptr_t)info->si_addr;
	fault_code = info->si_code;
	siglongjmp(before_access, 1);
}

static bool raises_bus(const volatile unsigned char *at)
{
	if (sigsetjmp(before_access, 1) != 0)
		return true;
	(void)*at;
	return false;
}

static void signal_mode_raises_where_a_page_is_gone_and_refills(void)
{
	struct sigaction action = {.sa_sigaction = on_bus, .sa_flags = SA_SIGINFO}, before;
	size_t done_bytes = 0;
	int handle, pipes[2];

	if (prim_signal_open(&handle) == DRP_UNSUPPORTED)
		SKIP("userfaultfd is not to be had here (kernel configuration, seccomp or vm.unprivileged_userfaultfd)");
	unsigned char *at = map_filled(PRIM_LAZYFREE, 0);
	unsigned char *source = map_filled(PRIM_PLAIN, 0);
	memset(source, 0x77, size);
	REQUIRE(sigaction(SIGBUS, &action, &before) == 0);

	REQUIRE(prim_signal_arm(handle, at, size) == DRP_OK);
	CHECK(!raises_bus(at)); /* present pages are read as ever */
	CHECK_EQ(prim_mark(at, size), DRP_OK);
	if (!page_out_all(at))
		CHECK_EQ(prim_purge(at, size), DRP_OK);
	CHECK(raises_bus(at + 3 * page + 17));
	CHECK_EQ(fault_address & ~(page - 1), (uintptr_t)(at + 3 * page));
	CHECK_EQ(fault_code, BUS_ADRERR);
	REQUIRE(pipe(pipes) == 0);
	CHECK_EQ(write(pipes[1], at, 1), -1); /* a system call on it fails instead */
	CHECK_EQ(errno, EFAULT);
	close(pipes[0]);
	close(pipes[1]);

	CHECK_EQ(prim_signal_refill(handle, at, source, size / 2, &done_bytes), DRP_OK);
	CHECK_EQ(done_bytes, size / 2);
	CHECK(!raises_bus(at));
	CHECK(raises_bus(at + size / 2));
	CHECK_EQ(at[size / 2 - 1], 0x77);
	CHECK_EQ(prim_signal_refill(handle, at + size / 4, source, size / 2, &done_bytes), DRP_EXISTS);
	CHECK_EQ(done_bytes, 0);

	CHECK_EQ(prim_signal_disarm(handle, at, size), DRP_OK);
	CHECK(!raises_bus(at + size / 2));
	CHECK_EQ(at[size / 2], 0);

	sigaction(SIGBUS, &before, NULL);
	prim_signal_close(handle);
	prim_unmap(at, size);
	prim_unmap(source, size);
}

static void signal_mode_refuses_droppable_memory(void)
{
	int handle;

	if (!offered(PRIM_DROPPABLE))
		SKIP(no_droppable);
	if (prim_signal_open(&handle) == DRP_UNSUPPORTED)
		SKIP("userfaultfd is not to be had here (kernel configuration, seccomp or vm.unprivileged_userfaultfd)");
	unsigned char *at = map(PRIM_DROPPABLE, 0);
	int status = prim_signal_arm(handle, at, size);
	prim_signal_close(handle);
	prim_unmap(at, size);
	if (status == DRP_OK)
		SKIP("this kernel takes userfaultfd on MAP_DROPPABLE by mistake (Linux 6.11 to 6.15)");
	CHECK_EQ(status, DRP_UNSUPPORTED);
}

static void headroom_is_within_the_machine(void)
{
	struct prim_headroom room = {0};

	CHECK_EQ(prim_headroom(&room), DRP_OK);
	CHECK(room.limit_bytes > 0 && room.limit_bytes < UINT64_MAX); /* the machine's memory at the latest */
	CHECK(room.usage_bytes > 0);
	CHECK(room.reclaimable_bytes <= room.limit_bytes);
}

static void clocks_go_forward(void)
{
	uint64_t fine = prim_now_ns(), coarse = prim_now_coarse_ns();

	CHECK(fine > 0 && coarse > 0);
	CHECK(prim_now_ns() >= fine);
	CHECK(prim_now_coarse_ns() >= coarse);
}

static void random_fills_the_whole_buffer(void)
{
	static unsigned char bytes[100000];
	size_t zeros = 0;

	CHECK_EQ(prim_random(bytes, sizeof(bytes)), DRP_OK);
	for (size_t i = 0; i < sizeof(bytes); i++)
		zeros += bytes[i] == 0;
	CHECK(zeros < sizeof(bytes) / 64); /* expected 1/256 */
	CHECK_EQ(prim_random(bytes, 0), DRP_OK);
}

static void the_processor_is_one_of_the_machine(void)
{
	CHECK((long)prim_cpu() < sysconf(_SC_NPROCESSORS_CONF));
}

int main(void)
{
	page = prim_page_size();
	size = PAGES * page;
	stay_on_this_processor();

	RUN(a_page_is_a_power_of_two);
	RUN(map_gives_aligned_zeros_and_nothing_resident, PRIM_LAZYFREE);
	RUN(map_gives_aligned_zeros_and_nothing_resident, PRIM_DROPPABLE);
	RUN(map_gives_aligned_zeros_and_nothing_resident, PRIM_PLAIN);
	RUN(marked_pages_keep_their_content_without_pressure, PRIM_LAZYFREE);
	RUN(marked_pages_keep_their_content_without_pressure, PRIM_DROPPABLE);
	RUN(marks_ranges_that_lie_apart, );
	RUN(page_out_drops_marked_pages, PRIM_LAZYFREE);
	RUN(page_out_drops_marked_pages, PRIM_DROPPABLE);
	RUN(page_out_leaves_dirty_lazyfree_pages);
	RUN(plain_pages_are_never_dropped);
	RUN(pinned_pages_stay_until_marked_again);
	RUN(pages_in_another_processors_batch_go_when_they_are_marked_again);
	RUN(pinning_what_was_dropped_gives_zeros);
	RUN(purge_gives_back_now, PRIM_LAZYFREE);
	RUN(purge_gives_back_now, PRIM_DROPPABLE);
	RUN(purge_gives_back_now, PRIM_PLAIN);
	RUN(census_tells_zero_pages_from_resident_ones, PRIM_LAZYFREE);
	RUN(census_tells_zero_pages_from_resident_ones, PRIM_DROPPABLE);
	RUN(census_counts_many_small_ranges);
	RUN(a_fork_sees, PRIM_LAZYFREE, 0, 0);
	RUN(a_fork_sees, PRIM_LAZYFREE, PRIM_KEEP_ON_FORK, PAGES);
	RUN(a_fork_sees, PRIM_PLAIN, 0, PAGES);
	RUN(a_fork_sees, PRIM_DROPPABLE, 0, 0);
	RUN(fork_content_can_be_chosen_later);
	RUN(droppable_offers_no_fork_content);
	RUN(flags_for_pages_and_dumps_are_taken, PRIM_LAZYFREE);
	RUN(flags_for_pages_and_dumps_are_taken, PRIM_DROPPABLE);
	RUN(too_much_is_no_memory);
	RUN(signal_mode_raises_where_a_page_is_gone_and_refills);
	RUN(signal_mode_refuses_droppable_memory);
	RUN(headroom_is_within_the_machine);
	RUN(clocks_go_forward);
	RUN(random_fills_the_whole_buffer);
	RUN(the_processor_is_one_of_the_machine);
	return check_done();
}
