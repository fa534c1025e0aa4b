/*
 * test_failures.c - each call of the cache, while one call that it makes fails: each call of prim.h in turn with each status, and
 * each allocation in turn.
 *
 *   benign   the call gives what it gives else: the failure costs time, or memory that is given back later
 *   hard     the call says so, by one of the statuses that the table allows, and means it: nothing changed, or the key is gone
 *
 * Either way no value is wrong, none is older than what was stored, all counts are right (check_counts.h), the same call works
 * when it is made again, and at the end no mapping, no handle and no allocation is left.
 */
#include <stdlib.h>
#include <string.h>

#include "cache/cache.h"

#include "cache/fill.h"
#include "cache/lease.h"
#include "cache/many.h"
#include "cache/part.h"
#include "cache/update.h"
#include "cache_client.h"
#include "cache_on_fake.h"
#include "check.h"
#include "check_counts.h"
#include "policy/unpin.h"
#include "prim_fake.h"
#include "wrapped_alloc.h"

enum { PAGE = 4096, SEGMENT = 64 * PAGE, KEYS = 8, WHOLE = 6, PARTS = 5, KEPT_VERSION = 1, NEW_VERSION = 2 };

/* A short value, one of several pages of the log, values on pages of their own, and one whose mapping is its own. */
static const size_t sizes[KEYS] = {100, 3000, 6000, 2 * PAGE, 6 * PAGE - 9, 40000, 300 * PAGE, 0};

static struct client_sink sink;

/* Allocations fail too, where they are counted. */
static volatile bool counting; /* compilers take it that malloc() does not look at it */
static long allocated;

static void *counted(void *at)
{
	allocated += at != NULL;
	return at;
}

void *__wrap_malloc(size_t bytes)
{
	return counting && fake_fails() ? NULL : counted(__real_malloc(bytes));
}

void *__wrap_calloc(size_t count, size_t bytes)
{
	return counting && fake_fails() ? NULL : counted(__real_calloc(count, bytes));
}

void *__wrap_realloc(void *old, size_t bytes)
{
	if (counting && fake_fails())
		return NULL;
	void *at = __real_realloc(old, bytes);
	allocated += at && !old;
	return at;
}

void *__wrap_aligned_alloc(size_t alignment, size_t bytes)
{
	return counting && fake_fails() ? NULL : counted(__real_aligned_alloc(alignment, bytes));
}

void __wrap_free(void *at)
{
	allocated -= at != NULL;
	__real_free(at);
}

/* What the tests allocate for themselves does not fail. */
static unsigned char *value_of(uint64_t key, uint64_t version)
{
	const bool were_counted = counting;

	counting = false;
	unsigned char *value = malloc(sizes[key] + 1);
	REQUIRE(value != NULL);
	client_fill(value, key, version, sizes[key]);
	counting = were_counted;
	return value;
}

/* One key, which the calls are about. */
struct subject {
	struct cache *cache;
	uint64_t key;
	uint64_t version; /* that is there, if any */
};

static int store(struct subject *on, enum cache_set_mode mode, unsigned parts_count, struct cache_update *update)
{
	const size_t bytes = sizes[on->key];
	unsigned char *value = value_of(on->key, NEW_VERSION);
	const uint64_t meta[] = {NEW_VERSION, bytes};
	struct drp_part parts[PARTS];
	struct cache_item item = {.parts = parts, .part_count = parts_count, .meta = meta, .meta_bytes = sizeof(meta),
				  .kind = (uint8_t)(on->key & 7), .own_pages = on->key % 2, .cost_ns = 5};

	for (unsigned i = 0; i < parts_count; i++)
		parts[i] = (struct drp_part){value + bytes * i / parts_count, bytes * (i + 1) / parts_count - bytes * i / parts_count};
	const int status = update ? cache_update(on->cache, &on->key, sizeof(on->key), &item, update)
				  : cache_set(on->cache, &on->key, sizeof(on->key), &item, mode);
	__real_free(value);
	allocated--;
	if (status == DRP_OK)
		on->version = NEW_VERSION;
	else if (status == DRP_REFUSED && mode != SET_IF_ABSENT)
		on->version = 0;
	return status;
}

static int set(struct subject *on)
{
	return store(on, SET_ALWAYS, 1, NULL);
}

static int set_in_parts(struct subject *on)
{
	return store(on, SET_ALWAYS, PARTS, NULL);
}

