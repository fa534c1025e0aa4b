/*
 * cache/stats.h - reads what a cache counted: store/counts.h says what that is.
 *
 * Callers: the binding; C programs.
 */
#ifndef DRP_CACHE_STATS_H
#define DRP_CACHE_STATS_H

#include "store/counts.h"

struct cache;

void cache_read_stats(struct cache *cache, struct cache_stats *out);

#endif
