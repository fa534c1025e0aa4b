/*
 * cache_rewrite.c - places of dead values are written again.
 *
 *   memory is not short   value replaced, deleted, expired --> [ segment, page, pages ] x 32 --> the next of as many pages
 *                                                    '-- full: given back at once
 *   memory is short       value of the main log gone or dead --> given back --> x 256 holes --> the next of as many pages
 *
 * While memory is not short the pages stay: one that is there is written in a tenth of the time that a new one takes. They
 * are marked, so the kernel may have them at any time. Once it takes pages they go back, and what is left is address space
 * amid values that are in use: new pages there need no new segment, whose directory and page tables would outlive most
 * of its values.
 *
 * The place lies in its segment's directory still, under the new value's hash from then on. A segment that is retired takes
 * its places along.
 *
 * A reader that copies a value without the lock is a user of its segment, and sees pages that nobody writes: a segment that
 * has users is passed over.
 */
#include "cache_rewrite.h"

#include <string.h>

#include "cache_internal.h"

/* What the directory says of the value that begins at a page; NULL: its page of the directory is gone. */
static struct arena_extent *find_listed(struct segment *segment, size_t page)
{
	struct arena_extent *directory = arena_directory(segment);
	uint32_t low = 0, high = segment->extents;

	while (low < high) {
		const uint32_t middle = low + (high - low) / 2;
		if (directory[middle].stamp != arena_stamp(segment->number))
			return NULL;
		if (directory[middle].page == page)
			return &directory[middle];
		if (directory[middle].page < page)
			low = middle + 1;
		else
			high = middle;
	}
	return NULL;
}

bool rewrite_keep(struct shard *shard, struct segment *segment, size_t page, size_t pages)
{
	struct rewrite *rewrite = &shard->rewrite;

	if (shard->arena.purging || shard->making_space || rewrite->dead_count == REWRITE_EXTENTS)
		return false;
	rewrite->dead[rewrite->dead_count++] = (struct dead_extent){segment->serial, (uint32_t)page, (uint32_t)pages};
	segment->pages[page / 64].used &= ~(UINT64_C(1) << (page % 64));
	return true;
}

void rewrite_note_hole(struct shard *shard, const struct segment *segment, size_t page, size_t pages)
{
	struct rewrite *rewrite = &shard->rewrite;

	if (!shard->arena.purging || shard->making_space || segment->part != ARENA_MAIN)
		return;
	if (rewrite->hole_count == REWRITE_HOLES) { /* the older half: of sizes that nobody asks for */
		rewrite->hole_count /= 2;
		memmove(rewrite->holes, rewrite->holes + rewrite->hole_count, rewrite->hole_count * sizeof(*rewrite->holes));
	}
	rewrite->holes[rewrite->hole_count++] = (struct dead_extent){segment->serial, (uint32_t)page, (uint32_t)pages};
}

static void leave(struct dead_extent *list, unsigned *count, uint64_t serial)
{
	unsigned kept = 0;

	for (unsigned i = 0; i < *count; i++)
		if (list[i].segment != serial)
			list[kept++] = list[i];
	*count = kept;
}

void rewrite_leave(struct shard *shard, uint64_t serial)
{
	leave(shard->rewrite.dead, &shard->rewrite.dead_count, serial);
	leave(shard->rewrite.holes, &shard->rewrite.hole_count, serial);
}

void rewrite_mark(struct shard *shard)
{
	struct rewrite *rewrite = &shard->rewrite;

	for (unsigned i = 0; i < rewrite->directory_count; i++) {
		struct segment *segment = arena_find(&shard->arena, rewrite->directories[i]);
		if (!segment)
			continue;
		const size_t bytes = arena_directory_bytes(segment->length);
		(void)prim_mark(segment->base, bytes);
		prim_touch(segment->base, bytes);
	}
	rewrite->directory_count = 0;
}

static void note_written(struct shard *shard, const struct segment *segment)
{
	struct rewrite *rewrite = &shard->rewrite;

	if (segment->state == SEGMENT_OPEN) /* is marked when it is sealed */
		return;
	for (unsigned i = 0; i < rewrite->directory_count; i++)
		if (rewrite->directories[i] == segment->serial)
			return;
	if (rewrite->directory_count == REWRITE_DIRECTORIES)
		rewrite_mark(shard);
	rewrite->directories[rewrite->directory_count++] = segment->serial;
}

/* The newest place of a list that has as many pages and may be written, off the list. NULL: there is none. */
static struct arena_extent *take(struct shard *shard, struct dead_extent *list, unsigned *count, size_t pages,
				 struct segment **out)
{
	for (unsigned i = *count; i-- > 0;) {
		const struct dead_extent dead = list[i];
		if (dead.pages != pages)
			continue;
		struct segment *segment = arena_find(&shard->arena, dead.segment);
		if (segment->users > 0)
			continue;
		list[i] = list[--*count];
		struct arena_extent *listed = find_listed(segment, dead.page);
		if (listed) {
			*out = segment;
			return listed;
		}
	}
	return NULL;
}

bool rewrite_take(struct shard *shard, uint64_t hash, size_t pages, struct segment **out, size_t *page, bool *resident)
{
	struct rewrite *rewrite = &shard->rewrite;
	struct arena_extent *listed;

	if (shard->making_space)
		return false;
	*resident = !shard->arena.purging;
	listed = *resident ? take(shard, rewrite->dead, &rewrite->dead_count, pages, out)
			   : take(shard, rewrite->holes, &rewrite->hole_count, pages, out);
	if (!listed)
		return false;
	listed->hash = hash;
	note_written(shard, *out);
	if (!*resident)
		arena_note_written(&shard->arena, *out, pages);
	*page = listed->page;
	return true;
}
