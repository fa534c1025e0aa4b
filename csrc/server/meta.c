/*
 * meta.c - memcached's meta commands, answered as memcached 1.6.18 answers them.
 *
 *   mg <key> <flags>*    ms <key> <bytes> <flags>*    md <key> <flags>*    ma <key> <flags>*    mn    me <key>
 *
 * A flag is one letter, and what follows it up to the next space. Those that ask for something are answered in their order.
 * Of the flags that tell of past use, h is always 0, and l is 0: nothing is written to an entry when it is read, for a page that
 * was written cannot be dropped.
 */
#include "server/meta.h"

#include <stdlib.h>

#include "server/base64.h"
#include "server/reply.h"

#define BAD_LINE "CLIENT_ERROR bad command line format\r\n"
#define BAD_TOKEN "CLIENT_ERROR bad token in command line format\r\n"

#define OPAQUE_LONG "CLIENT_ERROR opaque token too long\r\n"
#define BAD_FLAG "CLIENT_ERROR invalid or duplicate flag\r\n"

enum { OPAQUE_MOST_BYTES = 32 };
#define NS_PER_SECOND UINT64_C(1000000000)

struct flags {
	bool wants_value, is_quiet, is_binary, is_opaque_long, was_created;
	bool has_ttl, creates, recaches, makes_stale, has_version;
	uint64_t ttl_ns, create_ttl_ns, recache_ns;
	uint64_t version, new_version, initial, delta;
	uint32_t client_flags;
	char mode; /* 0: none was given */
	struct keyspace_key key;
	char decoded[KEYSPACE_KEY_BYTES];
};

static bool read_ttl(struct session *session, const struct word *number, uint64_t *ttl_ns)
{
	int32_t seconds;

	if (!word_signed_32(number, &seconds))
		return false;
	*ttl_ns = request_ttl_ns(session, seconds);
	return true;
}

/* One flag. NULL, or what is wrong. */
static const char *read_flag(struct session *session, const struct word *word, struct flags *flags)
{
	const struct word rest = {word->bytes + 1, word->count - 1};

	switch (word->bytes[0]) {
	case 'b': {
		const size_t count = base64_decode(flags->key.bytes, flags->key.count, (unsigned char *)flags->decoded,
						   sizeof(flags->decoded));
		if (count == 0)
			return "CLIENT_ERROR error decoding key\r\n";
		flags->key = (struct keyspace_key){flags->decoded, count};
		flags->is_binary = true;
		return NULL;
	}
	case 'N':
		flags->creates = true;
		return read_ttl(session, &rest, &flags->create_ttl_ns) ? NULL : BAD_TOKEN;
	case 'T':
		flags->has_ttl = true;
		return read_ttl(session, &rest, &flags->ttl_ns) ? NULL : BAD_TOKEN;
	case 'R':
		flags->recaches = true;
		return read_ttl(session, &rest, &flags->recache_ns) ? NULL : BAD_TOKEN;
	case 'C':
		flags->has_version = true;
		return word_unsigned(&rest, &flags->version) ? NULL : BAD_TOKEN;
	case 'E':
		return word_unsigned(&rest, &flags->new_version) ? NULL : BAD_TOKEN;
	case 'F':
		return word_unsigned_32(&rest, &flags->client_flags) ? NULL : BAD_LINE;
	case 'M':
		flags->mode = word->count == 2 ? word->bytes[1] : 0;
		return flags->mode ? NULL : "CLIENT_ERROR incorrect length for M token\r\n";
	case 'J':
		return word_unsigned(&rest, &flags->initial) ? NULL : "CLIENT_ERROR invalid numeric initial value\r\n";
	case 'D':
		return word_unsigned(&rest, &flags->delta) ? NULL : "CLIENT_ERROR invalid numeric delta value\r\n";
	case 'O':
		flags->is_opaque_long = word->count > OPAQUE_MOST_BYTES;
		return NULL;
	case 'v':
		flags->wants_value = true;
		return NULL;
	case 'q':
		flags->is_quiet = true;
		return NULL;
	case 'I':
		flags->makes_stale = true;
		return NULL;
	case 'c': case 'f': case 'h': case 'k': case 'l': case 's': case 't': case 'u': case 'P': case 'L':
		return NULL;
	default:
		return "CLIENT_ERROR invalid flag\r\n";
	}
}

