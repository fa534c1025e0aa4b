/*
 * policy/probation.c - what is new has to prove itself before it may take the place of what is in use.
 *
 *   set --> [ probation: 1 in 14 ] --used meanwhile--> [ main log ] --coldest pages--> taken by the kernel
 *              |                                          ^
 *              '--not used--> evicted; its slot in the index stays as a ghost --set again--'
 *
 * It begins when the kernel takes pages of this cache while memory is short (policy/probation.h has the states): until then
 * there is room for all, and everything is appended to the main log. From then on a value that was never asked for leaves after a fourteenth of the cache's bytes came after it,
 * and its pages, which are resident, are written again: no fault, no reclaim. What was asked for is copied to the main
 * log, whose fresh pages stand last in the reclaim order; a key that comes back while its ghost is there goes there at
 * once. So of what is asked for once, only a fourteenth of the memory is held, and the kernel chooses among what was asked for
 * again. (The queues are those of S3-FIFO: Yang and others, "FIFO queues are all you need for cache eviction", SOSP 2023.
 * The main queue is the kernel's page reclaim.) While nobody asks for anything, all goes to the main log.
 *
 * Where costs are told, what is far cheaper for its bytes than the main log's mean does not pass; what is dear beside what
 * comes in need not prove itself; and what is cheap in the main log is evicted when its segment is counted. Asked for
 * often, it still has its hits while on probation, and is computed once a round.
 *
 * Nobody tells how many bytes the cache may hold, nor when that changes. Both are read off its own pages: with each
 * segment that is opened, some others are counted. What is resident gives the fourteenth; what went, or was missed by somebody
 * who asked for it, gives credit, CREDIT_FACTOR times its bytes, for values on probation to leave. When the kernel stops
 * taking, the credit ends and the cache grows again. What was taken is found late, some of it when memory has long been
 * free again: so all credit ends also when memory is seen to be free.
 */
#include "store/internal.h"
#include "policy/probation.h"
#include "store/move.h"
#include "policy/room.h"
#include "policy/unpin.h"
#include "policy/sweep.h"
#include "os/drp_assert.h"

enum {
	SHARE = 14,              /* of what is resident is on probation */
	CREDIT_TARGETS = 2,      /* credit is kept for that much of what is on probation */
	SEGMENTS_TO_COUNT = 2,
	JUDGE_BATCH_BYTES = 32 * 1024,
	JUDGE_FACTOR = 2,        /* bytes gone through for one appended, so that a surplus goes too */
	GHOST_AGE_FACTOR = 1,    /* all slots are scrubbed while that many times the resident bytes come in */
	LEAST_GHOST_SEGMENTS = 4,
	SCRUBS_AT_ONCE = 8,
	QUIET_LOOKS = 16,        /* nobody asks for anything: there is nothing to tell values apart by, but for their age */
	CHEAP_SHARE = 8,         /* of the mean cost: what is below does not pass */
	DEAR_FACTOR = 2,         /* more than that many times what is judged costs */
	COST_MEAN_SHARE = 64,
	COST_SINK_SHARE = 1024,
};

static uint64_t resident_bytes(const struct shard *shard)
{
	return (uint64_t)shard->arena.resident_pages * prim_page_size();
}

/* Bytes that come after a value before it is judged; and never less than a segment. */
static uint64_t target_bytes(const struct shard *shard)
{
	const uint64_t least = shard->arena.segment_bytes, share = resident_bytes(shard) / SHARE;
	return share > least ? share : least;
}

static uint64_t cost_of(uint64_t cost_ns, size_t bytes)
{
	return bytes < 1024 ? cost_ns : cost_ns / (bytes / 1024);
}

bool probation_is_cheap(const struct shard *shard, uint64_t cost_ns, size_t bytes)
{
	return cost_ns != 0 && cost_of(cost_ns, bytes) < shard->probation.cost / CHEAP_SHARE;
}

static bool is_dear(const struct shard *shard, uint64_t cost_ns, size_t bytes)
{
	const uint64_t judged = shard->probation.judged_cost;
	return judged != 0 && cost_of(cost_ns, bytes) / DEAR_FACTOR > judged;
}

