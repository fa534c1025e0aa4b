/*
 * test_processors.c - a page that is dropped while processors disagree about it: one sees the new page, all zeros, another one the
 * old page still, through a stale translation. Whoever changes from the one to the other in the midst of a call sees half of each.
 *
 *   reader   stamp (old page) | value (zeros of the new page) | stamp (old page, seen by the other processor)
 *   writer   stamp (into the old page) | value (into the new page)          another reader sees the old page: stamp, no value
 *   writer   slot (into the new page of the index) | guard (of the old page) another reader sees the old slot: an older value
 *
 * In each run the view of the page that has the entry changes at two points of one call, on prim_fake; all pairs of points.
 */
#include "cache/cache.h"

#include <string.h>

#include "cache_client.h"
#include "cache_on_fake.h"
#include "check.h"
#include "log/arena.h"
#include "os/hash.h"
#include "store/internal.h"

enum { PAGE = 4096, KEY = 7, POINTS_MOST = 64 };

static struct client_sink sink;

static struct {
	unsigned char *at, old[PAGE], newer[PAGE];
	size_t given_back, marked; /* pages, when it went, and when the old one came back: since then a purge or a mark flushed it */
	unsigned point, goes_at, returns_at; /* 0: never */
	bool moves; /* who comes back to the old page does so by changing processor */
	bool is_gone, is_back;
} view;

static bool always(void *context)
{
	(void)context;
	return true;
}

/* No processor sees the old page any more. A purge took the new one along. */
static void flush(void)
{
	if (view.given_back == fake_pages_given_back_under_lock())
		memcpy(view.at, view.newer, PAGE);
	view.is_back = false;
}

/* To a processor that sees the old page, unless a purge has ended that. */
static bool come_back(void)
{
	if (!view.is_gone || view.given_back != fake_pages_given_back_under_lock())
		return false;
	memcpy(view.newer, view.at, PAGE);
	memcpy(view.at, view.old, PAGE);
	view.marked = fake_marked_pages();
	view.is_back = true;
	return true;
}

static void hook(void)
{
	view.point++;
	if (view.is_back && (view.marked != fake_marked_pages() || view.given_back != fake_pages_given_back_under_lock()))
		flush();
	if (view.point == view.goes_at) {
		memcpy(view.old, view.at, PAGE);
		memset(view.at, 0, PAGE);
		view.given_back = fake_pages_given_back_under_lock();
		view.is_gone = true;
	}
	if (view.point == view.returns_at && come_back())
		fake_move_between_cpus(view.moves);
}

static struct cache *make(enum prim_backing backing, size_t bytes)
{
	const struct cache_config config = {.backing = backing, .shards = 1, .segment_bytes = 16 * PAGE};
	struct cache *cache = fake_cache_make(&config);

	CHECK_EQ(client_set(cache, KEY, 1, bytes, false, SET_ALWAYS), DRP_OK);
	view.at = NULL;
	for (struct segment *segment = NULL; (segment = arena_next(&cache->shards[0].arena, segment)) != NULL;)
		if (segment->kind == SEGMENT_ENTRIES)
			view.at = segment->base;
	REQUIRE(view.at != NULL);
	view.point = 0;
	view.is_gone = view.is_back = false;
	fake_watch_lock(always, NULL); /* all that is purged is counted */
	return cache;
}

static void end(struct cache *cache)
{
	fake_at_each_point(NULL);
	fake_move_between_cpus(false);
	fake_watch_lock(NULL, NULL);
	fake_cache_end(cache);
}

static void check_get(struct cache *cache, uint64_t newest)
{
	uint64_t version = 0;
	bool wrong = false;
	const int status = client_get(cache, &sink, KEY, GET_COPY, &version, &wrong);

	CHECK(status == DRP_MISS || (status == DRP_OK && !wrong && version == newest));
}

static void a_reader_changes_over(enum prim_backing backing, size_t bytes)
{
	unsigned points = POINTS_MOST;

	for (unsigned goes = 1; goes <= points; goes++)
		for (unsigned returns = goes + 1; returns <= points; returns++) {
			struct cache *cache = make(backing, bytes);
			view.goes_at = goes;
			view.returns_at = returns;
			view.moves = true;
			fake_at_each_point(hook);
			check_get(cache, 1);
			if (view.point < points)
				points = view.point;
			end(cache);
		}
	CHECK(points > 2 && points < POINTS_MOST);
}

