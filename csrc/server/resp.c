/* resp.c - Redis' protocol: replies, and the commands that are about the connection or the server. See resp.h. */
#include "server/resp.h"

#include <stdlib.h>
#include <time.h>

#include "server/password.h"
#include "server/reply.h"
#include "server/stats.h"
#include "server/tracking.h"

struct resp_state *resp_create(struct service *service)
{
	struct resp_state *resp = calloc(1, sizeof(*resp));

	if (!resp)
		return NULL;
	resp->id = atomic_fetch_add_explicit(&service->last_client_id, 1, memory_order_relaxed) + 1;
	resp->protocol = 2;
	return resp;
}

void resp_destroy(struct resp_state *resp, struct budget *budget)
{
	if (!resp)
		return;
	if (resp->tracker)
		tracker_end(resp->tracker);
	free(resp->queue);
	budget_give(budget, resp->queue_capacity);
	free(resp);
}

static bool is_3(const struct session *session)
{
	return session->resp->protocol == 3;
}

void resp_error(struct session *session, const char *text)
{
	output_add(session->out, "-", 1);
	output_text(session->out, text);
	output_add(session->out, "\r\n", 2);
}

void resp_ok(struct session *session)
{
	output_add(session->out, "+OK\r\n", 5);
}

/* One kind and a number, as in $5\r\n. */
static void put_head(struct session *session, char kind, int64_t number)
{
	char text[32], *at = text;

	*at++ = kind;
	if (number < 0)
		*at++ = '-';
	at = put_number(at, number < 0 ? 0 - (uint64_t)number : (uint64_t)number);
	at = put_text(at, "\r\n", 2);
	output_add(session->out, text, (size_t)(at - text));
}

void resp_number(struct session *session, int64_t number)
{
	put_head(session, ':', number);
}

void resp_null(struct session *session)
{
	if (is_3(session))
		output_add(session->out, "_\r\n", 3);
	else
		output_add(session->out, "$-1\r\n", 5);
}

void resp_string(struct session *session, const void *bytes, size_t count)
{
	put_head(session, '$', (int64_t)count);
	output_add(session->out, bytes, count);
	output_add(session->out, "\r\n", 2);
}

void resp_array(struct session *session, size_t count)
{
	put_head(session, '*', (int64_t)count);
}

void resp_map(struct session *session, size_t pairs)
{
	if (is_3(session))
		put_head(session, '%', (int64_t)pairs);
	else
		put_head(session, '*', 2 * (int64_t)pairs);
}

static void put_words(struct session *session, const char *text)
{
	resp_string(session, text, strlen(text));
}

/* False: the client was told. */
static bool log_in(struct session *session, const struct word *name, const struct word *password)
{
	struct service *service = session->service;

	COUNT(session->counts, auth_cmds);
	if (!service->passwords) {
		resp_error(session, "ERR AUTH <password> called without any password configured. Did you mean HELLO?");
		return false;
	}
	if (passwords_hold(service->passwords, name->bytes, name->count, password->bytes, password->count)) {
		session->is_authenticated = true;
		return true;
	}
	COUNT(session->counts, auth_errors);
	resp_error(session, "WRONGPASS invalid username-password pair or user is disabled.");
	return false;
}

enum step resp_auth(struct session *session, struct request *request)
{
	const struct word standard = {"default", 7};

	if (log_in(session, request->count == 3 ? &request->words[1] : &standard, &request->words[request->count - 1]))
		resp_ok(session);
	return STEP_DONE;
}

static bool set_name(struct session *session, const struct word *word)
{
	struct resp_state *resp = session->resp;

	if (word->count >= sizeof(resp->name)) {
		resp_error(session, "ERR Client names have at most 63 bytes");
		return false;
	}
	for (size_t i = 0; i < word->count; i++)
		if (word->bytes[i] < '!' || word->bytes[i] > '~') {
			resp_error(session, "ERR Client names cannot contain spaces, newlines or special characters.");
			return false;
		}
	memcpy(resp->name, word->bytes, word->count);
	resp->name[word->count] = '\0';
	return true;
}

enum step resp_hello(struct session *session, struct request *request)
{
	struct resp_state *resp = session->resp;
	int protocol = resp->protocol;
	uint32_t number;

