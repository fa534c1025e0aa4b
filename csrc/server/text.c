/*
 * text.c - memcached's classic commands, answered as memcached 1.6.18 answers them.
 *
 * See its protocol.txt. A differential test compares the two (tests/unit/test_serve_differential.py).
 */
#include "server/text.h"

#include <unistd.h>

#include "server/password.h"
#include "server/reply.h"
#include "server/stats.h"

#define BAD_LINE "CLIENT_ERROR bad command line format\r\n"
#define NO_EXPTIME "CLIENT_ERROR invalid exptime argument\r\n"
#define NO_MEMORY "SERVER_ERROR out of memory storing object\r\n"

static bool is_noreply(const struct request *request)
{
	return request->count > 1 && word_is(&request->words[request->count - 1], "noreply");
}

static enum step answer(struct session *session, const struct request *request, const char *text)
{
	request_answer(session, request, text);
	return STEP_DONE;
}

/* A failure that is told even to those who asked for no reply. */
static enum step fail(struct session *session, const char *text)
{
	output_text(session->out, text);
	return STEP_DONE;
}

static void write_value(struct session *session, struct reply *reply, struct keyspace_key key, const struct keyspace_item *item,
			bool with_version)
{
	char header[REPLY_HEADER_MOST], *at = put_text(header, "VALUE ", 6);

	at = put_text(at, key.bytes, key.count);
	*at++ = ' ';
	at = put_number(at, item->flags);
	*at++ = ' ';
	at = put_number(at, item->value_bytes);
	if (with_version) {
		*at++ = ' ';
		at = put_number(at, item->version);
		session->version_digits = (uint8_t)digits_of(item->version);
	}
	session->flags_digits = (uint8_t)digits_of(item->flags);
	at = put_text(at, "\r\n", 2);
	reply_finish(reply, header, (size_t)(at - header), item->value_bytes, "\r\n", 2);
}

/* All keys are looked at before the first is answered: one bad key makes the error the whole answer. */
static bool keys_are_good(const char *at, const char *end)
{
	struct word word;

	if (end - at <= KEYSPACE_KEY_BYTES)
		return true;
	while (word_next(&at, end, &word))
		if (word.count > KEYSPACE_KEY_BYTES)
			return false;
	return true;
}

/* Many keys with large values, and a slow reader: it goes on where it stopped, once the reader took what there was. */
enum step text_get(struct session *session, struct request *request)
{
	const char *at = request->line, *const end = request->line + request->line_bytes;
	struct counts *counts = session->counts;
	struct word verb = {"get", 3}, word;
	uint64_t ttl_ns = KEYSPACE_NEVER;
	int32_t seconds;

	word_next(&at, end, &verb);
	const bool with_version = verb.bytes[verb.count - 1] == 's', touches = verb.bytes[1] == 'a';
	if (!word_next(&at, end, &word))
		return fail(session, "ERROR\r\n");
	if (touches && !word_signed_32(&word, &seconds))
		return fail(session, NO_EXPTIME);
	if (touches)
		ttl_ns = request_ttl_ns(session, seconds);
	else
		at = word.bytes;
	if (session->resume_at > 0)
		at = request->line + session->resume_at;
	else if (!keys_are_good(at, end))
		return fail(session, BAD_LINE);
	session->resume_at = 0;

	while (word_next(&at, end, &word)) {
		const struct keyspace_key key = {word.bytes, word.count};
		struct keyspace_item item;
		struct reply reply;

		if (output_is_blocked(session->out)) {
			session->resume_at = (size_t)(word.bytes - request->line);
			return STEP_BLOCKED;
		}
		const size_t header_bytes = 6 + key.count + 1 + session->flags_digits + 1 + 2 +
					    (with_version ? 1 + session->version_digits : 0);
		enum keyspace_answer found = reply_get(&reply, session, key, header_bytes, &item);
		COUNT(counts, cmd_get);
		if (touches) {
			COUNT(counts, cmd_touch);
			if (found == KEYSPACE_DONE)
				keyspace_touch(&session->service->keyspace, key, ttl_ns);
			count_add(found == KEYSPACE_DONE ? &counts->touch_hits : &counts->touch_misses, 1);
		}
		count_add(found == KEYSPACE_DONE ? &counts->get_hits : &counts->get_misses, 1);
		if (found == KEYSPACE_DONE) {
			write_value(session, &reply, key, &item, with_version);
		} else if (found == KEYSPACE_NO_MEMORY) { /* what was answered cannot be taken back */
			output_text(session->out, "SERVER_ERROR out of memory writing get response\r\n");
			return STEP_DONE;
		}
	}
	output_add(session->out, "END\r\n", 5);
	return STEP_DONE;
}

