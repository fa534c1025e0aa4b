/*
 * cache_sweep.c - old segments are emptied, for two reasons that share one walk:
 *
 *   evict    max_bytes is exceeded: entries leave in the order they came, but for those used since the last sweep, which
 *            get a second chance at the head of the log (CLOCK, on the hot bit of the index)
 *   clean    the span of address space is used up: the oldest segment is to be reused. Whatever the kernel left in it is
 *            what it holds to be in use. A segment that is mostly there is spared and becomes the newest; of others, what
 *            is there is copied forward. Both on credit, earned with each segment that is gained: when everything is
 *            in use and there is nothing to gain, the oldest entries are evicted
 *
 *   oldest [ gone ][ swept so far | to be looked at ... ] [ ... ] ... [ head ]
 *                                  next entry ---- copied forward ------^
 *
 * A step is bounded, so that no insert pays for a whole segment while there is still room at the head.
 */
#include <stdlib.h>
#include <string.h>

#include "cache_internal.h"
#include "cache_window.h"
#include "hash.h"
#include "witness.h"

enum {
	STEP_PAGES = 16,
	STACK_KEY_BYTES = 512,
	SPARE_CREDIT = 2,     /* segments spared for one gained, */
	SPARE_CREDIT_MAX = 64,
	/* and half a segment copied forward: up to a quarter of a segment may stay unused at its end, the rest is progress */
	COPY_CREDIT_SHARE = 2,
	COPY_CREDIT_MAX = 2, /* segments */
	AUDIT_DUE = 64,      /* dropped entries found, or a page of them, or of the index */
	AUDITS_AT_ONCE = 8,
};

enum sweep_reason { SWEEP_EVICT, SWEEP_CLEAN };

/* The entry that begins at start, if the index still leads to it. */
static bool find_live(struct cache *cache, struct shard *shard, struct segment *segment, size_t start,
		      struct found *found)
{
	unsigned char on_stack[STACK_KEY_BYTES], *key = on_stack;
	const uint32_t stamp = arena_stamp(segment->number);
	const uint64_t place = arena_place(segment, start);
	bool live = false;

	found->segment = segment;
	found->offset = start;
	if (!entry_open(segment->base, start, stamp, &found->reader, &found->entry))
		return false;
	const size_t key_bytes = found->entry.key_bytes;
	if (key_bytes > segment->length)
		return false; /* the head was dropped while it was read */
	if (key_bytes > sizeof(on_stack)) {
		key = malloc(key_bytes);
		if (!key)
			return false;
	}
	entry_copy(&found->reader, key, key_bytes);
	if (!found->reader.lost && entry_intact(segment->base, start, stamp, found->entry.bytes))
		live = shard_find_place(shard, hash_bytes(cache->secret, key, key_bytes), place, &found->cursor);
	if (key != on_stack)
		free(key);
	return live;
}

/* Copies an entry to the head of the log; its extent stays where it is. False: it could not be, and stays. */
static bool move_entry(struct cache *cache, struct shard *shard, struct found *found, const struct entry_extent *extent)
{
	const size_t bytes = found->entry.key_bytes + found->entry.meta_bytes + found->entry.inline_bytes;
	const uint64_t old_place = found->cursor.place;
	const size_t old_bytes = found_end(found) - found->offset;
	const uint32_t stamp = arena_stamp(found->segment->number);
	struct entry_reader reader;
	struct entry entry;
	uint64_t place;
	bool moved = false;

	unsigned char *copy = malloc(bytes ? bytes : 1);
	if (!copy)
		return false;
	if (!entry_open(found->segment->base, found->offset, stamp, &reader, &entry))
		goto out;
	entry_copy(&reader, copy, bytes);
	if (reader.lost || !entry_intact(found->segment->base, found->offset, stamp, found->entry.bytes))
		goto out;
	if (extent)
		memcpy(copy + found->entry.key_bytes + found->entry.meta_bytes, extent, sizeof(*extent));
	struct drp_part part = {copy, bytes};
	if (shard_append(cache, shard, &found->entry, &part, 1, &place) != DRP_OK)
		goto out;
	if (!index_replace(&shard->index, &found->cursor, place)) {
		/* The page of the index went: nothing leads to either of them. */
		shard_count_left(cache, shard, place, old_bytes, LEAVE_DROPPED);
	}
	shard_count_left(cache, shard, old_place, old_bytes, LEAVE_REPLACED);
	moved = true;
out:
	free(copy);
	return moved;
}

