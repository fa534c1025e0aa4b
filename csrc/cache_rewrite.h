/*
 * cache_rewrite.h - places of dead values are written again. cache_rewrite.c has the picture.
 *
 * Callers: cache_shard.c, under the shard's lock.
 */
#ifndef DRP_CACHE_REWRITE_H
#define DRP_CACHE_REWRITE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct shard;
struct segment;

enum { REWRITE_EXTENTS = 32, REWRITE_HOLES = 256, REWRITE_DIRECTORIES = 8 };

struct dead_extent {
	uint64_t segment; /* its serial */
	uint32_t page, pages;
};

struct rewrite {
	struct dead_extent dead[REWRITE_EXTENTS]; /* resident */
	struct dead_extent holes[REWRITE_HOLES];  /* given back */
	unsigned dead_count, hole_count;
	uint64_t directories[REWRITE_DIRECTORIES]; /* serials of segments whose directory was written and is not marked yet */
	unsigned directory_count;
};

/* A value of these pages died. True: they stay as they are; false: the caller gives them back, then notes the hole. */
bool rewrite_keep(struct shard *shard, struct segment *segment, size_t page, size_t pages);
void rewrite_note_hole(struct shard *shard, const struct segment *segment, size_t page, size_t pages);
/* The place of a dead value, for one of as many pages, whose key has that hash. False: there is none. */
bool rewrite_take(struct shard *shard, uint64_t hash, size_t pages, struct segment **segment, size_t *page, bool *resident);
/* A segment is retired: its places go with it. */
void rewrite_leave(struct shard *shard, uint64_t serial);
/* Marks the directories that were written. */
void rewrite_mark(struct shard *shard);

#endif
