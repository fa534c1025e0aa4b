/*
 * region_internal.h - what the files of the region share; nobody else includes it.
 *
 *   memory   | page 0 | page 1 | page 2 | ...          what the kernel may take
 *   states   [   12   |  OPEN  | EMPTY  | ...          2 bytes a page, in ordinary memory that is mapped when touched
 *
 * A state is the page's witness (witness.h) above WITNESS_BASE, or one of the words. Which are used:
 *
 *   REGION_ZERO     EMPTY, FILLED: settled by range, so that a census can tell dropped from never written
 *   REGION_RAISE    EMPTY: zeros, which need no proof; OPEN; GONE: lost in a way the content cannot show; a witness
 *   REGION_SIGNAL   EMPTY: never filled; FILLED. Whether it is there, the touch tells.
 *
 * A page goes from OPEN to its witness before prim_mark(), so whoever reads zeros of a dropped page finds the witness.
 *
 * Locks: registry_lock, then region->lock. Both are leaf locks to everybody else, held over no copy of content (but
 * over prim_mark() of a range) and taken by the fork handlers.
 */
#ifndef DRP_REGION_INTERNAL_H
#define DRP_REGION_INTERNAL_H

#include <stdatomic.h>
#include <stdint.h>
#include <string.h>

#include "os/guard.h"
#include "region/region.h"

enum {
	STATE_EMPTY = 0,
	STATE_GONE = 1,
	STATE_OPEN = 2,
	STATE_FILLED = 3,
	WITNESS_BASE = 4,
	NO_HANDLE = -1,
	MAX_PENDING_PAGES = 64, /* written and not settled yet, outside of holds */
	CENSUS_CHUNK_PAGES = 1024,
};

struct region {
	/* constant between region_resize() calls */
	unsigned char *memory;
	size_t length, pages, page_bytes;
	enum prim_backing backing;
	enum region_on_drop on_drop;
	bool keep_on_fork;
	int signal_handle;
	struct guard_watch *watch;
	char name[REGION_NAME_BYTES];
	_Atomic uint16_t *states;
	size_t states_bytes;

	pthread_mutex_t lock; /* guards what follows */
	struct region_hold *holds; /* a tree of those that keep their range from being settled */
	struct region_hold *readers; /* REGION_RAISE: a list of those that do not, and hear of repairs */
	uint32_t random;
	size_t pending_first, pending_end; /* pages written and not settled; empty if equal */
	int track_handle;
	_Atomic size_t repairs_begun, repairs_ended; /* changed under the lock; see region_holds.c */
	bool strays; /* some page may be open that is neither held nor pending: a mark failed, or there is no proof */

	struct region *next; /* all regions; guarded by registry_lock */
};

static inline unsigned region_state(const struct region *region, size_t page)
{
	return atomic_load_explicit(&region->states[page], memory_order_relaxed);
}

static inline void region_set_state(struct region *region, size_t page, unsigned state)
{
	atomic_store_explicit(&region->states[page], (uint16_t)state, memory_order_relaxed);
}

static inline void *region_page(const struct region *region, size_t page)
{
	return region->memory + page * region->page_bytes;
}

/*
 * memmove. It copies in any order; under prim_fake.c in the worst one, in parts between which pages can go: the start of
 * a page, where its witness is, comes last.
 */
static inline void region_copy(void *to, const void *from, size_t length)
{
#ifdef PRIM_FAKE
	for (size_t end = length, part = length / 3 + 1; end > 0; end -= part < end ? part : end) {
		size_t start = part < end ? end - part : 0;
		memcpy((char *)to + start, (const char *)from + start, end - start);
		prim_step();
	}
#else
	memmove(to, from, length);
#endif
}

/* REGION_RAISE: the page holds what was settled, or needs no proof. After an acquire fence that follows the use. */
static inline bool region_page_intact(const struct region *region, size_t page)
{
	unsigned state = region_state(region, page);
	if (state == STATE_GONE)
		return false;
	if (state < WITNESS_BASE)
		return true;
	return atomic_load_explicit((_Atomic unsigned char *)region_page(region, page) + (state - WITNESS_BASE),
				    memory_order_relaxed) != 0;
}

/* region_gone.c: finding out what went */
void region_gone_add(const struct region *region, struct region_gone *gone, size_t page);
/* REGION_RAISE: adds what is gone of the pages; true if nothing is. */
bool region_find_gone(struct region *region, size_t first, size_t end, struct region_gone *gone);
/* REGION_SIGNAL: touches every page under guard (dirty: so that it stays); on_absent decides about each absent page,
 * DRP_EXISTS means that it is there now, another status than DRP_OK ends it. */
typedef int region_on_absent(struct region *region, size_t page, void *context);
int region_touch(struct region *region, size_t first, size_t end, bool dirty, region_on_absent *on_absent, void *context);

/* region_settle.c; the lock is held */
enum settle_how {
	SETTLE_FOUND, /* what was written has to be found out; REGION_RAISE: what has content */
	SETTLE_KNOWN, /* all of it was written */
	SETTLE_ALL,   /* mark all of it: it was pinned or open */
};
int region_settle_locked(struct region *region, size_t first, size_t end, enum settle_how how);
int region_pend_locked(struct region *region, size_t first, size_t end);

/* region_write.c: makes the pages of a hold stay. Pages in [whole_first, whole_end) will be written whole, so nothing
 * is lost with them. DRP_FAULT: others are gone. */
int region_open_pages(struct region *region, struct region_hold *hold, size_t whole_first, size_t whole_end,
		      struct region_gone *gone);

/* region_fork.c */
int region_register(struct region *region);
void region_unregister(struct region *region);
void region_registry_lock(void);
void region_registry_unlock(void);
int region_arm(struct region *region);

#endif
