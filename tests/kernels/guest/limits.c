/*
 * limits.c - what a machine's limits do to both backings: overcommit, RLIMIT_MEMLOCK, more than 4 GiB, huge pages, and
 * a fault when there is no memory left.
 */
#include "guest.h"

enum { NOBODY = 65534 };

static size_t ram_bytes(void)
{
	struct sysinfo machine;

	sysinfo(&machine);
	return (size_t)machine.totalram * machine.mem_unit;
}

static void more_than_ram_can_be_mapped(enum prim_backing backing)
{
	if (!guest_has(backing))
		SKIP(guest_no_droppable);
	size_t length = ram_bytes() / 2 * 3 / MIB * MIB;
	char *at = guest_map(backing, length, 0);
	at[0] = at[length - 1] = 1;
	CHECK_EQ(prim_unmap(at, length), DRP_OK);
}

/* Mode 2 counts every private mapping, MAP_NORESERVE or not; droppable memory is reserved nowhere. */
static void strict_overcommit(enum prim_backing backing, int expected)
{
	void *at = NULL;
	size_t length = ram_bytes() / 2 * 3 / MIB * MIB;

	if (!guest_has(backing))
		SKIP(guest_no_droppable);
	guest_write("/proc/sys/vm/overcommit_memory", "2");
	int large = prim_map(backing, length, 0, &at);
	guest_write("/proc/sys/vm/overcommit_memory", "0");
	CHECK_EQ(large, expected);
	if (large == DRP_OK)
		CHECK_EQ(prim_unmap(at, length), DRP_OK);
}

static void without_memlock(enum prim_backing backing)
{
	const struct rlimit none = {0, 0};
	const size_t length = 16 * MIB;

	REQUIRE(setrlimit(RLIMIT_MEMLOCK, &none) == 0 && setgid(NOBODY) == 0 && setuid(NOBODY) == 0);
	char *at = guest_filled(backing, length);
	CHECK_EQ(guest_live_pages(at, length), length / prim_page_size());
	CHECK_EQ(guest_field("/proc/self/status", "VmLck:"), 0);
	CHECK_EQ(mlock(at, length), -1); /* with a budget of 0 refused for any mapping, before it is looked at */
	CHECK_EQ(errno, EPERM);
	CHECK_EQ(guest_field("/proc/self/status", "VmLck:"), 0);
}

static void nothing_counts_against_the_mlock_budget(enum prim_backing backing)
{
	if (!guest_has(backing))
		SKIP(guest_no_droppable);
	CHECK_EQ(guest_child(without_memlock, backing), 0);
}

static void mlock_of_droppable_memory_does_nothing(void)
{
	const size_t length = 16 * MIB;

	if (!guest_has(PRIM_DROPPABLE))
		SKIP(guest_no_droppable);
	char *at = guest_filled(PRIM_DROPPABLE, length);
	CHECK_EQ(mlock(at, length), 0);
	CHECK_EQ(guest_field("/proc/self/status", "VmLck:"), 0);
	CHECK_EQ(prim_page_out(at, length), DRP_OK);
	CHECK(guest_live_pages(at, length) < length / prim_page_size());
	CHECK_EQ(prim_unmap(at, length), DRP_OK);
}

static void more_than_4_gib(enum prim_backing backing)
{
	if (sizeof(size_t) < 8)
		SKIP("an address space of 4 GiB has no room for it");
	if (!guest_has(backing))
		SKIP(guest_no_droppable);
	const size_t gib4 = (size_t)((unsigned long long)4 << 30 & SIZE_MAX), length = gib4 + gib4 / 2;
	struct prim_census census = {0};
	char *at = guest_map(backing, length, 0);
	const size_t places[] = {0, gib4 - prim_page_size(), gib4, length - prim_page_size()};

	for (int i = 0; i < 4; i++)
		at[places[i]] = 1;
	CHECK_EQ(prim_mark(at, length), DRP_OK);
	for (int i = 0; i < 4; i++)
		CHECK_EQ(at[places[i]], 1);
	CHECK_EQ(prim_census(at, length, NULL, &census), DRP_OK);
	CHECK_EQ(census.resident_pages, 4);
	CHECK_EQ(prim_purge(at, length), DRP_OK);
	for (int i = 0; i < 4; i++)
		CHECK_EQ(at[places[i]], 0);
	CHECK_EQ(prim_unmap(at, length), DRP_OK);
}

