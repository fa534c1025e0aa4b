/*
 * entry.c - see entry.h for the picture.
 */
#include "log/entry.h"

#include <stdatomic.h>
#include <string.h>

#include "log/entry_small.h"
#include "os/prim.h"

struct lengths {
	uint16_t key, meta;
	uint32_t inline_value;
};

struct wide_lengths {
	uint64_t key, meta;
};

enum { PIECE = ENTRY_PIECE_BYTES, HEAD_MAX = sizeof(struct lengths) + sizeof(struct wide_lengths) + 24 };

_Static_assert(sizeof(struct entry_piece) == PIECE, "entry_place() reckons with it");

static size_t lengths_bytes(unsigned flags)
{
	if (flags & ENTRY_SMALL)
		return sizeof(struct entry_small_lengths);
	return sizeof(struct lengths) + (flags & ENTRY_WIDE ? sizeof(struct wide_lengths) : 0);
}

static size_t head_bytes(unsigned flags)
{
	size_t bytes = lengths_bytes(flags);

	if (flags & ENTRY_EXTRAS)
		bytes += (flags & ENTRY_TTL ? 8 : 0) + (flags & ENTRY_COST ? 8 : 0) + (flags & ENTRY_VERSION ? 8 : 0);
	return bytes;
}

/* Is an entry of that many bytes never split? */
static bool stays_whole(size_t bytes)
{
	return bytes + PIECE <= prim_page_size() / ENTRY_WHOLE_SHARE;
}

/* How the lengths are stored follows from them. */
static unsigned lengths_flag(const struct entry *entry)
{
	const unsigned flags = entry->flags & ~(unsigned)ENTRY_LENGTHS;
	const size_t around = head_bytes(flags | ENTRY_SMALL) + entry->key_bytes + entry->meta_bytes;

	if (entry->key_bytes <= UINT8_MAX && entry->meta_bytes <= UINT8_MAX &&
	    entry->inline_bytes < prim_page_size() && stays_whole(around + entry->inline_bytes))
		return ENTRY_SMALL;
	return entry->key_bytes > UINT16_MAX || entry->meta_bytes > UINT16_MAX ? ENTRY_WIDE : 0;
}

void entry_measure(struct entry *entry)
{
	entry->flags = (uint8_t)((entry->flags & ~ENTRY_LENGTHS) | lengths_flag(entry));
	entry->bytes = head_bytes(entry->flags) + entry->key_bytes + entry->meta_bytes + entry->inline_bytes;
}

static size_t page_left(size_t offset)
{
	return entry_page_left(offset);
}

static size_t round_up(size_t value, size_t unit)
{
	return (value + unit - 1) & ~(unit - 1);
}

size_t entry_place_pieces(size_t offset, size_t bytes, size_t *start)
{
	const size_t page = prim_page_size();

	if (page_left(offset) <= PIECE || stays_whole(bytes))
		offset = round_up(offset, page);
	*start = offset;
	for (;;) {
		size_t room = page_left(offset) - PIECE;
		if (bytes <= room)
			return round_up(offset + PIECE + bytes, ENTRY_ALIGN);
		bytes -= room;
		offset = round_up(offset + 1, page);
	}
}

static _Atomic uint32_t *stamp_at(const unsigned char *base, size_t offset)
{
	return (_Atomic uint32_t *)(uintptr_t)(base + offset);
}

/* Begins a piece: the stamp is the mark, so it goes first, and nothing writes it again. */
static size_t begin_piece(unsigned char *base, size_t offset, const struct entry_piece *piece)
{
	atomic_store_explicit(stamp_at(base, offset), piece->stamp, memory_order_relaxed);
	prim_step();
	atomic_thread_fence(memory_order_release);
	memcpy(base + offset + sizeof(piece->stamp), (const unsigned char *)piece + sizeof(piece->stamp),
	       PIECE - sizeof(piece->stamp));
	prim_step();
	return offset + PIECE;
}