/* Another processor sees the old page, after the store. */
static void a_writer_loses_the_page(enum prim_backing backing, size_t bytes)
{
	unsigned points = POINTS_MOST;

	for (unsigned goes = 1; goes <= points; goes++) {
		unsigned char newer[PAGE];
		struct cache *cache = make(backing, bytes);
		view.goes_at = goes;
		view.returns_at = 0;
		fake_at_each_point(hook);
		const int status = client_set(cache, KEY, 2, bytes, false, SET_ALWAYS);
		CHECK(status == DRP_OK || status == DRP_REFUSED);
		fake_at_each_point(NULL);
		points = view.point > points ? points : view.point;
		if (view.is_gone) {
			memcpy(newer, view.at, PAGE);
			memcpy(view.at, view.old, PAGE);
			check_get(cache, 2);
			memcpy(view.at, newer, PAGE);
		}
		check_get(cache, 2);
		end(cache);
	}
	CHECK(points > 2 && points < POINTS_MOST);
}

/* Another key has the slot before that of KEY, in the same bucket. */
static void give_neighbour(struct cache *cache)
{
	const uint64_t key = KEY;
	uint64_t other = KEY + 1;
	const size_t home = index_home_of(hash_bytes(cache->secret, &key, sizeof(key)));

	while (index_home_of(hash_bytes(cache->secret, &other, sizeof(other))) != home)
		other++;
	CHECK_EQ(cache_delete(cache, &key, sizeof(key), 0), DRP_OK);
	CHECK_EQ(client_set(cache, other, 1, 100, false, SET_ALWAYS), DRP_OK);
	CHECK_EQ(client_set(cache, KEY, 1, 100, false, SET_ALWAYS), DRP_OK);
}

/*
 * What was at the key's slot must not be found any more, and what was stored must be whole, however the page of the index, or that of the
 * entry, changes over between two points of a call.
 */
static unsigned change_over(enum prim_backing backing, bool of_index, bool deletes, unsigned goes, unsigned returns)
{
	const uint64_t key = KEY, newest = deletes ? 0 /* none is right */ : 2;
	struct cache *cache = make(backing, 100);
	size_t bytes;
	void *page;

	index_chunk(&cache->shards[0].index, 0, &page, &bytes);
	view.at = of_index ? page : view.at;
	give_neighbour(cache);
	view.point = 0;
	view.goes_at = goes;
	view.returns_at = returns;
	view.moves = true;
	fake_at_each_point(hook);
	const int status = deletes ? cache_delete(cache, &key, sizeof(key), 0) : client_set(cache, KEY, 2, 100, false, SET_ALWAYS);
	CHECK(status == DRP_OK || status == (deletes ? DRP_MISS : DRP_REFUSED));
	fake_at_each_point(NULL);
	fake_move_between_cpus(false); /* who reads stays where he is */
	if (view.is_back || come_back()) {
		check_get(cache, newest);
		CHECK(deletes || cache_delete(cache, &key, sizeof(key), 0) <= DRP_OK);
		check_get(cache, 0);
	}
	if (view.is_back)
		flush();
	check_get(cache, newest);
	end(cache);
	return view.point;
}

static void a_writer_changes_over(enum prim_backing backing, bool of_index, bool deletes)
{
	unsigned points = change_over(backing, of_index, deletes, 0, 0);

	CHECK(points > 2 && points < POINTS_MOST);
	for (unsigned goes = 1; goes <= points; goes++)
		for (unsigned returns = goes + 1; returns <= points + 1; returns++) { /* the last: not before the reader comes */
			const unsigned seen = change_over(backing, of_index, deletes, goes, returns);
			points = seen > points ? seen : points;
		}
}

int main(void)
{
	static const enum prim_backing backings[] = {PRIM_LAZYFREE, PRIM_DROPPABLE};

	for (int i = 0; i < 2; i++) {
		RUN(a_reader_changes_over, backings[i], 100);  /* a small entry */
		RUN(a_reader_changes_over, backings[i], 1200); /* one with a head of more */
		RUN(a_writer_changes_over, backings[i], true, false);
		RUN(a_writer_changes_over, backings[i], true, true);
	}
	/* Lazily freed, a page that is written is not taken. */
	RUN(a_writer_changes_over, PRIM_DROPPABLE, false, false);
	RUN(a_writer_changes_over, PRIM_DROPPABLE, false, true);
	RUN(a_writer_loses_the_page, PRIM_DROPPABLE, 100);
	RUN(a_writer_loses_the_page, PRIM_DROPPABLE, 1200);
	return check_done();
}