/* The key, and the flags from words[first] on. NULL, or what is wrong. */
static const char *read_flags(struct session *session, const struct request *request, unsigned first, struct flags *flags)
{
	uint64_t seen[2] = {0, 0};
	const char *wrong = NULL;

	*flags = (struct flags){.delta = 1, .key = {request->words[1].bytes, request->words[1].count}};
	for (unsigned i = first; i < request->count; i++) {
		const unsigned char letter = (unsigned char)request->words[i].bytes[0];
		if (letter >= 127 || (seen[letter / 64] & UINT64_C(1) << letter % 64))
			return "CLIENT_ERROR duplicate flag\r\n";
		seen[letter / 64] |= UINT64_C(1) << letter % 64;
		const char *why = read_flag(session, &request->words[i], flags);
		if (why && strcmp(why, "CLIENT_ERROR invalid flag\r\n") == 0)
			return why;
		if (why && !(wrong && letter == 'F'))
			wrong = why; /* the last of several is told, but for this one */
	}
	return wrong ? wrong : flags->is_opaque_long ? OPAQUE_LONG : NULL;
}

static enum step fail(struct session *session, const char *text)
{
	output_text(session->out, text);
	return STEP_DONE;
}

/* What the flags ask of an entry, in their order; without one (NULL), only what tells whose answer this is. */
static char *put_flags(char *at, const struct request *request, unsigned first, const struct flags *flags,
		       const struct keyspace_item *item)
{
	uint64_t left_ns = item ? item->left_ns : KEYSPACE_NEVER;

	for (unsigned i = first; i < request->count; i++) {
		const struct word *word = &request->words[i];
		const char letter = word->bytes[0];
		if (letter == 'O') {
			*at++ = ' ';
			at = put_text(at, word->bytes, word->count);
		} else if (letter == 'k') {
			at = put_text(at, " k", 2);
			at = put_text(at, request->words[1].bytes, request->words[1].count);
			if (flags->is_binary)
				at = put_text(at, " b", 2);
		} else if (letter == 'T' && flags->has_ttl) {
			left_ns = flags->ttl_ns; /* what is asked for behind it is told as it is then */
		} else if (letter == 'N' && flags->was_created) {
			left_ns = flags->create_ttl_ns;
		} else if (item && strchr("cfhlst", letter)) {
			*at++ = ' ';
			*at++ = letter;
			if (letter == 't' && left_ns == KEYSPACE_NEVER)
				at = put_text(at, "-1", 2);
			else if (letter == 't')
				at = put_number(at, (left_ns + NS_PER_SECOND / 2) / NS_PER_SECOND);
			else
				at = put_number(at, letter == 'c'   ? item->version
						    : letter == 'f' ? item->flags
						    : letter == 's' ? item->value_bytes : 0);
		}
	}
	return at;
}

/* An answer without a value: two letters and the flags. */
static enum step answer(struct session *session, const struct request *request, unsigned first, const struct flags *flags,
			const char *letters, const struct keyspace_item *item)
{
	char line[REPLY_HEADER_MOST], *at = put_text(line, letters, 2);

	at = put_flags(at, request, first, flags, item);
	at = put_text(at, "\r\n", 2);
	output_add(session->out, line, (size_t)(at - line));
	return STEP_DONE;
}

