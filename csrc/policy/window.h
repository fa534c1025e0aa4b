/*
 * policy/window.h - pins that stay although nobody holds them, so that an array in steady use costs no system call.
 *
 *   ring of pins (all caches of the process)      hand: looks at one after the other, gives back what was not used
 *      .-> [rests, used] -> [held] -> [rests] ->.  since it last came by
 *      '---------------------------------------'
 *
 * A pin enters when its last holder lets go. While it is in the ring its pages stay dirty: the kernel cannot take them,
 * and the next holder needs neither to dirty nor to check them. Few bytes may rest so, fewer when memory gets short, and
 * none at all when an insert would be refused: see policy/window.c.
 *
 * Locks: a pin enters and leaves under its shard's lock and, inside that, the window's. What takes no shard calls from
 * outside of all locks; the hand takes a shard's lock inside the window's, but only if it is free at that moment.
 *
 * Callers: the files of the cache.
 */
#ifndef DRP_CACHE_WINDOW_H
#define DRP_CACHE_WINDOW_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct cache;
struct pin;
struct segment;
struct shard;

/* Under the shard's lock: the last holder left. False: it may not rest, and is not in the ring. */
bool window_keep(struct shard *shard, struct pin *pin);
/* Under the shard's lock: a pin that rests has a holder again. */
void window_use(struct shard *shard, struct pin *pin);
/* Under the shard's lock: a pin that rests goes; its pages are given back by whoever gives up the lock. */
void window_let_go(struct shard *shard, struct pin *pin);
/* Under the shard's lock: all that rest in the shard go so. */
void window_let_all_go(struct shard *shard);
/* Under the shard's lock: forgets a pin that rests. Its pages are left as they are, dirty: the caller sees to them. */
void window_forget(struct shard *shard, struct pin *pin);
/*
 * Under the shard's lock, for a segment of many values that is about to be emptied, and cannot wait: marks the pages of those
 * that rest in it, 40 us for a whole segment, and forgets them.
 */
void window_leave(struct shard *shard, struct segment *segment);
/* Under the shard's lock: a segment is retired, and what rests in it goes; its pages are of no use. */
void window_retire(struct shard *shard, const struct segment *segment);
/*
 * Under the shard's lock, for a shard that is about to be emptied: forgets what rests in segments that nobody uses, pages and
 * all, for those are unmapped; what rests beside something held is let go.
 */
void window_empty(struct shard *shard);

/*
 * Without a lock: marks the pages of a list of pins (by ring_next) that are FREEING and in no ring, adjacent ones in one
 * call, and ends them: the table forgets them, the segment has a user less, the cache a reference. A pin whose pages
 * could not be marked rests again, if it may: what is not marked is counted.
 */
void window_give_back(struct pin *pins);

/* Bytes that rest or did when they were last used, over all caches. */
uint64_t window_bytes(void);
/* The room was read: how much may rest from now on. What was not used since the last time is to go, by and by. */
void window_set_room(uint64_t limit_bytes, int64_t room_bytes);
/* Without a lock: gives back what is too much, all of that; and some of what was not used. */
void window_trim(void);
/* Without a lock: gives back everything. False: nothing rested. */
bool window_release(void);

/* Around a fork, with the locks of all shards held. */
void window_lock(void);
void window_unlock(void);

#endif
