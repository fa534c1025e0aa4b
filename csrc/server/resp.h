/*
 * resp.h - Redis' protocol, versions 2 and 3: its state in a session, its replies, and the handlers for the table of commands.
 *
 *   *2\r\n$3\r\nGET\r\n$1\r\na\r\n       a command: an array of strings of known length
 *   ^bytes^request->line                  request->words: the first of them; resp_next() goes through all
 *
 * Callers: command.c, session.c, parser_resp.c.
 */
#ifndef DRP_SERVER_RESP_H
#define DRP_SERVER_RESP_H

#include <string.h>
#include <strings.h>

#include "server/request.h"

enum { RESP_KEY_BYTES = 16 * 1024, RESP_NAME_BYTES = 64 };

struct tracker;

struct resp_state {
	uint64_t id;
	int protocol;              /* 2, or 3 once HELLO asked for it */
	uint32_t total, done;      /* strings of the command under way: in all, and seen so far */
	size_t at;                 /* where the next of them begins, from the beginning of the command */
	const char *discards;      /* the command is thrown away as it comes, and this is the answer; NULL: it is not */
	bool is_queueing, is_aborted; /* between MULTI and EXEC; one of its commands was wrong */
	bool is_executing;
	unsigned char *queue;      /* whole commands */
	size_t queue_bytes, queue_capacity, queue_at;
	unsigned queued;
	struct tracker *tracker;   /* it is told of changes; NULL: it did not ask */
	char name[RESP_NAME_BYTES];
};

/* NULL: there is no memory. */
struct resp_state *resp_create(struct service *service);
void resp_destroy(struct resp_state *resp, struct budget *budget);

/* The next string of a command, from *at on; the command is known to be whole. */
bool resp_next(const char **at, const char *end, struct word *word);
/* An integer as Redis takes it: digits, the first of them no 0 unless it is alone, and perhaps a minus. False: it is none. */
bool resp_integer(const struct word *word, int64_t *out);

void resp_error(struct session *session, const char *text); /* "ERR ..." */
void resp_ok(struct session *session);
void resp_number(struct session *session, int64_t number);
void resp_null(struct session *session);
void resp_string(struct session *session, const void *bytes, size_t count);
void resp_array(struct session *session, size_t count);
void resp_map(struct session *session, size_t pairs);

#define RESP_NO_MEMORY "OOM no memory is left that this value could be stored in"

/* The whole reply of a handler: an error, which names its kind first, or a number. */
static inline enum step resp_fail(struct session *session, const char *text)
{
	resp_error(session, text);
	return STEP_DONE;
}

static inline enum step resp_answer_number(struct session *session, int64_t number)
{
	resp_number(session, number);
	return STEP_DONE;
}

/* Words of the protocol are the same in either case. */
static inline bool resp_is(const struct word *word, const char *text)
{
	return word->count == strlen(text) && strncasecmp(word->bytes, text, word->count) == 0;
}

/* Of a connection: resp.c */
enum step resp_hello(struct session *session, struct request *request);
enum step resp_auth(struct session *session, struct request *request);
enum step resp_client(struct session *session, struct request *request);
enum step resp_select(struct session *session, struct request *request);
enum step resp_ping(struct session *session, struct request *request);
enum step resp_echo(struct session *session, struct request *request);
enum step resp_quit(struct session *session, struct request *request);
enum step resp_info(struct session *session, struct request *request);
enum step resp_command(struct session *session, struct request *request);
enum step resp_config(struct session *session, struct request *request);
enum step resp_time(struct session *session, struct request *request);
enum step resp_dbsize(struct session *session, struct request *request);
enum step resp_flush(struct session *session, struct request *request);
enum step resp_multi(struct session *session, struct request *request);
enum step resp_discard(struct session *session, struct request *request);
/* EXEC itself is the parser's: it runs the commands that wait. */

/* Of values: resp_values.c */
enum step resp_get(struct session *session, struct request *request);
enum step resp_getdel(struct session *session, struct request *request);
enum step resp_getex(struct session *session, struct request *request);
enum step resp_set(struct session *session, struct request *request);
enum step resp_setnx(struct session *session, struct request *request);
enum step resp_setex(struct session *session, struct request *request); /* SETEX PSETEX */
enum step resp_getset(struct session *session, struct request *request);
enum step resp_append(struct session *session, struct request *request);
enum step resp_strlen(struct session *session, struct request *request);
enum step resp_mget(struct session *session, struct request *request);
enum step resp_mset(struct session *session, struct request *request);
enum step resp_delete(struct session *session, struct request *request); /* DEL UNLINK */
enum step resp_exists(struct session *session, struct request *request); /* EXISTS TOUCH */
enum step resp_type(struct session *session, struct request *request);
enum step resp_expire(struct session *session, struct request *request); /* EXPIRE PEXPIRE EXPIREAT PEXPIREAT */
enum step resp_persist(struct session *session, struct request *request);
enum step resp_ttl(struct session *session, struct request *request); /* TTL PTTL EXPIRETIME PEXPIRETIME */
enum step resp_incr(struct session *session, struct request *request); /* INCR DECR INCRBY DECRBY */

#endif
