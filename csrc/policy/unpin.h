/*
 * policy/unpin.h - how long a pin without a holder stays: an array in steady use costs no system call.
 *
 *   last holder lets go --unpin_defer()--> deferred (store/deferred.h) --used again--> held
 *                                             |
 *                                             +-- the hand comes by twice without a use, or there is too much: marked
 *
 * Few bytes may be deferred, fewer when memory gets short, and none at all when an insert would be refused: see policy/unpin.c.
 *
 * Locks: what takes no shard calls from outside of all locks; the hand takes a shard's lock inside the ring's, but only if it is
 * free at that moment.
 *
 * Callers: the files of policy/ and cache/.
 */
#ifndef DRP_POLICY_UNPIN_H
#define DRP_POLICY_UNPIN_H

#include <stdbool.h>
#include <stdint.h>

struct pin;
struct segment;
struct shard;

/* Under the shard's lock: the last holder left. False: it may not stay, and is not in the ring. */
bool unpin_defer(struct shard *shard, struct pin *pin);
/*
 * Under the shard's lock, for a segment of many values that is about to be emptied, and cannot wait: marks the pages of those
 * that are deferred in it, 40 us for a whole segment, and forgets them.
 */
void unpin_leave(struct shard *shard, struct segment *segment);
/*
 * Without a lock: marks the pages of a list of pins (by ring_next) that are FREEING and in no ring, adjacent ones in one
 * call, and ends them: the table forgets them, the segment has a user less, the cache a reference. A pin whose pages
 * could not be marked is deferred again, if it may be: what is not marked is counted.
 */
void unpin_give_back(struct pin *pins);

/* The room was read: how much may be deferred from now on. What was not used since the last time is to go, by and by. */
void unpin_set_headroom(uint64_t limit_bytes, int64_t room_bytes);
/* Without a lock: gives back what is too much, all of that; and some of what was not used. */
void unpin_trim(void);
/* Without a lock: gives back everything. False: nothing was deferred. */
bool unpin_all(void);

#endif