/* A look-up may change the entry: a new expiry, or the note that one client was told to compute the value again. */
static bool change_found(struct session *session, const struct request *request, const struct flags *flags,
			 const struct keyspace_item *item, bool *won)
{
	struct keyspace_change change = {.sets_ttl = flags->has_ttl, .ttl_ns = flags->ttl_ns, .only_version = item->version};
	uint64_t left_ns = item->left_ns;
	bool is_near = false;

	for (unsigned i = 2; i < request->count; i++) { /* the order of T and R counts */
		const char letter = request->words[i].bytes[0];
		if (letter == 'T')
			left_ns = flags->ttl_ns;
		else if (letter == 'R')
			is_near = left_ns != KEYSPACE_NEVER && left_ns < flags->recache_ns;
	}
	*won = !(item->marks & KEYSPACE_TOKEN_SENT) && (is_near || (item->marks & KEYSPACE_STALE));
	if (!*won) {
		if (flags->has_ttl)
			keyspace_touch(&session->service->keyspace, flags->key, flags->ttl_ns);
		return true;
	}
	change.adds_marks = *won;
	change.marks = KEYSPACE_TOKEN_SENT;
	struct keyspace_item changed;
	/* If another value took its place: look again. */
	return keyspace_alter(&session->service->keyspace, flags->key, &change, &changed) != KEYSPACE_EXISTS;
}

/* What a look-up or a sum creates expires as the last of N and T says. */
static uint64_t created_ttl_ns(const struct request *request, const struct flags *flags)
{
	uint64_t ttl_ns = flags->create_ttl_ns;

	for (unsigned i = 2; i < request->count; i++) {
		const char letter = request->words[i].bytes[0];
		if (letter == 'N' || letter == 'T')
			ttl_ns = letter == 'N' ? flags->create_ttl_ns : flags->ttl_ns;
	}
	return ttl_ns;
}

enum step meta_get(struct session *session, struct request *request)
{
	struct keyspace *keyspace = &session->service->keyspace;
	struct counts *counts = session->counts;
	enum keyspace_answer found;
	struct keyspace_item item;
	struct flags flags;
	struct reply reply;
	bool won = false, created = false;

	if (request->words[1].count > KEYSPACE_KEY_BYTES)
		return fail(session, BAD_LINE);
	const char *wrong = read_flags(session, request, 2, &flags);
	if (wrong)
		return fail(session, wrong);
	COUNT(counts, cmd_meta);
	COUNT(counts, cmd_get);
	if (flags.has_ttl)
		COUNT(counts, cmd_touch);
	for (;;) { /* until nobody comes between the look-up and what it changes */
		found = flags.wants_value ? reply_get(&reply, session, flags.key, session->meta_header_bytes, &item)
					  : keyspace_look(keyspace, flags.key, &item);
		if (found == KEYSPACE_DONE && !change_found(session, request, &flags, &item, &won))
			continue;
		if (found != KEYSPACE_NOT_FOUND || !flags.creates)
			break;
		const struct keyspace_write write = {.mode = KEYSPACE_ADD, .value = "",
						     .ttl_ns = created_ttl_ns(request, &flags),
						     .marks = KEYSPACE_TOKEN_SENT};
		item = (struct keyspace_item){.left_ns = KEYSPACE_NEVER};
		const enum keyspace_answer stored = keyspace_put(keyspace, flags.key, &write, &item.version);
		created = won = flags.was_created = stored == KEYSPACE_DONE;
		if (stored != KEYSPACE_NOT_STORED)
			break;
	}
	if (found == KEYSPACE_NO_MEMORY)
		return fail(session, "SERVER_ERROR out of memory writing get response\r\n");
	count_add(found == KEYSPACE_DONE ? &counts->get_hits : &counts->get_misses, 1);
	if (flags.has_ttl)
		count_add(found == KEYSPACE_DONE ? &counts->touch_hits : &counts->touch_misses, 1);
	if (found != KEYSPACE_DONE && !created) {
		if (!flags.is_quiet)
			return answer(session, request, 2, &flags, "EN", NULL);
		return STEP_DONE;
	}

