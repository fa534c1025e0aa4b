/*
 * look.h - one look-up in another process's memory, step by step: what reader.c and reader_many.c share.
 *
 *   look_remembered() ------------- place ------------------------------------.
 *   look_begin() --> look_read_buckets() --> a slot: place --> look_find_segment() --> look_read(): its pages --> look_take()
 *        '-- shape, change                                          '-- serial                      look_still_stands() --'
 *
 * Callers: csrc/client.
 */
#ifndef DRP_LOOK_H
#define DRP_LOOK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "client/reader.h"
#include "log/entry.h"

enum {
	READ_LEAST_BYTES = 512, /* of an entry: most short ones, and no more work than for fewer */
	STATUS_CHANGED = 1,     /* it was written meanwhile: once more */
	STATUS_OTHER_KEY = 2,
};

/* What has to be the same at the end, and the entry, copied. */
struct look {
	struct reader *reader;
	const struct board_shard *board;
	uint64_t shape, change;
	const _Atomic uint64_t *changes;
	const struct board_segment *cells[2]; /* of the entry, and of its value's pages */
	uint64_t serials[2];
	unsigned cell_count;
	struct reader_version *version; /* NULL: nobody asks for it */
	/* The entry's pages, or a part of them, where they lie in a page: as entry.h wants them. */
	unsigned char *bytes;
	size_t start, end; /* the entry begins at start; up to end it was read */
	size_t capacity;
	unsigned char *heap;
};

/*
 * Where the key's entry was the last time, if nothing has changed around it since; else 0. That the page of the index may have been
 * dropped meanwhile does not matter: once the owner has found that out, or has stored the key anew, the change is another one.
 */
uint64_t look_remembered(struct look *look, uint64_t hash);
/* An entry was found: the next look-up of its key begins there. */
void look_keep_place(const struct look *look, uint64_t hash, uint64_t place);

/* The page of the index that has the hash. DRP_MISS: it is not on the board. STATUS_CHANGED. DRP_CLOSED: the owner is dead. */
int look_begin(struct look *look, uint64_t hash, uint64_t *page_address);
/* The buckets of it that a search may look at, where they lie in their page. */
int look_read_buckets(const struct reader *reader, uint64_t address, size_t home, uint64_t *page);

/* Where a segment lies that is on the board, with a look at it that is repeated at the end. 0: it is not there. */
uint64_t look_find_segment(struct look *look, uint32_t number, uint64_t serial, bool of_entries);

/* Bytes of the owner's memory. DRP_MISS: not so many are there. *got, unless NULL: how many are. DRP_CLOSED: the owner is dead. */
int look_read(const struct reader *reader, uint64_t address, void *to, size_t bytes, size_t *got);

/* The value of an entry that was copied and is whole, if it is the key's. DRP_MISS, DRP_REFUSED, STATUS_CHANGED, STATUS_OTHER_KEY. */
int look_take(struct look *look, struct entry_reader *at, const struct entry *entry, const void *key, size_t key_bytes,
	      struct cache_sink *sink);

/* Is all that was gone by what it was, and does the owner live? */
bool look_still_stands(const struct look *look);

#endif