static void sweep_entry(struct cache *cache, struct shard *shard, struct found *found, enum sweep_reason reason)
{
	const struct entry *entry = &found->entry;
	const size_t bytes = found_end(found) - found->offset;
	enum leave why = LEAVE_EVICTED;
	bool keep;

	if ((entry->flags & ENTRY_TTL) && entry->expires_ns <= cache_now_ns(cache)) {
		keep = false;
		why = LEAVE_EXPIRED;
	} else if (reason == SWEEP_EVICT) {
		keep = index_is_hot(&found->cursor);
	} else {
		keep = bytes <= shard->copy_credit_bytes;
	}
	if (keep && move_entry(cache, shard, found, NULL)) {
		if (reason == SWEEP_CLEAN)
			shard->copy_credit_bytes -= bytes;
		return;
	}
	entry_copy(&found->reader, NULL, entry->meta_bytes);
	shard_forget(cache, shard, &found->cursor, found, why);
}

/*
 * One step through a segment of entries; stops early when enough bytes are gone. A head that is evicted from is gone
 * through again and again: its entries lose their hot bit on the way.
 */
static void sweep_entries(struct cache *cache, struct shard *shard, struct segment *segment, enum sweep_reason reason)
{
	const size_t page = prim_page_size(), first = segment->swept & ~(page - 1);
	const uint32_t number = segment->number;
	unsigned char states[STEP_PAGES + 1];
	size_t step = STEP_PAGES * page, start;
	struct prim_census census;
	struct found found;

	if (step > segment->length - first)
		step = segment->length - first;
	/* Pages that are gone are passed over without a touch: reading one would map zeros in its place. */
	if (prim_census(segment->base + first, step, states, &census) != DRP_OK)
		memset(states, PRIM_RESIDENT, sizeof(states));
	size_t end = first + step < segment->used ? first + step : segment->used;
	while (segment->swept < end) {
		if (states[(segment->swept - first) / page] != PRIM_RESIDENT) {
			shard->audit_due += AUDIT_DUE;
			segment->swept = (segment->swept & ~(page - 1)) + page;
			continue;
		}
		if (!entry_next(segment->base, &segment->swept, end, arena_stamp(number), &start))
			break;
		if (!find_live(cache, shard, segment, start, &found))
			continue;
		sweep_entry(cache, shard, &found, reason);
		if (arena_segment(&shard->arena, number) != segment)
			return; /* that was its last live entry */
		if (reason == SWEEP_EVICT &&
		    atomic_load_explicit(&cache->bytes, memory_order_relaxed) <= cache->config.max_bytes)
			return;
	}
	if (segment->swept < segment->used)
		return;
	if (segment->state == SEGMENT_SEALED)
		shard_retire(cache, shard, segment);
	else
		segment->swept = 0;
}

/* The entry whose extent lies at a page of a segment, found by the hash of its key. */
static bool find_by_extent(struct cache *cache, struct shard *shard, uint64_t hash, uint32_t number, uint32_t page,
			   struct found *found, struct entry_extent *extent)
{
	struct index_cursor cursor;

	index_find(&shard->index, hash, &cursor);
	while (index_next(&shard->index, &cursor)) {
		struct segment *segment = arena_segment(&shard->arena, arena_place_number(cursor.place));
		if (!segment || segment->kind != SEGMENT_ENTRIES)
			continue;
		found->cursor = cursor;
		if (!find_live(cache, shard, segment, arena_place_offset(cursor.place), found) ||
		    !(found->entry.flags & ENTRY_EXTENT))
			continue;
		entry_copy(&found->reader, NULL, found->entry.meta_bytes);
		if (shard_read_extent(found, extent) && extent->segment == number && extent->page == page)
			return true;
	}
	return false;
}

static bool is_resident(const unsigned char *address, size_t bytes)
{
	struct prim_census census;
	const size_t page = prim_page_size(), length = witness_count(bytes) * page;
	return prim_census(address, length, NULL, &census) == DRP_OK && census.absent_pages == 0;
}

