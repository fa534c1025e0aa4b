/*
 * test_guard.c - SIGBUS from a file that was truncated under its mapping: it needs nothing of the kernel, and it is the
 * commonest reason for other people's handlers.
 *
 *   file   | page 0: 'a' ... | truncated |
 *   map    | readable        | SIGBUS    |
 */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdbool.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"
#include "droppable.h"
#include "os/guard.h"

enum { THREADS = 4, ROUNDS = 2000, HANG_SECONDS = 60, HANDLER_EXIT = 77 };

static size_t page;

static char *truncated_map(void)
{
	int fd = memfd_create("guard", MFD_CLOEXEC);
	REQUIRE(fd >= 0 && ftruncate(fd, (off_t)(2 * page)) == 0);
	char *map = mmap(NULL, 2 * page, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	REQUIRE(map != MAP_FAILED);
	map[0] = 'a';
	REQUIRE(ftruncate(fd, (off_t)page) == 0);
	close(fd);
	return map;
}

static struct guard_watch *watched(char *map, const char *name)
{
	struct guard_watch *watch = NULL;
	REQUIRE(guard_watch(map, 2 * page, name, &watch) == DRP_OK);
	return watch;
}

static void touch(void *context)
{
	volatile char *at = context;
	(void)*at;
}

static struct sigaction current_action(void)
{
	struct sigaction action;
	REQUIRE(sigaction(SIGBUS, NULL, &action) == 0);
	return action;
}

static void set_handler(void (*handler)(int, siginfo_t *, void *))
{
	struct sigaction action = {.sa_sigaction = handler, .sa_flags = SA_SIGINFO};
	REQUIRE(sigaction(SIGBUS, &action, NULL) == 0);
}

/* What a child of fork() did: its exit code, or the negative number of the signal that ended it. */
static int outcome_of(pid_t child)
{
	int status;
	REQUIRE(waitpid(child, &status, 0) == child);
	return WIFSIGNALED(status) ? -WTERMSIG(status) : WEXITSTATUS(status);
}

static pid_t fork_child(void)
{
	fflush(stdout);
	pid_t child = fork();
	if (child == 0)
		alarm(HANG_SECONDS); /* a hang is a failure with a name: SIGALRM */
	return child;
}

static void a_fault_ends_the_work(void)
{
	char *map = truncated_map();
	struct guard_watch *watch = watched(map, "test");
	uintptr_t fault = 0;

	CHECK_EQ(guard_call(touch, map, map, 2 * page, &fault), DRP_OK);
	for (int i = 0; i < 3; i++) {
		errno = EDOM;
		CHECK_EQ(guard_call(touch, map + page + 123, map, 2 * page, &fault), DRP_FAULT);
		CHECK_EQ(fault, (uintptr_t)map + page + 123);
		CHECK_EQ(errno, EDOM);
	}
	guard_unwatch(watch);
	munmap(map, 2 * page);
}

static void the_handler_of_before_comes_back(void)
{
	char *map = truncated_map();
	struct sigaction before = current_action();
	struct guard_watch *one = watched(map, "one"), *two = watched(map, "two");

	CHECK(current_action().sa_sigaction != before.sa_sigaction);
	guard_unwatch(one);
	CHECK(current_action().sa_sigaction != before.sa_sigaction);
	guard_unwatch(two);
	CHECK(current_action().sa_handler == before.sa_handler);
	munmap(map, 2 * page);
}

static char *handler_map;
static struct guard_watch *handler_watch;
static volatile int handler_result;

static void guards_itself(int signal_number)
{
	uintptr_t fault;
	(void)signal_number;
	handler_result = guard_call(touch, handler_map + page, handler_map, 2 * page, &fault);
}

static void interrupted_touch(void *context)
{
	raise(SIGUSR1);
	touch(context);
}

static void a_signal_handler_may_guard_inside_of_guarded_work(void)
{
	struct sigaction action = {.sa_handler = guards_itself};
	char *map = truncated_map();
	uintptr_t fault = 0;

	handler_map = truncated_map();
	handler_watch = watched(handler_map, "handler");
	sigaction(SIGUSR1, &action, NULL);
	handler_result = 1;
	CHECK_EQ(guard_call(interrupted_touch, map, map, 2 * page, &fault), DRP_OK);
	CHECK_EQ(handler_result, DRP_FAULT);
	handler_result = 1;
	CHECK_EQ(guard_call(interrupted_touch, map + page, map, 2 * page, &fault), DRP_FAULT);
	CHECK_EQ(fault, (uintptr_t)map + page);
	CHECK_EQ(handler_result, DRP_FAULT);
	signal(SIGUSR1, SIG_DFL);
	guard_unwatch(handler_watch);
	munmap(map, 2 * page);
	munmap(handler_map, 2 * page);
}

static void *fault_often(void *map)
{
	uintptr_t fault;
	intptr_t wrong = 0;

	for (int i = 0; i < ROUNDS; i++) {
		char *at = (char *)map + (i % 2 ? page + (size_t)i % page : 0);
		int status = guard_call(touch, at, map, 2 * page, &fault);
		wrong += i % 2 ? status != DRP_FAULT || fault != (uintptr_t)at : status != DRP_OK;
	}
	return (void *)wrong;
}

static void guards_are_per_thread(void)
{
	char *map = truncated_map();
	struct guard_watch *watch = watched(map, "threads");
	pthread_t threads[THREADS];
	void *wrong;

	for (int i = 0; i < THREADS; i++)
		REQUIRE(pthread_create(&threads[i], NULL, fault_often, map) == 0);
	for (int i = 0; i < THREADS; i++) {
		REQUIRE(pthread_join(threads[i], &wrong) == 0);
		CHECK_EQ((intptr_t)wrong, 0);
	}
	guard_unwatch(watch);
	munmap(map, 2 * page);
}

static void a_blocked_signal_is_no_death(void)
{
	char *map = truncated_map();
	struct guard_watch *watch = watched(map, "blocked");
	sigset_t all, before, after;
	uintptr_t fault;

	sigfillset(&all);
	pthread_sigmask(SIG_BLOCK, &all, &before);
	CHECK_EQ(guard_call(touch, map + page, map, 2 * page, &fault), DRP_FAULT);
	pthread_sigmask(SIG_SETMASK, &before, &after);
	CHECK_EQ(sigismember(&after, SIGBUS), 1); /* as it was before the call */
	guard_unwatch(watch);
	munmap(map, 2 * page);
}

static void *volatile expected_address;

static void foreign(int signal_number, siginfo_t *info, void *context)
{
	(void)context;
	_exit(signal_number == SIGBUS && info->si_code == BUS_ADRERR && info->si_addr == expected_address ? HANDLER_EXIT : 1);
}

/* Somebody else's mapping faults; his handler came before ours, or after ours, or after ours with a guard since. */
enum order { BEFORE, AFTER, AFTER_AND_GUARDED };
static void a_foreign_fault_reaches_its_handler(enum order order)
{
	pid_t child = fork_child();
	if (child == 0) {
		char *ours = truncated_map(), *theirs = truncated_map();
		uintptr_t fault;
		if (order == BEFORE)
			set_handler(foreign);
		watched(ours, "ours");
		if (order != BEFORE)
			set_handler(foreign);
		if (order == AFTER_AND_GUARDED)
			CHECK_EQ(guard_call(touch, ours + page, ours, 2 * page, &fault), DRP_FAULT);
		expected_address = theirs + page + 5;
		touch(theirs + page + 5);
		_exit(2);
	}
	CHECK_EQ(outcome_of(child), HANDLER_EXIT);
}

/* What our guard is asked to survive is our memory alone: work in it may read somebody else's mapping too. */
static void a_foreign_fault_in_guarded_work_reaches_its_handler(void)
{
	pid_t child = fork_child();
	if (child == 0) {
		char *ours = truncated_map(), *theirs = truncated_map();
		uintptr_t fault;
		set_handler(foreign);
		watched(ours, "ours");
		expected_address = theirs + page + 5;
		(void)guard_call(touch, theirs + page + 5, ours, 2 * page, &fault); /* its handler ends the process */
		_exit(2);
	}
	CHECK_EQ(outcome_of(child), HANDLER_EXIT);
}

static sigjmp_buf foreign_way_out;
static void jumps_away(int signal_number, siginfo_t *info, void *context)
{
	(void)signal_number, (void)info, (void)context;
	siglongjmp(foreign_way_out, 1);
}

static void a_chained_handler_may_jump_away(void)
{
	pid_t child = fork_child();
	if (child == 0) {
		char *ours = truncated_map(), *theirs = truncated_map();
		volatile int jumps = 0;
		uintptr_t fault;
		set_handler(jumps_away);
		watched(ours, "ours");
		for (volatile int i = 0; i < 5; i++) {
			if (sigsetjmp(foreign_way_out, 1) == 0)
				touch(theirs + page);
			else
				jumps++;
			CHECK_EQ(guard_call(touch, ours + page, ours, 2 * page, &fault), DRP_FAULT);
		}
		_exit(check_failures() == 0 && jumps == 5 ? HANDLER_EXIT : 1);
	}
	CHECK_EQ(outcome_of(child), HANDLER_EXIT);
}

/* As faulthandler does it: put back whoever was there before, and raise. */
static struct sigaction of_before;
static void puts_back_and_raises(int signal_number, siginfo_t *info, void *context)
{
	(void)info, (void)context;
	sigaction(SIGBUS, &of_before, NULL);
	raise(signal_number);
}

static void handlers_that_name_each_other_end(void)
{
	pid_t child = fork_child();
	if (child == 0) {
		struct sigaction theirs = {.sa_sigaction = puts_back_and_raises, .sa_flags = SA_SIGINFO | SA_NODEFER};
		char *ours = truncated_map(), *other = truncated_map();
		uintptr_t fault;
		watched(ours, "ours");
		sigaction(SIGBUS, &theirs, &of_before); /* of_before is ours */
		guard_call(touch, ours + page, ours, 2 * page, &fault); /* ours goes on top of theirs */
		touch(other + page);
		_exit(2);
	}
	CHECK_EQ(outcome_of(child), -SIGBUS);
}

static void does_nothing(int signal_number, siginfo_t *info, void *context)
{
	(void)signal_number, (void)info, (void)context;
}

static void a_handler_that_repairs_nothing_ends(void)
{
	pid_t child = fork_child();
	if (child == 0) {
		char *ours = truncated_map(), *other = truncated_map();
		set_handler(does_nothing);
		watched(ours, "ours");
		touch(other + page);
		_exit(2);
	}
	CHECK_EQ(outcome_of(child), -SIGBUS);
}

static void an_unguarded_touch_is_told_by_name(void)
{
	char text[512] = "", expected[128];
	int ends[2];

	REQUIRE(pipe(ends) == 0);
	pid_t child = fork_child();
	if (child == 0) {
		char *map = truncated_map();
		watched(map, "my tiles");
		dup2(ends[1], STDERR_FILENO);
		touch(map + page + 10);
		_exit(2);
	}
	close(ends[1]);
	CHECK_EQ(outcome_of(child), -SIGBUS);
	CHECK(read(ends[0], text, sizeof(text) - 1) > 0);
	close(ends[0]);
	snprintf(expected, sizeof(expected), "byte %zu of region 'my tiles'", page + 10);
	if (!CHECK(strstr(text, expected) != NULL))
		printf("# %s\n", text);
}

static void a_signal_sent_by_kill_goes_its_way(bool ignored)
{
	pid_t child = fork_child();
	if (child == 0) {
		char *map = truncated_map();
		if (ignored)
			signal(SIGBUS, SIG_IGN);
		watched(map, "ours");
		raise(SIGBUS);
		_exit(HANDLER_EXIT);
	}
	CHECK_EQ(outcome_of(child), ignored ? HANDLER_EXIT : -SIGBUS);
}

int main(void)
{
#ifdef __SANITIZE_THREAD__
	const bool own_signals = true; /* it wraps handlers, spoils errno in them and defers raise() */
#else
	const bool own_signals = false;
#endif

	page = (size_t)sysconf(_SC_PAGESIZE);
	signal(SIGBUS, SIG_DFL); /* sanitizers have handlers of their own */
	RUN(the_handler_of_before_comes_back);
	RUN(guards_are_per_thread);
	RUN(a_blocked_signal_is_no_death);
	if (own_signals) {
		printf("# the other cases are left out: ThreadSanitizer delivers signals in a way of its own\n");
		return check_done();
	}
	RUN(a_fault_ends_the_work);
	RUN(a_signal_handler_may_guard_inside_of_guarded_work);
	RUN(a_foreign_fault_reaches_its_handler, BEFORE);
	RUN(a_foreign_fault_reaches_its_handler, AFTER);
	RUN(a_foreign_fault_reaches_its_handler, AFTER_AND_GUARDED);
	RUN(a_foreign_fault_in_guarded_work_reaches_its_handler);
	RUN(a_chained_handler_may_jump_away);
	RUN(handlers_that_name_each_other_end);
	RUN(a_handler_that_repairs_nothing_ends);
	RUN(an_unguarded_touch_is_told_by_name);
	RUN(a_signal_sent_by_kill_goes_its_way, true);
	RUN(a_signal_sent_by_kill_goes_its_way, false);
	return check_done();
}
