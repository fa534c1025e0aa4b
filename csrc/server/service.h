/*
 * service.h - what all connections of one server share.
 *
 *   service -> keyspace -> cache
 *           -> budget of all buffers
 *           -> counts of each worker          (worker.c writes its own, stats.c adds them up)
 *           -> passwords, settings: never changed while workers run
 *
 * Callers: all files of the server above this one.
 */
#ifndef DRP_SERVER_SERVICE_H
#define DRP_SERVER_SERVICE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "server/budget.h"
#include "server/counts.h"
#include "cache/cache.h"
#include "cache/publish.h"
#include "server/keyspace.h"

struct claims;
struct passwords;
struct tracking;

/* SERVICE_VERSION is the project's, and comes from meson.build. Clients read these to know which commands there are. */
#define SERVICE_SPEAKS_MEMCACHED "1.6.18"
#define SERVICE_SPEAKS_REDIS "7.4.0"

enum { SERVICE_PASSED_MOST = 2 };

struct settings {
	size_t max_value_bytes;
	size_t max_request_bytes; /* one command with all its values */
	size_t buffers_bytes; /* 0: a share of the memory limit */     /* of all connections together */
	unsigned threads, most_connections;
	unsigned idle_seconds;    /* a connection that says nothing is closed after; 0: never */
	unsigned stall_seconds;   /* one that stops in the middle of a command or of a reply; 0: never */
	bool allows_shutdown;     /* a client may stop the server */
	bool allows_clock;        /* a client may move the clock: for tests */
	bool allows_flush;
	bool allows_attach;       /* a client may have a descriptor of this process's memory, to read it */
};

struct service {
	struct keyspace keyspace;
	struct cache *direct;              /* values of droppable.connect()'s clients, which lie apart */
	struct claims *claims;             /* on those values: who computes them */
	struct publication publication;    /* where they find those by themselves; without a board: nowhere */
	struct budget budget;
	struct settings settings;
	const struct passwords *passwords; /* NULL: nobody is asked */
	int passed[SERVICE_PASSED_MOST];   /* what clients get that attach: memory, board */
	unsigned passed_count;             /* 0: nobody can attach */
	struct tracking *tracking;         /* NULL: nobody can be told of changes */
	struct counts *counts;             /* one of each worker */
	unsigned count_sets;
	int64_t started_seconds;
	_Atomic uint64_t connections, total_connections, rejected_connections, listen_disabled;
	_Atomic uint64_t last_client_id;
	_Atomic uint64_t direct_hits;      /* that clients read by themselves, as far as they have told */
	_Atomic int64_t clear_at_seconds;  /* everything stored before is to be forgotten then; 0: nothing is */
	_Atomic uint64_t count_base[COUNTS_FIELDS]; /* what the counts were at the last `stats reset` */
	_Atomic bool is_stopping;
	int stop_descriptor;               /* an eventfd: whoever writes to it asks the server to stop; -1: nobody may */
};

/* A moment of the clock has come: forgets everything if that was asked for. Cheap where it was not. */
static inline void service_look_at_clock(struct service *service)
{
	int64_t at = atomic_load_explicit(&service->clear_at_seconds, memory_order_relaxed);

	if (at != 0 && keyspace_time(&service->keyspace) >= at &&
	    atomic_compare_exchange_strong(&service->clear_at_seconds, &at, 0))
		keyspace_clear(&service->keyspace);
}

/* For tests: moves the clocks of all values. */
static inline void service_advance_clock(struct service *service, uint64_t seconds)
{
	keyspace_advance_clock(&service->keyspace, seconds);
	cache_advance_clock(service->direct, seconds * UINT64_C(1000000000));
	publication_advance_clock(&service->publication, seconds * UINT64_C(1000000000));
}

#endif
