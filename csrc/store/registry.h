/*
 * store/registry.h - all caches of the process, in a list.
 *
 *   first -> cache <-> cache <-> cache          by registry_next and registry_previous; under the registry's lock
 *
 * Callers: whoever makes or ends a cache, or does something to all of them: fork, proactive reclaim. The lock comes before the
 * graves' (policy/unlock.h) and before the locks of shards.
 */
#ifndef DRP_STORE_REGISTRY_H
#define DRP_STORE_REGISTRY_H

#include <stdbool.h>

struct cache;

/* None comes or goes until registry_unlock(). */
void registry_lock(void);
/* The first of all caches. False: it is locked already. */
bool registry_try_lock(struct cache **first);
void registry_unlock(void);

/* With the lock: NULL where there is none. */
struct cache *registry_first(void);
void registry_add(struct cache *cache);
void registry_remove(struct cache *cache);

#endif