static long huge_kib(const char *at)
{
	char line[256], start[32];
	bool here = false;
	long kib = -1;
	FILE *smaps = fopen("/proc/self/smaps", "re");

	REQUIRE(smaps);
	snprintf(start, sizeof(start), "%lx-", (unsigned long)at);
	while (kib < 0 && fgets(line, sizeof(line), smaps)) {
		here = here || strncmp(line, start, strlen(start)) == 0;
		if (here && strncmp(line, "AnonHugePages:", 14) == 0)
			kib = atol(line + 14);
	}
	fclose(smaps);
	return kib;
}

static void huge_pages(enum prim_backing backing, unsigned flags)
{
	const size_t length = 64 * MIB;

	if (!guest_has(backing))
		SKIP(guest_no_droppable);
	if (access("/sys/kernel/mm/transparent_hugepage/enabled", W_OK) != 0)
		SKIP("this kernel has no transparent huge pages");
	guest_write("/sys/kernel/mm/transparent_hugepage/enabled", "always");
	char *at = guest_map(backing, length, flags);
	for (size_t offset = 0; offset < length; offset += prim_page_size())
		at[offset] = 1;
	long kib = huge_kib(at);
	printf("# %ld KiB in huge pages\n", kib);
	CHECK(flags & PRIM_HUGE_PAGES ? kib > 0 : kib == 0);
	CHECK_EQ(prim_mark(at, length), DRP_OK);
	CHECK_EQ(guest_live_pages(at, length), length / prim_page_size());
	for (int tries = 0; tries < 100 && guest_live_pages(at, length) > 0; tries++)
		CHECK_EQ(prim_page_out(at, length), DRP_OK);
	CHECK_EQ(guest_live_pages(at, length), 0);
	CHECK_EQ(prim_unmap(at, length), DRP_OK);
}

/*
 * Ordinary memory takes the whole limit page by page, and after each a page of the cache is written. At the end not
 * even one page of the cache fits. Progress is told through shared memory: we may be killed.
 */
static struct progress {
	volatile size_t ordinary_pages, cache_pages;
	volatile sig_atomic_t relieved;
} *progress;

enum { NOTHING_LEFT_MIB = 32, TICK_SECONDS = 1, GIVEN_BACK_PAGES = 1024 };

static char *ordinary;

static void until_nothing_is_left(enum prim_backing backing)
{
	const size_t limit = NOTHING_LEFT_MIB * MIB, page = prim_page_size();

	guest_confine(guest_name(backing), limit);
	char *cache = guest_map(backing, limit, 0);
	ordinary = guest_map(PRIM_PLAIN, limit, 0);
	for (size_t offset = 0; offset < limit; offset += page) {
		ordinary[offset] = 1;
		progress->ordinary_pages++;
		cache[offset] = 1;
		if (prim_mark(cache + offset, page) != DRP_OK)
			_exit(1);
		progress->cache_pages++;
		if (progress->relieved)
			return;
	}
}

static void report(const char *end)
{
	printf("# ordinary memory: %zu of %zu pages of the limit; the cache wrote %zu; %s\n", progress->ordinary_pages,
	       NOTHING_LEFT_MIB * MIB / prim_page_size(), progress->cache_pages, end);
	CHECK(progress->ordinary_pages > NOTHING_LEFT_MIB * MIB / prim_page_size() / 10 * 9); /* the cache had made room */
}

