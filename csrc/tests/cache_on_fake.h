/*
 * cache_on_fake.h - a cache for one test on prim_fake: from a fake that forgot the test before, to one that has nothing mapped.
 */
#ifndef DRP_CACHE_ON_FAKE_H
#define DRP_CACHE_ON_FAKE_H

#include "cache/cache.h"
#include "check.h"
#include "prim_fake.h"

static inline struct cache *fake_cache_make(const struct cache_config *config)
{
	struct cache *cache = NULL;

	fake_reset();
	REQUIRE(cache_create(config, &cache) == DRP_OK);
	return cache;
}

static inline void fake_cache_end(struct cache *cache)
{
	cache_close(cache);
	cache_unref(cache);
	CHECK_EQ(fake_mappings(), 0);
}

#endif