static const char *told(enum keyspace_answer stored)
{
	switch (stored) {
	case KEYSPACE_DONE:
		return "STORED\r\n";
	case KEYSPACE_EXISTS:
		return "EXISTS\r\n";
	case KEYSPACE_NOT_FOUND:
		return "NOT_FOUND\r\n";
	case KEYSPACE_NOT_STORED:
		return "NOT_STORED\r\n";
	case KEYSPACE_TOO_LARGE:
		return "SERVER_ERROR object too large for cache\r\n";
	default:
		return NO_MEMORY;
	}
}

static void count_store(struct counts *counts, bool is_cas, enum keyspace_answer stored)
{
	COUNT(counts, cmd_set);
	if (stored == KEYSPACE_NO_MEMORY)
		COUNT(counts, store_no_memory);
	if (stored == KEYSPACE_TOO_LARGE)
		COUNT(counts, store_too_large);
	if (is_cas)
		count_add(stored == KEYSPACE_DONE	   ? &counts->cas_hits
			  : stored == KEYSPACE_EXISTS ? &counts->cas_badval
						   : &counts->cas_misses, 1);
}

/* Whoever has not shown a password yet shows it by storing it: that is memcached's way. */
static enum step log_in(struct session *session, struct request *request, const unsigned char *value, size_t count, bool ends_well);

enum step text_store(struct session *session, struct request *request)
{
	const struct word *verb = &request->words[0], *words = request->words;
	const struct keyspace_key key = {words[1].bytes, words[1].count};
	const bool is_cas = word_is(verb, "cas");
	struct keyspace_write write = {.mode = KEYSPACE_SET};
	const unsigned char *value;
	int32_t seconds, count;
	uint64_t version = 0;
	bool ends_well;

	request->is_quiet = is_noreply(request);
	if (key.count > KEYSPACE_KEY_BYTES || !word_unsigned_32(&words[2], &write.flags) || !word_signed_32(&words[3], &seconds) ||
	    !word_signed_32(&words[4], &count) || (is_cas && !word_unsigned(&words[5], &version)) || count < 0 ||
	    count > INT32_MAX - 2)
		return answer(session, request, BAD_LINE);
	const enum step step = request_value(session, request, key, (size_t)count, &value, &ends_well);
	if (step == STEP_MORE)
		return step;
	if (!session->is_authenticated) {
		if (step == STEP_DONE)
			return log_in(session, request, value, (size_t)count, ends_well);
		return fail(session, "CLIENT_ERROR authentication failure\r\n");
	}
	if (step == STEP_CLOSE) { /* the value is skipped, and what it was to replace must not stand in for it */
		const bool is_large = (size_t)count > session->service->settings.max_value_bytes;
		count_store(session->counts, false, is_large ? KEYSPACE_TOO_LARGE : KEYSPACE_NO_MEMORY);
		if (word_is(verb, "set"))
			keyspace_delete(&session->service->keyspace, key, 0);
		return answer(session, request, told(is_large ? KEYSPACE_TOO_LARGE : KEYSPACE_NO_MEMORY));
	}
	if (!ends_well)
		return answer(session, request, "CLIENT_ERROR bad data chunk\r\n");
	if (word_is(verb, "add"))
		write.mode = KEYSPACE_ADD;
	else if (word_is(verb, "replace"))
		write.mode = KEYSPACE_REPLACE;
	else if (word_is(verb, "append"))
		write.mode = KEYSPACE_APPEND;
	else if (word_is(verb, "prepend"))
		write.mode = KEYSPACE_PREPEND;
	write.value = value;
	write.value_bytes = (size_t)count;
	write.fill = request_fill(session);
	write.ttl_ns = request_ttl_ns(session, seconds);
	enum keyspace_answer stored;
	if (is_cas && version == 0) { /* none has it */
		struct keyspace_item item;
		stored = keyspace_look(&session->service->keyspace, key, &item) == KEYSPACE_DONE ? KEYSPACE_EXISTS : KEYSPACE_NOT_FOUND;
	} else {
		write.only_version = version;
		stored = keyspace_put(&session->service->keyspace, key, &write, NULL);
	}
	count_store(session->counts, is_cas, stored);
	return answer(session, request, told(stored));
}

