/*
 * store/move.c - see store/move.h.
 */
#include "store/move.h"

#include <stdlib.h>
#include <string.h>

#include "os/hash.h"
#include "log/witness.h"

enum { STACK_KEY_BYTES = 512 };

bool shard_find_live(struct cache *cache, struct shard *shard, struct segment *segment, size_t start,
		     struct found *found)
{
	unsigned char on_stack[STACK_KEY_BYTES], *key = on_stack;
	const uint32_t stamp = arena_stamp(segment->number);
	const uint64_t place = arena_place(segment, start);
	bool live = false;

	found->segment = segment;
	found->offset = start;
	if (!shard_open_entry(found))
		return false;
	const size_t key_bytes = found->entry.key_bytes;
	if (key_bytes > segment->length)
		return false; /* the head was dropped while it was read */
	if (key_bytes > sizeof(on_stack)) {
		key = malloc(key_bytes);
		if (!key)
			return false;
	}
	entry_copy(&found->reader, key, key_bytes);
	if (!found->reader.lost && entry_intact(segment->base, start, stamp, found->entry.bytes))
		live = shard_find_place(shard, hash_bytes(cache->secret, key, key_bytes), place, &found->cursor);
	if (key != on_stack)
		free(key);
	return live;
}

int shard_move_entry_as(struct cache *cache, struct shard *shard, enum arena_part to, struct found *found,
			const struct entry *as, const struct entry_extent *extent)
{
	const size_t bytes = found->entry.key_bytes + found->entry.meta_bytes + found->entry.inline_bytes;
	const uint64_t old_place = found->cursor.place;
	const size_t old_bytes = found_end(found) - found->offset;
	const uint32_t stamp = arena_stamp(found->segment->number);
	struct found again = *found; /* whose reader goes on, while the caller needs the other where it stands */
	uint64_t place;
	const unsigned cpu = prim_cpu();
	int status = DRP_MISS;

	unsigned char *copy = malloc(bytes ? bytes : 1);
	if (!copy)
		return DRP_NO_MEMORY;
	if (!shard_open_entry(&again))
		goto out;
	entry_copy(&again.reader, copy, bytes);
	if (again.reader.lost || !entry_intact(found->segment->base, found->offset, stamp, found->entry.bytes) ||
	    prim_cpu() != cpu) /* then one may have seen the page that was dropped, and the other the stamp still */
		goto out;
	if (extent)
		memcpy(copy + found->entry.key_bytes + found->entry.meta_bytes, extent, sizeof(*extent));
	struct drp_part part = {copy, bytes};
	status = shard_append(cache, shard, to, as, &part, 1, &place);
	if (status != DRP_OK)
		goto out;
	/* Room for it may have been made with a look at the index, which found the page gone, or began it anew. */
	const bool is_named = shard_find_place(shard, found->cursor.hash, old_place, &found->cursor);
	if (!is_named || !index_replace(&shard->index, &found->cursor, place)) {
		/* The page of the index went: nothing leads to either of them, nor to their value. */
		struct entry_extent of;
		status = DRP_STALE;
		memcpy(&of, copy + found->entry.key_bytes + found->entry.meta_bytes,
		       found->entry.flags & ENTRY_EXTENT ? sizeof(of) : 0);
		if (found->entry.flags & ENTRY_EXTENT)
			shard_free_extent(cache, shard, &of, LEAVE_DROPPED, PAGES_REUSED);
		size_t start;
		const size_t offset = arena_place_offset(place);
		shard_leave_place(cache, shard, place, entry_place(offset, as->bytes, &start) - offset);
	}
	if (is_named) /* else its segment may have been told so at the end of a round: what it counts is never less than the truth */
		shard_leave_place(cache, shard, old_place, old_bytes);
	found->cursor.place = place;
out:
	free(copy);
	return status;
}

bool shard_move_entry(struct cache *cache, struct shard *shard, enum arena_part to, struct found *found,
		      const struct entry_extent *extent)
{
	const int status = shard_move_entry_as(cache, shard, to, found, &found->entry, extent);
	return status == DRP_OK || status == DRP_STALE;
}

bool shard_find_by_extent(struct shard *shard, uint64_t hash, uint64_t serial, uint32_t page,
			  struct found *found, struct entry_extent *extent)
{
	struct index_cursor cursor;

	index_find(&shard->index, hash, &cursor);
	while (index_next(&shard->index, &cursor)) {
		struct segment *segment = arena_segment(&shard->arena, arena_place_number(cursor.place));
		if (!segment || segment->kind != SEGMENT_ENTRIES)
			continue;
		found->cursor = cursor;
		found->segment = segment;
		found->offset = arena_place_offset(cursor.place);
		if (segment_is_dropped(segment, found->offset) || !shard_open_entry(found) || !(found->entry.flags & ENTRY_EXTENT))
			continue;
		/* Its key need not be compared: no other entry has this extent. */
		entry_copy(&found->reader, NULL, found->entry.key_bytes + found->entry.meta_bytes);
		if (shard_read_extent(found, extent) && extent->segment == serial && extent->page == page)
			return true;
	}
	return false;
}

bool range_is_resident(const unsigned char *address, size_t bytes)
{
	struct prim_census census;
	const size_t page = prim_page_size(), length = witness_count(bytes) * page;
	return prim_census(address, length, NULL, &census) == DRP_OK && census.absent_pages == 0;
}

bool shard_move_extent(struct cache *cache, struct shard *shard, struct segment *from, struct found *found,
		       const struct entry_extent *old, uint64_t hash, enum pages_fate fate)
{
	const size_t bytes = (size_t)old->value_bytes, count = witness_count(bytes);
	const unsigned char *source = from->base + (size_t)old->page * prim_page_size();
	const struct drp_part part = {source, bytes};
	struct segment *to;
	struct entry_extent extent;
	const unsigned cpu = prim_cpu();
	bool kept = false, resident;

	if (!range_is_resident(source, bytes))
		return false;
	uint16_t *witnesses = malloc(2 * count * sizeof(*witnesses));
	if (!witnesses)
		return false;
	entry_copy(&found->reader, witnesses + count, count * sizeof(*witnesses));
	if (shard_take_extent(cache, shard, ARENA_MAIN, hash, bytes, &to, &extent, &resident) != DRP_OK)
		goto out;
	unsigned char *target = to->base + (size_t)extent.page * prim_page_size();
	int written = witness_write(target, &part, 1, witnesses, cache->config.backing == PRIM_DROPPABLE);
	if (resident)
		prim_touch(target, count * prim_page_size());
	/* The same bytes have the same witnesses: those in the entry serve the copy, if the source was whole throughout. */
	kept = written == DRP_OK && !found->reader.lost && witness_intact(source, bytes, witnesses + count) &&
	       memcmp(witnesses, witnesses + count, count * sizeof(*witnesses)) == 0 && prim_cpu() == cpu &&
	       shard_move_entry(cache, shard, ARENA_MAIN, found, &extent);
	if (kept)
		shard_free_extent(cache, shard, old, LEAVE_REPLACED, fate);
	else
		shard_free_extent(cache, shard, &extent, LEAVE_DROPPED, PAGES_REUSED);
	arena_release(&shard->arena, to);
out:
	free(witnesses);
	return kept;
}

void shard_forget_extent(struct cache *cache, struct shard *shard, struct found *found,
			 const struct entry_extent *extent, enum leave why, enum pages_fate fate)
{
	shard_free_extent(cache, shard, extent, why, fate);
	shard_leave(cache, shard, &found->cursor, found_end(found) - found->offset, why);
}
