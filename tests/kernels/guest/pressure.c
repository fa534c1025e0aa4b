/*
 * pressure.c - both backings are dropped, and only dropped, by each way that the kernel reclaims: a cgroup's limit,
 * memory.reclaim, and kswapd under global pressure. Nobody is killed.
 *
 *     cgroup, limit 128 MiB:   [ 96 MiB cache, marked ][ 96 MiB ordinary memory -> ]   the cache makes room
 *     machine, all of RAM:     [ half of RAM, marked  ][ 70 % of RAM, ordinary  -> ]   the same, by kswapd
 */
#include "guest.h"

enum { CACHE_MIB = 96, LIMIT_MIB = 128, REQUEST_MIB = 48 };

static void take_ordinary(size_t length)
{
	char *taken = guest_filled(PRIM_PLAIN, length);

	CHECK_EQ(guest_live_pages(taken, length), length / prim_page_size());
}

static void in_limit(enum prim_backing backing)
{
	guest_confine("limit", LIMIT_MIB * MIB);
	char *cache = guest_filled(backing, CACHE_MIB * MIB);
	size_t before = guest_live_mib(cache, CACHE_MIB * MIB);
	take_ordinary(CACHE_MIB * MIB);
	size_t after = guest_live_mib(cache, CACHE_MIB * MIB);

	printf("# %zu MiB live, then %zu MiB\n", before, after);
	CHECK(before >= CACHE_MIB - 6); /* nothing goes without need */
	CHECK(after <= LIMIT_MIB - CACHE_MIB && after >= 8);
	CHECK_EQ(guest_field("/sys/fs/cgroup/limit/memory.events", "oom_kill "), 0);
}

static void a_cgroups_limit_drops_what_it_needs(enum prim_backing backing)
{
	if (!guest_has(backing))
		SKIP(guest_no_droppable);
	CHECK_EQ(guest_child(in_limit, backing), 0);
}

static void on_request(enum prim_backing backing)
{
	guest_confine("request", 2 * LIMIT_MIB * MIB);
	char *cache = guest_filled(backing, CACHE_MIB * MIB);
	int fd = open("/sys/fs/cgroup/request/memory.reclaim", O_WRONLY | O_CLOEXEC);
	ssize_t done = write(fd, "48M", 3); /* EAGAIN where it fell short: what went is what counts */
	close(fd);
	size_t after = guest_live_mib(cache, CACHE_MIB * MIB);

	printf("# %s, %zu of %d MiB live\n", done == 3 ? "done" : "fell short", after, CACHE_MIB);
	CHECK(after < CACHE_MIB - REQUEST_MIB + 16 && after > CACHE_MIB - REQUEST_MIB - 32);
}

static void memory_reclaim_drops_what_was_asked_for(enum prim_backing backing)
{
	if (!guest_has(backing))
		SKIP(guest_no_droppable);
	guest_confine("request", 2 * LIMIT_MIB * MIB);
	if (access("/sys/fs/cgroup/request/memory.reclaim", W_OK) != 0)
		SKIP("this kernel has no memory.reclaim (Linux 5.19)");
	CHECK_EQ(guest_child(on_request, backing), 0);
	guest_write("/sys/fs/cgroup/cgroup.procs", "0");
}

static void under_kswapd(enum prim_backing backing)
{
	struct sysinfo machine;

	sysinfo(&machine);
	size_t ram_mib = (size_t)((unsigned long long)machine.totalram * machine.mem_unit / MIB);
	size_t length = ram_mib / 2 * MIB;
	long taken = guest_field("/proc/vmstat", "pgsteal_kswapd ");
	long kills = guest_field("/proc/vmstat", "oom_kill ");

	char *cache = guest_filled(backing, length);
	take_ordinary(ram_mib * 7 / 10 * MIB);
	size_t after = guest_live_mib(cache, length);

	taken = guest_field("/proc/vmstat", "pgsteal_kswapd ") - taken;
	printf("# %zu of %zu MiB live, kswapd took %ld pages\n", after, length / MIB, taken);
	CHECK(after < length / MIB && after > 0);
	CHECK(taken > 0);
	CHECK_EQ(guest_field("/proc/vmstat", "oom_kill "), kills);
}

static void kswapd_drops_under_global_pressure(enum prim_backing backing)
{
	if (!guest_has(backing))
		SKIP(guest_no_droppable);
	CHECK_EQ(guest_child(under_kswapd, backing), 0);
}

int main(void)
{
	RUN(a_cgroups_limit_drops_what_it_needs, PRIM_LAZYFREE);
	RUN(a_cgroups_limit_drops_what_it_needs, PRIM_DROPPABLE);
	RUN(memory_reclaim_drops_what_was_asked_for, PRIM_LAZYFREE);
	RUN(memory_reclaim_drops_what_was_asked_for, PRIM_DROPPABLE);
	RUN(kswapd_drops_under_global_pressure, PRIM_LAZYFREE);
	RUN(kswapd_drops_under_global_pressure, PRIM_DROPPABLE);
	return check_done();
}
