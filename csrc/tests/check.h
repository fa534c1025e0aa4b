/*
 * check.h - what a test of the C core is made of. A test file is one program; it prints TAP, which meson reads:
 *
 *   static void map_gives_zeros(enum prim_backing backing)
 *   {
 *           if (!offered(backing))
 *                   SKIP("this kernel has no such backing");
 *           CHECK_EQ(prim_map(backing, size, 0, &at), DRP_OK);
 *   }
 *
 *   int main(void)                                      prints
 *   {
 *           RUN(map_gives_zeros, PRIM_LAZYFREE);        ok 1 - map_gives_zeros(PRIM_LAZYFREE)
 *           RUN(map_gives_zeros, PRIM_DROPPABLE);       ok 2 - map_gives_zeros(PRIM_DROPPABLE) # SKIP this kernel ...
 *           return check_done();                        1..2
 *   }
 *
 * A failed CHECK is printed and the case goes on; a failed REQUIRE ends the program. Checks may run in any thread and
 * in forked children, whose failures reach the parent only through their exit code: end a child with
 * _exit(check_failures()). RUN, SKIP and check_done() belong to the main thread.
 *
 * Long tests do all of their work in the build as it ships, and a part of it where CHECK_LESS is true.
 *
 * In the environment, CHECK_ONLY=name: of all cases only those of that name are run. CHECK_STOP=1: the first failure ends the
 * program.
 */
#ifndef DRP_CHECK_H
#define DRP_CHECK_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/*
 * Under sanitizers a step takes several times as long. -DCHECK_SLOW says that of an emulated machine, or that the same steps
 * are taken in another build: by the other compiler, or for 32 bits.
 */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__) || defined(CHECK_SLOW)
enum { CHECK_LESS = true };
#else
enum { CHECK_LESS = false };
#endif

/* Under ThreadSanitizer a test that has cases with threads leaves the long ones in one thread out: the other builds take them. */
#ifdef __SANITIZE_THREAD__
enum { CHECK_THREADS_ALONE = true };
#else
enum { CHECK_THREADS_ALONE = false };
#endif

/* Is run number n among those that are made? One in four where less is done, in no rhythm that a loop could have too. */
static inline bool check_makes(size_t n)
{
	enum { SHARE_BITS = 2 };
	return !CHECK_LESS || (uint32_t)n * UINT32_C(2654435769) >> (32 - SHARE_BITS) == 0;
}

static struct {
	int cases, failed_cases;
	_Atomic int failures; /* of the case that runs */
	const char *skip;     /* its reason, or NULL */
} check_state;

static inline int check_failures(void)
{
	return atomic_load(&check_state.failures);
}

static inline void check_count_failure(void)
{
	atomic_fetch_add(&check_state.failures, 1);
	fflush(stdout);
	if (getenv("CHECK_STOP"))
		_Exit(1);
}

static inline int check_that(int holds, const char *what, const char *file, int line)
{
	if (!holds) {
		printf("# %s:%d: does not hold: %s\n", file, line, what);
		check_count_failure();
	}
	return holds;
}

static inline int check_equal(long long a, long long b, const char *what, const char *file, int line)
{
	if (a != b) {
		printf("# %s:%d: not equal: %s: %lld (0x%llx) and %lld (0x%llx)\n", file, line, what, a,
		       (unsigned long long)a, b, (unsigned long long)b);
		check_count_failure();
	}
	return a == b;
}

static inline bool check_is_wanted(const char *name)
{
	const char *only = getenv("CHECK_ONLY");
	return !only || strcmp(only, name) == 0;
}

static inline void check_begin(void)
{
	atomic_store(&check_state.failures, 0);
	check_state.skip = NULL;
}

static inline void check_end(const char *name, const char *arguments)
{
	int failures = check_failures();

	check_state.failed_cases += failures != 0;
	printf("%s %d - %s(%s)", failures ? "not ok" : "ok", ++check_state.cases, name, arguments);
	if (check_state.skip && !failures)
		printf(" # SKIP %s", check_state.skip);
	printf("\n");
	fflush(stdout); /* a child forked later must not print it again */
}

static inline int check_done(void)
{
	printf("1..%d\n", check_state.cases);
	return check_state.failed_cases != 0;
}

#define CHECK(condition) check_that(!!(condition), #condition, __FILE__, __LINE__)
#define CHECK_EQ(a, b) check_equal((long long)(a), (long long)(b), #a " == " #b, __FILE__, __LINE__)
#define REQUIRE(condition)                                                                                              \
	do {                                                                                                            \
		if (!CHECK(condition)) {                                                                                \
			printf("Bail out! a requirement does not hold\n");                                              \
			exit(1);                                                                                        \
		}                                                                                                       \
	} while (0)
#define SKIP(reason)                                                                                                    \
	do {                                                                                                            \
		check_state.skip = (reason);                                                                            \
		return;                                                                                                 \
	} while (0)
#define RUN(name, ...)                                                                                                  \
	do {                                                                                                            \
		if (!check_is_wanted(#name))                                                                            \
			break;                                                                                          \
		check_begin();                                                                                          \
		name(__VA_ARGS__);                                                                                      \
		check_end(#name, #__VA_ARGS__);                                                                         \
	} while (0)

#endif
