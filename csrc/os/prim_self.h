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

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

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

/*
 * A sign in such memory that the calling thread lives: the kernel itself takes it away, before anybody can wait for the process that
 * has ended. A dead process's memory is no such sign: it can be read for as long as some reader is in the middle of a read, which is
 * always where many read. *word_at: where in the sign the word is that prim_sign_stands() looks at. DRP_UNSUPPORTED, DRP_NO_MEMORY.
 */
enum { PRIM_SIGN_BYTES = 64, PRIM_SIGN_ENDED = 0x40000000 };
int prim_sign_begin(void *sign, uint32_t *word_at);
static inline bool prim_sign_stands(const void *sign, uint32_t word_at)
{
	const void *at = (const char *)sign + word_at;
	const uint32_t word = atomic_load_explicit((const _Atomic uint32_t *)at, memory_order_acquire);

	return word != 0 && !(word & PRIM_SIGN_ENDED);
}
/* Takes it away: the same thread. */
void prim_sign_end(void *sign);

/* For prim_linux.c and prim_linux_track.c: the pagemap, or -1; and what ends its use. */
int prim_pagemap_take(void);
void prim_pagemap_give(int descriptor);

#endif
