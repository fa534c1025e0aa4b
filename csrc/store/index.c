/*
 * index.c - see index.h for the picture.
 *
 * A write to a droppable page has one order: store, then look at the guard. The page may have been dropped before the
 * store, which then made a page of zeros with one slot in it; and other processors may for a moment still see the old
 * page through stale translations. So a guard of 0 after a store means: give the page back (which also ends all stale
 * translations), begin it anew, store again; see index_stands.h. A reader that finds a slot needs no order: it is one word.
 * One that must be sure that there is none looks at the guard afterwards, too.
 */
#include "store/index.h"
#include "store/index_home.h"
#include "store/index_mark.h"
#include "store/index_search.h"
#include "store/index_stands.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "os/drp_assert.h"
#include "os/prim_end.h"
#include "droppable.h"
#include "log/place.h"

enum {
	MARK_RANGES = 64,
	MERGE_SHARE = 2, /* of a page's slots are taken at most when two become one */
	MAX_RETRIES = 4,
};

static void store(uint64_t *slot, uint64_t value)
{
	atomic_store_explicit((_Atomic uint64_t *)slot, value, memory_order_relaxed);
	prim_step();
}

/* Readers in other processes: the slots of this page are being changed. log/board.h says what they make of it. */
static void begin_change(struct index *index, uint32_t page_number)
{
	if (index->board)
		board_begin(&index->board->changes[board_stripe((uintptr_t)index_page_address(index, page_number), prim_page_size())]);
}

static void end_change(struct index *index, uint32_t page_number)
{
	if (index->board)
		board_end(&index->board->changes[board_stripe((uintptr_t)index_page_address(index, page_number), prim_page_size())]);
}

static void put(struct index *index, uint32_t page_number, uint64_t *slot, uint64_t value)
{
	begin_change(index, page_number);
	store(slot, value);
	end_change(index, page_number);
}

/* These cells of the directory have changed, or, if its depth has, all of them. */
static void tell_directory(struct index *index, size_t first, size_t count)
{
	struct board_shard *board = index->board;

	if (!board)
		return;
	board_begin(&board->shape);
	if (atomic_load_explicit(&board->depth, memory_order_relaxed) != index->depth) {
		atomic_store_explicit(&board->depth, index->depth, memory_order_relaxed);
		prim_step();
		first = 0;
		count = (size_t)1 << index->depth;
	}
	for (size_t i = first; i < first + count && index->depth <= BOARD_DEPTH_MOST; i++)
		atomic_store_explicit(&board->directory[i],
				      (uintptr_t)index_page_address(index, index->directory[i] & INDEX_PAGE_MASK), memory_order_relaxed);
	board_end(&board->shape);
}

/* Until it is told again, nobody reads the directory. */
static void hide_directory(struct index *index)
{
	if (!index->board)
		return;
	board_begin(&index->board->shape);
	atomic_store_explicit(&index->board->depth, BOARD_DEPTH_MOST + 1, memory_order_relaxed);
	board_end(&index->board->shape);
}

void index_publish(struct index *index, struct board_shard *board)
{
	index->board = board;
	hide_directory(index);
	tell_directory(index, 0, 0);
}

static uint64_t make_slot(uint64_t hash, unsigned distance, uint64_t place)
{
	return (hash >> INDEX_TAG_SHIFT) << INDEX_TAG_SHIFT | (uint64_t)distance << INDEX_DISTANCE_SHIFT | place;
}

/* Does the slot of a standing page name an entry? That of an evicted one does not. */
static bool names_entry(uint64_t slot)
{
	return index_has_entry(slot) && arena_place_number(slot & INDEX_PLACE_MASK) != 0;
}

/* Each change of a page's slots comes by here first. */
static void note_dirty(struct index *index, uint32_t page_number)
{
	index->changes++;
	if (!(index->states[page_number] & INDEX_PAGE_DIRTY)) {
		index->states[page_number] |= INDEX_PAGE_DIRTY;
		index->dirty_pages++;
	}
}

