/*
 * policy/evict.c - max_bytes bounds the memory that a cache holds: what lives and what is dead of its pages, and its index.
 *
 *   held      pages of the log that were written and not given back | pages of the index beyond a sixteenth of max_bytes
 *   reserve   a segment that is emptied, as far as that came | one kept to be written again, or the rest of it that is being
 *             written again | places of dead values
 *   bound     held - reserve <= max_bytes + CONSTANT_PAGES,   reserve <= an eighth of max_bytes, or two least segments
 *
 * What goes first: what expired; what is dead beyond the reserve; then, if the emptiest segment of entries is half dead,
 * what lives in it is brought together; else the oldest entries leave, but for those used since the last cleaning, which get a
 * second chance at the head of the log (CLOCK, on the hot bit of the index). So dead bytes of what was replaced or deleted
 * take no room from what lives for long, and memory that is to be written again soon is not given back before.
 *
 * What the kernel took of it is found out late, and counts until then. What is pinned by somebody counts while its entry lives.
 */
#include "store/clock.h"
#include "policy/expire.h"
#include "store/internal.h"
#include "store/move.h"
#include "policy/unpin.h"
#include "policy/evict.h"
#include "policy/cleaner.h"

enum {
	RESERVE_SHARE = 8,
	SPARSE_SHARE = 2,
	LEAST_SEGMENT_PAGES = 8,
	ROUNDS_MOST = 2,
	AUDITS_AT_ONCE = 8,
	/* Beyond the bound, so that the smallest cache holds a value that is as large: its last page, its entry, the index. */
	CONSTANT_PAGES = 8,
};

static uint64_t reserve_most(const struct cache *cache)
{
	const uint64_t share = cache->config.max_bytes / RESERVE_SHARE;
	const uint64_t least = 2 * LEAST_SEGMENT_PAGES * (uint64_t)prim_page_size();
	return share > least ? share : least;
}

/* Behind what was appended to a head, where that is being written again. */
static uint64_t rest_bytes(const struct segment *head)
{
	const uint64_t touched_bytes = head ? head->touched_pages * (uint64_t)prim_page_size() : 0;
	return head && touched_bytes > head->used ? touched_bytes - head->used : 0;
}

/* What is held of this shard and free or dead for sure. */
static uint64_t reserve_bytes(const struct shard *shard)
{
	const uint64_t page = prim_page_size();
	const struct segment *segment = arena_find(&shard->arena, shard->evicting_serial);
	const struct arena_log *log = &shard->arena.logs[ARENA_MAIN];
	uint64_t bytes = reuse_free_pages(&shard->reuse) * page + (segment ? segment->cleaned : 0);

	for (int kind = 0; kind < SEGMENT_WHOLE; kind++)
		if (shard->arena.kept[kind])
			bytes += shard->arena.kept[kind]->held_pages * page;
	for (unsigned life = 0; life < log->lives; life++)
		bytes += rest_bytes(log->entries[life]);
	return bytes + rest_bytes(log->extents);
}

static bool is_over(struct cache *cache, struct shard *shard)
{
	const uint64_t bound = cache->config.max_bytes + CONSTANT_PAGES * prim_page_size();

	cache_account(cache, shard);
	if (cache->shard_count == 1 && shard->counts.bytes > cache->config.max_bytes)
		return true; /* a small bound is exact for what lives */
	const uint64_t held = atomic_load_explicit(&cache->held_bytes, memory_order_relaxed);
	if (held <= bound)
		return false;
	const uint64_t reserve = reserve_bytes(shard), most = reserve_most(cache);
	return held - bound > (reserve < most ? reserve : most);
}

/* Gives dead memory back that is not written again soon: whole mappings, more than one segment of a kind, places. */
static bool give_dead(struct cache *cache, struct shard *shard)
{
	struct arena *arena = &shard->arena;

	if (arena_trim_whole(arena))
		return true;
	if (arena->kept_count[SEGMENT_ENTRIES] > 1 || arena->kept_count[SEGMENT_EXTENTS] > 1 ||
	    (reserve_bytes(shard) > reserve_most(cache) && arena->kept_count[SEGMENT_ENTRIES] > 0))
		return arena_purge_kept(arena) > 0;
	return reserve_bytes(shard) > reserve_most(cache) && reuse_give_back(shard);
}

bool shard_is_over(struct cache *cache, struct shard *shard)
{
	while (is_over(cache, shard))
		if (!give_dead(cache, shard))
			return true;
	return false;
}

/*
 * The segment of entries to be emptied next. *sparse: little of it lives. NULL: there are no entries, or the heads are all there
 * is for the third time in a row.
 */
static struct segment *choose(struct shard *shard, bool *sparse, unsigned *rounds)
{
	struct segment *oldest = NULL, *emptiest = NULL, *head = NULL;

	for (struct segment *segment = arena_next(&shard->arena, NULL); segment;
	     segment = arena_next(&shard->arena, segment)) {
		if (segment->kind != SEGMENT_ENTRIES || segment->used == 0)
			continue;
		if (segment->state != SEGMENT_SEALED) {
			head = head ? head : segment;
			continue;
		}
		oldest = oldest ? oldest : segment;
		if (!emptiest || segment->used - segment->live_bytes > emptiest->used - emptiest->live_bytes)
			emptiest = segment;
	}
	*sparse = emptiest && emptiest->live_bytes < emptiest->used / SPARSE_SHARE;
	if (*sparse)
		return emptiest;
	if (!oldest && head && (*rounds)++ < ROUNDS_MOST) {
		arena_seal(&shard->arena, head);
		oldest = head;
	}
	return oldest;
}

/* A step in emptying a segment. False: there is nothing more to be had; what is left is counted, and not found. */
static bool evict_some(struct cache *cache, struct shard *shard, unsigned *rounds)
{
	struct segment *segment = arena_find(&shard->arena, shard->evicting_serial);

	if (!segment) {
		segment = choose(shard, &shard->evicting_sparse, rounds);
		if (!segment)
			return false;
		shard->evicting_serial = segment->serial;
	}
	shard_clean_entries(cache, shard, segment, shard->evicting_sparse ? CLEAN_COMPACT : CLEAN_EVICT);
	return true;
}

void shard_evict(struct cache *cache, struct shard *shard, uint64_t newest_place)
{
	unsigned rounds = 0;

	if (cache->config.max_bytes == 0 || !shard_is_over(cache, shard))
		return;
	const uint64_t now_ns = cache_now_ns(cache);
	shard_audit(cache, shard, AUDITS_AT_ONCE);
	shard->newest_place = newest_place;
	while (shard_is_over(cache, shard) && (expiry_step(cache, shard, now_ns) || evict_some(cache, shard, &rounds)))
		;
	if (shard_is_over(cache, shard))
		shard->audit_due = AUDIT_DUE; /* something is held that nothing leads to */
	shard->newest_place = 0;
}
