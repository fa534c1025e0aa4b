/*
 * test_random.c - random.c from inside: which source serves when, what a drop, a fork, a signal, the end of a thread and
 * a kernel that refuses do to it. On kernels without the vDSO's function the cases about states are skipped and the
 * others hold for the system call. What no case can see alone, that no block ever comes twice, is test_random_unique.c.
 */
#include "random/random.c"

#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sched.h>
#include <sys/auxv.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"

enum {
	BLOCK_BYTES = 16,
	KEY_OFFSET = 96, /* in a state: 96 bytes of batch, wiped as they are used, then 32 of key */
	THREADS = 64,
	PAGE_OUT_TRIES = 1000,
	NOBODY = 65534,
	CHILD_SKIPS = 77,
};

static const char *const no_vdso = "the vDSO has no getrandom here: the system call serves";

static bool have_vdso(void)
{
	struct random_info info;
	random_describe(&info);
	return info.vdso;
}

/* Runs a case in a child of its own; its exit code: the failures, or CHILD_SKIPS. */
static int in_child(int (*function)(void))
{
	int status;
	pid_t pid = fork();
	REQUIRE(pid >= 0);
	if (pid == 0)
		_exit(function());
	REQUIRE(waitpid(pid, &status, 0) == pid);
	return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

static bool all_zero(const void *bytes, size_t length)
{
	for (size_t i = 0; i < length; i++)
		if (((const unsigned char *)bytes)[i] != 0)
			return false;
	return true;
}

static void *page_of(const void *state)
{
	return (void *)((uintptr_t)state & ~(uintptr_t)(prim_page_size() - 1));
}

/* The kernel drops this thread's state now; false if it would not. */
static bool drop_state(void)
{
	struct prim_census census;

	for (int i = 0; i < PAGE_OUT_TRIES; i++) {
		REQUIRE(prim_page_out(page_of(mine->state), prim_page_size()) == DRP_OK);
		REQUIRE(prim_census(page_of(mine->state), prim_page_size(), NULL, &census) == DRP_OK);
		if (census.resident_pages == 0)
			return true;
		sched_yield();
	}
	return false;
}

/* ---- the vDSO */

static void symbols_are_found_by_name_and_version(void)
{
#if defined(__x86_64__) && defined(__LP64__)
	if (getauxval(AT_SYSINFO_EHDR) == 0)
		SKIP("no vDSO in this process");
	CHECK(prim_vdso_symbol("__vdso_clock_gettime", "LINUX_2.6") != NULL);
	CHECK(prim_vdso_symbol("__vdso_clock_gettime", "LINUX_2.5") == NULL);
	CHECK(prim_vdso_symbol("__vdso_clock_gettime", "linux-vdso.so.1") == NULL); /* the file's own name is no version */
	CHECK(prim_vdso_symbol("__vdso_clock_gettim", "LINUX_2.6") == NULL);
	CHECK(prim_vdso_symbol("", "LINUX_2.6") == NULL);
#else
	CHECK(prim_vdso_symbol("no_such_function", "LINUX_2.6") == NULL);
	SKIP("the names of this architecture's vDSO are not in the test");
#endif
}

static void description_is_whole(void)
{
	struct random_info info;

	random_describe(&info);
	CHECK_EQ(info.vdso, info.state_bytes != 0);
	CHECK_EQ(info.vdso, info.reason[0] == 0);
	CHECK(info.vdso || !info.vdso_in_bulk);
	printf("# vDSO %d, in bulk %d, state of %u bytes, %u states%s%s\n", info.vdso, info.vdso_in_bulk, info.state_bytes,
	       info.state_count, info.reason[0] ? ": " : "", info.reason);
}

/* ---- bytes */

/* Every byte asked for is written, none beside it: over some draws each position takes more than one value. */
static void each_length_is_filled(int bulk)
{
	enum { LONGEST = 700, DRAWS = 8, EDGE = 16 };
	unsigned char seen[LONGEST + 2 * EDGE], bytes[LONGEST + 2 * EDGE];
	int before;

	CHECK_EQ(random_fill(bytes, 1), DRP_OK);
	before = atomic_exchange(&pool.bulk, bulk);
	for (size_t length = 0; length <= LONGEST; length++) {
		memset(seen, 0, sizeof(seen));
		for (int i = 0; i < DRAWS; i++) {
			memset(bytes, 0, sizeof(bytes));
			CHECK_EQ(random_fill(bytes + EDGE, length), DRP_OK);
			for (size_t j = 0; j < sizeof(bytes); j++)
				seen[j] |= bytes[j];
		}
		CHECK(all_zero(seen, EDGE));
		CHECK(all_zero(seen + EDGE + length, sizeof(seen) - EDGE - length));
		size_t untouched = 0;
		for (size_t j = 0; j < length; j++)
			untouched += seen[EDGE + j] == 0; /* 2^-64 by chance */
		CHECK_EQ(untouched, 0);
	}
	atomic_store(&pool.bulk, before);
}

static void long_requests_are_filled(int bulk)
{
	const size_t length = 5 * BULK_CALL_BYTES + 17;
	unsigned char *bytes = calloc(1, length + 1);
	int before;

	REQUIRE(bytes);
	CHECK_EQ(random_fill(bytes, 1), DRP_OK);
	before = atomic_exchange(&pool.bulk, bulk);
	CHECK_EQ(random_fill(bytes, length), DRP_OK);
	atomic_store(&pool.bulk, before);
	for (size_t i = 0; i + BLOCK_BYTES <= length; i += BLOCK_BYTES)
		CHECK(!all_zero(bytes + i, BLOCK_BYTES));
	CHECK_EQ(bytes[length], 0);
	free(bytes);
}

/* ---- states */

static struct {
	pthread_barrier_t barrier;
	void *states[THREADS];
} crowd;

static void *draw_and_wait(void *index)
{
	unsigned char bytes[BLOCK_BYTES];

	/* Who finds the lock taken uses the system call that time; by and by each thread gets its state. */
	while (!mine)
		CHECK_EQ(random_fill(bytes, sizeof(bytes)), DRP_OK);
	crowd.states[(uintptr_t)index] = mine->state;
	pthread_barrier_wait(&crowd.barrier);
	return NULL;
}

static void run_crowd(void)
{
	pthread_t threads[THREADS];

	REQUIRE(pthread_barrier_init(&crowd.barrier, NULL, THREADS) == 0);
	for (uintptr_t i = 0; i < THREADS; i++)
		REQUIRE(pthread_create(&threads[i], NULL, draw_and_wait, (void *)i) == 0);
	for (int i = 0; i < THREADS; i++)
		pthread_join(threads[i], NULL);
	pthread_barrier_destroy(&crowd.barrier);
}

static void check_crowd(void)
{
	for (int i = 0; i < THREADS; i++) {
		const char *state = crowd.states[i];
		CHECK(page_of(state) == page_of(state + pool.params.state_bytes - 1));
		CHECK(state != mine->state);
		for (int j = 0; j < i; j++) {
			const char *other = crowd.states[j];
			CHECK((state < other ? other - state : state - other) >= (ptrdiff_t)pool.params.state_bytes);
		}
	}
}

static void each_thread_has_a_state_and_returns_it(void)
{
	struct random_info first, second;

	if (!have_vdso())
		SKIP(no_vdso);
	run_crowd();
	check_crowd();
	random_describe(&first);
	CHECK(first.state_count > THREADS); /* with the main thread's */
	for (int i = 0; i < 3; i++)
		run_crowd();
	check_crowd();
	random_describe(&second);
	CHECK_EQ(first.state_count, second.state_count);
}

static void a_state_in_use_is_left_alone(void)
{
	unsigned char before[256], bytes[BLOCK_BYTES] = {0};

	if (!have_vdso())
		SKIP(no_vdso);
	REQUIRE(pool.params.state_bytes <= sizeof(before));
	REQUIRE(random_fill(bytes, sizeof(bytes)) == DRP_OK);
	memset(bytes, 0, sizeof(bytes));
	mine->busy = 1; /* as a signal handler finds it */
	memcpy(before, mine->state, pool.params.state_bytes);
	CHECK_EQ(random_fill(bytes, sizeof(bytes)), DRP_OK);
	CHECK(!all_zero(bytes, sizeof(bytes)));
	CHECK_EQ(memcmp(before, mine->state, pool.params.state_bytes), 0);
	CHECK_EQ(mine->busy, 1);
	mine->busy = 0;
	CHECK_EQ(random_fill(bytes, sizeof(bytes)), DRP_OK);
	CHECK(memcmp(before, mine->state, pool.params.state_bytes) != 0); /* the comparison can tell */
	explicit_bzero(before, sizeof(before));
}

static void *draw_once(void *out_mine)
{
	unsigned char bytes[BLOCK_BYTES] = {0};
	CHECK_EQ(random_fill(bytes, sizeof(bytes)), DRP_OK);
	CHECK(!all_zero(bytes, sizeof(bytes)));
	*(struct slot **)out_mine = mine;
	return NULL;
}

static void a_taken_lock_is_not_waited_for(void)
{
	struct slot *slot;
	pthread_t thread;

	if (!have_vdso())
		SKIP(no_vdso);
	for (int taken = 1; taken >= 0; taken--) {
		if (taken)
			REQUIRE(!atomic_flag_test_and_set(&pool.lock));
		REQUIRE(pthread_create(&thread, NULL, draw_once, &slot) == 0);
		pthread_join(thread, NULL);
		CHECK_EQ(slot == NULL, taken);
		atomic_flag_clear(&pool.lock);
	}
}

static void a_dropped_state_is_seeded_anew(void)
{
	unsigned char bytes[BLOCK_BYTES], key[BLOCK_BYTES];

	if (!have_vdso())
		SKIP(no_vdso);
	for (int i = 0; i < 100; i++) {
		REQUIRE(random_fill(bytes, sizeof(bytes)) == DRP_OK);
		memcpy(key, (char *)mine->state + KEY_OFFSET, sizeof(key));
		CHECK(!all_zero(key, sizeof(key)));
		if (!drop_state())
			SKIP("the kernel would not page the state out");
		CHECK(all_zero(mine->state, pool.params.state_bytes));
		CHECK_EQ(random_fill(bytes, sizeof(bytes)), DRP_OK);
		CHECK(!all_zero(bytes, sizeof(bytes)));
		CHECK(!all_zero(mine->state, pool.params.state_bytes));
		CHECK(memcmp(key, (char *)mine->state + KEY_OFFSET, sizeof(key)) != 0);
	}
}

/* ---- fork */

static struct {
	_Atomic bool stop;
	_Atomic int ready;
} drawers;

static void *draw_until_told(void *unused)
{
	unsigned char bytes[BLOCK_BYTES];

	for (bool said = false; !atomic_load(&drawers.stop);) {
		CHECK_EQ(random_fill(bytes, sizeof(bytes)), DRP_OK);
		if (!said && (mine || pool.readiness == UNAVAILABLE)) {
			atomic_fetch_add(&drawers.ready, 1);
			said = true;
		}
	}
	return unused;
}

/* In the child: the states read zero, this thread keeps its slot, all the others are free, the lock too. */
static int look_around_in_child(void)
{
	unsigned char bytes[BLOCK_BYTES] = {0};
	unsigned free_count = 0;

	for (struct slot_page *page = pool.pages; page; page = page->next)
		for (unsigned i = 0; i < page->count; i++)
			CHECK(all_zero(page->slots[i].state, pool.params.state_bytes));
	for (struct slot *slot = atomic_load(&pool.free); slot; slot = slot->next) {
		CHECK(slot != mine);
		CHECK_EQ(slot->busy, 0);
		free_count++;
	}
	if (pool.readiness == READY) {
		CHECK(mine != NULL);
		CHECK_EQ(free_count, atomic_load(&pool.state_count) - 1);
		CHECK(!atomic_flag_test_and_set(&pool.lock));
		atomic_flag_clear(&pool.lock);
	}
	CHECK_EQ(random_fill(bytes, sizeof(bytes)), DRP_OK);
	CHECK(!all_zero(bytes, sizeof(bytes)));
	if (pool.readiness == READY)
		CHECK(!all_zero(mine->state, pool.params.state_bytes));
	return check_failures();
}

static void a_child_takes_back_the_other_threads_states(void)
{
	enum { DRAWERS = 4, FORKS = 50 };
	unsigned char bytes[BLOCK_BYTES];
	pthread_t threads[DRAWERS];

	CHECK_EQ(random_fill(bytes, sizeof(bytes)), DRP_OK);
	atomic_store(&drawers.stop, false);
	atomic_store(&drawers.ready, 0);
	for (int i = 0; i < DRAWERS; i++)
		REQUIRE(pthread_create(&threads[i], NULL, draw_until_told, NULL) == 0);
	while (atomic_load(&drawers.ready) < DRAWERS)
		sched_yield();
	for (int i = 0; i < FORKS; i++)
		CHECK_EQ(in_child(look_around_in_child), 0);
	atomic_store(&drawers.stop, true);
	for (int i = 0; i < DRAWERS; i++)
		pthread_join(threads[i], NULL);
}

/* A child that the C library's fork handlers know nothing of: it has no lock and no slots but its own, and draws. */
static void a_child_by_bare_system_call_draws(void)
{
	unsigned char bytes[BLOCK_BYTES] = {0};
	int status;

	CHECK_EQ(random_fill(bytes, sizeof(bytes)), DRP_OK);
	(void)atomic_flag_test_and_set(&pool.lock); /* as if another thread was just then taking a slot */
	pid_t pid = (pid_t)syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0);
	if (pid == 0) {
		struct slot *kept = mine;
		bool fine = random_fill(bytes, sizeof(bytes)) == DRP_OK && !all_zero(bytes, sizeof(bytes));
		mine = NULL;
		fine = fine && random_fill(bytes, sizeof(bytes)) == DRP_OK && mine == NULL;
		mine = kept;
		_exit(fine ? 0 : 1);
	}
	atomic_flag_clear(&pool.lock);
	REQUIRE(waitpid(pid, &status, 0) == pid);
	CHECK_EQ(status, 0);
}