void index_note_all_dirty(struct index *index)
{
	for (size_t number = 0; number < index->page_count; number++)
		if (index->states[number] & INDEX_PAGE_USED)
			note_dirty(index, (uint32_t)number);
}

/* A page is gone, and its entries with it. Those that were known to be gone are taken to be among them. */
void index_note_lost(struct index *index, uint32_t page_number)
{
	const uint64_t live = index->live[page_number];

	DRP_ASSERT(index->entries >= live);
	index->changes++; /* who looked at it before must look again, even if he sees the old page still */
	begin_change(index, page_number); /* what its entries led to may be used for others from now on */
	end_change(index, page_number);
	index->states[page_number] |= INDEX_PAGE_LOST;
	index->live[page_number] = 0;
	index->lost_pages++;
	index->entries -= live;
	index->lost_entries += live;
	index->blind_losses += live;
	index->orphans -= live < index->orphans ? live : index->orphans;
}

/* True if the entry of a slot is gone for sure: it is counted off, and the slot may be used. */
static bool clear_if_stale(struct index *index, uint32_t page_number, uint64_t slot, bool scrub)
{
	if (!index->is_stale || !index_has_entry(slot))
		return false;
	if (!names_entry(slot))
		return true;
	const enum index_fate fate = index->is_stale(index->context, slot & INDEX_PLACE_MASK, scrub);
	if (fate == INDEX_STAYS)
		return false;
	DRP_ASSERT(index->live[page_number] > 0);
	index->live[page_number]--;
	index->entries--;
	index->lost_entries++;
	if (fate == INDEX_ORPHAN && index->orphans > 0) /* no more are known of than there are: see index_note_orphans() */
		index->orphans--;
	return true;
}

static void begin_page(struct index *index, uint32_t page_number)
{
	uint64_t *page = index_page_address(index, page_number);

	if ((index->states[page_number] & (INDEX_PAGE_USED | INDEX_PAGE_LOST)) == INDEX_PAGE_USED)
		index_note_lost(index, page_number);
	begin_change(index, page_number);
	/* One that was not used since the index was emptied is only there if it could not be given back then. */
	if (((index->states[page_number] & INDEX_PAGE_USED) || index_load(page) == INDEX_GUARD) && prim_purge(page, prim_page_size()) != DRP_OK)
		for (size_t i = 0; i < index_slots_per_page(); i++)
			store(&page[i], 0);
	index->states[page_number] = (unsigned char)((index->states[page_number] | INDEX_PAGE_USED) & ~INDEX_PAGE_LOST);
	note_dirty(index, page_number);
	store(page, INDEX_GUARD);
	end_change(index, page_number);
}

static int add_chunk(struct index *index)
{
	size_t chunks = index->chunk_count + 1;
	void *mapping;

	uint64_t **list = realloc(index->chunks, chunks * sizeof(*list));
	if (!list)
		return DRP_NO_MEMORY;
	index->chunks = list;
	unsigned char *states = realloc(index->states, chunks * INDEX_CHUNK_PAGES);
	if (!states)
		return DRP_NO_MEMORY;
	index->states = states;
	uint16_t *live = realloc(index->live, chunks * INDEX_CHUNK_PAGES * sizeof(*live));
	if (!live)
		return DRP_NO_MEMORY;
	index->live = live;
	int status = prim_map(index->backing, INDEX_CHUNK_PAGES * prim_page_size(), index->map_flags, &mapping);
	if (status != DRP_OK)
		return status;
	memset(states + index->chunk_count * INDEX_CHUNK_PAGES, 0, INDEX_CHUNK_PAGES);
	memset(live + index->chunk_count * INDEX_CHUNK_PAGES, 0, INDEX_CHUNK_PAGES * sizeof(*live));
	list[index->chunk_count] = mapping;
	index->chunk_count = chunks;
	return DRP_OK;
}

