/*
 * parser_line.c - memcached's protocols, from bytes to a command that is run.
 *
 *   get key key\r\n      set key 0 0 3\r\nabc\r\n      mg key v t\r\n      a line ends with \n, and a \r before it is no part of it
 *
 * A line of more than REQUEST_LINE_BYTES that has no end yet is no command, unless it asks for many keys.
 */
#include <string.h>

#include "server/command.h"
#include "server/parser.h"

static bool begins(const unsigned char *bytes, size_t count, const char *text)
{
	const size_t length = strlen(text);

	return count >= length && memcmp(bytes, text, length) == 0;
}

/* Whoever sends this has mistaken the port: it gets nothing to work with. */
static bool is_http(const unsigned char *bytes, size_t count)
{
	return begins(bytes, count, "GET /") || begins(bytes, count, "POST ") || begins(bytes, count, "PUT ") ||
	       begins(bytes, count, "HEAD ") || begins(bytes, count, "OPTIONS ") || begins(bytes, count, "DELETE ") ||
	       begins(bytes, count, "CONNECT ") || begins(bytes, count, "Host:");
}

static bool may_be_long(const unsigned char *bytes, size_t count)
{
	while (count > 0 && *bytes == ' ') {
		bytes++;
		count--;
	}
	return begins(bytes, count, "get ") || begins(bytes, count, "gets ") || begins(bytes, count, "gat ") ||
	       begins(bytes, count, "gats ");
}

/* All words of the line, as far as there is place. The last place takes the rest of the line. */
static void split(struct request *request)
{
	const char *at = request->line, *const end = request->line + request->line_bytes;

	request->count = 0;
	while (request->count < REQUEST_WORDS && word_next(&at, end, &request->words[request->count]))
		request->count++;
}

static enum step run(struct session *session, struct request *request)
{
	const char *at = request->line;
	struct word name;

	if (!word_next(&at, request->line + request->line_bytes, &name)) {
		output_text(session->out, "ERROR\r\n");
		return STEP_DONE;
	}
	const struct command *command = command_find(DIALECT_TEXT | DIALECT_META, name.bytes, name.count);
	if (!session->is_authenticated && (!command || !(command->traits & COMMAND_BEFORE_LOGIN))) {
		output_text(session->out, "CLIENT_ERROR unauthenticated\r\n");
		return STEP_DONE;
	}
	if (command && (command->traits & COMMAND_READS_LINE))
		return command->run(session, request);
	split(request);
	if (!command || request->count < command->least_words ||
	    (command->most_words > 0 && request->count > command->most_words)) {
		output_text(session->out, "ERROR\r\n");
		return STEP_DONE;
	}
	return command->run(session, request);
}

enum step parse_line_command(struct session *session, const unsigned char *bytes, size_t count, size_t *taken)
{
	const unsigned char *end = memchr(bytes, '\n', count);

	if (is_http(bytes, count)) {
		COUNT(session->counts, protocol_errors);
		return STEP_CLOSE;
	}
	if (!end) {
		const bool is_long = may_be_long(bytes, count);
		if (count > (is_long ? session->service->settings.max_request_bytes : REQUEST_LINE_BYTES) ||
		    session->refuses_value) {
			COUNT(session->counts, protocol_errors);
			if (is_long)
				output_text(session->out, "CLIENT_ERROR line too long\r\n");
			return STEP_CLOSE;
		}
		session->need_bytes = count + 1;
		return STEP_MORE;
	}
	struct request request;
	request.line = (const char *)bytes;
	request.head_bytes = (size_t)(end - bytes) + 1;
	request.line_bytes = request.head_bytes - 1 - (end > bytes && end[-1] == '\r');
	request.rest = end + 1;
	request.rest_bytes = count - request.head_bytes;
	request.is_quiet = false;
	request.used = request.head_bytes;
	request.count = 0;
	const enum step step = run(session, &request);
	*taken = request.used;
	return step;
}