static unsigned char *put(unsigned char *at, const void *what, size_t bytes)
{
	memcpy(at, what, bytes);
	return at + bytes;
}

static size_t encode_head(unsigned char *head, const struct entry *entry)
{
	const unsigned flags = entry->flags;
	unsigned char *at = head;

	if (flags & ENTRY_SMALL) {
		const struct entry_small_lengths small = {(uint8_t)entry->key_bytes, (uint8_t)entry->meta_bytes};
		at = put(at, &small, sizeof(small));
	} else {
		const bool wide = flags & ENTRY_WIDE;
		const struct lengths lengths = {.key = wide ? 0 : (uint16_t)entry->key_bytes,
						.meta = wide ? 0 : (uint16_t)entry->meta_bytes,
						.inline_value = (uint32_t)entry->inline_bytes};
		const struct wide_lengths wide_lengths = {entry->key_bytes, entry->meta_bytes};
		at = put(at, &lengths, sizeof(lengths));
		if (wide)
			at = put(at, &wide_lengths, sizeof(wide_lengths));
	}
	if (flags & ENTRY_TTL)
		at = put(at, &entry->expires_ns, 8);
	if (flags & ENTRY_COST)
		at = put(at, &entry->cost_ns, 8);
	if (flags & ENTRY_VERSION)
		at = put(at, &entry->version, 8);
	return (size_t)(at - head);
}

void entry_write(unsigned char *base, size_t start, uint32_t stamp, const struct entry *entry,
		 const struct drp_part *parts, size_t part_count)
{
	const unsigned flags = entry->flags;
	size_t left = entry->bytes, at = start, room = 0;
	struct entry_piece piece = {.stamp = stamp, .flags = (uint8_t)(flags | ENTRY_FIRST), .kind = entry->kind};

	if (left + PIECE <= page_left(start)) { /* one piece, as nearly all are */
		piece.length = (uint16_t)left;
		at = begin_piece(base, at, &piece);
		if ((flags & (ENTRY_SMALL | ENTRY_EXTRAS)) == ENTRY_SMALL) {
			const struct entry_small_lengths small = {(uint8_t)entry->key_bytes, (uint8_t)entry->meta_bytes};
			at = (size_t)(put(base + at, &small, sizeof(small)) - base);
		} else {
			at += encode_head(base + at, entry);
		}
		for (size_t i = 0; i < part_count; i++) {
			prim_step();
			if (parts[i].bytes == 0)
				continue;
			memcpy(base + at, parts[i].data, parts[i].bytes);
			at += parts[i].bytes;
		}
		prim_step();
		return;
	}
	unsigned char head[HEAD_MAX];
	const struct drp_part head_part = {head, encode_head(head, entry)};
	for (size_t i = 0; i <= part_count; i++) {
		const struct drp_part *part = i == 0 ? &head_part : &parts[i - 1];
		const unsigned char *data = part->data;
		for (size_t bytes = part->bytes; bytes > 0;) {
			if (room == 0) {
				room = page_left(at) - PIECE;
				if (room > left)
					room = left;
				piece.length = (uint16_t)room;
				at = begin_piece(base, at, &piece);
				piece.flags = (uint8_t)(flags & ~ENTRY_FIRST);
			}
			size_t stretch = bytes < room ? bytes : room;
			memcpy(base + at, data, stretch);
			prim_step();
			at += stretch;
			data += stretch;
			bytes -= stretch;
			room -= stretch;
			left -= stretch;
		}
	}
}

static bool read_piece(const unsigned char *base, size_t offset, uint32_t stamp, struct entry_piece *piece)
{
	memcpy(piece, base + offset, PIECE);
	prim_step();
	atomic_thread_fence(memory_order_acquire);
	/* the head may have vanished between two of its bytes: what was read counts only if the stamp is there still */
	return atomic_load_explicit(stamp_at(base, offset), memory_order_relaxed) == stamp && piece->stamp == stamp;
}

