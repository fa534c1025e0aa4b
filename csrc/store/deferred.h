/*
 * store/deferred.h - pins whose unpin is deferred: nobody holds them, and their pages stay dirty for who comes next.
 *
 *   ring of pins (all caches of the process)      hand: where policy/unpin.c looks next, and new pins come in behind it
 *      .-> [deferred] -> [held again] -> [deferred] ->.
 *      '-----------------------------------------------'
 *
 * A pin enters when its last holder lets go, and policy/unpin.c allows it. While it is in the ring its pages stay dirty: the
 * kernel cannot take them, and the next holder needs neither to dirty nor to check them. It leaves in one of two ways:
 *
 *   freed        its pages are marked, or given back, by whoever gives up the shard's lock: deferred_free()
 *   forgotten    at once, and the caller sees to its pages: deferred_forget()
 *
 * Locks: a pin enters and leaves under its shard's lock and, inside that, the ring's.
 *
 * Callers: the files of store/, policy/ and cache/, under the shard's lock where a shard is given.
 */
#ifndef DRP_STORE_DEFERRED_H
#define DRP_STORE_DEFERRED_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct pin;
struct segment;
struct shard;

/* Bytes and number of pins in the ring, over all caches: deferred now, or when they were last let go. */
uint64_t deferred_bytes(void);
size_t deferred_count(void);

/* Into the ring, or out of it without another change: for a pin that is not deferred. */
void deferred_enter(struct pin *pin);
void deferred_leave(struct pin *pin);
/* A deferred pin has a holder again. */
void deferred_use(struct shard *shard, struct pin *pin);
/* A deferred pin becomes FREEING: whoever gives up the lock marks its pages, or gives them back. All of the shard do so. */
void deferred_free(struct shard *shard, struct pin *pin);
void deferred_free_all(struct shard *shard);
/* Ends a deferred pin. Its pages are left as they are, dirty: the caller sees to them. */
void deferred_forget(struct shard *shard, struct pin *pin);
/* A segment is retired, and what is deferred in it is freed; its pages are of no use. */
void deferred_retire(struct shard *shard, const struct segment *segment);
/*
 * For a shard that is about to be emptied: forgets what is deferred in segments that nobody uses, pages and all, for those are
 * unmapped; what is deferred beside something held is freed.
 */
void deferred_empty(struct shard *shard);
/* The end of a pin that is in no ring. Its reference to the cache is left to the caller. */
void pin_end(struct shard *shard, struct pin *pin);

/* Around a fork, with the locks of all shards held; and around the two below. */
void deferred_lock(void);
void deferred_unlock(void);
/* The pin at the hand, which goes on. NULL: the ring is empty. */
struct pin *deferred_next(void);
/* Out of the ring, with its lock held. */
void deferred_unlink(struct pin *pin);

#endif