static int add_page(struct index *index, uint32_t *number)
{
	if (index->free_count > 0) {
		for (*number = 0; !(index->states[*number] & INDEX_PAGE_FREE);)
			++*number;
		index->states[*number] = 0;
		index->free_count--;
		return DRP_OK;
	}
	if (index->page_count == index->chunk_count * INDEX_CHUNK_PAGES) {
		int status = add_chunk(index);
		if (status != DRP_OK)
			return status;
	}
	*number = (uint32_t)index->page_count++;
	return DRP_OK;
}

int index_init(struct index *index, enum prim_backing backing, unsigned map_flags)
{
	uint32_t first;
	*index = (struct index){.backing = backing, .map_flags = map_flags, .deepest_count = 1,
				.pages_most = INDEX_PAGE_MASK};
	index->directory = calloc(1, sizeof(*index->directory));
	if (!index->directory)
		return DRP_NO_MEMORY;
	int status = add_page(index, &first);
	if (status != DRP_OK)
		index_destroy(index);
	return status;
}

static void end_chunk(uint64_t *chunk)
{
	prim_end(chunk, INDEX_CHUNK_PAGES * prim_page_size());
}

void index_destroy(struct index *index)
{
	for (size_t i = 0; i < index->chunk_count; i++)
		end_chunk(index->chunks[i]);
	DRP_ASSERT(!index->to_unmap.list);
	free(index->chunks);
	free(index->states);
	free(index->live);
	free(index->directory);
	*index = (struct index){0};
}

/* A slot for hash in a page: empty, tombstone, or one whose entry is gone for sure. NULL: all are taken. */
static uint64_t *free_slot(struct index *index, uint32_t number, uint64_t hash, unsigned *distance)
{
	uint64_t *page = index_page_address(index, number);
	const size_t home = index_home_of(hash), buckets = index_buckets_per_page();

	for (*distance = 0; *distance < INDEX_REACH; ++*distance) {
		uint64_t *bucket = page + ((home + *distance) & (buckets - 1)) * INDEX_BUCKET_SLOTS;
		for (unsigned i = 0; i < INDEX_BUCKET_SLOTS; i++) {
			uint64_t slot = index_load(&bucket[i]);
			if (slot != INDEX_GUARD && !index_has_entry(slot))
				return &bucket[i];
		}
		for (unsigned i = 0; i < INDEX_BUCKET_SLOTS; i++)
			if (clear_if_stale(index, number, index_load(&bucket[i]), false)) {
				/* Cleared whatever comes next: it is counted off. */
				put(index, number, &bucket[i], INDEX_TOMBSTONE);
				return &bucket[i];
			}
	}
	return NULL;
}

static int double_directory(struct index *index)
{
	size_t cells = (size_t)1 << index->depth;
	uint32_t *directory = malloc(2 * cells * sizeof(*directory));
	if (!directory)
		return DRP_NO_MEMORY;
	for (size_t i = 0; i < cells; i++)
		directory[2 * i] = directory[2 * i + 1] = index->directory[i];
	free(index->directory);
	index->directory = directory;
	index->depth++;
	index->deepest_count = 0;
	return DRP_OK;
}

/* Puts an old slot into a page under construction, at home if there is room. False: the buckets in reach are full. */
static bool rehome(uint64_t *page, uint64_t slot, size_t home)
{
	const size_t buckets = index_buckets_per_page();

	slot &= ~((uint64_t)(INDEX_REACH - 1) << INDEX_DISTANCE_SHIFT);
	for (unsigned distance = 0; distance < INDEX_REACH; distance++) {
		uint64_t *bucket = page + ((home + distance) & (buckets - 1)) * INDEX_BUCKET_SLOTS;
		for (unsigned i = 0; i < INDEX_BUCKET_SLOTS; i++)
			if (bucket[i] == 0) {
				bucket[i] = slot | (uint64_t)distance << INDEX_DISTANCE_SHIFT;
				return true;
			}
	}
	return false;
}

