/*
 * policy/expire.c - what expired leaves, asked for or not, before anything that lives has to.
 *
 *   head of entries that live   for ever | < 4 s | < 1 min | < 17 min | < 4.5 h | longer
 *
 *   segment of one of those     [ e . e e . . e ]   first: 12:01, last: 12:05
 *                                 12:05 and later   the last has expired: it goes whole, unread
 *                                 12:02 to 12:05    some may have: it is gone through, in steps
 *
 * Entries that live about as long lie together, so that a segment's last entry expires not long after its first, and the
 * memory of short-lived ones is written again and again, beside what stays. (The classes are those of Segcache: Yang, Yue
 * and Vinayak, NSDI 2021.)
 *
 * Nothing runs by itself: calls that come along look at the clock, ten times a second at most. What can go whole goes then.
 * To go through a segment that lives on in part takes time, so that is done for a small share of the time at most,
 * the one that waited longest first. A cache that is seldom asked takes longer for it when it is asked.
 */
#include "policy/expire.h"

#include "store/clock.h"
#include "store/internal.h"
#include "store/move.h"
#include "policy/cleaner.h"

enum {
	LOOK_NS = 100000000,
	BUSY_LOOK_NS = 10000000, /* where somebody was in a shard */
	REST_FACTOR = 64,        /* of the time that going through those took */
	CALL_NS_MOST = 10000000,
	SHRINK_STEPS = 8,        /* of the index, for each step here */
	IDLE_SHARE = 16,         /* of the time since the last look a call may take, if that is more than it is told */
};

/* Unread, if it is known how many that are. */
static bool goes_whole(struct shard *shard, const struct segment *segment, uint64_t now_ns)
{
	return segment->expires_last_ns <= now_ns && !segment->has_extents && shard_knows_whose(shard, segment);
}

void expiry_note_live(struct shard *shard, uint64_t expires_ns)
{
	if (shard->expiry.first_ns > expires_ns)
		shard->expiry.first_ns = expires_ns;
	if (shard->expiry.last_ns < expires_ns)
		shard->expiry.last_ns = expires_ns;
}

/* When it may be looked at: one of which a part lives on not while that is to rest. */
static uint64_t turn_of(const struct shard *shard, const struct segment *segment, uint64_t now_ns)
{
	const uint64_t due_ns = expiry_due_of(segment), rest_ns = shard->expiry.rest_until_ns;

	return segment->expires_last_ns > now_ns && due_ns < rest_ns ? rest_ns : due_ns;
}

/* What goes whole, else what has waited longest. NULL: none is due. */
static struct segment *choose(struct shard *shard, uint64_t now_ns)
{
	struct segment *first = NULL;
	uint64_t first_ns = UINT64_MAX;

	for (struct segment *segment = arena_next(&shard->arena, NULL); segment;
	     segment = arena_next(&shard->arena, segment)) {
		if (segment->kind != SEGMENT_ENTRIES || segment->expires_last_ns == 0)
			continue;
		if (goes_whole(shard, segment, now_ns))
			return segment;
		const uint64_t turn_ns = turn_of(shard, segment, now_ns);
		if (turn_ns < first_ns) {
			first_ns = turn_ns;
			first = segment;
		}
	}
	if (first_ns <= now_ns)
		return first;
	expiry_set_due(shard, first_ns);
	return NULL;
}

/* Goes through a part of a segment. */
static void go_through(struct cache *cache, struct shard *shard, struct segment *segment, uint64_t now_ns)
{
	struct expiry *expiry = &shard->expiry;
	const bool lives_on = segment->expires_last_ns > now_ns;
	const uint64_t began_ns = prim_now_ns();

	if (expiry->serial != segment->serial) {
		expiry->serial = segment->serial;
		expiry->cleaned = 0;
		expiry->first_ns = UINT64_MAX;
		expiry->last_ns = 0;
	}
	const bool done = shard_clean_expired(cache, shard, segment, &expiry->cleaned);
	if (lives_on)
		expiry->rest_until_ns = now_ns + REST_FACTOR * (prim_now_ns() - began_ns);
	if (!done)
		return; /* or its last entry left, and it went with it */
	expiry->serial = 0;
	segment->expires_first_ns = expiry->first_ns;
	segment->expires_last_ns = expiry->last_ns;
	if (expiry->last_ns == 0)
		shard_retire(cache, shard, segment);
}

bool expiry_step(struct cache *cache, struct shard *shard, uint64_t now_ns)
{
	if (atomic_load_explicit(&shard->expiry.due_ns, memory_order_relaxed) > now_ns)
		return false;
	struct segment *segment = choose(shard, now_ns);
	if (!segment)
		return false;
	if (!goes_whole(shard, segment, now_ns)) {
		go_through(cache, shard, segment, now_ns);
	} else {
		shard_retire_expired(cache, shard, segment);
	}
	for (int i = 0; i < SHRINK_STEPS; i++)
		shard_shrink_index(shard);
	return true;
}

void expiry_look(struct cache *cache, uint64_t budget_ns)
{
	const uint64_t now_ns = cache_now_ns(cache);
	const uint64_t look_ns = atomic_load_explicit(&cache->expiry_look_ns, memory_order_relaxed);
	uint64_t next_ns = now_ns + LOOK_NS;

	if (now_ns < look_ns)
		return;
	const uint64_t idle_ns = look_ns > 0 ? (now_ns - look_ns) / IDLE_SHARE : 0, began_ns = prim_now_ns();
	if (budget_ns < idle_ns)
		budget_ns = idle_ns < CALL_NS_MOST ? idle_ns : CALL_NS_MOST;
	for (unsigned i = 0; i < cache->shard_count; i++) {
		struct shard *shard = &cache->shards[i];
		for (bool more = true; more && next_ns > now_ns;) {
			if (atomic_load_explicit(&shard->expiry.due_ns, memory_order_relaxed) > now_ns)
				break;
			if (pthread_mutex_trylock(&shard->lock) != 0) {
				next_ns = now_ns + BUSY_LOOK_NS;
				break;
			}
			more = expiry_step(cache, shard, now_ns);
			shard_unlock(shard);
			if (more && prim_now_ns() - began_ns >= budget_ns)
				next_ns = now_ns; /* the next call goes on */
		}
	}
	atomic_store_explicit(&cache->expiry_look_ns, next_ns, memory_order_relaxed);
}
