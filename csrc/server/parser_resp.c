/*
 * parser_resp.c - Redis' protocol, from bytes to a command that is run; and what waits between MULTI and EXEC.
 *
 *   *3\r\n $3\r\nSET\r\n $1\r\na\r\n $5\r\nhel            done 2 of 3; at: behind the a; need_bytes: with the whole of hello\r\n
 *
 * What was seen of a command that is not whole is kept, so that it is read once only, however it arrives. A command that is too
 * large, or for which there is no memory, is thrown away string by string as it comes; then it is answered by an error. Only where
 * nobody can tell where the next command begins, the connection ends.
 *
 * The value of a command that stores one may be on its way into the cache's pages (incoming.h). Then the bytes that are looked at
 * here have nothing between the value's length and the \r\n behind it.
 */
#include <stdio.h>
#include <stdlib.h>

#include "server/command.h"
#include "server/parser.h"
#include "server/resp.h"

#define NO_MEMORY "OOM no memory is left for this command"

enum { STRINGS_MOST = 1 << 20, NUMBER_MOST_BYTES = 24, QUEUE_LEAST_BYTES = 1024 };

/* A line "<kind><number>\r\n" at the given place. 1: it is there, *end behind it; 0: it is not whole yet; -1: it is none. */
static int read_head(const unsigned char *bytes, size_t count, size_t at, char kind, int64_t *number, size_t *end)
{
	uint64_t value = 0;
	size_t digits = 0;

	if (at >= count)
		return 0;
	if (bytes[at] != (unsigned char)kind)
		return -1;
	size_t i = at + 1;
	const bool is_negative = i < count && bytes[i] == '-';
	for (i += is_negative; i < count && bytes[i] >= '0' && bytes[i] <= '9'; i++, digits++) {
		if (digits == 18)
			return -1;
		value = value * 10 + (uint64_t)(bytes[i] - '0');
	}
	if (i < count && (bytes[i] != '\r' || digits == 0))
		return -1;
	if (i + 1 < count && bytes[i + 1] != '\n')
		return -1;
	if (i + 1 >= count)
		return 0;
	if (is_negative && value == 0)
		return -1; /* resp_next() reads a length that passed here as digits alone, and would read the sign as one */
	*number = is_negative ? -(int64_t)value : (int64_t)value;
	*end = i + 2;
	return 1;
}

static enum step lose(struct session *session, const char *text)
{
	COUNT(session->counts, protocol_errors);
	resp_error(session, text);
	return STEP_CLOSE;
}

/*
 * Throws away the next string of the command; the session skips it as it comes. With the last one the client is told.
 */
static enum step discard(struct session *session, const unsigned char *bytes, size_t count, size_t *taken)
{
	struct resp_state *resp = session->resp;
	int64_t length;
	size_t end;

	const int read = read_head(bytes, count, resp->at, '$', &length, &end);
	if (read < 0 || (read == 0 && count - resp->at > NUMBER_MOST_BYTES))
		return lose(session, "ERR Protocol error: expected '$'");
	if (read == 0) {
		session->need_bytes = count + 1;
		return STEP_MORE;
	}
	if (length < 0)
		return lose(session, "ERR Protocol error: invalid bulk length");
	session->skip_bytes = (uint64_t)length + 2;
	*taken = end;
	resp->at = 0;
	if (++resp->done < resp->total)
		return STEP_DONE;
	resp_error(session, resp->discards);
	resp->is_aborted = resp->is_queueing;
	resp->discards = NULL;
	resp->total = resp->done = 0;
	return STEP_DONE;
}

static enum step begin_discard(struct session *session, const unsigned char *bytes, size_t count, size_t *taken,
			       const char *text)
{
	session->refuses_value = false;
	session->resp->discards = text;
	return discard(session, bytes, count, taken);
}

/* Does the string that begins at bytes[end] lie in the cache's pages, or come to lie there? */
static bool lies_apart(const struct session *session, size_t end)
{
	return session->incoming && session->incoming->head_bytes == end;
}

/*
 * A large string has not come whole: is it the value that its command stores? Then it may go straight to the cache. Its key
 * is among the strings before it.
 */