/* Splits the page of hash in two by the next bit of the tags. DRP_TOO_LARGE: the tags have no more bits. */
static int split(struct index *index, uint64_t hash)
{
	const size_t slots = index_slots_per_page(), buckets = index_buckets_per_page();
	const uint32_t cell = index->directory[index_cell_of(index, hash)];
	const uint32_t number = cell & INDEX_PAGE_MASK;
	const unsigned depth = cell >> INDEX_DEPTH_SHIFT;
	uint64_t *old = index_page_address(index, number), *halves;
	const unsigned cpu = prim_cpu();
	uint16_t live[2] = {0};
	uint32_t added;
	int status;

	if (depth == INDEX_TAG_BITS || index_pages(index) >= index->pages_most)
		return DRP_TOO_LARGE;
	halves = calloc(2 * slots, sizeof(*halves));
	if (!halves)
		return DRP_NO_MEMORY;
	if (depth == index->depth) {
		status = double_directory(index);
		if (status != DRP_OK)
			goto out_free;
	}
	status = add_page(index, &added);
	if (status != DRP_OK)
		goto out_free;

	halves[0] = halves[slots] = INDEX_GUARD; /* taken */
	/* Those at home first, so that they stay there; farther: which distances there are. What goes meanwhile is lost. */
	for (unsigned distance = 0, farther = 1; distance < INDEX_REACH; distance++) {
		if (!(farther >> distance & 1))
			continue;
		prim_step();
		for (size_t i = 1; i < slots; i++) {
			const uint64_t slot = index_load(&old[i]);
			const unsigned its_distance = slot >> INDEX_DISTANCE_SHIFT & (INDEX_REACH - 1);
			if (its_distance != distance) {
				farther |= 1u << its_distance;
				continue;
			}
			/* Seen for the scrubber's round: a page that is used again may lie where it came by already. */
			if (!index_has_entry(slot) || clear_if_stale(index, number, slot, true))
				continue;
			size_t home = (i / INDEX_BUCKET_SLOTS - distance) & (buckets - 1);
			const unsigned half = slot >> (63 - depth) & 1;
			/* A half holds a part of what the whole held; if others took its place nearer home, it is lost. */
			if (rehome(halves + half * slots, slot, home))
				live[half] += names_entry(slot);
		}
	}
	/* The cells of one page lie side by side: the lower half of them keeps it, the upper half takes the added one. */
	const size_t cells = (size_t)1 << (index->depth - depth);
	const size_t first = index_cell_of(index, hash) & ~(cells - 1);
	for (size_t i = 0; i < cells; i++)
		index->directory[first + i] = (i < cells / 2 ? number : added) | (depth + 1) << INDEX_DEPTH_SHIFT;

	if (depth + 1 == index->depth)
		index->deepest_count += 2;
	begin_page(index, added);
	/* What was lost of the old page while it was read is in no half, and neither will be what is lost from here on. */
	DRP_ASSERT(live[0] + live[1] <= index->live[number]);
	const unsigned lost = index->live[number] - live[0] - live[1];
	index->entries -= lost;
	index->lost_entries += lost;
	index->blind_losses += lost;
	index->orphans -= lost < index->orphans ? lost : index->orphans;
	index->live[number] = live[0];
	index->live[added] = live[1];
	begin_change(index, added);
	for (size_t i = 1; i < slots; i++)
		store(&index_page_address(index, added)[i], halves[slots + i]);
	end_change(index, added);
	/* The old page's guard is not written again: if the page went since it was read, the guard tells, below. */
	begin_change(index, number);
	for (size_t i = 1; i < slots; i++)
		store(&old[i], halves[i]);
	end_change(index, number);
	tell_directory(index, first, cells); /* the added page has nothing older in it by now */
	note_dirty(index, number);
	if (!index_page_stands(old, cpu))
		begin_page(index, number);
	if (!index_page_stands(index_page_address(index, added), cpu))
		begin_page(index, added);
out_free:
	free(halves);
	return status;
}

