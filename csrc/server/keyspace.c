/*
 * keyspace.c - the one key space of all protocols. See keyspace.h for the contract.
 *
 * An entry's meta, beside the value:   version 8 | flags 4, unless 0 | marks 1, unless 0
 * The entry's kind says which of them are there. The version is one of ours, not the cache's: a client may choose it (the flag
 * E of meta commands), and it is never one that an earlier server gave.
 */
#include "server/keyspace.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "cache/cache.h"
#include "cache/fill.h"
#include "cache/update.h"
#include "os/drp_assert.h"
#include "os/prim.h"

enum kind_bits { KIND_FLAGS = 1, KIND_MARKS = 2 };
enum { META_MOST_BYTES = 8 + 4 + 1, STACK_VALUE_BYTES = 1024 };

#define NS_PER_SECOND UINT64_C(1000000000)

int keyspace_init(struct keyspace *keyspace, struct cache *cache, size_t max_value_bytes)
{
	keyspace->cache = cache;
	keyspace->max_value_bytes = max_value_bytes;
	keyspace->watcher = NULL;
	/* Later than any that an earlier server of this socket gave: its clients may still hold those. */
	atomic_init(&keyspace->last_version, (uint64_t)time(NULL) * 1000000);
	atomic_init(&keyspace->skew_seconds, 0);
	for (int i = 0; i < KEYSPACE_STRIPES; i++)
		if (pthread_mutex_init(&keyspace->stripes[i].lock, NULL) != 0) {
			while (i-- > 0)
				pthread_mutex_destroy(&keyspace->stripes[i].lock);
			return DRP_NO_MEMORY;
		}
	return DRP_OK;
}

void keyspace_destroy(struct keyspace *keyspace)
{
	for (int i = 0; i < KEYSPACE_STRIPES; i++)
		pthread_mutex_destroy(&keyspace->stripes[i].lock);
}

int64_t keyspace_time(struct keyspace *keyspace)
{
	return (int64_t)time(NULL) + (int64_t)atomic_load_explicit(&keyspace->skew_seconds, memory_order_relaxed);
}

int64_t keyspace_time_ms(struct keyspace *keyspace)
{
	struct timespec now = {0};

	if (clock_gettime(CLOCK_REALTIME, &now) != 0)
		return keyspace_time(keyspace) * 1000;
	return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000 +
	       (int64_t)atomic_load_explicit(&keyspace->skew_seconds, memory_order_relaxed) * 1000;
}

void keyspace_advance_clock(struct keyspace *keyspace, uint64_t seconds)
{
	atomic_fetch_add_explicit(&keyspace->skew_seconds, seconds, memory_order_relaxed);
	cache_advance_clock(keyspace->cache, seconds * NS_PER_SECOND);
}

/* Keys that share a stripe wait for one another, no more: any spread will do. */
static pthread_mutex_t *lock_key(struct keyspace *keyspace, struct keyspace_key key)
{
	uint64_t first = 0, last = 0;
	const size_t some = key.count < sizeof(first) ? key.count : sizeof(first);

	memcpy(&first, key.bytes, some);
	memcpy(&last, key.bytes + key.count - some, some);
	const uint64_t mixed = (first ^ (last << 1) ^ key.count) * UINT64_C(0x9e3779b97f4a7c15);
	pthread_mutex_t *lock = &keyspace->stripes[mixed >> 56].lock;
	pthread_mutex_lock(lock);
	return lock;
}

static uint64_t choose_version(struct keyspace *keyspace, uint64_t chosen)
{
	return chosen ? chosen : atomic_fetch_add_explicit(&keyspace->last_version, 1, memory_order_relaxed) + 1;
}

static size_t meta_bytes_of(uint8_t kind)
{
	return 8 + (kind & KIND_FLAGS ? 4 : 0) + (kind & KIND_MARKS ? 1 : 0);
}

