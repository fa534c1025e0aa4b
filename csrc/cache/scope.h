/*
 * scope.h - numbers for parts of a cache. A part (a namespace, the results of one function) puts its number in front of its
 * keys. It is emptied at once by giving it another number: nobody asks for the entries under the old one any more.
 *
 * So a number must never come back where entries under it may still be read:
 *
 *   in this process          numbers are counted upwards from a random start. None comes twice before 2^64 were passed.
 *   in a forked child        it may read entries of its parent from before the fork (fork="share"), copy-on-write. The child
 *                            goes on upwards from where the parent was, so it never gives a number that was used before the
 *                            fork. What the parent stores after the fork the child cannot read, and the other way round.
 *   memory of many processes (a server's) may hold entries of parent and child. So a child first goes forward by a random
 *                            step of up to 2^48. If both then give 2^24 numbers, one of them comes twice with a
 *                            probability of 2^-24. 65 536 forks, each inside of the one before, fit into 2^64.
 *
 * Callers: the binding.
 */
#ifndef DRP_SCOPE_H
#define DRP_SCOPE_H

#include <stdint.h>

enum { SCOPE_FIRST = 16 }; /* smaller numbers are never given: their users choose what they mean */

/*
 * *number: one that this process never had before. 0, or the negative status of prim_random(). Any thread, any time, also
 * in the child of a process with threads.
 */
int scope_new(uint64_t *number);

#endif
