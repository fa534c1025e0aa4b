/*
 * request.h - one command of memcached's protocols as the parser found it, and how a handler answers.
 *
 *   bytes    set key 5 0 3 noreply\r\n abc\r\n get ...
 *            ^words                    ^rest
 *   A handler that needs more of rest than is there says so (STEP_MORE and session->need_bytes), and is called again with
 *   the whole; it must have changed and answered nothing until then.
 *
 * Callers: text.c, meta.c and their parser.
 */
#ifndef DRP_SERVER_REQUEST_H
#define DRP_SERVER_REQUEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "server/incoming.h"
#include "server/session.h"

enum { REQUEST_WORDS = 24, REQUEST_LINE_BYTES = 2048 };

struct word {
	const char *bytes;
	size_t count;
};

struct request {
	const char *line; /* without its end */
	size_t line_bytes;
	size_t head_bytes; /* with its end */
	const unsigned char *rest;
	size_t rest_bytes;
	struct word words[REQUEST_WORDS]; /* the last one may stand for several: a handler that cares looks at the line */
	unsigned count;
	bool is_quiet; /* nothing nominal is answered */
	size_t used;   /* by a handler that finished: head_bytes and what it took of rest */
};

enum step {
	STEP_DONE,    /* request->used bytes are dealt with */
	STEP_MORE,    /* nothing was done, session->need_bytes are needed */
	STEP_BLOCKED, /* session->resume_at tells how far it came */
	STEP_CLOSE,
};

static inline bool word_is(const struct word *word, const char *text)
{
	return word->count == strlen(text) && memcmp(word->bytes, text, word->count) == 0;
}

/* The next word from *at on, or false. */
static inline bool word_next(const char **at, const char *end, struct word *word)
{
	while (*at < end && **at == ' ')
		(*at)++;
	if (*at == end)
		return false;
	word->bytes = *at;
	const char *stop = memchr(*at, ' ', (size_t)(end - *at));
	*at = stop ? stop : end;
	word->count = (size_t)(*at - word->bytes);
	return true;
}

/* Numbers as memcached reads them: digits, a sign where it makes sense, and no other letter behind them. */
bool word_unsigned(const struct word *word, uint64_t *out);
bool word_unsigned_32(const struct word *word, uint32_t *out);
bool word_signed_32(const struct word *word, int32_t *out); /* larger ones lose their high bits, as there */

/* Until an entry expires, from a number of seconds as memcached has it: relative up to 30 days, else since 1970. */
uint64_t request_ttl_ns(struct session *session, int32_t seconds);

static inline void request_answer(struct session *session, const struct request *request, const char *text)
{
	if (!request->is_quiet)
		output_text(session->out, text);
}

/*
 * A value that belongs to the command: count bytes and \r\n. STEP_DONE: *value is there, request->used is set. If the value
 * cannot be taken, STEP_CLOSE, and the session skips it: there is no memory for it now, or it is too large for ever. *ends_well: the
 * \r\n is there. key: under which it is to be stored.
 */
enum step request_value(struct session *session, struct request *request, struct keyspace_key key, size_t count,
			const unsigned char **value, bool *ends_well);
/* For keyspace_put() of a command that is run once: where its value lies, if it came straight into the cache's pages; else NULL. */
static inline struct cache_fill *request_fill(struct session *session)
{
	return session->incoming ? &session->incoming->fill : NULL;
}

#endif
