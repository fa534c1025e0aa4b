/*
 * reader.h - values of a cache in another process, read from its memory without a word to it.
 *
 *   key's hash --board: directory--> page of the index  ==pread==> bucket: slot with our tag --> place: segment, offset
 *              --board: segments---> address            ==pread==> entry: stamps, key, meta, and the value or its extent
 *              --board: segments---> address            ==pread==> value's pages, witnesses
 *              --board: the same counts as before?----> it is the key's value
 *
 *   places[]: hash --where its entry was found, while neither shape nor changes are others--> the second step at once
 *
 * log/board.h says why that is right. Whatever is in doubt is a miss: the caller asks the owner, who has the last word. So a key
 * that is not there is a miss here as well.
 *
 * Threads and forks: a reader is never changed once it is open, so that any number of threads may use it, and so may a forked
 * child. The owner's death ends nothing here: reads give DRP_CLOSED from then on, also where its memory can still be read.
 *
 * Callers: the binding; tests.
 */
#ifndef DRP_READER_H
#define DRP_READER_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "cache/cache.h"
#include "log/board.h"

enum { READER_PLACES = 4096 /* 160 KB of this process, so that keys in use cost one read of the memory, not two */ };

/* Where an entry was found. Threads may write it at the same time: check says whether it is one thread's. */
struct reader_place {
	_Atomic uint64_t hash, shape, change, place /* and the stripe of its page, above it */, check;
};

struct reader {
	const struct board *board;
	size_t board_bytes;
	uint32_t sign_at; /* on the board */
	int memory; /* the owner's, to be read at its addresses */
	dev_t device; /* by which and the next the descriptor is known, should the program close it and use its number */
	ino_t inode;
	struct reader_place *places;
	_Atomic uint32_t likely_bytes; /* of an entry: those that were read last tell how much is read at once */
};

/*
 * Takes both descriptors over if it succeeds: that of the memory stays open, that of the board is not needed any more.
 * DRP_UNSUPPORTED: another layout than ours, or other pages. DRP_INVALID: no board, or no memory. DRP_NO_MEMORY.
 */
int reader_open(struct reader *reader, int memory, int board, size_t board_bytes);
void reader_close(struct reader *reader);

/*
 * Looks a key up. The sink is cache_get()'s, but for this: no lock is held while it is called. It may be called for a value that
 * turns out to be in doubt; the last call counts, and only where DRP_OK is returned.
 * DRP_MISS: not there, or in doubt. DRP_CLOSED: the owner is dead. DRP_REFUSED: reserve() gave up. DRP_NO_MEMORY.
 */
int reader_get(struct reader *reader, const void *key, size_t key_bytes, struct cache_sink *sink);

/*
 * One entry, and no other one: of this owner, of other owners, before or after it. So who has a copy of its value may use that
 * whenever a look-up comes to the same version. *version is filled before reserve() is called, and counts if that gave up, too.
 */
struct reader_version {
	uint64_t owner, serial, place;
};

int reader_get_version(struct reader *reader, const void *key, size_t key_bytes, struct cache_sink *sink,
		       struct reader_version *version);

/* One key of many, and what became of it: as reader_get() returns it, or READER_ALONE: that is not tried here. */
struct reader_wanted {
	const void *key;
	size_t key_bytes;
	struct cache_sink *sink;
	int status;
};
enum { READER_MANY_MOST = 128, READER_ALONE = 1 };

/*
 * Looks many keys up, at most READER_MANY_MOST. Each is looked up for itself, and checked as reader_get() does; but a page of the
 * index or of entries that has several of them is read once, and so are pages that lie side by side. READER_ALONE is for what
 * takes reads of its own: a value on pages of its own, or one that changed meanwhile. The caller calls reader_get() for it.
 */
void reader_get_many(struct reader *reader, struct reader_wanted *wanted, size_t count);

#endif