	char header[REPLY_HEADER_MOST], *at = put_text(header, flags.wants_value ? "VA " : "HD", flags.wants_value ? 3 : 2);
	if (flags.wants_value)
		at = put_number(at, item.value_bytes);
	at = put_flags(at, request, 2, &flags, &item);
	if ((item.marks & KEYSPACE_TOKEN_SENT) && !won)
		at = put_text(at, " Z", 2);
	if (item.marks & KEYSPACE_STALE)
		at = put_text(at, " X", 2);
	if (won)
		at = put_text(at, " W", 2);
	at = put_text(at, "\r\n", 2);
	const size_t header_bytes = (size_t)(at - header);
	if (flags.wants_value && found == KEYSPACE_DONE) {
		session->meta_header_bytes = (uint16_t)(header_bytes - digits_of(item.value_bytes));
		reply_finish(&reply, header, header_bytes, item.value_bytes, "\r\n", 2);
	} else {
		output_add(session->out, header, header_bytes);
		if (flags.wants_value)
			output_add(session->out, "\r\n", 2);
	}
	return STEP_DONE;
}

static bool choose_mode(const struct flags *flags, enum keyspace_mode *mode)
{
	switch (flags->mode) {
	case 0: case 'S': case 's':
		*mode = KEYSPACE_SET;
		return true;
	case 'E': case 'e':
		*mode = KEYSPACE_ADD;
		return true;
	case 'A': case 'a':
		*mode = KEYSPACE_APPEND;
		return true;
	case 'P': case 'p':
		*mode = KEYSPACE_PREPEND;
		return true;
	case 'R': case 'r':
		*mode = KEYSPACE_REPLACE;
		return true;
	default:
		return false;
	}
}

/* What is wrong with the line of an ms whose value can be framed: the value is to be skipped. */
static const char *read_write(struct session *session, struct request *request, struct flags *flags,
			      struct keyspace_write *write)
{
	const char *wrong = read_flags(session, request, 3, flags);

	if (wrong)
		return wrong;
	if (!choose_mode(flags, &write->mode))
		return "CLIENT_ERROR invalid mode for ms M token\r\n";
	write->ttl_ns = flags->has_ttl ? flags->ttl_ns : KEYSPACE_NEVER;
	write->flags = flags->client_flags;
	write->new_version = flags->new_version;
	if (flags->has_version && write->mode != KEYSPACE_ADD) {
		write->only_version = flags->version;
		write->stale_if_older = flags->makes_stale && (write->mode == KEYSPACE_SET || write->mode == KEYSPACE_REPLACE);
	}
	return NULL;
}

static const char *letters_of(enum keyspace_answer stored)
{
	return stored == KEYSPACE_DONE	      ? "HD"
	       : stored == KEYSPACE_EXISTS    ? "EX"
	       : stored == KEYSPACE_NOT_FOUND ? "NF"
					      : "NS";
}

enum step meta_set(struct session *session, struct request *request)
{
	struct keyspace *keyspace = &session->service->keyspace;
	struct keyspace_write write = {.mode = KEYSPACE_SET};
	const unsigned char *value;
	struct flags flags;
	int32_t count;
	bool ends_well;

