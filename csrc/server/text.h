/*
 * text.h - memcached's classic commands: the handlers, for the table of commands, and the parser, for the session.
 *
 * Callers: command.c, session.c.
 */
#ifndef DRP_SERVER_TEXT_H
#define DRP_SERVER_TEXT_H

#include "server/request.h"

enum step text_get(struct session *session, struct request *request);     /* get gets gat gats */
enum step text_store(struct session *session, struct request *request);   /* set add replace append prepend cas */
enum step text_arithmetic(struct session *session, struct request *request); /* incr decr */
enum step text_delete(struct session *session, struct request *request);
enum step text_touch(struct session *session, struct request *request);
enum step text_flush_all(struct session *session, struct request *request);
enum step text_version(struct session *session, struct request *request);
enum step text_verbosity(struct session *session, struct request *request);
enum step text_stats(struct session *session, struct request *request);
enum step text_memlimit(struct session *session, struct request *request); /* and other settings, all answered by OK */
enum step text_shutdown(struct session *session, struct request *request);
enum step text_debugtime(struct session *session, struct request *request);
enum step text_quit(struct session *session, struct request *request);

#endif
