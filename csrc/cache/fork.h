/*
 * cache/fork.h - what fork() has to know of caches. See cache/fork.c for what it does.
 *
 * Callers: the files of the cache.
 */
#ifndef DRP_CACHE_FORK_H
#define DRP_CACHE_FORK_H

#include <stddef.h>

struct cache;
struct cache_sink;
struct pin;
struct segment;
struct shard;

/* Puts it into the list of all caches, which a fork goes through. */
int cache_register(struct cache *cache);
/*
 * The callbacks of a sink, called without a lock, with the segment that they keep in use, and the pin that is PINNING, or NULL.
 * The thread may fork in there.
 */
void cache_begin_copy(struct cache_sink *sink, size_t bytes, struct shard *shard, struct segment *segment, struct pin *pin);
void cache_end_copy(struct cache_sink *sink, struct shard *shard, struct segment *segment);

#endif
