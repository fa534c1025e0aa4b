/*
 * over_drop.c - streams 400 MB through a memory cgroup of 100 MB and prints how much is still there at the end.
 *
 *     gcc -O2 over_drop.c -o over_drop && ./over_drop            as root: it makes a cgroup and removes it
 *
 * Four kinds of memory, one child each:   droppable         MAP_DROPPABLE, as it is meant to be used
 *                                         droppable, huge   the same in huge pages, where the kernel has them
 *                                         droppable, freed  the same, each MB MADV_FREE'd after it was written
 *                                         private, freed    private anonymous memory, the same
 * live: MB of them at the end. least: the cgroup's smallest use after any MB, from when it was full. The others: what
 * reclaim counted meanwhile on the whole machine, in pages (/proc/vmstat; an idle machine gives the clearest figures).
 */
#define _GNU_SOURCE
#include <err.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <unistd.h>

#define DROPPABLE 0x08 /* MAP_DROPPABLE, Linux 6.11 */
#define MB ((size_t)1 << 20)
#define HUGE_PAGE (2 * MB)
enum { STREAM_MB = 400, LIMIT_MB = 100, PAGE = 4096, COUNTERS = 4 };

static const char *const counters[COUNTERS] = {"pgscan_file ", "pgsteal_file ", "pglazyfreed ", "nr_vmscan_immediate_reclaim "};
static char group[128], v1; /* v1: the cgroup version is 1 */

static int put(const char *file, long value)
{
	char path[256];
	snprintf(path, sizeof(path), "%s/%s", group, file);
	FILE *out = fopen(path, "w");
	return out && fprintf(out, "%ld", value) > 0 ? fclose(out) : -1;
}

static void make_group(void)
{
	v1 = access("/sys/fs/cgroup/memory/memory.usage_in_bytes", F_OK) == 0;
	snprintf(group, sizeof(group), "/sys/fs/cgroup/%sover_drop.%d", v1 ? "memory/" : "", getpid());
	if (mkdir(group, 0755) != 0 || put(v1 ? "memory.limit_in_bytes" : "memory.max", LIMIT_MB * MB) != 0)
		err(1, "%s", group);
	put(v1 ? "memory.swappiness" : "memory.swap.max", 0);
}

static void read_counters(long *values)
{
	char line[256];
	FILE *in = fopen("/proc/vmstat", "r");
	while (in && fgets(line, sizeof(line), in))
		for (int i = 0; i < COUNTERS; i++)
			if (strncmp(line, counters[i], strlen(counters[i])) == 0)
				values[i] = atol(line + strlen(counters[i]));
	if (!in || fclose(in) != 0)
		err(1, "/proc/vmstat");
}

static long usage_mb(void)
{
	char path[256];
	long bytes = 0;
	snprintf(path, sizeof(path), "%s/%s", group, v1 ? "memory.usage_in_bytes" : "memory.current");
	FILE *in = fopen(path, "r");
	if (!in || fscanf(in, "%ld", &bytes) != 1 || fclose(in) != 0)
		err(1, "%s", path);
	return bytes / MB;
}

static void stream(const char *name, int type, int advice)
{
	long live = 0, least = LIMIT_MB;
	if (put("cgroup.procs", getpid()) != 0)
		err(1, "cgroup.procs");
	char *at = mmap(NULL, STREAM_MB * MB + HUGE_PAGE, PROT_READ | PROT_WRITE, type | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (at == MAP_FAILED)
		errx(77, "%s: this kernel has none", name);
	at += -(size_t)at & (HUGE_PAGE - 1);
	if (advice != MADV_FREE && madvise(at, STREAM_MB * MB, advice) != 0 && advice == MADV_HUGEPAGE) {
		printf("%-16s this kernel has no huge pages", name);
		exit(0);
	}
	for (size_t offset = 0; offset < STREAM_MB * MB; offset += MB) {
		memset(at + offset, 1, MB);
		if (advice == MADV_FREE && madvise(at + offset, MB, MADV_FREE) != 0)
			err(1, "MADV_FREE");
		long now = offset >= LIMIT_MB * MB ? usage_mb() : least;
		least = now < least ? now : least;
	}
	for (size_t offset = 0; offset < STREAM_MB * MB; offset += PAGE)
		live += at[offset] == 1;
	printf("%-16s %4ld %5ld", name, live * PAGE / (long)MB, least);
	exit(0);
}

static void measure(const char *name, int type, int advice)
{
	long before[COUNTERS], after[COUNTERS];
	int status;
	fflush(stdout);
	read_counters(before);
	if (fork() == 0)
		stream(name, type, advice);
	wait(&status);
	read_counters(after);
	for (int i = 0; i < COUNTERS && status == 0; i++)
		printf(" %*ld", (int)strlen(counters[i]) - 1, after[i] - before[i]);
	printf("\n");
}

int main(void)
{
	struct utsname kernel;
	uname(&kernel);
	make_group();
	printf("Linux %s: %d MB through %d MB\n%-16s live least", kernel.release, STREAM_MB, LIMIT_MB, "MB, then pages");
	for (int i = 0; i < COUNTERS; i++)
		printf(" %.*s", (int)strlen(counters[i]) - 1, counters[i]);
	printf("\n");
	measure("droppable", DROPPABLE, MADV_NOHUGEPAGE);
	measure("droppable, huge", DROPPABLE, MADV_HUGEPAGE);
	measure("droppable, freed", DROPPABLE, MADV_FREE);
	measure("private, freed", MAP_PRIVATE, MADV_FREE);
	printf("\n");
	return rmdir(group);
}