static bool next_piece(struct entry_reader *reader)
{
	struct entry_piece piece;
	size_t offset = round_up(reader->at, prim_page_size());

	if (offset >= reader->end || !read_piece(reader->base, offset, reader->stamp, &piece) ||
	    (piece.flags & ENTRY_FIRST) || piece.length == 0 || piece.length > reader->end - offset - PIECE) {
		reader->lost = true;
		return false;
	}
	reader->at = offset + PIECE;
	reader->left = piece.length;
	return true;
}

/* The next stretch of at most bytes; 0 when the entry is lost. */
static size_t take(struct entry_reader *reader, size_t bytes, const unsigned char **data)
{
	if (reader->lost || (reader->left == 0 && !next_piece(reader)))
		return 0;
	if (bytes > reader->left)
		bytes = reader->left;
	*data = reader->base + reader->at;
	reader->at += bytes;
	reader->left -= bytes;
	return bytes;
}

/* What goes on in another piece: rare, and not a part of its callers. */
__attribute__((noinline)) static void copy_pieces(struct entry_reader *reader, unsigned char *out, size_t bytes)
{
	const unsigned char *data = NULL;

	while (bytes > 0) {
		size_t stretch = take(reader, bytes, &data);
		if (stretch == 0)
			return;
		if (out) {
			memcpy(out, data, stretch);
			prim_step();
			out += stretch;
		}
		bytes -= stretch;
	}
}

__attribute__((noinline)) static bool match_pieces(struct entry_reader *reader, const unsigned char *expected,
						   size_t bytes)
{
	const unsigned char *data = NULL;

	while (bytes > 0) {
		size_t stretch = take(reader, bytes, &data);
		prim_step();
		if (stretch == 0 || memcmp(data, expected, stretch) != 0)
			return false;
		expected += stretch;
		bytes -= stretch;
	}
	return true;
}

/* Bytes that lie in this piece, as nearly all do. A reader that lost its entry has none left. */
static const unsigned char *pass(struct entry_reader *reader, size_t bytes)
{
	const unsigned char *data = reader->base + reader->at;

	reader->at += bytes;
	reader->left -= bytes;
	return data;
}

void entry_copy(struct entry_reader *reader, void *to, size_t bytes)
{
	if (bytes > reader->left) {
		copy_pieces(reader, to, bytes);
		return;
	}
	const unsigned char *data = pass(reader, bytes);
	if (to && bytes > 0) {
		memcpy(to, data, bytes);
		prim_step();
	}
}

bool entry_match(struct entry_reader *reader, const void *with, size_t bytes)
{
	if (bytes > reader->left)
		return match_pieces(reader, with, bytes);
	const unsigned char *data = pass(reader, bytes);
	prim_step();
	return bytes == 0 || memcmp(data, with, bytes) == 0;
}

/* The lengths of an entry of one piece. False: they cannot be: it was dropped meanwhile. */
static bool read_small_lengths(struct entry_reader *reader, struct entry *entry)
{
	struct entry_small_lengths lengths;
	const size_t payload_bytes = reader->left;

	if (payload_bytes < sizeof(lengths))
		return false;
	memcpy(&lengths, pass(reader, sizeof(lengths)), sizeof(lengths));
	prim_step();
	const size_t around = head_bytes(entry->flags) + lengths.key + lengths.meta;
	if (around > payload_bytes)
		return false;
	entry->key_bytes = lengths.key;
	entry->meta_bytes = lengths.meta;
	entry->inline_bytes = payload_bytes - around;
	entry->bytes = payload_bytes;
	return true;
}

static void read_lengths(struct entry_reader *reader, struct entry *entry)
{
	struct lengths lengths = {0};

	entry_copy(reader, &lengths, sizeof(lengths));
	entry->key_bytes = lengths.key;
	entry->meta_bytes = lengths.meta;
	entry->inline_bytes = lengths.inline_value;
	if (entry->flags & ENTRY_WIDE) {
		struct wide_lengths wide = {0};
		entry_copy(reader, &wide, sizeof(wide));
		entry->key_bytes = (size_t)wide.key;
		entry->meta_bytes = (size_t)wide.meta;
	}
	entry->bytes = head_bytes(entry->flags) + entry->key_bytes + entry->meta_bytes + entry->inline_bytes;
}

