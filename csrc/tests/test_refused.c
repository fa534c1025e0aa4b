/*
 * test_refused.c - each call of prim.h on Linux, and each probe, while the kernel refuses one of the system calls that it makes:
 * each system call in turn, once or from there on, with each errno that it could give.
 *
 *   call of prim.h  -->  system call 1, 2, 3 ...
 *                                    ^ refused: number N alone, or N and all that follow
 *
 * Either the call succeeds nevertheless and its result is right, or it returns the status that this errno stands for, or one that
 * its row in the table allows. Afterwards no mapping and no descriptor is left, and the same call works.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdarg.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"
#include "droppable.h"
#include "os/prim.h"
#include "os/prim_self.h"
#include "os/prim_track.h"
#include "os/probe.h"
#include "random/random.h"

enum { PAGES = 4, MOST_DESCRIPTORS = 256, MOST_CALLS = 200, HANG_SECONDS = 60 };

static struct {
	size_t calls, refused; /* of the system, since it was armed; number of the one that is refused, 0: none */
	bool armed, from_there_on;
	int error;
} plan;

static bool refuses(void)
{
	if (!plan.armed)
		return false;
	plan.calls++;
	if (plan.refused == 0 || plan.calls < plan.refused || (plan.calls > plan.refused && !plan.from_there_on))
		return false;
	errno = plan.error;
	return true;
}

#define REFUSED(type, name, parameters, arguments, failure)                                                             \
	type __real_##name parameters;                                                                                  \
	type __wrap_##name parameters;                                                                                  \
	type __wrap_##name parameters                                                                                   \
	{                                                                                                               \
		return refuses() ? (failure) : __real_##name arguments;                                                 \
	}

REFUSED(void *, mmap64, (void *at, size_t length, int protection, int flags, int file, off_t offset),
	(at, length, protection, flags, file, offset), MAP_FAILED)
REFUSED(int, madvise, (void *at, size_t length, int advice), (at, length, advice), -1)
REFUSED(int, mincore, (void *at, size_t length, unsigned char *states), (at, length, states), -1)
REFUSED(int, memfd_create, (const char *name, unsigned flags), (name, flags), -1)
REFUSED(int, ftruncate64, (int file, off_t length), (file, length), -1)
REFUSED(int, fstat64, (int file, struct stat *about), (file, about), -1)
REFUSED(int, pipe2, (int ends[2], int flags), (ends, flags), -1)
REFUSED(ssize_t, read, (int file, void *to, size_t bytes), (file, to, bytes), -1)
REFUSED(ssize_t, write, (int file, const void *from, size_t bytes), (file, from, bytes), -1)
REFUSED(ssize_t, readlink, (const char *path, char *to, size_t bytes), (path, to, bytes), -1)
REFUSED(ssize_t, getrandom, (void *to, size_t bytes, unsigned flags), (to, bytes, flags), -1)
REFUSED(int, faccessat, (int folder, const char *path, int mode, int flags), (folder, path, mode, flags), -1)
REFUSED(int, pthread_mutex_lock, (pthread_mutex_t * mutex), (mutex), plan.error)

/* These take what they take after the last named parameter. */
#define REFUSED_VARIADIC(name, parameters, last, type, arguments)                                                       \
	int __real_##name parameters;                                                                                   \
	int __wrap_##name parameters;                                                                                   \
	int __wrap_##name parameters                                                                                    \
	{                                                                                                               \
		va_list more;                                                                                           \
		va_start(more, last);                                                                                   \
		type argument = va_arg(more, type);                                                                     \
		va_end(more);                                                                                           \
		return refuses() ? -1 : __real_##name arguments;                                                        \
	}

REFUSED_VARIADIC(ioctl, (int file, unsigned long request, ...), request, void *, (file, request, argument))
REFUSED_VARIADIC(fcntl64, (int file, int command, ...), command, int, (file, command, argument))

