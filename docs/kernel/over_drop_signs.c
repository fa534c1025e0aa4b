/*
 * over_drop_signs.c - what the kernel says of its own progress while it takes droppable memory. For cgroup v2.
 *
 *     gcc -O2 over_drop_signs.c -o over_drop_signs && ./over_drop_signs         as root, in a virtual machine
 *
 * 1. memory.reclaim: a group has 64 MB of one kind of memory, and is asked to give 8 MB. What does the write say, and by
 *    how much is the group smaller after it?
 * 2. Pressure: 400 MB go through a group of 100 MB. How long did its process wait for memory (memory.pressure, "some")?
 * 3. kswapd: twice the machine's memory is written. How many pages did kswapd and direct reclaim scan, how many do they
 *    believe to have taken, and was the node told to be unreclaimable meanwhile (16 runs of kswapd in which nothing was
 *    reclaimed)? Left out where the machine has more than 2 GB.
 */
#define _GNU_SOURCE
#include <err.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <unistd.h>

#define DROPPABLE 0x08 /* MAP_DROPPABLE, Linux 6.11 */
#define GROUP "/sys/fs/cgroup/over_drop_signs"
#define MB ((size_t)1 << 20)
enum { KINDS = 2, FILLED_MB = 64, LIMIT_MB = 100, STREAM_MB = 400, MACHINE_MOST_MB = 2048 };

static const struct kind { const char *name; int type, frees; } kinds[KINDS] = {
	{"droppable", DROPPABLE, 0}, {"private, freed", MAP_PRIVATE, 1}};

/* The number behind a word of a file, added up over all lines that have it; word "": the first number. */
static long number(const char *path, const char *word)
{
	char line[512];
	long sum = 0, value;
	FILE *in = fopen(path, "r");
	if (!in)
		err(1, "%s", path);
	while (fgets(line, sizeof(line), in)) {
		char *at = strstr(line, word);
		if (at && sscanf(at + strlen(word), "%ld", &value) == 1)
			sum += value;
	}
	fclose(in);
	return sum;
}

/* 0, or the error of the write. */
static int put(const char *path, const char *text)
{
	FILE *out = fopen(path, "w");
	if (!out)
		err(1, "%s", path);
	int failed = fputs(text, out) < 0 || fflush(out) != 0 ? errno : 0;
	fclose(out);
	return failed;
}

/* Writes so much; after each MB of it `each` looks. */
static char *fill(const struct kind *kind, size_t mb, void (*each)(void))
{
	char *at = mmap(NULL, mb * MB, PROT_READ | PROT_WRITE, kind->type | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (at == MAP_FAILED)
		err(1, "%s", kind->name);
	for (size_t offset = 0; offset < mb * MB; offset += MB) {
		memset(at + offset, 1, MB);
		if (kind->frees && madvise(at + offset, MB, MADV_FREE) != 0)
			err(1, "MADV_FREE");
		if (each)
			each();
	}
	return at;
}

static void reclaim(const struct kind *kind)
{
	put(GROUP "/cgroup.procs", "0");
	fill(kind, FILLED_MB, NULL);
	long before = number(GROUP "/memory.current", "");
	int failed = put(GROUP "/memory.reclaim", "8M");
	long freed = before - number(GROUP "/memory.current", "");
	printf("%-16s 8 MB asked of %d: %ld MB freed, the write said %s\n", kind->name, FILLED_MB, freed / (long)MB,
	       failed ? strerrorname_np(failed) : "done");
}

static void pressure(const struct kind *kind)
{
	put(GROUP "/cgroup.procs", "0");
	put(GROUP "/memory.max", "104857600");
	fill(kind, STREAM_MB, NULL);
	FILE *in = fopen(GROUP "/memory.pressure", "r");
	long waited_us = -1;
	if (!in || fscanf(in, "some avg10=%*f avg60=%*f avg300=%*f total=%ld", &waited_us) != 1)
		err(1, "memory.pressure");
	printf("%-16s %d MB through %d: waited %ld ms for memory\n", kind->name, STREAM_MB, LIMIT_MB, waited_us / 1000);
}

static long unreclaimable; /* how often the node was seen so */
static void look(void)
{
	unreclaimable += number("/proc/zoneinfo", "node_unreclaimable:") > 0;
}

static void machine(const struct kind *kind)
{
	static const char *const names[] = {"pgscan_kswapd ", "pgsteal_kswapd ", "pgscan_direct ", "pgsteal_direct "};
	long before[4], memory_mb = number("/proc/meminfo", "MemTotal:") / 1024;
	if (memory_mb > MACHINE_MOST_MB)
		return;
	for (int i = 0; i < 4; i++)
		before[i] = number("/proc/vmstat", names[i]);
	fill(kind, 2 * (size_t)memory_mb, look);
	printf("%-16s %ld MB through the machine's %ld:", kind->name, 2 * memory_mb, memory_mb);
	for (int i = 0; i < 4; i++)
		printf(" %s%ld", names[i], number("/proc/vmstat", names[i]) - before[i]);
	printf(" unreclaimable at %ld looks of %ld\n", unreclaimable, 2 * memory_mb);
}

int main(void)
{
	void (*const parts[])(const struct kind *kind) = {reclaim, pressure, machine};
	struct utsname kernel;
	uname(&kernel);
	printf("Linux %s: what reclaim says\n", kernel.release);
	for (size_t part = 0; part < sizeof(parts) / sizeof(*parts); part++)
		for (int i = 0; i < KINDS; i++) {
			int status;
			if (mkdir(GROUP, 0755) != 0)
				err(1, GROUP);
			fflush(stdout);
			if (fork() == 0) {
				parts[part](&kinds[i]);
				exit(0);
			}
			if (wait(&status) < 0 || status != 0 || rmdir(GROUP) != 0)
				err(1, "%s: status %d", kinds[i].name, status);
		}
	printf("\n");
	return 0;
}
