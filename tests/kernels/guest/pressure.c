/*
 * pressure.c - both backings are dropped, and only dropped, by each way that the kernel reclaims: a cgroup's limit,
 * memory.reclaim, and kswapd under global pressure. Nobody is killed.
 *
 *     cgroup, limit 128 MiB:   [ 96 MiB cache, marked ][ 96 MiB ordinary memory -> ]    the cache makes room
 *     machine, all of RAM:     [ half of RAM, marked  ][ 70 % of RAM, ordinary -> ]    the same, by kswapd
 */
#include "guest.h"

static char *filled(const struct guest_backing *which, size_t length)
{
	void *address;

	CHECK(prim_map(which->backing, length, 0, &address) == DRP_OK, "map %s", which->name);
	for (size_t offset = 0; offset < length; offset += MIB) {
		memset((char *)address + offset, 1, MIB);
		CHECK(prim_mark((char *)address + offset, MIB) == DRP_OK, "mark %s", which->name);
	}
	return address;
}

static void take_ordinary(size_t length)
{
	char *taken = mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	CHECK(taken != MAP_FAILED, "mmap of ordinary memory");
	memset(taken, 2, length);
	CHECK(guest_live_pages(taken, length) == length / prim_page_size(), "ordinary memory lost pages");
}

static void by_limit(const void *argument)
{
	const struct guest_backing *which = argument;

	guest_confine("limit", 128 * MIB);
	char *cache = filled(which, 96 * MIB);
	size_t before = guest_live_pages(cache, 96 * MIB) * prim_page_size() / MIB;
	take_ordinary(96 * MIB);
	size_t after = guest_live_pages(cache, 96 * MIB) * prim_page_size() / MIB;

	printf("%s, cgroup limit: %zu MiB live, then %zu MiB\n", which->name, before, after);
	CHECK(before >= 90, "dropped without need");
	CHECK(after <= 32 && after >= 8, "the kernel should have taken about 64 MiB");
	CHECK(guest_field("/sys/fs/cgroup/limit/memory.events", "oom_kill ") == 0, "somebody was killed");
}

static void by_request(const void *argument)
{
	const struct guest_backing *which = argument;

	guest_confine("request", 256 * MIB);
	if (access("/sys/fs/cgroup/request/memory.reclaim", W_OK) != 0) {
		printf("%s, memory.reclaim: not on this kernel (5.19 has it)\n", which->name);
		return;
	}
	char *cache = filled(which, 96 * MIB);
	int fd = open("/sys/fs/cgroup/request/memory.reclaim", O_WRONLY | O_CLOEXEC);
	ssize_t done = write(fd, "48M", 3); /* EAGAIN where it fell short: what went is what counts */
	close(fd);
	size_t after = guest_live_pages(cache, 96 * MIB) * prim_page_size() / MIB;

	printf("%s, memory.reclaim of 48 MiB: %s, %zu of 96 MiB live\n", which->name, done == 3 ? "done" : "fell short", after);
	CHECK(after < 64 && after > 16, "about 48 MiB should have gone");
}

static void by_kswapd(const void *argument)
{
	const struct guest_backing *which = argument;
	struct sysinfo machine;

	sysinfo(&machine);
	size_t ram = (size_t)machine.totalram * machine.mem_unit / MIB;
	size_t length = ram / 2 * MIB;
	long scanned = guest_field("/proc/vmstat", "pgsteal_kswapd ");
	long kills = guest_field("/proc/vmstat", "oom_kill ");

	char *cache = filled(which, length);
	take_ordinary(ram * 7 / 10 * MIB);
	size_t after = guest_live_pages(cache, length) * prim_page_size() / MIB;

	scanned = guest_field("/proc/vmstat", "pgsteal_kswapd ") - scanned;
	printf("%s, global pressure: %zu of %zu MiB live, kswapd took %ld pages\n", which->name, after, length / MIB, scanned);
	CHECK(after < length / MIB, "something had to go");
	CHECK(after > 0, "not everything had to go");
	CHECK(scanned > 0, "kswapd was to do it");
	CHECK(guest_field("/proc/vmstat", "oom_kill ") == kills, "somebody was killed");
}

int main(void)
{
	for (int i = 0; i < GUEST_BACKINGS; i++) {
		const struct guest_backing *which = &guest_backings[i];
		if (!guest_has(which))
			continue;
		CHECK(guest_child(by_limit, which) == 0, "%s by limit", which->name);
		CHECK(guest_child(by_request, which) == 0, "%s by request", which->name);
		CHECK(guest_child(by_kswapd, which) == 0, "%s by kswapd", which->name);
	}
	return 0;
}