/* Copies a value to the head of the extents and its entry to the head of the entries. False: it has to go. */
static bool move_extent(struct cache *cache, struct shard *shard, struct segment *from, struct found *found,
			const struct entry_extent *old, uint64_t hash)
{
	const size_t bytes = (size_t)old->value_bytes, count = witness_count(bytes);
	const unsigned char *source = from->base + (size_t)old->page * prim_page_size();
	const struct drp_part part = {source, bytes};
	struct segment *to;
	struct entry_extent extent;
	bool kept = false;

	if (!is_resident(source, bytes))
		return false;
	uint16_t *witnesses = malloc(2 * count * sizeof(*witnesses));
	if (!witnesses)
		return false;
	entry_copy(&found->reader, witnesses + count, count * sizeof(*witnesses));
	if (shard_take_extent(cache, shard, hash, bytes, &to, &extent) != DRP_OK)
		goto out;
	unsigned char *target = to->base + (size_t)extent.page * prim_page_size();
	int written = witness_write(target, &part, 1, witnesses, cache->config.backing == PRIM_DROPPABLE);
	/* The same bytes have the same witnesses: those in the entry serve the copy, if the source was whole throughout. */
	kept = written == DRP_OK && !found->reader.lost && witness_intact(source, bytes, witnesses + count) &&
	       memcmp(witnesses, witnesses + count, count * sizeof(*witnesses)) == 0 &&
	       move_entry(cache, shard, found, &extent);
	if (kept)
		shard_free_extent(cache, shard, old);
	else
		shard_free_extent(cache, shard, &extent);
	arena_release(&shard->arena, to);
out:
	free(witnesses);
	return kept;
}

static void forget_extent(struct cache *cache, struct shard *shard, uint64_t hash, uint32_t number, uint32_t page,
			  enum leave why)
{
	struct found found;
	struct entry_extent extent;

	if (!find_by_extent(cache, shard, hash, number, page, &found, &extent))
		return;
	shard_free_extent(cache, shard, &extent);
	shard_leave(cache, shard, &found.cursor, found_end(&found) - found.offset, why);
}

static void clean_extents(struct cache *cache, struct shard *shard, struct segment *segment)
{
	const uint32_t number = segment->number, count = segment->extents;

	segment->users++; /* stays itself while its last live values leave */
	for (uint32_t i = 0; i < count; i++) {
		const struct arena_extent listed = arena_directory(segment)[i];
		struct found found;
		struct entry_extent extent;
		if (listed.stamp != arena_stamp(number) ||
		    !find_by_extent(cache, shard, listed.hash, number, listed.page, &found, &extent))
			continue;
		if (extent.value_bytes <= shard->copy_credit_bytes &&
		    move_extent(cache, shard, segment, &found, &extent, listed.hash))
			shard->copy_credit_bytes -= (size_t)extent.value_bytes;
		else
			forget_extent(cache, shard, listed.hash, number, listed.page, LEAVE_EVICTED);
	}
	if (arena_segment(&shard->arena, number) == segment)
		shard_retire(cache, shard, segment);
	arena_release(&shard->arena, segment);
}

/* A large value at the tail: one more round if it was used or is all there, else it goes. */
static void clean_whole(struct cache *cache, struct shard *shard, struct segment *segment)
{
	const uint32_t number = segment->number;
	struct found found;
	struct entry_extent extent;

	bool live = find_by_extent(cache, shard, segment->hash, number, 0, &found, &extent);
	bool resident = live && is_resident(segment->base, (size_t)extent.value_bytes);
	if (resident && !segment->spared && shard->spare_credit > 0) {
		segment->spared = true;
		shard->spare_credit--;
		arena_renew(&shard->arena, segment);
		return;
	}
	if (live)
		forget_extent(cache, shard, segment->hash, number, 0, resident ? LEAVE_EVICTED : LEAVE_DROPPED);
	if (arena_segment(&shard->arena, number) == segment)
		shard_retire(cache, shard, segment);
}

/* The oldest segment that may be emptied: not a head, not in use. */
static struct segment *victim_of(struct arena *arena)
{
	for (struct segment *segment = arena->oldest; segment; segment = segment->newer)
		if (segment->state == SEGMENT_SEALED && segment->users == segment->resting)
			return segment;
	return NULL;
}

/* A segment of many values that nearly all are there, before its sweep begins: copying them would gain nothing. */
static bool spare(struct shard *shard, struct segment *segment)
{
	const size_t page = prim_page_size(), used = (segment->used + page - 1) & ~(page - 1);
	struct prim_census census;

	if (segment->kind == SEGMENT_WHOLE || segment->swept > 0 || shard->spare_credit == 0 ||
	    prim_census(segment->base, used, NULL, &census) != DRP_OK ||
	    census.resident_pages * 4 < census.pages * 3)
		return false;
	shard->spare_credit--;
	arena_renew(&shard->arena, segment);
	return true;
}

/* A sweep that begins earns the credit for what it will gain. */
static void earn_credit(struct shard *shard, const struct segment *segment)
{
	const size_t most = COPY_CREDIT_MAX * shard->arena.segment_bytes;

	if (segment->swept > 0)
		return;
	shard->copy_credit_bytes += segment->length / COPY_CREDIT_SHARE;
	if (shard->copy_credit_bytes > most)
		shard->copy_credit_bytes = most;
	shard->spare_credit += SPARE_CREDIT;
	if (shard->spare_credit > SPARE_CREDIT_MAX)
		shard->spare_credit = SPARE_CREDIT_MAX;
}

