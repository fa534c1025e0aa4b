/*
 * store/leases.h - the open leases of a shard: was a key set, deleted or cleared while somebody computed its value?
 *
 *   shard -> bucket of the key's hash -> open lease -> open lease        ordinary memory of whoever computes
 *
 * Callers: whatever stores, deletes and clears; cache/lease.h, which opens and ends leases and has the picture of one.
 */
#ifndef DRP_STORE_LEASES_H
#define DRP_STORE_LEASES_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct cache;

struct cache_lease { /* all private, but that a lease of zeros is one that is not open */
	struct cache *cache;
	struct cache_lease *next, **link;
	const void *key; /* or NULL: not known */
	size_t key_bytes;
	uint64_t hash;
	uint64_t fork_count;
	_Atomic bool is_stale;
	bool is_overtaken; /* a value was stored under a lease of this key meanwhile; under the shard's lock */
};

static inline bool cache_lease_is_stale(const struct cache_lease *lease)
{
	return atomic_load_explicit(&lease->is_stale, memory_order_acquire);
}

/* The open leases of one shard, under its lock. */
enum { LEASE_BUCKETS = 64 };

struct leases {
	size_t open;
	uint64_t fork_count; /* a lease of another number is in no list */
	struct cache_lease *buckets[LEASE_BUCKETS];
};

/* Where the leases of keys of this hash are. */
struct cache_lease **leases_bucket(struct leases *leases, uint64_t hash);
bool leases_hold(const struct leases *leases, const struct cache_lease *lease);
void leases_revoke_open(struct leases *leases, uint64_t hash);
void leases_overtake_open(struct leases *leases, uint64_t hash);
void leases_revoke_prefix(struct leases *leases, const void *prefix, size_t prefix_bytes);
void leases_revoke_all(struct leases *leases);
void leases_forget(struct leases *leases); /* in a forked child */

/* One comparison for those who set and delete while nobody computes anything. */
static inline void leases_revoke(struct leases *leases, uint64_t hash)
{
	if (leases->open != 0)
		leases_revoke_open(leases, hash);
}
/* The same for those who store under a lease. */
static inline void leases_overtake(struct leases *leases, uint64_t hash)
{
	if (leases->open != 0)
		leases_overtake_open(leases, hash);
}

#endif
