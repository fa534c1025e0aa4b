/*
 * store/internal.h - what the files of store/, policy/ and cache/ share. Each says at its top what it does.
 *
 * Lock order: store/registry.c, graves of policy/unlock.c, shards by number, the ring's of store/deferred.c. Else a shard's lock is a leaf.
 */
#ifndef DRP_CACHE_INTERNAL_H
#define DRP_CACHE_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>

#include "log/arena.h"
#include "store/config.h"
#include "store/counts.h"
#include "store/leases.h"
#include "store/facts.h"
#include "store/reuse.h"
#include "store/shard.h"
#include "log/entry.h"
#include "store/index_mark.h"
#include "store/index_search.h"
#include "store/pins.h"

enum { SHARD_DIRTY_MOST = 128 /* pages of the index between two marks */ };
enum { MISSED_PLACES = 64 /* for keys that are computed again: policy/cost.h */ };

struct shard {
	pthread_mutex_t lock;
	uint64_t hits, saved_ns; /* here, so that the lock's cache line is all that a hit writes */
	_Atomic int64_t room_to_use_bytes; /* of the room that was read to be good until room_of_ns: policy/headroom.c */
	_Atomic uint64_t room_of_ns;
	pthread_cond_t pin_changed;
	struct arena arena;
	struct index index;
	struct pins pins;
	struct cache_stats counts; /* entries and bytes are kept here; hits, saved, mapped, pinned and lost are filled in when read */
	struct admission admission;
	struct reuse reuse;
	struct expiry expiry;
	size_t unmarked_extent_bytes[ARENA_PARTS]; /* appended since the log of entries was marked */
	size_t dirty_pages_most;  /* of the index, between two marks */
	uint64_t opened_bytes;    /* of segments, since policy/admission.c looked for signs that pages are taken */
	uint64_t span_cap_bytes, span_cap_until_ns; /* address space that there turned out to be, until then; 0: enough */
	uint64_t in_vain_until_ns; /* until then no others make room for a mapping of its own: it gained nothing */
	bool evicting_sparse, closed;
	bool marks_due; /* appended to since, a log may have a batch to mark: shard_mark() */
	uint64_t evicting_serial; /* of the segment that is emptied to keep max_bytes */
	uint64_t held_bytes;      /* as last added to the cache's */
	uint64_t newest_place;    /* of the entry that all this is for, and that stays; 0: none */
	unsigned audit_due; /* signs of drops since the last audit round began: policy/cleaner.c */
	uint32_t audit_round;
	bool auditing; /* some segments of this round are left */
	uint64_t audited_lost_pages;
	uint64_t seen_blind_losses, told_serial; /* segments before that one may have lost entries with a page of the index */
	size_t scrubbed_page;  /* the next one of this round through the index: shard_scrub() */
	uint64_t round_serial; /* those before were sealed when this round through the index began */
	bool emptied;          /* shard_retire_emptied() has something to do */
	uint64_t not_dropped;  /* of the entries that the index finds gone: they had expired, and are counted as that */
	size_t copy_budget_bytes; /* what the cleaner may relocate, and keep for another round: policy/cleaner.c */
	unsigned second_chances;
	uint64_t reclaim_serial; /* of the segment that policy/reclaim.c looks at next */
	struct leases leases;
	uint64_t missed[MISSED_PLACES]; /* hashes of keys that were looked up in vain, dropped or evicted; 0: none */
} __attribute__((aligned(128))); /* two cache lines: neighbours' locks do not fight */

struct cache {
	_Atomic uint32_t references;
	struct cache *registry_next, *registry_previous;
	struct cache_config config;
	uint64_t secret[2];
	_Atomic uint64_t skew_ns;
	_Atomic uint64_t expiry_look_ns; /* calls look for what expired from then on; UINT64_MAX: nothing ever does */
	unsigned shard_count;
	/* What inserts write, away from what all read. Room before the limit, as last read and used up: policy/headroom.c */
	_Atomic int64_t room_bytes __attribute__((aligned(128))), room_to_use_bytes, room_given_bytes;
	_Atomic uint64_t room_until_ns;
	_Atomic uint64_t last_version; /* that an entry was given: cache/update.h */
	_Atomic bool memory_is_free; /* as last read, at every level; false where nobody can tell */
	_Atomic uint64_t span_bytes; /* of one shard */
	_Atomic uint64_t held_bytes; /* by all shards; only kept where config.max_bytes is set: policy/evict.c */
	struct shard shards[];
};

/* Entries that are kept and not yet known to be gone; and those that were found dropped. */
static inline uint64_t shard_entries(const struct shard *shard)
{
	return shard->index.entries - shard->index.orphans;
}
static inline unsigned shard_number_of(const struct cache *cache, uint64_t hash)
{
	return place_shard(hash, cache->shard_count);
}
static inline struct shard *shard_of(struct cache *cache, uint64_t hash)
{
	struct shard *shard = &cache->shards[shard_number_of(cache, hash)];

	__asm__("" : "+r"(shard)); /* the compiler keeps the address, and does not work it out anew for each use */
	return shard;
}

/* Pages that are of no use to anybody: given back, or for the kernel to take. False: neither could be done. */
static inline bool give_up_pages(void *address, size_t bytes)
{
	return prim_purge(address, bytes) == DRP_OK || prim_mark(address, bytes) == DRP_OK;
}

/* Where a value of that many bytes of pages goes: among others, or alone. */
static inline enum segment_kind shard_extent_kind(const struct shard *shard, size_t length)
{
	return length > shard->arena.segment_bytes / 4 ? SEGMENT_WHOLE : SEGMENT_EXTENTS;
}

/* Signs of drops after which a round of the audit is due: dropped entries that were found, or a page of them (policy/cleaner.h). */
enum { AUDIT_DUE = 64 };
/* Did others go for the mapping of a large value a moment ago, without gain? Then none do. */
static inline bool shard_is_in_vain(const struct shard *shard)
{
	return shard->in_vain_until_ns != 0 && prim_now_coarse_ns() < shard->in_vain_until_ns;
}

#endif
