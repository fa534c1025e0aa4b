/*
 * policy/reclaim.h - memory is given back before it is asked for, while others take it fast. policy/reclaim.c has the picture.
 *
 * Callers: the files of the cache; tests. Neither may hold the lock of a shard.
 */
#ifndef DRP_POLICY_RECLAIM_H
#define DRP_POLICY_RECLAIM_H

#include <stdint.h>

/* For calls that come along: are others short of memory? Then some is given back, of any cache of the process. */
void cache_reclaim(void);
/* The same, and how long nobody need look again. */
uint64_t cache_reclaim_once(void);
/* Gives about that much back now, in one step of at most 0.2 ms: how much it was. What was not asked for lately goes first. */
uint64_t cache_give_back(uint64_t bytes);

#endif
