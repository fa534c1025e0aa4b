/* turn.c - whose turn it is to change a key. See turn.h for the picture. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "turn.h"

#include <stdbool.h>
#include <time.h>
#include <unistd.h>

#include "os/hash.h"
#include "os/prim.h"

enum { LOOK_NS = 200 * 1000 };

static uint32_t now_ms(void)
{
	return (uint32_t)(prim_now_coarse_ns() / 1000000);
}

/* Some bits of the key, never 0: another key that has the same ones waits for nothing, and no longer than for its own. */
static uint64_t word_of(const void *key, size_t bytes, uint32_t until_ms)
{
	static const uint64_t no_secret[2] = {0, 0};

	return (hash_bytes(no_secret, key, bytes) | 1) << 32 | until_ms;
}

static bool is_over(const struct turn *turn, uint64_t word)
{
	return word == 0 || (int32_t)((uint32_t)word - now_ms()) <= 0 ||
	       atomic_load_explicit(&turn->process, memory_order_relaxed) != getpid();
}

/* What was put in turn->word; 0: it is another's. */
static uint64_t take(struct turn *turn, const void *key, size_t bytes)
{
	const uint64_t word = word_of(key, bytes, now_ms() + TURN_MS);
	uint64_t old = atomic_load_explicit(&turn->word, memory_order_relaxed);

	if (!is_over(turn, old) || !atomic_compare_exchange_strong(&turn->word, &old, word))
		return 0;
	atomic_store_explicit(&turn->thread, PyThread_get_thread_ident(), memory_order_relaxed);
	atomic_store_explicit(&turn->process, getpid(), memory_order_relaxed);
	return word;
}

void turn_give_back(struct turn *turn, uint64_t word)
{
	/* Where it was over, another one may have it by now, and keeps it. */
	if (word != 0)
		atomic_compare_exchange_strong(&turn->word, &word, 0);
}

int turn_wait(struct turn *turn, const void *key, size_t bytes)
{
	const struct timespec look = {.tv_nsec = LOOK_NS};
	const uint64_t mine = word_of(key, bytes, 0);

	for (;;) {
		const uint64_t word = atomic_load_explicit(&turn->word, memory_order_relaxed);
		if (word >> 32 != mine >> 32 || is_over(turn, word) ||
		    atomic_load_explicit(&turn->thread, memory_order_relaxed) == PyThread_get_thread_ident())
			return 0;
		Py_BEGIN_ALLOW_THREADS
		nanosleep(&look, NULL); /* interrupted: the handler runs sooner */
		Py_END_ALLOW_THREADS
		if (PyErr_CheckSignals() < 0)
			return -1;
	}
}

int turn_next_try(struct turn *turn, const void *key, size_t bytes, unsigned overtaken, uint64_t *word)
{
	if (*word != 0)
		return 0;
	if (overtaken >= TURN_TRIES)
		*word = take(turn, key, bytes);
	return *word != 0 ? 0 : turn_await(turn, key, bytes);
}