static int add(struct subject *on)
{
	return store(on, SET_IF_ABSENT, 1, NULL);
}

static int add_after_delete(struct subject *on)
{
	const int status = cache_delete(on->cache, &on->key, sizeof(on->key), 0);

	if (status == DRP_OK)
		on->version = 0;
	return store(on, SET_IF_ABSENT, 1, NULL);
}

static int update_present(struct subject *on)
{
	struct cache_update update = {.mode = SET_IF_PRESENT, .keep_expiry = true};

	return store(on, update.mode, 1, &update);
}

static int set_under_lease(struct subject *on)
{
	struct cache_lease lease;
	struct cache_update update = {.mode = SET_ALWAYS, .lease = &lease};

	int status = cache_lease_begin(on->cache, &on->key, sizeof(on->key), &lease);
	if (status != DRP_OK)
		return status;
	status = store(on, update.mode, 1, &update);
	cache_lease_end(&lease);
	return status;
}

static int fill(struct subject *on, bool commits)
{
	const size_t bytes = sizes[on->key];
	const uint64_t meta[] = {NEW_VERSION, bytes};
	const struct cache_item item = {.meta = meta, .meta_bytes = sizeof(meta), .kind = (uint8_t)(on->key & 7)};
	struct cache_update update = {.mode = SET_ALWAYS};
	struct cache_fill filled;

	int status = cache_set_begin(on->cache, &on->key, sizeof(on->key), &item, bytes, &filled);
	if (status != DRP_OK)
		return status;
	client_fill(filled.value, on->key, NEW_VERSION, bytes);
	if (!commits) {
		cache_set_abort(&filled);
		return DRP_OK;
	}
	status = cache_set_commit(&filled, &on->key, sizeof(on->key), &item, &update);
	if (status == DRP_OK)
		on->version = NEW_VERSION;
	else if (status == DRP_REFUSED)
		on->version = 0;
	return status;
}

static int fill_and_commit(struct subject *on)
{
	return fill(on, true);
}

static int fill_and_abort(struct subject *on)
{
	return fill(on, false);
}

static void prepare_sink(void)
{
	const bool were_counted = counting;

	counting = false;
	sink.base = (struct cache_sink){.reserve = client_reserve};
	if (!sink.value) {
		sink.size = sizes[WHOLE];
		sink.value = malloc(sink.size);
		REQUIRE(sink.value != NULL);
	}
	counting = were_counted;
}

static int look_up(struct subject *on, enum cache_get_mode mode)
{
	struct cache_pin pin;

	prepare_sink();
	const int status = cache_get(on->cache, &on->key, sizeof(on->key), mode, &sink.base, &pin, NULL);
	if (status != DRP_OK)
		return status;
	uint64_t meta[2];
	memcpy(meta, sink.meta, sizeof(meta));
	unsigned char *expected = value_of(on->key, meta[0]);
	CHECK_EQ(meta[0], on->version);
	CHECK_EQ(meta[1], sizes[on->key]);
	CHECK_EQ(memcmp(pin.cache ? pin.value : sink.value, expected, sizes[on->key]), 0);
	__real_free(expected);
	allocated--;
	if (pin.cache)
		cache_unpin(&pin);
	return DRP_OK;
}

static int copy(struct subject *on)
{
	return look_up(on, GET_COPY);
}

static int pin_and_unpin(struct subject *on)
{
	return look_up(on, GET_PIN);
}

static int pin_and_unpin_all(struct subject *on)
{
	const int status = look_up(on, GET_PIN);

	(void)unpin_all();
	return status;
}

static int get_many(struct subject *on)
{
	struct cache_wanted wanted = {.key = &on->key, .key_bytes = sizeof(on->key), .sink = &sink.base};

	prepare_sink();
	cache_get_many(on->cache, &wanted, 1);
	return wanted.status == WANTED_ALONE ? DRP_OK : wanted.status;
}

static int contains(struct subject *on)
{
	return cache_contains(on->cache, &on->key, sizeof(on->key)) == 1 ? DRP_OK : DRP_MISS;
}

static int delete(struct subject *on)
{
	const int status = cache_delete(on->cache, &on->key, sizeof(on->key), 0);

	on->version = 0;
	return status;
}

static int touch(struct subject *on)
{
	return cache_touch(on->cache, &on->key, sizeof(on->key), UINT64_C(3600000000000));
}

