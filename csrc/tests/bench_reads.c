/*
 * bench_reads.c - what the bare calls of the system cost that a reader of another process's memory makes, and what it cannot make.
 *
 * Prints lines "microseconds what": medians of 201 rounds, in which all take turns. What a child shows is written anew by it, so
 * that its pages are its own. Run by benchmarks/connect.py.
 */
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "check.h"

enum { ROUNDS = 201, CALLS = 6, PIECES = 100, PIECE_BYTES = 512, LONG_BYTES = 1000000, BYTES = 16 << 20, PAGE = 4096 };

static char *there, *here; /* the child's memory, ours */
static pid_t child;
static int memory;

static void read_pieces(size_t bytes, size_t apart)
{
	for (size_t i = 0; i < PIECES; i++)
		REQUIRE(pread(memory, here, bytes, (off_t)(uintptr_t)(there + i * apart)) == (ssize_t)bytes);
}

static void read_far(void)
{
	read_pieces(PIECE_BYTES, 2 * PAGE);
}

static void read_side_by_side(void) /* as many values of 100 B lie in that */
{
	REQUIRE(pread(memory, here, 4 * PAGE, (off_t)(uintptr_t)there) == 4 * PAGE);
}

static void read_long(void)
{
	REQUIRE(pread(memory, here, LONG_BYTES, (off_t)(uintptr_t)there) == LONG_BYTES);
}

static void trace(struct iovec *from, size_t count, size_t bytes)
{
	struct iovec to = {here, bytes};

	REQUIRE(process_vm_readv(child, &to, 1, from, count, 0) == (ssize_t)bytes);
}

static void trace_far(void)
{
	struct iovec from[PIECES];

	for (size_t i = 0; i < PIECES; i++)
		from[i] = (struct iovec){there + i * 2 * PAGE, PIECE_BYTES};
	trace(from, PIECES, PIECES * PIECE_BYTES);
}

static void trace_long(void)
{
	struct iovec from = {there, LONG_BYTES};

	trace(&from, 1, LONG_BYTES);
}

static void copy_long(void)
{
	memcpy(here, here + BYTES / 2, LONG_BYTES);
}

static const struct {
	const char *what;
	void (*call)(void);
} calls[CALLS] = {
	{"100 reads of 512 B, each of another page", read_far},
	{"one read of 16 KB, which is 100 values of 100 B side by side", read_side_by_side},
	{"one read of 1 MB, into memory that is there", read_long},
	{"the 100 by one process_vm_readv, which needs the right to trace", trace_far},
	{"the 1 MB by process_vm_readv, likewise", trace_long},
	{"a copy of 1 MB within the process, into memory that is there", copy_long},
};

static int by_size(const void *a, const void *b)
{
	const double x = *(const double *)a, y = *(const double *)b;
	return (x > y) - (x < y);
}

static double now_us(void)
{
	struct timespec now;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
	return (double)now.tv_sec * 1e6 + (double)now.tv_nsec / 1e3;
}

int main(void)
{
	static double took[CALLS][ROUNDS];
	char name[64], ready;
	int ends[2];

	there = mmap(NULL, BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	here = mmap(NULL, BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	REQUIRE(there != MAP_FAILED && here != MAP_FAILED && pipe(ends) == 0);
	memset(here, 1, BYTES);
	child = fork();
	REQUIRE(child >= 0);
	if (child == 0) {
		memset(there, 2, BYTES);
		REQUIRE(write(ends[1], "r", 1) == 1);
		for (;;)
			pause();
	}
	REQUIRE(read(ends[0], &ready, 1) == 1);
	snprintf(name, sizeof(name), "/proc/%d/mem", (int)child);
	memory = open(name, O_RDONLY | O_CLOEXEC);
	REQUIRE(memory >= 0);
	for (int round = 0; round < ROUNDS; round++)
		for (int i = 0; i < CALLS; i++) {
			const double begin = now_us();
			calls[i].call();
			took[i][round] = now_us() - begin;
		}
	for (int i = 0; i < CALLS; i++) {
		qsort(took[i], ROUNDS, sizeof(double), by_size);
		printf("%.1f %s\n", took[i][ROUNDS / 2], calls[i].what);
	}
	REQUIRE(kill(child, SIGKILL) == 0);
	REQUIRE(waitpid(child, NULL, 0) == child);
	return 0;
}
