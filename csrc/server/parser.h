/*
 * parser.h - the parsers: from bytes to one command of the table, which is run.
 *
 * Callers: session.c.
 */
#ifndef DRP_SERVER_PARSER_H
#define DRP_SERVER_PARSER_H

#include "server/request.h"

/* memcached's protocols: a line of words, and a value behind some. *taken: bytes dealt with. */
enum step parse_line_command(struct session *session, const unsigned char *bytes, size_t count, size_t *taken);
/* Redis' protocol: an array of strings of known length. */
enum step parse_resp_command(struct session *session, const unsigned char *bytes, size_t count, size_t *taken);

#endif
