/*
 * cache_fork.h - all caches of the process, and what fork() has to know of them. See cache_fork.c for what it does.
 *
 * Callers: the files of the cache.
 */
#ifndef DRP_CACHE_FORK_H
#define DRP_CACHE_FORK_H

#include <stdbool.h>
#include <stddef.h>

struct cache;
struct cache_sink;
struct pin;
struct segment;
struct shard;

int cache_register(struct cache *cache);
/* A reference less; the last one takes the cache along. */
void cache_release(struct cache *cache);
/* The first of all caches; none comes or goes until registry_unlock(). False: it is locked already. */
bool registry_try_lock(struct cache **first);
void registry_unlock(void);

/*
 * The callbacks of a sink, called without a lock, with the segment that they keep in use, and the pin that is PINNING, or NULL.
 * The thread may fork in there.
 */
void cache_begin_copy(struct cache_sink *sink, size_t bytes, struct shard *shard, struct segment *segment, struct pin *pin);
void cache_end_copy(struct cache_sink *sink, struct shard *shard, struct segment *segment);

/* cache_shard.c, around a fork: nothing is being unmapped meanwhile. graves_close() unmaps what had to wait for it. */
void graves_lock(void);
bool graves_try_lock(void);
void graves_unlock(void);
void graves_close(void);

#endif
