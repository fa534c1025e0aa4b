/*
 * test_forks.c - forks at every point of every operation, on prim_fake: the child looks at its whole cache.
 *
 *   operating thread    set(...) --- point --- point --- point --->          a point: a step, or a call that touches pages
 *   another thread                   fork()    fork()    fork()              where no lock is held
 *                                      |         |         '--> child: what it holds is right, each key is right or a miss,
 *                                      |         '--> child     each dirty page is counted, nothing of it is dropped,
 *                                      '--> child               it works on, and ends with nothing mapped
 *
 * Where a lock is held a fork waits, and its child sees what it would see at the next point.
 */
#include "store/deferred.h"
#include "cache/cache.h"

#include <pthread.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cache_client.h"
#include "cache/fork.h"
#include "policy/unlock.h"
#include "store/registry.h"
#include "store/internal.h"
#include "cache_on_fake.h"
#include "cache_pages.h"
#include "cache/update.h"
#include "policy/unpin.h"
#include "check.h"
#include "prim_fake.h"

enum { PAGE = 4096, KEYS = 10, CHILD_SECONDS = 60 };

/* two in the log; values of some pages side by side; alone on a mapping; in the log */
static const size_t sizes[KEYS] = {100, 6000, 2 * PAGE - 100, 3 * PAGE - 9, 2 * PAGE, 3 * PAGE - 1, 6 * PAGE - 9, 7 * PAGE, 9 * PAGE, 300};

enum { HELD_BESIDE = 2, RESTS_BESIDE = 3, FREE_BESIDE = 4, HELD_ALONE = 6, RESTS_ALONE = 7, FREE_ALONE = 8 };

static struct client_sink sink;

static struct scenario {
	struct cache *cache;
	struct cache_pin held[2];
	bool share, dropped, closes, fails_keeping;
	bool touched[KEYS]; /* by the operation */
	size_t forks, bad_children;
	pid_t child;
} scene;

static int pin_key(uint64_t key, struct cache_pin *pin)
{
	sink.base = (struct cache_sink){.reserve = client_reserve};
	return cache_get(scene.cache, &key, sizeof(key), GET_PIN_OWN, &sink.base, pin, NULL);
}

static bool is_value(const void *value, uint64_t key, uint64_t version)
{
	unsigned char *expected = malloc(sizes[key] + 1);
	client_fill(expected, key, version, sizes[key]);
	const bool same = memcmp(value, expected, sizes[key]) == 0;
	free(expected);
	return same;
}

static bool pins_are_right(void)
{
	return is_value(scene.held[0].value, HELD_BESIDE, 1) && is_value(scene.held[1].value, HELD_ALONE, 1);
}

/* The kernel takes a value and leaves its entry. */
static void drop_value(uint64_t key)
{
	struct cache_pin pin;

	CHECK_EQ(pin_key(key, &pin), DRP_OK);
	const unsigned char *value = pin.value;
	cache_unpin(&pin);
	CHECK_EQ(cache_settle(scene.cache), DRP_OK);
	for (size_t at = 0; at < sizes[key]; at += PAGE)
		fake_drop_at(value + at);
	CHECK(!is_value(value, key, 1));
}

static void fill(void)
{
	uint64_t version = 0;
	bool wrong;

	for (uint64_t key = 0; key < KEYS; key++)
		CHECK_EQ(client_set(scene.cache, key, 1, sizes[key], true, SET_ALWAYS), DRP_OK);
	if (scene.dropped)
		drop_value(FREE_BESIDE);
	if (scene.dropped)
		drop_value(FREE_ALONE);
	CHECK_EQ(cache_settle(scene.cache), DRP_OK);
	CHECK_EQ(pin_key(HELD_BESIDE, &scene.held[0]), DRP_OK);
	CHECK_EQ(pin_key(HELD_ALONE, &scene.held[1]), DRP_OK);
	CHECK_EQ(client_get(scene.cache, &sink, RESTS_BESIDE, GET_PIN, &version, &wrong), DRP_OK);
	CHECK_EQ(client_get(scene.cache, &sink, RESTS_ALONE, GET_PIN, &version, &wrong), DRP_OK);
	CHECK_EQ(deferred_bytes(), (3 + 7) * PAGE);
	REQUIRE(scene.held[0].cache && scene.held[1].cache);
}

