/*
 * test_states.c - each arrow that segment.h draws is gone along, on prim_fake: what is so before it, and what after.
 *
 * That a segment goes along no other arrow, arena.c asserts in each build of the tests: move_to(). Extents and entries have no
 * field that says their state; check_counts() counts from scratch where each of them is.
 *
 * One thread, so that functions which want the shard's lock are called without it.
 */
#include <string.h>

#include "policy/cleaner.h"
#include "cache_client.h"
#include "cache/fill.h"
#include "store/internal.h"
#include "store/move.h"
#include "cache_on_fake.h"
#include "cache/update.h"
#include "policy/unpin.h"
#include "check.h"
#include "check_counts.h"
#include "os/hash.h"
#include "store/index_search.h"
#include "prim_fake.h"
#include "set_and_get.h"

enum { PAGE = 4096, SEGMENT = 16 * PAGE, SMALL = 1000, VALUE = 3 * PAGE, LARGE = 5 * PAGE, KEY = 17, OTHER = 18 };
enum { KEPT_WHOLES = 4 /* as arena.c has it */ };

static struct cache *cache;
static struct shard *shard;
static struct arena *arena;

static void begin(void)
{
	const struct cache_config config = {.backing = PRIM_LAZYFREE, .shards = 1, .segment_bytes = SEGMENT};

	cache = fake_cache_make(&config);
	shard = &cache->shards[0];
	arena = &shard->arena;
}

static void end(void)
{
	check_counts(cache);
	fake_cache_end(cache);
}

static void set_value(uint64_t key, size_t bytes)
{
	CHECK_EQ(client_set(cache, key, 1, bytes, true, SET_ALWAYS), DRP_OK);
}

static void delete_key(uint64_t key)
{
	CHECK_EQ(cache_delete(cache, &key, sizeof(key), 0), DRP_OK);
}

static uint64_t hash_of(uint64_t key)
{
	return hash_bytes(cache->secret, &key, sizeof(key));
}

static bool find(uint64_t key, struct found *found)
{
	return shard_find(cache, shard, hash_of(key), &key, sizeof(key), found) < 0;
}

/* The value of a key, which is there and has pages of its own. */
static struct segment *find_value(uint64_t key, unsigned char **address)
{
	struct entry_extent extent;
	struct found found;

	REQUIRE(find(key, &found));
	entry_copy(&found.reader, NULL, found.entry.meta_bytes);
	REQUIRE(shard_read_extent(&found, &extent));
	struct segment *segment = shard_extent_segment(shard, &extent, address);
	REQUIRE(segment != NULL);
	return segment;
}

static bool is_dirty(const void *address)
{
	for (size_t n = 0; n < fake_pages(); n++)
		if (fake_page_at(n) == address)
			return fake_page_is_dirty(n);
	REQUIRE(!"it is mapped");
	return false;
}

static bool is_in(const struct segment *list, const struct segment *segment)
{
	for (; list; list = list->newer)
		if (list == segment)
			return true;
	return false;
}

static bool is_free(const struct segment *segment)
{
	return segment->state == SEGMENT_FREE && segment->serial == 0 &&
	       is_in(arena->free, segment) + is_in(arena->kept[segment->kind], segment) == 1;
}

/* Segments */

static struct segment *open_head(void)
{
	struct segment **head = &arena->logs[ARENA_MAIN].entries[0];

	set(cache, KEY, SMALL);
	REQUIRE(*head && (*head)->state == SEGMENT_OPEN);
	return *head;
}