static enum step log_in(struct session *session, struct request *request, const unsigned char *value, size_t count, bool ends_well)
{
	COUNT(session->counts, auth_cmds);
	if (!word_is(&request->words[0], "set")) {
		request->used = request->head_bytes;
		return fail(session, "CLIENT_ERROR unauthenticated\r\n");
	}
	if (!ends_well)
		return fail(session, "CLIENT_ERROR bad data chunk\r\n");
	const char *space = memchr(value, ' ', count);
	const size_t name_bytes = space ? (size_t)(space - (const char *)value) : 0;
	const size_t skipped = space ? name_bytes + 1 : 0;
	session->is_authenticated = passwords_hold(session->service->passwords, (const char *)value, name_bytes,
						   (const char *)value + skipped, count - skipped);
	if (session->is_authenticated)
		return fail(session, "STORED\r\n");
	COUNT(session->counts, auth_errors);
	return fail(session, "CLIENT_ERROR authentication failure\r\n");
}

enum step text_arithmetic(struct session *session, struct request *request)
{
	const struct keyspace_key key = {request->words[1].bytes, request->words[1].count};
	struct keyspace_sum sum = {.subtracts = request->words[0].bytes[0] == 'd'};
	struct counts *counts = session->counts;
	char text[KEYSPACE_NUMBER_BYTES];
	struct keyspace_item item;
	size_t length;
	bool created;

	request->is_quiet = is_noreply(request);
	if (key.count > KEYSPACE_KEY_BYTES)
		return answer(session, request, BAD_LINE);
	if (!word_unsigned(&request->words[2], &sum.delta))
		return answer(session, request, "CLIENT_ERROR invalid numeric delta argument\r\n");
	switch (keyspace_add(&session->service->keyspace, key, &sum, text, &length, &item, &created)) {
	case KEYSPACE_DONE:
		count_add(sum.subtracts ? &counts->decr_hits : &counts->incr_hits, 1);
		if (!request->is_quiet) {
			output_add(session->out, text, length);
			output_add(session->out, "\r\n", 2);
		}
		return STEP_DONE;
	case KEYSPACE_NO_NUMBER:
		return answer(session, request, "CLIENT_ERROR cannot increment or decrement non-numeric value\r\n");
	case KEYSPACE_NOT_FOUND:
		count_add(sum.subtracts ? &counts->decr_misses : &counts->incr_misses, 1);
		return answer(session, request, "NOT_FOUND\r\n");
	default:
		return answer(session, request, "SERVER_ERROR out of memory in incr\r\n");
	}
}

enum step text_delete(struct session *session, struct request *request)
{
	const struct keyspace_key key = {request->words[1].bytes, request->words[1].count};

	request->is_quiet = is_noreply(request);
	if (request->count > 2) {
		const bool holds_0 = word_is(&request->words[2], "0");
		if (!(request->count == 3 && (holds_0 || request->is_quiet)) &&
		    !(request->count == 4 && holds_0 && request->is_quiet))
			return answer(session, request, "CLIENT_ERROR bad command line format.  Usage: delete <key> [noreply]\r\n");
	}
	if (key.count > KEYSPACE_KEY_BYTES)
		return answer(session, request, BAD_LINE);
	const bool was_there = keyspace_delete(&session->service->keyspace, key, 0) == KEYSPACE_DONE;
	count_add(was_there ? &session->counts->delete_hits : &session->counts->delete_misses, 1);
	return answer(session, request, was_there ? "DELETED\r\n" : "NOT_FOUND\r\n");
}

enum step text_touch(struct session *session, struct request *request)
{
	const struct keyspace_key key = {request->words[1].bytes, request->words[1].count};
	int32_t seconds;

	request->is_quiet = is_noreply(request);
	if (key.count > KEYSPACE_KEY_BYTES)
		return answer(session, request, BAD_LINE);
	if (!word_signed_32(&request->words[2], &seconds))
		return answer(session, request, NO_EXPTIME);
	const uint64_t ttl_ns = request_ttl_ns(session, seconds);
	const bool was_there = keyspace_touch(&session->service->keyspace, key, ttl_ns) == KEYSPACE_DONE;
	COUNT(session->counts, cmd_touch);
	count_add(was_there ? &session->counts->touch_hits : &session->counts->touch_misses, 1);
	return answer(session, request, was_there ? "TOUCHED\r\n" : "NOT_FOUND\r\n");
}

