/*
 * resp_values.c - Redis' commands on values: strings alone, and their expiry.
 *
 * Keys and values are those of memcached's commands; a value that is set here has the flags 0 there.
 */
#include "server/reply.h"
#include "server/resp.h"
#include "server/tracking.h"

#define SYNTAX "ERR syntax error"
#define NO_NUMBER "ERR value is not an integer or out of range"
#define BAD_KEY "ERR keys have at most 16384 bytes"
#define NS_PER_MS INT64_C(1000000)

static struct keyspace *keys(struct session *session)
{
	return &session->service->keyspace;
}

/* Before a key is read: its client may want to know when it changes. */
static void note(struct session *session, const struct word *word)
{
	if (session->resp->tracker)
		tracker_note(session->resp->tracker, (struct keyspace_key){word->bytes, word->count});
}

static struct keyspace_key key_of(const struct word *word)
{
	return (struct keyspace_key){word->bytes, word->count};
}

/* From a time as a command gives it to how long that is from now; what is past is 0. False: it overflows. */
static bool read_ttl(struct session *session, int64_t time, bool in_seconds, bool is_absolute, uint64_t *ttl_ns)
{
	int64_t ms;

	if (__builtin_mul_overflow(time, in_seconds ? INT64_C(1000) : INT64_C(1), &ms))
		return false;
	if (is_absolute && __builtin_sub_overflow(ms, keyspace_time_ms(keys(session)), &ms))
		ms = 0; /* longer ago than can be counted */
	if (ms > INT64_MAX / NS_PER_MS)
		ms = INT64_MAX / NS_PER_MS; /* more than 292 years are so many */
	*ttl_ns = ms > 0 ? (uint64_t)ms * (uint64_t)NS_PER_MS : 0;
	return true;
}

/* One value, or null. */
static enum keyspace_answer answer_value(struct session *session, const struct word *word, struct keyspace_item *item)
{
	enum { HEAD_BYTES = 1 + 2 };
	char header[32], *at = header;
	struct reply reply;

	COUNT(session->counts, cmd_get);
	note(session, word);
	const enum keyspace_answer found = reply_get(&reply, session, key_of(word), HEAD_BYTES, item);
	count_add(found == KEYSPACE_DONE ? &session->counts->get_hits : &session->counts->get_misses, 1);
	if (found == KEYSPACE_DONE) {
		*at++ = '$';
		at = put_number(at, item->value_bytes);
		at = put_text(at, "\r\n", 2);
		reply_finish(&reply, header, (size_t)(at - header), item->value_bytes, "\r\n", 2);
	} else if (found == KEYSPACE_NO_MEMORY) {
		resp_error(session, "OOM no memory is left for this reply");
	} else {
		resp_null(session);
	}
	return found;
}

enum step resp_get(struct session *session, struct request *request)
{
	struct keyspace_item item;

	answer_value(session, &request->words[1], &item);
	return STEP_DONE;
}

enum step resp_getdel(struct session *session, struct request *request)
{
	struct keyspace_item item;

	if (answer_value(session, &request->words[1], &item) == KEYSPACE_DONE)
		keyspace_delete(keys(session), key_of(&request->words[1]), 0);
	return STEP_DONE;
}

static bool names_expiry(const struct word *option)
{
	return resp_is(option, "EX") || resp_is(option, "PX") || resp_is(option, "EXAT") || resp_is(option, "PXAT");
}

/* EX, PX, EXAT, PXAT and their number. -1: the word is none of them; 0: the client was told what is wrong. */
static int read_expiry(struct session *session, const struct word *option, const struct word *value, uint64_t *ttl_ns)
{
	int64_t time;
	const bool in_seconds = resp_is(option, "EX") || resp_is(option, "EXAT");
	const bool is_absolute = resp_is(option, "EXAT") || resp_is(option, "PXAT");

	if (!names_expiry(option))
		return -1;
	if (!value) {
		resp_error(session, SYNTAX);
		return 0;
	}
	if (!resp_integer(value, &time)) {
		resp_error(session, NO_NUMBER);
		return 0;
	}
	if (time <= 0 || !read_ttl(session, time, in_seconds, is_absolute, ttl_ns)) {
		resp_error(session, "ERR invalid expire time in 'set' command");
		return 0;
	}
	return 1;
}

