/*
 * lease_client.h - what tests of leases share: values that are stored under a lease, and which version is there.
 */
#ifndef DRP_LEASE_CLIENT_H
#define DRP_LEASE_CLIENT_H

#include "cache_client.h"
#include "store/internal.h"
#include "cache/lease.h"
#include "check.h"

static struct client_sink sink;

static inline int set_leased(struct cache *cache, uint64_t key, uint64_t version, size_t bytes, struct cache_lease *lease)
{
	unsigned char *value = malloc(bytes);
	const uint64_t meta[] = {version, bytes};
	const struct drp_part part = {value, bytes};
	const struct cache_item item = {.parts = &part, .part_count = 1, .meta = meta, .meta_bytes = sizeof(meta),
					.kind = (uint8_t)(key & 7), .own_pages = bytes >= prim_page_size()};

	client_fill(value, key, version, bytes);
	int status = cache_set_leased(cache, &key, sizeof(key), &item, lease);
	free(value);
	return status;
}

/* The version that is there; 0: none. */
static inline uint64_t version_of(struct cache *cache, uint64_t key)
{
	uint64_t version = 0;
	bool wrong = false;
	int status = client_get(cache, &sink, key, GET_COPY, &version, &wrong);

	CHECK(status == DRP_OK || status == DRP_MISS);
	CHECK(!wrong);
	return status == DRP_OK ? version : 0;
}

static inline size_t open_leases(struct cache *cache)
{
	size_t open = 0;

	for (unsigned i = 0; i < cache->shard_count; i++)
		open += cache->shards[i].leases.open;
	return open;
}

#endif
