/*
 * reader.c - values of a cache in another process. See reader.h for the way from a key to its value.
 *
 * A read of /proc/PID/mem copies page by page of what is asked for, counted from where it begins. Within one copy a page comes
 * whole, or as zeros if it was dropped: the kernel holds the page meanwhile. A page that is read by two copies may go between
 * them. So what lies in one page is read by one call from where the entry begins, and what lies in several from the beginning of
 * the first page on.
 */
#include "client/reader.h"
#include "client/look.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "droppable.h"
#include "log/entry_small.h"
#include "log/place.h"
#include "log/segment.h"
#include "log/witness.h"
#include "os/hash.h"
#include "os/prim.h"
#include "os/prim_self.h"
#include "store/index_search.h"

enum {
	TRIES = 3,
	LIKELY_MOST_BYTES = 64 << 10, /* what is read of an entry before its length is known, at most */
	STACK_BYTES = 16 << 10,
};

int reader_open(struct reader *reader, int memory, int board, size_t board_bytes)
{
	const void *mapped;
	struct stat about;

	if (board_bytes < sizeof(struct board))
		return DRP_INVALID;
	const int status = prim_share_map(board, board_bytes, &mapped);
	if (status != DRP_OK)
		return status;
	const struct board *there = mapped;
	if (there->layout != BOARD_LAYOUT || there->page_bytes != prim_page_size() || there->bytes != board_bytes ||
	    there->shard_count == 0 || (there->shard_count & (there->shard_count - 1)) != 0 ||
	    (board_bytes - sizeof(*there)) / sizeof(there->shards[0]) < there->shard_count ||
	    there->sign_at > sizeof(there->sign) - sizeof(uint32_t) || there->sign_at % sizeof(uint32_t) != 0) {
		prim_share_unmap(mapped, board_bytes);
		return DRP_UNSUPPORTED;
	}
	if (fstat(memory, &about) != 0) {
		prim_share_unmap(mapped, board_bytes);
		return DRP_INVALID;
	}
	reader->places = calloc(READER_PLACES, sizeof(*reader->places));
	if (!reader->places) {
		prim_share_unmap(mapped, board_bytes);
		return DRP_NO_MEMORY;
	}
	reader->board = there;
	reader->board_bytes = board_bytes;
	reader->sign_at = there->sign_at;
	reader->memory = memory;
	reader->device = about.st_dev;
	reader->inode = about.st_ino;
	atomic_init(&reader->likely_bytes, READ_LEAST_BYTES);
	close(board);
	return DRP_OK;
}

void reader_close(struct reader *reader)
{
	struct stat about;

	prim_share_unmap(reader->board, reader->board_bytes);
	if (fstat(reader->memory, &about) == 0 && about.st_dev == reader->device && about.st_ino == reader->inode)
		close(reader->memory);
	free(reader->places);
	reader->places = NULL;
	reader->board = NULL;
	reader->memory = -1;
}

int look_read(const struct reader *reader, uint64_t address, void *to, size_t bytes, size_t *got)
{
	size_t done = 0;

	while (done < bytes) {
		prim_step();
		const ssize_t now = pread(reader->memory, (char *)to + done, bytes - done, (off_t)(address + done));
		if (now < 0 && errno == EINTR)
			continue;
		if (now == 0 && done == 0)
			return DRP_CLOSED; /* memory that has ended has no bytes, where a part that is not there is an error */
		if (now <= 0)
			break;
		done += (size_t)now;
	}
	if (got)
		*got = done;
	return done == bytes || (got && done > 0) ? DRP_OK : DRP_MISS;
}

uint64_t look_find_segment(struct look *look, uint32_t number, uint64_t serial, bool of_entries)
{
	const struct board_segment *cell = &look->board->segments[number % BOARD_SEGMENTS];
	prim_step();
	const uint64_t there = atomic_load_explicit(&cell->serial, memory_order_acquire);
	prim_step();
	const uint64_t place = atomic_load_explicit(&cell->place, memory_order_relaxed);

	if (there == 0 || (serial != 0 && there != serial) || ((uint32_t)there & look->reader->board->number_mask) != number ||
	    ((place & BOARD_KIND_MASK) == SEGMENT_ENTRIES) != of_entries)
		return 0;
	look->cells[look->cell_count] = cell;
	look->serials[look->cell_count++] = there;
	return place & ~(uint64_t)BOARD_KIND_MASK;
}

static bool owner_lives(const struct reader *reader)
{
	return prim_sign_stands(reader->board->sign, reader->sign_at);
}

