/*
 * store/leases.c - the open leases of a shard. See store/leases.h. All lists are under their shard's lock.
 */
#include "store/leases.h"

#include <string.h>

struct cache_lease **leases_bucket(struct leases *leases, uint64_t hash)
{
	return &leases->buckets[hash % LEASE_BUCKETS];
}

bool leases_hold(const struct leases *leases, const struct cache_lease *lease)
{
	return lease->fork_count == leases->fork_count && !cache_lease_is_stale(lease);
}

void leases_revoke_open(struct leases *leases, uint64_t hash)
{
	for (struct cache_lease *lease = *leases_bucket(leases, hash); lease; lease = lease->next)
		if (lease->hash == hash)
			atomic_store_explicit(&lease->is_stale, true, memory_order_release);
}

void leases_overtake_open(struct leases *leases, uint64_t hash)
{
	for (struct cache_lease *lease = *leases_bucket(leases, hash); lease; lease = lease->next)
		lease->is_overtaken |= lease->hash == hash;
}

static bool begins_with(const struct cache_lease *lease, const void *prefix, size_t prefix_bytes)
{
	return lease->key_bytes >= prefix_bytes && memcmp(lease->key, prefix, prefix_bytes) == 0;
}

void leases_revoke_prefix(struct leases *leases, const void *prefix, size_t prefix_bytes)
{
	for (size_t i = 0; leases->open != 0 && i < LEASE_BUCKETS; i++)
		for (struct cache_lease *lease = leases->buckets[i]; lease; lease = lease->next)
			if (!lease->key || begins_with(lease, prefix, prefix_bytes))
				atomic_store_explicit(&lease->is_stale, true, memory_order_release);
}

void leases_revoke_all(struct leases *leases)
{
	for (size_t i = 0; leases->open != 0 && i < LEASE_BUCKETS; i++)
		for (struct cache_lease *lease = leases->buckets[i]; lease; lease = lease->next)
			atomic_store_explicit(&lease->is_stale, true, memory_order_release);
}

/* The threads that opened them may not exist here, and where their leases lay may be used for something else. */
void leases_forget(struct leases *leases)
{
	const uint64_t fork_count = leases->fork_count;

	*leases = (struct leases){.fork_count = fork_count + 1};
}
