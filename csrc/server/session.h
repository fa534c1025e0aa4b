/*
 * session.h - one client's conversation: its bytes become commands, and those become replies. It knows no sockets.
 *
 *   bytes  [ command | command | half a comm ]
 *           session_take() runs both; the rest stays with the caller, who comes again with more behind it
 *
 * The first byte tells the protocol: '*' begins each command of RESP and none of memcached's.
 * A session belongs to one worker, so nothing of it is locked.
 *
 * Callers: connection.c; tests.
 */
#ifndef DRP_SERVER_SESSION_H
#define DRP_SERVER_SESSION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "server/output.h"
#include "server/service.h"

struct incoming;

enum dialect { DIALECT_UNKNOWN = 0, DIALECT_TEXT = 1, DIALECT_META = 2, DIALECT_RESP = 4 };

struct session {
	struct service *service;
	struct counts *counts;
	struct output *out;      /* set by the caller before each session_take() */
	unsigned dialect;        /* TEXT, with META among it, or RESP */
	bool is_authenticated;
	bool is_local;           /* it came by a unix socket */
	bool has_claims;         /* it may compute values that others wait for: claims.h */
	bool passes;             /* the next bytes that leave take the descriptors of service->passed along */
	bool refuses_value;      /* the caller has no memory for the value under way: it is to be refused and skipped */
	uint64_t skip_bytes;     /* of a value that is not wanted */
	struct incoming *incoming; /* the command under way, if its value goes into the cache's pages as it comes; or NULL */
	size_t need_bytes;       /* from the beginning of the command under way: nothing can be done with less */
	size_t resume_at;        /* of the command under way: what comes before has been answered */
	/* How long the last header of a reply was, as a guess for the next: reply.h */
	uint8_t flags_digits, version_digits;
	uint16_t meta_header_bytes;
	struct resp_state *resp; /* resp.c; NULL for memcached's clients */
	/* Set by the owner before the first byte: called from any thread when there is something to say without being asked. */
	void (*wake)(void *of);
	void *wakes;
};

enum taken {
	TAKEN,         /* as much as could be; *used tells how much. More is needed for the rest, see need_bytes */
	TAKEN_BLOCKED, /* the replies must leave first; the same bytes again then */
	TAKEN_CLOSE,   /* the conversation is over, once its replies have left */
};

void session_init(struct session *session, struct service *service, struct counts *counts);
void session_destroy(struct session *session);
enum taken session_take(struct session *session, const unsigned char *bytes, size_t count, size_t *used);
/*
 * Where the next *room_bytes of a value go, or NULL: whoever reads them there from the socket saves a copy. session_filled() tells how
 * many it were; what comes behind them goes to session_take().
 */
void *session_room(const struct session *session, size_t *room_bytes);
void session_filled(struct session *session, size_t bytes);
/* What the client is to be told without having asked: is there something, and, between two commands, writes it. */
bool session_has_mail(const struct session *session);
void session_send_mail(struct session *session);
/* Is it between two commands? */
bool session_is_at_rest(const struct session *session);

#endif
