/*
 * core.c - a real core file, searched: what was droppable is not in it, and ordinary memory is (the control).
 * The child that dumps core holds the patterns only in the mappings (guest_pattern), never in its stack or text.
 */
#include "guest.h"

enum { PAGES = 256 };

static const char core_file[] = "/tmp/core";

static void dump_core(enum prim_backing backing)
{
	const struct rlimit all = {RLIM_INFINITY, RLIM_INFINITY};
	const size_t page = prim_page_size();
	char *control = guest_map(PRIM_PLAIN, PAGES * page, PRIM_DUMPABLE), *at = guest_map(backing, PAGES * page, 0);

	for (size_t i = 0; i < PAGES; i++) {
		guest_pattern(control + i * page, "control", i);
		guest_pattern(at + i * page, "secret", i);
	}
	REQUIRE(setrlimit(RLIMIT_CORE, &all) == 0 && chdir("/tmp") == 0);
	abort();
}

/* Distinct pages of a kind that are found in the core file. */
static size_t found(const char *kind)
{
	char wanted[32];
	size_t count = 0;
	struct stat size;
	int fd = open(core_file, O_RDONLY | O_CLOEXEC);

	REQUIRE(fd >= 0 && fstat(fd, &size) == 0 && size.st_size > 0);
	char *core = mmap(NULL, (size_t)size.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
	REQUIRE(core != MAP_FAILED);
	for (size_t i = 0; i < PAGES; i++) {
		guest_pattern(wanted, kind, i);
		count += memmem(core, (size_t)size.st_size, wanted, strlen(kind) + 10) != NULL;
	}
	munmap(core, (size_t)size.st_size);
	close(fd);
	return count;
}

static void never_in_a_core_file(enum prim_backing backing)
{
	if (!guest_has(backing))
		SKIP(guest_no_droppable);
	unlink(core_file);
	CHECK_EQ(guest_child(dump_core, backing), 128 + SIGABRT);
	CHECK_EQ(found("control"), PAGES);
	CHECK_EQ(found("secret"), 0);
	unlink(core_file);
}

int main(void)
{
	guest_write("/proc/sys/kernel/core_pattern", core_file);
	guest_write("/proc/sys/kernel/core_uses_pid", "0");
	RUN(never_in_a_core_file, PRIM_LAZYFREE);
	RUN(never_in_a_core_file, PRIM_DROPPABLE);
	guest_write("/proc/sys/kernel/core_pattern", "core"); /* as it was, for the tests behind this one */
	return check_done();
}
