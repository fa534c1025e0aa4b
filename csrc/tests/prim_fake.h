/*
 * prim_fake.h - the test double of prim.h: memory whose pages vanish when a test says so.
 *
 * A page may be dropped when its backing allows it: PRIM_DROPPABLE at any time; PRIM_LAZYFREE after prim_mark(), as long
 * as it was neither pinned since nor changed (the content is compared: a write of the same bytes goes unnoticed, which
 * makes the fake drop more than a kernel would, never less).
 *
 * Signal mode is real: an absent page is a mapping of an empty file, whose touch raises SIGBUS, BUS_ADRERR, with the
 * address; the code under test meets it through guard.c as it would meet userfaultfd's.
 *
 * What is ordered happens at the Nth prim_step() from now: the code under test calls that between any two accesses whose
 * order matters.
 */
#ifndef DRP_PRIM_FAKE_H
#define DRP_PRIM_FAKE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "os/prim_headroom.h"

#define FAKE_EVERY_PAGE SIZE_MAX

/* Forgets all orders and counts, but for its clock, which goes on; nothing may be mapped. */
void fake_reset(void);

/* Drops page number n of all mapped pages (in the order of mapping), or every one, if it may be dropped. */
void fake_drop(size_t n);
void fake_drop_at(const void *address);
size_t fake_pages(void);
/* From now on no more than so many pages can be mapped; 0: any number. */
void fake_space(size_t pages);
/* Has it content that could be lost? */
bool fake_page_in_use(size_t n);

/* Orders a drop at the Nth step from now; 0: at none. Counts steps from now on. */
void fake_drop_at_step(size_t step, size_t n);
size_t fake_steps(void);

/*
 * A hook that is called at each step, and before and after each call that changes or reads pages: where another thread
 * could fork, say. NULL: none. It is not called from within itself.
 *
 * A forked child has the fake's memory as it would have the kernel's: wiped, but for mappings and parts that are kept.
 */
void fake_at_each_point(void (*hook)(void));

/* Address of page n of all mapped pages; has it content that the kernel could not take at this moment? */
const void *fake_page_at(size_t n);
bool fake_page_is_dirty(size_t n);
/* Would a forked child have its content? */
bool fake_page_is_kept(size_t n);

/* From now on nothing can be kept over a fork, as when the process has no mapping left. */
void fake_fail_keeping(bool fails);

/*
 * Makes the Nth call from now that can fail fail: prim_map, prim_mark, prim_purge, prim_fork_content, prim_census,
 * prim_headroom, prim_headroom_again, prim_resident, prim_random,
 * prim_signal_*, prim_track_*, each page of a refill, and what else asks fake_fails(); 0: none.
 */
void fake_fail_call(size_t call);
bool fake_fails(void);
size_t fake_calls(void);
/* From now on calls that fail return that; DRP_OK: what is most likely for each of them. */
void fake_fail_as(int status);

/* From now on memory is locked, as by mlockall(2): prim_mark() and prim_purge() do nothing and fail. */
void fake_lock(bool locked);
/* From now on there is no mapping more to be had, however little it is for. */
void fake_no_mappings(bool none);

/* From now on every prim_cpu() tells another processor: the writer seems to move in each write. */
void fake_move_between_cpus(bool moves);

/* What prim_headroom() tells: no idle page cache, and memory is free where a sixteenth of the limit is. */
void fake_headroom(uint64_t limit_bytes, uint64_t usage_bytes, uint64_t reclaimable_bytes);
/* From now on so much of what is reclaimable is idle page cache. */
void fake_idle(uint64_t idle_bytes);
/* That limit is memory.high; so much is left before the next one, which kills. */
void fake_slows(uint64_t hard_left_bytes);
/* From now on no limit can be read at all. */
void fake_unread(enum prim_unread unread);
/* From now on that is a group's, which can be read once more, and prim_resident() tells so many bytes. */
void fake_group(uint64_t resident_bytes);

/* Mappings that were not unmapped, and handles (of signal mode and tracking) that were not closed. */
size_t fake_mappings(void);
size_t fake_handles(void);

/* From now on counts what is unmapped or purged while held(context) says that a lock is held. */
void fake_watch_lock(bool (*held)(void *context), void *context);
size_t fake_pages_given_back_under_lock(void);

/* Pages that were given to prim_mark() since the last reset, each time counted. */
size_t fake_marked_pages(void);

#endif
