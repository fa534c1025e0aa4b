/*
 * cache/lease.h - leases: was a key set, deleted or cleared while somebody computed its value?
 *
 *   cache_lease_begin      the value is read from its source and computed      cache_set_leased      cache_lease_end
 *          |                                                                          |
 *          +--- cache_set, cache_delete, cache_clear or cache_revoke of the key: stale, and the value is not stored
 *
 *   shard -> bucket of the key's hash -> open lease -> open lease        ordinary memory of whoever computes
 *
 * Without it the value that was read before an invalidation would be stored after it, and stay. What makes a lease stale
 * is what callers say about the key. Expiry, eviction and drops do not: they say nothing about the value's source. A value
 * that is stored under a lease does not make other leases of its key stale either: it was computed, as theirs will be; but see
 * cache_lease_supersede(). What was computed from the value that is in the cache is another matter: a strict store
 * (cache/update.h) compares and sets.
 *
 * Keys are compared by their 64-bit keyed hash alone: two keys that share it cost a value that is not kept, no more. Where many
 * keys are deleted by how they begin (cache/part.h), a lease that was not told its key counts as one of them.
 *
 * Threads: any thread may end a lease or store under it, but only one at a time; everybody may look whether it is stale.
 * Fork: the child has no open lease. Those that it copied count as stale there, and ending one is harmless.
 *
 * Callers: the binding, whose Lease object owns one; C programs.
 */
#ifndef DRP_CACHE_LEASE_H
#define DRP_CACHE_LEASE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "store/leases.h"

struct cache;
struct cache_item;
struct cache_pin;
struct cache_sink;

/* Opens *lease, which must stay where it is until cache_lease_end(). It holds the cache's memory alive. DRP_CLOSED. */
int cache_lease_begin(struct cache *cache, const void *key, size_t key_bytes, struct cache_lease *lease);
/* Tells an open lease its key, which must stay readable until cache_lease_end(). Before anything is computed under it. */
void cache_lease_name(struct cache_lease *lease, const void *key, size_t key_bytes);
/* May be called more than once; the lease stays as stale as it was. */
void cache_lease_end(struct cache_lease *lease);

/* As cache_set(), for the open lease's key. DRP_STALE: nothing changed. */
int cache_set_leased(struct cache *cache, const void *key, size_t key_bytes, const struct cache_item *item,
		     struct cache_lease *lease);

/*
 * Makes the leases of this key stale that were opened before this one, if this one is not: what its holder has computed is
 * newer than what theirs will be. For who computes a value anew although there is one.
 */
void cache_lease_supersede(struct cache_lease *lease);

/*
 * As cache_get(), for who has just stored it: counted as no hit, nor as a miss where it is gone already. A drop that is found
 * between the two looks is counted as a miss. pins: GET_PIN_OWN, else GET_COPY.
 */
int cache_get_kept(struct cache *cache, const void *key, size_t key_bytes, bool pins, struct cache_sink *sink,
		   struct cache_pin *pin);

/* Makes the open leases of a key stale, and changes nothing else: for a caller who says "gone" of what was not there. */
int cache_revoke(struct cache *cache, const void *key, size_t key_bytes);

#endif
