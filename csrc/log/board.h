/*
 * board.h - what readers in other processes go by: where pages of the index and segments of the log lie, and what of it changed.
 *
 *   struct board          made by the owner, in shared memory that everybody else can only read
 *     shard 0: shape  |depth|directory: hash's top bits -> address of a page of the index
 *              changes[256]  of pages of the index, by their address
 *              segments[]    number -> serial, address | kind
 *     shard 1: ...
 *
 *   reader:  shape, changes, serial --> read the bucket, the entry, the value from the owner's memory --> the same three once more
 *
 * What the reader has copied is the key's value if all three are what they were, and are no odd numbers, and the owner lives:
 *
 *   shape     the directory led to the page of the hash all the time
 *   changes   no slot of that page was written. A page that was found dropped counts as written
 *   serial    the segment was that segment all the time. Nothing in it is ever written twice: an entry stays as it was appended
 *             until its segment is retired, and the pages of a value until their entry's slot has changed
 *
 *   sign      the kernel takes it away when the owner ends. Its memory may stay for others to read, for any time, while another owner
 *             has newer values of the same keys
 *
 * So a value is read as it was at one moment between the two looks. What changes is told before and after, under the lock of the
 * shard; pages of values are given to others only later. None of these numbers comes twice: they have 64 bits, and count up.
 *
 * What is not told is what the kernel takes: that reads as zeros, and stamps and witnesses in the copy show it, as they do in place.
 *
 * Callers: arena and index write it, under the lock of the shard; client/reader.c reads it; cache/publish.c makes it.
 */
#ifndef DRP_BOARD_H
#define DRP_BOARD_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "os/drp_assert.h"
#include "os/prim.h"
#include "os/prim_self.h"

enum {
	BOARD_LAYOUT = 2, /* another number where anything changes that a reader goes by: publish.c lists it */
	BOARD_STRIPES = 256,
	BOARD_SEGMENTS = 8192, /* of a shard with more, some are not on the board */
	BOARD_DEPTH_MOST = 16, /* of the directory: 65,536 pages, 23 million entries; a deeper one is not on the board */
	BOARD_KIND_MASK = 3,   /* low bits of a segment's address: enum segment_kind */
};

struct board_segment {
	_Atomic uint64_t serial, place; /* serial 0: none */
};

struct board_shard {
	_Atomic uint64_t shape, depth; /* depth: more than BOARD_DEPTH_MOST where it cannot be read */
	_Atomic uint64_t changes[BOARD_STRIPES];
	_Atomic uint64_t directory[1 << BOARD_DEPTH_MOST];
	struct board_segment segments[BOARD_SEGMENTS];
};

struct board {
	uint32_t layout, page_bytes, shard_count, number_mask;
	uint64_t bytes; /* of all of it */
	uint64_t secret[2]; /* of the hash */
	_Atomic uint64_t skew_ns; /* tests may have moved the cache's clock */
	uint32_t sign_at, unused; /* prim_sign_stands(sign, sign_at): the owner lives */
	_Alignas(8) unsigned char sign[PRIM_SIGN_BYTES];
	struct board_shard shards[];
};

static inline unsigned board_stripe(uint64_t address, size_t page_bytes)
{
	return (unsigned)(address / page_bytes) % BOARD_STRIPES;
}

/* From here on: the writer, under the lock. Each count is odd between these two; they do not nest. */
static inline void board_begin(_Atomic uint64_t *count)
{
	DRP_ASSERT(atomic_load_explicit(count, memory_order_relaxed) % 2 == 0);
	atomic_store_explicit(count, atomic_load_explicit(count, memory_order_relaxed) + 1, memory_order_relaxed);
	atomic_thread_fence(memory_order_seq_cst);
	prim_step();
}

static inline void board_end(_Atomic uint64_t *count)
{
	prim_step();
	atomic_store_explicit(count, atomic_load_explicit(count, memory_order_relaxed) + 1, memory_order_release);
}

/* A segment was opened, or is retired: before anything else is written to its pages. */
static inline void board_note_segment(struct board_shard *board, uint64_t serial, uint32_t number, const void *base, unsigned kind)
{
	struct board_segment *cell = &board->segments[number % BOARD_SEGMENTS];

	atomic_store_explicit(&cell->serial, 0, memory_order_relaxed);
	atomic_thread_fence(memory_order_seq_cst);
	prim_step();
	atomic_store_explicit(&cell->place, (uint64_t)(uintptr_t)base | kind, memory_order_relaxed);
	prim_step();
	atomic_store_explicit(&cell->serial, serial, memory_order_release);
}

static inline void board_forget_segment(struct board_shard *board, uint64_t serial, uint32_t number)
{
	struct board_segment *cell = &board->segments[number % BOARD_SEGMENTS];

	if (atomic_load_explicit(&cell->serial, memory_order_relaxed) == serial)
		atomic_store_explicit(&cell->serial, 0, memory_order_relaxed);
	atomic_thread_fence(memory_order_seq_cst);
}

#endif
