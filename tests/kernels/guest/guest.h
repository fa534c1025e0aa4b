/*
 * guest.h - what the tests share that want a machine for themselves: they set sysctls, fill all memory, swap.
 * Never run them outside of the kernel matrix. Exit status as for meson: 0 passed, 77 skipped, 1 failed.
 */
#ifndef GUEST_H
#define GUEST_H

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/sysinfo.h>
#include <sys/wait.h>
#include <unistd.h>

#include "droppable.h"
#include "prim.h"

#define MIB ((size_t)1 << 20)

#define CHECK(condition, ...) do { \
	if (!(condition)) { \
		printf("%s:%d: not so: %s: ", __FILE__, __LINE__, #condition); \
		printf(__VA_ARGS__); \
		printf(" (errno %d)\n", errno); \
		exit(1); \
	} \
} while (0)

#define SKIP(...) do { \
	printf("skipped: " __VA_ARGS__); \
	printf("\n"); \
	exit(77); \
} while (0)

static const struct guest_backing {
	enum prim_backing backing;
	const char *name;
} guest_backings[] = {{PRIM_LAZYFREE, "lazyfree"}, {PRIM_DROPPABLE, "droppable"}};

enum { GUEST_BACKINGS = 2 };

/* False where this kernel has no such backing, which it then says. */
static inline bool guest_has(const struct guest_backing *which)
{
	void *address;
	int status = prim_map(which->backing, prim_page_size(), 0, &address);

	if (status != DRP_OK) {
		CHECK(status == DRP_UNSUPPORTED && which->backing == PRIM_DROPPABLE, "map %s: %d", which->name, status);
		printf("%s: this kernel has none\n", which->name);
		return false;
	}
	prim_unmap(address, prim_page_size());
	return true;
}

static inline void guest_write(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	CHECK(fd >= 0, "open %s", path);
	CHECK(write(fd, text, strlen(text)) == (ssize_t)strlen(text), "write %s to %s", text, path);
	close(fd);
}

/* The number behind name in a file of "name value" lines, or -1. */
static inline long guest_field(const char *path, const char *name)
{
	char line[256];
	long value = -1;
	FILE *file = fopen(path, "re");

	CHECK(file, "open %s", path);
	while (value < 0 && fgets(line, sizeof(line), file))
		if (strncmp(line, name, strlen(name)) == 0)
			value = atol(line + strlen(name));
	fclose(file);
	return value;
}

/* Moves this process into a new cgroup below the root: swap off there if swap exists, and a limit. */
static inline void guest_confine(const char *name, size_t limit_bytes)
{
	char path[128], text[32];

	snprintf(path, sizeof(path), "/sys/fs/cgroup/%s", name);
	CHECK(mkdir(path, 0755) == 0 || errno == EEXIST, "mkdir %s", path);
	snprintf(path, sizeof(path), "/sys/fs/cgroup/%s/memory.max", name);
	snprintf(text, sizeof(text), "%zu", limit_bytes);
	guest_write(path, text);
	snprintf(path, sizeof(path), "/sys/fs/cgroup/%s/memory.swap.max", name);
	if (access(path, W_OK) == 0)
		guest_write(path, "0");
	snprintf(path, sizeof(path), "/sys/fs/cgroup/%s/cgroup.procs", name);
	guest_write(path, "0");
}

/* Runs body in a child of its own; returns its exit status, or 128 + the signal that ended it. */
static inline int guest_child(void (*body)(const void *), const void *argument)
{
	int status;

	fflush(stdout);
	pid_t child = fork();
	CHECK(child >= 0, "fork");
	if (child == 0) {
		body(argument);
		fflush(stdout);
		_exit(0);
	}
	CHECK(waitpid(child, &status, 0) == child, "wait");
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

/* Pages whose first byte is still there. Reading maps the zero page where a page went. */
static inline size_t guest_live_pages(const volatile char *at, size_t length)
{
	size_t live = 0;

	for (size_t offset = 0; offset < length; offset += prim_page_size())
		live += at[offset] != 0;
	return live;
}

#endif
