/*
 * cache_probation.h - what is new has to prove itself before it may take the place of what is in use.
 *
 * Callers: the files of the cache, under the shard's lock. cache_probation.c has the picture.
 */
#ifndef DRP_CACHE_PROBATION_H
#define DRP_CACHE_PROBATION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "arena.h"

struct cache;
struct shard;
struct found;

struct probation {
	uint64_t appended_bytes; /* since the start */
	uint64_t owed_bytes;   /* to be gone through for what was appended since */
	uint64_t credit_bytes; /* that may leave, for what the kernel was seen to have taken */
	uint64_t scrub_owed;
	uint64_t cost;         /* of what passed: running mean, nanoseconds to compute a KiB anew; 0: no cost was told */
	uint64_t judged_cost;  /* of what was judged: the same */
	uint64_t seen_hits;    /* at the last look */
	uint32_t quiet_looks;  /* without a hit since the one before, in a row */
	uint32_t scrubbed_page;
	uint64_t thin_serial;  /* of a segment that is to be emptied: cache_tidy.c */
	uint64_t counted_serial; /* of the segment whose pages are to be counted next */
	bool begun;            /* memory was found short at least once */
	bool judging;          /* what leaves now keeps its pages, which are to be written again */
};

/* Where a new entry goes that took cost_ns to compute (0: not told). */
enum arena_part probation_choose(struct shard *shard, uint64_t hash, uint64_t cost_ns, size_t bytes);
/* Is it far less dear than what is in the main log? */
bool probation_is_cheap(const struct shard *shard, uint64_t cost_ns, size_t bytes);

/* A segment is about to be opened, for that many bytes: looks for signs that the kernel takes pages of this cache. */
void probation_look(struct cache *cache, struct shard *shard, size_t bytes);

/* Goes through what has been on probation for long enough, in proportion to the bytes that were appended. */
void probation_judge(struct cache *cache, struct shard *shard, size_t appended_bytes);

/* An entry that the sweep came to: does it stay, and where? It takes that many bytes in the log. */
bool probation_passed(struct cache *cache, struct shard *shard, struct found *found, size_t bytes, enum arena_part *to);

void probation_note_appended(struct shard *shard, struct segment *segment, size_t bytes);
/* The kernel was found to have taken that much of this shard. */
void probation_note_dropped(struct shard *shard, size_t bytes);

#endif