int __real_open64(const char *path, int flags, ...);
int __wrap_open64(const char *path, int flags, ...);
int __wrap_open64(const char *path, int flags, ...)
{
	return refuses() ? -1 : __real_open64(path, flags);
}

int __real_openat64(int folder, const char *path, int flags, ...);
int __wrap_openat64(int folder, const char *path, int flags, ...);
int __wrap_openat64(int folder, const char *path, int flags, ...)
{
	return refuses() ? -1 : __real_openat64(folder, path, flags);
}

long __real_syscall(long number, ...);
long __wrap_syscall(long number, ...);
long __wrap_syscall(long number, ...)
{
	va_list more;
	va_start(more, number);
	const long a = va_arg(more, long), b = va_arg(more, long), c = va_arg(more, long), d = va_arg(more, long), e = va_arg(more, long);
	va_end(more);
	return number != SYS_gettid && refuses() ? -1 : __real_syscall(number, a, b, c, d, e);
}

static size_t bytes; /* of PAGES pages */
static unsigned char *given, states[PAGES]; /* what calls are about: mapped and filled, before and after nobody refuses */
static unsigned char source[PAGES * 65536];

static int map(enum prim_backing backing, unsigned flags)
{
	void *at = NULL;
	const int status = prim_map(backing, bytes, flags, &at);

	CHECK_EQ(status == DRP_OK, at != NULL);
	if (status == DRP_OK) {
		CHECK_EQ(*(volatile unsigned char *)at, 0);
		CHECK_EQ(munmap(at, bytes), 0);
	}
	return status;
}

static int map_lazyfree(void)
{
	return map(PRIM_LAZYFREE, 0);
}

static int map_droppable(void)
{
	return map(PRIM_DROPPABLE, 0);
}

static int map_plain(void)
{
	return map(PRIM_PLAIN, PRIM_HUGE_PAGES);
}

static int map_raw(void)
{
	void *at = NULL;
	const int status = prim_map_raw(bytes, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, &at);

	CHECK_EQ(status == DRP_OK, at != NULL);
	if (at)
		CHECK_EQ(munmap(at, bytes), 0);
	return status;
}

static int mark(void)
{
	return prim_mark(given, bytes);
}

static int mark_ranges(void)
{
	const struct iovec ranges[] = {{given, bytes / PAGES}, {given + bytes / 2, bytes / 2}};

	return prim_mark_ranges(ranges, 2);
}

static int purge(void)
{
	const int status = prim_purge(given, bytes);

	CHECK_EQ(given[0], status == DRP_OK ? 0 : 0x5a);
	return status;
}

static int page_out(void)
{
	return prim_page_out(given, bytes);
}

static int cold(void)
{
	return prim_cold(given, bytes);
}

static int fork_content(void)
{
	return prim_fork_content(given, bytes, true);
}

static int census(void)
{
	struct prim_census census = {.pages = 7};

	CHECK_EQ(__real_madvise(given, bytes / PAGES, MADV_DONTNEED), 0);
	const int status = prim_census(given, bytes, states, &census);
	CHECK_EQ(census.pages, status == DRP_OK ? PAGES : 7);
	if (status == DRP_OK) {
		CHECK_EQ(states[0], PRIM_ABSENT);
		CHECK_EQ(census.absent_pages, 1);
		CHECK_EQ(census.resident_pages, PAGES - 1);
		CHECK_EQ(states[PAGES - 1], PRIM_RESIDENT);
	}
	return status;
}

static int draw(void)
{
	unsigned char drawn[40] = {0};
	unsigned any = 0;
	const int status = prim_random(drawn, sizeof(drawn));

	for (size_t i = 0; i < sizeof(drawn); i++)
		any |= drawn[i];
	CHECK_EQ(status == DRP_OK, any != 0);
	return status;
}

