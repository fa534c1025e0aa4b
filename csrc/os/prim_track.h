/*
 * prim_track.h - the part of the contract with the operating system that tells which pages of a lazyfree range were
 * written, so that prim_mark() need not go over the whole range (which costs 60 ns a page and makes every page look as
 * if nobody had read it).
 *
 *   written page --- prim_track_collect: found(), write-protected ---> settled page --- write: one fault, 1 us --->
 *
 * userfaultfd's asynchronous write protection with PAGEMAP_SCAN (Linux 6.7). On 256 MiB (benchmarks/regions.py), nothing
 * written: 0.2 ms, 1 % of the pages written: 1.3 ms, against 5.4 ms for marking all; but the write of a settled page costs
 * 1.2-1.6 us against 0.3-0.4 us. So it is for large ranges of which the caller cannot say what he wrote; where he can, that is better.
 * (Soft-dirty bits, the other way, are one set for the whole process, and many kernels are built without them.)
 *
 * Callers: region. Preconditions as in prim.h. Privilege: none.
 */
#ifndef DRP_PRIM_TRACK_H
#define DRP_PRIM_TRACK_H

#include <stddef.h>

/*
 * Starts tracking a range of PRIM_LAZYFREE; whatever is resident in it counts as written. One range a handle; not
 * together with signal mode. DRP_UNSUPPORTED before Linux 6.7, on PRIM_DROPPABLE, and in sandboxes without userfaultfd.
 */
int prim_track_open(void *address, size_t length, int *handle);
void prim_track_close(int handle);

/*
 * Calls found() for each run of pages that are resident with content and were written since the last time; a write
 * after the call to found() counts for the next time. A non-zero result of found() ends it and is returned.
 * DRP_UNSUPPORTED where the range is not tracked (any more): a forked child inherits the range, not the tracking.
 */
typedef int prim_track_found(void *context, void *address, size_t length);
int prim_track_collect(void *address, size_t length, prim_track_found *found, void *context);

#endif
