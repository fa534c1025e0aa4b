/*
 * server.h - the server's life: listeners, workers, the tick, and the way to stop.
 *
 *   main thread: listeners --> accept --> worker 0, 1, 2, ... in turn
 *                signals, shutdown --> stop: no more connections; workers answer what is under way
 *                tick: what expired leaves, memory is given back ahead of demand, though no command comes
 *
 * Callers: main.c.
 */
#ifndef DRP_SERVER_SERVER_H
#define DRP_SERVER_SERVER_H

#include "server/options.h"

/* Runs until SIGTERM, SIGINT or a client's shutdown; the program's status. */
int server_run(const struct options *options);

#endif