void shard_make_space(struct cache *cache, struct shard *shard, enum segment_kind kind, size_t length, bool urgent)
{
	struct arena *arena = &shard->arena;
	struct segment *victim;

	arena->span_limit_bytes = atomic_load_explicit(&cache->span_bytes, memory_order_relaxed);
	if (cache->config.max_bytes && arena->span_limit_bytes > 4 * cache->config.max_bytes + 4 * arena->segment_bytes)
		arena->span_limit_bytes = 4 * cache->config.max_bytes + 4 * arena->segment_bytes;
	if (shard->span_cap_bytes && arena->span_limit_bytes > shard->span_cap_bytes)
		arena->span_limit_bytes = shard->span_cap_bytes;
	shard->making_space = true;
	while (arena_is_full(arena, kind, length)) {
		if (kind == SEGMENT_WHOLE && arena_trim(arena))
			continue;
		victim = victim_of(arena);
		if (!victim)
			break;
		if (spare(shard, victim))
			continue;
		window_leave(shard, victim, true);
		earn_credit(shard, victim);
		switch (victim->kind) {
		case SEGMENT_ENTRIES:
			sweep_entries(cache, shard, victim, SWEEP_CLEAN);
			break;
		case SEGMENT_EXTENTS:
			clean_extents(cache, shard, victim);
			break;
		case SEGMENT_WHOLE:
			clean_whole(cache, shard, victim);
			break;
		}
		if (!urgent)
			break;
	}
	shard->making_space = false;
}

/* Counts what is live of a value's or many values' own pages anew; what nothing leads to any more is given back. */
static void audit(struct cache *cache, struct shard *shard, struct segment *segment)
{
	const uint32_t number = segment->number, count = segment->kind == SEGMENT_WHOLE ? 1 : segment->extents;
	size_t live_bytes = 0, live_count = 0;
	struct found found;
	struct entry_extent extent;

	for (uint32_t i = 0; i < count; i++) {
		struct arena_extent listed = {segment->hash, 0, arena_stamp(number)};
		if (segment->kind == SEGMENT_EXTENTS)
			listed = arena_directory(segment)[i];
		if (listed.stamp != arena_stamp(number) ||
		    !find_by_extent(cache, shard, listed.hash, number, listed.page, &found, &extent))
			continue;
		live_bytes += witness_count((size_t)extent.value_bytes) * prim_page_size();
		live_count++;
	}
	shard_set_live(cache, shard, segment, live_bytes, live_count);
	if (live_count == 0 && segment->state == SEGMENT_SEALED)
		shard_retire(cache, shard, segment);
}

/*
 * Dropped entries leave values of a page or more behind that are counted and that nothing leads to. Before live entries
 * are evicted for them, the counts are put right: a few segments at a time, after signs of drops.
 */
static void audit_some(struct cache *cache, struct shard *shard)
{
	unsigned audits = 0;

	if (shard->index.lost_pages != shard->audited_lost_pages)
		shard->audit_due = AUDIT_DUE;
	if (shard->audit_due >= AUDIT_DUE) {
		shard->audited_lost_pages = shard->index.lost_pages;
		shard->audit_due = 0;
		shard->audit_round++;
	}
	for (struct segment *segment = shard->arena.oldest, *newer; segment && audits < AUDITS_AT_ONCE; segment = newer) {
		newer = segment->newer;
		if (segment->kind == SEGMENT_ENTRIES || segment->users > segment->resting ||
		    segment->audited == shard->audit_round)
			continue;
		window_leave(shard, segment, true);
		segment->audited = shard->audit_round;
		audit(cache, shard, segment);
		audits++;
	}
}

void shard_evict(struct cache *cache, struct shard *shard)
{
	const uint64_t max_bytes = cache->config.max_bytes;
	size_t rounds = 0;

	if (max_bytes == 0)
		return;
	if (atomic_load_explicit(&cache->bytes, memory_order_relaxed) > max_bytes)
		audit_some(cache, shard);
	while (atomic_load_explicit(&cache->bytes, memory_order_relaxed) > max_bytes && shard->counts.entries > 0) {
		struct segment *segment = shard->arena.oldest;
		while (segment && segment->kind != SEGMENT_ENTRIES)
			segment = segment->newer;
		if (!segment)
			break;
		if (segment->state == SEGMENT_OPEN && segment->swept == 0 && rounds++ == 2)
			break; /* twice through all there is: the rest is dropped entries whose size is not known */
		sweep_entries(cache, shard, segment, SWEEP_EVICT);
	}
}