	if (request->words[1].count > KEYSPACE_KEY_BYTES || request->count < 3 || !word_signed_32(&request->words[2], &count) ||
	    count < 0 || count > INT32_MAX - 2)
		return fail(session, BAD_LINE);
	const char *wrong = read_write(session, request, &flags, &write);
	if (wrong) {
		session->skip_bytes = (uint64_t)count + 2;
		return fail(session, wrong);
	}
	const enum step step = request_value(session, request, flags.key, (size_t)count, &value, &ends_well);
	if (step == STEP_MORE)
		return step;
	COUNT(session->counts, cmd_meta);
	COUNT(session->counts, cmd_set);
	if (step == STEP_CLOSE) {
		if (write.mode == KEYSPACE_SET)
			keyspace_delete(keyspace, flags.key, 0);
		if ((size_t)count > session->service->settings.max_value_bytes) {
			COUNT(session->counts, store_too_large);
			return fail(session, "SERVER_ERROR object too large for cache\r\n");
		}
		COUNT(session->counts, store_no_memory);
		return fail(session, "SERVER_ERROR out of memory storing object\r\n");
	}
	if (!ends_well)
		return fail(session, "CLIENT_ERROR bad data chunk\r\n");
	write.value = value;
	write.value_bytes = (size_t)count;
	write.fill = request_fill(session);
	struct keyspace_item item = {.value_bytes = (size_t)count, .left_ns = write.ttl_ns, .flags = write.flags};
	enum keyspace_answer stored;
	if (flags.has_version && flags.version == 0 && (write.mode == KEYSPACE_SET || write.mode == KEYSPACE_REPLACE))
		stored = keyspace_look(keyspace, flags.key, &item) == KEYSPACE_DONE ? KEYSPACE_EXISTS : KEYSPACE_NOT_FOUND;
	else
		stored = keyspace_put(keyspace, flags.key, &write, &item.version);
	if (stored == KEYSPACE_NOT_STORED && flags.creates && (write.mode == KEYSPACE_APPEND || write.mode == KEYSPACE_PREPEND)) {
		write.mode = KEYSPACE_ADD; /* if it came to be meanwhile, it is not stored */
		write.ttl_ns = flags.create_ttl_ns;
		stored = keyspace_put(keyspace, flags.key, &write, &item.version);
	}
	if (stored == KEYSPACE_NO_MEMORY || stored == KEYSPACE_TOO_LARGE)
		return fail(session, stored == KEYSPACE_TOO_LARGE ? "SERVER_ERROR object too large for cache\r\n"
								  : "SERVER_ERROR out of memory storing object\r\n");
	if (flags.is_quiet && stored == KEYSPACE_DONE)
		return STEP_DONE;
	if (stored != KEYSPACE_DONE)
		item.version = 0; /* that of the value that was not stored: memcached does not tell that of the one that is there */

	char line[REPLY_HEADER_MOST], *at = put_text(line, letters_of(stored), 2);
	for (unsigned i = 3; i < request->count; i++) {
		const char letter = request->words[i].bytes[0];
		struct request one = {.words = {request->words[0], request->words[1], request->words[i]}, .count = 3};
		if (letter == 'c' || letter == 'O' || letter == 'k')
			at = put_flags(at, &one, 2, &flags, &item);
	}
	at = put_text(at, "\r\n", 2);
	output_add(session->out, line, (size_t)(at - line));
	return STEP_DONE;
}

enum step meta_delete(struct session *session, struct request *request)
{
	struct keyspace *keyspace = &session->service->keyspace;
	enum keyspace_answer done;
	struct keyspace_item item;
	struct flags flags;

	if (request->words[1].count > KEYSPACE_KEY_BYTES)
		return fail(session, BAD_LINE);
	const char *wrong = read_flags(session, request, 2, &flags);
	if (wrong && !flags.is_opaque_long)
		wrong = BAD_FLAG;
	if (wrong)
		return fail(session, wrong);
	COUNT(session->counts, cmd_meta);
	if (flags.has_version && flags.version == 0) {
		done = keyspace_look(keyspace, flags.key, &item) == KEYSPACE_DONE ? KEYSPACE_EXISTS : KEYSPACE_NOT_FOUND;
	} else if (flags.makes_stale) {
		const struct keyspace_change change = {
			.sets_ttl = flags.has_ttl, .ttl_ns = flags.ttl_ns, .sets_marks = true, .marks = KEYSPACE_STALE,
			.gives_version = true, .new_version = flags.new_version, .only_version = flags.version,
		};
		done = keyspace_alter(keyspace, flags.key, &change, &item);
	} else {
		done = keyspace_delete(keyspace, flags.key, flags.version);
	}
	count_add(done == KEYSPACE_NOT_FOUND ? &session->counts->delete_misses : &session->counts->delete_hits, 1);
	if (flags.is_quiet && done == KEYSPACE_DONE)
		return STEP_DONE;
	return answer(session, request, 2, &flags, letters_of(done), NULL);
}

