/*
 * policy/unlock.h - what is done as a shard's lock is given up, and as a cache's last reference goes: memory is unmapped.
 *
 * Callers: the files of the cache, and what fork needs of it. shard_unlock() itself is declared in store/shard.h.
 */
#ifndef DRP_POLICY_UNLOCK_H
#define DRP_POLICY_UNLOCK_H

#include <stdbool.h>

struct cache;

/* Around a fork: nothing is being unmapped meanwhile. graves_close() unmaps what had to wait for it. */
void graves_lock(void);
bool graves_try_lock(void);
void graves_unlock(void);
void graves_close(void);

/* A reference less; the last one takes the cache along. */
void cache_release(struct cache *cache);
/* The memory of a cache that is in no list any more and that nobody refers to. With the graves' lock, or alone in a child. */
void cache_destroy(struct cache *cache);

#endif
