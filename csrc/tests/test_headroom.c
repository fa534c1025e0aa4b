/*
 * test_headroom.c - how much memory is left, read from trees of files that stand for /proc and /sys.
 *
 *   a tree   ROOT/proc/self/cgroup, .../ns/cgroup, .../mountinfo, ROOT/proc/meminfo     put(), in_group(), machine()
 *            ROOT/sys/fs/cgroup/[memory/]GROUP/memory.*                                 v1(), v2()
 *
 * Each case makes a tree of its own. Its machine has 64 GB with 32 GB free, so that the group decides, but where a case
 * says otherwise.
 */
#include "os/prim_headroom.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"
#include "droppable.h"

#define MB (UINT64_C(1) << 20)
#define GB (UINT64_C(1) << 30)
#define V1_TOP "/sys/fs/cgroup/memory"
#define V2_TOP "/sys/fs/cgroup"
#define V1_UNLIMITED UINT64_C(9223372036854771712)

enum { NOBODY = 65534 };

static char root[64];
static struct prim_headroom room;

/* Makes the folders above root/path, and goes there: a path may be longer than what one call takes. */
static int folder_of(const char *path)
{
	char name[NAME_MAX + 1];
	int at = open(root, O_RDONLY | O_DIRECTORY);

	for (const char *next; (next = strchr(++path, '/')) != NULL; path = next) {
		snprintf(name, sizeof(name), "%.*s", (int)(next - path), path);
		if (mkdirat(at, name, 0755) != 0)
			REQUIRE(errno == EEXIST);
		int below = openat(at, name, O_RDONLY | O_DIRECTORY);
		REQUIRE(below >= 0);
		close(at);
		at = below;
	}
	return at;
}

__attribute__((format(printf, 2, 3))) static void put(const char *path, const char *text, ...)
{
	const int folder = folder_of(path);
	int file = openat(folder, strrchr(path, '/') + 1, O_WRONLY | O_CREAT | O_TRUNC, 0644);
	va_list values;

	REQUIRE(file >= 0);
	va_start(values, text);
	REQUIRE(vdprintf(file, text, values) >= 0);
	va_end(values);
	close(file);
	close(folder);
}

static void take_away(const char *path)
{
	const int folder = folder_of(path);
	REQUIRE(unlinkat(folder, strrchr(path, '/') + 1, 0) == 0);
	close(folder);
}

static void machine(uint64_t total, uint64_t free_bytes, uint64_t cached, uint64_t active, uint64_t inactive)
{
	put("/proc/meminfo",
	    "MemTotal: %llu kB\nMemFree: %llu kB\nBuffers: 0 kB\nCached: %llu kB\nSwapCached: 0 kB\nActive: 1 kB\n"
	    "Active(file): %llu kB\nInactive(file): %llu kB\nDirty: 0 kB\nWriteback: 0 kB\nShmem: 0 kB\n",
	    (unsigned long long)total / 1024, (unsigned long long)free_bytes / 1024, (unsigned long long)cached / 1024,
	    (unsigned long long)active / 1024, (unsigned long long)inactive / 1024);
}

static void name_namespace(const char *name)
{
	const int folder = folder_of("/proc/self/ns/cgroup");
	REQUIRE(symlinkat(name, folder, "cgroup") == 0);
	close(folder);
}

/* What a group uses, by the names of memory.stat. */
struct use {
	uint64_t usage, file, shmem, dirty, writeback, inactive, active;
};

static void put_in(const char *top, const char *group, const char *name, const char *text)
{
	char path[2 * PATH_MAX];
	snprintf(path, sizeof(path), "%s%s/%s", top, group, name);
	put(path, "%s", text);
}

static void put_use(const char *top, const char *group, const char *total, struct use use)
{
	const bool first = total[0] != 0;
	/* Without the total, v1 tells of the group alone. */
	const char *alone = first ? "cache 1\nshmem 2\ninactive_file 3\nactive_file 4\n" : "anon 1\n";
	char text[1024];

	snprintf(text, sizeof(text), "%llu\n", (unsigned long long)use.usage);
	put_in(top, group, first ? "memory.usage_in_bytes" : "memory.current", text);
	snprintf(text, sizeof(text),
		 "%s%s%s %llu\n%sshmem %llu\n%s%s %llu\n%s%s %llu\n%sinactive_file %llu\n%sactive_file %llu\n", alone,
		 total, first ? "cache" : "file", (unsigned long long)use.file, total, (unsigned long long)use.shmem, total,
		 first ? "dirty" : "file_dirty", (unsigned long long)use.dirty, total,
		 first ? "writeback" : "file_writeback", (unsigned long long)use.writeback, total,
		 (unsigned long long)use.inactive, total, (unsigned long long)use.active);
	put_in(top, group, "memory.stat", text);
	put_in(top, group, "cgroup.procs", "\n");
}