enum step resp_getex(struct session *session, struct request *request)
{
	uint64_t ttl_ns = KEYSPACE_NEVER;
	bool changes = false;
	struct keyspace_item item;

	if (request->count > 2) {
		const struct word *option = &request->words[2], *value = request->count > 3 ? &request->words[3] : NULL;
		const bool persists = resp_is(option, "PERSIST");
		uint64_t left_ns;
		if (persists ? value != NULL : !value || !names_expiry(option))
			return resp_fail(session, SYNTAX);
		if (!persists && keyspace_peek(keys(session), key_of(&request->words[1]), &left_ns) == KEYSPACE_DONE &&
		    read_expiry(session, option, value, &ttl_ns) <= 0)
			return STEP_DONE;
		changes = true;
	}
	if (answer_value(session, &request->words[1], &item) == KEYSPACE_DONE && changes)
		keyspace_touch(keys(session), key_of(&request->words[1]), ttl_ns);
	return STEP_DONE;
}

/* What a store came to, where it is not an answer of its own. True: it is stored. */
static bool is_stored(struct session *session, enum keyspace_answer stored)
{
	COUNT(session->counts, cmd_set);
	if (stored == KEYSPACE_TOO_LARGE) {
		COUNT(session->counts, store_too_large);
		resp_error(session, "ERR the value is larger than the server's --max-value");
	} else if (stored == KEYSPACE_NO_MEMORY) {
		COUNT(session->counts, store_no_memory);
		resp_error(session, RESP_NO_MEMORY);
	}
	return stored == KEYSPACE_DONE;
}

/* SET with GET: the old value is the answer, whether or not the new one is stored. */
static enum step set_and_answer_old(struct session *session, const struct word *key, struct keyspace_write *write)
{
	struct output *out = session->out;
	const size_t before = output_waiting(out);
	const enum keyspace_mode mode = write->mode;

	for (;;) { /* until nobody comes between the two */
		struct keyspace_item old;
		const enum keyspace_answer found = answer_value(session, key, &old);
		if (found == KEYSPACE_NO_MEMORY || (mode == KEYSPACE_ADD && found == KEYSPACE_DONE) ||
		    (mode == KEYSPACE_REPLACE && found != KEYSPACE_DONE))
			return STEP_DONE;
		write->mode = found == KEYSPACE_DONE ? KEYSPACE_SET : KEYSPACE_ADD;
		write->only_version = found == KEYSPACE_DONE ? old.version : 0;
		const enum keyspace_answer stored = keyspace_put(keys(session), key_of(key), write, NULL);
		if (stored == KEYSPACE_DONE) {
			COUNT(session->counts, cmd_set);
			return STEP_DONE;
		}
		out->used = out->first + before; /* nothing of it has left: flush() is only called between commands */
		if (stored == KEYSPACE_NO_MEMORY || stored == KEYSPACE_TOO_LARGE) {
			is_stored(session, stored);
			return STEP_DONE;
		}
	}
}

enum step resp_set(struct session *session, struct request *request)
{
	const struct word *words = request->words;
	struct keyspace_write write = {.mode = KEYSPACE_SET, .value = words[2].bytes, .value_bytes = words[2].count,
				       .ttl_ns = KEYSPACE_NEVER};
	bool answers_old = false, has_ttl = false;

