/*
 * random.h - random bytes of the kernel's quality, without a system call where the vDSO offers that.
 *
 * Callers: random_block.c, the binding. Stands on prim.h alone.
 *
 * The vDSO's function keeps a key in memory of ours. That memory is droppable: never in swap, in a core dump or in a
 * forked child, and where the kernel takes it the function seeds itself anew. One state serves one thread at a time.
 */
#ifndef DRP_RANDOM_H
#define DRP_RANDOM_H

#include <stdbool.h>
#include <stddef.h>

/*
 * Fills buffer with length random bytes, whole or not at all; 0, or the negative status of getrandom(2), errno kept:
 * there is no third source. Any thread, any length. Never blocks on another thread; blocks in getrandom(2) early at
 * boot, until the kernel's generator is seeded. May be called in a signal handler, and after fork in a child of any
 * thread (the first call of a thread may allocate inside the C library; a handler that can interrupt malloc before
 * its thread has drawn once should draw elsewhere).
 */
int random_fill(void *buffer, size_t length);

/* How random_fill works in this process; finds out if no call has needed it yet. */
struct random_info {
	bool vdso;             /* the vDSO's function is in use for short requests */
	bool vdso_in_bulk;     /* it is for long ones too: it was faster than the system call here (measured once) */
	const char *reason;    /* why not, where vdso is false; a static string, else "" */
	unsigned state_bytes;  /* size of one state; 0 without vdso */
	unsigned state_count;  /* states made so far, in use or free: as many as there were threads at one time */
};
void random_describe(struct random_info *out);

#endif