static void read_extras(struct entry_reader *reader, struct entry *entry)
{
	if (entry->flags & ENTRY_TTL)
		entry_copy(reader, &entry->expires_ns, 8);
	if (entry->flags & ENTRY_COST)
		entry_copy(reader, &entry->cost_ns, 8);
	if (entry->flags & ENTRY_VERSION)
		entry_copy(reader, &entry->version, 8);
}

/* Does the entry, if it begins at start, end before end? Each length for itself first: their sum may wrap. */
static bool fits(size_t start, size_t end, const struct entry *entry)
{
	const size_t room = end - start;
	size_t same;

	return entry->key_bytes < room && entry->meta_bytes < room && entry->inline_bytes < room && entry->bytes < room &&
	       entry_place(start, entry->bytes, &same) <= end;
}

bool entry_open(const unsigned char *base, size_t end, size_t start, uint32_t stamp, struct entry_reader *reader,
		struct entry *entry)
{
	struct entry_piece piece;

	if (start >= end)
		return false;
	/* All that is read here counts only if the stamp is there at the end still. Until then it need only stay in bounds. */
	memcpy(&piece, base + start, PIECE);
	prim_step();
	if (piece.stamp != stamp || !(piece.flags & ENTRY_FIRST) || piece.length > end - start - PIECE)
		return false;
	*reader = (struct entry_reader){.base = base, .end = end, .at = start + PIECE, .left = piece.length, .stamp = stamp};
	entry->kind = piece.kind;
	entry->flags = piece.flags & (uint8_t)~ENTRY_FIRST;
	entry->expires_ns = entry->cost_ns = entry->version = 0;
	if (!(entry->flags & ENTRY_SMALL)) {
		read_lengths(reader, entry);
		if (!fits(start, end, entry))
			return false;
	} else if (!read_small_lengths(reader, entry)) {
		return false;
	}
	if (entry->flags & ENTRY_EXTRAS)
		read_extras(reader, entry);
	prim_step();
	atomic_thread_fence(memory_order_acquire);
	return !reader->lost && atomic_load_explicit(stamp_at(base, start), memory_order_relaxed) == stamp;
}

bool entry_pieces_intact(const unsigned char *base, size_t start, uint32_t stamp, size_t bytes)
{
	const size_t page = prim_page_size();

	prim_step();
	atomic_thread_fence(memory_order_acquire);
	for (size_t offset = start;;) {
		size_t room = page_left(offset) - PIECE;
		prim_step();
		if (atomic_load_explicit(stamp_at(base, offset), memory_order_relaxed) != stamp)
			return false;
		if (bytes <= room)
			return true;
		bytes -= room;
		offset = round_up(offset + 1, page);
	}
}

bool entry_next(const unsigned char *base, size_t *offset, size_t end, uint32_t stamp, size_t *start)
{
	const size_t page = prim_page_size();
	struct entry_piece piece;

	for (size_t at = *offset; at < end;) {
		if (!read_piece(base, at, stamp, &piece) || piece.length > page_left(at) - PIECE) {
			/*
			 * The unused end of a page, or a page that was dropped. If that was while it was being filled, what was
			 * appended since stands behind zeros.
			 */
			const bool zeros = atomic_load_explicit(stamp_at(base, at), memory_order_relaxed) == 0;
			at = zeros ? at + ENTRY_ALIGN : round_up(at + 1, page);
			continue;
		}
		size_t next = round_up(at + PIECE + piece.length, ENTRY_ALIGN);
		if (piece.flags & ENTRY_FIRST) {
			*start = at;
			*offset = next;
			return true;
		}
		at = next;
	}
	*offset = end;
	return false;
}