static enum incoming_begun begin_value(struct session *session, const unsigned char *bytes, size_t end, size_t length)
{
	struct service *service = session->service;
	const struct resp_state *resp = session->resp;
	const char *at = memchr(bytes, '\n', end), *const stop = (const char *)bytes + end;
	struct word name = {0}, key = {0};

	if (length < INCOMING_LEAST_BYTES || session->incoming || !session->is_authenticated || resp->is_queueing ||
	    (resp->done != 2 && resp->done != 3))
		return INCOMING_ELSEWHERE;
	at++;
	resp_next(&at, stop, &name);
	resp_next(&at, stop, &key);
	const struct command *command = command_find(DIALECT_RESP, name.bytes, name.count);
	if (!command || !(command->traits & (resp->done == 2 ? COMMAND_STORES_2 : COMMAND_STORES_3)) || key.count > RESP_KEY_BYTES)
		return INCOMING_ELSEWHERE;
	return incoming_begin(&service->keyspace, &service->budget, (struct keyspace_key){key.bytes, key.count}, bytes, end,
			      length, &session->incoming);
}

/* Looks at the strings that have come. STEP_DONE: the command is whole, and ends at resp->at. */
static enum step scan(struct session *session, const unsigned char *bytes, size_t count, size_t *taken)
{
	const struct settings *settings = &session->service->settings;
	struct resp_state *resp = session->resp;

	while (resp->done < resp->total) {
		int64_t length = 0;
		size_t end = 0;
		const int read = read_head(bytes, count, resp->at, '$', &length, &end);
		if (read < 0 || (read == 0 && count - resp->at > NUMBER_MOST_BYTES))
			return lose(session, "ERR Protocol error: expected '$'");
		if (read > 0 && (length < 0 || length > INT32_MAX))
			return lose(session, "ERR Protocol error: invalid bulk length");
		if (read > 0 && (size_t)length > settings->max_value_bytes) {
			COUNT(session->counts, store_too_large);
			return begin_discard(session, bytes, count, taken, "ERR the value is larger than the server's --max-value");
		}
		const size_t here = lies_apart(session, end) ? 0 : (size_t)length;
		const size_t whole = read > 0 ? end + here + 2 : count + 1;
		if (whole > settings->max_request_bytes)
			return begin_discard(session, bytes, count, taken, "ERR the command is larger than four values may be");
		if (whole > count) {
			if (session->refuses_value) {
				COUNT(session->counts, store_no_memory);
				return begin_discard(session, bytes, count, taken, NO_MEMORY);
			}
			switch (read > 0 ? begin_value(session, bytes, end, (size_t)length) : INCOMING_ELSEWHERE) {
			case INCOMING_BEGUN:
				return STEP_MORE;
			case INCOMING_REFUSED:
				COUNT(session->counts, store_no_memory);
				return begin_discard(session, bytes, count, taken, NO_MEMORY);
			case INCOMING_ELSEWHERE:
				session->need_bytes = whole;
				return STEP_MORE;
			}
		}
		if (memcmp(bytes + whole - 2, "\r\n", 2) != 0)
			return lose(session, "ERR Protocol error: a string does not end where it should");
		resp->at = whole;
		resp->done++;
	}
	return STEP_DONE;
}

/* apart: a string that begins there lies at value instead; or NULL. */
static bool next_string(const char **at, const char *end, const char *apart, const void *value, struct word *word)
{
	if (*at >= end)
		return false;
	const char *digit = *at + 1;
	size_t length = 0;
	for (; *digit != '\r'; digit++)
		length = length * 10 + (size_t)(*digit - '0');
	const char *const begins = digit + 2;
	word->bytes = begins == apart ? value : begins;
	word->count = length;
	*at = begins + (begins == apart ? 0 : length) + 2;
	return true;
}

bool resp_next(const char **at, const char *end, struct word *word)
{
	return next_string(at, end, NULL, NULL, word);
}

bool resp_integer(const struct word *word, int64_t *out)
{
	uint64_t value = 0;
	const bool is_negative = word->count > 0 && word->bytes[0] == '-';

	if (word->count == (size_t)is_negative || word->count > 20 || (word->bytes[is_negative] == '0' && word->count > 1))
		return false;
	for (size_t i = is_negative; i < word->count; i++)
		if (word->bytes[i] < '0' || word->bytes[i] > '9' || __builtin_mul_overflow(value, (uint64_t)10, &value) ||
		    __builtin_add_overflow(value, (uint64_t)(word->bytes[i] - '0'), &value))
			return false;
	if (value > (uint64_t)INT64_MAX + is_negative)
		return false;
	*out = is_negative ? (int64_t)(0 - value) : (int64_t)value;
	return true;
}