static void read_meta(const unsigned char *meta, uint8_t kind, struct keyspace_item *item)
{
	*item = (struct keyspace_item){.left_ns = KEYSPACE_NEVER};
	memcpy(&item->version, meta, 8);
	meta += 8;
	if (kind & KIND_FLAGS) {
		memcpy(&item->flags, meta, 4);
		meta += 4;
	}
	if (kind & KIND_MARKS)
		item->marks = *meta;
}

/* Between the cache's sink and ours: meta to us, the value to the caller, or nowhere. */
struct reading {
	struct cache_sink sink;
	struct keyspace_sink *to; /* NULL: the value is not wanted */
	unsigned char meta[META_MOST_BYTES];
	uint8_t kind;
	size_t value_bytes;
};

static int reserve(struct cache_sink *sink, uint8_t kind, size_t meta_bytes, size_t value_bytes, void **meta, void **value)
{
	struct reading *reading = (struct reading *)sink;

	DRP_ASSERT(meta_bytes == meta_bytes_of(kind));
	(void)meta_bytes;
	reading->kind = kind;
	reading->value_bytes = value_bytes;
	*meta = reading->meta;
	*value = reading->to->place(reading->to, value_bytes);
	return *value ? 0 : 1;
}

enum keyspace_answer keyspace_get(struct keyspace *keyspace, struct keyspace_key key, struct keyspace_sink *sink, struct keyspace_item *item)
{
	struct reading reading = {.sink = {.reserve = reserve}, .to = sink};
	struct cache_about about;
	struct cache_pin pin;

	const int status = cache_get(keyspace->cache, key.bytes, key.count, GET_COPY, &reading.sink, &pin, &about);
	if (status == DRP_OK) {
		read_meta(reading.meta, reading.kind, item);
		if (about.expires_ns != 0)
			item->left_ns = cache_remaining_ns(keyspace->cache, &about);
		item->value_bytes = reading.value_bytes;
		return KEYSPACE_DONE;
	}
	return status == DRP_REFUSED ? KEYSPACE_NO_MEMORY : KEYSPACE_NOT_FOUND;
}

/* A value in memory of ours: on the stack where it is small. */
struct copy {
	struct keyspace_sink sink;
	unsigned char on_stack[STACK_VALUE_BYTES], *bytes, *heap;
	size_t capacity, most_bytes;
};

static void *place_copy(struct keyspace_sink *sink, size_t value_bytes)
{
	struct copy *copy = (struct copy *)sink;

	if (value_bytes > copy->most_bytes)
		return NULL;
	if (value_bytes <= copy->capacity)
		return copy->bytes;
	free(copy->heap);
	copy->bytes = copy->heap = malloc(value_bytes);
	copy->capacity = copy->heap ? value_bytes : 0;
	return copy->heap;
}

static void copy_init(struct copy *copy, size_t most_bytes)
{
	copy->sink.place = place_copy;
	copy->bytes = copy->on_stack;
	copy->heap = NULL;
	copy->capacity = sizeof(copy->on_stack);
	copy->most_bytes = most_bytes;
}

enum keyspace_answer keyspace_look(struct keyspace *keyspace, struct keyspace_key key, struct keyspace_item *item)
{
	struct copy copy;

	copy_init(&copy, keyspace->max_value_bytes);
	const enum keyspace_answer answer = keyspace_get(keyspace, key, &copy.sink, item);
	free(copy.heap);
	return answer;
}

enum keyspace_answer keyspace_peek(struct keyspace *keyspace, struct keyspace_key key, uint64_t *left_ns)
{
	struct cache_about about;

	if (cache_look_at(keyspace->cache, key.bytes, key.count, &about) != DRP_OK)
		return KEYSPACE_NOT_FOUND;
	*left_ns = about.expires_ns != 0 ? cache_remaining_ns(keyspace->cache, &about) : KEYSPACE_NEVER;
	return KEYSPACE_DONE;
}

uint64_t keyspace_entries(struct keyspace *keyspace)
{
	struct cache_stats stats;

	cache_read_stats(keyspace->cache, &stats);
	return stats.entries;
}

