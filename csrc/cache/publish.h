/*
 * publish.h - a cache that readers in other processes find their way about: its board (log/board.h), made and ended.
 *
 *   cache_create() --> cache_publish() --> used by all threads ... --> cache_withdraw() --> cache_unref() --> publication_end()
 *
 * What a reader needs beside it is a descriptor of this process's memory: os/prim_self.h.
 *
 * Callers: the server; tests.
 */
#ifndef DRP_CACHE_PUBLISH_H
#define DRP_CACHE_PUBLISH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "log/board.h"

struct cache;

struct publication {
	struct board *board;
	size_t bytes;
	int descriptor; /* of the board: for readers */
};

/*
 * Before the cache has entries, and while no other thread knows of it. DRP_UNSUPPORTED: see prim_share_open(); DRP_NO_MEMORY.
 * A forked child's caches are on no board. The thread that calls this has to live as long as the process: see prim_sign_begin().
 */
int cache_publish(struct cache *cache, struct publication *publication);
/*
 * From now on readers find nothing, and ask. For an owner that is about to end: another one may take its place before its memory is
 * gone, and what is read there would be older than what is stored at the other's. Not needed before publication_end().
 */
void cache_withdraw(struct cache *cache);
/* Once the cache has ended, by the same thread. Readers that have the board mapped hear that its owner has ended. */
void publication_end(struct publication *publication);

/*
 * A reader has read the key's value, which nobody here saw: it counts as a hit, and as used lately. A read of the memory counts for
 * the kernel's reclaim by itself. False: it is not there any more.
 */
bool cache_note_use(struct cache *cache, const void *key, size_t key_bytes);

/* The cache's clock was moved by so much: cache_advance_clock(). */
void publication_advance_clock(struct publication *publication, uint64_t ns);

#endif
