/*
 * counts.h - what one worker counts. Only its own thread writes; stats.c reads them all and adds them up.
 *
 * The names are memcached's, in the order in which `stats` prints them.
 *
 * Callers: the commands, the connections; stats.c.
 */
#ifndef DRP_SERVER_COUNTS_H
#define DRP_SERVER_COUNTS_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#define SERVER_COUNTS(X)                                                                                                \
	X(cmd_get) X(cmd_set) X(cmd_flush) X(cmd_touch) X(cmd_meta) X(get_hits) X(get_misses) X(delete_misses)          \
	X(delete_hits) X(incr_misses) X(incr_hits) X(decr_misses) X(decr_hits) X(cas_misses) X(cas_hits) X(cas_badval)  \
	X(touch_hits) X(touch_misses) X(store_too_large) X(store_no_memory) X(auth_cmds) X(auth_errors) X(bytes_read)          \
	X(bytes_written)

/* Beyond those: names of our own, behind them. */
#define SERVER_OWN_COUNTS(X)                                                                                            \
	X(commands) X(conn_yields) X(idle_kicks) X(protocol_errors) X(buffers_refused)

struct counts {
#define X(name) _Atomic uint64_t name;
	SERVER_COUNTS(X) SERVER_OWN_COUNTS(X)
#undef X
} __attribute__((aligned(128)));

enum {
	COUNTS_FIELDS = 0
#define X(name) + 1
	SERVER_COUNTS(X) SERVER_OWN_COUNTS(X)
#undef X
};

/* By the owning thread alone: a load and a store, not a locked addition. */
static inline void count_add(_Atomic uint64_t *count, uint64_t more)
{
	atomic_store_explicit(count, atomic_load_explicit(count, memory_order_relaxed) + more, memory_order_relaxed);
}
#define COUNT(counts, name) count_add(&(counts)->name, 1)

#endif