	if (words[1].count > RESP_KEY_BYTES)
		return resp_fail(session, BAD_KEY);
	for (unsigned i = 3; i < request->count; i++) {
		const struct word *value = i + 1 < request->count ? &words[i + 1] : NULL;
		const int read = read_expiry(session, &words[i], value, &write.ttl_ns);
		if (read == 0)
			return STEP_DONE;
		const bool is_nx = resp_is(&words[i], "NX"), is_xx = resp_is(&words[i], "XX");
		const bool keeps = resp_is(&words[i], "KEEPTTL");
		if ((read > 0 || keeps) && has_ttl)
			return resp_fail(session, SYNTAX);
		if ((is_nx || is_xx) && write.mode != KEYSPACE_SET)
			return resp_fail(session, SYNTAX);
		if (read > 0 || keeps) {
			has_ttl = true;
			write.keep_ttl = keeps;
			i += read > 0;
		} else if (is_nx || is_xx) {
			write.mode = is_nx ? KEYSPACE_ADD : KEYSPACE_REPLACE;
		} else if (resp_is(&words[i], "GET")) {
			answers_old = true;
		} else {
			return resp_fail(session, SYNTAX);
		}
	}
	if (answers_old)
		return set_and_answer_old(session, &words[1], &write);
	write.fill = request_fill(session);
	const enum keyspace_answer stored = keyspace_put(keys(session), key_of(&words[1]), &write, NULL);
	if (is_stored(session, stored))
		resp_ok(session);
	else if (stored == KEYSPACE_NOT_STORED)
		resp_null(session);
	return STEP_DONE;
}

enum step resp_setnx(struct session *session, struct request *request)
{
	const struct word *words = request->words;
	const struct keyspace_write write = {.mode = KEYSPACE_ADD, .value = words[2].bytes, .value_bytes = words[2].count,
					     .ttl_ns = KEYSPACE_NEVER, .fill = request_fill(session)};

	if (words[1].count > RESP_KEY_BYTES)
		return resp_fail(session, BAD_KEY);
	const enum keyspace_answer stored = keyspace_put(keys(session), key_of(&words[1]), &write, NULL);
	if (is_stored(session, stored) || stored == KEYSPACE_NOT_STORED)
		return resp_answer_number(session, stored == KEYSPACE_DONE);
	return STEP_DONE;
}

enum step resp_setex(struct session *session, struct request *request)
{
	const struct word *words = request->words;
	struct keyspace_write write = {.mode = KEYSPACE_SET, .value = words[3].bytes, .value_bytes = words[3].count,
				       .fill = request_fill(session)};
	const bool in_seconds = resp_is(&words[0], "SETEX");
	int64_t time;

	if (words[1].count > RESP_KEY_BYTES)
		return resp_fail(session, BAD_KEY);
	if (!resp_integer(&words[2], &time))
		return resp_fail(session, NO_NUMBER);
	if (time <= 0 || !read_ttl(session, time, in_seconds, false, &write.ttl_ns))
		return resp_fail(session, in_seconds ? "ERR invalid expire time in 'setex' command"
						: "ERR invalid expire time in 'psetex' command");
	if (is_stored(session, keyspace_put(keys(session), key_of(&words[1]), &write, NULL)))
		resp_ok(session);
	return STEP_DONE;
}

enum step resp_getset(struct session *session, struct request *request)
{
	const struct word *words = request->words;
	struct keyspace_write write = {.mode = KEYSPACE_SET, .value = words[2].bytes, .value_bytes = words[2].count,
				       .ttl_ns = KEYSPACE_NEVER};

	if (words[1].count > RESP_KEY_BYTES)
		return resp_fail(session, BAD_KEY);
	return set_and_answer_old(session, &words[1], &write);
}

enum step resp_append(struct session *session, struct request *request)
{
	const struct word *words = request->words;
	const struct keyspace_key key = key_of(&words[1]);
	struct keyspace_write write = {.value = words[2].bytes, .value_bytes = words[2].count, .ttl_ns = KEYSPACE_NEVER};
	enum keyspace_answer stored;
	struct keyspace_item item;

	if (words[1].count > RESP_KEY_BYTES)
		return resp_fail(session, BAD_KEY);
	do { /* it may come, or go, between the two */
		write.mode = KEYSPACE_APPEND;
		stored = keyspace_put(keys(session), key, &write, NULL);
		if (stored == KEYSPACE_NOT_STORED) {
			write.mode = KEYSPACE_ADD;
			stored = keyspace_put(keys(session), key, &write, NULL);
		}
	} while (stored == KEYSPACE_NOT_STORED);
	if (!is_stored(session, stored))
		return STEP_DONE;
	const bool is_there = keyspace_look(keys(session), key, &item) == KEYSPACE_DONE;
	return resp_answer_number(session, is_there ? (int64_t)item.value_bytes : (int64_t)write.value_bytes);
}

