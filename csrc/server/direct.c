/*
 * direct.c - commands of droppable.connect(). See direct.h.
 *
 * Who attaches gets a descriptor of /proc/self/mem that was opened read-only: it can read everything in this process, and write
 * nothing. It can do so until this process ends, also when the connection has ended long before.
 */
#include "server/direct.h"

#include "cache/cache.h"
#include "cache/update.h"
#include "os/prim.h"
#include "server/claims.h"
#include "server/reply.h"
#include "server/resp.h"

#define WRONG_CLAIM "ERR a claim is a number that DROPPABLE.CLAIM has answered"
#define NS_PER_MS UINT64_C(1000000)

enum { META_MOST_BYTES = 4096, HEAD_MOST_BYTES = 64, INTEGER_MOST_BYTES = 20 };

/* Digits alone. False: it is no such number, or larger than most. */
static bool read_number(const struct word *word, uint64_t most, uint64_t *out)
{
	*out = 0;
	if (word->count == 0 || word->count > 20)
		return false;
	for (size_t i = 0; i < word->count; i++)
		if (word->bytes[i] < '0' || word->bytes[i] > '9' || __builtin_mul_overflow(*out, (uint64_t)10, out) ||
		    __builtin_add_overflow(*out, (uint64_t)(word->bytes[i] - '0'), out))
			return false;
	return *out <= most;
}

static bool is_key(const struct word *word)
{
	return word->count > 0 && word->count <= RESP_KEY_BYTES;
}

static enum step wrong_key(struct session *session)
{
	return resp_fail(session, "ERR keys have 1 to 16384 bytes");
}

enum step direct_attach(struct session *session, struct request *request)
{
	const struct service *service = session->service;

	(void)request;
	if (!session->is_local)
		return resp_fail(session, "ERR descriptors are passed over a unix socket alone");
	if (service->passed_count == 0)
		return resp_fail(session, service->settings.allows_attach
					     ? "ERR this system does not let the server pass a descriptor of its memory"
					     : "ERR the server was started with --no-attach");
	session->passes = true;
	resp_array(session, 3);
	resp_number(session, BOARD_LAYOUT);
	resp_number(session, (int64_t)service->publication.bytes);
	return resp_answer_number(session, (int64_t)prim_now_coarse_ns());
}

/* A value on its way into the output: |*3 kind|meta length|meta|value length|value|, all of which is known when it is placed. */
struct taking {
	struct cache_sink sink;
	struct output *out;
	size_t bytes; /* from where the output stood */
};

static int place(struct cache_sink *sink, uint8_t kind, size_t meta_bytes, size_t value_bytes, void **meta, void **value)
{
	struct taking *taking = (struct taking *)sink;
	unsigned char *const room = output_room(taking->out, HEAD_MOST_BYTES + meta_bytes + value_bytes);

	if (!room)
		return -1;
	char *at = put_text((char *)room, "*3\r\n:", 5);
	at = put_text(put_number(at, kind), "\r\n$", 3);
	at = put_text(put_number(at, meta_bytes), "\r\n", 2);
	*meta = at;
	at = put_text(put_number(put_text(at + meta_bytes, "\r\n$", 3), value_bytes), "\r\n", 2);
	*value = at;
	at = put_text(at + value_bytes, "\r\n", 2);
	taking->bytes = (size_t)(at - (char *)room);
	return 0;
}

/* The value, or *there is false and nothing is answered. */
static enum step answer_value(struct session *session, const struct word *key, bool *there)
{
	struct taking taking = {.sink = {.reserve = place}, .out = session->out};
	struct cache_pin pin;

	*there = true;
	if (!is_key(key))
		return wrong_key(session);
	/* Room for what is placed under a lock of the cache, before it is taken. */
	if (!output_room(session->out, REPLY_ROOM_BYTES))
		return resp_fail(session, "OOM no memory is left for this reply");
	switch (cache_get(session->service->direct, key->bytes, key->count, GET_COPY, &taking.sink, &pin, NULL)) {
	case DRP_OK:
		output_use(session->out, taking.bytes);
		return STEP_DONE;
	case DRP_REFUSED:
		return resp_fail(session, "OOM no memory is left for this reply");
	default:
		*there = false;
		return STEP_DONE;
	}
}