/* A whole command, from its first byte to its last. */
static void open_request(const struct incoming *incoming, struct request *request, const unsigned char *bytes, size_t count)
{
	const char *at = memchr(bytes, '\n', count);

	request->line = at + 1;
	request->line_bytes = count - (size_t)(request->line - (const char *)bytes);
	request->head_bytes = request->used = count;
	request->rest = NULL;
	request->rest_bytes = 0;
	request->is_quiet = false;
	request->count = 0;
	at = request->line;
	const char *const end = request->line + request->line_bytes;
	const char *const apart = incoming ? (const char *)bytes + incoming->head_bytes : NULL;
	const void *const value = incoming ? incoming->fill.value : NULL;
	struct word word;
	for (; next_string(&at, end, apart, value, &word); request->count++)
		if (request->count < REQUEST_WORDS)
			request->words[request->count] = word;
}

/* NULL, after the client was told why. */
static const struct command *find(struct session *session, const struct request *request)
{
	const struct word *name = &request->words[0];
	const struct command *command = command_find(DIALECT_RESP, name->bytes, name->count);
	char text[256];

	if (!session->is_authenticated && (!command || !(command->traits & COMMAND_BEFORE_LOGIN))) {
		resp_error(session, "NOAUTH Authentication required.");
		return NULL;
	}
	const int shown = name->count < 64 ? (int)name->count : 64;
	bool is_printable = true;
	for (int i = 0; i < shown; i++)
		is_printable = is_printable && name->bytes[i] >= ' ' && name->bytes[i] <= '~';
	if (!command)
		snprintf(text, sizeof(text), "ERR unknown command '%.*s'", is_printable ? shown : 3, is_printable ? name->bytes : "...");
	else if (request->count < command->least_words || (command->most_words > 0 && request->count > command->most_words))
		snprintf(text, sizeof(text), "ERR wrong number of arguments for '%s' command", command->name);
	else
		return command;
	resp_error(session, text);
	return NULL;
}

/* Keeps a command until EXEC. */
static void queue(struct session *session, const unsigned char *bytes, size_t count)
{
	struct resp_state *resp = session->resp;
	struct budget *budget = &session->service->budget;

	if (resp->queue_capacity - resp->queue_bytes < count) {
		size_t capacity = resp->queue_capacity ? resp->queue_capacity : QUEUE_LEAST_BYTES;
		while (capacity - resp->queue_bytes < count)
			capacity *= 2;
		const bool fits = resp->queue_bytes + count <= session->service->settings.max_request_bytes &&
				  budget_take(budget, capacity - resp->queue_capacity);
		unsigned char *grown = fits ? realloc(resp->queue, capacity) : NULL;
		if (!grown) {
			if (fits)
				budget_give(budget, capacity - resp->queue_capacity);
			resp->is_aborted = true;
			resp_error(session, "OOM no memory is left for this transaction");
			return;
		}
		resp->queue = grown;
		resp->queue_capacity = capacity;
	}
	memcpy(resp->queue + resp->queue_bytes, bytes, count);
	resp->queue_bytes += count;
	resp->queued++;
	output_text(session->out, "+QUEUED\r\n");
}

static void end_queue(struct session *session)
{
	struct resp_state *resp = session->resp;

	free(resp->queue);
	budget_give(&session->service->budget, resp->queue_capacity);
	resp->queue = NULL;
	resp->queue_bytes = resp->queue_capacity = resp->queue_at = 0;
	resp->queued = 0;
	resp->is_queueing = resp->is_aborted = resp->is_executing = false;
}

enum step resp_discard(struct session *session, struct request *request)
{
	(void)request;
	if (!session->resp->is_queueing) {
		resp_error(session, "ERR DISCARD without MULTI");
		return STEP_DONE;
	}
	end_queue(session);
	resp_ok(session);
	return STEP_DONE;
}

