/*
 * reader_many.c - many keys of a cache in another process, in fewer reads than keys.
 *
 *   keys --remembered--> places -------------------------------------------------------------.
 *     '--directory--> pages of the index, in their order --a read each--> slots ---> places, in their order
 *                                                                                            |
 *   |....e1..e2...|......e3.....|   |...e4...|   pages of entries: those that lie side by side are one read
 *
 * A call of the system costs more than what it copies of a page. So what two keys need of a page is read once, and not what lies
 * between two pages that no key needs.
 *
 * reader.c says why an entry has to come from where it begins, or from the beginning of its page on.
 */
#include "client/reader.h"
#include "client/look.h"

#include <stdlib.h>
#include <string.h>

#include "droppable.h"
#include "log/place.h"
#include "os/hash.h"
#include "os/prim.h"
#include "store/index_search.h"

enum { RUN_PAGES = 16 /* are read at once, at most */ };

/* One key on its way. */
struct spot {
	struct look look;
	uint64_t hash, place;
	uint64_t address; /* of its page of the index, and later of its entry */
	bool remembered;
	struct reader_wanted *wanted;
};

struct batch {
	struct reader *reader;
	unsigned char *buffer; /* of RUN_PAGES */
	struct spot *sorted[READER_MANY_MOST];
	size_t count;          /* of those that are sorted by their address */
	struct spot spots[READER_MANY_MOST];
};

static void add(struct batch *batch, struct spot *spot)
{
	size_t at = batch->count++;

	/* Often they come in order. */
	for (; at > 0 && batch->sorted[at - 1]->address > spot->address; at--)
		batch->sorted[at] = batch->sorted[at - 1];
	batch->sorted[at] = spot;
}

static uint64_t page_of(uint64_t address)
{
	return address & ~(uint64_t)(prim_page_size() - 1);
}

/* The keys from here on that have the same page of the index. */
static size_t count_same(const struct batch *batch, size_t first)
{
	size_t end = first + 1;

	while (end < batch->count && batch->sorted[end]->address == batch->sorted[first]->address)
		end++;
	return end - first;
}

static void search(struct spot *spot, uint64_t *page)
{
	struct index_cursor cursor = {.hash = spot->hash, .page = page, .has_page = true};

	if (index_next(NULL, &cursor)) {
		spot->place = cursor.place;
		spot->wanted->status = DRP_OK;
	}
}

/* Places of the keys that are not remembered. */
static void read_index(struct batch *batch)
{
	uint64_t *page = (uint64_t *)(void *)batch->buffer;

	for (size_t i = 0, same; i < batch->count; i += same) {
		const struct spot *spot = batch->sorted[i];
		same = count_same(batch, i);
		const int status = same == 1 ? look_read_buckets(batch->reader, spot->address, index_home_of(spot->hash), page)
					     : look_read(batch->reader, spot->address, page, prim_page_size(), NULL);
		for (size_t k = i; k < i + same; k++) {
			batch->sorted[k]->wanted->status = status == DRP_OK ? DRP_MISS : status;
			if (status == DRP_OK)
				search(batch->sorted[k], page);
		}
	}
	batch->count = 0;
}

static void begin(struct batch *batch, struct spot *spot, struct reader_wanted *wanted)
{
	const struct board *board = batch->reader->board;
	const uint64_t hash = hash_bytes(board->secret, wanted->key, wanted->key_bytes);

	spot->wanted = wanted;
	spot->hash = hash;
	spot->look = (struct look){.reader = batch->reader, .board = &board->shards[place_shard(hash, board->shard_count)]};
	spot->place = look_remembered(&spot->look, hash);
	spot->remembered = spot->place != 0;
	wanted->status = DRP_OK;
	if (spot->remembered)
		return;
	const int status = look_begin(&spot->look, hash, &spot->address);
	wanted->status = status == STATUS_CHANGED ? READER_ALONE : status;
	if (status == DRP_OK)
		add(batch, spot);
}

