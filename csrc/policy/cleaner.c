/*
 * policy/cleaner.c - segments are emptied, for five reasons that share one walk:
 *
 *   evict    max_bytes is exceeded: policy/evict.c
 *   clean    the span of address space is used up: the oldest segment is to be reused. Whatever the kernel left in it is
 *            what it holds to be in use. A segment that is mostly there gets a second chance and becomes the newest; of others, what
 *            is there is relocated. Both have a budget, earned with each segment that is gained: when everything is
 *            in use and there is nothing to gain, the oldest entries are evicted
 *
 *   oldest [ gone ][ cleaned so far | to be looked at ... ] [ ... ] ... [ head ]
 *                                  next entry ---- relocated -----------^
 *
 *   admit    what lies in it has waited in the small queue for long enough: policy/admission.c
 *   compact  few of its entries live: policy/compact.c
 *   expired  some of its entries expired, and those alone leave: policy/expire.c
 *
 * A step is bounded, so that no insert pays for a whole segment while there is still room at the head.
 */
#include <stdlib.h>
#include <string.h>

#include "store/clock.h"
#include "policy/expire.h"
#include "policy/admission.h"
#include "store/internal.h"
#include "store/move.h"
#include "policy/unpin.h"
#include "os/drp_assert.h"
#include "log/witness.h"
#include "policy/evict.h"
#include "policy/space.h"
#include "policy/cleaner.h"
#include "store/deferred.h"

enum {
	STEP_PAGES = 16,
	STEP_ENTRIES = 256,
	SECOND_CHANCES = 2,     /* second chances for one segment gained, */
	SECOND_CHANCES_MAX = 64,
	/* and half a segment relocated: up to a quarter of a segment may stay unused at its end, the rest is progress */
	COPY_BUDGET_SHARE = 2,
	COPY_BUDGET_MAX = 2, /* segments */
	VICTIMS_TO_CHOOSE_FROM = 16,
};

static void clean_entry(struct cache *cache, struct shard *shard, struct found *found, enum clean_reason reason)
{
	const struct entry *entry = &found->entry;
	const size_t bytes = found_end(found) - found->offset;
	const bool newest = found->cursor.place == shard->newest_place;
	enum arena_part to = ARENA_MAIN;
	enum leave why = LEAVE_EVICTED;
	const enum pages_fate fate = reason == CLEAN_REUSE ? PAGES_RETIRED : reason == CLEAN_ADMIT ? PAGES_LEFT : PAGES_REUSED;
	bool keep;

	if ((entry->flags & ENTRY_TTL) && entry->expires_ns <= cache_now_ns(cache)) {
		keep = false;
		why = LEAVE_EXPIRED;
	} else if (reason == CLEAN_EXPIRED) {
		expiry_note_live(shard, entry->expires_ns);
		return;
	} else if (reason == CLEAN_EVICT) {
		keep = index_is_hot(&found->cursor) || newest;
	} else if (reason == CLEAN_ADMIT) {
		keep = admission_promotes(cache, shard, found, bytes, &to);
	} else if (reason == CLEAN_COMPACT) {
		keep = true;
	} else {
		keep = bytes <= shard->copy_budget_bytes;
	}
	if (keep && shard_move_entry(cache, shard, to, found, NULL)) {
		if (reason == CLEAN_REUSE)
			shard->copy_budget_bytes -= bytes;
		if (newest)
			shard->newest_place = found->cursor.place;
		return;
	}
	entry_copy(&found->reader, NULL, entry->meta_bytes);
	shard_forget(cache, shard, &found->cursor, found, why, fate);
}

/*
 * One step through a segment of entries; stops early when that is enough for max_bytes. True: it came to the end, and the
 * segment is there.
 */
static bool step(struct cache *cache, struct shard *shard, struct segment *segment, size_t *cleaned,
		 enum clean_reason reason)
{
	const size_t page = prim_page_size(), first = *cleaned & ~(page - 1);
	const uint64_t serial = segment->serial;
	unsigned char states[STEP_PAGES + 1];
	size_t step = STEP_PAGES * page, start, entries = 0;
	struct prim_census census;
	struct found found;

	if (step > segment->length - first)
		step = segment->length - first;
	/* Pages that are gone are passed over without a touch: reading one would map zeros in its place. */
	if (prim_census(segment->base + first, step, states, &census) != DRP_OK)
		memset(states, PRIM_RESIDENT, sizeof(states));
	size_t end = first + step < segment->used ? first + step : segment->used;
	while (*cleaned < end && entries++ < STEP_ENTRIES) {
		if (states[(*cleaned - first) / page] != PRIM_RESIDENT) {
			shard->audit_due += AUDIT_DUE;
			*cleaned = (*cleaned & ~(page - 1)) + page;
			continue;
		}
		if (!entry_next(segment->base, cleaned, end, arena_stamp(segment->number), &start))
			break;
		if (!shard_find_live(cache, shard, segment, start, &found))
			continue;
		clean_entry(cache, shard, &found, reason);
		if (arena_find(&shard->arena, serial) != segment)
			return false; /* that was its last live entry */
		if (segment->serial == shard->evicting_serial && !shard_is_over(cache, shard))
			return *cleaned >= segment->used;
	}
	return *cleaned >= segment->used;
}

