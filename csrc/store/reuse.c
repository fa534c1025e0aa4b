/*
 * store/reuse.c - places of dead values are written again.
 *
 *   a value of the main log died --memory is free, 31 others at most--> resident: its pages stay, marked --.
 *        |                                                                 |                              '--> the next value
 *        |                                                    memory is short: given back, one a set           of as many
 *        |                                                                 v                              .--> pages
 *        '--else, and where pages of it were lost: all given back ------> absent: 256 at most -------------'
 *
 * While memory is free the pages stay: to write pages that are there takes a tenth of the time that new ones take. They are
 * marked, so the kernel may have them at any time. While memory is short the pages go back, and what is left is address
 * space amid values that are in use: new pages there need no new segment, whose directory and page tables would outlive most
 * of its values.
 *
 * A value that lost a page is never kept as resident. Who writes such a place touches it afterwards, so that pages which
 * stood there for long do not look unused; pages that were new would be touched too, and look used to reclaim before anybody
 * has asked for them.
 *
 * The place lies in its segment's directory still, under the new value's hash from then on. A segment that is retired takes
 * its places along. In the small queue no place is written again: part of its segment may have been examined already, and a value
 * there would go with the segment, unseen.
 *
 * A reader that copies a value without the lock is a user of its segment, and sees pages that nobody writes: a segment that
 * has users is passed over.
 */
#include "store/reuse.h"

#include <string.h>

#include "store/internal.h"
#include "os/drp_assert.h"

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

bool reuse_keep(struct shard *shard, struct segment *segment, size_t page, size_t pages)
{
	struct reuse *reuse = &shard->reuse;

	if (shard->arena.memory_is_short || segment->part != ARENA_MAIN || reuse->resident_count == REUSE_RESIDENT)
		return false;
	reuse->resident[reuse->resident_count++] =
		(struct free_extent){segment->serial, (uint32_t)page, (uint32_t)pages};
	segment->pages[page / 64].referenced &= ~(UINT64_C(1) << (page % 64));
	return true;
}

size_t reuse_free_pages(const struct reuse *reuse)
{
	size_t pages = 0;

	for (unsigned i = 0; i < reuse->resident_count; i++)
		pages += reuse->resident[i].pages;
	return pages;
}

void reuse_note_absent(struct shard *shard, const struct segment *segment, size_t page, size_t pages)
{
	struct reuse *reuse = &shard->reuse;

	if (segment->part != ARENA_MAIN)
		return;
	if (reuse->absent_count == REUSE_ABSENT) { /* forgets the older half: of sizes that nobody asks for */
		reuse->absent_count /= 2;
		memmove(reuse->absent, reuse->absent + reuse->absent_count,
			reuse->absent_count * sizeof(*reuse->absent));
	}
	reuse->absent[reuse->absent_count++] = (struct free_extent){segment->serial, (uint32_t)page, (uint32_t)pages};
}

bool reuse_give_back(struct shard *shard)
{
	struct reuse *reuse = &shard->reuse;
	const size_t page = prim_page_size();

	if (reuse->resident_count == 0)
		return false;
	const struct free_extent dead = reuse->resident[--reuse->resident_count];
	struct segment *segment = arena_find(&shard->arena, dead.segment);
	DRP_ASSERT(segment && segment->part == ARENA_MAIN);
	if (prim_purge(segment->base + dead.page * page, dead.pages * page) != DRP_OK)
		return true; /* they are marked: the kernel takes them; the place is found again when its segment is retired */
	arena_note_purged(&shard->arena, segment, dead.pages);
	arena_note_given_back(&shard->arena, segment, dead.pages);
	reuse_note_absent(shard, segment, dead.page, dead.pages);
	return true;
}

static void leave(struct free_extent *list, unsigned *count, uint64_t serial)
{
	unsigned kept = 0;

	for (unsigned i = 0; i < *count; i++)
		if (list[i].segment != serial)
			list[kept++] = list[i];
	*count = kept;
}

void reuse_leave(struct shard *shard, uint64_t serial)
{
	leave(shard->reuse.resident, &shard->reuse.resident_count, serial);
	leave(shard->reuse.absent, &shard->reuse.absent_count, serial);
}

void reuse_mark(struct shard *shard)
{
	struct reuse *reuse = &shard->reuse;
	unsigned kept = 0;

	for (unsigned i = 0; i < reuse->directory_count; i++) {
		const uint64_t serial = reuse->directories[i];
		struct segment *segment = arena_find(&shard->arena, serial);
		if (!segment)
			continue;
		const size_t bytes = arena_directory_bytes(segment->length);
		if (prim_mark(segment->base, bytes) == DRP_OK)
			prim_touch(segment->base, bytes);
		else
			reuse->directories[kept++] = serial; /* not droppable yet: with the next ones */
	}
	reuse->directory_count = kept;
}

static void note_written(struct shard *shard, const struct segment *segment)
{
	struct reuse *reuse = &shard->reuse;

	if (segment->state == SEGMENT_OPEN) /* is marked when it is sealed */
		return;
	for (unsigned i = 0; i < reuse->directory_count; i++)
		if (reuse->directories[i] == segment->serial)
			return;
	if (reuse->directory_count == REUSE_DIRECTORIES)
		reuse_mark(shard);
	if (reuse->directory_count == REUSE_DIRECTORIES) /* none could be marked: the oldest stays as it is, some pages */
		memmove(reuse->directories, reuse->directories + 1,
			--reuse->directory_count * sizeof(reuse->directories[0]));
	reuse->directories[reuse->directory_count++] = segment->serial;
}

/* The newest place of a list that has as many pages and may be written, off the list. NULL: there is none. */
static struct arena_extent *take(struct shard *shard, struct free_extent *list, unsigned *count, size_t pages,
				 struct segment **out)
{
	for (unsigned i = *count; i-- > 0;) {
		const struct free_extent place = list[i];
		if (place.pages != pages)
			continue;
		struct segment *segment = arena_find(&shard->arena, place.segment);
		DRP_ASSERT(segment && segment->part == ARENA_MAIN);
		if (segment->users > 0)
			continue;
		list[i] = list[--*count];
		struct arena_extent *listed = find_listed(segment, place.page);
		if (listed) {
			*out = segment;
			return listed;
		}
	}
	return NULL;
}

bool reuse_take(struct shard *shard, uint64_t hash, size_t pages, struct segment **out, size_t *page, bool *resident)
{
	struct reuse *reuse = &shard->reuse;
	struct arena_extent *listed;

	listed = take(shard, reuse->resident, &reuse->resident_count, pages, out);
	*resident = listed != NULL;
	if (!listed)
		listed = take(shard, reuse->absent, &reuse->absent_count, pages, out);
	if (!listed)
		return false;
	listed->hash = hash;
	note_written(shard, *out);
	if (!*resident) {
		arena_note_written(&shard->arena, *out, pages);
		arena_note_held(&shard->arena, *out, pages);
	}
	*page = listed->page;
	return true;
}
