/*
 * test_fork_handlers.c - the first call that needs handlers of fork(), while another thread forks, and where there is no
 * memory for a handler.
 *
 * Handlers are registered once in a process, so that each case is a process of its own:
 *
 *   this program -- fork --> a process that has used nothing yet
 *                              first call -- pthread_atfork() --> another thread forks --> its child makes the same call
 *
 * What is locked at that moment stays locked in that child, for no handler unlocks it.
 */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cache/cache.h"
#include "check.h"
#include "droppable.h"
#include "os/guard.h"
#include "os/prim.h"
#include "random/random.h"
#include "region/region.h"

enum { HANG_SECONDS = 60 };

typedef int use(void);

static struct {
	use *call;
	bool fails, forks;
	unsigned registered; /* calls of pthread_atfork() */
} plan;

static int use_cache(void)
{
	const struct cache_config config = {.backing = PRIM_LAZYFREE, .shards = 1};
	struct cache *cache = NULL;

	const int status = cache_create(&config, &cache);
	CHECK_EQ(status == DRP_OK, cache != NULL);
	if (cache)
		cache_close(cache);
	return status;
}

static int use_region(void)
{
	const struct region_options options = {.on_drop = REGION_ZERO, .backing = PRIM_LAZYFREE};
	struct region *region = NULL;

	const int status = region_open(prim_page_size(), &options, &region);
	CHECK_EQ(status == DRP_OK, region != NULL);
	if (region)
		region_close(region);
	return status;
}

static int use_guard(void)
{
	static const char watched[1];
	struct guard_watch *watch = NULL;

	const int status = guard_watch(watched, sizeof(watched), "watched", &watch);
	CHECK_EQ(status == DRP_OK, watch != NULL);
	if (watch)
		guard_unwatch(watch);
	return status;
}

static int use_random(void)
{
	unsigned char bytes[16] = {0};
	unsigned char any = 0;
	struct random_info info;

	const int status = random_fill(bytes, sizeof(bytes));
	for (size_t i = 0; i < sizeof(bytes); i++)
		any |= bytes[i];
	CHECK(any != 0); /* all zero once in 2^128 */
	random_describe(&info);
	CHECK(!plan.fails || !info.vdso); /* a child would draw from its parent's state */
	return status;
}

static void check_child(pid_t pid)
{
	int status = -1;

	REQUIRE(pid > 0);
	REQUIRE(waitpid(pid, &status, 0) == pid);
	CHECK_EQ(status, 0); /* SIGALRM: it hangs */
}

static void *fork_and_use(void *ignored)
{
	const pid_t pid = fork();

	if (pid == 0) {
		alarm(HANG_SECONDS);
		plan.forks = false;
		CHECK_EQ(plan.call(), DRP_OK);
		_exit(check_failures());
	}
	check_child(pid);
	return ignored;
}

int __real_pthread_atfork(void (*prepare)(void), void (*parent)(void), void (*child)(void));
int __wrap_pthread_atfork(void (*prepare)(void), void (*parent)(void), void (*child)(void));

int __wrap_pthread_atfork(void (*prepare)(void), void (*parent)(void), void (*child)(void))
{
	pthread_t thread;

	plan.registered++;
	if (plan.fails)
		return ENOMEM;
	if (plan.forks) {
		REQUIRE(pthread_create(&thread, NULL, fork_and_use, NULL) == 0);
		REQUIRE(pthread_join(thread, NULL) == 0);
	}
	return __real_pthread_atfork(prepare, parent, child);
}

/* Makes the call twice in a process that has made none: both times it returns that. */
static void in_a_process(use *call, bool fails, bool forks, int expected)
{
	const pid_t pid = fork();

	if (pid == 0) {
		alarm(2 * HANG_SECONDS);
		plan.call = call;
		plan.fails = fails;
		plan.forks = forks;
		CHECK_EQ(call(), expected);
		CHECK(plan.registered > 0 || call == use_random);
		CHECK_EQ(call(), expected);
		_exit(check_failures());
	}
	check_child(pid);
}

static void another_thread_forks_meanwhile(use *call)
{
#ifdef __SANITIZE_THREAD__
	SKIP("the sanitizer's own pthread_once() waits in the child for the thread of the parent");
#endif
	in_a_process(call, false, true, DRP_OK);
}

static void a_handler_that_cannot_be_registered_is_told(use *call)
{
	in_a_process(call, true, false, DRP_NO_MEMORY);
}

/* They go without the vDSO then, or it has no such function anyway. */
static void random_bytes_do_without(void)
{
	in_a_process(use_random, true, false, DRP_OK);
}

int main(void)
{
	RUN(another_thread_forks_meanwhile, use_cache);
	RUN(another_thread_forks_meanwhile, use_region);
	RUN(another_thread_forks_meanwhile, use_guard);
	RUN(a_handler_that_cannot_be_registered_is_told, use_cache);
	RUN(a_handler_that_cannot_be_registered_is_told, use_region);
	RUN(a_handler_that_cannot_be_registered_is_told, use_guard);
	RUN(random_bytes_do_without);
	return check_done();
}