void shard_clean_entries(struct cache *cache, struct shard *shard, struct segment *segment, enum clean_reason reason)
{
	if (!step(cache, shard, segment, &segment->cleaned, reason))
		return;
	if (segment->state == SEGMENT_SEALED)
		shard_retire(cache, shard, segment);
	else
		segment->cleaned = 0;
}

bool shard_clean_expired(struct cache *cache, struct shard *shard, struct segment *segment, size_t *cleaned)
{
	return step(cache, shard, segment, cleaned, CLEAN_EXPIRED);
}

static void clean_extents(struct cache *cache, struct shard *shard, struct segment *segment)
{
	const uint64_t serial = segment->serial;
	const uint32_t stamp = arena_stamp(segment->number), count = segment->extents;

	segment->users++; /* stays itself while its last live values leave */
	for (uint32_t i = 0; i < count; i++) {
		const struct arena_extent listed = arena_directory(segment)[i];
		struct found found;
		struct entry_extent extent;
		if (listed.stamp != stamp ||
		    !shard_find_by_extent(shard, listed.hash, serial, listed.page, &found, &extent))
			continue;
		/* Counted in pages: values of little more than one take nearly twice what they hold, and nothing would be gained. */
		const size_t bytes = witness_count((size_t)extent.value_bytes) * prim_page_size();
		if (bytes <= shard->copy_budget_bytes &&
		    shard_move_extent(cache, shard, segment, &found, &extent, listed.hash, PAGES_RETIRED))
			shard->copy_budget_bytes -= bytes;
		else
			shard_forget_extent(cache, shard, &found, &extent, LEAVE_EVICTED, PAGES_RETIRED);
	}
	if (arena_find(&shard->arena, serial) == segment)
		shard_retire(cache, shard, segment);
	arena_release(&shard->arena, segment);
}

/* A large value at the tail: one more round if it was used or is all there, else it goes. */
static void clean_whole(struct cache *cache, struct shard *shard, struct segment *segment)
{
	const uint64_t serial = segment->serial;
	struct found found;
	struct entry_extent extent;

	bool live = shard_find_by_extent(shard, segment->hash, serial, 0, &found, &extent);
	bool resident = live && range_is_resident(segment->base, (size_t)extent.value_bytes);
	if (resident && !segment->had_second_chance && shard->second_chances > 0) {
		segment->had_second_chance = true;
		shard->second_chances--;
		arena_renew(&shard->arena, ARENA_MAIN, segment);
		return;
	}
	if (live)
		shard_forget_extent(cache, shard, &found, &extent, resident ? LEAVE_EVICTED : LEAVE_DROPPED, PAGES_RETIRED);
	if (arena_find(&shard->arena, serial) == segment)
		shard_retire(cache, shard, segment);
}

/* The emptiest of the oldest segments that may be emptied: neither a head nor in use. */
static struct segment *victim_of(struct arena *arena)
{
	struct segment *emptiest = NULL;
	unsigned looked_at = 0;

	for (struct segment *segment = arena_next(arena, NULL); segment && looked_at < VICTIMS_TO_CHOOSE_FROM;
	     segment = arena_next(arena, segment)) {
		if (segment->state != SEGMENT_SEALED || segment->users > segment->deferred)
			continue;
		if (segment->cleaned > 0)
			return segment; /* begun: to be finished */
		if (!emptiest || segment->resident_pages < emptiest->resident_pages)
			emptiest = segment;
		looked_at++;
	}
	return emptiest;
}

/* A segment of many values that nearly all are there, before it is cleaned: copying them would gain nothing. */
static bool give_second_chance(struct shard *shard, struct segment *segment)
{
	const size_t page = prim_page_size(), used = (segment->used + page - 1) & ~(page - 1);
	struct prim_census census;

	if (segment->kind == SEGMENT_WHOLE || segment->cleaned > 0 || shard->second_chances == 0 ||
	    prim_census(segment->base, used, NULL, &census) != DRP_OK ||
	    census.resident_pages * 4 < census.pages * 3)
		return false;
	shard->second_chances--;
	arena_renew(&shard->arena, ARENA_MAIN, segment);
	return true;
}

