/*
 * index_mark.h - the part of index.h's contract that tells when pages of the index are marked, so that the kernel may take them.
 *
 *   page:  clean --store()--> dirty --index_take_dirty(), under the lock--> taken --index_mark_taken(), without it--> clean
 *
 * Callers: cache. Implementation: index.c.
 */
#ifndef DRP_INDEX_MARK_H
#define DRP_INDEX_MARK_H

#include "store/index.h"

/* Marks dirty pages, so that the kernel may take them cleanly. */
int index_mark(struct index *index);
/*
 * The same in two steps, the second without the lock: for a fraction of a microsecond a page nobody else should wait. The
 * pages count as marked from the first on; what is written meanwhile is dirty anew, and is safe against a drop as ever. The
 * index must live so long. Touches what it marked: it was written, so it is in use. Whoever took any is a user of the index
 * until it was told that they are marked.
 */
size_t index_take_dirty(struct index *index, struct iovec *ranges, size_t most);
int index_mark_taken(struct index *index, const struct iovec *ranges, size_t count);

/* One user more, under the lock, and one less, without it. */
void index_hold(struct index *index);
void index_release(struct index *index);

/* Nobody knows which pages are marked: all that are in use count as written. */
void index_note_all_dirty(struct index *index);

#endif