static void with_no_memory_left_the_oom_killer_ends_it(enum prim_backing backing)
{
	if (!guest_has(backing))
		SKIP(guest_no_droppable);
	*progress = (struct progress){0};
	int status = guest_child(until_nothing_is_left, backing);
	CHECK_EQ(status, 128 + SIGKILL);
	report(progress->ordinary_pages > progress->cache_pages ? "killed in a fault of the cache" : "killed in an ordinary fault");
}

/*
 * Where nobody may be killed, the fault is tried again until somebody gives memory back: here, we ourselves, when a
 * tick finds that nothing moved since the last one.
 */
static void tick(int number)
{
	static size_t seen_pages;

	(void)number;
	if (progress->cache_pages != seen_pages) {
		seen_pages = progress->cache_pages;
		return;
	}
	madvise(ordinary, GIVEN_BACK_PAGES * prim_page_size(), MADV_DONTNEED);
	progress->relieved = 1;
}

static void until_relieved(enum prim_backing backing)
{
	const struct itimerval ticks = {{TICK_SECONDS, 0}, {TICK_SECONDS, 0}};
	struct sigaction action = {.sa_handler = tick, .sa_flags = SA_RESTART | SA_ONSTACK};
	static char stack[65536];
	const stack_t elsewhere = {.ss_sp = stack, .ss_size = sizeof(stack)};

	guest_write("/proc/self/oom_score_adj", "-1000");
	/* The signal's frame needs memory too, and where a page of stack is refused it ends in SIGSEGV: have it before. */
	memset(stack, 1, sizeof(stack));
	REQUIRE(sigaltstack(&elsewhere, NULL) == 0);
	REQUIRE(sigaction(SIGALRM, &action, NULL) == 0);
	REQUIRE(setitimer(ITIMER_REAL, &ticks, NULL) == 0);
	until_nothing_is_left(backing);
}

static void where_nobody_may_be_killed_the_fault_waits(enum prim_backing backing)
{
	if (!guest_has(backing))
		SKIP(guest_no_droppable);
	*progress = (struct progress){0};
	CHECK_EQ(guest_child(until_relieved, backing), 0);
	CHECK(progress->relieved);
	report("it waited for memory, took a signal meanwhile, and lives");
}

int main(void)
{
	progress = mmap(NULL, sizeof(*progress), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	REQUIRE(progress != MAP_FAILED);
	guest_stay();
	RUN(more_than_ram_can_be_mapped, PRIM_LAZYFREE);
	RUN(more_than_ram_can_be_mapped, PRIM_DROPPABLE);
	RUN(strict_overcommit, PRIM_LAZYFREE, DRP_NO_MEMORY);
	RUN(strict_overcommit, PRIM_DROPPABLE, DRP_OK);
	RUN(nothing_counts_against_the_mlock_budget, PRIM_LAZYFREE);
	RUN(nothing_counts_against_the_mlock_budget, PRIM_DROPPABLE);
	RUN(mlock_of_droppable_memory_does_nothing);
	RUN(more_than_4_gib, PRIM_LAZYFREE);
	RUN(more_than_4_gib, PRIM_DROPPABLE);
	RUN(huge_pages, PRIM_LAZYFREE, 0);
	RUN(huge_pages, PRIM_LAZYFREE, PRIM_HUGE_PAGES);
	RUN(huge_pages, PRIM_DROPPABLE, 0);
	RUN(huge_pages, PRIM_DROPPABLE, PRIM_HUGE_PAGES);
	RUN(with_no_memory_left_the_oom_killer_ends_it, PRIM_LAZYFREE);
	RUN(with_no_memory_left_the_oom_killer_ends_it, PRIM_DROPPABLE);
	RUN(where_nobody_may_be_killed_the_fault_waits, PRIM_LAZYFREE);
	RUN(where_nobody_may_be_killed_the_fault_waits, PRIM_DROPPABLE);
	return check_done();
}