bool look_still_stands(const struct look *look)
{
	prim_step();
	atomic_thread_fence(memory_order_seq_cst);
	for (unsigned i = 0; i < look->cell_count; i++)
		if (atomic_load_explicit(&look->cells[i]->serial, memory_order_relaxed) != look->serials[i])
			return false;
	prim_step();
	if (!owner_lives(look->reader))
		return false;
	return atomic_load_explicit(look->changes, memory_order_relaxed) == look->change &&
	       atomic_load_explicit(&look->board->shape, memory_order_relaxed) == look->shape;
}

/* Makes room for the entry's pages. What was read is to be read again. */
static bool make_room(struct look *look, size_t bytes)
{
	if (bytes <= look->capacity)
		return true;
	free(look->heap);
	look->bytes = look->heap = malloc(bytes);
	look->capacity = look->heap ? bytes : 0;
	return look->heap != NULL;
}

/*
 * Reads at least so many bytes of the entry: of one page from its start, of several from the beginning of the first. What is not
 * there is zeros.
 */
static int read_entry(struct look *look, uint64_t address, size_t bytes)
{
	const size_t page = prim_page_size(), start = look->start;
	const bool in_page = start + bytes <= page;
	const size_t from = in_page ? start : 0;
	const size_t end = in_page ? start + bytes : (start + bytes + page - 1) & ~(page - 1);
	size_t got;

	if (!make_room(look, end))
		return DRP_NO_MEMORY;
	const int status = look_read(look->reader, address - start + from, look->bytes + from, end - from, &got);
	if (status != DRP_OK)
		return status;
	memset(look->bytes + from + got, 0, end - from - got);
	look->end = end;
	/* What is taken for an entry's head has to be one: it says how much is read. */
	return look_still_stands(look) ? DRP_OK : STATUS_CHANGED;
}

/*
 * Copies the entry at an address, all of it, and opens the copy. DRP_MISS: it is not there. Stamps in the copy say so: each piece
 * came with its stamp.
 */
static int copy_entry(struct look *look, uint64_t address, uint32_t stamp, struct entry_reader *at, struct entry *entry)
{
	const size_t page_left = entry_page_left(look->start);
	const uint32_t likely = atomic_load_explicit(&look->reader->likely_bytes, memory_order_relaxed);
	struct entry_piece piece;
	size_t same;

	/* A short entry does not lead into the next page, so nothing more is read for it than is there. */
	int status = read_entry(look, address, likely <= page_left || likely <= READ_LEAST_BYTES
						       ? (likely < page_left ? likely : page_left) : likely);
	if (status != DRP_OK)
		return status;
	memcpy(&piece, look->bytes + look->start, sizeof(piece));
	if (piece.stamp != stamp)
		return DRP_MISS;
	size_t needed = (sizeof(piece) + piece.length + ENTRY_ALIGN - 1) & ~(size_t)(ENTRY_ALIGN - 1); /* as entry_place() ends */
	if (needed > page_left)
		return DRP_MISS;
	if (needed == page_left && !(piece.flags & ENTRY_SMALL)) {
		/* It may go on. Its lengths may lie in the next page, and say how many pages there are. */
		if (look->end < look->start + page_left + 1 && (status = read_entry(look, address, page_left + 1)) != DRP_OK)
			return status;
		if (!entry_open(look->bytes, ARENA_SEGMENT_MAX, look->start, stamp, at, entry))
			return DRP_MISS;
		needed = entry_place(look->start, entry->bytes, &same) - look->start;
	}
	if (look->start + needed > look->end && (status = read_entry(look, address, needed)) != DRP_OK)
		return status;
	if (likely != needed) /* a hint: whoever writes it last is as right as the others */
		atomic_store_explicit(&look->reader->likely_bytes,
				      needed < READ_LEAST_BYTES ? READ_LEAST_BYTES : needed < LIKELY_MOST_BYTES ? (uint32_t)needed
													       : LIKELY_MOST_BYTES,
				      memory_order_relaxed);
	if (!entry_open(look->bytes, look->end, look->start, stamp, at, entry) ||
	    !entry_intact(look->bytes, look->start, stamp, entry->bytes))
		return DRP_MISS;
	return DRP_OK;
}