enum step text_flush_all(struct session *session, struct request *request)
{
	struct service *service = session->service;
	int32_t seconds = 0;

	request->is_quiet = is_noreply(request);
	COUNT(session->counts, cmd_flush);
	if (!service->settings.allows_flush)
		return answer(session, request, "CLIENT_ERROR flush_all not allowed\r\n");
	if (request->count > (request->is_quiet ? 2u : 1u) && !word_signed_32(&request->words[1], &seconds))
		return answer(session, request, NO_EXPTIME);
	const uint64_t delay_ns = seconds > 0 ? request_ttl_ns(session, seconds) : 0;
	atomic_store(&service->clear_at_seconds, 0);
	if (delay_ns == 0)
		keyspace_clear(&service->keyspace);
	else
		atomic_store(&service->clear_at_seconds, keyspace_time(&service->keyspace) + (int64_t)(delay_ns / 1000000000));
	return answer(session, request, "OK\r\n");
}

enum step text_version(struct session *session, struct request *request)
{
	return answer(session, request, "VERSION " SERVICE_SPEAKS_MEMCACHED " droppable " SERVICE_VERSION "\r\n");
}

/* memcached takes a second word and does not look at it. */
enum step text_verbosity(struct session *session, struct request *request)
{
	uint32_t level;

	if (request->count > 3)
		return fail(session, "ERROR\r\n");
	request->is_quiet = is_noreply(request);
	if (request->count > (request->is_quiet ? 2u : 1u) && !word_unsigned_32(&request->words[1], &level))
		return answer(session, request, BAD_LINE);
	return answer(session, request, "OK\r\n");
}

enum step text_memlimit(struct session *session, struct request *request)
{
	uint64_t number;

	request->is_quiet = is_noreply(request);
	if (!word_unsigned(&request->words[1], &number))
		return answer(session, request, "ERROR\r\n");
	return answer(session, request, "OK\r\n"); /* the memory that is left decides */
}

enum step text_stats(struct session *session, struct request *request)
{
	struct service *service = session->service;
	const struct word *what = &request->words[1];

	if (request->count < 2) {
		stats_write_general(service, session->out);
	} else if (word_is(what, "reset")) {
		stats_reset(service);
		return fail(session, "RESET\r\n");
	} else if (word_is(what, "settings")) {
		stats_write_settings(service, session->out);
	} else if (word_is(what, "items")) {
		stats_write_items(service, session->out);
	} else if (word_is(what, "slabs")) {
		stats_write_slabs(service, session->out);
	} else if (word_is(what, "sizes")) {
		output_text(session->out, "STAT sizes_status disabled\r\n");
	} else if (word_is(what, "detail")) {
		if (request->count < 3)
			return fail(session, "CLIENT_ERROR usage: stats detail on|off|dump\r\n");
		if (!word_is(&request->words[2], "dump"))
			return fail(session, "OK\r\n");
	} else if (word_is(what, "cachedump")) {
		if (request->count < 4)
			return fail(session, "CLIENT_ERROR bad command line\r\n");
	} else if (!word_is(what, "conns") && !word_is(what, "extstore")) {
		return fail(session, "ERROR\r\n");
	}
	return fail(session, "END\r\n");
}

enum step text_shutdown(struct session *session, struct request *request)
{
	struct service *service = session->service;
	const uint64_t one = 1;

	if (!service->settings.allows_shutdown || service->stop_descriptor < 0)
		return answer(session, request, "ERROR: shutdown not enabled\r\n");
	if (request->count > 1 && !word_is(&request->words[1], "graceful"))
		return answer(session, request, "CLIENT_ERROR invalid shutdown mode\r\n");
	if (write(service->stop_descriptor, &one, sizeof(one)) != sizeof(one))
		return answer(session, request, "SERVER_ERROR cannot stop\r\n");
	return STEP_CLOSE;
}

/* Not memcached's but its test build's: moves the clock on, p for "pause" and the like are of no use here. */
enum step text_debugtime(struct session *session, struct request *request)
{
	uint64_t seconds;

	if (!session->service->settings.allows_clock)
		return answer(session, request, "ERROR\r\n");
	if (request->count > 1 && word_unsigned(&request->words[1], &seconds)) {
		service_advance_clock(session->service, seconds);
		service_look_at_clock(session->service);
	}
	return answer(session, request, "OK\r\n");
}

enum step text_quit(struct session *session, struct request *request)
{
	(void)session;
	(void)request;
	return STEP_CLOSE;
}