static void follow(uint64_t *mean, uint64_t cost)
{
	*mean = *mean == 0 ? cost : *mean - *mean / COST_MEAN_SHARE + cost / COST_MEAN_SHARE;
}

/*
 * Does an entry get a place in the main log: if it was asked for, unless it is cheap, or if it is dear among what comes in.
 * The mean follows what gets one, and sinks while cheap ones ask for it.
 */
static bool passes(struct cache *cache, struct shard *shard, const struct found *found, size_t bytes)
{
	struct probation *probation = &shard->probation;
	const uint64_t cost_ns = found->entry.cost_ns, cost = cost_of(cost_ns, bytes);
	const bool hot = index_is_hot(&found->cursor), cheap = probation_is_cheap(shard, cost_ns, bytes);
	const bool dear = is_dear(shard, cost_ns, bytes);

	if (cost_ns != 0)
		follow(&probation->judged_cost, cost);
	if (hot && cheap)
		probation->cost -= probation->cost / COST_SINK_SHARE + 1;
	if (cheap || !(hot || dear) || !cache_room_is_known(cache, shard, bytes))
		return false;
	if (cost_ns != 0)
		follow(&probation->cost, cost);
	return true;
}

enum arena_part probation_choose(struct shard *shard, uint64_t hash, uint64_t cost_ns, size_t bytes)
{
	struct index_cursor cursor;

	if (!shard->arena.memory_is_short || shard->probation.quiet_looks >= QUIET_LOOKS)
		return ARENA_MAIN;
	if (is_dear(shard, cost_ns, bytes)) {
		follow(&shard->probation.cost, cost_of(cost_ns, bytes));
		return ARENA_MAIN;
	}
	if (probation_is_cheap(shard, cost_ns, bytes))
		return ARENA_PROBATION;
	index_find(&shard->index, hash, &cursor);
	while (index_next(&shard->index, &cursor)) {
		if (cursor.place == PLACE_EVICTED)
			return ARENA_MAIN;
		const struct segment *segment = arena_segment(&shard->arena, arena_place_number(cursor.place));
		if (segment && segment->part == ARENA_MAIN)
			return ARENA_MAIN; /* takes the place of an entry that passed */
	}
	return ARENA_PROBATION;
}

/* The oldest segment on probation that is full and not in use. */
static struct segment *oldest_of(const struct arena *arena)
{
	struct segment *segment = arena->logs[ARENA_PROBATION].oldest;

	while (segment && (segment->state != SEGMENT_SEALED || segment->users > segment->deferred))
		segment = segment->newer;
	return segment;
}

static bool is_countable(const struct segment *segment)
{
	return segment->state == SEGMENT_SEALED && segment->users == 0 && segment->swept == 0;
}

/* Counts some segments of each log, in turn: of the main log the oldest, which become the newest. */
static void count_some(struct cache *cache, struct shard *shard)
{
	struct segment *segment = shard->arena.logs[ARENA_MAIN].oldest, *newer;

	for (unsigned counted = 0; segment && counted < SEGMENTS_TO_COUNT; segment = newer) {
		newer = segment->newer;
		if (!is_countable(segment))
			continue;
		arena_renew(&shard->arena, ARENA_MAIN, segment);
		shard_count_pages(cache, shard, segment);
		counted++;
	}
	/* Those on probation keep their order. */
	segment = arena_find(&shard->arena, shard->probation.counted_serial);
	if (!segment || segment->part != ARENA_PROBATION)
		segment = shard->arena.logs[ARENA_PROBATION].oldest;
	for (unsigned counted = 0; segment && counted < SEGMENTS_TO_COUNT; segment = newer) {
		newer = segment->newer;
		shard->probation.counted_serial = newer ? newer->serial : 0;
		if (!is_countable(segment))
			continue;
		shard_count_pages(cache, shard, segment);
		counted++;
	}
}