/* A value on pages of its own: straight to where the caller wants it. */
static int copy_extent(struct look *look, struct entry_reader *at_meta, const struct entry *entry, struct cache_sink *sink)
{
	uint16_t on_stack[STACK_WITNESSES], *witnesses = on_stack;
	struct entry_reader at = *at_meta;
	struct entry_extent extent;
	void *meta = NULL, *value = NULL;
	int status = DRP_MISS;

	if (entry->inline_bytes < sizeof(extent))
		return DRP_MISS;
	entry_copy(&at, NULL, entry->meta_bytes);
	entry_copy(&at, &extent, sizeof(extent));
	const size_t witness_bytes = entry->inline_bytes - sizeof(extent), value_bytes = (size_t)extent.value_bytes;
	if (value_bytes == 0 || witness_count(value_bytes) * sizeof(*witnesses) > witness_bytes)
		return DRP_MISS;
	const uint64_t base = look_find_segment(look, (uint32_t)extent.segment & look->reader->board->number_mask, extent.segment, false);
	if (base == 0)
		return DRP_MISS;
	if (witness_bytes > sizeof(on_stack)) {
		witnesses = malloc(witness_bytes);
		if (!witnesses)
			return DRP_NO_MEMORY;
	}
	entry_copy(&at, witnesses, witness_bytes);
	if (at.lost)
		goto out;
	/* The way up to here is right before memory is taken for what may be nonsense. */
	if (!look_still_stands(look)) {
		status = STATUS_CHANGED;
		goto out;
	}
	if (sink->reserve(sink, entry->kind, entry->meta_bytes, value_bytes, &meta, &value) != 0) {
		status = DRP_REFUSED;
		goto out;
	}
	entry_copy(at_meta, meta, entry->meta_bytes);
	if (sink->begin_copy)
		sink->begin_copy(sink, value_bytes);
	status = look_read(look->reader, base + (uint64_t)extent.page * prim_page_size(), value, value_bytes, NULL);
	if (status == DRP_OK && !witness_intact(value, value_bytes, witnesses))
		status = DRP_MISS;
	if (sink->end_copy)
		sink->end_copy(sink);
out:
	if (witnesses != on_stack)
		free(witnesses);
	return status;
}

static int copy_value(struct look *look, struct entry_reader *at, const struct entry *entry, struct cache_sink *sink)
{
	void *meta = NULL, *value = NULL;

	if (entry->flags & ENTRY_EXTENT)
		return copy_extent(look, at, entry, sink);
	if (!look_still_stands(look))
		return STATUS_CHANGED;
	if (sink->reserve(sink, entry->kind, entry->meta_bytes, entry->inline_bytes, &meta, &value) != 0)
		return DRP_REFUSED;
	entry_copy(at, meta, entry->meta_bytes);
	entry_copy(at, value, entry->inline_bytes);
	return at->lost ? DRP_MISS : DRP_OK;
}

int look_take(struct look *look, struct entry_reader *at, const struct entry *entry, const void *key, size_t key_bytes,
	      struct cache_sink *sink)
{
	const struct board *board = look->reader->board;

	if (entry->key_bytes != key_bytes || !entry_match(at, key, key_bytes))
		return at->lost ? DRP_MISS : STATUS_OTHER_KEY;
	if ((entry->flags & ENTRY_TTL) &&
	    entry->expires_ns <= prim_now_coarse_ns() + atomic_load_explicit(&board->skew_ns, memory_order_relaxed))
		return DRP_MISS;
	const int copied = copy_value(look, at, entry, sink);
	return copied != DRP_OK || look_still_stands(look) ? copied : STATUS_CHANGED;
}

static int look_at_place(struct look *look, uint64_t place, const void *key, size_t key_bytes, struct cache_sink *sink)
{
	const uint32_t number = arena_place_number(place);
	const size_t page = prim_page_size(), offset = arena_place_offset(place);
	struct entry_reader at;
	struct entry entry;

	look->cell_count = 0;
	const uint64_t base = look_find_segment(look, number, 0, true);
	if (base == 0)
		return DRP_MISS; /* retired: the owner clears the slot when it comes by */
	look->start = offset % page;
	const int status = copy_entry(look, base + offset, arena_stamp(number), &at, &entry);
	if (status != DRP_OK)
		return status;
	if (look->version)
		*look->version = (struct reader_version){look->reader->board->secret[0], look->serials[0], place};
	return look_take(look, &at, &entry, key, key_bytes, sink);
}

int look_read_buckets(const struct reader *reader, uint64_t address, size_t home, uint64_t *page)
{
	enum { BUCKET_BYTES = INDEX_BUCKET_SLOTS * sizeof(uint64_t) };
	const size_t buckets = index_buckets_per_page();
	const size_t first = home + INDEX_REACH <= buckets ? INDEX_REACH : buckets - home;
	int status = look_read(reader, address + home * BUCKET_BYTES, page + home * INDEX_BUCKET_SLOTS, first * BUCKET_BYTES, NULL);

	if (status == DRP_OK && first < INDEX_REACH) /* it goes on at the front; one that went meanwhile only makes a miss */
		status = look_read(reader, address, page, (INDEX_REACH - first) * BUCKET_BYTES, NULL);
	return status;
}

static uint64_t check_of(uint64_t hash, uint64_t shape, uint64_t change, uint64_t place)
{
	return ((hash ^ shape * UINT64_C(0x9e3779b97f4a7c15)) + change * UINT64_C(0xbf58476d1ce4e5b9)) ^
	       place * UINT64_C(0x94d049bb133111eb);
}