static void a_head_is_mapped_sealed_retired_and_opened_again(void)
{
	begin();
	CHECK_EQ(arena->mapped_bytes, 0);
	struct segment *segment = open_head();
	CHECK_EQ(arena->mapped_bytes, SEGMENT);
	CHECK_EQ(segment->live_count, 1);
	arena_seal(arena, segment);
	CHECK_EQ(segment->state, SEGMENT_SEALED);
	CHECK(!arena->logs[ARENA_MAIN].entries[0]);
	const uint64_t serial = segment->serial;
	shard_retire(cache, shard, segment); /* what lives in it is given up */
	CHECK(is_free(segment));
	CHECK(!arena_find(arena, serial));
	CHECK(open_head() == segment);
	CHECK(segment->serial > serial);
	shard_retire(cache, shard, segment); /* also one that is open */
	CHECK(is_free(segment));
	CHECK(!arena->logs[ARENA_MAIN].entries[0]);
	end();
}

static void a_head_that_is_full_is_sealed(void)
{
	begin();
	struct segment *segment = open_head();
	for (uint64_t key = OTHER; segment->state == SEGMENT_OPEN && key < OTHER + SEGMENT / SMALL; key++)
		set(cache, key, SMALL);
	CHECK_EQ(segment->state, SEGMENT_SEALED);
	CHECK(segment->length - segment->used < 2 * SMALL);
	CHECK(arena->logs[ARENA_MAIN].entries[0]->state == SEGMENT_OPEN);
	end();
}

static void nothing_in_it_lives(void)
{
	begin();
	struct segment *segment = open_head();
	arena_seal(arena, segment);
	delete_key(KEY);
	CHECK(is_free(segment));
	end();
}

static void with_users_it_is_a_zombie(void)
{
	const struct cache_item item = {.meta_bytes = 2 * sizeof(uint64_t), .own_pages = true};
	const uint64_t key = KEY;
	struct cache_fill fill;

	begin();
	REQUIRE(cache_set_begin(cache, &key, sizeof(key), &item, VALUE, &fill) == DRP_OK);
	struct segment *segment = fill.segment;
	CHECK_EQ(segment->users, 1);
	CHECK_EQ(segment->state, SEGMENT_OPEN);
	shard_retire(cache, shard, segment);
	CHECK_EQ(segment->state, SEGMENT_ZOMBIE);
	CHECK(arena->zombies == segment);
	cache_set_abort(&fill); /* the last user */
	CHECK(!arena->zombies);
	CHECK(is_free(segment));
	end();
}

static void a_whole_is_born_sealed(void)
{
	unsigned char *address;

	begin();
	set_value(KEY, LARGE);
	struct segment *segment = find_value(KEY, &address);
	CHECK_EQ(segment->kind, SEGMENT_WHOLE);
	CHECK_EQ(segment->state, SEGMENT_SEALED);
	delete_key(KEY);
	CHECK(is_free(segment));
	set_value(OTHER, LARGE);
	CHECK(find_value(OTHER, &address) == segment);
	CHECK_EQ(segment->state, SEGMENT_SEALED);
	end();
}

static void a_whole_too_many_is_unmapped(void)
{
	unsigned char *address;
	struct segment *wholes[KEPT_WHOLES + 1];

	begin();
	for (uint64_t key = 0; key <= KEPT_WHOLES; key++) {
		set_value(key, LARGE);
		wholes[key] = find_value(key, &address);
	}
	const size_t mappings = fake_mappings();
	for (uint64_t key = 0; key <= KEPT_WHOLES; key++)
		shard_retire(cache, shard, wholes[key]);
	CHECK(arena->to_unmap == wholes[0]); /* the one that was kept first */
	for (int i = 1; i <= KEPT_WHOLES; i++)
		CHECK(is_free(wholes[i]));
	arena_unmap(arena_take_unmaps(arena));
	CHECK_EQ(fake_mappings(), mappings - 1);
	end();
}

static void what_may_not_be_used_again_is_unmapped(bool is_unwiped)
{
	begin();
	struct segment *segment = open_head();
	*(is_unwiped ? &segment->unwiped : &segment->dirty) = true;
	const size_t mappings = fake_mappings();
	shard_retire(cache, shard, segment);
	CHECK(arena->to_unmap == segment);
	CHECK_EQ(segment->state, SEGMENT_OPEN); /* whatever it was */
	CHECK_EQ(arena->mapped_bytes, 0);
	arena_unmap(arena_take_unmaps(arena));
	CHECK_EQ(fake_mappings(), mappings - 1);
	end();
}

