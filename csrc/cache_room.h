/*
 * cache_room.h - may a call allocate, and how much? cache_room.c has the reckoning.
 *
 * Callers: the files of the cache.
 */
#ifndef DRP_CACHE_ROOM_H
#define DRP_CACHE_ROOM_H

#include <stdbool.h>
#include <stddef.h>

struct cache;
struct shard;

/* May that many bytes be allocated? Takes locks of shards; the second does not, and reads no limits anew. */
bool cache_has_room(struct cache *cache, struct shard *shard, size_t bytes);
bool cache_room_is_known(struct cache *cache, struct shard *shard, size_t bytes);
/* For calls that do not insert: keeps the window (cache_window.h) in bounds. */
void cache_watch_room(struct cache *cache);

#endif