/* Slots whose entries are gone, ghosts among them, are cleared page by page, in step with what comes in. */
static void scrub_some(struct shard *shard, size_t bytes)
{
	struct probation *probation = &shard->probation;
	const uint64_t stored = shard->arena.memory_is_short ? resident_bytes(shard) : shard->counts.bytes;
	const uint64_t least = LEAST_GHOST_SEGMENTS * shard->arena.segment_bytes;
	const uint64_t round = GHOST_AGE_FACTOR * (stored > least ? stored : least);

	probation->scrub_owed += shard->index.page_count * (uint64_t)bytes;
	for (int i = 0; i < SCRUBS_AT_ONCE && probation->scrub_owed >= round; i++) {
		probation->scrub_owed -= round;
		shard_scrub(shard);
	}
	if (probation->scrub_owed > round)
		probation->scrub_owed = round;
}

static bool memory_is_free(struct cache *cache)
{
	return atomic_load_explicit(&cache->memory_is_free, memory_order_relaxed);
}

static void become_short(struct shard *shard)
{
	shard->arena.memory_is_short = true;
	shard->probation.free_bytes = 0;
}

static void become_free(struct shard *shard)
{
	shard->arena.memory_is_short = false;
	shard->probation.free_bytes = shard->probation.owed_bytes = 0;
}

/* That many bytes come in: ends the credit if memory is free, and the state SHORT if it has been for long enough. */
static void end_if_free(struct cache *cache, struct shard *shard, size_t bytes)
{
	struct probation *probation = &shard->probation;

	if (!memory_is_free(cache)) {
		probation->free_bytes = 0;
		return;
	}
	probation->credit_bytes = 0;
	probation->free_bytes += bytes;
	if (probation->free_bytes >= target_bytes(shard))
		become_free(shard);
}

void probation_look(struct cache *cache, struct shard *shard)
{
	struct probation *probation = &shard->probation;

	scrub_some(shard, shard->opened_bytes);
	shard->opened_bytes = 0;
	probation->quiet_looks = shard->hits == probation->seen_hits ? probation->quiet_looks + 1 : 0;
	probation->seen_hits = shard->hits;
	if (cache->config.max_bytes)
		return;
	count_some(cache, shard);
	const uint64_t most = memory_is_free(cache) ? 0 : CREDIT_TARGETS * target_bytes(shard);
	if (probation->credit_bytes > most)
		probation->credit_bytes = most;
	if (!shard->arena.memory_is_short && probation->credit_bytes >= CREDIT_FACTOR * prim_page_size())
		become_short(shard);
}

bool probation_passed(struct cache *cache, struct shard *shard, struct found *found, size_t bytes, enum arena_part *to)
{
	struct entry_extent extent;

	*to = ARENA_MAIN;
	if (found->entry.flags & ENTRY_EXTENT) {
		struct found copy = *found; /* whose reader is used up */
		entry_copy(&copy.reader, NULL, copy.entry.meta_bytes);
		unsigned char *address;
		const struct segment *segment =
			shard_read_extent(&copy, &extent) ? shard_extent_segment(shard, &extent, &address) : NULL;
		if (!segment)
			return false;
		*to = segment->part; /* on probation: judged with its extent */
		return true;
	}
	return passes(cache, shard, found, bytes);
}

/* The next value of a segment of extents. */
static void judge_extent(struct cache *cache, struct shard *shard, struct segment *segment)
{
	const size_t page = prim_page_size();
	const uint64_t serial = segment->serial;
	const uint32_t stamp = arena_stamp(segment->number), i = segment->judged_extents++;
	const struct arena_extent listed = arena_directory(segment)[i];
	struct entry_extent extent;
	struct found found;

	segment->users++; /* stays itself while its last live values leave */
	if (listed.stamp == stamp &&
	    shard_find_by_extent(shard, listed.hash, serial, listed.page, &found, &extent)) {
		const size_t bytes = (size_t)extent.value_bytes;
		if (!passes(cache, shard, &found, bytes) ||
		    !shard_move_extent(cache, shard, segment, &found, &extent, listed.hash, PAGES_LEFT))
			shard_forget_extent(cache, shard, &found, &extent, LEAVE_EVICTED, PAGES_LEFT);
	}
	if (arena_find(&shard->arena, serial) == segment) {
		if (i + 1 == segment->extents)
			shard_retire(cache, shard, segment);
		else if (arena_directory(segment)[i + 1].stamp == stamp)
			segment->judged = arena_directory(segment)[i + 1].page * page;
	}
	arena_release(&shard->arena, segment);
}