/* Whose descriptor it is the kernel is asked in two ways. Where it refuses both, the descriptor stays: it may be another's by now. */
static void end_handle(int handle, void (*end)(int handle))
{
	plan.armed &= !plan.from_there_on;
	end(handle);
}

/* The absent first page is made live; the signal itself is test_prim.c's and test_guard.c's. */
static int refill(void)
{
	size_t done = 0;
	int handle;

	int status = prim_signal_open(&handle);
	if (status != DRP_OK)
		return status;
	status = prim_signal_arm(handle, given, bytes);
	if (status != DRP_OK)
		goto out;
	status = prim_purge(given, bytes / PAGES);
	if (status == DRP_OK)
		status = prim_signal_refill(handle, given, source, bytes / PAGES, &done);
	CHECK_EQ(done, status == DRP_OK ? bytes / PAGES : 0);
	if (status == DRP_OK)
		CHECK_EQ(memcmp(given, source, bytes / PAGES), 0);
	if (status == DRP_OK)
		status = prim_signal_disarm(handle, given, bytes);
out:
	end_handle(handle, prim_signal_close);
	return status;
}

static int count_run(void *context, void *address, size_t length)
{
	CHECK((unsigned char *)address >= given && (unsigned char *)address + length <= given + bytes);
	*(size_t *)context += length;
	return DRP_OK;
}

static int track(void)
{
	size_t written = 0;
	int handle;

	int status = prim_track_open(given, bytes, &handle);
	if (status != DRP_OK)
		return status;
	given[0] = 0x5a;
	status = prim_track_collect(given, bytes, count_run, &written);
	if (status == DRP_OK)
		CHECK(written >= bytes / PAGES);
	end_handle(handle, prim_track_close);
	return status;
}

static int share(void)
{
	const void *theirs = NULL;
	void *ours = NULL;
	int file = 0;

	int status = prim_share_open(bytes, &file, &ours);
	CHECK_EQ(status == DRP_OK, file >= 0);
	if (status != DRP_OK)
		return status;
	*(unsigned char *)ours = 7;
	status = prim_share_map(file, bytes, &theirs);
	if (status == DRP_OK) {
		CHECK_EQ(*(const unsigned char *)theirs, 7);
		prim_share_unmap(theirs, bytes);
	}
	prim_share_unmap(ours, bytes);
	close(file);
	return status;
}

static int sign(void)
{
	_Alignas(16) static unsigned char place[PRIM_SIGN_BYTES];
	uint32_t word_at = 0;

	memset(place, 0, sizeof(place));
	const int status = prim_sign_begin(place, &word_at);
	CHECK_EQ(prim_sign_stands(place, word_at), status == DRP_OK);
	if (status == DRP_OK)
		prim_sign_end(place);
	return status;
}

/* What could not be read is told: a limit that nobody told of would be exceeded. */
static int headroom(void)
{
	static struct prim_headroom usual;
	struct prim_headroom room;

	CHECK_EQ(prim_headroom(&room), DRP_OK);
	if (plan.refused == 0)
		usual = room;
	if (room.unread == PRIM_READ_ALL)
		CHECK_EQ(room.limit_bytes, usual.limit_bytes);
	else
		CHECK_EQ(room.unread_errno, plan.error);
	return DRP_OK;
}

static int headroom_again(void)
{
	struct prim_headroom room;
	const bool was_armed = plan.armed;

	plan.armed = false;
	CHECK_EQ(prim_headroom(&room), DRP_OK);
	plan.armed = was_armed;
	const uint64_t limit_bytes = room.limit_bytes;
	const int status = prim_headroom_again(&room);
	CHECK_EQ(room.limit_bytes, limit_bytes);
	return status;
}

static int resident(void)
{
	uint64_t resident_bytes = 0;
	const int status = prim_resident(&resident_bytes);

	CHECK_EQ(status == DRP_OK, resident_bytes > 0);
	return status;
}

