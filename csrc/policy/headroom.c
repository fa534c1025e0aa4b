/*
 * policy/headroom.c - no call of the cache is the allocation that meets the OOM killer.
 *
 * While anything can be dropped, an allocation near the limit drops it and succeeds. When nothing is left, the next page
 * of anybody calls the OOM killer. So an insert asks for room first: what the limit leaves, plus what reclaim can take
 * (this cache's own clean pages among it), less a margin for everybody else. So does a get of a large value, whose copy is
 * memory of the caller, or which is pinned and cannot be reclaimed then.
 *
 *   limit |........ usage ........|  free  |      room = free + reclaimable - margin - what others were promised
 *         |  ordinary  |reclaimable|
 *
 * Reading that costs tens of microseconds, so one reading serves until it could be out of date: others allocate at most
 * a few GB/s, so while room bytes are left, the reading holds for about room / 4 GB/s; and inserts use it up themselves.
 * What is large is promised until it is written, so that several threads do not all count on the same room.
 *
 * memory.high slows down instead of killing. It is a limit like others; but where usage is not above it by more than a
 * SLOW_SHARE, a trickle is let in: there the kernel makes room by other means, such as swap, which no figure tells.
 *
 * A limit that cannot be read is not taken for none. The last one that was read counts (LEAST_LIMIT_BYTES, if there was none),
 * and nothing is known of usage but this: what the cache itself has that is clean and resident can be reclaimed. So much may
 * be inserted, and all of it is marked for that. To begin with it is BEGIN_BYTES, or a share of what was left at the last reading
 * if that is less; more is given little by little, up to BEGIN_BYTES. A value on pages of its own asks for a step of it, for what
 * was written of it is clean but for that.
 */
#include "policy/headroom.h"

#include "store/internal.h"
#include "policy/unpin.h"
#include "store/deferred.h"
#include "os/drp_assert.h"
#include "log/witness.h"

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
	SLOW_SHARE = 64,
	SLOW_TRICKLE_BYTES = 256 << 10,
	LEAST_LIMIT_BYTES = 64 << 20,
	BEGIN_BYTES = 4 << 20,
	BEGIN_SHARE = 4,
	BEGIN_AGAIN_BYTES = 256 << 10, /* a second */
	SECOND_NS = 1000000000,
	COUNTED_SEGMENTS = 8,   /* of a part of a shard, the newest, */
	COUNTED_BYTES = 32 << 20, /* and about so much of them */
};

/* Of the process, as its memory is one. Each for itself: who reads an older one is off by a moment. */
static struct {
	_Atomic uint64_t limit_bytes;  /* as last read whole; 0: never */
	_Atomic int64_t begin_bytes;   /* may be inserted on no more than hope, while the limit cannot be read */
	_Atomic uint64_t begin_at_ns;  /* when some were last given */
	_Atomic int64_t promised_bytes; /* to calls that are about to allocate them */
	_Atomic bool is_unread;         /* the last reading was not whole */
} process = {.begin_bytes = BEGIN_BYTES};

uint64_t cache_limit_bytes(const struct prim_headroom *headroom)
{
	if (headroom->unread == PRIM_READ_ALL) {
		atomic_store_explicit(&process.limit_bytes, headroom->limit_bytes, memory_order_relaxed);
		return headroom->limit_bytes;
	}
	uint64_t limit = atomic_load_explicit(&process.limit_bytes, memory_order_relaxed);
	if (limit == 0)
		limit = LEAST_LIMIT_BYTES;
	return limit < headroom->limit_bytes ? limit : headroom->limit_bytes;
}

static int64_t margin_of(uint64_t limit_bytes)
{
	uint64_t margin = limit_bytes / MARGIN_SHARE;

	if (margin < MARGIN_BYTES)
		margin = MARGIN_BYTES;
	if (margin > limit_bytes / 4)
		margin = limit_bytes / 4;
	return (int64_t)margin;
}

/* What the figures that could be read leave. */
static int64_t room_by_reading(const struct prim_headroom *headroom)
{
	if (headroom->limit_bytes == UINT64_MAX)
		return INT64_MAX / 2;
	const int64_t margin = margin_of(headroom->limit_bytes);
	int64_t room = (int64_t)headroom->limit_bytes - (int64_t)headroom->usage_bytes +
		       (int64_t)headroom->reclaimable_bytes - margin;
	if (headroom->slows && room < SLOW_TRICKLE_BYTES &&
	    headroom->usage_bytes <= headroom->limit_bytes + headroom->limit_bytes / SLOW_SHARE) {
		room = SLOW_TRICKLE_BYTES;
		if (headroom->hard_left_bytes < INT64_MAX && (int64_t)headroom->hard_left_bytes - margin < room)
			room = (int64_t)headroom->hard_left_bytes - margin;
	}
	return room;
}