/* Each key gives what was stored, or nothing; and what is held then stays. */
static void look_at_keys(void)
{
	struct cache_pin pins[KEYS];
	uint64_t versions[KEYS] = {0};

	for (uint64_t key = 0; key < KEYS; key++) {
		uint64_t version = 0;
		bool wrong;
		int status = client_get(scene.cache, &sink, key, key & 1 ? GET_COPY : GET_PIN, &version, &wrong);
		CHECK(!wrong);
		versions[key] = version;
		if (scene.closes) {
			CHECK(status == DRP_CLOSED || status == DRP_OK || status == DRP_MISS);
			continue;
		}
		CHECK(status == DRP_OK || status == DRP_MISS);
		if (!scene.share)
			CHECK_EQ(status, DRP_MISS);
		else if (!scene.dropped && !scene.touched[key])
			CHECK(status == DRP_OK && version == 1);
	}
	for (uint64_t key = 0; key < KEYS; key++)
		if (pin_key(key, &pins[key]) != DRP_OK)
			pins[key].cache = NULL;
	fake_drop(FAKE_EVERY_PAGE);
	for (uint64_t key = 0; key < KEYS; key++)
		if (pins[key].cache) {
			CHECK(is_value(pins[key].value, key, versions[key]));
			cache_unpin(&pins[key]);
		}
}

static void work_on(void)
{
	for (uint64_t key = 0; key < KEYS && !scene.closes; key++) {
		uint64_t version = 0;
		bool wrong;
		CHECK_EQ(client_set(scene.cache, key, 3, sizes[key], true, SET_ALWAYS), DRP_OK);
		CHECK_EQ(client_get(scene.cache, &sink, key, GET_PIN, &version, &wrong), DRP_OK);
		CHECK(!wrong && version == 3);
	}
}

/* The whole of the child; lost: a pin that the operation had taken, whose holder is not there. */
static void live_as_child(bool lost)
{
	alarm(CHILD_SECONDS);
	sink.base = (struct cache_sink){0};
	fake_at_each_point(NULL);
	fake_fail_keeping(false);
	CHECK(pins_are_right());
	CHECK(pages_are_counted(scene.cache));
	look_at_keys();
	CHECK(pages_are_counted(scene.cache));
	work_on();
	fake_drop(FAKE_EVERY_PAGE);
	CHECK(pins_are_right());
	CHECK(scene.closes || cache_settle(scene.cache) == DRP_OK);
	CHECK(pages_are_counted(scene.cache));
	cache_unpin(&scene.held[0]);
	cache_unpin(&scene.held[1]);
	cache_close(scene.cache);
	const bool held = scene.cache->shards[0].pins.pin_count > 0;
	cache_unref(scene.cache);
	CHECK(!held || lost);
	if (!held)
		CHECK_EQ(fake_mappings(), 0);
	_exit(check_failures() > 0);
}

static void end_child(pid_t child)
{
	int status = -1;

	REQUIRE(child > 0 && waitpid(child, &status, 0) == child);
	scene.forks++;
	scene.bad_children += status != 0;
}

static void *fork_here(void *lost)
{
	pid_t child = fork();

	if (child == 0) {
		check_begin();
		live_as_child(lost != NULL);
	}
	end_child(child);
	return NULL;
}

static bool no_lock_is_held(void)
{
	struct cache *first;

	if (!registry_try_lock(&first))
		return false;
	bool is_free = graves_try_lock();
	if (is_free)
		graves_unlock();
	for (unsigned i = 0; i < scene.cache->shard_count && is_free; i++) {
		is_free = pthread_mutex_trylock(&scene.cache->shards[i].lock) == 0;
		if (is_free)
			pthread_mutex_unlock(&scene.cache->shards[i].lock);
	}
	registry_unlock();
	return is_free;
}