static struct reader_place *place_of(const struct reader *reader, uint64_t hash)
{
	return &reader->places[(hash >> 16) % READER_PLACES];
}

void look_keep_place(const struct look *look, uint64_t hash, uint64_t place)
{
	struct reader_place *at = place_of(look->reader, hash);
	const uint64_t stripe = (uint64_t)(look->changes - look->board->changes), both = place | stripe << INDEX_PLACE_BITS;

	atomic_store_explicit(&at->hash, hash, memory_order_relaxed);
	atomic_store_explicit(&at->shape, look->shape, memory_order_relaxed);
	atomic_store_explicit(&at->change, look->change, memory_order_relaxed);
	atomic_store_explicit(&at->place, both, memory_order_relaxed);
	atomic_store_explicit(&at->check, check_of(hash, look->shape, look->change, both), memory_order_relaxed);
}

int look_begin(struct look *look, uint64_t hash, uint64_t *page_address)
{
	const struct board_shard *board = look->board;

	if (!owner_lives(look->reader))
		return DRP_CLOSED;
	look->cell_count = 0;
	look->shape = atomic_load_explicit(&board->shape, memory_order_acquire);
	prim_step();
	const uint64_t depth = atomic_load_explicit(&board->depth, memory_order_relaxed);
	if (look->shape % 2 != 0)
		return STATUS_CHANGED;
	if (depth > BOARD_DEPTH_MOST)
		return DRP_MISS;
	prim_step();
	*page_address = atomic_load_explicit(&board->directory[index_cell_at((unsigned)depth, hash)], memory_order_relaxed);
	if (*page_address == 0)
		return DRP_MISS;
	look->changes = &board->changes[board_stripe(*page_address, prim_page_size())];
	prim_step();
	look->change = atomic_load_explicit(look->changes, memory_order_acquire);
	return look->change % 2 != 0 ? STATUS_CHANGED : DRP_OK;
}

static int look_up(struct look *look, uint64_t hash, const void *key, size_t key_bytes, struct cache_sink *sink)
{
	uint64_t page[prim_page_size() / sizeof(uint64_t)], address;

	int status = look_begin(look, hash, &address);
	if (status != DRP_OK)
		return status;
	status = look_read_buckets(look->reader, address, index_home_of(hash), page);
	if (status != DRP_OK)
		return status;
	struct index_cursor cursor = {.hash = hash, .page = page, .has_page = true};
	while (index_next(NULL, &cursor)) {
		status = look_at_place(look, cursor.place, key, key_bytes, sink);
		if (status == DRP_OK)
			look_keep_place(look, hash, cursor.place);
		if (status != STATUS_OTHER_KEY)
			return status;
	}
	return DRP_MISS;
}

uint64_t look_remembered(struct look *look, uint64_t hash)
{
	const struct reader_place *at = place_of(look->reader, hash);
	const uint64_t both = atomic_load_explicit(&at->place, memory_order_relaxed);

	look->shape = atomic_load_explicit(&at->shape, memory_order_relaxed);
	look->change = atomic_load_explicit(&at->change, memory_order_relaxed);
	look->changes = &look->board->changes[both >> INDEX_PLACE_BITS & (BOARD_STRIPES - 1)];
	look->cell_count = 0;
	if (atomic_load_explicit(&at->hash, memory_order_relaxed) != hash ||
	    atomic_load_explicit(&at->check, memory_order_relaxed) != check_of(hash, look->shape, look->change, both) ||
	    !look_still_stands(look))
		return 0;
	return both & INDEX_PLACE_MASK;
}

int reader_get(struct reader *reader, const void *key, size_t key_bytes, struct cache_sink *sink)
{
	return reader_get_version(reader, key, key_bytes, sink, NULL);
}

int reader_get_version(struct reader *reader, const void *key, size_t key_bytes, struct cache_sink *sink,
		       struct reader_version *version)
{
	const uint64_t hash = hash_bytes(reader->board->secret, key, key_bytes);
	_Alignas(64) unsigned char on_stack[STACK_BYTES];
	struct look look = {.reader = reader, .board = &reader->board->shards[place_shard(hash, reader->board->shard_count)],
			    .bytes = on_stack, .capacity = sizeof(on_stack), .version = version};
	const uint64_t place = look_remembered(&look, hash);
	int status = place != 0 ? look_at_place(&look, place, key, key_bytes, sink) : DRP_MISS;
	if (status == DRP_MISS || status == STATUS_OTHER_KEY)
		status = STATUS_CHANGED;
	for (int tries = 0; tries < TRIES && status == STATUS_CHANGED; tries++)
		status = look_up(&look, hash, key, key_bytes, sink);
	free(look.heap);
	return status == STATUS_CHANGED ? DRP_MISS : status;
}
