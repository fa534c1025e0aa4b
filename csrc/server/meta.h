/*
 * meta.h - memcached's meta commands: the handlers, for the table of commands.
 *
 * Callers: command.c.
 */
#ifndef DRP_SERVER_META_H
#define DRP_SERVER_META_H

#include "server/request.h"

enum step meta_get(struct session *session, struct request *request);
enum step meta_set(struct session *session, struct request *request);
enum step meta_delete(struct session *session, struct request *request);
enum step meta_arithmetic(struct session *session, struct request *request);
enum step meta_noop(struct session *session, struct request *request);
enum step meta_debug(struct session *session, struct request *request);

#endif
