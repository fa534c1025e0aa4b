/*
 * fuzz_cache.c - a small cache under libFuzzer, on prim_fake: each input is a program of calls, and of pages that go at any step of
 * them. Built and run by tools/fuzz.sh cache.
 *
 *   input:  | shape | operation, key, a, b | operation, key, a, b | ...
 *
 * Every value that is read is compared with what was stored last; after the program all is counted from scratch (check_counts.h).
 * The shape chooses the backing, a bound, and how many numbers segments have: few, so that they go round.
 */
#include <stdint.h>
#include <stdlib.h>

#include "cache/cache.h"

#include "cache/fill.h"
#include "cache/update.h"
#include "cache_client.h"
#include "cache_on_fake.h"
#include "check.h"
#include "check_counts.h"
#include "policy/unpin.h"
#include "prim_fake.h"

enum { PAGE = 4096, SEGMENT = 8 * PAGE, KEYS = 64, OPERATIONS_MOST = 400, OPERATION_BYTES = 4, HELD = 4, NUMBERS = 0x3f };

static struct client_sink sink;
static struct {
	uint64_t version; /* that was stored last; 0: none */
	size_t bytes;
} model[KEYS];
static struct {
	struct cache_pin pin;
	uint64_t key, version;
	size_t bytes;
} held[HELD];

static void require(bool holds)
{
	if (!holds)
		abort();
}

static size_t size_of(uint8_t a)
{
	static const size_t steps[] = {1, 16, 300, PAGE}; /* up to 63 of them */
	return a % 64 * steps[a / 64] % (20 * PAGE);
}

static void set(struct cache *cache, uint64_t key, uint8_t a, uint8_t b, uint64_t version)
{
	static const enum cache_set_mode modes[] = {SET_ALWAYS, SET_ALWAYS, SET_IF_ABSENT, SET_IF_PRESENT};
	const size_t bytes = size_of(a);
	const enum cache_set_mode mode = modes[b % 4];
	unsigned char *value = malloc(bytes + 1);
	require(value != NULL);
	client_fill(value, key, version, bytes);
	const struct drp_part part = {value, bytes};
	const uint64_t meta[] = {version, bytes};
	const struct cache_item item = {.parts = &part, .part_count = 1, .meta = meta, .meta_bytes = sizeof(meta),
					.kind = (uint8_t)(key & 7), .own_pages = b & 4, .ttl_ns = b & 8 ? 1000000 : 0, .versioned = b & 16};
	struct cache_update update = {.mode = mode, .keep_expiry = b & 32};
	const int status = cache_update(cache, &key, sizeof(key), &item, &update);

	if (status == DRP_OK) {
		model[key].version = version;
		model[key].bytes = bytes;
	} else if (status == DRP_REFUSED && mode != SET_IF_ABSENT) {
		model[key].version = 0;
	} else {
		require(status == DRP_REFUSED || status == DRP_EXISTS || status == DRP_MISS || status == DRP_NO_MEMORY || status == DRP_TOO_LARGE);
	}
	free(value);
}

static void get(struct cache *cache, uint64_t key, enum cache_get_mode mode)
{
	uint64_t version;
	bool wrong;
	const int status = client_get(cache, &sink, key, mode, &version, &wrong);

	require(status == DRP_OK || status == DRP_MISS || status == DRP_REFUSED);
	require(status != DRP_OK || (!wrong && version == model[key].version));
}

static void let_go(size_t i)
{
	unsigned char *expected = malloc(held[i].bytes + 1);

	require(expected != NULL);
	client_fill(expected, held[i].key, held[i].version, held[i].bytes);
	require(memcmp(held[i].pin.value, expected, held[i].bytes) == 0);
	free(expected);
	cache_unpin(&held[i].pin);
}

static void hold(struct cache *cache, uint64_t key, size_t i)
{
	if (held[i].pin.cache)
		let_go(i);
	sink.base = (struct cache_sink){.reserve = client_reserve};
	if (cache_get(cache, &key, sizeof(key), GET_PIN, &sink.base, &held[i].pin, NULL) != DRP_OK || !held[i].pin.cache)
		return;
	require(model[key].version != 0 && held[i].pin.value_bytes == model[key].bytes);
	held[i].key = key;
	held[i].version = model[key].version;
	held[i].bytes = model[key].bytes;
}