static bool takes_pin; /* the operation does */

static void another_thread_forks(void)
{
	pthread_t thread;

	if (!no_lock_is_held())
		return;
	REQUIRE(pthread_create(&thread, NULL, fork_here, takes_pin ? &takes_pin : NULL) == 0);
	REQUIRE(pthread_join(thread, NULL) == 0);
}

enum operation {
	SET_SMALL, SET_NEW, SET_BESIDE, SET_ALONE, SET_RESTING, SET_HELD, GET_SMALL, GET_BESIDE, GET_ALONE, PIN_BESIDE, PIN_ALONE,
	PIN_RESTING, UNPIN, UNPIN_TOO_LARGE, DELETE_BESIDE, DELETE_RESTING, DELETE_RESTING_ALONE, DELETE_HELD, CONTAINS, WALK,
	SETTLE, CLEAR, DROP, RELEASE, TOUCH_SMALL, TOUCH_BESIDE, TOUCH_ALONE, UPDATE, CLOSE, OPERATIONS,
};

static int ignore_key(void *context, const void *key, size_t key_bytes)
{
	(void)key;
	*(size_t *)context += key_bytes;
	return DRP_OK;
}

static void set(uint64_t key)
{
	scene.touched[key] = true;
	CHECK_EQ(client_set(scene.cache, key, 2, sizes[key], true, SET_ALWAYS), DRP_OK);
}

static void drop_key(uint64_t key)
{
	scene.touched[key] = true;
	CHECK_EQ(cache_delete(scene.cache, &key, sizeof(key), 0), DRP_OK);
}

static void get(uint64_t key, enum cache_get_mode mode)
{
	uint64_t version = 0;
	bool wrong;
	int status = client_get(scene.cache, &sink, key, mode, &version, &wrong);

	CHECK(!wrong && (status == DRP_OK || (scene.dropped && status == DRP_MISS)));
}

/* Its value stays what it is. */
static void touch(uint64_t key)
{
	const int status = cache_touch(scene.cache, &key, sizeof(key), UINT64_C(3600000000000));

	CHECK(status == DRP_OK || (scene.dropped && status == DRP_MISS));
}

static void unpin(uint64_t key, bool settles_first)
{
	struct cache_pin pin;

	takes_pin = true;
	int status = pin_key(key, &pin);
	takes_pin = false;
	CHECK(status == DRP_OK || scene.dropped);
	if (settles_first) { /* what is left of memory is too little for it to rest */
		fake_headroom(100 << 20, (98 << 20) + PAGE, 0);
		for (int i = 0; i < 200000; i++)
			(void)prim_now_ns();
		takes_pin = true;
		(void)client_set(scene.cache, 0, 2, sizes[0], true, SET_ALWAYS);
		takes_pin = false;
		scene.touched[0] = true;
	}
	if (status == DRP_OK && pin.cache)
		cache_unpin(&pin);
}