static void tell(struct keyspace *keyspace, struct keyspace_key key, bool has_changed)
{
	if (has_changed && keyspace->watcher)
		keyspace->changed(keyspace->watcher, key);
}

static enum keyspace_answer drop_key(struct keyspace *keyspace, struct keyspace_key key)
{
	const int status = cache_delete(keyspace->cache, key.bytes, key.count, 0);

	return status == DRP_OK ? KEYSPACE_DONE : KEYSPACE_NOT_FOUND;
}

enum keyspace_answer keyspace_begin(struct keyspace *keyspace, struct keyspace_key key, size_t value_bytes, struct cache_fill *fill)
{
	const struct cache_item item = {.meta_bytes = META_MOST_BYTES};
	const int status = cache_set_begin(keyspace->cache, key.bytes, key.count, &item, value_bytes, fill);

	if (status != DRP_OK)
		return KEYSPACE_NO_MEMORY;
	if (fill->in_place)
		return KEYSPACE_DONE;
	cache_set_abort(fill);
	return KEYSPACE_NOT_STORED;
}

/* Under the key's lock. The parts of a value, with what is known of it. fill: they are one, which lies there; or NULL. */
static enum keyspace_answer put_parts(struct keyspace *keyspace, struct keyspace_key key, const struct drp_part *parts, size_t part_count,
				   struct cache_fill *fill, const struct keyspace_item *item, enum cache_set_mode mode)
{
	struct cache_update update = {.mode = mode};
	unsigned char meta[META_MOST_BYTES];
	const uint8_t kind = (uint8_t)((item->flags ? KIND_FLAGS : 0) | (item->marks ? KIND_MARKS : 0));
	unsigned char *at = meta;

	if (item->left_ns == 0) {
		drop_key(keyspace, key);
		return KEYSPACE_DONE;
	}
	memcpy(at, &item->version, 8);
	at += 8;
	if (kind & KIND_FLAGS) {
		memcpy(at, &item->flags, 4);
		at += 4;
	}
	if (kind & KIND_MARKS)
		*at = item->marks;
	const struct cache_item cached = {
		.parts = parts, .part_count = part_count, .meta = meta, .meta_bytes = meta_bytes_of(kind), .kind = kind,
		.ttl_ns = item->left_ns != KEYSPACE_NEVER ? item->left_ns : 0,
	};
	switch (fill ? cache_set_commit(fill, key.bytes, key.count, &cached, &update)
		     : cache_update(keyspace->cache, key.bytes, key.count, &cached, &update)) {
	case DRP_OK:
		return KEYSPACE_DONE;
	case DRP_EXISTS:
		return KEYSPACE_NOT_STORED;
	case DRP_TOO_LARGE:
		drop_key(keyspace, key); /* an older value must not stand in for the one that was refused */
		return KEYSPACE_TOO_LARGE;
	case DRP_REFUSED:
		return KEYSPACE_NO_MEMORY; /* the cache forgot it */
	default:
		drop_key(keyspace, key);
		return KEYSPACE_NO_MEMORY;
	}
}

/* Under the key's lock: what is there, and how it differs from what the writer asks for. */
static enum keyspace_answer check_version(enum keyspace_answer found, const struct keyspace_item *there, uint64_t only_version)
{
	if (only_version == 0 || found != KEYSPACE_DONE)
		return found;
	return there->version == only_version ? KEYSPACE_DONE : KEYSPACE_EXISTS;
}

static enum keyspace_answer put_changed(struct keyspace *keyspace, struct keyspace_key key, const struct keyspace_write *write,
				     struct keyspace_item *item)
{
	const bool joins = write->mode == KEYSPACE_APPEND || write->mode == KEYSPACE_PREPEND;
	struct keyspace_item there;
	struct copy copy;
	enum keyspace_answer answer;