/* Groups: "" is the top, others begin with a slash. Limits as the kernel spells them. */
static void v2(const char *group, const char *max, const char *high, struct use use)
{
	put_in(V2_TOP, group, "memory.max", max);
	put_in(V2_TOP, group, "memory.high", high);
	put_in(V2_TOP, group, "cgroup.events", "populated 1\n");
	put_use(V2_TOP, group, "", use);
}

static void v1(const char *group, uint64_t limit, struct use use)
{
	char text[32];
	snprintf(text, sizeof(text), "%llu\n", (unsigned long long)limit);
	put_in(V1_TOP, group, "memory.limit_in_bytes", text);
	put_use(V1_TOP, group, "total_", use);
}

static void v2_top(void)
{
	put(V2_TOP "/cgroup.procs", "1\n");
	put(V2_TOP "/cgroup.controllers", "cpu memory\n");
}

static void v1_top(void)
{
	put(V1_TOP "/release_agent", "\n");
	v1("", V1_UNLIMITED, (struct use){.usage = 30 * GB});
}

static void in_group(const char *membership)
{
	put("/proc/self/cgroup", "%s", membership);
}

static void read_room(void)
{
	memset(&room, 0xff, sizeof(room));
	CHECK_EQ(prim_headroom_in(root, &room), DRP_OK);
}

/* Folder by folder: a path may be too long for one call. */
static void remove_below(int folder, const char *name)
{
	int at = openat(folder, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW);
	if (at < 0)
		return;
	DIR *entries = fdopendir(at);
	for (struct dirent *entry; (entry = readdir(entries)) != NULL;) {
		if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
			continue;
		if (unlinkat(at, entry->d_name, 0) != 0)
			remove_below(at, entry->d_name);
	}
	closedir(entries);
	(void)unlinkat(folder, name, AT_REMOVEDIR);
}

static void no_group_leaves_the_machine(void)
{
	machine(8 * GB, GB, 5 * GB, 2 * GB, 3 * GB);
	put("/proc/self/stat", "1\n"); /* a kernel without cgroups: all of /proc but one file */
	read_room();
	CHECK_EQ(room.limit_bytes, 8 * GB);
	CHECK_EQ(room.usage_bytes, 7 * GB);
	CHECK_EQ(room.reclaimable_bytes, 5 * GB);
	CHECK_EQ(room.idle_bytes, 3 * GB);
	CHECK_EQ(room.hard_left_bytes, 6 * GB);
	CHECK_EQ(room.unread, PRIM_READ_ALL);
	CHECK_EQ(room.group[0], 0);
	CHECK(room.is_free && !room.slows);
}

static void the_machine_is_free_where_a_64th_of_it_is(void)
{
	put("/proc/self/stat", "1\n");
	machine(64 * GB, GB, 2 * GB, 2 * GB, 40 * GB); /* inactive: lazyfree memory, no page cache */
	read_room();
	CHECK(room.is_free);
	machine(64 * GB, GB - MB, 2 * GB, 2 * GB, 40 * GB);
	read_room();
	CHECK(!room.is_free);
	machine(64 * GB, GB / 2, 3 * GB, 2 * GB + GB / 2, 40 * GB);
	read_room();
	CHECK(room.is_free); /* half a GB free, half a GB of idle page cache */
}

