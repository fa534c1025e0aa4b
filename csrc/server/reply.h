/*
 * reply.h - a value on its way out, copied from the cache to where it is sent from, once.
 *
 *   output  ... | header, as long as it is guessed | value | end |
 *
 * The header tells what is only known once the value was copied (flags, version). So its length is guessed from the one
 * before, and the value is moved by the difference where the guess was wrong.
 *
 * Callers: the commands that answer with values.
 */
#ifndef DRP_SERVER_REPLY_H
#define DRP_SERVER_REPLY_H

#include "server/session.h"

enum { REPLY_HEADER_MOST = 640, REPLY_ROOM_BYTES = 40 * 1024 /* for a value that is copied under a lock of the cache */ };

struct reply {
	struct keyspace_sink sink;
	struct output *out;
	size_t header_bytes; /* the guess, without the digits of the value's size */
	unsigned char *room;
	size_t guessed_bytes; /* with them */
};

static inline unsigned digits_of(uint64_t number)
{
	unsigned digits = 1;

	for (; number >= 10; number /= 10)
		digits++;
	return digits;
}
/* Writes a number, and returns where it ends. */
char *put_number(char *at, uint64_t number);
static inline char *put_text(char *at, const void *text, size_t count)
{
	memcpy(at, text, count);
	return at + count;
}

/* keyspace_get() into the output. Room for the header is left before the value; reply_finish() completes it. */
enum keyspace_answer reply_get(struct reply *reply, struct session *session, struct keyspace_key key, size_t header_bytes,
			    struct keyspace_item *item);
/* header and end go around the value, and all three count from now on. with_value false: the header and end alone. */
void reply_finish(struct reply *reply, const char *header, size_t header_bytes, size_t value_bytes, const char *end,
		  size_t end_bytes);

#endif
