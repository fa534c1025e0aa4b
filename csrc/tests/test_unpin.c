/*
 * test_unpin.c - pins that stay without holders, on prim_fake: what rests, how much of it, and what makes it go.
 *
 * The fake forgets which pages are marked when they are pinned, and drops none that is not marked: so a value that
 * outlives fake_drop() rests, and one that does not was given back.
 */
#include "cache/cache.h"

#include "cache_client.h"
#include "cache_on_fake.h"
#include "check.h"
#include "prim_fake.h"

enum { PAGE = 4096, BYTES = 5 * PAGE - 7, PAGES_BYTES = 5 * PAGE, MB = 1 << 20 };

static struct client_sink sink;

static struct cache *make(void)
{
	const struct cache_config config = {.shards = 1, .segment_bytes = 64 * PAGE};
	return fake_cache_make(&config);
}

static void put(struct cache *cache, uint64_t key)
{
	CHECK_EQ(client_set(cache, key, 1, BYTES, true, SET_ALWAYS), DRP_OK);
}

/* Pins the value, compares it, lets it go. */
static int use(struct cache *cache, uint64_t key)
{
	uint64_t version;
	bool wrong;
	int status = client_get(cache, &sink, key, GET_PIN_OWN, &version, &wrong);
	CHECK(status != DRP_OK || !wrong);
	return status;
}

static uint64_t resting(struct cache *cache)
{
	struct cache_stats stats;
	cache_read_stats(cache, &stats);
	return stats.window_bytes;
}

static uint64_t held(struct cache *cache)
{
	struct cache_stats stats;
	cache_read_stats(cache, &stats);
	return stats.pinned_bytes;
}

static void read_room_again(void)
{
	for (int i = 0; i < 200000; i++) /* the fake's clock runs with its readings */
		(void)prim_now_ns();
}

static void rests_after_its_last_holder(void)
{
	struct cache *cache = make();
	struct cache_pin pins[2];
	uint64_t key = 1;

	put(cache, key);
	sink.base.reserve = client_reserve;
	for (int round = 0; round < 3; round++) {
		for (int i = 0; i < 2; i++)
			CHECK_EQ(cache_get(cache, &key, sizeof(key), GET_PIN_OWN, &sink.base, &pins[i], NULL), DRP_OK);
		REQUIRE(pins[0].cache && pins[1].cache);
		CHECK_EQ(held(cache), PAGES_BYTES);
		CHECK_EQ(resting(cache), 0);
		const size_t calls = fake_calls();
		CHECK(cache_unpin_quick(&pins[0]));
		CHECK_EQ(held(cache), PAGES_BYTES);
		if (!cache_unpin_quick(&pins[1])) { /* enters the ring: the first time only */
			CHECK_EQ(round, 0);
			cache_unpin(&pins[1]);
		}
		CHECK_EQ(fake_calls(), calls);
		CHECK_EQ(held(cache), 0);
		CHECK_EQ(resting(cache), PAGES_BYTES);
	}
	fake_cache_end(cache);
}

static void what_rests_is_not_dropped(void)
{
	struct cache *cache = make();

	put(cache, 1);
	put(cache, 2);
	CHECK_EQ(use(cache, 1), DRP_OK);
	fake_drop(FAKE_EVERY_PAGE); /* entries and index are not marked yet, both values were when they were written */
	CHECK_EQ(use(cache, 2), DRP_MISS);
	CHECK_EQ(use(cache, 1), DRP_OK);
	CHECK_EQ(cache_settle(cache), DRP_OK);
	CHECK_EQ(resting(cache), 0);
	fake_drop(FAKE_EVERY_PAGE);
	CHECK_EQ(use(cache, 1), DRP_MISS);
	fake_cache_end(cache);
}