enum {
	NO_MEMORY = 1 << -DRP_NO_MEMORY, UNSUPPORTED = 1 << -DRP_UNSUPPORTED, INVALID = 1 << -DRP_INVALID, SYSTEM = 1 << -DRP_SYSTEM,
};

/* also: what it may return besides DRP_OK and the status of the errno. */
struct call {
	const char *name;
	int (*make)(void);
	int also;
};

static const struct call calls[] = {
	{"map lazyfree", map_lazyfree, 0},
	{"map droppable", map_droppable, 0},
	{"map plain", map_plain, 0},
	{"map raw", map_raw, 0},
	{"mark", mark, 0},
	{"mark ranges", mark_ranges, 0},
	{"purge", purge, 0},
	{"page out", page_out, 0},
	{"cold", cold, 0},
	{"fork content", fork_content, 0},
	{"census", census, 0},
	{"random", draw, 0},
	{"refill", refill, UNSUPPORTED},
	{"track", track, UNSUPPORTED | SYSTEM},
	{"share", share, UNSUPPORTED | NO_MEMORY | INVALID},
	{"sign", sign, UNSUPPORTED},
	{"headroom", headroom, 0},
	{"headroom again", headroom_again, UNSUPPORTED},
	{"resident", resident, UNSUPPORTED},
};

static const struct {
	int error, status;
} errors[] = {
	{ENOMEM, DRP_NO_MEMORY}, {EAGAIN, DRP_NO_MEMORY}, {EINVAL, DRP_UNSUPPORTED}, {ENOSYS, DRP_UNSUPPORTED},
	{EOPNOTSUPP, DRP_UNSUPPORTED}, {EFAULT, DRP_FAULT}, {EEXIST, DRP_EXISTS}, {EPERM, DRP_SYSTEM}, {EMFILE, DRP_SYSTEM},
	{EIO, DRP_SYSTEM},
};

static size_t descriptors(void)
{
	static struct pollfd all[MOST_DESCRIPTORS];
	size_t count = 0;

	for (int i = 0; i < MOST_DESCRIPTORS; i++)
		all[i] = (struct pollfd){.fd = i};
	REQUIRE(poll(all, MOST_DESCRIPTORS, 0) >= 0);
	for (int i = 0; i < MOST_DESCRIPTORS; i++)
		count += !(all[i].revents & POLLNVAL);
	return count;
}

static size_t mapped_bytes(void)
{
	char text[256] = {0};
	unsigned long pages = 0;
	const int file = __real_open64("/proc/self/statm", O_RDONLY);

	REQUIRE(file >= 0 && __real_read(file, text, sizeof(text) - 1) > 0);
	close(file);
	REQUIRE(sscanf(text, "%lu", &pages) == 1);
	return pages * prim_page_size();
}

static void prepare(void)
{
	plan.armed = false;
	CHECK_EQ(prim_fork_content(given, bytes, false), DRP_OK);
	memset(given, 0x5a, bytes);
}

static int made(const struct call *call, size_t refused, bool from_there_on, int error)
{
	prepare();
	plan.calls = 0;
	plan.refused = refused;
	plan.from_there_on = from_there_on;
	plan.error = error;
	plan.armed = true;
	const int status = call->make();
	plan.armed = false;
	return status;
}

static void each_system_call_is_refused(const struct call *call)
{
	const int usual = made(call, 0, false, 0);
	size_t refusals = 0, told = 0;

	printf("# %s: %zu calls of the system\n", call->name, plan.calls);
	if (usual != DRP_OK)
		SKIP("this kernel has no such thing");
	for (size_t i = 0; i < 2 * sizeof(errors) / sizeof(errors[0]); i++)
		for (size_t number = 1; number < MOST_CALLS && check_failures() < 10; number++) {
			const int error = errors[i / 2].error, expected = errors[i / 2].status;
			const size_t descriptors_before = descriptors(), mapped_before = mapped_bytes();
			const int status = made(call, number, i % 2, error);
			const bool reached = plan.calls >= number;

			if (!CHECK(status == DRP_OK || (reached && (status == expected || call->also >> -status & 1))))
				printf("# call %zu with errno %d: %d\n", number, error, status);
			CHECK_EQ(descriptors(), descriptors_before);
			CHECK_EQ(mapped_bytes(), mapped_before);
			refusals += reached;
			told += reached && status != DRP_OK;
			if (!reached)
				break;
		}
	CHECK_EQ(made(call, 0, false, 0), DRP_OK);
	printf("# %s: %zu refusals, %zu of them told\n", call->name, refusals, told);
}

