/*
 * incoming.h - a command whose value goes from the socket straight into the cache's pages.
 *
 *   set key 0 0 1048576\r\n vvvvvvvvvvvvvvvvvvvvvvvvvvvvvvv \r\n
 *   |---- bytes: head ------|-- fill.value: pages of the cache --|-- bytes: behind the head
 *
 * So a large value needs neither a buffer of its connection nor a copy. The command is run again once it is whole, from bytes, in
 * which only the value is missing. Pages that are being written cannot be dropped, so they are in the budget of all buffers.
 * Until the command is run the key keeps what it has, and incoming_end() leaves nothing of a value that never became whole.
 *
 * Callers: the parsers begin one; session.c feeds and ends it.
 */
#ifndef DRP_SERVER_INCOMING_H
#define DRP_SERVER_INCOMING_H

#include <stdbool.h>
#include <stddef.h>

#include "cache/fill.h"
#include "server/budget.h"
#include "server/keyspace.h"

enum { INCOMING_LEAST_BYTES = 4096, INCOMING_HEAD_BYTES = 32 * 1024 /* at most, of a command before its value */ };

struct incoming {
	struct cache_fill fill;
	struct budget *budget;
	size_t value_bytes, filled_bytes; /* of the value; a fill that was stored knows its length no more */
	size_t head_bytes;    /* of bytes: what came before the value */
	size_t count, need_bytes, capacity; /* of bytes: what there is, and what has to be there before the command is run */
	unsigned char *bytes;
};

enum incoming_begun {
	INCOMING_BEGUN,
	INCOMING_ELSEWHERE, /* a value of that length is to be taken into memory of the connection */
	INCOMING_REFUSED,   /* there is no memory for it */
};

/* head: of the command, up to its value. *out is to be ended by incoming_end(). */
enum incoming_begun incoming_begin(struct keyspace *keyspace, struct budget *budget, struct keyspace_key key, const void *head,
				   size_t head_bytes, size_t value_bytes, struct incoming **out);
/* The value's memory is given back, if it was not stored. *incoming is NULL afterwards; it may be before. */
void incoming_end(struct incoming **incoming);

/* Where the next *room_bytes of the value go, or NULL if it is whole. */
void *incoming_room(const struct incoming *incoming, size_t *room_bytes);
/* So many were written there. */
void incoming_filled(struct incoming *incoming, size_t bytes);
/* Takes what belongs to the command; how much it was. Afterwards it is whole, as far as is known, or all was taken. */
size_t incoming_take(struct incoming *incoming, const unsigned char *bytes, size_t count);
bool incoming_is_whole(const struct incoming *incoming);
/* The command turned out to be longer: so many of bytes are needed. False: there is no memory for that. */
bool incoming_need(struct incoming *incoming, size_t need_bytes);

#endif
