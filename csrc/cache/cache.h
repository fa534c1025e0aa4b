/*
 * cache.h - the cache: what is kept, for how long, and who may look at it. The whole of the C core for its users.
 *
 *   cache -> shard 0: lock | index -> places | arena: segments of entries and extents | pins | counts
 *            shard 1: ...           a key's hash chooses its shard
 *
 * Keys are bytes, compared as bytes. A value is meta (small, the caller's) and bytes; it comes back as a copy, or pinned
 * in place. A dropped page is a miss, never an error and never other bytes than were stored.
 *
 * Threads: every function may be called from any thread at the same time. A shard's lock is a leaf lock: nothing is
 * called back under it but sink->reserve() for values of less than a page's worth of segment; see there. No lock is held
 * while a large value is copied, marked, pinned or unmapped.
 * Fork: the child finds the cache empty (or, with share_on_fork, as it was); pins stay valid in both.
 *
 * Callers: the binding; C programs.
 */
#ifndef DRP_CACHE_H
#define DRP_CACHE_H

#include <stdbool.h>
#include <stdint.h>

#include "cache/stats.h"
#include "store/config.h"
#include "droppable.h"
#include "os/prim.h"

struct cache_item {
	const struct drp_part *parts; /* the value's bytes */
	size_t part_count;
	const void *meta;
	size_t meta_bytes;
	uint8_t kind;      /* the caller's, given back as it is */
	bool own_pages;    /* lay it out so that it can be pinned, if it is a page or more */
	bool versioned;    /* give the entry a version that no other of this cache has: cache/update.h */
	uint64_t ttl_ns;   /* 0: never expires */
	uint64_t cost_ns;  /* time to create it again; 0: unknown */
};

/*
 * Takes a value. reserve() is told its size and returns where meta and bytes go (0, or non-zero to give up: the get then
 * returns DRP_REFUSED). It may be called more than once for one get, if a value was dropped while it was copied: the
 * last call counts. Values that lie in a log of entries (less than 32 KiB) are reserved and copied under the shard's
 * lock, so it must not block, nor call the cache. begin_copy and end_copy surround the copy of larger ones, without the
 * lock; both may be NULL.
 */
struct cache_sink {
	int (*reserve)(struct cache_sink *sink, uint8_t kind, size_t meta_bytes, size_t value_bytes, void **meta,
		       void **value);
	void (*begin_copy)(struct cache_sink *sink, size_t bytes);
	void (*end_copy)(struct cache_sink *sink);
};

/* A value in place. Holds the cache's memory alive, also after cache_close(). */
struct cache_pin {
	struct cache *cache;
	void *of;       /* private */
	unsigned shard; /* private */
	const void *value;
	size_t value_bytes;
};

/* GET_PIN_OWN: pin what was stored with own_pages. GET_PIN: pin whatever can be. */
enum cache_get_mode { GET_COPY, GET_PIN_OWN, GET_PIN };
enum cache_set_mode { SET_ALWAYS, SET_IF_ABSENT, SET_IF_PRESENT, SET_IF_SAME /* only for cache_update() */ };

/* What cache_get() tells of an entry. */
struct cache_about {
	uint64_t place;      /* this very entry, and no later one of its key */
	uint64_t expires_ns; /* by the cache's clock: see cache_remaining_ns(); 0: never */
	uint64_t version;    /* of an entry stored with item.versioned; 0: it has none */
	uint64_t cost_ns;    /* as it was stored */
};

int cache_create(const struct cache_config *config, struct cache **out);
/* Forgets everything and gives memory back, but for pins. Every later call but cache_unpin() answers DRP_CLOSED. */
void cache_close(struct cache *cache);
/* The creator's reference, and cache_close(); the memory of the cache itself goes with it and the last pin. */
void cache_unref(struct cache *cache);

/*
 * Looks a key up. Where mode allows it, the value is on pages of its own, and the backing can pin, *pin is filled (pin->
 * cache is NULL otherwise) and reserve() is called for the meta alone: value_bytes is 0 and value NULL. *about, if not NULL, is filled in
 * before reserve() is called, and counts if DRP_OK is returned.
 * DRP_MISS, DRP_CLOSED, DRP_REFUSED from reserve().
 */
int cache_get(struct cache *cache, const void *key, size_t key_bytes, enum cache_get_mode mode, struct cache_sink *sink,
	      struct cache_pin *pin, struct cache_about *about);
void cache_unpin(struct cache_pin *pin);
bool cache_unpin_quick(struct cache_pin *pin); /* the same, if that takes no system call; false: nothing was done */

/* 1 if a get would find it now, 0 if not, DRP_CLOSED. Counts nothing. */
int cache_contains(struct cache *cache, const void *key, size_t key_bytes);

/*
 * Stores a value, instead of the one that was there. DRP_REFUSED: no memory that could be dropped again is left for it, counted,
 * and the key is gone, but for SET_IF_ABSENT; DRP_TOO_LARGE, DRP_NO_MEMORY, DRP_EXISTS (SET_IF_ABSENT), DRP_MISS (SET_IF_PRESENT),
 * DRP_CLOSED: nothing changed. More conditions: cache/update.h.
 */
int cache_set(struct cache *cache, const void *key, size_t key_bytes, const struct cache_item *item,
	      enum cache_set_mode mode);

/* DRP_MISS: it was not there. place: only the entry that cache_get() found there; 0: any. Reject: it is of no use to the
 * caller, and the hit of that get becomes a miss. */
int cache_delete(struct cache *cache, const void *key, size_t key_bytes, uint64_t place);
int cache_reject(struct cache *cache, const void *key, size_t key_bytes, uint64_t place);

int cache_clear(struct cache *cache);

/*
 * Walks the keys. *cursor begins at 0; take() gets each key of one batch, outside of any lock. DRP_MISS at the end.
 * A key that is there during the whole walk is seen once at least; keys that come, go or move meanwhile may be missed.
 */
int cache_walk(struct cache *cache, uint64_t *cursor, int (*take)(void *context, const void *key, size_t key_bytes),
	       void *context);

/* Marks everything that can be: afterwards the kernel may take all but what is pinned. DRP_CLOSED. */
int cache_settle(struct cache *cache);

/*
 * Lets the kernel take a share of the cache's pages now, chosen by seed: 0.0 none to 1.0 all. No lock is held while
 * pages go, so it may run beside everything else. Pinned pages stay.
 */
struct cache_drop {
	uint64_t resident_pages; /* of the cache, before */
	uint64_t chosen_pages;   /* of those, asked for */
	uint64_t dropped_pages;  /* of those, gone */
};
int cache_drop(struct cache *cache, double share, uint64_t seed, struct cache_drop *out);

/* Moves this cache's clock forward, for tests of expiry. */
void cache_advance_clock(struct cache *cache, uint64_t ns);

#endif
