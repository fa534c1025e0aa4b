/*
 * prim.h - the contract with the operating system. Everything right of it (witness, guard, arena, ...) reaches the
 * kernel only through these calls, so that prim_fake.c can stand in for it and drop page N or fail call N on order.
 *
 * Callers: all of csrc. Implementations: prim_linux.c (mapping, advice, userfaultfd, pagemap; the only file with mmap,
 * madvise and ioctl), prim_linux_headroom.c (reads cgroup and /proc files), prim_linux_vdso.c, tests/prim_fake.c.
 *
 * Preconditions, for every call that takes (address, length): address is not NULL and aligned to prim_page_size(),
 * length is a non-zero multiple of it, and the range lies in one mapping made by prim_map(). Lengths are in bytes.
 * Nothing here takes a lock or allocates from the heap; all calls may run in any thread. Failures are enum drp_status;
 * errno holds the reason.
 *
 * What can happen to a page of these mappings:
 *
 *            write                    prim_mark                 the kernel, under pressure
 *   absent ---------> dirty page -----------------> clean page ----------------------------> absent (reads as zeros)
 *     ^                  |  ^                           |
 *     |                  |  +------ write, prim_pin ----+
 *     +--- kernel, only PRIM_DROPPABLE: a dirty page may go too, without being counted as reclaimed (over-drop)
 */
#ifndef DRP_PRIM_H
#define DRP_PRIM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "os/prim_handle.h"
#include "os/prim_headroom.h"
#include "os/prim_page.h"

/*
 * prim_step() stands between any two memory accesses whose order is part of a protocol. It is nothing at all, except
 * under prim_fake.c, where a test can let a page vanish at the Nth of them.
 */
#ifdef PRIM_FAKE
void prim_step(void);
#else
#define prim_step() ((void)0)
#endif

/* For a status that nobody needs, of prim.h or above it, and a comment there says why: prim_best_effort(prim_purge(...)).
 * All others are handled. */
static inline void prim_best_effort(int status)
{
	(void)status;
}

enum prim_backing {
	PRIM_LAZYFREE = 0,  /* private anonymous memory, droppable between prim_mark() and the next write */
	PRIM_DROPPABLE = 1, /* MAP_DROPPABLE: droppable at any time, never swapped, not in core dumps, wiped on fork */
	PRIM_PLAIN = 2,     /* private anonymous memory that is never marked: for comparisons and positive controls */
};

enum prim_map_flags {
	PRIM_KEEP_ON_FORK = 1, /* the child sees the content, copy-on-write; not offered by PRIM_DROPPABLE */
	PRIM_HUGE_PAGES = 2,   /* allow transparent huge pages; the default forbids them: a huge page is dropped whole */
	PRIM_DUMPABLE = 4,     /* leave the mapping in core dumps: for positive controls */
};

/*
 * Maps length zero bytes, page aligned, readable and writable, without reserving memory for them. PRIM_LAZYFREE is
 * wiped on fork unless PRIM_KEEP_ON_FORK. DRP_UNSUPPORTED: this kernel has no such backing. DRP_NO_MEMORY: RLIMIT_AS,
 * address space, or the number of mappings is exhausted.
 */
int prim_map(enum prim_backing backing, size_t length, unsigned flags, void **out);
int prim_unmap(void *address, size_t length);

/*
 * Marks the content as clean, so that reclaim drops it page by page, least recently used first (MADV_FREE). On return
 * no processor holds a stale translation to a page that was dropped from this range before the call.
 * About 60 ns a page in batches, 1.5 us for one call alone. DRP_UNSUPPORTED before Linux 4.12, in some sandboxes, and on
 * locked memory (mlock, mlockall), which prim_purge() does not give back either.
 */
int prim_mark(void *address, size_t length);
/* The same for ranges that lie apart: in one call, for half the time a page, where the kernel can (6.18; not 6.12). */
int prim_mark_ranges(const struct iovec *ranges, size_t count);

/* Gives the pages back now; they read as zeros. Flushes stale translations as prim_mark() does. */
int prim_purge(void *address, size_t length);

/* Asks the kernel to reclaim the range now: marked and droppable pages go, without privilege or pressure. Best effort: a
 * page referenced at that moment is skipped, dirty lazyfree pages stay (or go to swap). DRP_UNSUPPORTED before 5.4. */
int prim_page_out(void *address, size_t length);

/* Moves the range to the end of the reclaim order that goes first (MADV_COLD). DRP_UNSUPPORTED before Linux 5.4. */
int prim_cold(void *address, size_t length);

/*
 * Pins: dirties every page with an atomic OR of 0, so that a lazyfree page stays until the next prim_mark(). A page
 * already dropped comes back as zeros: check witnesses after it. No effect that lasts on PRIM_DROPPABLE.
 * length may be any number of bytes here; every page that the range touches is pinned.
 */
void prim_pin(void *address, size_t length);

/*
 * Reads a byte of each page that the range touches, which sets the processor's accessed bits: reclaim then takes others
 * first. prim_mark() clears those bits and leaves a page that was marked before where it stands in the reclaim order, so
 * what is in use must be touched after it is marked again, or it looks like the coldest page of all.
 */
void prim_touch(const void *address, size_t length);

/* Keeps or wipes the range's content across fork. Lazyfree only; used around a fork for what is pinned. */
int prim_fork_content(void *address, size_t length, bool keep);

struct prim_census {
	size_t pages;          /* pages looked at */
	size_t resident_pages; /* present with content of their own */
	size_t zero_pages;     /* mapped to the shared zero page: dropped (or never written), then read */
	size_t absent_pages;   /* not mapped, or swapped */
	bool exact;            /* false where only mincore() was there: zero pages are then counted as resident */
};

/* Counts pages, true only for the moment. states, if not NULL, receives one enum prim_page_state a page. Needs no
 * privilege. Uses PAGEMAP_SCAN (Linux 6.7), else mincore(). */
enum prim_page_state { PRIM_ABSENT = 0, PRIM_RESIDENT = 1, PRIM_ZERO = 2 };
int prim_census(const void *address, size_t length, unsigned char *states, struct prim_census *out);

/* The processor this thread runs on, exact at the moment of the call. The compiler moves no access across it. */
unsigned prim_cpu(void);

/* Monotonic time; coarse: a few milliseconds of resolution for a few nanoseconds of cost. */
uint64_t prim_now_ns(void);
uint64_t prim_now_coarse_ns(void);

/* Fills with bytes from getrandom(2), whole or not at all. */
int prim_random(void *buffer, size_t length);

/* The function of that name and version in the vDSO, or NULL. Makes no system call. */
void *prim_vdso_symbol(const char *name, const char *version);
/* Maps length zero bytes with the protection and flags that a vDSO function asks for its state. */
int prim_map_raw(size_t length, unsigned protection, unsigned flags, void **out);

/*
 * Signal mode: after prim_signal_arm(), touching an absent page of the range raises SIGBUS (BUS_ADRERR, si_addr exact
 * to the page) and system calls on it fail with EFAULT. Arm after the fill and before prim_mark(). Lazyfree only.
 * One handle serves many ranges. Needs no privilege (UFFD_USER_MODE_ONLY).
 */
int prim_signal_open(int *handle);
int prim_signal_arm(int handle, void *address, size_t length);
int prim_signal_disarm(int handle, void *address, size_t length);
/* Makes absent pages live again with source's content, atomically for each page. *done_bytes tells how far it came;
 * DRP_EXISTS where it met a page that is present. */
int prim_signal_refill(int handle, void *address, const void *source, size_t length, size_t *done_bytes);
void prim_signal_close(int handle);

#endif
