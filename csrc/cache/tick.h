/*
 * cache/tick.h - what calls of a cache do on their way, for a program in which none may come for a while.
 *
 * Callers: the server's main loop.
 */
#ifndef DRP_CACHE_TICK_H
#define DRP_CACHE_TICK_H

#include <stdint.h>

struct cache;

/*
 * Some of what expired leaves, and if others take memory fast some is given back, of any cache of the process. Returns how long
 * it may be until the next tick: 100 ms in calm, 10 ms while memory is full, 1 ms while others take it.
 */
uint64_t cache_tick(struct cache *cache);

#endif
