/*
 * prim_linux_headroom.c - how much memory is left before reclaim finds nothing: reads the memory cgroup's files, those
 * of its parents, and the machine's.
 *
 * Nothing is remembered between calls: a process may be moved to another cgroup and a limit may change at any time.
 * One call costs some tens of microseconds; callers ration it. Both cgroup versions:
 *
 *             limit                   usage                  reclaimable (memory.stat)
 *   v2        memory.max              memory.current         inactive_file + active_file
 *   v1        memory.limit_in_bytes   memory.usage_in_bytes  total_inactive_file + total_active_file
 *   machine   MemTotal                MemTotal - MemFree     Inactive(file) + Active(file)
 *
 * Clean lazyfree and droppable pages sit on the inactive file LRU, so they are in the last column.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysinfo.h>
#include <unistd.h>

#include "droppable.h"
#include "prim.h"

enum { PATH_BYTES = 1024, FILE_BYTES = 8192 };

struct hierarchy {
	const char *mount;       /* where the memory controller is mounted */
	const char *prefix;      /* how this process's line in /proc/self/cgroup begins, after the number */
	const char *limit, *usage, *inactive, *active;
};

static const struct hierarchy hierarchies[] = {
	{"/sys/fs/cgroup/memory", "memory:", "memory.limit_in_bytes", "memory.usage_in_bytes",
	 "total_inactive_file ", "total_active_file "},
	{"/sys/fs/cgroup", ":", "memory.max", "memory.current", "inactive_file ", "active_file "},
};

static ssize_t read_file(const char *path, char *text, size_t size)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -1;
	size_t length = 0;
	while (length < size - 1) {
		ssize_t got = read(fd, text + length, size - 1 - length);
		if (got <= 0)
			break;
		length += (size_t)got;
	}
	close(fd);
	text[length] = 0;
	return (ssize_t)length;
}

/* The number behind name at the start of a line, or 0. */
static uint64_t field(const char *text, const char *name)
{
	size_t length = strlen(name);
	for (const char *line = text; line; line = strchr(line, '\n'), line = line ? line + 1 : NULL)
		if (strncmp(line, name, length) == 0)
			return strtoull(line + length, NULL, 10);
	return 0;
}

static bool read_number(const char *directory, const char *name, uint64_t *out)
{
	char path[PATH_BYTES + 64], text[64];
	snprintf(path, sizeof(path), "%s/%s", directory, name);
	if (read_file(path, text, sizeof(text)) <= 0)
		return false;
	*out = strncmp(text, "max", 3) == 0 ? UINT64_MAX : strtoull(text, NULL, 10);
	return true;
}

static uint64_t left_bytes(const struct prim_headroom *room)
{
	uint64_t free_bytes = room->usage_bytes < room->limit_bytes ? room->limit_bytes - room->usage_bytes : 0;
	return free_bytes + room->reclaimable_bytes;
}

static void keep_tightest(struct prim_headroom *tightest, const struct prim_headroom *room)
{
	if (tightest->limit_bytes == UINT64_MAX || left_bytes(room) < left_bytes(tightest))
		*tightest = *room;
}

static bool read_use(const struct hierarchy *h, const char *directory, char *scratch, struct prim_headroom *room)
{
	char path[PATH_BYTES + 64];

	if (!read_number(directory, h->usage, &room->usage_bytes))
		return false;
	snprintf(path, sizeof(path), "%s/memory.stat", directory);
	if (read_file(path, scratch, FILE_BYTES) > 0)
		room->reclaimable_bytes = field(scratch, h->inactive) + field(scratch, h->active);
	return true;
}

static void read_level(const struct hierarchy *h, const char *directory, char *scratch, struct prim_headroom *tightest)
{
	struct prim_headroom room = {.hierarchy = (unsigned)(h - hierarchies)};

	if (!read_number(directory, h->limit, &room.limit_bytes) || room.limit_bytes > INT64_MAX / 2 ||
	    !read_use(h, directory, scratch, &room))
		return;
	if (strlen(directory) < sizeof(room.group))
		strcpy(room.group, directory);
	keep_tightest(tightest, &room);
}

static void read_hierarchy(const struct hierarchy *h, const char *membership, char *scratch,
			   struct prim_headroom *tightest)
{
	char directory[PATH_BYTES];
	size_t mount = strlen(h->mount);

	for (const char *line = membership; line && *line; line = strchr(line, '\n'), line = line ? line + 1 : NULL) {
		const char *name = strchr(line, ':');
		if (!name || strncmp(name + 1, h->prefix, strlen(h->prefix)) != 0)
			continue;
		const char *path = name + 1 + strlen(h->prefix);
		int length = (int)strcspn(path, "\n");
		if (length == 1)
			length = 0; /* "/" */
		snprintf(directory, sizeof(directory), "%s%.*s", h->mount, length, path);
		if (access(directory, F_OK) != 0) /* a container whose own cgroup is mounted as the root */
			directory[mount] = 0;
		for (;;) {
			read_level(h, directory, scratch, tightest);
			char *slash = strrchr(directory, '/');
			if (!slash || (size_t)(slash - directory) < mount)
				break;
			*slash = 0;
		}
	}
}

static void read_machine(char *scratch, struct prim_headroom *tightest)
{
	if (read_file("/proc/meminfo", scratch, FILE_BYTES) <= 0)
		return;
	struct prim_headroom room = {
		.limit_bytes = field(scratch, "MemTotal:") * 1024,
		.reclaimable_bytes = (field(scratch, "Inactive(file):") + field(scratch, "Active(file):")) * 1024,
	};
	room.usage_bytes = room.limit_bytes - field(scratch, "MemFree:") * 1024;
	if (room.limit_bytes != 0)
		keep_tightest(tightest, &room);
}

int prim_headroom(struct prim_headroom *out)
{
	char membership[4096], scratch[FILE_BYTES];
	struct prim_headroom tightest = {.limit_bytes = UINT64_MAX};

	if (read_file("/proc/self/cgroup", membership, sizeof(membership)) > 0)
		for (size_t i = 0; i < sizeof(hierarchies) / sizeof(hierarchies[0]); i++)
			read_hierarchy(&hierarchies[i], membership, scratch, &tightest);
	read_machine(scratch, &tightest);
	*out = tightest;
	return DRP_OK;
}

int prim_headroom_again(struct prim_headroom *room)
{
	char scratch[FILE_BYTES];

	if (room->group[0] == 0 || !read_use(&hierarchies[room->hierarchy], room->group, scratch, room))
		return DRP_UNSUPPORTED;
	return DRP_OK;
}

int prim_resident(uint64_t *bytes)
{
	char text[128];
	unsigned long total, resident, shared;

	if (read_file("/proc/self/statm", text, sizeof(text)) <= 0 ||
	    sscanf(text, "%lu %lu %lu", &total, &resident, &shared) != 3)
		return DRP_UNSUPPORTED;
	*bytes = (uint64_t)(resident - shared) * prim_page_size();
	return DRP_OK;
}
