/*
 * policy/cleaner.h - segments are gone through, a step at a time: emptied, counted anew, brought together.
 *
 * Callers: the files of policy/ and cache/, under the shard's lock.
 */
#ifndef DRP_POLICY_CLEANER_H
#define DRP_POLICY_CLEANER_H

#include <stdbool.h>
#include <stddef.h>

struct cache;
struct segment;
struct shard;

enum clean_reason {
	CLEAN_EVICT, /* max_bytes is exceeded */
	CLEAN_REUSE, /* the segment is needed again */
	CLEAN_ADMIT, /* its entries waited in the small queue for long enough */
	CLEAN_COMPACT,  /* few of its entries live */
	CLEAN_EXPIRED, /* some expired; the others stay where they are */
};

/* A part of a segment of entries is gone through; at its end, a sealed one is retired. */
void shard_clean_entries(struct cache *cache, struct shard *shard, struct segment *segment, enum clean_reason reason);
/* The same for what expired; cleaned: how far. True: it came to the end, and the segment is there still. */
bool shard_clean_expired(struct cache *cache, struct shard *shard, struct segment *segment, size_t *cleaned);

/* Counts what is live in a segment of values anew, and retires it if that is nothing. */
void shard_audit_segment(struct cache *cache, struct shard *shard, struct segment *segment);
/* After signs of drops: that for some segments, in turn. */
void shard_audit(struct cache *cache, struct shard *shard, unsigned most);

/*
 * policy/census.c: counts the pages of a sealed segment that nobody uses. A value that lost some is forgotten; a segment
 * that lost all is retired.
 */
void shard_count_pages(struct cache *cache, struct shard *shard, struct segment *segment);

/* policy/compact.c: does an entry stand for a page or more, on average? */
bool shard_is_extent_backed(const struct shard *shard);
/* Notes a segment of such entries to be emptied, if few of them live; and takes a step in emptying what was noted. */
void shard_note_sparse(struct shard *shard, const struct segment *segment);
void shard_compact(struct cache *cache, struct shard *shard);

#endif