	copy_init(&copy, keyspace->max_value_bytes);
	answer = keyspace_get(keyspace, key, &copy.sink, &there);
	if (answer == KEYSPACE_NO_MEMORY)
		goto out;
	bool is_stale = false;
	if (write->only_version != 0) {
		is_stale = write->stale_if_older && answer == KEYSPACE_DONE && there.version > write->only_version;
		if (!is_stale)
			answer = check_version(answer, &there, write->only_version);
		if (answer == KEYSPACE_NOT_FOUND && joins)
			answer = KEYSPACE_NOT_STORED;
		if (answer != KEYSPACE_DONE)
			goto out;
	} else if (answer != KEYSPACE_DONE && (joins || write->mode == KEYSPACE_REPLACE)) {
		answer = KEYSPACE_NOT_STORED;
		goto out;
	}
	struct drp_part parts[2] = {{write->value, write->value_bytes}};
	size_t part_count = 1;
	if (answer == KEYSPACE_DONE && (write->keep_ttl || joins || is_stale))
		item->left_ns = there.left_ns;
	if (is_stale)
		item->marks = there.marks | KEYSPACE_STALE;
	if (joins && answer == KEYSPACE_DONE) {
		item->flags = there.flags;
		if (there.value_bytes + write->value_bytes > keyspace->max_value_bytes) {
			answer = KEYSPACE_TOO_LARGE;
			goto out;
		}
		const int behind = write->mode == KEYSPACE_APPEND;
		parts[behind] = parts[0];
		parts[!behind] = (struct drp_part){copy.bytes, there.value_bytes};
		part_count = 2;
	}
	answer = put_parts(keyspace, key, parts, part_count, part_count == 1 ? write->fill : NULL, item, SET_ALWAYS);
out:
	free(copy.heap);
	return answer;
}

enum keyspace_answer keyspace_put(struct keyspace *keyspace, struct keyspace_key key, const struct keyspace_write *write, uint64_t *version)
{
	const struct drp_part part = {write->value, write->value_bytes};
	struct keyspace_item item = {.left_ns = write->ttl_ns, .flags = write->flags, .marks = write->marks};
	pthread_mutex_t *lock = lock_key(keyspace, key);
	enum keyspace_answer answer;

	item.version = choose_version(keyspace, write->new_version); /* under the lock, so that they rise with time */
	if (write->value_bytes > keyspace->max_value_bytes) {
		drop_key(keyspace, key);
		answer = KEYSPACE_TOO_LARGE;
	} else if (write->only_version != 0 || write->keep_ttl || (write->mode != KEYSPACE_SET && write->mode != KEYSPACE_ADD)) {
		answer = put_changed(keyspace, key, write, &item);
	} else if (write->mode == KEYSPACE_ADD && write->ttl_ns == 0) {
		answer = cache_contains(keyspace->cache, key.bytes, key.count) == 1 ? KEYSPACE_NOT_STORED : KEYSPACE_DONE;
	} else {
		answer = put_parts(keyspace, key, &part, 1, write->fill, &item, write->mode == KEYSPACE_ADD ? SET_IF_ABSENT : SET_ALWAYS);
	}
	pthread_mutex_unlock(lock);
	tell(keyspace, key, answer == KEYSPACE_DONE || answer == KEYSPACE_TOO_LARGE || answer == KEYSPACE_NO_MEMORY);
	if (version)
		*version = item.version;
	return answer;
}

enum keyspace_answer keyspace_delete(struct keyspace *keyspace, struct keyspace_key key, uint64_t only_version)
{
	pthread_mutex_t *lock = lock_key(keyspace, key);
	enum keyspace_answer answer = KEYSPACE_DONE;
	struct keyspace_item there;

	if (only_version != 0)
		answer = check_version(keyspace_look(keyspace, key, &there), &there, only_version);
	if (answer == KEYSPACE_DONE)
		answer = drop_key(keyspace, key);
	pthread_mutex_unlock(lock);
	tell(keyspace, key, answer == KEYSPACE_DONE);
	return answer;
}

