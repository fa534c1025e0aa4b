/* request.c - one command of memcached's protocols: numbers, times, and the value behind the line. See request.h. */
#include "server/request.h"

#include <errno.h>
#include <stdlib.h>

enum { NUMBER_BYTES = 64, FAST_DIGITS = 18 };

#define NS_PER_SECOND UINT64_C(1000000000)
#define RELATIVE_MOST_SECONDS (60 * 60 * 24 * 30)

/* Most numbers are a few digits and nothing else. */
static bool read_digits(const struct word *word, uint64_t *out)
{
	uint64_t value = 0;

	if (word->count == 0 || word->count > FAST_DIGITS)
		return false;
	for (size_t i = 0; i < word->count; i++) {
		if (word->bytes[i] < '0' || word->bytes[i] > '9')
			return false;
		value = value * 10 + (uint64_t)(word->bytes[i] - '0');
	}
	*out = value;
	return true;
}

/* For strtoull(): with an end. What is longer than any number is none. */
static bool copy_word(const struct word *word, char text[NUMBER_BYTES])
{
	if (word->count == 0 || word->count >= NUMBER_BYTES)
		return false;
	memcpy(text, word->bytes, word->count);
	text[word->count] = '\0';
	return memchr(text, '\0', word->count) == NULL;
}

static bool ends_well(const char *text, const char *end)
{
	return end != text && errno != ERANGE && (*end == '\0' || *end == ' ' || (*end >= '\t' && *end <= '\r'));
}

bool word_unsigned(const struct word *word, uint64_t *out)
{
	char text[NUMBER_BYTES], *end;

	if (read_digits(word, out))
		return true;
	if (!copy_word(word, text))
		return false;
	errno = 0;
	const unsigned long long value = strtoull(text, &end, 10);
	if (!ends_well(text, end) || ((long long)value < 0 && memchr(text, '-', (size_t)(end - text))))
		return false;
	*out = value;
	return true;
}

bool word_unsigned_32(const struct word *word, uint32_t *out)
{
	uint64_t value;

	if (!word_unsigned(word, &value))
		return false;
	*out = (uint32_t)value;
	return true;
}

bool word_signed_32(const struct word *word, int32_t *out)
{
	char text[NUMBER_BYTES], *end;
	uint64_t digits;

	if (read_digits(word, &digits)) {
		*out = (int32_t)digits;
		return true;
	}
	if (!copy_word(word, text))
		return false;
	errno = 0;
	const long long value = strtoll(text, &end, 10);
	if (!ends_well(text, end))
		return false;
	*out = (int32_t)value;
	return true;
}

uint64_t request_ttl_ns(struct session *session, int32_t seconds)
{
	if (seconds == 0)
		return KEYSPACE_NEVER;
	if (seconds < 0)
		return 0;
	if (seconds <= RELATIVE_MOST_SECONDS)
		return (uint64_t)seconds * NS_PER_SECOND;
	const int64_t left = (int64_t)seconds - keyspace_time(&session->service->keyspace);
	return left > 0 ? (uint64_t)left * NS_PER_SECOND : 0;
}

static enum step skip_value(struct session *session, size_t whole)
{
	session->refuses_value = false;
	session->skip_bytes = whole;
	return STEP_CLOSE;
}

enum step request_value(struct session *session, struct request *request, struct keyspace_key key, size_t count,
			const unsigned char **value, bool *ends_well)
{
	struct service *service = session->service;
	const bool is_apart = session->incoming; /* the command is whole, and its value lies in the cache's pages */
	const size_t whole = (is_apart ? 0 : count) + 2;

	if (count > service->settings.max_value_bytes)
		return skip_value(session, whole);
	if (request->rest_bytes < whole) {
		if (session->refuses_value)
			return skip_value(session, whole);
		switch (session->is_authenticated ? incoming_begin(&service->keyspace, &service->budget, key, request->line,
								   request->head_bytes, count, &session->incoming)
						  : INCOMING_ELSEWHERE) {
		case INCOMING_BEGUN:
			return STEP_MORE;
		case INCOMING_REFUSED:
			COUNT(session->counts, buffers_refused);
			return skip_value(session, whole);
		case INCOMING_ELSEWHERE:
			session->need_bytes = request->head_bytes + whole;
			return STEP_MORE;
		}
	}
	*value = is_apart ? session->incoming->fill.value : request->rest;
	*ends_well = memcmp(request->rest + whole - 2, "\r\n", 2) == 0;
	request->used = request->head_bytes + whole;
	return STEP_DONE;
}