enum step direct_get(struct session *session, struct request *request)
{
	bool there;
	const enum step step = answer_value(session, &request->words[1], &there);

	if (!there)
		resp_null(session);
	return step;
}

enum step direct_claim(struct session *session, struct request *request)
{
	const struct word *key = &request->words[1];
	const bool anyway = request->count == 3;
	uint64_t claim_number = 0;
	bool there;

	if (anyway && !resp_is(&request->words[2], "ANYWAY"))
		return resp_fail(session, "ERR syntax error");
	if (!is_key(key))
		return wrong_key(session);
	enum step step = anyway ? STEP_DONE : answer_value(session, key, &there);
	if (!anyway && there)
		return step;
	const enum claim claim = claims_take(session->service->claims, key->bytes, key->count, session->resp->id, anyway, &claim_number);
	if (claim == CLAIM_OTHERS)
		return resp_answer_number(session, 0);
	session->has_claims = true;
	if (anyway)
		return resp_answer_number(session, claim == CLAIM_FULL ? -1 : (int64_t)claim_number);
	/* Whoever had the claim may have stored it since we looked. */
	step = answer_value(session, key, &there);
	if (!there)
		return resp_answer_number(session, claim == CLAIM_FULL ? -1 : (int64_t)claim_number);
	claims_give_up(session->service->claims, key->bytes, key->count, session->resp->id, claim_number);
	return step;
}

enum step direct_release(struct session *session, struct request *request)
{
	const struct word *key = &request->words[1];
	uint64_t claim;

	if (!read_number(&request->words[2], INT64_MAX, &claim))
		return resp_fail(session, WRONG_CLAIM);
	return resp_answer_number(session, claims_give_up(session->service->claims, key->bytes, key->count, session->resp->id, claim));
}

/* What is computed under other claims on the key is older from now on, and not stored any more. */
static int store_item(struct service *service, const struct word *key, const struct cache_item *item, enum cache_set_mode mode)
{
	const int status = cache_set(service->direct, key->bytes, key->count, item, mode);

	if (status != DRP_EXISTS)
		claims_revoke(service->claims, key->bytes, key->count);
	/* An older value must not stand in for the one that was refused. */
	if (status != DRP_OK && status != DRP_EXISTS && mode == SET_ALWAYS)
		cache_delete(service->direct, key->bytes, key->count, 0);
	return status;
}

/* claim: that it was computed under; 0: none. */
static enum step store(struct session *session, const struct word *key, const struct cache_item *item, enum cache_set_mode mode,
		       uint64_t claim)
{
	struct service *service = session->service;
	const uint64_t holder = session->resp->id;
	int status = DRP_EXISTS;

	claims_lock_key(service->claims, key->bytes, key->count);
	if (claim == 0 || claims_hold(service->claims, key->bytes, key->count, holder, claim))
		status = store_item(service, key, item, mode);
	if (claim != 0)
		claims_give_up(service->claims, key->bytes, key->count, holder, claim);
	claims_unlock_key(service->claims, key->bytes, key->count);
	switch (status) {
	case DRP_OK:
		resp_ok(session);
		return STEP_DONE;
	case DRP_EXISTS:
		resp_null(session);
		return STEP_DONE;
	case DRP_TOO_LARGE:
		return resp_fail(session, "ERR the value is larger than this cache can hold");
	default:
		return resp_fail(session, RESP_NO_MEMORY);
	}
}

enum step direct_set(struct session *session, struct request *request)
{
	const struct word *key = &request->words[1], *meta = &request->words[3], *value = &request->words[4];
	const struct drp_part part = {value->bytes, value->count};
	uint64_t kind, ms;