static void leaves_with_its_entry(void)
{
	struct cache *cache = make();
	uint64_t key = 0;

	for (uint64_t k = 0; k < 3; k++) {
		put(cache, k);
		CHECK_EQ(use(cache, k), DRP_OK);
	}
	CHECK_EQ(resting(cache), 3 * PAGES_BYTES);
	CHECK_EQ(cache_delete(cache, &key, sizeof(key), 0), DRP_OK);
	CHECK_EQ(resting(cache), 2 * PAGES_BYTES);
	put(cache, 1); /* replaced */
	CHECK_EQ(resting(cache), PAGES_BYTES);
	CHECK_EQ(use(cache, 1), DRP_OK);
	CHECK_EQ(cache_clear(cache), DRP_OK);
	CHECK_EQ(resting(cache), 0);
	CHECK_EQ(use(cache, 1), DRP_MISS);

	/* Cleared while it is held: it must not rest on memory that is to go. */
	struct cache_pin pin;
	put(cache, key);
	CHECK_EQ(cache_get(cache, &key, sizeof(key), GET_PIN_OWN, &sink.base, &pin, NULL), DRP_OK);
	CHECK_EQ(cache_clear(cache), DRP_OK);
	CHECK(!cache_unpin_quick(&pin));
	cache_unpin(&pin);
	CHECK_EQ(resting(cache) + held(cache), 0);
	fake_cache_end(cache);
}

static void keeps_its_bound(void)
{
	struct cache *cache = make();
	uint64_t most = 0;

	fake_headroom(256 * MB, 100 * MB, 0); /* a share of it: 4 MiB */
	for (uint64_t key = 0; key < 1000; key++) {
		put(cache, key);
		CHECK_EQ(use(cache, key), DRP_OK);
		if (resting(cache) > most)
			most = resting(cache);
	}
	CHECK(most > 4 * MB - 2 * PAGES_BYTES && most <= 4 * MB);
	/* The last ones in are there still, the first ones are not. */
	uint64_t before = resting(cache);
	CHECK_EQ(use(cache, 999), DRP_OK);
	CHECK_EQ(resting(cache), before);
	CHECK_EQ(use(cache, 0), DRP_OK);
	CHECK(resting(cache) != before);
	fake_cache_end(cache);
}

static void unpins_in_batches(void)
{
	struct cache *cache = make();

	fake_headroom(256 * MB, 100 * MB, 0);
	for (uint64_t key = 0; key < 300; key++)
		put(cache, key);
	const size_t calls = fake_calls();
	for (uint64_t key = 0; key < 300; key++) /* 5.9 MiB, in the order in which they lie */
		CHECK_EQ(use(cache, key), DRP_OK);
	CHECK(fake_calls() - calls > 0);
	CHECK(fake_calls() - calls < 40); /* marks: one for several neighbours, where it would be one for each of 95 or more */
	fake_cache_end(cache);
}

static void goes_when_it_is_not_used(void)
{
	struct cache *cache = make();

	for (uint64_t key = 0; key < 2; key++) {
		put(cache, key);
		CHECK_EQ(use(cache, key), DRP_OK);
	}
	for (int reading = 0; reading < 3; reading++) {
		CHECK_EQ(use(cache, 1), DRP_OK);
		read_room_again();
		CHECK_EQ(client_set(cache, 100, 1, 10, false, SET_ALWAYS), DRP_OK);
	}
	CHECK_EQ(resting(cache), PAGES_BYTES);
	CHECK_EQ(use(cache, 1), DRP_OK);
	CHECK_EQ(resting(cache), PAGES_BYTES);

	/* Gets alone see to it as well: now and then they look at the room. */
	uint64_t version;
	bool wrong;
	for (int reading = 0; reading < 3; reading++) {
		read_room_again();
		for (int i = 0; i < 64; i++)
			CHECK_EQ(client_get(cache, &sink, 100, GET_COPY, &version, &wrong), DRP_OK);
	}
	CHECK_EQ(resting(cache), 0);
	fake_cache_end(cache);
}

