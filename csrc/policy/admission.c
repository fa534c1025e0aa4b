/*
 * policy/admission.c - new values wait in a small FIFO queue. Those that are referenced there are promoted.
 *
 *   set --> [ small queue: 1/14  ] --used meanwhile--> [ main log ] --coldest pages--> taken by the kernel
 *              |                                          ^
 *              '--not used--> evicted; its slot in the index stays as a ghost --set again--'
 *
 * It begins when the kernel takes pages of this cache while memory is short (policy/admission.h has the states): until then
 * there is memory for all, and everything is appended to the main log. From then on a value that was never referenced is
 * evicted after a fourteenth of the cache's bytes came after it. Its pages, which are resident, are written again: no
 * fault, no reclaim. What was referenced is copied to the main log, whose fresh pages stand last in the reclaim order. A key
 * that comes back while its ghost is there goes to the main log at once. So of what is referenced once, only a fourteenth of
 * the memory is held, and the kernel chooses among what was referenced again. (The queues are those of S3-FIFO: Yang and
 * others, "FIFO queues are all you need for cache eviction", SOSP 2023. The main queue is the kernel's page reclaim.) While
 * nobody asks for anything, all goes to the main log.
 *
 * Where costs are told, what is far cheaper for its bytes than the main log's mean is not promoted; what is costly beside what
 * comes in need not prove itself; and what is cheap in the main log is evicted when its segment is counted. Asked for
 * often, it still has its hits while in the small queue, and is computed once a round.
 *
 * Nobody tells how many bytes the cache may hold, nor when that changes. Both are read off its own pages: with each
 * segment that is opened, some others are counted. What is resident gives the fourteenth; what went, or was missed by somebody
 * who asked for it, adds to the budget, BUDGET_FACTOR times its bytes, for values in the small queue to leave. When the kernel stops
 * taking, the budget ends and the cache grows again. What was taken is found late, some of it when memory has long been
 * free again: so the budget ends also when memory is seen to be free.
 */
#include "store/internal.h"
#include "policy/admission.h"
#include "store/move.h"
#include "policy/headroom.h"
#include "policy/unpin.h"
#include "policy/cleaner.h"
#include "os/drp_assert.h"

enum {
	SHARE = 14,              /* of what is resident is in the small queue */
	BUDGET_TARGETS = 2,      /* budget is kept for that much of what is in the small queue */
	SEGMENTS_TO_COUNT = 2,
	ADMIT_BATCH_BYTES = 32 * 1024,
	ADMIT_FACTOR = 2,        /* bytes gone through for one appended, so that a surplus goes too */
	GHOST_AGE_FACTOR = 1,    /* all slots are scrubbed while that many times the resident bytes come in */
	LEAST_GHOST_SEGMENTS = 4,
	SCRUBS_AT_ONCE = 8,
	QUIET_LOOKS = 16,        /* nobody asks for anything: there is nothing to tell values apart by, but for their age */
	CHEAP_SHARE = 8,         /* of the mean cost: what is below does not pass */
	COSTLY_FACTOR = 2,         /* more than that many times what is examined costs */
	COST_MEAN_SHARE = 64,
	COST_SINK_SHARE = 1024,
};

static uint64_t resident_bytes(const struct shard *shard)
{
	return (uint64_t)shard->arena.resident_pages * prim_page_size();
}

/* Bytes that come after a value before it is examined; and never less than a segment. */
static uint64_t target_bytes(const struct shard *shard)
{
	const uint64_t least = shard->arena.segment_bytes, share = resident_bytes(shard) / SHARE;
	return share > least ? share : least;
}

static uint64_t cost_of(uint64_t cost_ns, size_t bytes)
{
	return bytes < 1024 ? cost_ns : cost_ns / (bytes / 1024);
}

bool admission_is_cheap(const struct shard *shard, uint64_t cost_ns, size_t bytes)
{
	return cost_ns != 0 && cost_of(cost_ns, bytes) < shard->admission.cost / CHEAP_SHARE;
}

static bool is_costly(const struct shard *shard, uint64_t cost_ns, size_t bytes)
{
	const uint64_t examined = shard->admission.examined_cost;
	return examined != 0 && cost_of(cost_ns, bytes) / COSTLY_FACTOR > examined;
}

static void follow(uint64_t *mean, uint64_t cost)
{
	*mean = *mean == 0 ? cost : *mean - *mean / COST_MEAN_SHARE + cost / COST_MEAN_SHARE;
}

/*
 * Is an entry promoted to the main log? Yes, if it was referenced and is not cheap, or if it is costly among what comes in.
 * The mean follows what gets one, and sinks while cheap ones ask for it.
 */
