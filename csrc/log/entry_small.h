/*
 * entry_small.h - a small entry, read where it lies: one piece, with its lengths in a byte each. Most short values are such.
 *
 *   | stamp 4 | length 2 | flags | kind | key's length | meta's | expires_ns, cost_ns, version: 0 to 24 | key | meta | value |
 *   '------------ the piece's head -----'                                                             '-- these: pointers -'
 *
 * A page may be dropped at any moment, so what the pointers lead to counts only if entry_small_intact() says so afterwards. Until
 * then it stays in bounds.
 *
 * Callers: cache; entry.c, for the two structs.
 */
#ifndef DRP_ENTRY_SMALL_H
#define DRP_ENTRY_SMALL_H

#include <string.h>

#include "log/entry.h"
#include "os/prim.h"

struct entry_piece {
	uint32_t stamp;
	uint16_t length; /* of the payload behind it */
	uint8_t flags;
	uint8_t kind;
};

/* Such an entry is never split, so that its one piece's length tells the value's. */
struct entry_small_lengths {
	uint8_t key, meta;
};

struct entry_small {
	const unsigned char *key; /* meta and value behind it */
	size_t key_bytes, meta_bytes, value_bytes;
	size_t bytes; /* all of it, without the head of its piece */
	uint64_t expires_ns, cost_ns, version; /* 0: never; unknown; none */
	uint8_t kind;
};

/* Opens it. False: no small entry begins there, or its value has pages of its own, or it was dropped: entry_open() tells. */
static inline bool entry_small_open(const unsigned char *base, size_t end, size_t start, uint32_t stamp, struct entry_small *entry)
{
	const unsigned char *at = base + start;
	const unsigned wanted = ENTRY_FIRST | ENTRY_SMALL;
	struct entry_small_lengths lengths;
	struct entry_piece piece;
	size_t head_bytes = sizeof(lengths);

	if (start + sizeof(piece) + sizeof(lengths) > end)
		return false;
	memcpy(&piece, at, sizeof(piece));
	prim_step();
	at += sizeof(piece);
	memcpy(&lengths, at, sizeof(lengths));
	prim_step();
	if (piece.stamp != stamp || (piece.flags & (wanted | ENTRY_EXTENT)) != wanted || piece.length > end - start - sizeof(piece))
		return false;
	entry->expires_ns = entry->cost_ns = entry->version = 0;
	if (piece.flags & ENTRY_EXTRAS) {
		head_bytes += 8 * (size_t)__builtin_popcount(piece.flags & ENTRY_EXTRAS);
		if (head_bytes > piece.length)
			return false;
		const unsigned char *extra = at + sizeof(lengths);
		if (piece.flags & ENTRY_TTL)
			memcpy(&entry->expires_ns, extra, sizeof(entry->expires_ns));
		extra += piece.flags & ENTRY_TTL ? 8 : 0;
		if (piece.flags & ENTRY_COST)
			memcpy(&entry->cost_ns, extra, sizeof(entry->cost_ns));
		extra += piece.flags & ENTRY_COST ? 8 : 0;
		if (piece.flags & ENTRY_VERSION)
			memcpy(&entry->version, extra, sizeof(entry->version));
	}
	entry->kind = piece.kind;
	entry->bytes = piece.length;
	entry->key = at + head_bytes;
	entry->key_bytes = lengths.key;
	entry->meta_bytes = lengths.meta;
	entry->value_bytes = piece.length - head_bytes - lengths.key - lengths.meta;
	return entry->value_bytes <= piece.length; /* else it wrapped: the lengths are more than there is */
}

#endif