/* Its dead bytes would stay where nobody could take them. */
static void what_cannot_be_marked_is_unmapped(void)
{
	begin();
	struct segment *segment = open_head();
	arena_note_appended(arena, segment, 1);
	CHECK_EQ(segment->held_pages, 1); /* a page that was begun */
	fake_fail_call(1);
	shard_retire(cache, shard, segment);
	CHECK_EQ(fake_calls(), 1);
	fake_fail_call(0);
	CHECK(arena->to_unmap == segment);
	CHECK_EQ(arena->held_pages, 0);
	arena_unmap(arena_take_unmaps(arena));
	end();
}

static void free_ones_are_trimmed(void)
{
	begin();
	struct segment *segment = open_head();
	shard_retire(cache, shard, segment);
	CHECK(is_free(segment));
	const size_t mappings = fake_mappings();
	CHECK(arena_trim(arena));
	CHECK(arena->to_unmap == segment);
	CHECK(!arena_trim(arena));
	CHECK_EQ(fake_mappings(), mappings);
	arena_unmap(arena_take_unmaps(arena));
	CHECK_EQ(fake_mappings(), mappings - 1);
	end();
}

static void what_is_free_at_the_end_of_emptying_is_unmapped(void)
{
	begin();
	struct segment *before = open_head();
	shard_retire(cache, shard, before);
	CHECK(is_free(before));
	set_value(OTHER, VALUE);
	struct segment *entries = arena->logs[ARENA_MAIN].entries[0], *extents = arena->logs[ARENA_MAIN].extents;
	CHECK(entries == before); /* was opened again */
	REQUIRE(extents != NULL);
	shard_retire(cache, shard, entries);
	arena_begin_emptying(arena);
	shard_retire(cache, shard, extents);
	CHECK(arena->to_unmap == extents); /* at once */
	CHECK(is_free(entries));
	arena_end_emptying(arena);
	CHECK(is_in(arena->to_unmap, entries) && is_in(arena->to_unmap, extents));
	CHECK(!arena->free && !arena->kept[SEGMENT_ENTRIES] && !arena->kept[SEGMENT_EXTENTS]);
	CHECK_EQ(arena->mapped_bytes, 0);
	arena_unmap(arena_take_unmaps(arena));
	end();
}

/* Extents */

static void a_value_is_written_by_a_user_and_lives_once_it_is_marked(void)
{
	const uint64_t key = KEY, meta[] = {1, VALUE};
	const struct cache_item item = {.meta = meta, .meta_bytes = sizeof(meta), .own_pages = true, .kind = KEY & 7};
	struct cache_update update = {.mode = SET_ALWAYS};
	struct cache_fill fill;
	unsigned char *address;
	struct found found;

	begin();
	REQUIRE(cache_set_begin(cache, &key, sizeof(key), &item, VALUE, &fill) == DRP_OK);
	CHECK(fill.in_place && fill.segment->kind == SEGMENT_EXTENTS);
	CHECK_EQ(fill.segment->users, 1);
	unsigned char *const value = fill.value;
	client_fill(value, KEY, 1, VALUE);
	CHECK(is_dirty(value));
	CHECK(!find(KEY, &found));
	CHECK_EQ(cache_set_commit(&fill, &key, sizeof(key), &item, &update), DRP_OK);
	struct segment *segment = find_value(KEY, &address);
	CHECK(address == value);
	CHECK(!is_dirty(address));
	CHECK_EQ(segment->users, 0);
	CHECK(get(cache, KEY));
	end();
}

