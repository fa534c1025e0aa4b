/*
 * cache_room.c - an insert is never the allocation that meets the OOM killer.
 *
 * While anything can be dropped, an allocation near the limit drops it and succeeds. When nothing is left, the next page
 * of anybody calls the OOM killer. So an insert asks for room first: what the limit leaves, plus what reclaim can take
 * (this cache's own clean pages among it), less a margin for everybody else.
 *
 * Reading that costs tens of microseconds, so one reading serves until it could be out of date: others allocate at most
 * a few GB/s, so while room bytes are left, the reading holds for about room / 4 GB/s; and inserts use it up themselves.
 */
#include "cache_room.h"

#include "cache_internal.h"
#include "cache_window.h"

enum {
	MARGIN_SHARE = 64,      /* of the limit stay untouched, and at least MARGIN_BYTES, at most a quarter */
	MARGIN_BYTES = 1 << 20,
	BYTES_PER_NS = 4,       /* twice the rate at which this machine's kernel hands out new pages to one thread */
	SHORTEST_NS = 500000,
	LONGEST_NS = 100000000,
	SPAN_FACTOR = 4,        /* address space for one byte of the limit: dead values keep some until they are found */
	SPAN_MAX_32_BYTES = 512 << 20, /* of the 2 to 4 GiB that a 32-bit program has for everything */
	USE_SHARE = 4,          /* of the room may be used up by inserts before it is read again */
	PLENTY_BYTES = 64 << 20,
	SHARD_TAKES_BYTES = 64 << 10,
};

static void read_room(struct cache *cache, uint64_t now_ns)
{
	struct prim_headroom headroom = {.limit_bytes = UINT64_MAX};
	int64_t room;

	if (prim_headroom(&headroom) != DRP_OK || headroom.limit_bytes == UINT64_MAX) {
		room = INT64_MAX / 2;
	} else {
		uint64_t margin = headroom.limit_bytes / MARGIN_SHARE;
		if (margin < MARGIN_BYTES)
			margin = MARGIN_BYTES;
		if (margin > headroom.limit_bytes / 4)
			margin = headroom.limit_bytes / 4;
		room = (int64_t)headroom.limit_bytes - (int64_t)headroom.usage_bytes +
		       (int64_t)headroom.reclaimable_bytes - (int64_t)margin;
		uint64_t span = headroom.limit_bytes * SPAN_FACTOR;
		if (sizeof(void *) == 4 && span > SPAN_MAX_32_BYTES)
			span = SPAN_MAX_32_BYTES;
		if (cache->config.span_bytes == 0) /* follows the limit as it changes */
			atomic_store_explicit(&cache->span_bytes, span / cache->shard_count, memory_order_relaxed);
	}
	atomic_store_explicit(&cache->memory_is_free, headroom.limit_bytes != UINT64_MAX && headroom.is_free,
			      memory_order_relaxed);
	window_set_room(headroom.limit_bytes, room);
	uint64_t valid_ns = room < 0 ? 0 : (uint64_t)room / BYTES_PER_NS;
	if (valid_ns < SHORTEST_NS)
		valid_ns = SHORTEST_NS;
	if (valid_ns > LONGEST_NS)
		valid_ns = LONGEST_NS;
	atomic_store_explicit(&cache->room_bytes, room < 0 ? 0 : room, memory_order_relaxed);
	atomic_store_explicit(&cache->room_to_use_bytes, room < 0 ? 0 : room / USE_SHARE, memory_order_relaxed);
	atomic_store_explicit(&cache->room_until_ns, now_ns + valid_ns, memory_order_relaxed);
}

static bool is_out_of_date(struct cache *cache, uint64_t *now_ns)
{
	uint64_t until_ns = atomic_load_explicit(&cache->room_until_ns, memory_order_relaxed);

	/* The coarse clock is some milliseconds behind at most: near the end of a reading the exact one decides. */
	*now_ns = prim_now_coarse_ns();
	if (*now_ns + LONGEST_NS / 10 >= until_ns)
		*now_ns = prim_now_ns();
	return *now_ns >= until_ns;
}

void cache_watch_room(struct cache *cache)
{
	uint64_t now_ns;

	if (window_bytes() == 0) {
		/*
		 * Nothing rests. If that is because memory was short, somebody has to see the end of it, or a program that
		 * only reads would pay for each of its pins for ever: so it is looked at again, ten times a second at most.
		 */
		if (atomic_load_explicit(&cache->memory_is_free, memory_order_relaxed) || !is_out_of_date(cache, &now_ns) ||
		    now_ns < atomic_load_explicit(&cache->room_until_ns, memory_order_relaxed) + LONGEST_NS)
			return;
		read_room(cache, now_ns);
		return;
	}
	if (is_out_of_date(cache, &now_ns))
		read_room(cache, now_ns);
	window_trim();
}

/*
 * Uses up what an insert takes. Where there is plenty a shard takes much at once, and inserts of two shards write nothing in
 * common; what it has left of an older reading is worth nothing.
 */
static void use_room(struct cache *cache, struct shard *shard, int64_t bytes)
{
	const uint64_t until_ns = atomic_load_explicit(&cache->room_until_ns, memory_order_relaxed);

	if (atomic_load_explicit(&shard->room_of_ns, memory_order_relaxed) == until_ns &&
	    atomic_fetch_sub_explicit(&shard->room_to_use_bytes, bytes, memory_order_relaxed) >= bytes)
		return;
	const bool plenty = atomic_load_explicit(&cache->room_to_use_bytes, memory_order_relaxed) >= PLENTY_BYTES;
	const int64_t taken = plenty && bytes < SHARD_TAKES_BYTES ? SHARD_TAKES_BYTES : bytes;
	atomic_fetch_sub_explicit(&cache->room_to_use_bytes, taken, memory_order_relaxed);
	atomic_store_explicit(&shard->room_to_use_bytes, taken - bytes, memory_order_relaxed);
	atomic_store_explicit(&shard->room_of_ns, until_ns, memory_order_relaxed);
}

static bool has_room(struct cache *cache, struct shard *shard, size_t bytes)
{
	const int64_t wanted = (int64_t)bytes;
	uint64_t now_ns;
	bool out_of_date = is_out_of_date(cache, &now_ns);

	if (!out_of_date && atomic_load_explicit(&cache->room_bytes, memory_order_relaxed) < wanted)
		return false; /* read a moment ago: it will not have changed */
	if (out_of_date || atomic_load_explicit(&cache->room_to_use_bytes, memory_order_relaxed) < wanted)
		read_room(cache, now_ns);
	use_room(cache, shard, wanted);
	return atomic_load_explicit(&cache->room_bytes, memory_order_relaxed) >= wanted;
}

bool cache_room_is_known(struct cache *cache, struct shard *shard, size_t bytes)
{
	use_room(cache, shard, (int64_t)bytes);
	return atomic_load_explicit(&cache->room_bytes, memory_order_relaxed) >= (int64_t)bytes;
}

bool cache_has_room(struct cache *cache, struct shard *shard, size_t bytes)
{
	bool there = has_room(cache, shard, bytes);

	if (window_bytes() == 0)
		return there;
	if (!there && window_release()) { /* what rested can be dropped now */
		atomic_store_explicit(&cache->room_until_ns, 0, memory_order_relaxed);
		return has_room(cache, shard, bytes);
	}
	window_trim();
	return there;
}
