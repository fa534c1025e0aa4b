/*
 * prim_handle.h - the part of prim.h's contract that tells whether a handle (of signal mode, or of tracking) is one still.
 *
 * A handle is a descriptor, and a program that becomes a daemon closes all descriptors that it does not know. Signal mode and
 * tracking have ended then, unsaid, and a file of the program's own may have got the number:
 *
 *   7 -> userfaultfd          closed by the program          7 -> the program's log, which closing the handle must leave alone
 *
 * Callers: through prim.h. Implementations: prim_linux.c, tests/prim_fake.c.
 */
#ifndef DRP_PRIM_HANDLE_H
#define DRP_PRIM_HANDLE_H

#include <stdbool.h>

/* One system call, a tenth of a microsecond. */
bool prim_handle_is_open(int handle);
/* For prim_signal_close() and prim_track_close(): closes it, if it is one. */
void prim_handle_close(int handle);

#endif