static unsigned depth_at(const struct index *index, size_t cell)
{
	return index->directory[cell] >> INDEX_DEPTH_SHIFT;
}

/* Half the cells, as long as no page needs all of them. */
static void halve_directory(struct index *index)
{
	while (index->deepest_count == 0) {
		const size_t cells = (size_t)1 << --index->depth;
		for (size_t i = 0; i < cells; i++) {
			index->directory[i] = index->directory[2 * i];
			index->deepest_count += depth_at(index, i) == index->depth;
		}
		/* Smaller than it is, it may stay where it is. */
		uint32_t *directory = realloc(index->directory, cells * sizeof(*directory));
		if (directory)
			index->directory = directory;
	}
}

/* What lives in a page, to a page under construction. False: there is no room for all of it, or the page was dropped. */
static bool gather(const struct index *index, uint32_t number, uint64_t *to, size_t *count)
{
	const size_t slots = index_slots_per_page(), buckets = index_buckets_per_page();
	uint64_t *page = index_page_address(index, number);
	const unsigned cpu = prim_cpu();

	if (!(index->states[number] & INDEX_PAGE_USED))
		return true; /* nothing was ever written there */
	for (unsigned distance = 0; distance < INDEX_REACH; distance++)
		for (size_t i = 1; i < slots; i++) {
			const uint64_t slot = index_load(&page[i]);
			if (!index_has_entry(slot) || (slot >> INDEX_DISTANCE_SHIFT & (INDEX_REACH - 1)) != distance)
				continue;
			if (++*count > slots / MERGE_SHARE || !rehome(to, slot, (i / INDEX_BUCKET_SLOTS - distance) & (buckets - 1)))
				return false;
		}
	return index_page_stands(page, cpu);
}

static void free_page(struct index *index, uint32_t number)
{
	DRP_ASSERT(index->live[number] == 0);
	if (index->states[number] & INDEX_PAGE_DIRTY)
		index->dirty_pages--;
	index->states[number] = INDEX_PAGE_FREE;
	index->free_count++;
	begin_change(index, number);
	/* What stays of it is written over when it is used again. */
	prim_best_effort(prim_purge(index_page_address(index, number), prim_page_size()));
	end_change(index, number);
}

/* What is gone leaves a page first; it may be all. */
static void ready(struct index *index, uint32_t number)
{
	if ((index->states[number] & INDEX_PAGE_USED) && !index_has_page(index, number))
		begin_page(index, number);
	index_scrub(index, number);
}

/* Slots of a page that name an entry: for assertions. */
__attribute__((unused)) static unsigned count_live(const uint64_t *page)
{
	unsigned count = 0;

	for (size_t i = 1; i < index_slots_per_page(); i++)
		count += names_entry(page[i]);
	return count;
}

/* Two pages whose hashes differ in their last bit become one. */
static void merge(struct index *index, size_t first, unsigned depth)
{
	const size_t slots = index_slots_per_page(), cells = (size_t)2 << (index->depth - depth);
	const uint32_t low = index->directory[first] & INDEX_PAGE_MASK, high = index->directory[first + cells / 2] & INDEX_PAGE_MASK;
	uint64_t *page = index_page_address(index, low), *merged;
	const unsigned cpu = prim_cpu();
	size_t count = 0;

	ready(index, low);
	ready(index, high);
	merged = calloc(slots, sizeof(*merged));
	if (!merged)
		return;
	merged[0] = INDEX_GUARD; /* taken */
	if (!gather(index, low, merged, &count) || !gather(index, high, merged, &count))
		goto out;
	if (!(index->states[low] & INDEX_PAGE_USED))
		begin_page(index, low);
	index->live[low] = (uint16_t)(index->live[low] + index->live[high]);
	index->live[high] = 0;
	DRP_ASSERT(index->live[low] == count_live(merged));
	begin_change(index, low);
	for (size_t i = 1; i < slots; i++)
		store(&page[i], merged[i]);
	end_change(index, low);
	note_dirty(index, low);
	for (size_t i = 0; i < cells; i++)
		index->directory[first + i] = low | (depth - 1) << INDEX_DEPTH_SHIFT;
	tell_directory(index, first, cells);
	if (!index_page_stands(page, cpu))
		begin_page(index, low);
	free_page(index, high);
	if (depth == index->depth)
		index->deepest_count -= 2;
	halve_directory(index);
	tell_directory(index, 0, 0); /* if its depth has changed */
out:
	free(merged);
}