static void a_value_is_pinned_and_given_back(void)
{
	const uint64_t key = KEY;
	unsigned char *address;
	struct cache_pin held;

	begin();
	set_value(KEY, VALUE);
	const struct segment *segment = find_value(KEY, &address);
	CHECK(!pins_find(&shard->pins, address));
	REQUIRE(cache_get(cache, &key, sizeof(key), GET_PIN, &sink.base, &held, NULL) == DRP_OK && held.cache);
	const struct pin *pin = pins_find(&shard->pins, address);
	REQUIRE(pin != NULL);
	CHECK(held.value == address);
	CHECK_EQ(pin->state, PIN_HELD);
	CHECK_EQ(pin->count, 1);
	CHECK(is_dirty(address) && is_dirty(address + 2 * PAGE));
	CHECK_EQ(segment->users, 1);
	cache_unpin(&held);
	CHECK(pins_find(&shard->pins, address) == pin && pin->deferred);
	CHECK(is_dirty(address));
	CHECK(unpin_all());
	CHECK(!pins_find(&shard->pins, address));
	CHECK(!is_dirty(address) && !is_dirty(address + 2 * PAGE));
	CHECK_EQ(segment->users, 0);
	CHECK(get(cache, KEY));
	end();
}

static void a_value_loses_a_page(bool to_the_census)
{
	unsigned char *address;
	struct found found;

	begin();
	set_value(KEY, VALUE);
	set_value(OTHER, VALUE);
	struct segment *segment = find_value(KEY, &address);
	CHECK_EQ(cache_settle(cache), DRP_OK);
	fake_drop_at(address + PAGE);
	CHECK(find(KEY, &found)); /* nobody knows yet */
	CHECK_EQ(shard->counts.dropped, 0);
	if (to_the_census) {
		arena_seal(arena, segment);
		shard_count_pages(cache, shard, segment);
	} else {
		CHECK(!get(cache, KEY));
	}
	CHECK_EQ(shard->counts.dropped, 1);
	CHECK(!find(KEY, &found));
	CHECK(get(cache, OTHER));
	CHECK_EQ(segment->live_count, 1);
	CHECK_EQ(shard->reuse.resident_count, 0);
	REQUIRE(shard->reuse.absent_count == 1); /* all of it was given back */
	CHECK_EQ(shard->reuse.absent[0].pages, VALUE / PAGE);
	/* The place is written again, for another value. */
	unsigned char *again;
	set_value(KEY + 100, VALUE);
	CHECK(find_value(KEY + 100, &again) == segment);
	CHECK(again == address);
	CHECK_EQ(shard->reuse.absent_count, 0);
	end();
}

static void a_dead_place_is_written_again_or_goes_with_its_segment(bool goes)
{
	unsigned char *address, *again;

	begin();
	set_value(KEY, VALUE);
	set_value(OTHER, VALUE);
	struct segment *segment = find_value(KEY, &address);
	delete_key(KEY);
	CHECK_EQ(segment->live_count, 1);
	REQUIRE(shard->reuse.resident_count == 1 && shard->reuse.absent_count == 0);
	CHECK_EQ(shard->reuse.resident[0].segment, segment->serial);
	CHECK_EQ(shard->reuse.resident[0].page, (address - segment->base) / PAGE);
	if (goes) {
		shard_retire(cache, shard, segment);
		CHECK_EQ(shard->reuse.resident_count, 0);
		CHECK(is_free(segment));
	} else {
		set_value(KEY + 100, VALUE);
		CHECK(find_value(KEY + 100, &again) == segment);
		CHECK(again == address);
		CHECK_EQ(shard->reuse.resident_count, 0);
		CHECK_EQ(segment->live_count, 2);
	}
	end();
}

static void a_value_leaves_nothing_where_space_is_made(void)
{
	unsigned char *address;
	struct found found;

	begin();
	set_value(KEY, VALUE);
	set_value(OTHER, VALUE);
	(void)find_value(KEY, &address);
	REQUIRE(find(KEY, &found));
	entry_copy(&found.reader, NULL, found.entry.meta_bytes);
	shard_forget(cache, shard, &found.cursor, &found, LEAVE_EVICTED, PAGES_RETIRED);
	CHECK_EQ(shard->counts.evicted, 1);
	CHECK(!find(KEY, &found));
	CHECK_EQ(shard->reuse.resident_count + shard->reuse.absent_count, 0);
	end();
}

