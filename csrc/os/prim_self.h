/*
 * prim_self.h - the part of the contract that lets others read this process, and nobody more.
 *
 *   /proc/self/mem, opened read-only --> a descriptor that can be passed: who has it reads this memory, and cannot write it
 *   /proc/self/pagemap --> kept open: prim_census() and prim_track_collect() go on with it
 *   then the process is made not dumpable: no debugger, no core dump, no /proc/PID/mem for others of the same user
 *
 * The order matters: once it is not dumpable an ordinary user's process cannot open these two files of its own any more.
 *
 * Callers: the server, cache/publish.c, client/reader.c. Implementation: prim_linux_self.c.
 */
#ifndef DRP_PRIM_SELF_H
#define DRP_PRIM_SELF_H

#include <stddef.h>

/*
 * Does all of the above; for a program that has one thread yet and never forks (what is kept open shows the parent's pages).
 * DRP_UNSUPPORTED: there is no /proc, or it cannot be opened; nothing has changed then. *memory is for the caller to close.
 */
int prim_self_open(int *memory);

/*
 * Memory of zeros that this process writes, and that whoever gets the descriptor can read and nobody else can write, shrink or
 * grow. DRP_UNSUPPORTED before Linux 5.1. A forked child has it too, and must leave it alone.
 */
int prim_share_open(size_t length, int *descriptor, void **memory);
/* The other side: maps it to be read. DRP_INVALID: it is of another length, or could shrink. prim_share_unmap() ends either. */
int prim_share_map(int descriptor, size_t length, const void **memory);
void prim_share_unmap(const void *memory, size_t length);

/* For prim_linux.c and prim_linux_track.c: the pagemap, or -1; and what ends its use. */
int prim_pagemap_take(void);
void prim_pagemap_give(int descriptor);

#endif