/* Cleaning that begins earns the budget for what it will gain. */
static void earn_budget(struct shard *shard, const struct segment *segment)
{
	const size_t most = COPY_BUDGET_MAX * shard->arena.segment_bytes;

	if (segment->cleaned > 0)
		return;
	shard->copy_budget_bytes += segment->length / COPY_BUDGET_SHARE;
	if (shard->copy_budget_bytes > most)
		shard->copy_budget_bytes = most;
	shard->second_chances += SECOND_CHANCES;
	if (shard->second_chances > SECOND_CHANCES_MAX)
		shard->second_chances = SECOND_CHANCES_MAX;
}

void shard_make_space(struct cache *cache, struct shard *shard, enum segment_kind kind, size_t length, bool urgent)
{
	struct arena *arena = &shard->arena;
	struct segment *victim;

	arena->span_limit_bytes = atomic_load_explicit(&cache->span_bytes, memory_order_relaxed);
	if (cache->config.max_bytes && arena->span_limit_bytes > 4 * cache->config.max_bytes + 4 * arena->segment_bytes)
		arena->span_limit_bytes = 4 * cache->config.max_bytes + 4 * arena->segment_bytes;
	if (shard->span_cap_bytes && prim_now_coarse_ns() > shard->span_cap_until_ns)
		shard->span_cap_bytes = 0; /* tried anew */
	if (shard->span_cap_bytes && arena->span_limit_bytes > shard->span_cap_bytes)
		arena->span_limit_bytes = shard->span_cap_bytes;
	if (kind == SEGMENT_WHOLE && shard->span_cap_bytes && shard_is_in_vain(shard))
		return;
	while (arena_is_full(arena, kind, length)) {
		if (kind == SEGMENT_WHOLE ? arena_trim(arena) : arena_trim_whole(arena))
			continue;
		victim = victim_of(arena);
		if (!victim)
			break;
		if (give_second_chance(shard, victim))
			continue;
		if (victim->kind != SEGMENT_WHOLE) /* a large value that rests gets a second chance or goes, and may be a lot to mark */
			unpin_leave(shard, victim);
		earn_budget(shard, victim);
		switch (victim->kind) {
		case SEGMENT_ENTRIES:
			shard_clean_entries(cache, shard, victim, CLEAN_REUSE);
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
}

/*
 * Counts what is live of a value's or many values' own pages anew; what nothing leads to any more is given back. Values whose
 * page of the directory was dropped cannot be told: then the counts stay what is live at most, or, where there is a bound on
 * what is held, the whole segment goes, and what lived in it is found dropped.
 */
void shard_audit_segment(struct cache *cache, struct shard *shard, struct segment *segment)
{
	const uint64_t serial = segment->serial;
	const uint32_t stamp = arena_stamp(segment->number), count = segment->kind == SEGMENT_WHOLE ? 1 : segment->extents;
	size_t live_bytes = 0, live_count = 0;
	struct found found;
	struct entry_extent extent;

	for (uint32_t i = 0; i < count; i++) {
		struct arena_extent listed = {segment->hash, 0, stamp};
		if (segment->kind == SEGMENT_EXTENTS)
			listed = arena_directory(segment)[i];
		if (listed.stamp != stamp) {
			/* They would be held for good where no census finds segments that are gone: with a max_bytes. */
			if (cache->config.max_bytes > 0 && segment->state == SEGMENT_SEALED)
				shard_retire(cache, shard, segment);
			return;
		}
		if (!shard_find_by_extent(shard, listed.hash, serial, listed.page, &found, &extent))
			continue;
		live_bytes += witness_count((size_t)extent.value_bytes) * prim_page_size();
		live_count++;
	}
	DRP_ASSERT(live_count <= segment->live_count && live_bytes <= segment->live_bytes);
	shard_set_live(shard, segment, live_bytes, live_count);
	if (live_count == 0 && segment->state == SEGMENT_SEALED)
		shard_retire(cache, shard, segment);
}

/*
 * Dropped entries leave values of a page or more behind that are counted and that nothing leads to. After signs of drops, the
 * counts are put right, a few segments at a time.
 */
void shard_audit(struct cache *cache, struct shard *shard, unsigned most)
{
	unsigned audits = 0;

	if (shard->index.lost_pages != shard->audited_lost_pages)
		shard->audit_due = AUDIT_DUE;
	if (shard->audit_due >= AUDIT_DUE) {
		shard->audited_lost_pages = shard->index.lost_pages;
		shard->audit_due = 0;
		shard->audit_round++;
		shard->auditing = true;
	}
	if (!shard->auditing)
		return;
	for (struct segment *segment = arena_next(&shard->arena, NULL), *next; segment && audits < most; segment = next) {
		next = arena_next(&shard->arena, segment);
		if (segment->kind == SEGMENT_ENTRIES || segment->users > segment->deferred ||
		    segment->audited == shard->audit_round)
			continue;
		segment->audited = shard->audit_round;
		shard_audit_segment(cache, shard, segment);
		audits++;
	}
	shard->auditing = audits == most;
}