static void a_group_of_v2_is_read(void)
{
	v2_top();
	in_group("0::/work\n");
	v2("/work", "104857600\n", "max\n", (struct use){.usage = 90 * MB, .inactive = 30 * MB, .active = 10 * MB});
	read_room();
	CHECK_EQ(room.limit_bytes, 100 * MB);
	CHECK_EQ(room.usage_bytes, 90 * MB);
	CHECK_EQ(room.reclaimable_bytes, 40 * MB);
	CHECK_EQ(room.hard_left_bytes, 50 * MB);
	CHECK_EQ(room.unread, PRIM_READ_ALL);
	CHECK(strcmp(room.group, "work") == 0);
	CHECK(room.is_free && !room.slows);
	v2("/work", "104857600\n", "max\n", (struct use){.usage = 95 * MB, .inactive = 30 * MB});
	room.usage_bytes = 0;
	CHECK_EQ(prim_headroom_again_in(root, &room), DRP_OK);
	CHECK_EQ(room.usage_bytes, 95 * MB);
	CHECK_EQ(room.reclaimable_bytes, 30 * MB);
}

static void a_group_of_v1_is_read_with_those_below_it(void)
{
	v1_top();
	in_group("3:cpu,cpuacct:/\n2:name=systemd:/other\n1:blkio,memory:/work\n0::/\n");
	v1("/work", 100 * MB, (struct use){.usage = 90 * MB, .file = 20 * MB, .inactive = 30 * MB, .active = 10 * MB});
	read_room();
	CHECK_EQ(room.limit_bytes, 100 * MB);
	CHECK_EQ(room.usage_bytes, 90 * MB);
	CHECK_EQ(room.reclaimable_bytes, 40 * MB);
	CHECK_EQ(room.idle_bytes, 10 * MB);
	CHECK_EQ(room.unread, PRIM_READ_ALL);
	CHECK(room.is_free);
	CHECK_EQ(prim_headroom_again_in(root, &room), DRP_OK);
}

/* Page cache that is there anyhow, and page cache that somebody would miss; usage is at the limit. */
static void only_idle_page_cache_is_as_good_as_free(void)
{
	const struct {
		struct use use;
		uint64_t idle_bytes;
	} cases[] = {
		{{.file = 40 * MB, .inactive = 40 * MB}, 40 * MB},
		{{.file = 40 * MB, .active = 40 * MB}, 0},
		{{.file = 40 * MB, .inactive = 40 * MB, .dirty = 39 * MB}, 1 * MB},
		{{.file = 40 * MB, .inactive = 40 * MB, .writeback = 39 * MB}, 1 * MB},
		{{.file = 40 * MB, .shmem = 40 * MB}, 0},
		{{.file = 0, .inactive = 80 * MB}, 0},                /* lazyfree memory alone */
		{{.file = 10 * MB, .active = 30 * MB}, 0},            /* much of what is active is no page cache */
	};

	v1_top();
	v2_top();
	for (size_t i = 0; i < 2 * sizeof(cases) / sizeof(cases[0]); i++) {
		struct use use = cases[i / 2].use;
		use.usage = 100 * MB;
		if (i % 2 == 0)
			v2("/work", "104857600", "max", use);
		else
			v1("/work", 100 * MB, use);
		in_group(i % 2 == 0 ? "0::/work\n" : "1:memory:/work\n0::/work\n");
		read_room();
		CHECK_EQ(room.idle_bytes, cases[i / 2].idle_bytes);
		CHECK_EQ(room.is_free, cases[i / 2].idle_bytes >= 100 * MB / 16);
		CHECK_EQ(room.unread, PRIM_READ_ALL);
	}
}

static void all_levels_count_and_the_tightest_is_told(void)
{
	v2_top();
	in_group("0::/outer/middle/leaf\n");
	v2("/outer", "1073741824", "max", (struct use){.usage = 1023 * MB, .inactive = 1000 * MB});
	v2("/outer/middle", "104857600", "max", (struct use){.usage = 80 * MB});
	v2("/outer/middle/leaf", "max", "max", (struct use){.usage = 70 * MB});
	read_room();
	CHECK_EQ(room.limit_bytes, 100 * MB);
	CHECK_EQ(room.usage_bytes, 80 * MB);
	CHECK(strcmp(room.group, "outer/middle") == 0);
	CHECK_EQ(room.hard_left_bytes, 20 * MB);
	CHECK(!room.is_free); /* 20 of 100 MB are, but above only 1 of 1024 */
	v2("/outer", "1073741824", "max", (struct use){.usage = 900 * MB, .inactive = 300 * MB});
	read_room();
	CHECK(room.is_free);
	v2("/outer", "1073741824", "max", (struct use){.usage = 1020 * MB, .inactive = 10 * MB});
	read_room();
	CHECK_EQ(room.limit_bytes, 1024 * MB);
	CHECK(strcmp(room.group, "outer") == 0);
	CHECK_EQ(room.hard_left_bytes, 14 * MB);
	CHECK_EQ(room.unread, PRIM_READ_ALL);
}

