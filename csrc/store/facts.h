/*
 * store/facts.h - what the store notes of each shard for those who decide: policy/ reads it, and owes nothing to who notes.
 *
 *   an entry is appended     bytes since the start; when its segment is to be looked at for what expired
 *   pages are found dropped  budget
 *   pages come and go        what counts for max_bytes
 *
 * Callers: store/shard.c notes; the structures are the policies', under the shard's lock.
 */
#ifndef DRP_STORE_FACTS_H
#define DRP_STORE_FACTS_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct cache;
struct segment;
struct shard;

enum { BUDGET_FACTOR = 10 }; /* of the bytes that the kernel took: so many may leave for them, see policy/admission.c */

/* State of policy/admission.c. */
struct admission {
	uint64_t appended_bytes; /* since the start */
	uint64_t debt_bytes;   /* to be gone through for what was appended since */
	uint64_t budget_bytes; /* that may leave, for what the kernel was seen to have taken; none while memory is free */
	uint64_t free_bytes;   /* while SHORT: that came in since memory was last seen not to be free */
	uint64_t scrub_debt;
	uint64_t cost;         /* of what passed: running mean, nanoseconds to compute a KiB anew; 0: no cost was told */
	uint64_t examined_cost;  /* of what was examined: the same */
	uint64_t seen_hits;    /* at the last look */
	uint32_t quiet_looks;  /* without a hit since the one before, in a row */
	uint64_t sparse_serial;  /* of a segment that is to be emptied: policy/compact.c */
	uint64_t counted_serial; /* of the segment whose pages are to be counted next */
};

/* State of policy/expire.c. */
struct expiry {
	_Atomic uint64_t due_ns;  /* nothing of this shard is to be looked for before; UINT64_MAX: nothing expires */
	uint64_t rest_until_ns;   /* segments of which a part lives on are not gone through before */
	uint64_t serial;          /* of the segment that is gone through, */
	size_t cleaned;             /* how far, */
	uint64_t first_ns, last_ns; /* and when what was seen to live in it expires */
};

/* The kernel was found to have taken that much of this shard. */
void admission_note_dropped(struct shard *shard, size_t bytes);
void admission_note_appended(struct shard *shard, struct segment *segment, size_t bytes);

/* For which head of its log an entry is that expires then: where entries live about as long. 0 is for those that do not. */
unsigned expiry_life(struct cache *cache, uint64_t expires_ns);
/* An entry that expires was appended to a segment. */
void expiry_note_appended(struct cache *cache, struct shard *shard, struct segment *segment, uint64_t expires_ns);
/* When a segment is to be looked at. */
uint64_t expiry_due_of(const struct segment *segment);
void expiry_set_due(struct shard *shard, uint64_t due_ns);

/* What the shard holds is counted for the whole cache, where that has a bound. */
void cache_account(struct cache *cache, struct shard *shard);

#endif