	if (request->count > 1) {
		if (!word_unsigned_32(&request->words[1], &number) || (number != 2 && number != 3))
			return resp_fail(session, "NOPROTO unsupported protocol version");
		protocol = (int)number;
	}
	for (unsigned i = 2; i < request->count && i < REQUEST_WORDS; i++) {
		if (resp_is(&request->words[i], "AUTH") && i + 2 < request->count) {
			if (!log_in(session, &request->words[i + 1], &request->words[i + 2]))
				return STEP_DONE;
			i += 2;
		} else if (resp_is(&request->words[i], "SETNAME") && i + 1 < request->count) {
			if (!set_name(session, &request->words[i + 1]))
				return STEP_DONE;
			i++;
		} else {
			return resp_fail(session, "ERR Syntax error in HELLO option");
		}
	}
	if (!session->is_authenticated)
		return resp_fail(session, "NOAUTH HELLO must be called with the client already authenticated, otherwise the HELLO <proto> "
				     "AUTH <user> <pass> option can be used to authenticate the client and select the RESP protocol "
				     "version at the same time");
	if (protocol == 2 && resp->tracker) { /* it has no way to tell what was not asked for */
		tracker_end(resp->tracker);
		resp->tracker = NULL;
	}
	resp->protocol = protocol;
	resp_map(session, 7);
	put_words(session, "server");
	put_words(session, "redis");
	put_words(session, "version");
	put_words(session, SERVICE_SPEAKS_REDIS);
	put_words(session, "proto");
	resp_number(session, protocol);
	put_words(session, "id");
	resp_number(session, (int64_t)resp->id);
	put_words(session, "mode");
	put_words(session, "standalone");
	put_words(session, "role");
	put_words(session, "master");
	put_words(session, "modules");
	resp_array(session, 0);
	return STEP_DONE;
}

/* CLIENT TRACKING ON [BCAST] [PREFIX prefix]... [NOLOOP], or OFF. */
static enum step track(struct session *session, const struct request *request)
{
	struct resp_state *resp = session->resp;
	struct tracker_options options = {.wake = session->wake, .wakes = session->wakes};
	const struct word *words = request->words;
	const bool is_on = request->count > 2 && resp_is(&words[2], "ON");

	if (!is_on && !(request->count == 3 && resp_is(&words[2], "OFF")))
		return resp_fail(session, "ERR syntax error");
	if (request->count > REQUEST_WORDS)
		return resp_fail(session, "ERR too many prefixes");
	for (unsigned i = 3; i < request->count; i++) {
		if (resp_is(&words[i], "BCAST")) {
			options.broadcasts = true;
		} else if (resp_is(&words[i], "NOLOOP")) {
			options.skips_own = true;
		} else if (resp_is(&words[i], "PREFIX") && i + 1 < request->count) {
			i++;
			options.prefixes[options.prefix_count++] = (struct keyspace_key){words[i].bytes, words[i].count};
		} else {
			return resp_fail(session, "ERR CLIENT TRACKING takes BCAST, PREFIX and NOLOOP here. REDIRECT, OPTIN and OPTOUT are not there");
		}
	}
	if (options.prefix_count > 0 && !options.broadcasts)
		return resp_fail(session, "ERR PREFIX option requires BCAST mode to be enabled");
	if (is_on && !is_3(session))
		return resp_fail(session, "ERR CLIENT TRACKING needs version 3 of the protocol: send HELLO 3 before");
	if (is_on && (!session->service->tracking || !session->wake))
		return resp_fail(session, "ERR this server cannot track");
	if (resp->tracker) {
		tracker_end(resp->tracker);
		resp->tracker = NULL;
	}
	if (is_on) {
		resp->tracker = tracker_begin(session->service->tracking, &options);
		if (!resp->tracker)
			return resp_fail(session, "OOM no memory is left for tracking");
		tracker_set_writer(resp->tracker);
	}
	resp_ok(session);
	return STEP_DONE;
}

enum step resp_client(struct session *session, struct request *request)
{
	struct resp_state *resp = session->resp;
	const struct word *what = &request->words[1];

	if (resp_is(what, "ID")) {
		resp_number(session, (int64_t)resp->id);
	} else if (resp_is(what, "GETNAME")) {
		if (resp->name[0])
			put_words(session, resp->name);
		else
			resp_null(session);
	} else if (resp_is(what, "TRACKING")) {
		return track(session, request);
	} else if (resp_is(what, "SETNAME") && request->count == 3) {
		if (set_name(session, &request->words[2]))
			resp_ok(session);
	} else if (resp_is(what, "SETINFO") || resp_is(what, "NO-EVICT") || resp_is(what, "NO-TOUCH")) {
		resp_ok(session); /* nothing depends on it */
	} else {
		return resp_fail(session, "ERR unknown subcommand of CLIENT, or one that this server does not have");
	}
	return STEP_DONE;
}