/* ---- limits and refusals, each in a child */

static int draw_without_memory(void)
{
	const struct rlimit none = {0, 0};
	unsigned char bytes[BLOCK_BYTES] = {0};

	mine = NULL;
	atomic_store(&pool.free, NULL);
	CHECK_EQ(setrlimit(RLIMIT_AS, &none), 0);
	CHECK_EQ(random_fill(bytes, sizeof(bytes)), DRP_OK);
	CHECK(!all_zero(bytes, sizeof(bytes)));
	CHECK(mine == NULL);
	return check_failures();
}

static void without_address_space_the_system_call_serves(void)
{
	CHECK_EQ(in_child(draw_without_memory), 0);
}

static int draw_without_memlock(void)
{
	const struct rlimit none = {0, 0};
	unsigned char bytes[BLOCK_BYTES] = {0};
	const unsigned before = atomic_load(&pool.state_count);

	CHECK_EQ(setrlimit(RLIMIT_MEMLOCK, &none), 0);
	if (geteuid() == 0) /* root is not held to the limit */
		CHECK_EQ(setresuid(NOBODY, NOBODY, NOBODY), 0);
	mine = NULL;
	atomic_store(&pool.free, NULL);
	CHECK_EQ(random_fill(bytes, sizeof(bytes)), DRP_OK);
	CHECK(!all_zero(bytes, sizeof(bytes)));
	if (pool.readiness == READY) {
		CHECK(mine != NULL);
		CHECK(atomic_load(&pool.state_count) > before);
	}
	return check_failures();
}