static void the_machine_may_be_the_tightest(void)
{
	v2_top();
	in_group("0::/work\n");
	v2("/work", "68719476736", "max", (struct use){.usage = GB});
	machine(8 * GB, GB, GB, GB, 0);
	read_room();
	CHECK_EQ(room.limit_bytes, 8 * GB);
	CHECK_EQ(room.group[0], 0);
	CHECK_EQ(prim_headroom_again_in(root, &room), DRP_UNSUPPORTED);
}

static void where_the_controller_is_off_there_is_no_limit(void)
{
	v2_top();
	in_group("0::/system/work\n");
	put(V2_TOP "/system/cgroup.events", "populated 1\n");
	put(V2_TOP "/system/work/cgroup.events", "populated 1\n");
	read_room();
	CHECK_EQ(room.limit_bytes, 64 * GB);
	CHECK_EQ(room.unread, PRIM_READ_ALL);
	CHECK(room.is_free);
}

static void what_slows_is_a_limit_and_does_not_kill(void)
{
	v2_top();
	in_group("0::/work\n");
	v2("/work", "209715200", "104857600\n", (struct use){.usage = 90 * MB, .inactive = 5 * MB});
	read_room();
	CHECK_EQ(room.limit_bytes, 100 * MB);
	CHECK(room.slows);
	CHECK(room.is_free);
	CHECK_EQ(room.hard_left_bytes, 115 * MB);
	v2("/work", "209715200", "104857600\n", (struct use){.usage = 95 * MB, .inactive = 5 * MB});
	read_room();
	CHECK(!room.is_free); /* 110 of 200 MB are below the limit that kills, but reclaim begins at the other */
	v2("/work", "max", "104857600\n", (struct use){.usage = 110 * MB});
	read_room();
	CHECK_EQ(room.limit_bytes, 100 * MB);
	CHECK(room.slows);
	CHECK_EQ(room.hard_left_bytes, 32 * GB); /* the machine's */
	v2("/work", "104857600\n", "209715200", (struct use){.usage = 95 * MB});
	read_room();
	CHECK(!room.slows);
	CHECK_EQ(room.hard_left_bytes, 5 * MB);
}

static void names_may_be_odd(void)
{
	v2_top();
	in_group("0::/a b:c,d\\x2d\"*/memory:/lauf\xc3\xa4 (deleted)\n");
	v2("/a b:c,d\\x2d\"*/memory:/lauf\xc3\xa4 (deleted)", "104857600", "max", (struct use){.usage = 10 * MB});
	read_room();
	CHECK_EQ(room.limit_bytes, 100 * MB);
	CHECK_EQ(room.unread, PRIM_READ_ALL);
	CHECK_EQ(prim_headroom_again_in(root, &room), DRP_OK);
}

/* length: of the path in all, as the kernel gives up to PATH_MAX - 1; of another hierarchy the same, before it. */
static void a_path_may_be_long(size_t length)
{
	static char path[PATH_MAX], membership[4 * PATH_MAX];

	memset(path, 'n', length);
	for (size_t at = 0; at < length; at += 200)
		path[at] = '/';
	path[length] = 0;
	snprintf(membership, sizeof(membership), "12:cpu,cpuacct:%s\n11:pids:%s\n10:memory:%s\n0::/\n", path, path, path);
	v1_top();
	in_group(membership);
	v1(path, 100 * MB, (struct use){.usage = 90 * MB});
	path[strrchr(path, '/') - path] = 0;
	v1(path, 50 * MB, (struct use){.usage = 10 * MB});
	read_room();
	CHECK_EQ(room.limit_bytes, 100 * MB);
	CHECK_EQ(room.unread, PRIM_READ_ALL);
	CHECK_EQ(strlen(room.group), length - 1);
	CHECK_EQ(prim_headroom_again_in(root, &room), DRP_OK);
}