/* Entries */

static void an_entry_is_appended_then_named(void)
{
	const uint64_t key = OTHER;
	const struct drp_part part = {&key, sizeof(key)};
	struct entry entry = {.key_bytes = sizeof(key)};
	uint64_t place, displaced;
	struct found found;

	begin();
	const struct segment *segment = open_head();
	const size_t used = segment->used;
	entry_measure(&entry);
	REQUIRE(shard_append(cache, shard, ARENA_MAIN, &entry, &part, 1, &place) == DRP_OK);
	CHECK_EQ(segment->live_count, 2);
	CHECK(segment->used > used);
	CHECK(!find(OTHER, &found));
	REQUIRE(index_insert(&shard->index, hash_of(OTHER), place, &displaced) == DRP_OK);
	shard->counts.sets++; /* who inserts counts */
	CHECK_EQ(displaced, 0);
	REQUIRE(find(OTHER, &found));
	CHECK(found.segment == segment && found.offset == arena_place_offset(place));
	end();
}

static void an_entry_is_replaced_then_forgotten(void)
{
	struct found old, found;

	begin();
	const struct segment *segment = open_head();
	set(cache, OTHER, SMALL);
	REQUIRE(find(KEY, &old));
	const size_t used = segment->used, live_bytes = segment->live_bytes;
	CHECK_EQ(live_bytes, used);
	set(cache, KEY, SMALL);
	REQUIRE(find(KEY, &found));
	CHECK(found.cursor.place != old.cursor.place);
	CHECK_EQ(shard->counts.replaced, 1);
	CHECK_EQ(segment->live_count, 2);
	CHECK(segment->used > used);
	CHECK(segment->live_bytes < segment->used); /* the older one is dead bytes */
	delete_key(KEY);
	CHECK(!find(KEY, &found));
	CHECK_EQ(shard->counts.deletes, 1);
	CHECK_EQ(segment->live_count, 1);
	CHECK(segment->live_bytes < live_bytes);
	end();
}

static void an_entry_moves(void)
{
	struct found found;

	begin();
	struct segment *from = open_head();
	set(cache, OTHER, SMALL);
	arena_seal(arena, from);
	REQUIRE(find(KEY, &found) && found.segment == from);
	CHECK(shard_move_entry(cache, shard, ARENA_MAIN, &found, NULL));
	REQUIRE(find(KEY, &found));
	CHECK(found.segment != from);
	CHECK_EQ(found.segment->live_count, 1);
	CHECK_EQ(from->live_count, 1);
	CHECK_EQ(shard->counts.replaced, 0);
	CHECK(get(cache, KEY) && get(cache, OTHER));
	end();
}

/* A segment of some pages, sealed and marked; those keys lie on its first page, all others behind. */
static struct segment *some_pages(void)
{
	struct found found;

	struct segment *segment = open_head();
	for (uint64_t key = OTHER; key < OTHER + 5 * PAGE / SMALL; key++)
		set(cache, key, SMALL);
	CHECK_EQ(cache_settle(cache), DRP_OK);
	arena_seal(arena, segment);
	REQUIRE(find(OTHER, &found) && found.segment == segment && found.offset < PAGE);
	return segment;
}