static void no_mlock_budget_is_needed(void)
{
	CHECK_EQ(in_child(draw_without_memlock), 0);
}

/* From here on getrandom(2) fails with EPERM in this process. */
static bool refuse_getrandom(void)
{
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_getrandom, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	const struct sock_fprog program = {sizeof(code) / sizeof(code[0]), code};

	return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 && prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0;
}

static int draw_refused(void)
{
	unsigned char bytes[BLOCK_BYTES];

	if (!refuse_getrandom())
		return CHILD_SKIPS;
	if (pool.readiness == READY) { /* the state was wiped by the fork: the vDSO must seed it, and cannot */
		CHECK(all_zero(mine->state, pool.params.state_bytes));
		CHECK(random_fill(bytes, sizeof(bytes)) < 0);
		CHECK_EQ(errno, EPERM);
	}
	CHECK_EQ(random_fill(bytes, sizeof(bytes)), DRP_SYSTEM);
	mine = NULL;
	CHECK_EQ(random_fill(bytes, sizeof(bytes)), DRP_SYSTEM);
	CHECK_EQ(random_fill(bytes, 1), DRP_SYSTEM);
	return check_failures();
}

/* Seeded before the refusal, a state serves on; once dropped it must not. */
static int draw_refused_after_seed(void)
{
	unsigned char bytes[BLOCK_BYTES] = {0};

	if (pool.readiness != READY)
		return CHILD_SKIPS;
	CHECK_EQ(random_fill(bytes, sizeof(bytes)), DRP_OK);
	if (!refuse_getrandom())
		return CHILD_SKIPS;
	CHECK_EQ(random_fill(bytes, sizeof(bytes)), DRP_OK);
	CHECK(!all_zero(bytes, sizeof(bytes)));
	if (!drop_state())
		return CHILD_SKIPS;
	for (int i = 0; i < 100; i++)
		CHECK_EQ(random_fill(bytes, sizeof(bytes)), DRP_SYSTEM);
	return check_failures();
}