/* Finds out in a process of its own, for answers are remembered. Its exit status: reached, and available. */
static int probed(enum probe probe, size_t refused, bool from_there_on, int error)
{
	const pid_t pid = fork();
	int status = -1;

	if (pid == 0) {
		alarm(HANG_SECONDS);
		plan.calls = 0;
		plan.refused = refused;
		plan.from_there_on = from_there_on;
		plan.error = error;
		plan.armed = true;
		errno = 4711;
		const struct probe_result result = probe_kernel(probe);
		plan.armed = false;
		CHECK_EQ(errno, 4711);
		CHECK_EQ(result.available, result.finding == PROBE_WORKS || result.finding == PROBE_UNPROVEN);
		CHECK(refused == 0 || result.error == 0 || result.error == error);
		if (check_failures())
			_exit(4);
		_exit((plan.calls >= refused) + 2 * result.available);
	}
	REQUIRE(pid > 0 && waitpid(pid, &status, 0) == pid);
	CHECK(WIFEXITED(status) && WEXITSTATUS(status) < 4);
	return WEXITSTATUS(status);
}

static void a_probe_is_refused(enum probe probe)
{
	size_t refusals = 0, unavailable = 0;

	if (!(probed(probe, 0, false, 0) & 2))
		SKIP("this kernel has no such thing");
	for (size_t i = 0; i < 2 * sizeof(errors) / sizeof(errors[0]); i++)
		for (size_t number = 1; number < MOST_CALLS && check_failures() < 10; number++) {
			const int found = probed(probe, number, i % 2, errors[i / 2].error);
			if (!(found & 1))
				break;
			refusals++;
			unavailable += !(found & 2);
		}
	CHECK(unavailable > 0);
	printf("# probe %d: %zu refusals, not available after %zu\n", (int)probe, refusals, unavailable);
}

static void random_bytes_come_all_the_same(void)
{
	unsigned char drawn[2][16] = {{0}};
	pid_t pid = fork();
	int status = -1;

	if (pid == 0) {
		plan.error = ENOMEM;
		plan.refused = 1; /* the mapping for the state */
		plan.armed = true;
		CHECK_EQ(random_fill(drawn[0], sizeof(drawn[0])), DRP_OK);
		plan.armed = false;
		CHECK_EQ(random_fill(drawn[1], sizeof(drawn[1])), DRP_OK);
		CHECK(memcmp(drawn[0], drawn[1], sizeof(drawn[0])) != 0);
		_exit(check_failures());
	}
	REQUIRE(pid > 0 && waitpid(pid, &status, 0) == pid);
	CHECK_EQ(status, 0);
}

int main(void)
{
	void *at;

	bytes = PAGES * prim_page_size();
	REQUIRE(bytes <= sizeof(source));
	memset(source, 0x33, sizeof(source));
	REQUIRE(prim_map(PRIM_LAZYFREE, bytes, 0, &at) == DRP_OK);
	given = at;
	for (size_t i = 0; i < sizeof(calls) / sizeof(calls[0]); i++)
		RUN(each_system_call_is_refused, &calls[i]);
	for (int probe = 0; probe < PROBE_COUNT; probe++)
		RUN(a_probe_is_refused, probe);
	RUN(random_bytes_come_all_the_same);
	return check_done();
}