/* Where the entry lies, if its segment is there. */
static void find_entry(struct batch *batch, struct spot *spot)
{
	const uint64_t base = look_find_segment(&spot->look, arena_place_number(spot->place), 0, true);

	spot->address = base + arena_place_offset(spot->place);
	if (base != 0)
		add(batch, spot);
	else
		spot->wanted->status = DRP_MISS;
}

/* The keys from here on whose entries begin in the same page, or in one that lies next to that of the one before. */
static size_t count_run(const struct batch *batch, size_t first)
{
	const uint64_t first_page = page_of(batch->sorted[first]->address);
	uint64_t last_page = first_page;
	size_t end = first + 1;

	for (; end < batch->count; end++) {
		const uint64_t page = page_of(batch->sorted[end]->address);
		if (page - last_page > prim_page_size() || page - first_page >= (uint64_t)RUN_PAGES * prim_page_size())
			break;
		last_page = page;
	}
	return end - first;
}

/* Takes the value of a key from pages that were read: as reader.c's copy_entry() does with what it has read for one. */
static void take(struct batch *batch, struct spot *spot, uint64_t first_page, size_t end)
{
	const size_t start = (size_t)(spot->address - first_page);
	const uint32_t stamp = arena_stamp(arena_place_number(spot->place));
	struct reader_wanted *wanted = spot->wanted;
	struct look *look = &spot->look;
	struct entry_reader at;
	struct entry entry;

	wanted->status = READER_ALONE;
	/* What is taken for an entry has to be one: all that stands in it is believed. */
	if (!look_still_stands(look) || !entry_open(batch->buffer, end, start, stamp, &at, &entry) ||
	    !entry_intact(batch->buffer, start, stamp, entry.bytes) || (entry.flags & ENTRY_EXTENT))
		return;
	const int status = look_take(look, &at, &entry, wanted->key, wanted->key_bytes, wanted->sink);
	if (status == STATUS_CHANGED || status == STATUS_OTHER_KEY)
		return;
	wanted->status = status;
	if (status == DRP_OK && !spot->remembered)
		look_keep_place(look, spot->hash, spot->place);
}

static void read_entries(struct batch *batch)
{
	const size_t page = prim_page_size();
	size_t likely = atomic_load_explicit(&batch->reader->likely_bytes, memory_order_relaxed);

	for (size_t i = 0, run; i < batch->count; i += run) {
		run = count_run(batch, i);
		const uint64_t first = batch->sorted[i]->address, last = batch->sorted[i + run - 1]->address;
		const uint64_t first_page = page_of(first), from = page_of(last) == first_page ? first : first_page;
		const size_t left = page - (size_t)(last - page_of(last));
		const size_t start = (size_t)(from - first_page), end = (size_t)(last - first_page) + (likely < left ? likely : left);
		size_t got = 0;
		const int status = look_read(batch->reader, from, batch->buffer + start, end - start, &got);
		if (status == DRP_OK)
			memset(batch->buffer + start + got, 0, end - start - got);
		for (size_t k = i; k < i + run; k++) {
			if (status == DRP_OK)
				take(batch, batch->sorted[k], first_page, end);
			else
				batch->sorted[k]->wanted->status = status;
		}
	}
	batch->count = 0;
}

void reader_get_many(struct reader *reader, struct reader_wanted *wanted, size_t count)
{
	struct batch batch;

	batch.reader = reader;
	batch.count = 0;
	batch.buffer = aligned_alloc(64, RUN_PAGES * prim_page_size());
	for (size_t i = 0; i < count; i++)
		if (batch.buffer)
			begin(&batch, &batch.spots[i], &wanted[i]);
		else
			wanted[i].status = READER_ALONE;
	if (!batch.buffer)
		return;
	read_index(&batch);
	for (size_t i = 0; i < count; i++)
		if (wanted[i].status == DRP_OK)
			find_entry(&batch, &batch.spots[i]);
	read_entries(&batch);
	free(batch.buffer);
}
