/*
 * region.h - the memory itself: one droppable mapping, for people who build their own structures on it.
 *
 * What a page holds is settled or open. Settled content may be dropped at any time. Open content is being written, or
 * was written and not settled yet; on PRIM_LAZYFREE the kernel cannot drop it.
 *
 *   empty (zeros) --- write, writing ---> open --- settle ---> settled --- the kernel ---> gone
 *     ^                                    ^                      |                          |
 *     |                                    +--- write, writing, pin (holds) --+              |
 *     +------------------------------- purge -----------------------------------------------+
 *
 * What a reader learns of a page that is gone:
 *   REGION_ZERO     nothing: it reads zeros. Byte by byte: what was written last, or 0.
 *   REGION_RAISE    DRP_FAULT and the ranges that went. The page's content is the proof (witness.h), checked after the
 *                   bytes were used, so it does not matter when in between the page went.
 *   REGION_SIGNAL   DRP_FAULT and the ranges; a raw access raises SIGBUS (guard.h). A page is live only after it was
 *                   filled: by refill, or by a write, which fills whole pages.
 *
 * Threads: all calls but region_close and region_resize may run at the same time. Whoever writes a range while others
 * read it orders that himself, as with any memory. Two writers in different bytes of one page are fine.
 * Fork: the child has the mapping; its content is wiped (gone, in REGION_RAISE and REGION_SIGNAL) or, keep_on_fork,
 * copied on write. Holds of other threads end in the child.
 *
 * Offsets and lengths are in bytes from the region's start; the caller has checked that they lie in the region, and
 * that length is not 0. Callers: binding/region.c, C programs.
 */
#ifndef DRP_REGION_H
#define DRP_REGION_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "droppable.h"
#include "os/prim.h"

enum region_on_drop { REGION_ZERO = 0, REGION_RAISE = 1, REGION_SIGNAL = 2 };

struct region;

struct region_options {
	enum region_on_drop on_drop;
	bool any_backing;          /* the best for on_drop, else exactly: */
	enum prim_backing backing; /* PRIM_DROPPABLE or PRIM_LAZYFREE */
	bool keep_on_fork;         /* lazyfree only */
	const char *name;          /* for messages; copied, cut after REGION_NAME_BYTES - 1 */
};
enum { REGION_NAME_BYTES = 64 };

/* Byte ranges that are gone, ascending, whole pages; begin with {0}, end with region_gone_free(). */
struct region_gone {
	struct region_range {
		size_t start, stop;
	} *ranges;
	size_t count, capacity;
};
void region_gone_free(struct region_gone *gone);

/*
 * length: a non-zero multiple of the page size. DRP_INVALID, DRP_NO_MEMORY, or DRP_UNSUPPORTED: no such backing,
 * keep_on_fork or REGION_SIGNAL on PRIM_DROPPABLE, no userfaultfd for REGION_SIGNAL.
 */
int region_open(size_t length, const struct region_options *options, struct region **out);
void region_close(struct region *region); /* no holds, no other calls */

void *region_memory(const struct region *region);
size_t region_length(const struct region *region);
enum prim_backing region_backing(const struct region *region);

/*
 * REGION_SIGNAL: nothing tells of drops any more, and dropped pages read as zeros: a child of fork() that could not be armed, or
 * the program closed the descriptor. Every call that would go by the signals is DRP_UNSUPPORTED then.
 */
bool region_is_deaf(const struct region *region);

/* Copies out. DRP_FAULT: something went, see gone; what was copied is not to be used. */
int region_read(struct region *region, size_t offset, void *to, size_t length, struct region_gone *gone);

/*
 * Copies in, and settles, at the latest 64 pages later. Pages that are covered whole come alive whatever they were;
 * DRP_FAULT: a page that is covered in part is gone, and nothing was written. DRP_REFUSED: PRIM_DROPPABLE only, the
 * kernel took the pages faster than they could be proven.
 */
int region_write(struct region *region, size_t offset, const void *from, size_t length, struct region_gone *gone);

/*
 * Holds: between begin and end the range stays as it is, and may be used by address.
 *   READ   the range may go; the end tells DRP_FAULT if something went meanwhile, also if it was repaired or purged since
 *          (REGION_SIGNAL: pinned, so that it cannot go)
 *   WRITE  the range is open, and settled at the end (DRP_UNSUPPORTED: REGION_RAISE on PRIM_DROPPABLE, use region_write).
 *          REGION_ZERO: a hold on all of a large region exposes it (see region_expose), so that not all of it is marked
 *   PIN    the kernel cannot drop the range (DRP_UNSUPPORTED on PRIM_DROPPABLE)
 * DRP_FAULT from begin: something had gone before, see gone; nothing is held then.
 */
enum region_hold_kind { REGION_HOLD_READ, REGION_HOLD_WRITE, REGION_HOLD_PIN };
struct region_hold {
	enum region_hold_kind kind;
	size_t offset, length;
	size_t first_page, end_page;
	pthread_t owner;
	/* Private: the tree of holds, or the list of readers (region_holds.c) */
	struct region_hold *left, *right;
	size_t furthest;             /* end page of the holds below, and of this one */
	size_t lost_first, lost_end; /* a reader: pages that were repaired or purged meanwhile, and maybe others between */
	uint32_t priority;
	bool is_linked, is_repair;
};
int region_hold_begin(struct region *region, enum region_hold_kind kind, size_t offset, size_t length,
		      struct region_hold *hold, struct region_gone *gone);
int region_hold_end(struct region *region, struct region_hold *hold, struct region_gone *gone);

/* Marks what was written in the range and is not held. Finds out what that is where the kernel helps (prim_track.h). */
int region_settle(struct region *region, size_t offset, size_t length);

/* The range may be written by address from now on, at any time: from here on writes in it are tracked if possible. */
int region_expose(struct region *region);

/* Whole pages only, from here on. */

/* Gives content up: zeros (REGION_SIGNAL: absent). DRP_EXISTS: some of it is held. */
int region_purge(struct region *region, size_t offset, size_t length);
/* Asks the kernel to drop the range now: for tests. Best effort. */
int region_page_out(struct region *region, size_t offset, size_t length);
/* REGION_SIGNAL: makes the pages that are not live live with this content, each at once; tells how many bytes. */
int region_refill(struct region *region, size_t offset, const void *from, size_t length, size_t *filled_bytes);

struct region_census {
	struct prim_census pages;
	size_t dropped_pages; /* had settled content, and it is gone; REGION_ZERO: known for what was settled by range */
};
/* gone, if not NULL, receives the dropped ranges. */
int region_census(struct region *region, size_t offset, size_t length, struct region_census *out,
		  struct region_gone *gone);

/* One enum prim_page_state a page. Where the kernel cannot tell zero pages, a page of nothing but zeros counts as one. */
int region_page_states(struct region *region, size_t offset, size_t length, unsigned char *states);

/*
 * Grows or shrinks; growing may move. What is resident is kept, what was dropped stays dropped. The caller made sure
 * that nobody uses the region. DRP_NO_MEMORY: unchanged. DRP_EXISTS: there are holds.
 */
int region_resize(struct region *region, size_t length);

#endif