void index_shrink(struct index *index)
{
	const size_t cell = index->shrink_cell & (((size_t)1 << index->depth) - 1);
	const unsigned depth = depth_at(index, cell);
	const size_t cells = (size_t)1 << (index->depth - depth), first = cell & ~(2 * cells - 1);

	if (depth == 0)
		return;
	index->shrink_cell = first + 2 * cells;
	if (depth_at(index, first) == depth && depth_at(index, first + cells) == depth)
		merge(index, first, depth);
}

int index_insert(struct index *index, uint64_t hash, uint64_t place, uint64_t *displaced)
{
	unsigned distance;
	uint64_t *slot = NULL;

	*displaced = 0;
	for (int tries = 0; tries < MAX_RETRIES + INDEX_TAG_BITS; tries++) {
		uint32_t number = index->directory[index_cell_of(index, hash)] & INDEX_PAGE_MASK;
		uint64_t *page = index_page_address(index, number);
		const unsigned cpu = prim_cpu();
		*displaced = 0;
		if (!index_has_page(index, number))
			begin_page(index, number);
		slot = free_slot(index, number, hash, &distance);
		if (!slot) {
			int status = split(index, hash);
			if (status == DRP_OK)
				continue;
			/* No more pages to be had: another entry makes room, which is a miss for it and no more. */
			distance = 0;
			slot = page + index_home_of(hash) * INDEX_BUCKET_SLOTS + 1 + hash % (INDEX_BUCKET_SLOTS - 1);
			if (names_entry(index_load(slot)))
				*displaced = index_load(slot) & INDEX_PLACE_MASK;
		}
		note_dirty(index, number);
		put(index, number, slot, make_slot(hash, distance, place));
		if (index_page_stands(page, cpu)) {
			index->live[number] += !*displaced;
			index->entries += !*displaced;
			return DRP_OK;
		}
		begin_page(index, number); /* and what was displaced was counted off with it */
	}
	*displaced = 0;
	return DRP_REFUSED; /* dropped again and again: a storm; the entry is not indexed */
}

bool index_home_insert(struct index *index, const struct index_home *home, uint64_t hash, uint64_t place)
{
	uint64_t *page = index_page_address(index, home->page_number);

	note_dirty(index, home->page_number);
	put(index, home->page_number, home->vacant, make_slot(hash, 0, place));
	if (!index_page_stands(page, home->cpu)) {
		begin_page(index, home->page_number);
		return false;
	}
	index->live[home->page_number]++;
	index->entries++;
	return true;
}

static bool change(struct index *index, struct index_cursor *cursor, uint64_t value)
{
	const unsigned cpu = prim_cpu();

	note_dirty(index, cursor->page_number);
	put(index, cursor->page_number, cursor->slot, value);
	if (index_page_stands(cursor->page, cpu))
		return true;
	begin_page(index, cursor->page_number);
	cursor->page_lost = true;
	cursor->has_page = false;
	return false;
}