/* Where in a segment that nobody uses reclaim can take what is there, for it was marked. False: nowhere. */
static bool find_clean(const struct segment *segment, size_t *from, size_t *end)
{
	*from = 0;
	*end = witness_count(segment->used) * prim_page_size();
	if (segment->users > 0 || segment->dirty)
		return false;
	if (segment->state == SEGMENT_OPEN && segment->kind == SEGMENT_ENTRIES)
		*end = segment->marked;
	else if (segment->state == SEGMENT_OPEN) /* each value is marked when it is written, the directory later */
		*from = arena_directory_bytes(segment->length);
	if (*end - *from > COUNTED_BYTES)
		*end = *from + COUNTED_BYTES;
	return *end > *from;
}

/* Pages of the newest segments that are there and that reclaim can take; some of them, if they are many. */
static int64_t count_clean(struct shard *shard)
{
	struct segment *newest[ARENA_PARTS * COUNTED_SEGMENTS] = {NULL};
	unsigned seen[ARENA_PARTS] = {0};
	const size_t most = COUNTED_BYTES / prim_page_size();
	struct prim_census census;
	size_t pages = 0, looked = 0, from, end;

	for (struct segment *at = arena_next(&shard->arena, NULL); at; at = arena_next(&shard->arena, at))
		if (find_clean(at, &from, &end))
			newest[at->part * COUNTED_SEGMENTS + seen[at->part]++ % COUNTED_SEGMENTS] = at;
	for (size_t i = 0; i < sizeof(newest) / sizeof(newest[0]) && looked < most; i++) {
		if (!newest[i] || !find_clean(newest[i], &from, &end) ||
		    prim_census(newest[i]->base + from, end - from, NULL, &census) != DRP_OK)
			continue;
		pages += census.resident_pages;
		looked += census.pages;
	}
	return (int64_t)(pages * prim_page_size());
}

/* As much of the cache as can be made clean. */
static int64_t clean_bytes(struct cache *cache)
{
	int64_t bytes = 0;

	for (unsigned i = 0; i < cache->shard_count; i++) {
		struct shard *shard = &cache->shards[i];
		if (pthread_mutex_trylock(&shard->lock) != 0)
			continue; /* counted another time */
		if (!shard->closed) {
			shard_mark(shard, true); /* else a little in each of many shards would count for nothing */
			bytes += count_clean(shard);
		}
		pthread_mutex_unlock(&shard->lock);
	}
	return bytes;
}

/* Where not all could be read. The inserts since the last reading have used up what was given to begin with. */
static int64_t room_without_reading(struct cache *cache, uint64_t now_ns)
{
	const int64_t used = atomic_load_explicit(&cache->room_given_bytes, memory_order_relaxed) -
			     atomic_load_explicit(&cache->room_to_use_bytes, memory_order_relaxed);
	int64_t begin = atomic_load_explicit(&process.begin_bytes, memory_order_relaxed) - (used > 0 ? used : 0);

	if (begin < 0)
		begin = 0;
	if (now_ns - atomic_load_explicit(&process.begin_at_ns, memory_order_relaxed) >= SECOND_NS) {
		atomic_store_explicit(&process.begin_at_ns, now_ns, memory_order_relaxed);
		begin += BEGIN_AGAIN_BYTES;
	}
	if (begin > BEGIN_BYTES)
		begin = BEGIN_BYTES;
	atomic_store_explicit(&process.begin_bytes, begin, memory_order_relaxed);
	const int64_t clean = clean_bytes(cache) - MARGIN_BYTES;
	return clean > begin ? clean : begin;
}

/* What may be inserted at once if the next readings fail: later ones give as much as if there had been none. */
static void note_read(const struct prim_headroom *headroom, int64_t room, uint64_t now_ns)
{
	int64_t begin = room > 0 ? (room + margin_of(headroom->limit_bytes)) / BEGIN_SHARE : 0;

	if (begin > BEGIN_BYTES)
		begin = BEGIN_BYTES;
	atomic_store_explicit(&process.begin_bytes, begin, memory_order_relaxed);
	atomic_store_explicit(&process.begin_at_ns, now_ns, memory_order_relaxed);
}