static void a_container_may_mount_its_own_group_as_the_top(void)
{
	in_group("0::/docker/abc/inner\n"); /* the names that the host knows */
	v2("", "104857600", "max", (struct use){.usage = 80 * MB});
	v2("/inner", "52428800", "max", (struct use){.usage = 45 * MB});
	read_room();
	CHECK_EQ(room.limit_bytes, 50 * MB);
	CHECK_EQ(room.unread, PRIM_READ_ALL);
	in_group("0::/docker/abc\n");
	read_room();
	CHECK_EQ(room.limit_bytes, 100 * MB);
	CHECK_EQ(prim_headroom_again_in(root, &room), DRP_OK);
	CHECK_EQ(room.unread, PRIM_READ_ALL);
}

static void a_namespace_has_its_own_top(void)
{
	in_group("0::/\n");
	name_namespace("cgroup:[4026532000]");
	v2("", "104857600", "max", (struct use){.usage = 80 * MB});
	read_room();
	CHECK_EQ(room.limit_bytes, 100 * MB);
	CHECK_EQ(room.unread, PRIM_READ_ALL);
}

static void outside_of_the_namespace_the_limit_is_not_known(void)
{
	name_namespace("cgroup:[4026532000]");
	v2("", "104857600", "max", (struct use){.usage = 80 * MB});
	in_group("0::/../other\n");
	v2("/../other", "1048576", "max", (struct use){.usage = MB}); /* something else that goes by that name */
	read_room();
	CHECK_EQ(room.unread, PRIM_UNREAD_OUTSIDE);
	CHECK(!room.is_free);
	in_group("0::/..\n");
	read_room();
	CHECK_EQ(room.unread, PRIM_UNREAD_OUTSIDE);
}

/* unshare --cgroup, without a new mount: this process's group has the name of the top, and is not it. */
static void a_mount_that_is_older_than_the_namespace_does_not_tell(bool second)
{
	name_namespace("cgroup:[4026532000]");
	if (second)
		v2_top();
	else
		v1_top();
	in_group(second ? "0::/\n" : "1:memory:/\n");
	read_room();
	CHECK_EQ(room.unread, PRIM_UNREAD_OUTSIDE);
	CHECK(!room.is_free);
}

static void the_top_of_all_has_no_limit(bool second)
{
	name_namespace("cgroup:[4026531835]");
	if (second)
		v2_top();
	else
		v1_top();
	in_group(second ? "0::/\n" : "1:memory:/\n0::/\n");
	read_room();
	CHECK_EQ(room.unread, PRIM_READ_ALL);
	CHECK_EQ(room.limit_bytes, 64 * GB);
	CHECK(room.is_free);
}

static void no_mount_is_no_news(void)
{
	in_group("0::/user.slice/app\n");
	put("/proc/self/mountinfo", "36 35 98:0 / / rw - ext4 /dev/root rw\n");
	read_room();
	CHECK_EQ(room.unread, PRIM_UNREAD_OUTSIDE);
	CHECK_EQ(room.limit_bytes, 64 * GB);
	CHECK(!room.is_free);
	in_group("0::/\n"); /* the top: whatever is mounted where, it has no limit */
	read_room();
	CHECK_EQ(room.unread, PRIM_READ_ALL);
	in_group(""); /* no hierarchy at all */
	read_room();
	CHECK_EQ(room.unread, PRIM_READ_ALL);
}

static void a_group_that_is_not_where_it_should_be_is_not_known(void)
{
	v2_top();
	in_group("0::/gone\n");
	read_room();
	CHECK_EQ(room.unread, PRIM_UNREAD_OUTSIDE);
	CHECK_EQ(room.unread_errno, ENOENT);
}

/* /sys/fs/cgroup is a plain folder, and v2 is mounted below it: with the controller, or without. */
static void hybrid_mounts_are_found(void)
{
	put("/proc/self/mountinfo",
	    "35 31 0:32 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n"
	    "41 31 0:38 / /sys/fs/cgroup/uni\\040fied rw,relatime shared:7 - cgroup2 cgroup2 rw,nsdelegate\n");
	put("/sys/fs/cgroup/cpu/work/cgroup.procs", "\n");
	put("/sys/fs/cgroup/uni fied/cgroup.procs", "\n");
	put("/sys/fs/cgroup/uni fied/work/memory.max", "104857600\n");
	put("/sys/fs/cgroup/uni fied/work/memory.current", "4096\n");
	put("/sys/fs/cgroup/uni fied/work/memory.stat", "file 0\n");
	in_group("1:cpu:/work\n0::/work\n");
	read_room();
	CHECK_EQ(room.unread, PRIM_READ_ALL);
	CHECK_EQ(room.limit_bytes, 100 * MB);
	CHECK_EQ(prim_headroom_again_in(root, &room), DRP_OK);
	v1_top();
	v1("/work", 50 * MB, (struct use){.usage = 10 * MB});
	in_group("0::/work\n1:memory:/work\n"); /* v1 has it: what v2 says does not count */
	read_room();
	CHECK_EQ(room.limit_bytes, 50 * MB);
}