/* The same, where the slot named an entry until now; names: it will. */
static bool change_entry(struct index *index, struct index_cursor *cursor, uint64_t value, bool names)
{
	if (!change(index, cursor, value))
		return false; /* counted off with its page */
	if (!names) {
		DRP_ASSERT(index->live[cursor->page_number] > 0 && index->entries > 0);
		index->live[cursor->page_number]--;
		index->entries--;
	}
	return true;
}

bool index_replace(struct index *index, struct index_cursor *cursor, uint64_t place)
{
	return change_entry(index, cursor, make_slot(cursor->hash, cursor->distance, place), arena_place_number(place) != 0);
}

bool index_erase(struct index *index, struct index_cursor *cursor)
{
	return change_entry(index, cursor, INDEX_TOMBSTONE, false);
}

void index_set_hot(struct index *index, struct index_cursor *cursor)
{
	if (!(index_load(cursor->slot) & INDEX_HOT_BIT))
		(void)change(index, cursor, index_load(cursor->slot) | INDEX_HOT_BIT);
}

bool index_is_hot(const struct index_cursor *cursor)
{
	return index_load(cursor->slot) & INDEX_HOT_BIT;
}

void index_hold(struct index *index)
{
	atomic_fetch_add_explicit(&index->users, 1, memory_order_relaxed);
}

void index_release(struct index *index)
{
	atomic_fetch_sub_explicit(&index->users, 1, memory_order_release);
}

/* All chunks but the first, which an empty index has too, are set aside. */
static void doom_chunks(struct index *index)
{
	/* Not while somebody is about to touch pages; nor where there is no memory for a list: they wait for new entries. */
	if (index->chunk_count == 1 || index->to_unmap.list || atomic_load_explicit(&index->users, memory_order_acquire) > 0)
		return;
	uint64_t **first = malloc(sizeof(*first));
	if (!first)
		return;
	*first = index->chunks[0];
	index->to_unmap = (struct index_chunks){index->chunks, index->chunk_count};
	index->chunks = first;
	index->chunk_count = 1;
}

void index_clear_stale(struct index *index, struct index_cursor *cursor)
{
	if (clear_if_stale(index, cursor->page_number, index_load(cursor->slot), false))
		(void)change(index, cursor, INDEX_TOMBSTONE);
}

void index_clear(struct index *index)
{
	if (index->chunk_count == 0)
		return; /* it ended already */
	hide_directory(index);
	doom_chunks(index);
	for (size_t i = 0; i < index->chunk_count; i++)
		/* A page that stays is begun anew when it is used again, whatever it has in it; until then the kernel may have it. */
		if (prim_purge(index->chunks[i], INDEX_CHUNK_PAGES * prim_page_size()) != DRP_OK)
			prim_best_effort(prim_mark(index->chunks[i], INDEX_CHUNK_PAGES * prim_page_size()));
	/* Smaller than they are, they may stay where they are. */
	unsigned char *states = realloc(index->states, index->chunk_count * INDEX_CHUNK_PAGES);
	if (states)
		index->states = states;
	memset(index->states, 0, index->chunk_count * INDEX_CHUNK_PAGES);
	uint32_t *directory = realloc(index->directory, sizeof(*directory));
	if (directory)
		index->directory = directory;
	index->directory[0] = 0;
	index->changes++;
	memset(index->live, 0, index->chunk_count * INDEX_CHUNK_PAGES * sizeof(*index->live));
	index->lost_entries += index->orphans;
	index->entries = index->orphans = 0;
	index->depth = 0;
	index->page_count = index->deepest_count = 1;
	index->free_count = index->dirty_pages = 0;
	tell_directory(index, 0, 0);
}

struct index_chunks index_take_unmaps(struct index *index)
{
	const struct index_chunks to_unmap = index->to_unmap;

	index->to_unmap = (struct index_chunks){0};
	return to_unmap;
}

void index_unmap(struct index_chunks to_unmap)
{
	for (size_t i = 1; i < to_unmap.count; i++) /* the first is in use */
		end_chunk(to_unmap.list[i]);
	free(to_unmap.list);
}

