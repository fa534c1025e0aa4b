/*
 * probe.h - what this kernel really does, found out by trying: by errno and by content.
 *
 * A call that succeeds proves little: some sandboxes accept MADV_FREE and throw the content away at once, others accept
 * it and never drop. So each probe writes to a few pages of its own, makes the call and looks at what became of them.
 *
 * Callers: the binding, for droppable.features(); whoever chooses a backing. Reaches the kernel through prim.h only, but
 * for the pipe of the signal probe. Any thread; nothing is held between calls but the answers.
 */
#ifndef DRP_PROBE_H
#define DRP_PROBE_H

#include <stdbool.h>

enum probe {
	PROBE_LAZYFREE,     /* marked pages stay readable, and go when the kernel wants them */
	PROBE_DROPPABLE,    /* MAP_DROPPABLE: the same without a mark */
	PROBE_PAGE_OUT,     /* MADV_PAGEOUT drops marked pages now */
	PROBE_COLD,         /* MADV_COLD is accepted, and keeps the content */
	PROBE_WIPE_ON_FORK, /* MADV_WIPEONFORK is accepted; by errno only: a fork is too much for a probe */
	PROBE_EXACT_CENSUS, /* PAGEMAP_SCAN tells pages with content from the shared zero page */
	PROBE_SIGNAL,       /* signal mode: a system call on a dropped page fails with EFAULT */
	PROBE_COUNT
};

enum probe_finding {
	PROBE_WORKS,
	PROBE_UNPROVEN,      /* available as far as errno tells; without PROBE_PAGE_OUT its content cannot be put to the test */
	PROBE_CALL_FAILED,   /* error has the errno; 0: the call fell back to something weaker */
	PROBE_LOST_AT_ONCE,  /* the content was gone right after the mark */
	PROBE_NEVER_DROPPED, /* the kernel accepted every call, and every page stayed */
	PROBE_NO_FAULT,      /* signal mode: system calls on a dropped page succeeded */
};

struct probe_result {
	bool available; /* PROBE_WORKS or PROBE_UNPROVEN */
	enum probe_finding finding;
	int error; /* errno, or 0 */
};

/*
 * Tries once and remembers the answer for the life of the process; a failure for lack of memory or file descriptors is
 * not remembered. The first call costs up to some hundred microseconds, the others a load.
 */
struct probe_result probe_kernel(enum probe probe);

#endif