static void v1_may_be_mounted_elsewhere(void)
{
	put("/proc/self/mountinfo", "35 31 0:32 / /cg rw - cgroup none rw,cpu,memory\n");
	put("/cg/work/memory.limit_in_bytes", "104857600\n");
	put("/cg/work/memory.usage_in_bytes", "4096\n");
	put("/cg/work/memory.stat", "total_cache 0\n");
	in_group("4:cpu,memory:/work\n");
	read_room();
	CHECK_EQ(room.unread, PRIM_READ_ALL);
	CHECK_EQ(room.limit_bytes, 100 * MB);
}

static void files_that_are_missing_or_odd_are_told(void)
{
	v2_top();
	in_group("0::/work\n");
	v2("/work", "104857600", "max", (struct use){.usage = 90 * MB, .inactive = 20 * MB});
	take_away(V2_TOP "/work/memory.current");
	read_room();
	CHECK_EQ(room.unread, PRIM_UNREAD_GROUP);
	v2("/work", "\n", "max", (struct use){.usage = 90 * MB});
	read_room();
	CHECK_EQ(room.unread, PRIM_UNREAD_GROUP);
	v2("/work", "104857600", "max", (struct use){.usage = 90 * MB});
	take_away(V2_TOP "/work/memory.stat");
	read_room();
	CHECK_EQ(room.unread, PRIM_UNREAD_GROUP);
	v2("/work", "104857600", "max", (struct use){.usage = 90 * MB});
	take_away(V2_TOP "/work/memory.high");
	read_room();
	CHECK_EQ(room.unread, PRIM_READ_ALL);
	take_away("/proc/meminfo");
	read_room();
	CHECK_EQ(room.unread, PRIM_UNREAD_MACHINE);
	CHECK_EQ(room.limit_bytes, 100 * MB);
	CHECK(!room.is_free);
}

static void without_proc_nothing_is_known(void)
{
	take_away("/proc/meminfo");
	v1_top();
	read_room();
	CHECK_EQ(room.limit_bytes, UINT64_MAX);
	CHECK_EQ(room.hard_left_bytes, UINT64_MAX);
	CHECK_EQ(room.unread, PRIM_UNREAD_MEMBERSHIP);
	CHECK(!room.is_free);
}