static bool promotes(struct cache *cache, struct shard *shard, const struct found *found, size_t bytes)
{
	struct admission *admission = &shard->admission;
	const uint64_t cost_ns = found->entry.cost_ns, cost = cost_of(cost_ns, bytes);
	const bool hot = index_is_hot(&found->cursor), cheap = admission_is_cheap(shard, cost_ns, bytes);
	const bool costly = is_costly(shard, cost_ns, bytes);

	if (cost_ns != 0)
		follow(&admission->examined_cost, cost);
	if (hot && cheap)
		admission->cost -= admission->cost / COST_SINK_SHARE + 1;
	if (cheap || !(hot || costly) || !cache_headroom_is_known(cache, shard, bytes))
		return false;
	if (cost_ns != 0)
		follow(&admission->cost, cost);
	return true;
}

enum arena_part admission_choose(struct shard *shard, uint64_t hash, uint64_t cost_ns, size_t bytes)
{
	struct index_cursor cursor;

	if (!shard->arena.memory_is_short || shard->admission.quiet_looks >= QUIET_LOOKS)
		return ARENA_MAIN;
	if (is_costly(shard, cost_ns, bytes)) {
		follow(&shard->admission.cost, cost_of(cost_ns, bytes));
		return ARENA_MAIN;
	}
	if (admission_is_cheap(shard, cost_ns, bytes))
		return ARENA_SMALL;
	index_find(&shard->index, hash, &cursor);
	while (index_next(&shard->index, &cursor)) {
		if (cursor.place == PLACE_EVICTED)
			return ARENA_MAIN;
		const struct segment *segment = arena_segment(&shard->arena, arena_place_number(cursor.place));
		if (segment && segment->part == ARENA_MAIN)
			return ARENA_MAIN; /* takes the place of an entry that passed */
	}
	return ARENA_SMALL;
}

/* The oldest segment in the small queue that is full and not in use. */
static struct segment *oldest_of(const struct arena *arena)
{
	struct segment *segment = arena->logs[ARENA_SMALL].oldest;

	while (segment && (segment->state != SEGMENT_SEALED || segment->users > segment->deferred))
		segment = segment->newer;
	return segment;
}

static bool is_countable(const struct segment *segment)
{
	return segment->state == SEGMENT_SEALED && segment->users == 0 && segment->cleaned == 0;
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
	/* Those in the small queue keep their order. */
	segment = arena_find(&shard->arena, shard->admission.counted_serial);
	if (!segment || segment->part != ARENA_SMALL)
		segment = shard->arena.logs[ARENA_SMALL].oldest;
	for (unsigned counted = 0; segment && counted < SEGMENTS_TO_COUNT; segment = newer) {
		newer = segment->newer;
		shard->admission.counted_serial = newer ? newer->serial : 0;
		if (!is_countable(segment))
			continue;
		shard_count_pages(cache, shard, segment);
		counted++;
	}
}

/* Slots whose entries are gone, ghosts among them, are cleared page by page, in step with what comes in. */
static void scrub_some(struct shard *shard, size_t bytes)
{
	struct admission *admission = &shard->admission;
	const uint64_t stored = shard->arena.memory_is_short ? resident_bytes(shard) : shard->counts.bytes;
	const uint64_t least = LEAST_GHOST_SEGMENTS * shard->arena.segment_bytes;
	const uint64_t round = GHOST_AGE_FACTOR * (stored > least ? stored : least);

	admission->scrub_debt += shard->index.page_count * (uint64_t)bytes;
	for (int i = 0; i < SCRUBS_AT_ONCE && admission->scrub_debt >= round; i++) {
		admission->scrub_debt -= round;
		shard_scrub(shard);
	}
	if (admission->scrub_debt > round)
		admission->scrub_debt = round;
}

static bool memory_is_free(struct cache *cache)
{
	return atomic_load_explicit(&cache->memory_is_free, memory_order_relaxed);
}

static void become_short(struct shard *shard)
{
	shard->arena.memory_is_short = true;
	shard->admission.free_bytes = 0;
}

static void become_free(struct shard *shard)
{
	shard->arena.memory_is_short = false;
	shard->admission.free_bytes = shard->admission.debt_bytes = 0;
}

/* That many bytes come in: ends the budget if memory is free, and the state SHORT if it has been for long enough. */
static void end_if_free(struct cache *cache, struct shard *shard, size_t bytes)
{
	struct admission *admission = &shard->admission;

	if (!memory_is_free(cache)) {
		admission->free_bytes = 0;
		return;
	}
	admission->budget_bytes = 0;
	admission->free_bytes += bytes;
	if (admission->free_bytes >= target_bytes(shard))
		become_free(shard);
}

void admission_look(struct cache *cache, struct shard *shard)
{
	struct admission *admission = &shard->admission;

	scrub_some(shard, shard->opened_bytes);
	shard->opened_bytes = 0;
	admission->quiet_looks = shard->hits == admission->seen_hits ? admission->quiet_looks + 1 : 0;
	admission->seen_hits = shard->hits;
	if (cache->config.max_bytes)
		return;
	count_some(cache, shard);
	const uint64_t most = memory_is_free(cache) ? 0 : BUDGET_TARGETS * target_bytes(shard);
	if (admission->budget_bytes > most)
		admission->budget_bytes = most;
	if (!shard->arena.memory_is_short && admission->budget_bytes >= BUDGET_FACTOR * prim_page_size())
		become_short(shard);
}