enum step resp_select(struct session *session, struct request *request)
{
	if (!word_is(&request->words[1], "0"))
		return resp_fail(session, "ERR DB index is out of range: there is one key space, number 0");
	resp_ok(session);
	return STEP_DONE;
}

enum step resp_ping(struct session *session, struct request *request)
{
	if (request->count > 1)
		resp_string(session, request->words[1].bytes, request->words[1].count);
	else
		output_text(session->out, "+PONG\r\n");
	return STEP_DONE;
}

enum step resp_echo(struct session *session, struct request *request)
{
	resp_string(session, request->words[1].bytes, request->words[1].count);
	return STEP_DONE;
}

enum step resp_quit(struct session *session, struct request *request)
{
	(void)request;
	resp_ok(session);
	return STEP_CLOSE;
}

enum step resp_info(struct session *session, struct request *request)
{
	char *text;
	size_t count;

	(void)request;
	if (!stats_info(session->service, &text, &count))
		return resp_fail(session, "OOM no memory is left for this answer");
	resp_string(session, text, count);
	free(text);
	return STEP_DONE;
}

enum step resp_command(struct session *session, struct request *request)
{
	if (request->count > 1 && resp_is(&request->words[1], "COUNT"))
		resp_number(session, 0);
	else if (request->count > 1 && resp_is(&request->words[1], "DOCS"))
		resp_map(session, 0);
	else
		resp_array(session, 0);
	return STEP_DONE;
}

/* CONFIG GET * or a name: what exporters ask for. */
static void write_config(struct session *session, const struct word *pattern)
{
	const struct { const char *name; uint64_t value; } settings[] = {
		{"databases", 1},
		{"maxclients", session->service->settings.most_connections},
		{"maxmemory", stats_limit_bytes()},
	};
	enum { SETTINGS = sizeof(settings) / sizeof(settings[0]) };
	bool is_told[SETTINGS];
	size_t count = 0;
	char text[24];

	for (size_t i = 0; i < SETTINGS; i++) {
		is_told[i] = word_is(pattern, "*") || resp_is(pattern, settings[i].name);
		count += is_told[i];
	}
	resp_map(session, count);
	for (size_t i = 0; i < SETTINGS; i++) {
		if (!is_told[i])
			continue;
		put_words(session, settings[i].name);
		resp_string(session, text, (size_t)(put_number(text, settings[i].value) - text));
	}
}

enum step resp_config(struct session *session, struct request *request)
{
	if (resp_is(&request->words[1], "RESETSTAT")) {
		stats_reset(session->service);
		resp_ok(session);
	} else if (resp_is(&request->words[1], "GET") && request->count == 3) {
		write_config(session, &request->words[2]);
	} else {
		return resp_fail(session, "ERR the server is configured by its command line alone");
	}
	return STEP_DONE;
}

enum step resp_time(struct session *session, struct request *request)
{
	struct timespec now;
	char text[24];

	(void)request;
	if (clock_gettime(CLOCK_REALTIME, &now) != 0)
		return resp_fail(session, "ERR there is no clock");
	resp_array(session, 2);
	resp_string(session, text, (size_t)(put_number(text, (uint64_t)keyspace_time(&session->service->keyspace)) - text));
	resp_string(session, text, (size_t)(put_number(text, (uint64_t)now.tv_nsec / 1000) - text));
	return STEP_DONE;
}

enum step resp_dbsize(struct session *session, struct request *request)
{
	(void)request;
	resp_number(session, (int64_t)keyspace_entries(&session->service->keyspace));
	return STEP_DONE;
}

enum step resp_flush(struct session *session, struct request *request)
{
	struct service *service = session->service;

	(void)request; /* ASYNC or SYNC: it takes no longer either way */
	COUNT(session->counts, cmd_flush);
	if (!service->settings.allows_flush)
		return resp_fail(session, "ERR the server was started with --no-flush");
	atomic_store(&service->clear_at_seconds, 0);
	keyspace_clear(&service->keyspace);
	resp_ok(session);
	return STEP_DONE;
}

enum step resp_multi(struct session *session, struct request *request)
{
	(void)request;
	if (session->resp->is_queueing)
		return resp_fail(session, "ERR MULTI calls can not be nested");
	session->resp->is_queueing = true;
	resp_ok(session);
	return STEP_DONE;
}