/* Every number of descriptors that are left, until there are enough: the limit is told right, or that it is not known. */
static void no_descriptors_are_told(void)
{
	v2_top();
	in_group("0::/a/b\n");
	v2("/a", "104857600", "max", (struct use){.usage = 90 * MB});
	v2("/a/b", "max", "max", (struct use){.usage = 90 * MB});
	const pid_t child = fork();
	REQUIRE(child >= 0);
	if (child == 0) {
		const int first = dup(STDOUT_FILENO);
		for (int left = 0; left < 5; left++) {
			const struct rlimit limit = {(rlim_t)(first + 1 + left), (rlim_t)(first + 1 + left)};
			if (left == 0) /* lower would close nothing, and let nobody open */
				for (int fd = first + 1; fd < first + 16; fd++)
					close(fd);
			struct rlimit now;
			REQUIRE(getrlimit(RLIMIT_NOFILE, &now) == 0);
			now.rlim_cur = limit.rlim_cur;
			REQUIRE(setrlimit(RLIMIT_NOFILE, &now) == 0);
			read_room();
			CHECK(left < 3 ? room.unread != PRIM_READ_ALL && room.unread_errno == EMFILE && !room.is_free :
					 room.unread == PRIM_READ_ALL && room.limit_bytes == 100 * MB);
			const int next = dup(STDOUT_FILENO); /* none of its own stays open */
			CHECK_EQ(next, left == 0 ? -1 : first + 1);
			close(next);
		}
		_exit(check_failures());
	}
	int status;
	REQUIRE(waitpid(child, &status, 0) == child);
	CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

static void what_may_not_be_read_is_told(const char *path)
{
	if (geteuid() != 0)
		SKIP("only root can make files that it may not read, as somebody else");
	v2_top();
	in_group("0::/outer/work\n");
	v2("/outer", "104857600", "max", (struct use){.usage = 90 * MB});
	v2("/outer/work", "max", "max", (struct use){.usage = 90 * MB});
	const int folder = folder_of(path);
	REQUIRE(fchmodat(folder, strrchr(path, '/') + 1, 0, 0) == 0);
	REQUIRE(chmod(root, 0755) == 0);
	const pid_t child = fork();
	REQUIRE(child >= 0);
	if (child == 0) {
		if (setresuid(NOBODY, NOBODY, NOBODY) != 0)
			_exit(1);
		read_room();
		CHECK(room.unread != PRIM_READ_ALL);
		CHECK_EQ(room.unread_errno, EACCES);
		CHECK(!room.is_free);
		_exit(check_failures());
	}
	int status;
	REQUIRE(waitpid(child, &status, 0) == child);
	CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
	REQUIRE(fchmodat(folder, strrchr(path, '/') + 1, 0755, 0) == 0);
	close(folder);
}

static void begin(void)
{
	snprintf(root, sizeof(root), "/tmp/droppable-headroom-XXXXXX");
	REQUIRE(mkdtemp(root) != NULL);
	machine(64 * GB, 32 * GB, 0, 0, 0);
}

static void end(void)
{
	remove_below(AT_FDCWD, root);
	CHECK(access(root, F_OK) != 0);
}

#define IN_A_TREE(name, ...)                                                                                            \
	do {                                                                                                            \
		begin();                                                                                                \
		RUN(name, ##__VA_ARGS__);                                                                               \
		end();                                                                                                  \
	} while (0)

int main(void)
{
	IN_A_TREE(no_group_leaves_the_machine);
	IN_A_TREE(the_machine_is_free_where_a_64th_of_it_is);
	IN_A_TREE(a_group_of_v2_is_read);
	IN_A_TREE(a_group_of_v1_is_read_with_those_below_it);
	IN_A_TREE(only_idle_page_cache_is_as_good_as_free);
	IN_A_TREE(all_levels_count_and_the_tightest_is_told);
	IN_A_TREE(the_machine_may_be_the_tightest);
	IN_A_TREE(where_the_controller_is_off_there_is_no_limit);
	IN_A_TREE(what_slows_is_a_limit_and_does_not_kill);
	IN_A_TREE(names_may_be_odd);
	IN_A_TREE(a_path_may_be_long, 600);
	IN_A_TREE(a_path_may_be_long, 1300);
	IN_A_TREE(a_path_may_be_long, PATH_MAX - 1);
	IN_A_TREE(a_container_may_mount_its_own_group_as_the_top);
	IN_A_TREE(a_namespace_has_its_own_top);
	IN_A_TREE(outside_of_the_namespace_the_limit_is_not_known);
	IN_A_TREE(a_mount_that_is_older_than_the_namespace_does_not_tell, true);
	IN_A_TREE(a_mount_that_is_older_than_the_namespace_does_not_tell, false);
	IN_A_TREE(the_top_of_all_has_no_limit, true);
	IN_A_TREE(the_top_of_all_has_no_limit, false);
	IN_A_TREE(no_mount_is_no_news);
	IN_A_TREE(a_group_that_is_not_where_it_should_be_is_not_known);
	IN_A_TREE(hybrid_mounts_are_found);
	IN_A_TREE(v1_may_be_mounted_elsewhere);
	IN_A_TREE(files_that_are_missing_or_odd_are_told);
	IN_A_TREE(without_proc_nothing_is_known);
	IN_A_TREE(no_descriptors_are_told);
	IN_A_TREE(what_may_not_be_read_is_told, "/sys/fs/cgroup/outer/memory.max");
	IN_A_TREE(what_may_not_be_read_is_told, "/sys/fs/cgroup/outer/work");
	IN_A_TREE(what_may_not_be_read_is_told, "/sys/fs/cgroup/outer");
	IN_A_TREE(what_may_not_be_read_is_told, "/sys/fs");
	IN_A_TREE(what_may_not_be_read_is_told, "/proc/self/cgroup");
	IN_A_TREE(what_may_not_be_read_is_told, "/proc");
	return check_done();
}