static void operate(enum operation operation)
{
	uint64_t cursor = 0, key = 1;
	size_t walked = 0;
	struct cache_drop drop;

	for (uint64_t k = 0; k < KEYS; k++)
		scene.touched[k] = operation == CLEAR || operation == CLOSE || operation == DROP;
	switch (operation) {
	case SET_SMALL: set(1); break;
	case SET_NEW: drop_key(1); set(1); break;
	case SET_BESIDE: set(FREE_BESIDE); break;
	case SET_ALONE: set(FREE_ALONE); break;
	case SET_RESTING: set(RESTS_BESIDE); set(RESTS_ALONE); break;
	case SET_HELD: set(HELD_BESIDE); set(HELD_ALONE); break;
	case GET_SMALL: get(1, GET_COPY); break;
	case GET_BESIDE: get(FREE_BESIDE, GET_COPY); break;
	case GET_ALONE: get(FREE_ALONE, GET_COPY); break;
	case PIN_BESIDE: takes_pin = true; get(FREE_BESIDE, GET_PIN); break;
	case PIN_ALONE: takes_pin = true; get(FREE_ALONE, GET_PIN); break;
	case PIN_RESTING: get(RESTS_BESIDE, GET_PIN); get(RESTS_ALONE, GET_PIN); break;
	case UNPIN: unpin(FREE_BESIDE, false); unpin(FREE_ALONE, false); break;
	case UNPIN_TOO_LARGE: unpin(FREE_BESIDE, true); unpin(FREE_ALONE, true); break;
	case DELETE_BESIDE: drop_key(FREE_BESIDE); break;
	case DELETE_RESTING: drop_key(RESTS_BESIDE); break;
	case DELETE_RESTING_ALONE: drop_key(RESTS_ALONE); break;
	case DELETE_HELD: drop_key(HELD_BESIDE); drop_key(HELD_ALONE); break;
	case CONTAINS: (void)cache_contains(scene.cache, &key, sizeof(key)); break;
	case WALK:
		while (cache_walk(scene.cache, &cursor, ignore_key, &walked) == DRP_OK)
			;
		break;
	case SETTLE: CHECK_EQ(cache_settle(scene.cache), DRP_OK); break;
	case CLEAR: CHECK_EQ(cache_clear(scene.cache), DRP_OK); break;
	case DROP: CHECK_EQ(cache_drop(scene.cache, 1.0, 1, &drop), DRP_OK); break;
	case RELEASE: (void)unpin_all(); break;
	case TOUCH_SMALL: touch(1); touch(1); break;
	case TOUCH_BESIDE: touch(FREE_BESIDE); touch(HELD_BESIDE); break;
	case TOUCH_ALONE: touch(FREE_ALONE); touch(RESTS_ALONE); break;
	case UPDATE:
		scene.touched[1] = true;
		CHECK_EQ(client_set(scene.cache, 1, 2, sizes[1], true, SET_IF_PRESENT), DRP_OK);
		break;
	case CLOSE: cache_close(scene.cache); break;
	case OPERATIONS: break;
	}
	takes_pin = false;
}

static void begin(bool share, bool dropped)
{
	const struct cache_config config = {.shards = 1, .segment_bytes = 16 * PAGE, .share_on_fork = share};

	scene = (struct scenario){.share = share, .dropped = dropped};
	scene.cache = fake_cache_make(&config);
	fill();
}

/* The parent is as it would be without the forks: what it holds is right, and no child to come would see its content. */
static void end(void)
{
	size_t kept = 0;

	CHECK(pins_are_right());
	CHECK(pages_are_counted(scene.cache));
	for (size_t n = 0; n < fake_pages(); n++)
		kept += fake_page_is_kept(n);
	CHECK_EQ(kept, scene.share ? fake_pages() : 0);
	for (uint64_t key = 0; key < KEYS && !scene.closes; key++) {
		uint64_t version = 0;
		bool wrong;
		int status = client_get(scene.cache, &sink, key, GET_PIN, &version, &wrong);
		CHECK(!wrong && (status == DRP_OK ? version == (scene.touched[key] ? version : 1) :
						    scene.dropped || scene.touched[key]));
	}
	cache_unpin(&scene.held[0]);
	cache_unpin(&scene.held[1]);
	fake_cache_end(scene.cache);
	CHECK_EQ(scene.bad_children, 0);
}

static void another_thread_forks_everywhere(bool share, bool dropped, bool fails_keeping)
{
	size_t forks = 0;

	for (int operation = 0; operation < OPERATIONS && check_failures() < 10; operation++) {
		begin(share, dropped);
		scene.closes = operation == CLOSE;
		fake_fail_keeping(fails_keeping);
		fake_at_each_point(another_thread_forks);
		another_thread_forks(); /* before the first point */
		operate((enum operation)operation);
		fake_at_each_point(NULL);
		fork_here(NULL);
		fake_fail_keeping(false);
		fork_here(NULL); /* what could not be wiped again is by now */
		forks += scene.forks;
		if (scene.bad_children)
			printf("# operation %d\n", operation);
		end();
	}
	printf("# %zu forks\n", forks);
	CHECK(forks > 4 * OPERATIONS);
}