enum keyspace_answer keyspace_touch(struct keyspace *keyspace, struct keyspace_key key, uint64_t ttl_ns)
{
	pthread_mutex_t *lock = lock_key(keyspace, key);
	enum keyspace_answer answer;

	if (ttl_ns == 0) {
		answer = drop_key(keyspace, key);
	} else {
		const int status = cache_touch(keyspace->cache, key.bytes, key.count, ttl_ns != KEYSPACE_NEVER ? ttl_ns : 0);
		answer = status == DRP_OK || status == DRP_REFUSED || status == DRP_NO_MEMORY ? KEYSPACE_DONE : KEYSPACE_NOT_FOUND;
	}
	pthread_mutex_unlock(lock);
	tell(keyspace, key, answer == KEYSPACE_DONE);
	return answer;
}

enum keyspace_answer keyspace_alter(struct keyspace *keyspace, struct keyspace_key key, const struct keyspace_change *change,
				    struct keyspace_item *item)
{
	pthread_mutex_t *lock = lock_key(keyspace, key);
	struct copy copy;

	copy_init(&copy, keyspace->max_value_bytes);
	enum keyspace_answer answer = keyspace_get(keyspace, key, &copy.sink, item);
	answer = check_version(answer, item, change->only_version);
	if (answer == KEYSPACE_DONE) {
		const struct drp_part part = {copy.bytes, item->value_bytes};
		if (change->sets_ttl)
			item->left_ns = change->ttl_ns;
		if (change->sets_marks)
			item->marks = change->marks;
		if (change->adds_marks)
			item->marks |= change->marks;
		if (change->gives_version)
			item->version = choose_version(keyspace, change->new_version);
		answer = put_parts(keyspace, key, &part, 1, NULL, item, SET_ALWAYS);
	}
	pthread_mutex_unlock(lock);
	tell(keyspace, key, answer == KEYSPACE_DONE || answer == KEYSPACE_NO_MEMORY);
	free(copy.heap);
	return answer;
}

/* Digits with spaces around them, and nothing else; as strtoull() takes them, but without a sign unless is_signed. */
static bool read_number(const unsigned char *bytes, size_t count, bool is_signed, uint64_t *out)
{
	size_t at = 0;
	uint64_t value = 0;
	bool is_negative = false;

	while (!is_signed && at < count && (bytes[at] == ' ' || (bytes[at] >= '\t' && bytes[at] <= '\r')))
		at++;
	if (at < count && ((is_signed && bytes[at] == '-') || (!is_signed && bytes[at] == '+')))
		is_negative = bytes[at++] == '-';
	const size_t first = at;
	for (; at < count && bytes[at] >= '0' && bytes[at] <= '9'; at++)
		if (__builtin_mul_overflow(value, (uint64_t)10, &value) ||
		    __builtin_add_overflow(value, (uint64_t)(bytes[at] - '0'), &value))
			return false;
	if (at == first || (at < count && (is_signed || !(bytes[at] == ' ' || (bytes[at] >= '\t' && bytes[at] <= '\r')))))
		return false;
	if (is_signed && (value > (uint64_t)INT64_MAX + is_negative || (bytes[first] == '0' && count > 1)))
		return false; /* one number is written in one way */
	*out = is_negative ? 0 - value : value;
	return true;
}

static size_t write_number(char text[KEYSPACE_NUMBER_BYTES], uint64_t value, bool is_signed)
{
	char reversed[KEYSPACE_NUMBER_BYTES];
	size_t count = 0, length = 0;
	const bool is_negative = is_signed && (int64_t)value < 0;

	for (uint64_t left = is_negative ? 0 - value : value; left > 0 || count == 0; left /= 10)
		reversed[count++] = (char)('0' + left % 10);
	if (is_negative)
		text[length++] = '-';
	while (count > 0)
		text[length++] = reversed[--count];
	return length;
}