static int ignore(void *context, const void *key, size_t key_bytes)
{
	(void)context, (void)key, (void)key_bytes;
	return DRP_OK;
}

static int walk(struct subject *on)
{
	uint64_t cursor = 0;
	int status;

	while ((status = cache_walk(on->cache, &cursor, ignore, NULL)) == DRP_OK)
		;
	return status == DRP_MISS ? DRP_OK : status;
}

static int clear(struct subject *on)
{
	const int status = cache_clear(on->cache);

	if (status == DRP_OK)
		on->version = 0;
	return status;
}

static int settle(struct subject *on)
{
	return cache_settle(on->cache);
}

static int make_part(struct subject *on)
{
	uint64_t scope;

	return cache_part_make(on->cache, "cell", 4, &scope);
}

static int delete_prefix(struct subject *on)
{
	uint64_t count;
	const int status = cache_prefix_delete(on->cache, &on->key, sizeof(on->key), &count);

	if (status == DRP_OK)
		on->version = 0;
	return status;
}

static int drop(struct subject *on)
{
	struct cache_drop dropped;

	return cache_drop(on->cache, 0.5, 1, &dropped);
}

static int expire(struct subject *on)
{
	const int status = cache_touch(on->cache, &on->key, sizeof(on->key), 1000);

	cache_advance_clock(on->cache, UINT64_C(3600000000000));
	if (status == DRP_OK && contains(on) != DRP_MISS)
		CHECK(!"what expired is there");
	if (status == DRP_OK)
		on->version = 0;
	return DRP_OK;
}

static int read_stats(struct subject *on)
{
	struct cache_stats stats;

	cache_read_stats(on->cache, &stats);
	return DRP_OK;
}

static int close_it(struct subject *on)
{
	cache_close(on->cache);
	return DRP_OK;
}

enum {
	OK = 1, NO_MEMORY = 1 << -DRP_NO_MEMORY, REFUSED = 1 << -DRP_REFUSED, MISS = 1 << -DRP_MISS, EXISTS = 1 << -DRP_EXISTS,
	UNSUPPORTED = 1 << -DRP_UNSUPPORTED, SYSTEM = 1 << -DRP_SYSTEM,
};

/* usual: without a failure; hard: what it may be with one; bit 0 is DRP_OK. */
struct call {
	const char *name;
	int (*make)(struct subject *on);
	int usual, hard;
};

#define STORING (NO_MEMORY | REFUSED | UNSUPPORTED | SYSTEM)

static const struct call calls[] = {
	{"set", set, DRP_OK, STORING},
	{"set in parts", set_in_parts, DRP_OK, STORING},
	{"add", add, DRP_EXISTS, STORING | OK}, /* OK: the older value went so that this one has space */
	{"delete and add", add_after_delete, DRP_OK, STORING},
	{"update what is there", update_present, DRP_OK, STORING | MISS}, /* MISS: likewise */
	{"set under a lease", set_under_lease, DRP_OK, STORING},
	{"fill and commit", fill_and_commit, DRP_OK, STORING},
	{"fill and abort", fill_and_abort, DRP_OK, STORING},
	{"get", copy, DRP_OK, REFUSED},
	{"pin and unpin", pin_and_unpin, DRP_OK, REFUSED},
	{"pin, unpin, mark", pin_and_unpin_all, DRP_OK, REFUSED},
	{"get_many", get_many, DRP_OK, REFUSED},
	{"contains", contains, DRP_OK, 0},
	{"delete", delete, DRP_OK, 0},
	{"touch", touch, DRP_OK, STORING | MISS}, /* MISS: it went so that its new entry has space */
	{"walk", walk, DRP_OK, NO_MEMORY},
	{"clear", clear, DRP_OK, 0},
	{"settle", settle, DRP_OK, 0},
	{"make a part", make_part, DRP_OK, STORING},
	{"delete a prefix", delete_prefix, DRP_OK, NO_MEMORY},
	{"drop", drop, DRP_OK, NO_MEMORY | UNSUPPORTED | SYSTEM},
	{"expire", expire, DRP_OK, 0},
	{"stats", read_stats, DRP_OK, 0},
	{"close", close_it, DRP_OK, 0},
};