static pid_t forked;
static bool at_end;

static void fork_in_begin(struct cache_sink *base, size_t bytes)
{
	(void)base;
	(void)bytes;
	if (!at_end)
		forked = fork();
}

static void fork_in_end(struct cache_sink *base)
{
	(void)base;
	if (at_end)
		forked = fork();
}

/* The thread that forks is amid a get itself, and goes on with it in the child. */
static void forks_in_its_callbacks(bool share, bool dropped, uint64_t key, enum cache_get_mode mode)
{
	for (int end_of_copy = 0; end_of_copy <= 1; end_of_copy++) {
		struct cache_pin pin;
		begin(share, dropped);
		forked = -1;
		at_end = end_of_copy;
		sink.base = (struct cache_sink){client_reserve, fork_in_begin, fork_in_end};
		int status = cache_get(scene.cache, &key, sizeof(key), mode, &sink.base, &pin, NULL);
		CHECK(forked >= 0);
		CHECK(status == DRP_OK || (status == DRP_MISS && (dropped || (forked == 0 && !share))));
		if (status == DRP_OK)
			CHECK(is_value(pin.cache ? pin.value : sink.value, key, 1));
		if (forked == 0 && pin.cache) {
			scene.dropped = true;
			fake_drop(FAKE_EVERY_PAGE);
			CHECK(is_value(pin.value, key, 1));
		}
		if (status == DRP_OK && pin.cache)
			cache_unpin(&pin);
		sink.base = (struct cache_sink){0};
		if (forked == 0)
			live_as_child(false);
		end_child(forked);
		end();
	}
}

/* Each call that a fork makes fails once, on both sides. */
static void every_call_of_a_fork_fails(bool share)
{
	for (size_t call = 1;; call++) {
		begin(share, false);
		fake_fail_call(call);
		pid_t child = fork();
		bool reached = fake_calls() >= call;
		fake_fail_call(0);
		if (child == 0)
			live_as_child(false);
		end_child(child);
		fork_here(NULL);
		end();
		if (!reached)
			break;
	}
}

/* The creator is gone, and what rests has references: neither the cache nor its memory stays for that. */
static void goes_with_its_creator(void)
{
	const uint64_t key = FREE_ALONE;
	struct cache_pin pin;

	begin(false, false);
	cache_unpin(&scene.held[0]);
	cache_unpin(&scene.held[1]);
	cache_unref(scene.cache);
	CHECK_EQ(fake_mappings(), 0);
	CHECK_EQ(deferred_bytes(), 0);

	/* Held longer than the cache is, over a fork. */
	begin(false, false);
	CHECK_EQ(pin_key(key, &pin), DRP_OK);
	cache_unpin(&scene.held[0]);
	cache_unpin(&scene.held[1]);
	cache_unref(scene.cache);
	CHECK(fake_mappings() > 0);
	pid_t child = fork();
	CHECK(is_value(pin.value, key, 1));
	cache_unpin(&pin);
	CHECK_EQ(fake_mappings(), 0);
	CHECK_EQ(deferred_bytes(), 0);
	if (child == 0)
		_exit(check_failures() > 0);
	end_child(child);
	CHECK_EQ(scene.bad_children, 0);
}

int main(void)
{
	RUN(goes_with_its_creator, );
	for (int share = 0; share <= 1; share++)
		for (int dropped = 0; dropped <= 1; dropped++) {
			RUN(another_thread_forks_everywhere, share, dropped, false);
			for (int mode = GET_COPY; mode <= GET_PIN_OWN; mode++) {
				RUN(forks_in_its_callbacks, share, dropped, FREE_BESIDE, mode);
				RUN(forks_in_its_callbacks, share, dropped, FREE_ALONE, mode);
			}
		}
	RUN(another_thread_forks_everywhere, false, false, true);
	RUN(every_call_of_a_fork_fails, false);
	RUN(every_call_of_a_fork_fails, true);
	free(sink.value);
	return check_done();
}
