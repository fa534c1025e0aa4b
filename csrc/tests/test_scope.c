/*
 * test_scope.c - no number comes twice: among threads, in a forked child and in its own children.
 */
#include "cache/scope.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"
#include "droppable.h"

enum { THREADS = 4, PER_THREAD = 20000, GENERATIONS = 5, PER_PROCESS = 1000 };

static int compare(const void *left, const void *right)
{
	const uint64_t a = *(const uint64_t *)left, b = *(const uint64_t *)right;
	return (a > b) - (a < b);
}

static void check_each_is_new(uint64_t *numbers, size_t count)
{
	qsort(numbers, count, sizeof(*numbers), compare);
	CHECK(numbers[0] >= SCOPE_FIRST);
	for (size_t i = 1; i < count; i++)
		if (!CHECK(numbers[i - 1] != numbers[i]))
			return;
}

static void draw(uint64_t *into, size_t count)
{
	for (size_t i = 0; i < count; i++)
		CHECK_EQ(scope_new(&into[i]), DRP_OK);
}

static void *draw_in_thread(void *into)
{
	draw(into, PER_THREAD);
	return NULL;
}

static void threads_get_different_numbers(void)
{
	static uint64_t numbers[THREADS][PER_THREAD];
	pthread_t threads[THREADS];

	for (int i = 0; i < THREADS; i++)
		REQUIRE(pthread_create(&threads[i], NULL, draw_in_thread, numbers[i]) == 0);
	for (int i = 0; i < THREADS; i++)
		REQUIRE(pthread_join(threads[i], NULL) == 0);
	check_each_is_new(numbers[0], THREADS * PER_THREAD);
}

/* Each process draws, forks a child that does the same, and draws again. All numbers are compared. */
static void children_get_different_numbers(void)
{
	const size_t count = 2 * GENERATIONS * PER_PROCESS;
	uint64_t *numbers = mmap(NULL, count * sizeof(*numbers), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	REQUIRE(numbers != MAP_FAILED);
	int generation = 0, status;
	pid_t child = 0;

	for (; generation < GENERATIONS; generation++) {
		draw(numbers + 2 * generation * PER_PROCESS, PER_PROCESS);
		child = fork();
		REQUIRE(child >= 0);
		if (child > 0)
			break;
	}
	if (generation < GENERATIONS) {
		draw(numbers + (2 * generation + 1) * PER_PROCESS, PER_PROCESS);
		CHECK(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0);
	}
	if (generation > 0)
		_exit(check_failures() != 0);
	check_each_is_new(numbers, count);
	REQUIRE(munmap(numbers, count * sizeof(*numbers)) == 0);
}

int main(void)
{
	RUN(threads_get_different_numbers);
	RUN(children_get_different_numbers);
	return check_done();
}