void index_chunk(const struct index *index, size_t number, void **address, size_t *bytes)
{
	*address = index->chunks[number];
	*bytes = INDEX_CHUNK_PAGES * prim_page_size();
}

void index_scrub(struct index *index, size_t page_number)
{
	const uint32_t number = (uint32_t)page_number;
	uint64_t *page = index_page_address(index, page_number);
	const unsigned cpu = prim_cpu();

	if (!index_has_page(index, number))
		return;
	for (size_t i = 1; i < index_slots_per_page(); i++)
		if (clear_if_stale(index, number, index_load(&page[i]), true)) {
			note_dirty(index, number);
			put(index, number, &page[i], INDEX_TOMBSTONE);
		}
	if (!index_page_stands(page, cpu))
		begin_page(index, number);
}

void index_note_orphans(struct index *index, uint64_t entries)
{
	index->orphans += entries;
	DRP_ASSERT(index->orphans <= index->entries);
}

size_t index_take_dirty(struct index *index, struct iovec *ranges, size_t most)
{
	const size_t page = prim_page_size();
	size_t count = 0;

	for (size_t first = 0; first < index->page_count && index->dirty_pages > 0 && count < most; first++) {
		if (!(index->states[first] & INDEX_PAGE_DIRTY))
			continue;
		/* A run of dirty pages within a chunk. A few clean ones between cost less than another range. */
		size_t end = first, last = first, chunk_end = (first / INDEX_CHUNK_PAGES + 1) * INDEX_CHUNK_PAGES;
		for (; end < chunk_end && end < index->page_count && end - last < 8; end++)
			if (index->states[end] & INDEX_PAGE_DIRTY) {
				index->states[end] &= (unsigned char)~INDEX_PAGE_DIRTY;
				index->dirty_pages--;
				last = end;
			}
		ranges[count++] = (struct iovec){index_page_address(index, first), (last - first + 1) * page};
		first = last;
	}
	if (count > 0)
		index_hold(index);
	return count;
}

int index_mark_taken(struct index *index, const struct iovec *ranges, size_t count)
{
	int status = prim_mark_ranges(ranges, count);
	for (size_t i = 0; i < count; i++)
		prim_touch(ranges[i].iov_base, ranges[i].iov_len);
	index_release(index);
	return status;
}

int index_mark(struct index *index)
{
	struct iovec ranges[MARK_RANGES];
	int status = DRP_OK;

	for (size_t count; (count = index_take_dirty(index, ranges, MARK_RANGES)) > 0;) {
		int result = index_mark_taken(index, ranges, count);
		status = result != DRP_OK ? result : status;
	}
	if (status != DRP_OK)
		index_note_all_dirty(index); /* which of them is not known */
	return status;
}

size_t index_list(struct index *index, uint32_t *prefix, uint64_t *places)
{
	const uint32_t cell = index->directory[*prefix >> (INDEX_TAG_BITS - index->depth)], from = *prefix;
	const unsigned depth = cell >> INDEX_DEPTH_SHIFT;
	uint64_t *page = index_page_address(index, cell & INDEX_PAGE_MASK);
	const unsigned cpu = prim_cpu();
	size_t count = 0;

	*prefix = ((from >> (INDEX_TAG_BITS - depth)) + 1) << (INDEX_TAG_BITS - depth);
	if (!index_has_page(index, cell & INDEX_PAGE_MASK))
		return 0;
	for (size_t i = 1; i < index_slots_per_page(); i++) {
		const uint64_t slot = index_load(&page[i]);
		if (index_has_entry(slot) && slot >> INDEX_TAG_SHIFT >= from)
			places[count++] = slot & INDEX_PLACE_MASK;
	}
	if (!index_page_stands(page, cpu)) /* what is not listed must be gone */
		index_note_lost(index, cell & INDEX_PAGE_MASK);
	return count;
}
