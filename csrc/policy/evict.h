/*
 * policy/evict.h - what max_bytes bounds, and how it is kept. policy/evict.c has the picture.
 *
 * Callers: the files of policy/ and cache/, under the shard's lock.
 */
#ifndef DRP_POLICY_EVICT_H
#define DRP_POLICY_EVICT_H

#include <stdbool.h>
#include <stdint.h>

struct cache;
struct shard;

/* Evicts until max_bytes is kept, if there is one. newest_place: of the entry that this is for, and that stays. */
void shard_evict(struct cache *cache, struct shard *shard, uint64_t newest_place);
/* Is more held than that, though what is dead was given back? */
bool shard_is_over(struct cache *cache, struct shard *shard);

#endif
