/*
 * worker.h - one thread that serves connections as their sockets become ready.
 *
 *   the listening thread --worker_give()--> arrivals --(eventfd)--> the worker's own list, its epoll set
 *
 * Threads: worker_give() and worker_wake() may be called from any; the rest is the worker's own.
 *
 * Callers: server.c.
 */
#ifndef DRP_SERVER_WORKER_H
#define DRP_SERVER_WORKER_H

#include <stdbool.h>

#include "server/service.h"

struct worker;
struct connection;

/* Starts a thread. Its counts are those of that number in service->counts. NULL: errno tells why. */
struct worker *worker_start(struct service *service, unsigned number);
/* Hands a connected socket over; it is closed in any case. */
void worker_give(struct worker *worker, int descriptor);
/* Makes it look at service->is_stopping: it then answers what is under way and ends. */
void worker_wake(struct worker *worker);
/* Waits for its end, and frees it. */
void worker_join(struct worker *worker);

#endif