static void fill(struct cache *cache, uint64_t key, uint8_t a, bool commits, uint64_t version)
{
	const size_t bytes = size_of(a);
	const uint64_t meta[] = {version, bytes};
	const struct cache_item item = {.meta = meta, .meta_bytes = sizeof(meta), .kind = (uint8_t)(key & 7)};
	struct cache_update update = {.mode = SET_ALWAYS};
	struct cache_fill filled;

	if (cache_set_begin(cache, &key, sizeof(key), &item, bytes, &filled) != DRP_OK)
		return;
	client_fill(filled.value, key, version, bytes);
	if (!commits) {
		cache_set_abort(&filled);
		return;
	}
	const int status = cache_set_commit(&filled, &key, sizeof(key), &item, &update);
	if (status == DRP_OK || status == DRP_REFUSED) {
		model[key].version = status == DRP_OK ? version : 0;
		model[key].bytes = bytes;
	}
}

static int note_key(void *context, const void *key, size_t key_bytes)
{
	uint64_t number;

	(void)context;
	require(key_bytes == sizeof(number));
	memcpy(&number, key, sizeof(number));
	require(number < KEYS);
	return DRP_OK;
}

static void operate(struct cache *cache, const uint8_t *at, uint64_t version)
{
	const uint64_t key = at[1] % KEYS;
	const uint8_t a = at[2], b = at[3];
	struct cache_drop dropped;
	uint64_t cursor = 0;

	switch (at[0] % 18) {
	case 0 ... 4:
		set(cache, key, a, b, version);
		break;
	case 5:
		fill(cache, key, a, b & 1, version);
		break;
	case 6 ... 7:
		get(cache, key, a & 1 ? GET_PIN : GET_COPY);
		break;
	case 8:
		hold(cache, key, a % HELD);
		break;
	case 9:
		if (cache_delete(cache, &key, sizeof(key), 0) == DRP_OK)
			model[key].version = 0;
		break;
	case 10:
		require(cache_touch(cache, &key, sizeof(key), a & 1 ? 1000000u * b : 0) <= DRP_OK);
		break;
	case 11:
		fake_drop_at_step(a, b == 0 ? FAKE_EVERY_PAGE : fake_pages() ? b % fake_pages() : 0);
		break;
	case 12:
		fake_drop(a == 0 ? FAKE_EVERY_PAGE : a % (fake_pages() + 1));
		break;
	case 13:
		fake_fail_call(a % 16);
		break;
	case 14:
		cache_advance_clock(cache, 1000u * a * b);
		break;
	case 15:
		require(cache_settle(cache) == DRP_OK);
		break;
	case 16:
		while (cache_walk(cache, &cursor, note_key, NULL) == DRP_OK)
			;
		break;
	case 17:
		if (a == 0)
			require(cache_clear(cache) == DRP_OK);
		else if (a < 64)
			(void)cache_drop(cache, 0.3, b, &dropped);
		else if (a < 128)
			fake_move_between_cpus(b & 1);
		else
			fake_headroom(100 << 20, b & 1 ? (100 << 20) - 4096 : 10 << 20, b & 2 ? 50 << 20 : 0);
		break;
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (size < 1 + OPERATION_BYTES)
		return 0;
	const uint8_t shape = *data++;
	const struct cache_config config = {.backing = shape & 1 ? PRIM_DROPPABLE : PRIM_LAZYFREE, .shards = 1, .segment_bytes = SEGMENT,
					    .max_bytes = shape & 2 ? 64 * PAGE : 0, .span_bytes = shape & 4 ? 20 * SEGMENT : 0};
	struct cache *cache = fake_cache_make(&config);
	size_t count = (size - 1) / OPERATION_BYTES;

	if (shape & 8)
		cache->shards[0].arena.number_mask = NUMBERS;
	memset(model, 0, sizeof(model));
	if (count > OPERATIONS_MOST)
		count = OPERATIONS_MOST;
	for (size_t i = 0; i < count; i++)
		operate(cache, data + i * OPERATION_BYTES, i + 1);
	fake_drop_at_step(0, 0);
	fake_fail_call(0);
	for (size_t i = 0; i < HELD; i++)
		if (held[i].pin.cache)
			let_go(i);
	for (uint64_t key = 0; key < KEYS; key++)
		get(cache, key, GET_COPY);
	(void)unpin_all();
	check_counts(cache);
	fake_cache_end(cache);
	require(check_failures() == 0);
	return 0;
}
