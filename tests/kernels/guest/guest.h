/*
 * guest.h - what the tests share that want a machine for themselves: they set sysctls, fill all memory, swap.
 * Never run them outside of the kernel matrix. Written with csrc/tests/check.h, as the core's own tests are.
 */
#ifndef GUEST_H
#define GUEST_H

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/sysinfo.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"
#include "droppable.h"
#include "os/prim.h"

#define MIB ((size_t)1 << 20)

static const char guest_no_droppable[] = "this kernel has no MAP_DROPPABLE (Linux 6.11, 64-bit kernels)";

static inline const char *guest_name(enum prim_backing backing)
{
	return backing == PRIM_LAZYFREE ? "lazyfree" : backing == PRIM_DROPPABLE ? "droppable" : "ordinary";
}

/*
 * Stay on this processor: each has a short list of pages on their way to an LRU, and reclaim finds only its own.
 * A page that another processor's list holds can be neither paged out nor reclaimed before that list is full.
 */
static inline void guest_stay(void)
{
	cpu_set_t here;

	CPU_ZERO(&here);
	CPU_SET(sched_getcpu(), &here);
	REQUIRE(sched_setaffinity(0, sizeof(here), &here) == 0);
}

/* False where this kernel has no such backing. */
static inline bool guest_has(enum prim_backing backing)
{
	void *address;
	int status = prim_map(backing, prim_page_size(), 0, &address);

	REQUIRE(status == DRP_OK || (status == DRP_UNSUPPORTED && backing == PRIM_DROPPABLE));
	if (status == DRP_OK)
		prim_unmap(address, prim_page_size());
	return status == DRP_OK;
}

static inline char *guest_map(enum prim_backing backing, size_t length, unsigned flags)
{
	void *address = NULL;

	REQUIRE(prim_map(backing, length, flags, &address) == DRP_OK);
	return address;
}

/* Mapped, written and, but for PRIM_PLAIN, marked. */
static inline char *guest_filled(enum prim_backing backing, size_t length)
{
	char *at = guest_map(backing, length, 0);

	for (size_t offset = 0; offset < length; offset += MIB) {
		memset(at + offset, 1, MIB);
		if (backing != PRIM_PLAIN)
			REQUIRE(prim_mark(at + offset, MIB) == DRP_OK);
	}
	return at;
}

static inline void guest_write(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);

	REQUIRE(fd >= 0);
	REQUIRE(write(fd, text, strlen(text)) == (ssize_t)strlen(text));
	close(fd);
}

/* The number behind name in a file of "name value" lines, or -1. */
static inline long guest_field(const char *path, const char *name)
{
	char line[256];
	long value = -1;
	FILE *file = fopen(path, "re");

	REQUIRE(file);
	while (value < 0 && fgets(line, sizeof(line), file))
		if (strncmp(line, name, strlen(name)) == 0)
			value = atol(line + strlen(name));
	fclose(file);
	return value;
}

/* Moves this process into a new cgroup below the root: no swap there, and a limit. */
static inline void guest_confine(const char *name, size_t limit_bytes)
{
	char path[128], text[32];

	snprintf(path, sizeof(path), "/sys/fs/cgroup/%s", name);
	REQUIRE(mkdir(path, 0755) == 0 || errno == EEXIST);
	snprintf(path, sizeof(path), "/sys/fs/cgroup/%s/memory.max", name);
	snprintf(text, sizeof(text), "%zu", limit_bytes);
	guest_write(path, text);
	snprintf(path, sizeof(path), "/sys/fs/cgroup/%s/memory.swap.max", name);
	if (access(path, W_OK) == 0)
		guest_write(path, "0");
	snprintf(path, sizeof(path), "/sys/fs/cgroup/%s/cgroup.procs", name);
	guest_write(path, "0");
}

/*
 * Runs body(argument) in a child of its own, so that it can be confined, killed or give its memory back by ending.
 * Returns its exit status, which is 0 if every check in it held, or 128 + the signal that ended it.
 */
static inline int guest_child(void (*body)(enum prim_backing), enum prim_backing argument)
{
	int status;

	fflush(stdout);
	pid_t child = fork();
	REQUIRE(child >= 0);
	if (child == 0) {
		body(argument);
		fflush(stdout);
		_exit(check_failures());
	}
	REQUIRE(waitpid(child, &status, 0) == child);
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

/* Pages whose first byte is still there, in MiB or one by one. Reading maps the zero page where a page went. */
static inline size_t guest_live_pages(const volatile char *at, size_t length)
{
	size_t live = 0;

	for (size_t offset = 0; offset < length; offset += prim_page_size())
		live += at[offset] != 0;
	return live;
}

static inline size_t guest_live_mib(const char *at, size_t length)
{
	return guest_live_pages(at, length) * prim_page_size() / MIB;
}

/*
 * Writes "drp<" kind ">" number, what searchers of a disk or a core look for, letter by letter: the program's text,
 * stack and heap can land there too and must not hold it, so the opening is kept one letter higher.
 */
static inline void guest_pattern(char *page, const char *kind, size_t number)
{
	static const char opening[] = "esq=";
	volatile char *at = page;

	for (const char *letter = opening; *letter; letter++)
		*at++ = (char)(*letter - 1);
	for (const char *letter = kind; *letter; letter++)
		*at++ = *letter;
	*at++ = '>';
	for (size_t digit = 10000; digit > 0; digit /= 10)
		*at++ = (char)('0' + number / digit % 10);
}

#endif