bool admission_promotes(struct cache *cache, struct shard *shard, struct found *found, size_t bytes, enum arena_part *to)
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
		*to = segment->part; /* in the small queue: examined with its extent */
		return true;
	}
	return promotes(cache, shard, found, bytes);
}

/* The next value of a segment of extents. */
static void admit_extent(struct cache *cache, struct shard *shard, struct segment *segment)
{
	const size_t page = prim_page_size();
	const uint64_t serial = segment->serial;
	const uint32_t stamp = arena_stamp(segment->number), i = segment->examined_extents++;
	const struct arena_extent listed = arena_directory(segment)[i];
	struct entry_extent extent;
	struct found found;

	segment->users++; /* stays itself while its last live values leave */
	if (listed.stamp == stamp &&
	    shard_find_by_extent(shard, listed.hash, serial, listed.page, &found, &extent)) {
		const size_t bytes = (size_t)extent.value_bytes;
		if (!promotes(cache, shard, &found, bytes) ||
		    !shard_move_extent(cache, shard, segment, &found, &extent, listed.hash, PAGES_LEFT))
			shard_forget_extent(cache, shard, &found, &extent, LEAVE_EVICTED, PAGES_LEFT);
	}
	if (arena_find(&shard->arena, serial) == segment) {
		if (i + 1 == segment->extents)
			shard_retire(cache, shard, segment);
		else if (arena_directory(segment)[i + 1].stamp == stamp)
			segment->examined = arena_directory(segment)[i + 1].page * page;
	}
	arena_release(&shard->arena, segment);
}

/* A large value stays where it is and changes the log that it belongs to, or goes. */
static void admit_whole(struct cache *cache, struct shard *shard, struct segment *segment)
{
	const uint64_t serial = segment->serial;
	const uint64_t hash = segment->hash;
	struct entry_extent extent;
	struct found found;

	segment->users++; /* stays itself while its entry moves */
	bool live = shard_find_by_extent(shard, hash, serial, 0, &found, &extent);
	if (live && promotes(cache, shard, &found, (size_t)extent.value_bytes) &&
	    shard_move_entry(cache, shard, ARENA_MAIN, &found, NULL)) {
		if (arena_find(&shard->arena, serial) == segment) {
			segment->examined = segment->used;
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
static size_t admit_segment(struct cache *cache, struct shard *shard, struct segment *segment)
{
	const uint64_t serial = segment->serial;
	const size_t used = segment->used, before = segment->examined;

	if (segment->kind != SEGMENT_WHOLE) /* which stays where it is, or goes */
		unpin_leave(shard, segment);
	switch (segment->kind) {
	case SEGMENT_ENTRIES:
		shard_clean_entries(cache, shard, segment, CLEAN_ADMIT);
		if (arena_find(&shard->arena, serial) == segment)
			segment->examined = segment->cleaned;
		break;
	case SEGMENT_EXTENTS:
		admit_extent(cache, shard, segment);
		break;
	case SEGMENT_WHOLE:
		admit_whole(cache, shard, segment);
		break;
	}
	return (arena_find(&shard->arena, serial) == segment ? segment->examined : used) - before;
}

void admission_step(struct cache *cache, struct shard *shard, size_t appended_bytes)
{
	struct admission *admission = &shard->admission;
	struct segment *segment;

	if (!shard->arena.memory_is_short)
		return;
	end_if_free(cache, shard, appended_bytes);
	if (!shard->arena.memory_is_short)
		return;
	reuse_give_back(shard);
	shard_compact(cache, shard);
	admission->debt_bytes += ADMIT_FACTOR * appended_bytes;
	if (admission->debt_bytes < ADMIT_BATCH_BYTES)
		return;
	while (admission->budget_bytes > 0 && admission->debt_bytes > 0 && (segment = oldest_of(&shard->arena)) != NULL &&
	       admission->appended_bytes - segment->filled_at >= target_bytes(shard)) {
		const uint64_t progress = admit_segment(cache, shard, segment);
		/* If a page of the directory was dropped, nothing on it can be examined. A page is charged, so that the loop ends. */
		const uint64_t least = prim_page_size(), step = progress > least ? progress : least;
		/* A step goes through a value or some pages as a whole, so it may do more than is owed or allowed. */
		admission->debt_bytes -= step < admission->debt_bytes ? step : admission->debt_bytes;
		admission->budget_bytes -= progress < admission->budget_bytes ? progress : admission->budget_bytes;
	}
	/* What did not have to go now must not pile up for the next insert. */
	if (admission->debt_bytes > ADMIT_BATCH_BYTES)
		admission->debt_bytes = ADMIT_BATCH_BYTES;
}