static void goes_when_memory_is_short(void)
{
	struct cache *cache = make();
	struct cache *other = NULL;
	const struct cache_config config = {.shards = 1, .segment_bytes = 64 * PAGE};
	struct cache_stats stats;

	REQUIRE(cache_create(&config, &other) == DRP_OK);
	for (uint64_t key = 0; key < 20; key++) {
		put(cache, key);
		CHECK_EQ(use(cache, key), DRP_OK);
	}
	CHECK_EQ(resting(cache), 20 * PAGES_BYTES);
	/* A margin of 1.6 MB; what is left beyond that is 3 MiB, and a sixteenth of it is 9 values. */
	fake_headroom(100 * MB, 96 * MB - 600000, 0);
	read_room_again();
	CHECK_EQ(client_set(cache, 100, 1, 10, false, SET_ALWAYS), DRP_OK);
	CHECK(resting(cache) > 0 && resting(cache) <= 10 * PAGES_BYTES);
	for (uint64_t key = 0; key < 20; key++)
		CHECK_EQ(use(cache, key), DRP_OK);
	CHECK(resting(cache) > 0 && resting(cache) <= 10 * PAGES_BYTES);
	/* Nothing is left: everything goes before an insert is refused, whichever cache it is asked of. */
	fake_headroom(100 * MB, 100 * MB - PAGE, 0);
	read_room_again();
	CHECK_EQ(client_set(other, 1, 1, 10, false, SET_ALWAYS), DRP_REFUSED);
	CHECK_EQ(resting(cache), 0);
	CHECK_EQ(use(cache, 3), DRP_OK); /* is pinned for its holder, and does not stay */
	CHECK_EQ(resting(cache) + held(cache), 0);
	cache_read_stats(cache, &stats);
	CHECK_EQ(stats.dropped, 0);
	cache_close(other);
	cache_unref(other);
	fake_cache_end(cache);
}

/* Pages that could not be marked rest on, and are counted; they go the next time. */
static void survives_marks_that_fail(void)
{
	for (size_t call = 1;; call++) {
		struct cache *cache = make();
		for (uint64_t key = 0; key < 8; key++) {
			put(cache, key);
			CHECK_EQ(use(cache, key), DRP_OK);
		}
		fake_fail_call(call);
		CHECK_EQ(cache_settle(cache), DRP_OK);
		bool reached = fake_calls() >= call;
		fake_fail_call(0);
		CHECK_EQ(held(cache), 0);
		CHECK_EQ(cache_settle(cache), DRP_OK);
		CHECK_EQ(resting(cache) + held(cache), 0);
		for (uint64_t key = 0; key < 8; key++)
			CHECK_EQ(use(cache, key), DRP_OK);
		fake_drop(FAKE_EVERY_PAGE);
		for (uint64_t key = 0; key < 8; key++) {
			int status = use(cache, key);
			CHECK(status == DRP_OK || status == DRP_MISS);
		}
		fake_cache_end(cache);
		if (!reached)
			break;
	}
}

/* Where memory is short nothing rests. A value whose pages cannot be marked is given up: else nobody could ever have them back. */
static void what_cannot_be_marked_is_given_up(void)
{
	bool reached = true;

	for (size_t call = 1; reached; call++) {
		struct cache *cache = make();
		struct cache_pin pin;
		uint64_t key = 1;
		put(cache, key);
		fake_headroom(100 * MB, 100 * MB - PAGE, 0);
		read_room_again();
		CHECK_EQ(client_set(cache, 2, 1, 10, false, SET_ALWAYS), DRP_REFUSED);
		sink.base.reserve = client_reserve;
		REQUIRE(cache_get(cache, &key, sizeof(key), GET_PIN_OWN, &sink.base, &pin, NULL) == DRP_OK && pin.cache);
		const unsigned char *value = pin.value;
		fake_fail_call(call);
		cache_unpin(&pin);
		reached = fake_calls() >= call;
		fake_fail_call(0);
		CHECK_EQ(held(cache) + resting(cache), 0);
		size_t found = 0;
		for (size_t page = 0; page < fake_pages(); page++) {
			const unsigned char *at = fake_page_at(page);
			if (at < value || at >= value + PAGES_BYTES)
				continue;
			CHECK(!fake_page_is_dirty(page));
			found++;
		}
		CHECK_EQ(found, PAGES_BYTES / PAGE);
		fake_cache_end(cache);
	}
}

int main(void)
{
	RUN(rests_after_its_last_holder, );
	RUN(what_rests_is_not_dropped, );
	RUN(leaves_with_its_entry, );
	RUN(keeps_its_bound, );
	RUN(unpins_in_batches, );
	RUN(goes_when_it_is_not_used, );
	RUN(goes_when_memory_is_short, );
	RUN(survives_marks_that_fail, );
	RUN(what_cannot_be_marked_is_given_up, );
	free(sink.value);
	return check_done();
}