/* A large value stays where it is and changes the log that it belongs to, or goes. */
static void judge_whole(struct cache *cache, struct shard *shard, struct segment *segment)
{
	const uint64_t serial = segment->serial;
	const uint64_t hash = segment->hash;
	struct entry_extent extent;
	struct found found;

	segment->users++; /* stays itself while its entry moves */
	bool live = shard_find_by_extent(shard, hash, serial, 0, &found, &extent);
	if (live && passes(cache, shard, &found, (size_t)extent.value_bytes) &&
	    shard_move_entry(cache, shard, ARENA_MAIN, &found, NULL)) {
		if (arena_find(&shard->arena, serial) == segment) {
			segment->judged = segment->used;
			arena_renew(&shard->arena, ARENA_MAIN, segment);
		}
	} else {
		if (live)
			shard_forget_extent(cache, shard, &found, &extent, LEAVE_EVICTED, PAGES_LEFT);
		if (arena_find(&shard->arena, serial) == segment)
			shard_retire(cache, shard, segment);
	}
	arena_release(&shard->arena, segment);
}

/* A part of what lies in a segment; returns the bytes that were gone through. */
static size_t judge_segment(struct cache *cache, struct shard *shard, struct segment *segment)
{
	const uint64_t serial = segment->serial;
	const size_t used = segment->used, before = segment->judged;

	if (segment->kind != SEGMENT_WHOLE) /* which stays where it is, or goes */
		unpin_leave(shard, segment);
	switch (segment->kind) {
	case SEGMENT_ENTRIES:
		shard_sweep_entries(cache, shard, segment, SWEEP_JUDGE);
		if (arena_find(&shard->arena, serial) == segment)
			segment->judged = segment->swept;
		break;
	case SEGMENT_EXTENTS:
		judge_extent(cache, shard, segment);
		break;
	case SEGMENT_WHOLE:
		judge_whole(cache, shard, segment);
		break;
	}
	return (arena_find(&shard->arena, serial) == segment ? segment->judged : used) - before;
}

void probation_judge(struct cache *cache, struct shard *shard, size_t appended_bytes)
{
	struct probation *probation = &shard->probation;
	struct segment *segment;

	if (!shard->arena.memory_is_short)
		return;
	end_if_free(cache, shard, appended_bytes);
	if (!shard->arena.memory_is_short)
		return;
	rewrite_give_back(shard);
	shard_tidy(cache, shard);
	probation->owed_bytes += JUDGE_FACTOR * appended_bytes;
	if (probation->owed_bytes < JUDGE_BATCH_BYTES)
		return;
	while (probation->credit_bytes > 0 && probation->owed_bytes > 0 && (segment = oldest_of(&shard->arena)) != NULL &&
	       probation->appended_bytes - segment->filled_at >= target_bytes(shard)) {
		const uint64_t progress = judge_segment(cache, shard, segment);
		/* If a page of the directory was dropped, nothing on it can be judged. A page is charged, so that the loop ends. */
		const uint64_t least = prim_page_size(), step = progress > least ? progress : least;
		/* A step goes through a value or some pages as a whole, so it may do more than is owed or allowed. */
		probation->owed_bytes -= step < probation->owed_bytes ? step : probation->owed_bytes;
		probation->credit_bytes -= progress < probation->credit_bytes ? progress : probation->credit_bytes;
	}
	/* What did not have to go now must not pile up for the next insert. */
	if (probation->owed_bytes > JUDGE_BATCH_BYTES)
		probation->owed_bytes = JUDGE_BATCH_BYTES;
}
