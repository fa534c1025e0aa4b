/*
 * test_index_home.c - what the home bucket alone tells is what a whole search would find, and nothing is written on the word of a
 * look that something came between.
 */
#include "store/index_home.h"

#include <string.h>

#include "check.h"
#include "droppable.h"
#include "log/place.h"
#include "prim_fake.h"

enum { PAGE = 4096, HASHES = 4000 };

static uint64_t random_state;

static uint64_t random_bits(void)
{
	random_state += UINT64_C(0x9e3779b97f4a7c15);
	uint64_t mixed = (random_state ^ random_state >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
	mixed = (mixed ^ mixed >> 27) * UINT64_C(0x94d049bb133111eb);
	return mixed ^ mixed >> 31;
}

static bool finds(struct index *index, uint64_t hash, uint64_t place)
{
	struct index_cursor cursor;

	index_find(index, hash, &cursor);
	while (index_next(index, &cursor))
		if (cursor.place == place)
			return true;
	return false;
}

static void insert(struct index *index, uint64_t hash, uint64_t place)
{
	const struct index_home home = index_home_look(index, hash);
	uint64_t displaced = 0;

	if (index_home_is_free(index, &home)) {
		struct index_cursor cursor;
		index_find(index, hash, &cursor);
		CHECK(!index_next(index, &cursor)); /* certain to have none */
		CHECK(index_home_insert(index, &home, hash, place));
	} else {
		CHECK_EQ(index_insert(index, hash, place, &displaced), DRP_OK);
	}
	CHECK_EQ(displaced, 0);
	CHECK(!index_home_is_free(index, &home)); /* the look is used up */
}

/* Entries come and go, pages split; each hash is there once as long as it shall be. */
static void agrees_with_a_search(uint64_t seed)
{
	static uint64_t hashes[HASHES];
	static bool there[HASHES];
	struct index index;

	random_state = seed;
	REQUIRE(index_init(&index, PRIM_LAZYFREE, 0) == DRP_OK);
	for (size_t i = 0; i < HASHES; i++) {
		hashes[i] = random_bits();
		there[i] = false;
	}
	size_t count = 0;
	for (int step = 0; step < 4 * HASHES; step++) {
		const size_t i = random_bits() % HASHES;
		const uint64_t place = place_make(1 + (uint32_t)i, 0);
		CHECK_EQ(finds(&index, hashes[i], place), there[i]);
		if (!there[i]) {
			insert(&index, hashes[i], place);
		} else {
			struct index_cursor cursor;
			index_find(&index, hashes[i], &cursor);
			while (index_next(&index, &cursor) && cursor.place != place)
				;
			CHECK(index_erase(&index, &cursor));
		}
		there[i] = !there[i];
		count += there[i] ? 1 : (size_t)-1;
		CHECK_EQ(index.entries, count);
	}
	CHECK(index.page_count > 4);
	index_destroy(&index);
}

/* Its page is found dropped between the look and the insert, and a processor sees the old page still: it is gone for everybody. */
static void a_page_that_was_lost_meanwhile(void)
{
	unsigned char seen_still[PAGE];
	const uint64_t hash = 12345;
	struct index index;
	uint64_t displaced;

	REQUIRE(index_init(&index, PRIM_LAZYFREE, 0) == DRP_OK);
	CHECK_EQ(index_insert(&index, ~hash, place_make(1, 0), &displaced), DRP_OK);
	const struct index_home home = index_home_look(&index, hash);
	REQUIRE(index_home_is_free(&index, &home));
	void *page = index_page_address(&index, home.page_number);
	memcpy(seen_still, page, PAGE);
	memset(page, 0, PAGE);
	CHECK(!index_has_page(&index, home.page_number));
	memcpy(page, seen_still, PAGE);
	CHECK(!index_home_is_free(&index, &home));
	const struct index_home again = index_home_look(&index, hash);
	CHECK(!again.bucket && !index_home_is_free(&index, &again));
	CHECK_EQ(index_insert(&index, hash, place_make(2, 0), &displaced), DRP_OK);
	CHECK(finds(&index, hash, place_make(2, 0)) && !finds(&index, ~hash, place_make(1, 0)));
	CHECK_EQ(index.entries, 1);
	index_destroy(&index);
}

/* It goes without anybody having seen it: the insert finds out, and the entry is added to a page that is begun anew. */
static void a_page_that_goes_unseen(void)
{
	const uint64_t hash = 12345;
	struct index index;
	uint64_t displaced;

	REQUIRE(index_init(&index, PRIM_LAZYFREE, 0) == DRP_OK);
	CHECK_EQ(index_insert(&index, ~hash, place_make(1, 0), &displaced), DRP_OK);
	const struct index_home home = index_home_look(&index, hash);
	REQUIRE(index_home_is_free(&index, &home));
	memset(index_page_address(&index, home.page_number), 0, PAGE);
	CHECK(index_home_is_free(&index, &home));
	CHECK(!index_home_insert(&index, &home, hash, place_make(2, 0)));
	CHECK_EQ(index.entries, 0);
	CHECK_EQ(index_insert(&index, hash, place_make(2, 0), &displaced), DRP_OK);
	CHECK_EQ(index.entries, 1);
	index_destroy(&index);
}

int main(void)
{
	for (uint64_t seed = 1; seed <= 5; seed++)
		RUN(agrees_with_a_search, seed);
	RUN(a_page_that_was_lost_meanwhile);
	RUN(a_page_that_goes_unseen);
	return check_done();
}
