/*
 * turn.h - whose turn it is to change a key: the way through for a change that others overtook again and again.
 *
 *   transform(), overtaken TURN_TRIES times --> [ key | until ], thread, process --turn_give_back()--> nobody's
 *                                                |
 *   transform(), incr() of the same key in another thread --turn_await()--> waits until it is given back, or over
 *
 * A change is computed without a lock, and stored if nobody changed the key meanwhile. So of several threads one always gets on; but a
 * slow one may never be it. While it has the turn no other one of these begins. It is over after TURN_MS in any case: a function
 * may wait for a thread that changes the same key, and both must go on. set() and delete() never wait.
 *
 * There is one turn in a cache. All of it is advice: who misses it for a moment overtakes once more, and nothing else happens.
 * In a forked child the parent's turn counts for nothing.
 *
 * Callers: cache_update.c.
 */
#ifndef DRP_TURN_H
#define DRP_TURN_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

enum { TURN_TRIES = 10, TURN_MS = 5000 };

struct turn {
	_Atomic uint64_t word; /* low half: when it is over, in ms; high half: of the key's hash. 0: nobody's */
	_Atomic unsigned long thread;
	_Atomic int process;
};

/* Waits while another thread has the turn for this key. 0, or -1 with the exception of a signal handler. */
int turn_wait(struct turn *turn, const void *key, size_t bytes);
static inline int turn_await(struct turn *turn, const void *key, size_t bytes)
{
	return atomic_load_explicit(&turn->word, memory_order_relaxed) == 0 ? 0 : turn_wait(turn, key, bytes);
}
/*
 * Before a try, so many of which were overtaken. *word: 0 at first; else the turn is this change's, and is to be given back. 0 or -1, as
 * turn_await().
 */
int turn_next_try(struct turn *turn, const void *key, size_t bytes, unsigned overtaken, uint64_t *word);
/* word: 0: it never was this change's. */
void turn_give_back(struct turn *turn, uint64_t word);

#endif
