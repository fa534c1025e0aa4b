/*
 * prim_linux_headroom.c - how much memory is left before reclaim finds nothing: reads the memory cgroup's files, those
 * of its parents, and the machine's.
 *
 * Nothing is remembered between calls, and no descriptor stays open: a process may be moved to another cgroup, a limit may
 * change at any time, and a daemon closes descriptors that it does not know. One call costs some tens of microseconds;
 * callers ration it. Both cgroup versions:
 *
 *             limit                     usage                reclaimable (memory.stat)            idle (memory.stat)
 *   v2        memory.max, memory.high   memory.current       inactive_file + active_file          file - what is busy
 *   v1        memory.limit_in_bytes     memory.usage_in_bytes  total_inactive_file + total_...    total_cache - ...
 *   machine   MemTotal                  MemTotal - MemFree   Inactive(file) + Active(file)        Cached + Buffers - ...
 *
 * Clean lazyfree and droppable pages sit on the inactive file LRU, so they are in the third column. Busy page cache is what
 * is dirty, written back or shared memory, and all of the active list.
 *
 * "No limit" and "a limit that cannot be read" are two things. A file that is not there, in a group that is, means that
 * the controller is not switched on there, which is no limit. Whatever else keeps a figure from being read is told.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "droppable.h"
#include "os/prim.h"

enum {
	FILE_BYTES = 8192, /* memory.stat and meminfo have less than half of that; a line of /proc/self/cgroup has a path in it */
	/* Where less than that share of the limit is free or idle, memory is not free. Of the machine kswapd keeps less free. */
	GROUP_FREE_SHARE = 16,
	MACHINE_FREE_SHARE = 64,
	TRIES = 2,
};

/* The first cgroup namespace: PROC_CGROUP_INIT_INO, fixed by the kernel's ABI. */
#define FIRST_NAMESPACE "cgroup:[4026531835]"

struct hierarchy {
	const char *mount; /* where the memory controller is mounted, as a rule */
	const char *type;  /* of the mount */
	const char *limit, *high, *usage, *inactive, *active, *cache, *shared, *dirty, *written;
};

enum { V1, V2 };
static const struct hierarchy hierarchies[] = {
	[V1] = {"/sys/fs/cgroup/memory", "cgroup", "memory.limit_in_bytes", NULL, "memory.usage_in_bytes",
		"total_inactive_file ", "total_active_file ", "total_cache ", "total_shmem ", "total_dirty ",
		"total_writeback "},
	[V2] = {"/sys/fs/cgroup", "cgroup2", "memory.max", "memory.high", "memory.current",
		"inactive_file ", "active_file ", "file ", "shmem ", "file_dirty ", "file_writeback "},
};

/* One reading: what it has found so far, and where it reads. */
struct reading {
	const char *root; /* stands before /proc and /sys; empty but in tests */
	struct prim_headroom room;
	char path[PATH_MAX];   /* of the group that is read, below the mount, without a slash at its beginning */
	char scratch[FILE_BYTES];
};

static void note_unread(struct prim_headroom *room, enum prim_unread what, int error)
{
	room->is_free = false;
	if (room->unread != PRIM_READ_ALL)
		return;
	room->unread = what;
	room->unread_errno = error;
}

static int open_at(int directory, const char *name, int flags)
{
	return openat(directory, name, O_RDONLY | O_CLOEXEC | flags);
}

/* A path that begins with a slash, below the root. */
static int open_below(const char *root, const char *path, int flags)
{
	char full[PATH_MAX];

	if ((size_t)snprintf(full, sizeof(full), "%s%s", root, path) >= sizeof(full)) {
		errno = ENAMETOOLONG;
		return -1;
	}
	return open_at(AT_FDCWD, full, flags);
}

