/*
 * entry.h - the format of one entry in the log: key, meta, and either the value itself or where its extent lies.
 *
 *   page n                                   page n + 1
 *   |....|P|lengths|extra|key|meta|value ....|P|... value|pad|P|lengths|...
 *         ^ piece, 8 bytes: stamp, length, flags, kind    ^ the next piece starts on a multiple of 8
 *
 * An entry is a chain of pieces, one in each page that it touches. A piece begins with the stamp of its segment, which
 * is never 0 and never the same twice for one address: a page that was dropped reads 0, a page seen through a stale
 * translation shows the stamp of an older lap, and both are told from what was written. So the stamp is the witness.
 * An entry that fits in the rest of its page has one piece; a small one that does not fit moves to the next page.
 *
 * A page describes itself: the pieces in it can be walked from its first byte. A small entry has 10 bytes beside its key
 * and value: the head of its one piece, and a byte each for the lengths of key and meta.
 *
 * Callers: cache. All functions take a segment's base address, page aligned, and offsets in bytes into it.
 */
#ifndef DRP_ENTRY_H
#define DRP_ENTRY_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "droppable.h"
#include "os/prim.h"

enum {
	ENTRY_ALIGN = 8,
	ENTRY_PIECE_BYTES = 8, /* the head of a piece */
	/* entries of up to a page / ENTRY_WHOLE_SHARE are never split; longer ones fill the page they begin in */
	ENTRY_WHOLE_SHARE = 8,
};

enum entry_flags {
	ENTRY_FIRST = 1,  /* this piece begins an entry */
	ENTRY_WIDE = 2,   /* lengths do not fit in 16 bits: 64-bit ones follow */
	ENTRY_TTL = 4,    /* expires_ns follows */
	ENTRY_COST = 8,   /* cost_ns follows */
	ENTRY_EXTENT = 16, /* the inline value is a struct entry_extent and witnesses */
	ENTRY_OWN_PAGES = 32, /* was stored to be pinned */
	ENTRY_VERSION = 128, /* version follows */
	ENTRY_SMALL = 64, /* lengths of key and meta in 8 bits each; the value's follows from the piece's */
	ENTRY_EXTRAS = ENTRY_TTL | ENTRY_COST | ENTRY_VERSION,
	ENTRY_LENGTHS = ENTRY_WIDE | ENTRY_SMALL, /* set by entry_measure() */
};

/* The head of an entry, decoded, in ordinary memory. */
struct entry {
	uint8_t kind;  /* the caller's: how to read the value */
	uint8_t flags; /* enum entry_flags but for ENTRY_FIRST */
	size_t key_bytes, meta_bytes, inline_bytes;
	size_t bytes;  /* all of it, without the pieces' own heads: entry_measure() */
	uint64_t expires_ns, cost_ns, version;
};

/* What stands in place of the value when it has pages of its own; uint16_t witnesses follow. */
struct entry_extent {
	uint64_t segment; /* serial: never that of another segment */
	uint64_t value_bytes : 48, page : 16; /* page: the value's first in its segment */
};

/* Reads an entry's bytes in order, across pieces. */
struct entry_reader {
	const unsigned char *base;
	size_t end;      /* nothing is read from there on */
	size_t at, left; /* next payload byte, payload bytes left in this piece */
	uint32_t stamp;
	bool lost; /* a piece was not what was written: the entry was dropped */
};

/* Fills entry->bytes and ENTRY_LENGTHS in, from the lengths and the other flags. What entry_open() decoded has them. */
void entry_measure(struct entry *entry);

static inline size_t entry_page_left(size_t offset)
{
	const size_t page = prim_page_size();
	return page - (offset & (page - 1));
}

/*
 * Where an entry of that many bytes goes if the log stands at offset (a multiple of ENTRY_ALIGN): *start, and the end
 * of its last piece, rounded up to ENTRY_ALIGN. Nearly all go where the log stands: that is found out without a call.
 */
size_t entry_place_pieces(size_t offset, size_t bytes, size_t *start);
static inline size_t entry_place(size_t offset, size_t bytes, size_t *start)
{
	if (bytes + ENTRY_PIECE_BYTES > entry_page_left(offset))
		return entry_place_pieces(offset, bytes, start);
	*start = offset;
	return (offset + ENTRY_PIECE_BYTES + bytes + ENTRY_ALIGN - 1) & ~(size_t)(ENTRY_ALIGN - 1);
}

/* What an entry of that many bytes takes at most, wherever it begins: a head and padding in each page it touches. */
static inline size_t entry_most_bytes(size_t bytes)
{
	enum { PAGE_MOST_BYTES = 16, LEAST_PAGE_BYTES = 4096 /* of any system */ };
	return bytes + (bytes / LEAST_PAGE_BYTES + 2) * PAGE_MOST_BYTES;
}

/* Writes the entry at start. parts: key, meta and inline value, in that order, with the lengths that entry gives. */
void entry_write(unsigned char *base, size_t start, uint32_t stamp, const struct entry *entry,
		 const struct drp_part *parts, size_t part_count);

/* Decodes the head at start of a segment in which end bytes are used. False: dropped, or no entry begins here. */
bool entry_open(const unsigned char *base, size_t end, size_t start, uint32_t stamp, struct entry_reader *reader,
		struct entry *entry);

/* The next bytes: copied out (to == NULL: passed over), or compared. On loss, reader->lost is set. */
void entry_copy(struct entry_reader *reader, void *to, size_t bytes);
bool entry_match(struct entry_reader *reader, const void *with, size_t bytes);

/* True if the one piece of a small entry is there; to be called after its bytes were used. */
static inline bool entry_small_intact(const unsigned char *base, size_t start, uint32_t stamp)
{
	prim_step();
	atomic_thread_fence(memory_order_acquire);
	return atomic_load_explicit((const _Atomic uint32_t *)(uintptr_t)(base + start), memory_order_relaxed) == stamp;
}

/* The same of all pieces of an entry of that many bytes. Most have one: that is found out without a call. */
bool entry_pieces_intact(const unsigned char *base, size_t start, uint32_t stamp, size_t bytes);
static inline bool entry_intact(const unsigned char *base, size_t start, uint32_t stamp, size_t bytes)
{
	if (bytes + ENTRY_PIECE_BYTES > entry_page_left(start))
		return entry_pieces_intact(base, start, stamp, bytes);
	return entry_small_intact(base, start, stamp);
}

/*
 * Walks a segment's entries: from offset to the next one that begins before end. *start receives its offset; the
 * return value is where to go on. A page that was dropped is passed over, but for what was appended to it since. False at
 * the end.
 */
bool entry_next(const unsigned char *base, size_t *offset, size_t end, uint32_t stamp, size_t *start);

#endif
