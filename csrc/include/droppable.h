/*
 * droppable.h - the C core's public face: the one table of status codes.
 *
 * Every function of the core that can fail returns one of these (0 or negative) and hands results out through
 * pointers. The binding maps each code to one Python exception (binding/errors.c); nothing else invents codes.
 */
#ifndef DROPPABLE_H
#define DROPPABLE_H

#include <stddef.h>

/* One stretch of a value that comes in parts; a list of them is written one behind the other. */
struct drp_part {
	const void *data;
	size_t bytes;
};

/*
 * What a caller does around work of the kernel's that takes long, as giving much memory back does: begin(), then the work
 * without any lock, then end() with what begin() gave, in the same thread. Both may wait, and may call the core.
 */
struct drp_waits {
	void *(*begin)(void);
	void (*end)(void *begun);
};

enum drp_status {
	DRP_OK = 0,
	DRP_MISS = -1,        /* not there: absent, expired, evicted or dropped; never an error for a cache */
	DRP_NO_MEMORY = -2,   /* the system has no memory or address space for this call (RLIMIT_AS, ENOMEM) */
	DRP_REFUSED = -3,     /* an insert that could have been the one to meet the OOM killer: counted, not stored */
	DRP_TOO_LARGE = -4,   /* the caller's value can never fit: max_bytes, or the format's limits */
	DRP_UNSUPPORTED = -5, /* this kernel does not offer what was asked for */
	DRP_INVALID = -6,     /* the caller's arguments are wrong: alignment, length, range */
	DRP_CLOSED = -7,      /* the caller closed the object before */
	DRP_EXISTS = -8,      /* add: the key is there already */
	DRP_FAULT = -9,       /* the range was dropped while a system call used it */
	DRP_SYSTEM = -10,     /* a system call failed for a reason of its own: errno tells */
	DRP_STALE = -11,      /* the key was set, deleted or cleared since the lease was opened: nothing was stored */
};

#endif