static void an_entry_loses_its_page(void)
{
	struct found found;

	begin();
	struct segment *segment = some_pages();
	const size_t count = segment->live_count;
	fake_drop_at(segment->base);
	CHECK(!find(KEY, &found)); /* shard_find() finds out */
	CHECK_EQ(shard->counts.dropped, 1);
	CHECK_EQ(segment->live_count, count - 1);
	shard_count_pages(cache, shard, segment); /* the page is noted as gone */
	CHECK(segment_is_dropped(segment, 0));
	CHECK_EQ(segment->live_count, count - 1);
	const uint64_t lost = shard->index.lost_entries;
	for (size_t page = 0; page < shard->index.page_count; page++)
		shard_scrub(shard); /* shard_is_stale() */
	CHECK(segment->live_count < count - 1 && segment->live_count > 0);
	CHECK_EQ(shard->index.lost_entries - lost, count - 1 - segment->live_count);
	CHECK(!find(OTHER, &found));
	end();
}

static void an_orphan_is_cleared_by_who_comes_by(void)
{
	struct found found;

	begin();
	struct segment *segment = some_pages();
	const uint64_t count = segment->live_count, entries = shard->index.entries;
	CHECK_EQ(shard->index.orphans, 0);
	shard_retire(cache, shard, segment);
	CHECK_EQ(shard->index.orphans, count);
	CHECK_EQ(shard->index.entries, entries);
	CHECK(!find(KEY, &found));
	CHECK_EQ(shard->index.orphans, count - 1);
	CHECK_EQ(shard->index.entries, entries - 1);
	for (size_t page = 0; page < shard->index.page_count; page++)
		shard_scrub(shard);
	CHECK_EQ(shard->index.orphans, 0);
	CHECK_EQ(shard->index.entries, entries - count);
	end();
}

static void a_page_of_the_index_goes(void)
{
	struct found found;
	size_t bytes;
	void *chunk;

	begin();
	struct segment *segment = some_pages();
	const size_t count = segment->live_count;
	CHECK_EQ(shard->index.entries, count);
	CHECK_EQ(cache_settle(cache), DRP_OK);
	index_chunk(&shard->index, 0, &chunk, &bytes);
	for (size_t page = 0; page < bytes / PAGE; page++)
		fake_drop_at((unsigned char *)chunk + page * PAGE);
	CHECK(!find(KEY, &found));
	CHECK_EQ(shard->index.entries, 0);
	CHECK_EQ(segment->live_count, count); /* it is not told at once */
	for (size_t round = 0; round < 3; round++) /* the first one ends that was under way; the segment was sealed during the next */
		for (size_t page = 0; page < shard->index.page_count; page++)
			shard_scrub(shard);
	CHECK_EQ(segment->live_count, 0);
	CHECK(shard->emptied);
	shard_retire_emptied(cache, shard);
	CHECK(is_free(segment));
	end();
}

int main(void)
{
	sink.base.reserve = client_reserve;
	RUN(a_head_is_mapped_sealed_retired_and_opened_again);
	RUN(a_head_that_is_full_is_sealed);
	RUN(nothing_in_it_lives);
	RUN(with_users_it_is_a_zombie);
	RUN(a_whole_is_born_sealed);
	RUN(a_whole_too_many_is_unmapped);
	RUN(what_may_not_be_used_again_is_unmapped, false);
	RUN(what_may_not_be_used_again_is_unmapped, true);
	RUN(what_cannot_be_marked_is_unmapped);
	RUN(free_ones_are_trimmed);
	RUN(what_is_free_at_the_end_of_emptying_is_unmapped);
	RUN(a_value_is_written_by_a_user_and_lives_once_it_is_marked);
	RUN(a_value_is_pinned_and_given_back);
	RUN(a_value_loses_a_page, false);
	RUN(a_value_loses_a_page, true);
	RUN(a_dead_place_is_written_again_or_goes_with_its_segment, false);
	RUN(a_dead_place_is_written_again_or_goes_with_its_segment, true);
	RUN(a_value_leaves_nothing_where_space_is_made);
	RUN(an_entry_is_appended_then_named);
	RUN(an_entry_is_replaced_then_forgotten);
	RUN(an_entry_moves);
	RUN(an_entry_loses_its_page);
	RUN(an_orphan_is_cleared_by_who_comes_by);
	RUN(a_page_of_the_index_goes);
	free(sink.value);
	return check_done();
}