/* Takes the descriptor over. All that fits, as a string; -1 with errno. */
static ssize_t read_and_close(int fd, char *text, size_t size)
{
	size_t length = 0;
	ssize_t got = 0;

	if (fd < 0)
		return -1;
	while (length < size - 1) {
		got = read(fd, text + length, size - 1 - length);
		if (got < 0 && errno == EINTR)
			continue;
		if (got <= 0)
			break;
		length += (size_t)got;
	}
	const int error = errno;
	close(fd);
	errno = error;
	text[length] = 0;
	return got < 0 ? -1 : (ssize_t)length;
}

/* The lines of a file of any length, one at a time, each in the place of the one before. */
struct lines {
	int fd;
	char *text;
	size_t start, end, size;
};

static struct lines lines_of(int fd, char *text, size_t size)
{
	return (struct lines){.fd = fd, .text = text, .size = size};
}

/* NULL: the end. A line that is longer than the buffer comes in pieces. */
static char *next_line(struct lines *lines)
{
	for (;;) {
		char *line = lines->text + lines->start;
		char *newline = memchr(line, '\n', lines->end - lines->start);
		if (newline) {
			*newline = 0;
			lines->start = (size_t)(newline - lines->text) + 1;
			return line;
		}
		memmove(lines->text, line, lines->end - lines->start);
		lines->end -= lines->start;
		lines->start = 0;
		ssize_t got = read(lines->fd, lines->text + lines->end, lines->size - 1 - lines->end);
		if (got < 0 && errno == EINTR)
			continue;
		if (got <= 0) {
			lines->text[lines->end] = 0;
			const bool some = lines->end > 0;
			lines->end = 0;
			return some ? lines->text : NULL;
		}
		lines->end += (size_t)got;
	}
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

/* A file with one number. UINT64_MAX: "max", what v1 says for it, or no such file. */
static bool read_number(int directory, const char *name, uint64_t *out)
{
	char text[64], *end;

	*out = UINT64_MAX;
	if (read_and_close(open_at(directory, name, 0), text, sizeof(text)) < 0)
		return errno == ENOENT;
	if (strncmp(text, "max", 3) == 0)
		return true;
	errno = 0;
	const uint64_t number = strtoull(text, &end, 10);
	if (end == text) {
		errno = EINVAL;
		return false;
	}
	if (number <= INT64_MAX / 2)
		*out = number;
	return true;
}

static uint64_t less(uint64_t bytes, uint64_t by)
{
	return bytes > by ? bytes - by : 0;
}

static bool read_use(const struct hierarchy *h, int directory, char *scratch, struct prim_headroom *room)
{
	if (!read_number(directory, h->usage, &room->usage_bytes))
		return false;
	if (room->usage_bytes == UINT64_MAX) { /* a limit, and no usage: a group that is being removed */
		errno = ENOENT;
		return false;
	}
	if (read_and_close(open_at(directory, "memory.stat", 0), scratch, FILE_BYTES) < 0)
		return false;
	const uint64_t active = field(scratch, h->active);
	room->reclaimable_bytes = field(scratch, h->inactive) + active;
	room->idle_bytes = less(field(scratch, h->cache), active + field(scratch, h->shared) +
							   field(scratch, h->dirty) + field(scratch, h->written));
	return true;
}

static uint64_t left_bytes(const struct prim_headroom *room)
{
	return less(room->limit_bytes, room->usage_bytes) + room->reclaimable_bytes;
}

/* Another level, with the lower of its limits in level->limit_bytes. True: it is the tightest so far. */
static bool keep_tightest(struct prim_headroom *tightest, const struct prim_headroom *level, uint64_t hard_limit_bytes,
			  unsigned free_share)
{
	const uint64_t free_bytes = less(level->limit_bytes, level->usage_bytes);

	if (free_bytes + level->idle_bytes < level->limit_bytes / free_share)
		tightest->is_free = false;
	if (hard_limit_bytes != UINT64_MAX) {
		const uint64_t left = less(hard_limit_bytes, level->usage_bytes) + level->reclaimable_bytes;
		if (left < tightest->hard_left_bytes)
			tightest->hard_left_bytes = left;
	}
	if (tightest->limit_bytes != UINT64_MAX && left_bytes(level) >= left_bytes(tightest))
		return false;
	tightest->limit_bytes = level->limit_bytes;
	tightest->usage_bytes = level->usage_bytes;
	tightest->reclaimable_bytes = level->reclaimable_bytes;
	tightest->idle_bytes = level->idle_bytes;
	tightest->slows = level->limit_bytes < hard_limit_bytes;
	return true;
}

/* The group of reading->path, that directory is open on. */
static void read_level(struct reading *reading, const struct hierarchy *h, int directory)
{
	struct prim_headroom *room = &reading->room;
	struct prim_headroom level;
	uint64_t hard_limit_bytes, high_bytes = UINT64_MAX;

	level.usage_bytes = level.reclaimable_bytes = level.idle_bytes = 0;
	if (!read_number(directory, h->limit, &hard_limit_bytes) ||
	    (h->high && !read_number(directory, h->high, &high_bytes))) {
		note_unread(room, PRIM_UNREAD_GROUP, errno);
		return;
	}
	level.limit_bytes = high_bytes < hard_limit_bytes ? high_bytes : hard_limit_bytes;
	if (level.limit_bytes == UINT64_MAX)
		return;
	if (!read_use(h, directory, reading->scratch, &level)) {
		note_unread(room, PRIM_UNREAD_GROUP, errno);
		return;
	}
	if (!keep_tightest(room, &level, hard_limit_bytes, GROUP_FREE_SHARE))
		return;
	room->hierarchy = (unsigned)(h - hierarchies);
	snprintf(room->group, sizeof(room->group), "%s", reading->path[0] ? reading->path : ".");
}

static bool is_there(const char *root, const char *path)
{
	char full[PATH_MAX];
	return (size_t)snprintf(full, sizeof(full), "%s%s", root, path) < sizeof(full) && access(full, F_OK) == 0;
}

static bool lists(char *names, const char *name)
{
	for (char *one; (one = strsep(&names, ",")) != NULL;)
		if (strcmp(one, name) == 0)
			return true;
	return false;
}

/* A mount point as /proc/self/mountinfo spells it: \ooo for what is no plain character. */
static void unescape(char *text)
{
	char *to = text;

	for (const char *from = text; *from; to++) {
		if (from[0] == '\\' && from[1] && from[2] && from[3]) {
			*to = (char)((from[1] - '0') << 6 | (from[2] - '0') << 3 | (from[3] - '0'));
			from += 4;
		} else {
			*to = *from++;
		}
	}
	*to = 0;
}

/* "36 35 0:32 ROOT MOUNT_POINT rw,noatime shared:1 - TYPE SOURCE OPTIONS": the mount point, if it has the controller. */
static char *mount_point(const struct hierarchy *h, char *line)
{
	char *tail = strstr(line, " - "), *mount = NULL;

	if (!tail)
		return NULL;
	tail += 3;
	const char *type = strsep(&tail, " ");
	(void)strsep(&tail, " ");
	if (strcmp(type, h->type) != 0 || !tail || (h == &hierarchies[V1] && !lists(tail, "memory")))
		return NULL;
	for (int fields = 0; fields < 5; fields++)
		mount = strsep(&line, " ");
	if (mount)
		unescape(mount);
	return mount;
}

/* The directory that the hierarchy is mounted on, open; or -1, ENOENT where none can be seen. */
static int open_mount(const char *root, const struct hierarchy *h, char *scratch)
{
	int mount = open_below(root, h->mount, O_DIRECTORY);
	if (mount >= 0) {
		if (faccessat(mount, "cgroup.procs", F_OK, 0) == 0)
			return mount;
		close(mount);
	} else if (errno != ENOENT) {
		return -1;
	}
	int mounts = open_below(root, "/proc/self/mountinfo", 0);
	if (mounts < 0)
		return -1;
	struct lines lines = lines_of(mounts, scratch, FILE_BYTES);
	const char *point = NULL;
	for (char *line; !point && (line = next_line(&lines)) != NULL;)
		point = mount_point(h, line);
	mount = -1;
	errno = ENOENT;
	if (point)
		mount = open_below(root, point, O_DIRECTORY);
	const int error = errno;
	close(mounts);
	errno = error;
	return mount;
}

/* Is it the directory of all groups, and not that of one which somebody mounted? */
static bool is_top(const struct hierarchy *h, int directory)
{
	return h == &hierarchies[V1] ? faccessat(directory, "release_agent", F_OK, 0) == 0 :
				       faccessat(directory, "cgroup.events", F_OK, 0) != 0;
}

/* Kernels without such namespaces have only the first. */
static bool in_first_namespace(const char *root)
{
	char path[PATH_MAX], text[64];

	if ((size_t)snprintf(path, sizeof(path), "%s/proc/self/ns/cgroup", root) >= sizeof(path))
		return false;
	ssize_t length = readlink(path, text, sizeof(text) - 1);
	if (length < 0)
		return errno == ENOENT && is_there(root, "/proc/self");
	text[length] = 0;
	return strcmp(text, FIRST_NAMESPACE) == 0;
}

/*
 * Below the mount a group's name is what /proc/self/cgroup tells, or, in a container that mounts its own group and has no
 * cgroup namespace, the end of that: the names before it are the host's. False: it is in no place that can be seen.
 */
static bool find_group(struct reading *reading, const struct hierarchy *h, int mount)
{
	char *path = reading->path;

	if (strcmp(path, "..") == 0 || strncmp(path, "../", 3) == 0)
		return false; /* outside of the namespace */
	if (path[0] == 0) /* all of a hierarchy that was mounted before the namespace was made: which group is not told */
		return !is_top(h, mount) || in_first_namespace(reading->root);
	if (faccessat(mount, path, F_OK, 0) == 0 || errno != ENOENT)
		return true;
	if (is_top(h, mount))
		return false;
	while (path[0] && faccessat(mount, path, F_OK, 0) != 0) {
		const char *slash = strchr(path, '/');
		memmove(path, slash ? slash + 1 : "", slash ? strlen(slash) : 1);
	}
	return true;
}

/* The process's own group, and all above it. */
static void read_groups(struct reading *reading, const struct hierarchy *h, int mount)
{
	char *path = reading->path;

	if (!find_group(reading, h, mount)) {
		note_unread(&reading->room, PRIM_UNREAD_OUTSIDE, ENOENT);
		path[0] = 0; /* what is above all of them counts, whichever it is */
	}
	for (;;) {
		int directory = open_at(mount, path[0] ? path : ".", O_DIRECTORY);
		if (directory < 0) {
			note_unread(&reading->room, PRIM_UNREAD_GROUP, errno);
		} else {
			read_level(reading, h, directory);
			close(directory);
		}
		if (path[0] == 0)
			break;
		char *slash = strrchr(path, '/');
		*(slash ? slash : path) = 0;
	}
}

/* Which hierarchy has the memory controller, and the path in it. Lines are "number:controllers:path"; no path has a newline. */
static const struct hierarchy *find_membership(struct reading *reading, int fd)
{
	const struct hierarchy *found = NULL;
	struct lines lines = lines_of(fd, reading->scratch, FILE_BYTES);

	for (char *line; (line = next_line(&lines)) != NULL;) {
		(void)strsep(&line, ":");
		char *controllers = strsep(&line, ":");
		if (!line)
			continue;
		const bool second = controllers[0] == 0, first = !second && lists(controllers, "memory");
		if (!first && (!second || found)) /* bound to a v1 hierarchy, v2 has it not */
			continue;
		found = &hierarchies[first ? V1 : V2];
		snprintf(reading->path, sizeof(reading->path), "%s", line + strspn(line, "/"));
	}
	return found;
}

static void read_cgroups(struct reading *reading)
{
	int membership = open_below(reading->root, "/proc/self/cgroup", 0);

	if (membership < 0) {
		/* A kernel without cgroups has all of /proc but this. */
		if (errno != ENOENT || !is_there(reading->root, "/proc/self"))
			note_unread(&reading->room, PRIM_UNREAD_MEMBERSHIP, errno);
		return;
	}
	errno = 0;
	const struct hierarchy *h = find_membership(reading, membership);
	const int error = errno;
	close(membership);
	if (!h) {
		if (error != 0)
			note_unread(&reading->room, PRIM_UNREAD_MEMBERSHIP, error);
		return;
	}
	int mount = open_mount(reading->root, h, reading->scratch);
	if (mount < 0) {
		if (errno != ENOENT)
			note_unread(&reading->room, PRIM_UNREAD_GROUP, errno);
		else if (reading->path[0] || !in_first_namespace(reading->root))
			note_unread(&reading->room, PRIM_UNREAD_OUTSIDE, errno);
		return;
	}
	read_groups(reading, h, mount);
	close(mount);
}

static void read_machine(struct reading *reading)
{
	char *text = reading->scratch;

	if (read_and_close(open_below(reading->root, "/proc/meminfo", 0), text, FILE_BYTES) < 0) {
		note_unread(&reading->room, PRIM_UNREAD_MACHINE, errno);
		return;
	}
	const uint64_t total = field(text, "MemTotal:") * 1024, active = field(text, "Active(file):") * 1024;
	struct prim_headroom level;
	level.limit_bytes = total;
	level.usage_bytes = less(total, field(text, "MemFree:") * 1024);
	level.reclaimable_bytes = field(text, "Inactive(file):") * 1024 + active;
	level.idle_bytes = less((field(text, "Cached:") + field(text, "Buffers:")) * 1024,
				active + (field(text, "Shmem:") + field(text, "Dirty:") + field(text, "Writeback:")) * 1024);
	if (total == 0)
		note_unread(&reading->room, PRIM_UNREAD_MACHINE, EINVAL);
	else if (keep_tightest(&reading->room, &level, total, MACHINE_FREE_SHARE))
		reading->room.group[0] = 0;
}

int prim_headroom_in(const char *root, struct prim_headroom *out)
{
	struct reading reading = {.root = root};

	for (int tries = 0; tries < TRIES; tries++) {
		reading.room = (struct prim_headroom){
			.limit_bytes = UINT64_MAX, .hard_left_bytes = UINT64_MAX, .is_free = true};
		read_cgroups(&reading);
		if (reading.room.unread_errno != ENOENT)
			break; /* else it may have been moved, and its group removed, while we looked */
	}
	read_machine(&reading);
	*out = reading.room;
	return DRP_OK;
}

/* No part of its callers: benchmarks/cache_instructions.py leaves what happens in it out of account, by its name. */
__attribute__((noinline)) int prim_headroom(struct prim_headroom *out)
{
	return prim_headroom_in("", out);
}

int prim_headroom_again_in(const char *root, struct prim_headroom *room)
{
	const struct hierarchy *h = &hierarchies[room->hierarchy];
	char scratch[FILE_BYTES];
	bool read = false;

	if (room->group[0] == 0)
		return DRP_UNSUPPORTED;
	int mount = open_mount(root, h, scratch);
	if (mount < 0)
		return DRP_UNSUPPORTED;
	int directory = open_at(mount, room->group, O_DIRECTORY);
	if (directory >= 0) {
		read = read_use(h, directory, scratch, room);
		close(directory);
	}
	close(mount);
	return read ? DRP_OK : DRP_UNSUPPORTED;
}

__attribute__((noinline)) int prim_headroom_again(struct prim_headroom *room)
{
	return prim_headroom_again_in("", room);
}

int prim_resident(uint64_t *bytes)
{
	char text[128];
	unsigned long total, resident, shared;

	if (read_and_close(open_below("", "/proc/self/statm", 0), text, sizeof(text)) <= 0 ||
	    sscanf(text, "%lu %lu %lu", &total, &resident, &shared) != 3)
		return DRP_UNSUPPORTED;
	*bytes = (uint64_t)(resident - shared) * prim_page_size();
	return DRP_OK;
}