	if (!is_key(key))
		return wrong_key(session);
	if (!read_number(&request->words[2], UINT8_MAX, &kind) || !read_number(&request->words[5], INT64_MAX / NS_PER_MS, &ms))
		return resp_fail(session, "ERR kind and time to live are numbers: 0 to 255, and milliseconds");
	if (meta->count > META_MOST_BYTES)
		return resp_fail(session, "ERR meta has at most 4096 bytes");
	const bool only_new = request->count == 7 && resp_is(&request->words[6], "NX");
	const bool is_claimed = request->count == 8 && resp_is(&request->words[6], "CLAIMED");
	if (request->count > 6 && !only_new && !is_claimed)
		return resp_fail(session, "ERR syntax error");
	uint64_t claim = 0;
	if (is_claimed && (!read_number(&request->words[7], INT64_MAX, &claim) || claim == 0))
		return resp_fail(session, WRONG_CLAIM);
	const struct cache_item item = {.parts = &part, .part_count = 1, .meta = meta->bytes, .meta_bytes = meta->count,
					.kind = (uint8_t)kind, .ttl_ns = ms * NS_PER_MS};
	return store(session, key, &item, only_new ? SET_IF_ABSENT : SET_ALWAYS, claim);
}

enum step direct_delete(struct session *session, struct request *request)
{
	const struct word *key = &request->words[1];
	struct claims *claims = session->service->claims;

	if (!is_key(key))
		return wrong_key(session);
	claims_lock_key(claims, key->bytes, key->count);
	claims_revoke(claims, key->bytes, key->count);
	const bool was_there = cache_delete(session->service->direct, key->bytes, key->count, 0) == DRP_OK;
	claims_unlock_key(claims, key->bytes, key->count);
	return resp_answer_number(session, was_there);
}

enum step direct_has(struct session *session, struct request *request)
{
	const struct word *key = &request->words[1];

	if (!is_key(key))
		return wrong_key(session);
	return resp_answer_number(session, cache_contains(session->service->direct, key->bytes, key->count) == 1);
}

/* An integer's digits, read from an entry of one kind alone. */
struct digits {
	struct cache_sink sink;
	uint8_t kind;
	size_t count;
	char text[INTEGER_MOST_BYTES];
};

static int place_digits(struct cache_sink *sink, uint8_t kind, size_t meta_bytes, size_t value_bytes, void **meta, void **value)
{
	struct digits *digits = (struct digits *)sink;

	if (kind != digits->kind || meta_bytes > 0 || value_bytes > sizeof(digits->text))
		return -1;
	digits->count = value_bytes;
	*meta = *value = digits->text;
	return 0;
}

/*
 * Adds to the integer that is there. The key's lock is held, so that nobody stores or deletes it between the look and the store;
 * if the kernel drops it there, the store finds nothing to replace. DRP_INVALID: it is no integer; DRP_TOO_LARGE: the sum is.
 */
static int add(struct cache *cache, const struct word *key, uint8_t kind, int64_t delta, int64_t *sum)
{
	struct digits digits = {.sink = {.reserve = place_digits}, .kind = kind};
	struct cache_update how = {.mode = SET_IF_PRESENT, .keep_expiry = true};
	struct cache_pin pin;
	char text[INTEGER_MOST_BYTES];

	const int found = cache_get(cache, key->bytes, key->count, GET_COPY, &digits.sink, &pin, NULL);
	if (found != DRP_OK)
		return found == DRP_REFUSED ? DRP_INVALID : found;
	if (!resp_integer(&(struct word){digits.text, digits.count}, sum))
		return DRP_INVALID;
	if (__builtin_add_overflow(*sum, delta, sum))
		return DRP_TOO_LARGE;
	char *at = text;
	if (*sum < 0)
		*at++ = '-';
	at = put_number(at, *sum < 0 ? 0 - (uint64_t)*sum : (uint64_t)*sum);
	const struct drp_part part = {text, (size_t)(at - text)};
	const struct cache_item item = {.parts = &part, .part_count = 1, .kind = kind};
	const int status = cache_update(cache, key->bytes, key->count, &item, &how);
	if (status == DRP_OK)
		return status;
	cache_delete(cache, key->bytes, key->count, 0); /* the old count would be wrong */
	return DRP_MISS;
}

enum step direct_incr(struct session *session, struct request *request)
{
	const struct word *key = &request->words[1];
	struct claims *claims = session->service->claims;
	int64_t delta, sum;
	uint64_t kind;