static void read_room(struct cache *cache, uint64_t now_ns)
{
	struct prim_headroom headroom;

	prim_best_effort(prim_headroom(&headroom)); /* .unread tells what could not be read */
	int64_t room = room_by_reading(&headroom);
	atomic_store_explicit(&process.is_unread, headroom.unread != PRIM_READ_ALL, memory_order_relaxed);
	if (headroom.unread == PRIM_READ_ALL) {
		note_read(&headroom, room, now_ns);
	} else {
		const int64_t most = room_without_reading(cache, now_ns);
		if (most < room)
			room = most;
	}
	const uint64_t limit_bytes = cache_limit_bytes(&headroom);
	if (limit_bytes != UINT64_MAX && cache->config.span_bytes == 0) { /* follows the limit as it changes */
		uint64_t span = limit_bytes * SPAN_FACTOR;
		if (sizeof(void *) == 4 && span > SPAN_MAX_32_BYTES)
			span = SPAN_MAX_32_BYTES;
		atomic_store_explicit(&cache->span_bytes, span / cache->shard_count, memory_order_relaxed);
	}
	atomic_store_explicit(&cache->memory_is_free, headroom.limit_bytes != UINT64_MAX && headroom.is_free,
			      memory_order_relaxed);
	unpin_set_headroom(limit_bytes, room);
	uint64_t valid_ns = room < 0 ? 0 : (uint64_t)room / BYTES_PER_NS;
	if (valid_ns < SHORTEST_NS)
		valid_ns = SHORTEST_NS;
	if (valid_ns > LONGEST_NS)
		valid_ns = LONGEST_NS;
	atomic_store_explicit(&cache->room_bytes, room < 0 ? 0 : room, memory_order_relaxed);
	atomic_store_explicit(&cache->room_given_bytes, room < 0 ? 0 : room / USE_SHARE, memory_order_relaxed);
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

void cache_watch_headroom(struct cache *cache)
{
	uint64_t now_ns;

	if (deferred_bytes() == 0) {
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
	unpin_trim();
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

/* Of the room as it was read, what nobody was promised since. */
static int64_t room_left(struct cache *cache)
{
	return atomic_load_explicit(&cache->room_bytes, memory_order_relaxed) -
	       atomic_load_explicit(&process.promised_bytes, memory_order_relaxed);
}

/*
 * Of so many bytes, some of which were promised for a value: what is not droppable at one moment. A value is marked step by step
 * while it is written, so it is a step. Only where no limit can be read, for there clean memory is all that can be counted on,
 * and none would ever come to be for values that are larger than what may be inserted on hope.
 */
static int64_t wanted_bytes(size_t bytes, size_t promised_bytes)
{
	const size_t step = WITNESS_MARK_PAGES * prim_page_size();

	if (promised_bytes > step && atomic_load_explicit(&process.is_unread, memory_order_relaxed))
		bytes -= promised_bytes - step;
	return (int64_t)bytes;
}

static inline __attribute__((always_inline)) bool has_room(struct cache *cache, struct shard *shard, size_t bytes, size_t promised_bytes)
{
	int64_t wanted = wanted_bytes(bytes, promised_bytes);
	uint64_t now_ns;
	bool out_of_date = is_out_of_date(cache, &now_ns);

	if (!out_of_date && atomic_load_explicit(&cache->room_bytes, memory_order_relaxed) < wanted)
		return false; /* read a moment ago: it will not have changed */
	if (out_of_date || atomic_load_explicit(&cache->room_to_use_bytes, memory_order_relaxed) < wanted) {
		read_room(cache, now_ns);
		wanted = wanted_bytes(bytes, promised_bytes);
	}
	if (room_left(cache) + (int64_t)promised_bytes < wanted)
		return false;
	use_room(cache, shard, wanted);
	return true;
}

/* A second time is rare, and not a part of its caller. */
static __attribute__((noinline)) bool has_room_now(struct cache *cache, struct shard *shard, size_t bytes, size_t promised_bytes)
{
	return has_room(cache, shard, bytes, promised_bytes);
}

bool cache_headroom_is_known(struct cache *cache, struct shard *shard, size_t bytes)
{
	use_room(cache, shard, (int64_t)bytes);
	return room_left(cache) >= (int64_t)bytes;
}

bool cache_headroom_is_fresh(struct cache *cache, struct shard *shard, size_t bytes)
{
	uint64_t now_ns;

	return !is_out_of_date(cache, &now_ns) &&
	       atomic_load_explicit(&cache->room_to_use_bytes, memory_order_relaxed) >= (int64_t)bytes &&
	       cache_headroom_is_known(cache, shard, bytes);
}

bool cache_has_headroom(struct cache *cache, struct shard *shard, size_t bytes, size_t promised_bytes)
{
	bool there = has_room(cache, shard, bytes, promised_bytes);

	if (deferred_bytes() == 0)
		return there;
	if (!there && unpin_all()) { /* what was deferred can be dropped now */
		atomic_store_explicit(&cache->room_until_ns, 0, memory_order_relaxed);
		return has_room_now(cache, shard, bytes, promised_bytes);
	}
	unpin_trim();
	return there;
}

void cache_promise_headroom(size_t bytes)
{
	atomic_fetch_add_explicit(&process.promised_bytes, (int64_t)bytes, memory_order_relaxed);
}

void cache_promise_kept(struct cache *cache, size_t bytes, bool used)
{
	if (used) /* once more: a reading since it was promised may not have what was written after it */
		atomic_fetch_sub_explicit(&cache->room_to_use_bytes, (int64_t)bytes, memory_order_relaxed);
	const int64_t before = atomic_fetch_sub_explicit(&process.promised_bytes, (int64_t)bytes, memory_order_relaxed);
	DRP_ASSERT(before >= (int64_t)bytes);
}

void cache_promise_stored(struct cache *cache, size_t bytes)
{
	const bool is_unread = atomic_load_explicit(&process.is_unread, memory_order_relaxed);

	if (is_unread) /* it is clean now, and what it took for a moment is there for the next one */
		atomic_fetch_add_explicit(&cache->room_to_use_bytes, wanted_bytes(bytes, bytes), memory_order_relaxed);
	cache_promise_kept(cache, bytes, !is_unread);
}

void cache_headroom_in_child(void)
{
	atomic_store_explicit(&process.promised_bytes, 0, memory_order_relaxed);
}
