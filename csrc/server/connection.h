/*
 * connection.h - one client's socket, and what of its bytes has to wait.
 *
 *   socket --> the worker's read buffer, or input ---> session ---> the worker's output ---> socket
 *         \                              ^ half a command                           \-----> pending: not taken yet
 *          '-> the cache's pages: a large value, once its command has come (session_room())
 *
 * A connection that is idle has neither input nor pending: it takes some hundred bytes. While there is something pending,
 * nothing more is read from it: a slow reader waits for itself alone.
 *
 * All of a connection belongs to its worker's thread, but for the list of those that just arrived.
 *
 * Callers: worker.c.
 */
#ifndef DRP_SERVER_CONNECTION_H
#define DRP_SERVER_CONNECTION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "server/output.h"
#include "server/session.h"

enum {
	READ_BYTES = 256 * 1024,
	SPARES = 64, SPARE_MOST_BYTES = 4 << 20,
	SPARES_SHARE = 4, /* of the budget, divided among all workers' spares: no more than that */
};

/* Bytes that belong to one connection, and are in the budget. */
struct bytes {
	unsigned char *data;
	size_t first, end, capacity; /* from first to end there is something */
};

struct connection {
	int descriptor;
	struct connection *next, *previous; /* of its worker, the one longest unheard of first */
	struct session session;
	struct bytes input, pending;
	uint64_t active_ns;   /* when bytes last moved */
	uint32_t interest;    /* what epoll is told to report */
	bool is_last;         /* nothing more is read: it ends once its replies have left */
	bool is_dead;         /* it cannot be written to */
};

/* What the connections of a worker share. */
struct workbench {
	struct output output; /* the first member: flush() finds the rest by it */
	struct connection *connection; /* whose turn it is */
	unsigned char *read;  /* READ_BYTES */
	struct bytes spares[SPARES]; /* memory of large values that have left, for the next ones; until the next shrink */
	unsigned spare_count;
	size_t spare_bytes, spares_most_bytes;
	struct budget *budget;
	struct counts *counts;
};

/* benches: how many have the budget together. False: there is no memory. */
bool workbench_init(struct workbench *bench, struct budget *budget, struct counts *counts, unsigned benches);
void workbench_destroy(struct workbench *bench);
/* Gives back what large values took. */
void workbench_shrink(struct workbench *bench);

/* descriptor is its own from now on. NULL: there is no memory. */
struct connection *connection_create(int descriptor, struct service *service, struct counts *counts);
void connection_destroy(struct connection *connection, struct workbench *bench);

/* The socket can be read from or written to: does what can be done without waiting. False: it is over. */
bool connection_serve(struct connection *connection, struct workbench *bench);
/* Tells it what it is to be told without having asked, if it can be told now. False: it is over. */
bool connection_send_mail(struct connection *connection, struct workbench *bench);
/* What epoll should report now: EPOLLIN or EPOLLOUT. */
uint32_t connection_wants(const struct connection *connection);
/* Nothing of it is under way. */
bool connection_is_at_rest(const struct connection *connection);

#endif
