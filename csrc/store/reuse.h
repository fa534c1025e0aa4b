/*
 * store/reuse.h - places of dead values are written again. store/reuse.c has the picture.
 *
 * Callers: store/shard.c and policy/admission.c, under the shard's lock.
 */
#ifndef DRP_STORE_REUSE_H
#define DRP_STORE_REUSE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct shard;
struct segment;

enum { REUSE_RESIDENT = 32, REUSE_ABSENT = 256, REUSE_DIRECTORIES = 8 };

struct free_extent { /* pages of a segment of the main log that hold no value */
	uint64_t segment; /* its serial */
	uint32_t page, pages;
};

struct reuse {
	struct free_extent resident[REUSE_RESIDENT]; /* the dead value's pages are still there, marked */
	struct free_extent absent[REUSE_ABSENT];     /* without pages */
	unsigned resident_count, absent_count;
	uint64_t directories[REUSE_DIRECTORIES]; /* serials of segments whose directory was written and is not marked yet */
	unsigned directory_count;
};

/* A value of these pages died, which were all there. True: they stay; false: the caller gives them back. */
bool reuse_keep(struct shard *shard, struct segment *segment, size_t page, size_t pages);
/* These pages were given back. */
void reuse_note_absent(struct shard *shard, const struct segment *segment, size_t page, size_t pages);
/* On how many pages that stayed dead values lie; and gives those of one value back. False: there is none. */
size_t reuse_free_pages(const struct reuse *reuse);
bool reuse_give_back(struct shard *shard);
/*
 * A free place of as many pages, for a value whose key has that hash. *resident: its pages are there. False: there is none.
 */
bool reuse_take(struct shard *shard, uint64_t hash, size_t pages, struct segment **segment, size_t *page, bool *resident);
/* A segment is retired: its places go with it. */
void reuse_leave(struct shard *shard, uint64_t serial);
/* Marks the directories that were written. */
void reuse_mark(struct shard *shard);

#endif