	if (!is_key(key))
		return wrong_key(session);
	if (!read_number(&request->words[2], UINT8_MAX, &kind) || !resp_integer(&request->words[3], &delta))
		return resp_fail(session, "ERR kind and what is added are integers: 0 to 255, and of 64 bits");
	claims_lock_key(claims, key->bytes, key->count);
	const int status = add(session->service->direct, key, (uint8_t)kind, delta, &sum);
	if (status == DRP_OK)
		claims_revoke(claims, key->bytes, key->count);
	claims_unlock_key(claims, key->bytes, key->count);
	switch (status) {
	case DRP_OK:
		return resp_answer_number(session, sum);
	case DRP_INVALID:
		return resp_fail(session, "ERR the value is no integer");
	case DRP_TOO_LARGE:
		return resp_fail(session, "ERR the sum has more than 64 bits");
	default:
		resp_null(session);
		return STEP_DONE;
	}
}

enum step direct_touch(struct session *session, struct request *request)
{
	const struct word *key = &request->words[1];
	uint64_t ms;

	if (!is_key(key))
		return wrong_key(session);
	if (!read_number(&request->words[2], INT64_MAX / NS_PER_MS, &ms))
		return resp_fail(session, "ERR a time to live is a number of milliseconds");
	switch (cache_touch(session->service->direct, key->bytes, key->count, ms * NS_PER_MS)) {
	case DRP_OK:
		return resp_answer_number(session, 1);
	case DRP_MISS:
		return resp_answer_number(session, 0);
	default:
		return resp_fail(session, RESP_NO_MEMORY);
	}
}

enum step direct_ttl(struct session *session, struct request *request)
{
	const struct word *key = &request->words[1];
	struct cache *cache = session->service->direct;
	struct cache_about about;

	if (!is_key(key))
		return wrong_key(session);
	if (cache_look_at(cache, key->bytes, key->count, &about) != DRP_OK)
		return resp_answer_number(session, -2);
	const uint64_t left_ns = cache_remaining_ns(cache, &about);
	return resp_answer_number(session, left_ns ? (int64_t)((left_ns - 1) / NS_PER_MS + 1) : -1);
}

enum step direct_clear(struct session *session, struct request *request)
{
	(void)request;
	if (!session->service->settings.allows_flush)
		return resp_fail(session, "ERR the server was started with --no-flush");
	claims_lock_key(session->service->claims, NULL, 0);
	claims_revoke(session->service->claims, NULL, 0);
	cache_clear(session->service->direct);
	claims_unlock_key(session->service->claims, NULL, 0);
	resp_ok(session);
	return STEP_DONE;
}

enum step direct_hits(struct session *session, struct request *request)
{
	const char *at = request->line, *const end = at + request->line_bytes;
	struct word word;
	uint64_t hits;

	if (!read_number(&request->words[1], UINT32_MAX, &hits)) /* the sum has 64 bits: no client makes it wrap */
		return STEP_CLOSE; /* there is no reply that an error could come by */
	atomic_fetch_add_explicit(&session->service->direct_hits, hits, memory_order_relaxed);
	for (unsigned i = 0; resp_next(&at, end, &word); i++)
		if (i >= 2)
			cache_note_use(session->service->direct, word.bytes, word.count);
	return STEP_DONE;
}

static void put_count(struct session *session, const char *name, uint64_t count)
{
	resp_string(session, name, strlen(name));
	resp_number(session, (int64_t)count);
}

enum step direct_stats(struct session *session, struct request *request)
{
	struct cache_stats stats;
	uint64_t misses = 0;

	(void)request;
	cache_read_stats(session->service->direct, &stats);
	for (int cause = 0; cause < MISS_CAUSES; cause++)
		misses += stats.misses[cause];
	resp_map(session, 10);
	put_count(session, "entries", stats.entries);
	put_count(session, "stored_bytes", stats.bytes);
	put_count(session, "hits", stats.hits);
	put_count(session, "direct_hits", atomic_load_explicit(&session->service->direct_hits, memory_order_relaxed));
	put_count(session, "misses", misses);
	put_count(session, "sets", stats.sets);
	put_count(session, "dropped", stats.dropped);
	put_count(session, "evicted", stats.evicted);
	put_count(session, "expired", stats.expired);
	put_count(session, "refused", stats.refused);
	return STEP_DONE;
}
