/*
 * direct.h - commands of droppable.connect(), whose clients read values from this process's memory without asking.
 *
 *   DROPPABLE.ATTACH      descriptors, and what a client has to know to read through them; over a unix socket alone
 *
 * They are commands of RESP, so that keys and values may be any bytes.
 *
 * Callers: command.c.
 */
#ifndef DRP_SERVER_DIRECT_H
#define DRP_SERVER_DIRECT_H

#include "server/request.h"

enum { DIRECT_LAYOUT = 1 /* of what a client reads: another number where any of it changes */ };

enum step direct_attach(struct session *session, struct request *request);

#endif
