/*
 * cache_window.h - pins that stay although nobody holds them, so that an array in steady use costs no system call.
 *
 *   ring of pins (all caches of the process)      hand: looks at one after the other, gives back what was not used
 *      .-> [rests, used] -> [held] -> [rests] ->.  since it last came by
 *      '---------------------------------------'
 *
 * A pin enters when its last holder lets go. While it is in the ring its pages stay dirty: the kernel cannot take them,
 * and the next holder needs neither to dirty nor to check them. Few bytes may rest so, fewer when memory gets short, and
 * none at all when an insert would be refused: see cache_window.c.
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
/* Under the shard's lock: forgets a pin that rests. Its pages are left as they are, dirty: the caller sees to them. */
void window_forget(struct shard *shard, struct pin *pin);
/* Under the shard's lock: forgets all that rest in a segment, or, if it is NULL, in the shard; mark: their pages are marked. */
void window_leave(struct shard *shard, const struct segment *segment, bool mark);

/*
 * Without a lock: marks the pages of pins that are FREEING and in no ring, adjacent ones in one call, and ends them: the
 * table forgets them, the segment has a user less, the cache a reference. Sorts the list.
 */
void window_give_back(struct pin **pins, size_t count);

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