static struct cache *make_filled(enum prim_backing backing)
{
	const struct cache_config config = {.backing = backing, .shards = 1, .segment_bytes = SEGMENT};
	struct cache *cache = fake_cache_make(&config);

	for (uint64_t key = 0; key < KEYS; key++)
		CHECK_EQ(client_set(cache, key, KEPT_VERSION, sizes[key], key % 2, SET_ALWAYS), DRP_OK);
	return cache;
}

/* All that is there is right, and all of it that should be there is. */
static void check_all(const struct subject *on, bool is_closed)
{
	for (uint64_t key = 0; key < KEYS && !is_closed; key++) {
		struct subject other = {on->cache, key, key == on->key ? on->version : KEPT_VERSION};
		const int status = look_up(&other, GET_COPY);
		CHECK(status == DRP_OK || status == DRP_MISS);
		CHECK(other.version != 0 || status == DRP_MISS);
	}
	(void)unpin_all();
	check_counts(on->cache);
}

/* One failure: of call number `call`, or of none if there are not so many. Returns whether there were; *hard: it was told. */
static bool fails_once(enum prim_backing backing, const struct call *of, uint64_t key, int as, size_t call, bool *hard)
{
	const long allocated_before = allocated;
	struct cache *cache = make_filled(backing);
	struct subject on = {cache, key, KEPT_VERSION};

	atomic_store(&cache->room_until_ns, 0); /* so that the memory limit is read once more */
	fake_fail_as(as);
	fake_fail_call(call);
	counting = true;
	const int status = of->make(&on);
	counting = false;
	const bool reached = fake_calls() >= call;
	fake_fail_call(0);
	*hard = status != of->usual;
	if (*hard && !CHECK(of->hard >> -status & 1))
		printf("# %s of key %llu: call %zu failed with %d, and it returned %d\n", of->name, (unsigned long long)key, call, as, status);
	if (!reached)
		CHECK(!*hard);
	check_all(&on, of->make == close_it);
	if (of->make != close_it) {
		CHECK_EQ(client_set(cache, key, NEW_VERSION + 1, sizes[key], false, SET_ALWAYS), DRP_OK);
		on.version = NEW_VERSION + 1;
		CHECK_EQ(look_up(&on, GET_PIN), DRP_OK);
		check_all(&on, false);
	}
	free(sink.value);
	sink = (struct client_sink){.size = 0};
	fake_cache_end(cache);
	CHECK_EQ(fake_handles(), 0);
	CHECK_EQ(allocated, allocated_before);
	return reached;
}

static void each_call_fails(enum prim_backing backing, const struct call *of)
{
	static const int statuses[] = {DRP_NO_MEMORY, DRP_UNSUPPORTED, DRP_SYSTEM};
	size_t failures = 0, hard_ones = 0;

	for (uint64_t key = 0; key < KEYS; key++)
		for (size_t i = 0; i < sizeof(statuses) / sizeof(statuses[0]); i++) {
			bool hard, reached = true;
			if (CHECK_LESS && key % 3 != i)
				continue;
			for (size_t call = 1; reached && check_failures() < 10; call++) {
				reached = fails_once(backing, of, key, statuses[i], call, &hard);
				failures += reached;
				hard_ones += reached && hard;
			}
		}
	printf("# %s: %zu failures, %zu of them told\n", of->name, failures, hard_ones);
}

static void a_cache_is_made_or_not(enum prim_backing backing)
{
	const struct cache_config config = {.backing = backing, .shards = 4, .segment_bytes = SEGMENT};
	bool reached = true;

	for (size_t call = 1; reached; call++) {
		const long allocated_before = allocated;
		struct cache *cache = NULL;
		fake_reset();
		fake_fail_call(call);
		counting = true;
		const int status = cache_create(&config, &cache);
		counting = false;
		reached = fake_calls() >= call;
		fake_fail_call(0);
		if (status == DRP_OK)
			fake_cache_end(cache);
		else
			CHECK(reached && !cache);
		CHECK_EQ(fake_mappings(), 0);
		CHECK_EQ(allocated, allocated_before);
	}
}

int main(void)
{
	for (int backing = PRIM_LAZYFREE; backing <= PRIM_DROPPABLE; backing++) {
		RUN(a_cache_is_made_or_not, backing);
		for (size_t i = 0; i < sizeof(calls) / sizeof(calls[0]); i++)
			RUN(each_call_fails, backing, &calls[i]);
	}
	return check_done();
}
