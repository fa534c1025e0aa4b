/*
 * test_index_order.c - a change of the index against a drop that happens on another processor at the same moment.
 *
 *   who changes:  store the slot, then look at the guard          who drops:  clear the guard, then look at the slot
 *
 * Each stores and then loads, so that a processor may let its load go first, unless there is a fence between the two. Without
 * it both may see the old word: the change is believed to stand in a page that was dropped before it. Who drops stands for the
 * kernel here. On one processor the two cannot meet, and nothing is found.
 */
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <unistd.h>

#include "check.h"
#include "droppable.h"
#include "log/arena.h"
#include "store/index.h"
#include "store/index_search.h"

enum { ROUNDS = CHECK_LESS ? 100000 : 400000, SPINS = 2000, LAST = ROUNDS + 1 };

static struct {
	_Atomic unsigned round, done; /* that begins; that the one who drops has ended */
	uint64_t *page, *slot;
	bool saw_store;
} shared;

/* Both are here at the same moment if each has a processor. */
static void await(_Atomic unsigned *word, unsigned value)
{
	for (unsigned spins = 0; atomic_load_explicit(word, memory_order_acquire) != value; spins++)
		if (spins > SPINS)
			sched_yield();
}

static void *drop(void *unused)
{
	for (unsigned round = 1;; round++) {
		await(&shared.round, round);
		if (round == LAST)
			return unused;
		atomic_store_explicit((_Atomic uint64_t *)shared.page, 0, memory_order_relaxed);
		atomic_thread_fence(memory_order_seq_cst);
		shared.saw_store = index_load(shared.slot) & INDEX_HOT_BIT;
		atomic_store_explicit(&shared.done, round, memory_order_release);
	}
}

static void a_drop_is_seen_or_sees_the_store(void)
{
	const uint64_t hash = UINT64_C(0x123456789abcdef0), place = (uint64_t)1 << ARENA_OFFSET_BITS;
	struct index_cursor cursor;
	struct index index;
	uint64_t displaced;
	pthread_t dropper;
	unsigned unseen = 0, stood = 0;

	if (sysconf(_SC_NPROCESSORS_ONLN) < 2)
		SKIP("one processor");
	REQUIRE(index_init(&index, PRIM_LAZYFREE, 0) == DRP_OK);
	shared.page = index_page_address(&index, 0);
	REQUIRE(pthread_create(&dropper, NULL, drop, NULL) == 0);
	for (unsigned round = 1; round < LAST; round++) {
		REQUIRE(index_insert(&index, hash, place, &displaced) == DRP_OK);
		index_find(&index, hash, &cursor);
		REQUIRE(index_next(&index, &cursor));
		shared.slot = cursor.slot;
		atomic_store_explicit(&shared.round, round, memory_order_release);
		index_set_hot(&index, &cursor);
		const bool stands = cursor.has_page;
		await(&shared.done, round);
		stood += stands;
		unseen += stands && !shared.saw_store;
	}
	atomic_store_explicit(&shared.round, LAST, memory_order_release);
	REQUIRE(pthread_join(dropper, NULL) == 0);
	printf("# the change came first in %u of %d rounds\n", stood, ROUNDS);
	CHECK_EQ(unseen, 0);
	index_destroy(&index);
}

int main(void)
{
	RUN(a_drop_is_seen_or_sees_the_store);
	return check_done();
}