static void a_kernel_that_refuses_is_an_error(int (*function)(void))
{
	int code = in_child(function);
	if (code == CHILD_SKIPS)
		SKIP("no system call filters, or no state in the vDSO's way, or it could not be dropped");
	CHECK_EQ(code, 0);
}

/* ---- core dumps */

enum { FLIP = 0xa5 };

/*
 * Dumps core with a fresh state. What to look for in the dump is told to the parent with every bit of FLIP turned, and
 * through a pipe, so that the dump holds the key only if it holds the state: first 16 bytes of the key, then 16 bytes
 * of ordinary memory, the control.
 */
static _Noreturn void dump_core(int pipe_end)
{
	static unsigned char ordinary[BLOCK_BYTES];
	const struct rlimit unlimited = {RLIM_INFINITY, RLIM_INFINITY};
	volatile const unsigned char *state;
	unsigned char flipped[2 * BLOCK_BYTES], bytes[1];

	if (setrlimit(RLIMIT_CORE, &unlimited) != 0 || random_fill(ordinary, sizeof(ordinary)) != DRP_OK ||
	    random_fill(bytes, sizeof(bytes)) != DRP_OK)
		_exit(1);
	state = mine->state;
	for (int i = 0; i < BLOCK_BYTES; i++) {
		flipped[i] = (unsigned char)(state[KEY_OFFSET + i] ^ FLIP);
		flipped[BLOCK_BYTES + i] = ordinary[i] ^ FLIP;
	}
	if (write(pipe_end, flipped, sizeof(flipped)) != sizeof(flipped))
		_exit(1);
	signal(SIGABRT, SIG_DFL);
	abort();
}

