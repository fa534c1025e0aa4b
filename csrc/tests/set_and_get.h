/*
 * set_and_get.h - the two calls that most tests of a cache make: a value of so many bytes is stored, and is looked up and checked.
 */
#ifndef DRP_SET_AND_GET_H
#define DRP_SET_AND_GET_H

#include "cache_client.h"
#include "check.h"

static struct client_sink sink;

static inline void set(struct cache *cache, uint64_t key, size_t bytes)
{
	CHECK_EQ(client_set(cache, key, 1, bytes, false, SET_ALWAYS), DRP_OK);
}

static inline bool get(struct cache *cache, uint64_t key)
{
	uint64_t version = 0;
	bool wrong;
	int status = client_get(cache, &sink, key, GET_COPY, &version, &wrong);

	CHECK(status == DRP_OK || status == DRP_MISS);
	CHECK(!wrong);
	return status == DRP_OK;
}

#endif