enum step meta_arithmetic(struct session *session, struct request *request)
{
	struct counts *counts = session->counts;
	char text[KEYSPACE_NUMBER_BYTES];
	struct keyspace_item item;
	struct flags flags;
	size_t length;
	bool created;

	if (request->words[1].count > KEYSPACE_KEY_BYTES)
		return fail(session, BAD_LINE);
	const char *wrong = read_flags(session, request, 2, &flags);
	if (wrong && !flags.is_opaque_long)
		wrong = BAD_FLAG;
	if (!wrong && flags.mode && !strchr("Ii+Dd-", flags.mode))
		wrong = "CLIENT_ERROR invalid mode for ma M token\r\n";
	if (wrong)
		return fail(session, wrong);
	const struct keyspace_sum sum = {
		.delta = flags.delta, .subtracts = flags.mode && strchr("Dd-", flags.mode), .creates = flags.creates,
		.initial = flags.initial, .create_ttl_ns = created_ttl_ns(request, &flags), .sets_ttl = flags.has_ttl,
		.ttl_ns = flags.ttl_ns, .only_version = flags.version, .new_version = flags.new_version,
	};
	COUNT(counts, cmd_meta);
	switch (keyspace_add(&session->service->keyspace, flags.key, &sum, text, &length, &item, &created)) {
	case KEYSPACE_DONE:
		count_add(sum.subtracts ? &counts->decr_hits : &counts->incr_hits, 1);
		flags.was_created = created;
		if (created)
			item.left_ns = KEYSPACE_NEVER; /* until N and T have said otherwise */
		break;
	case KEYSPACE_NO_NUMBER:
		return fail(session, "CLIENT_ERROR cannot increment or decrement non-numeric value\r\n");
	case KEYSPACE_EXISTS:
		return answer(session, request, 2, &flags, "EX", NULL);
	case KEYSPACE_NOT_FOUND:
		count_add(sum.subtracts ? &counts->decr_misses : &counts->incr_misses, 1);
		return answer(session, request, 2, &flags, "NF", NULL);
	default:
		return fail(session, "SERVER_ERROR out of memory\r\n");
	}
	if (flags.is_quiet && !created)
		return STEP_DONE;
	if (!flags.wants_value)
		return answer(session, request, 2, &flags, "HD", &item);

	char line[REPLY_HEADER_MOST], *at = put_text(line, "VA ", 3);
	at = put_number(at, length);
	at = put_flags(at, request, 2, &flags, &item);
	at = put_text(at, "\r\n", 2);
	output_add(session->out, line, (size_t)(at - line));
	output_add(session->out, text, length);
	output_add(session->out, "\r\n", 2);
	return STEP_DONE;
}

enum step meta_noop(struct session *session, struct request *request)
{
	(void)request;
	output_add(session->out, "MN\r\n", 4);
	return STEP_DONE;
}

enum step meta_debug(struct session *session, struct request *request)
{
	struct keyspace_item item;
	struct flags flags;

	if (request->count < 2 || request->words[1].count > KEYSPACE_KEY_BYTES)
		return fail(session, BAD_LINE);
	const char *wrong = read_flags(session, request, 2, &flags);
	if (wrong)
		return fail(session, wrong);
	if (keyspace_look(&session->service->keyspace, flags.key, &item) != KEYSPACE_DONE)
		return fail(session, "EN\r\n");
	output_text(session->out, "ME ");
	output_add(session->out, request->words[1].bytes, request->words[1].count);
	if (item.left_ns == KEYSPACE_NEVER)
		output_text(session->out, " exp=-1");
	else
		output_format(session->out, " exp=-%llu",
			      (unsigned long long)((item.left_ns + NS_PER_SECOND / 2) / NS_PER_SECOND));
	output_format(session->out, " la=0 cas=%llu fetch=no cls=1 size=%zu\r\n", (unsigned long long)item.version,
		      item.value_bytes + flags.key.count);
	return STEP_DONE;
}