static bool holds(const unsigned char *data, size_t length, const unsigned char *needle)
{
	return memmem(data, length, needle, BLOCK_BYTES) != NULL;
}

static void a_core_dump_has_no_state(void)
{
	char directory[] = "/tmp/droppable-core-XXXXXX", path[64], pattern[64] = "";
	unsigned char wanted[2 * BLOCK_BYTES];
	int ends[2], status, fd;
	struct stat found;

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
	SKIP("sanitizers make core dumps of terabytes");
#endif
	if (!have_vdso())
		SKIP(no_vdso);
	REQUIRE(pool.params.state_bytes >= KEY_OFFSET + BLOCK_BYTES);
	fd = open("/proc/sys/kernel/core_pattern", O_RDONLY | O_CLOEXEC);
	if (fd < 0 || read(fd, pattern, sizeof(pattern) - 1) < 0 || strcmp(pattern, "core\n") != 0) {
		if (fd >= 0)
			close(fd);
		SKIP("core dumps do not go to the working directory here (kernel.core_pattern is not \"core\")");
	}
	close(fd);
	REQUIRE(mkdtemp(directory) && pipe(ends) == 0);
	pid_t pid = fork();
	REQUIRE(pid >= 0);
	if (pid == 0) {
		if (chdir(directory) != 0)
			_exit(1);
		dump_core(ends[1]);
	}
	close(ends[1]);
	CHECK_EQ(read(ends[0], wanted, sizeof(wanted)), sizeof(wanted));
	close(ends[0]);
	REQUIRE(waitpid(pid, &status, 0) == pid);
	for (size_t i = 0; i < sizeof(wanted); i++)
		wanted[i] ^= FLIP;
	CHECK(!all_zero(wanted, BLOCK_BYTES));
	snprintf(path, sizeof(path), "%s/core", directory);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0) { /* core.PID, where kernel.core_uses_pid says so */
		snprintf(path, sizeof(path), "%s/core.%d", directory, pid);
		fd = open(path, O_RDONLY | O_CLOEXEC);
	}
	if (fd >= 0 && fstat(fd, &found) == 0) {
		unsigned char *core = malloc((size_t)found.st_size);
		REQUIRE(core);
		CHECK_EQ(read(fd, core, (size_t)found.st_size), found.st_size);
		CHECK(holds(core, (size_t)found.st_size, wanted + BLOCK_BYTES));
		CHECK(!holds(core, (size_t)found.st_size, wanted));
		free(core);
	}
	if (fd >= 0)
		close(fd);
	unlink(path);
	rmdir(directory);
	if (fd < 0)
		SKIP("the kernel wrote no core dump");
}

int main(void)
{
	RUN(symbols_are_found_by_name_and_version);
	RUN(description_is_whole);
	RUN(each_length_is_filled, BULK_VDSO);
	RUN(each_length_is_filled, BULK_SYSCALL);
	RUN(long_requests_are_filled, BULK_VDSO);
	RUN(long_requests_are_filled, BULK_SYSCALL);
	RUN(each_thread_has_a_state_and_returns_it);
	RUN(a_state_in_use_is_left_alone);
	RUN(a_taken_lock_is_not_waited_for);
	RUN(a_dropped_state_is_seeded_anew);
	RUN(a_child_takes_back_the_other_threads_states);
	RUN(a_child_by_bare_system_call_draws);
	RUN(without_address_space_the_system_call_serves);
	RUN(no_mlock_budget_is_needed);
	RUN(a_kernel_that_refuses_is_an_error, draw_refused);
	RUN(a_kernel_that_refuses_is_an_error, draw_refused_after_seed);
	RUN(a_core_dump_has_no_state);
	return check_done();
}