enum step resp_strlen(struct session *session, struct request *request)
{
	struct keyspace_item item;

	note(session, &request->words[1]);
	const bool is_there = keyspace_look(keys(session), key_of(&request->words[1]), &item) == KEYSPACE_DONE;

	return resp_answer_number(session, is_there ? (int64_t)item.value_bytes : 0);
}

enum step resp_mget(struct session *session, struct request *request)
{
	const char *at = request->line, *const end = request->line + request->line_bytes;
	struct keyspace_item item;
	struct word word;

	if (session->resume_at == 0) {
		resp_array(session, request->count - 1);
		resp_next(&at, end, &word);
	} else {
		at = request->line + session->resume_at;
		session->resume_at = 0;
	}
	for (const char *next = at; resp_next(&next, end, &word); at = next) {
		if (output_is_blocked(session->out)) {
			session->resume_at = (size_t)(at - request->line);
			return STEP_BLOCKED;
		}
		answer_value(session, &word, &item);
	}
	return STEP_DONE;
}

enum step resp_mset(struct session *session, struct request *request)
{
	const char *at = request->line, *const end = request->line + request->line_bytes;
	struct word key, value;

	if (request->count % 2 == 0)
		return resp_fail(session, "ERR wrong number of arguments for 'mset' command");
	resp_next(&at, end, &key);
	while (resp_next(&at, end, &key) && resp_next(&at, end, &value)) {
		const struct keyspace_write write = {.mode = KEYSPACE_SET, .value = value.bytes, .value_bytes = value.count,
						     .ttl_ns = KEYSPACE_NEVER};
		if (key.count > RESP_KEY_BYTES)
			return resp_fail(session, BAD_KEY);
		if (!is_stored(session, keyspace_put(keys(session), key_of(&key), &write, NULL)))
			return STEP_DONE;
	}
	resp_ok(session);
	return STEP_DONE;
}

enum step resp_delete(struct session *session, struct request *request)
{
	const char *at = request->line, *const end = request->line + request->line_bytes;
	int64_t deleted = 0;
	struct word word;

	resp_next(&at, end, &word);
	while (resp_next(&at, end, &word)) {
		const bool was_there = keyspace_delete(keys(session), key_of(&word), 0) == KEYSPACE_DONE;
		deleted += was_there;
		count_add(was_there ? &session->counts->delete_hits : &session->counts->delete_misses, 1);
	}
	return resp_answer_number(session, deleted);
}

enum step resp_exists(struct session *session, struct request *request)
{
	const char *at = request->line, *const end = request->line + request->line_bytes;
	int64_t there = 0;
	uint64_t left_ns;
	struct word word;

	resp_next(&at, end, &word);
	while (resp_next(&at, end, &word)) {
		note(session, &word);
		there += keyspace_peek(keys(session), key_of(&word), &left_ns) == KEYSPACE_DONE;
	}
	return resp_answer_number(session, there);
}

enum step resp_type(struct session *session, struct request *request)
{
	uint64_t left_ns;
	const bool is_there = keyspace_peek(keys(session), key_of(&request->words[1]), &left_ns) == KEYSPACE_DONE;

	output_text(session->out, is_there ? "+string\r\n" : "+none\r\n");
	return STEP_DONE;
}

enum step resp_expire(struct session *session, struct request *request)
{
	const struct word *words = request->words;
	const bool in_seconds = words[0].bytes[0] != 'P' && words[0].bytes[0] != 'p';
	const bool is_absolute = (words[0].bytes[words[0].count - 1] | 32) == 't';
	const struct keyspace_key key = key_of(&words[1]);
	uint64_t left_ns, ttl_ns;
	int64_t time;