/* The sum of two signed numbers does not fit. */
static bool sum_overflows(uint64_t value, const struct keyspace_sum *sum, uint64_t *out)
{
	int64_t signed_sum;
	const bool overflows = sum->subtracts ? __builtin_sub_overflow((int64_t)value, (int64_t)sum->delta, &signed_sum)
					      : __builtin_add_overflow((int64_t)value, (int64_t)sum->delta, &signed_sum);

	*out = (uint64_t)signed_sum;
	return overflows;
}

/* Under the key's lock, for a value that is there. */
static enum keyspace_answer add_to(struct keyspace *keyspace, struct keyspace_key key, const struct keyspace_sum *sum, struct copy *copy,
				char text[KEYSPACE_NUMBER_BYTES], size_t *length, struct keyspace_item *item)
{
	uint64_t value;

	if (!read_number(copy->bytes, item->value_bytes, sum->is_signed, &value))
		return KEYSPACE_NO_NUMBER;
	if (sum->is_signed) {
		if (sum_overflows(value, sum, &value))
			return KEYSPACE_OVERFLOW;
	} else if (sum->subtracts) {
		value = value > sum->delta ? value - sum->delta : 0;
	} else {
		value += sum->delta;
	}
	*length = write_number(text, value, sum->is_signed);
	struct drp_part part = {text, *length};
	if (!sum->is_signed && *length < item->value_bytes) { /* it keeps its length, by spaces behind */
		memset(copy->bytes, ' ', item->value_bytes);
		memcpy(copy->bytes, text, *length);
		part = (struct drp_part){copy->bytes, item->value_bytes};
	}
	item->version = choose_version(keyspace, sum->new_version);
	struct keyspace_item changed = *item; /* the caller is told when it would have expired */
	if (sum->sets_ttl)
		changed.left_ns = sum->ttl_ns;
	return put_parts(keyspace, key, &part, 1, NULL, &changed, SET_ALWAYS);
}

enum keyspace_answer keyspace_add(struct keyspace *keyspace, struct keyspace_key key, const struct keyspace_sum *sum,
			    char text[KEYSPACE_NUMBER_BYTES], size_t *length, struct keyspace_item *item, bool *created)
{
	pthread_mutex_t *lock = lock_key(keyspace, key);
	struct copy copy;

	*created = false;
	copy_init(&copy, keyspace->max_value_bytes);
	enum keyspace_answer answer = keyspace_get(keyspace, key, &copy.sink, item);
	if (answer == KEYSPACE_DONE && item->value_bytes == 0)
		answer = KEYSPACE_NO_NUMBER;
	else
		answer = check_version(answer, item, sum->only_version);
	if (answer == KEYSPACE_DONE) {
		answer = add_to(keyspace, key, sum, &copy, text, length, item);
	} else if (answer == KEYSPACE_NOT_FOUND && sum->creates) {
		uint64_t value = sum->initial;
		if (sum->is_signed && sum_overflows(value, sum, &value)) {
			answer = KEYSPACE_OVERFLOW; /* only -2^63 subtracted from 0 */
		} else {
			*length = write_number(text, value, sum->is_signed);
			const struct drp_part part = {text, *length};
			*item = (struct keyspace_item){.version = choose_version(keyspace, sum->new_version), .left_ns = sum->create_ttl_ns,
						    .value_bytes = *length};
			answer = put_parts(keyspace, key, &part, 1, NULL, item, SET_ALWAYS);
			*created = true;
		}
	}
	pthread_mutex_unlock(lock);
	tell(keyspace, key, answer == KEYSPACE_DONE || answer == KEYSPACE_NO_MEMORY);
	free(copy.heap);
	return answer;
}

enum keyspace_answer keyspace_clear(struct keyspace *keyspace)
{
	const int status = cache_clear(keyspace->cache);

	if (keyspace->watcher)
		keyspace->cleared(keyspace->watcher);
	return status == DRP_OK ? KEYSPACE_DONE : KEYSPACE_NO_MEMORY;
}
