/*
 * test_probe.c - the probes against what this kernel says when it is asked directly.
 */
#include "check.h"

#include <errno.h>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "droppable.h"
#include "os/prim.h"
#include "os/probe.h"

static int lines_of(const char *path)
{
	FILE *file = fopen(path, "r");
	int lines = 0;

	REQUIRE(file);
	for (int c; (c = getc(file)) != EOF;)
		lines += c == '\n';
	fclose(file);
	return lines;
}

static int lowest_free_fd(void)
{
	int fd = dup(0);
	close(fd);
	return fd;
}

/* Runs first: the answer of a process without address space must not be remembered. */
static void lack_of_memory_is_not_remembered(void)
{
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
	SKIP("a sanitizer's shadow memory does not fit any limit of address space");
#endif
	pid_t child = fork();
	REQUIRE(child >= 0);
	if (child == 0) {
		struct rlimit before, tight = {1, 0}; /* less than there is already, however small the program */
		REQUIRE(getrlimit(RLIMIT_AS, &before) == 0);
		tight.rlim_max = before.rlim_max;
		REQUIRE(setrlimit(RLIMIT_AS, &tight) == 0);
		struct probe_result result = probe_kernel(PROBE_LAZYFREE);
		REQUIRE(setrlimit(RLIMIT_AS, &before) == 0);
		CHECK(!result.available);
		CHECK_EQ(result.finding, PROBE_CALL_FAILED);
		CHECK_EQ(result.error, ENOMEM);
		CHECK(probe_kernel(PROBE_LAZYFREE).available);
		_exit(check_failures());
	}
	int status;
	REQUIRE(waitpid(child, &status, 0) == child);
	CHECK_EQ(status, 0);
}

static void *all_probes(void *out)
{
	for (int i = 0; i < PROBE_COUNT; i++)
		((struct probe_result *)out)[i] = probe_kernel((enum probe)i);
	return NULL;
}

static void threads_that_probe_at_once_agree(void)
{
	enum { THREADS = 4 };
	struct probe_result results[THREADS][PROBE_COUNT];
	pthread_t threads[THREADS];

	for (int i = 0; i < THREADS; i++)
		REQUIRE(pthread_create(&threads[i], NULL, all_probes, results[i]) == 0);
	for (int i = 0; i < THREADS; i++)
		pthread_join(threads[i], NULL);
	for (int i = 1; i < THREADS; i++)
		for (int probe = 0; probe < PROBE_COUNT; probe++) {
			CHECK_EQ(results[i][probe].available, results[0][probe].available);
			CHECK_EQ(results[i][probe].finding, results[0][probe].finding);
			CHECK_EQ(results[i][probe].error, results[0][probe].error);
		}
}

static void nothing_is_left_behind(void)
{
	static struct probe_result before[PROBE_COUNT];
	int fd = lowest_free_fd();
	pid_t child = fork(); /* with nothing remembered: this runs before the other probes of this program */

	REQUIRE(child >= 0);
	if (child == 0) {
		(void)lines_of("/proc/self/maps"); /* stdio's own buffers first */
		int maps = lines_of("/proc/self/maps");
		all_probes(before);
		CHECK_EQ(lowest_free_fd(), fd);
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
		CHECK_EQ(lines_of("/proc/self/maps"), maps);
#else
		(void)maps;
#endif
		_exit(check_failures());
	}
	int status;
	REQUIRE(waitpid(child, &status, 0) == child);
	CHECK_EQ(status, 0);
}

static void answers_are_what_the_calls_answer(void)
{
	const size_t size = prim_page_size();
	void *at;
	int handle;

	int status = prim_map(PRIM_DROPPABLE, size, 0, &at);
	CHECK_EQ(probe_kernel(PROBE_DROPPABLE).available, status == DRP_OK);
	if (status == DRP_OK)
		prim_unmap(at, size);

	REQUIRE(prim_map(PRIM_LAZYFREE, size, 0, &at) == DRP_OK);
	CHECK_EQ(probe_kernel(PROBE_LAZYFREE).available, prim_mark(at, size) == DRP_OK);
	CHECK_EQ(probe_kernel(PROBE_PAGE_OUT).available, prim_page_out(at, size) == DRP_OK);
	CHECK_EQ(probe_kernel(PROBE_COLD).available, prim_cold(at, size) == DRP_OK);
	CHECK_EQ(probe_kernel(PROBE_WIPE_ON_FORK).available, prim_fork_content(at, size, false) == DRP_OK);
	struct prim_census census;
	REQUIRE(prim_census(at, size, NULL, &census) == DRP_OK);
	CHECK_EQ(probe_kernel(PROBE_EXACT_CENSUS).available, census.exact);
	prim_unmap(at, size);

	if (prim_signal_open(&handle) == DRP_OK) {
		CHECK(probe_kernel(PROBE_SIGNAL).available);
		prim_signal_close(handle);
	} else {
		CHECK(!probe_kernel(PROBE_SIGNAL).available);
		CHECK(probe_kernel(PROBE_SIGNAL).error != 0);
	}
}

static void errno_is_left_alone(void)
{
	errno = 42;
	for (int i = 0; i < PROBE_COUNT; i++)
		probe_kernel((enum probe)i);
	CHECK_EQ(errno, 42);
}

static void what_is_no_probe_is_invalid(void)
{
	CHECK(!probe_kernel(PROBE_COUNT).available);
	CHECK_EQ(probe_kernel(PROBE_COUNT).error, EINVAL);
}

int main(void)
{
	RUN(lack_of_memory_is_not_remembered);
	RUN(nothing_is_left_behind);
	RUN(threads_that_probe_at_once_agree);
	RUN(answers_are_what_the_calls_answer);
	RUN(errno_is_left_alone);
	RUN(what_is_no_probe_is_invalid);
	return check_done();
}