/* How long the whole command at the front of these bytes is. */
static size_t length_of(const unsigned char *bytes, size_t count)
{
	const char *at = memchr(bytes, '\n', count), *const end = (const char *)bytes + count;
	const char *digit = (const char *)bytes + 1;
	size_t strings = 0;
	struct word word;

	for (; *digit != '\r'; digit++)
		strings = strings * 10 + (size_t)(*digit - '0');
	for (at++; strings > 0 && resp_next(&at, end, &word);)
		strings--;
	return (size_t)(at - (const char *)bytes);
}

/* Runs what waits. A reader that is slow gets the rest later: queue_at says where it goes on. */
static enum step execute(struct session *session)
{
	struct resp_state *resp = session->resp;

	if (!resp->is_executing) {
		if (resp->is_aborted) {
			end_queue(session);
			resp_error(session, "EXECABORT Transaction discarded because of previous errors.");
			return STEP_DONE;
		}
		resp->is_executing = true;
		resp_array(session, resp->queued);
	}
	while (resp->queue_at < resp->queue_bytes) {
		unsigned char *bytes = resp->queue + resp->queue_at;
		const size_t count = length_of(bytes, resp->queue_bytes - resp->queue_at);
		struct request request;
		if (output_is_blocked(session->out)) {
			if (session->resume_at == 0)
				session->resume_at = SIZE_MAX; /* between two commands */
			return STEP_BLOCKED;
		}
		if (session->resume_at == SIZE_MAX)
			session->resume_at = 0;
		open_request(NULL, &request, bytes, count);
		const struct command *command = find(session, &request);
		const enum step step = command ? command->run(session, &request) : STEP_DONE;
		if (step != STEP_DONE)
			return step;
		resp->queue_at += count;
	}
	session->resume_at = 0;
	end_queue(session);
	return STEP_DONE;
}

static enum step run(struct session *session, const unsigned char *bytes, size_t count)
{
	struct resp_state *resp = session->resp;
	struct request request;

	open_request(session->incoming, &request, bytes, count);
	const struct word *name = &request.words[0];
	const bool is_exec = resp_is(name, "EXEC");
	const struct command *command = is_exec ? NULL : find(session, &request);
	if (is_exec && session->is_authenticated) {
		if (resp->is_queueing)
			return execute(session);
		resp_error(session, "ERR EXEC without MULTI");
		return STEP_DONE;
	}
	if (is_exec) {
		resp_error(session, "NOAUTH Authentication required.");
		return STEP_DONE;
	}
	if (!command) {
		resp->is_aborted = resp->is_queueing;
		return STEP_DONE;
	}
	if (resp->is_queueing && !(command->traits & COMMAND_NOT_QUEUED)) {
		queue(session, bytes, count);
		return STEP_DONE;
	}
	return command->run(session, &request);
}

enum step parse_resp_command(struct session *session, const unsigned char *bytes, size_t count, size_t *taken)
{
	if (!session->resp) {
		session->resp = resp_create(session->service);
		if (!session->resp)
			return STEP_CLOSE;
	}
	struct resp_state *resp = session->resp;
	if (resp->discards)
		return discard(session, bytes, count, taken);
	if (resp->total == 0) {
		int64_t strings;
		size_t end;
		const int read = read_head(bytes, count, 0, '*', &strings, &end);
		if (read < 0 || (read == 0 && count > NUMBER_MOST_BYTES))
			return lose(session, "ERR Protocol error: expected '*'");
		if (read == 0) {
			session->need_bytes = count + 1;
			return STEP_MORE;
		}
		if (strings > STRINGS_MOST)
			return lose(session, "ERR Protocol error: invalid multibulk length");
		if (strings <= 0) {
			*taken = end;
			return STEP_DONE;
		}
		resp->total = (uint32_t)strings;
		resp->done = 0;
		resp->at = end;
	}
	enum step step = scan(session, bytes, count, taken);
	if (step != STEP_DONE || *taken > 0) /* more is needed; or a string of it was thrown away */
		return step;
	step = run(session, bytes, resp->at);
	if (step == STEP_DONE || step == STEP_CLOSE) {
		*taken = resp->at;
		resp->total = resp->done = 0;
		resp->at = 0;
	}
	return step;
}