	for (unsigned i = 3; i < request->count; i++)
		if (!resp_is(&words[i], "NX") && !resp_is(&words[i], "XX") && !resp_is(&words[i], "GT") && !resp_is(&words[i], "LT"))
			return resp_fail(session, "ERR Unsupported option");
	if (!resp_integer(&words[2], &time))
		return resp_fail(session, NO_NUMBER);
	if (!read_ttl(session, time, in_seconds, is_absolute, &ttl_ns))
		return resp_fail(session, "ERR invalid expire time in 'expire' command");
	if (keyspace_peek(keys(session), key, &left_ns) != KEYSPACE_DONE)
		return resp_answer_number(session, 0);
	const bool never = left_ns == KEYSPACE_NEVER;
	for (unsigned i = 3; i < request->count; i++)
		if (resp_is(&words[i], "NX") ? !never : resp_is(&words[i], "XX") ? never
			: resp_is(&words[i], "GT") ? never || ttl_ns <= left_ns : !never && ttl_ns >= left_ns)
			return resp_answer_number(session, 0);
	return resp_answer_number(session, keyspace_touch(keys(session), key, ttl_ns) == KEYSPACE_DONE);
}

enum step resp_persist(struct session *session, struct request *request)
{
	const struct keyspace_key key = key_of(&request->words[1]);
	uint64_t left_ns;

	if (keyspace_peek(keys(session), key, &left_ns) != KEYSPACE_DONE || left_ns == KEYSPACE_NEVER)
		return resp_answer_number(session, 0);
	return resp_answer_number(session, keyspace_touch(keys(session), key, KEYSPACE_NEVER) == KEYSPACE_DONE);
}

enum step resp_ttl(struct session *session, struct request *request)
{
	const struct word *name = &request->words[0];
	const bool in_seconds = resp_is(name, "TTL") || resp_is(name, "EXPIRETIME");
	const bool is_absolute = resp_is(name, "EXPIRETIME") || resp_is(name, "PEXPIRETIME");
	uint64_t left_ns;

	note(session, &request->words[1]);
	if (keyspace_peek(keys(session), key_of(&request->words[1]), &left_ns) != KEYSPACE_DONE)
		return resp_answer_number(session, -2);
	if (left_ns == KEYSPACE_NEVER)
		return resp_answer_number(session, -1);
	int64_t ms = (int64_t)(left_ns / (uint64_t)NS_PER_MS) + (is_absolute ? keyspace_time_ms(keys(session)) : 0);
	return resp_answer_number(session, in_seconds ? (ms + 500) / 1000 : ms);
}

enum step resp_incr(struct session *session, struct request *request)
{
	const struct word *words = request->words;
	const bool subtracts = words[0].bytes[0] == 'D' || words[0].bytes[0] == 'd';
	struct keyspace_sum sum = {.is_signed = true, .subtracts = subtracts, .creates = true, .create_ttl_ns = KEYSPACE_NEVER,
				   .delta = 1};
	char text[KEYSPACE_NUMBER_BYTES];
	struct keyspace_item item;
	int64_t delta = 1;
	size_t length;
	bool created;

	if (words[1].count > RESP_KEY_BYTES)
		return resp_fail(session, BAD_KEY);
	if (request->count == 3 && !resp_integer(&words[2], &delta))
		return resp_fail(session, NO_NUMBER);
	if (subtracts && delta == INT64_MIN)
		return resp_fail(session, "ERR decrement would overflow");
	sum.delta = (uint64_t)delta;
	switch (keyspace_add(keys(session), key_of(&words[1]), &sum, text, &length, &item, &created)) {
	case KEYSPACE_DONE:
		count_add(subtracts ? &session->counts->decr_hits : &session->counts->incr_hits, 1);
		output_add(session->out, ":", 1);
		output_add(session->out, text, length);
		output_add(session->out, "\r\n", 2);
		return STEP_DONE;
	case KEYSPACE_OVERFLOW:
		return resp_fail(session, "ERR increment or decrement would overflow");
	case KEYSPACE_NO_NUMBER:
		return resp_fail(session, NO_NUMBER);
	default:
		return resp_fail(session, RESP_NO_MEMORY);
	}
}
