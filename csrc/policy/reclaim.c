/*
 * policy/reclaim.c - memory is given back before it is asked for, while others take it fast. See policy/reclaim.h for the calls.
 *
 *   usage  |##### ordinary memory ##### -> |........ caches ........|  limit       calm: nothing is free, and need not be
 *          |##### ordinary memory ######### ->|..... caches ..|free |              a wave: what comes next is free already
 *
 * The kernel's reclaim takes what is needed, inside the allocation that needs it, 32 pages at a time; and each time it
 * interrupts the processors that the cache runs on, to flush their translations. Beside a busy cache an allocation at full
 * speed is two to four times as slow as in free memory. The cache itself gives memory back and interrupts nobody.
 * So calls that come along look now and then whether this process loses pages; if it does, and ordinary memory of the group
 * grows faster than SLOWEST_BYTES_PER_MS, so much is given back as grows in AHEAD_NS. What grows more slowly, and what no
 * call sees, is reclaim's: it knows better what is cold.
 *
 * What goes is what was not asked for since the hand came by last (CLOCK, by page or value, over all caches of the
 * process). To the cache it is as if the kernel had dropped it: found out later, by the same witnesses.
 *
 * The growth of page cache is no wave: reclaim would take it before it takes pages in use.
 *
 * One state for the process, as its memory is one; under the registry's lock, which is only tried here.
 */
#include "policy/cleaner.h"
#include "policy/reclaim.h"

#include <stdlib.h>
#include <string.h>

#include "store/registry.h"
#include "store/internal.h"
#include "store/move.h"

enum {
	CALM_LOOK_NS = 1000000,
	WAVE_LOOK_NS = 300000,
	LONGEST_NS = 100000000,    /* between two readings of the limit and of who sets it */
	WINDOW_NS = 8000000,       /* growth is told from one reading to the next, at most that much later */
	LEAST_WINDOW_NS = 2000000,
	LEAST_GROWTH_BYTES = 1 << 20, /* that no reading is wrong by */
	SLOWEST_BYTES_PER_MS = 128 << 10,
	AHEAD_NS = 4000000,
	AHEAD_SHARE = 8,           /* of the limit at most */
	FREE_SHARE = 16,           /* of the limit: while more is free, nobody loses pages */
	BYTES_PER_NS = 4,
	STEP_BYTES = 4 << 20,      /* given back by one call, */
	STEP_NS = 200000,          /* which takes no longer, */
	STEP_LOCKS = 256,
	LOCKED_BYTES = 256 << 10,  /* given back, */
	LOCKED_SEGMENTS = 4,       /* and looked at, under one lock */
};

static struct {
	struct prim_headroom room; /* as last read */
	uint64_t limit_read_ns;
	uint64_t grown_from_ns; /* when ordinary memory was */
	int64_t grown_from_bytes;
	uint64_t resident_bytes; /* of this process, when it last lost nothing */
	uint64_t bytes_per_ms;   /* ordinary memory grows by; 0: calm */
	size_t turn;             /* which shard of which cache gives next */
	bool suspicious;         /* pages went: the next look tells why */
	_Atomic uint64_t next_look_ns;
} yield;

/* Gives a range of pages back; how many of them were there. */
static size_t purge_unused(struct segment *segment, size_t first, size_t end, const unsigned char *states)
{
	const size_t page = prim_page_size();
	size_t given = 0;

	for (size_t i = first; i < end; i++)
		given += states[i] == PRIM_RESIDENT;
	if (given == 0 || prim_purge(segment->base + first * page, (end - first) * page) != DRP_OK)
		return 0;
	return given;
}

/* Pages of entries: each for itself. */
static size_t reclaim_entries(struct segment *segment, const unsigned char *states, size_t pages)
{
	size_t given = 0, first = 0;

	for (size_t i = 0; i <= pages; i++) {
		if (i < pages && !segment_is_referenced(segment, i))
			continue;
		if (i > first)
			given += purge_unused(segment, first, i, states);
		first = i + 1;
	}
	return given;
}

/* Values of some pages each, behind their directory: all of one, or nothing. */
static size_t reclaim_extents(struct segment *segment, const unsigned char *states, size_t pages)
{
	const struct arena_extent *directory = arena_directory(segment);
	const size_t page = prim_page_size();
	const uint32_t stamp = arena_stamp(segment->number);
	size_t given = 0, first = SIZE_MAX;

	for (uint32_t i = 0; i < segment->extents; i++) {
		const bool told = states[i * sizeof(*directory) / page] == PRIM_RESIDENT && directory[i].stamp == stamp &&
				  directory[i].page < pages;
		const bool goes = told && !segment_is_referenced(segment, directory[i].page);
		if (goes && first == SIZE_MAX)
			first = directory[i].page;
		if (told && !goes && first != SIZE_MAX && first < directory[i].page) {
			given += purge_unused(segment, first, directory[i].page, states);
			first = SIZE_MAX;
		}
	}
	if (first != SIZE_MAX)
		given += purge_unused(segment, first, pages, states);
	return given;
}

/* Looks at one segment that nobody uses; the bytes that it gave. */
static size_t reclaim_segment(struct shard *shard, struct segment *segment)
{
	const size_t page = prim_page_size();
	size_t pages = (segment->used + page - 1) / page, given = 0;
	struct prim_census census;

	/* Of a very large value the beginning: with that it is lost, and the rest goes when its segment is counted. */
	if (segment->kind == SEGMENT_WHOLE && pages > STEP_BYTES / page)
		pages = STEP_BYTES / page;

	/* Few entries that stand for many pages: they must outlive them. */
	if (segment->kind == SEGMENT_ENTRIES && shard_is_extent_backed(shard))
		return 0;
	unsigned char *states = malloc(pages);
	if (!states || prim_census(segment->base, pages * page, states, &census) != DRP_OK)
		goto out;
	if (census.resident_pages > 0) {
		if (segment->kind == SEGMENT_ENTRIES)
			given = reclaim_entries(segment, states, pages);
		else if (segment->kind == SEGMENT_EXTENTS)
			given = reclaim_extents(segment, states, pages);
		else if (!segment_is_referenced(segment, 0))
			given = purge_unused(segment, 0, pages, states);
	}
	for (size_t i = segment_words(segment->kind, segment->length); i-- > 0;)
		segment->pages[i].referenced = 0;
	if (given > 0) {
		admission_note_dropped(shard, given * page);
		arena_note_purged(&shard->arena, segment, given);
		shard->counts.yielded_bytes += given * page;
	}
out:
	free(states);
	return given * page;
}

/* What is dead first; then from where the hand of this shard stands. */
static size_t reclaim_shard(struct shard *shard)
{
	struct segment *segment = arena_find(&shard->arena, shard->reclaim_serial);
	size_t given = 0, dead;

	while (given < LOCKED_BYTES && (dead = arena_purge_kept(&shard->arena)) > 0)
		given += dead;
	for (int looked = 0; given < LOCKED_BYTES && looked < LOCKED_SEGMENTS; looked++) {
		if (!segment)
			segment = arena_next(&shard->arena, NULL);
		if (!segment)
			break;
		struct segment *next = arena_next(&shard->arena, segment);
		if (segment->state == SEGMENT_SEALED && segment->users == 0)
			given += reclaim_segment(shard, segment);
		segment = next;
	}
	shard->reclaim_serial = segment ? segment->serial : 0;
	return given;
}

static struct shard *shard_at(struct cache *first, size_t turn)
{
	for (struct cache *cache = first; cache; cache = cache->registry_next) {
		if (turn < cache->shard_count)
			return &cache->shards[turn];
		turn -= cache->shard_count;
	}
	return NULL;
}

static uint64_t give(struct cache *first, uint64_t wanted_bytes, uint64_t now_ns)
{
	size_t shards = 0;
	uint64_t given = 0;

	for (struct cache *cache = first; cache; cache = cache->registry_next)
		shards += cache->shard_count;
	if (shards == 0)
		return 0;
	for (int locks = 0; given < wanted_bytes && locks < STEP_LOCKS && prim_now_ns() - now_ns < STEP_NS; locks++) {
		struct shard *shard = shard_at(first, yield.turn++ % shards);
		if (pthread_mutex_trylock(&shard->lock) != 0)
			continue;
		if (!shard->closed)
			given += reclaim_shard(shard);
		shard_unlock(shard);
	}
	return given;
}

static int64_t ordinary_bytes(void)
{
	return (int64_t)yield.room.usage_bytes - (int64_t)yield.room.reclaimable_bytes;
}

static uint64_t free_bytes(void)
{
	return yield.room.usage_bytes < yield.room.limit_bytes ? yield.room.limit_bytes - yield.room.usage_bytes : 0;
}

static void start_from(uint64_t now_ns)
{
	yield.grown_from_ns = now_ns;
	yield.grown_from_bytes = ordinary_bytes();
}

/* Growth is measured from here on; nothing is known of a wave. */
static void be_calm(uint64_t now_ns)
{
	yield.bytes_per_ms = 0;
	yield.suspicious = false;
	start_from(now_ns);
}

/*
 * Reads the limit and whose it is. A wave was one of the group that was read then: where there is no group any more, or
 * another one, it is over.
 */
static bool read_limit(uint64_t now_ns)
{
	struct prim_headroom room;

	if (prim_headroom(&room) != DRP_OK || room.group[0] == 0) {
		be_calm(now_ns);
		yield.limit_read_ns = 0;
		return false; /* of the whole machine kswapd keeps some memory free */
	}
	const bool same = yield.limit_read_ns != 0 && strcmp(room.group, yield.room.group) == 0;
	yield.room = room;
	yield.limit_read_ns = now_ns;
	if (!same)
		be_calm(now_ns);
	return true;
}

/* How fast does ordinary memory grow? */
static void measure_growth(uint64_t now_ns)
{
	const uint64_t took_ns = now_ns - yield.grown_from_ns;
	const int64_t grown = ordinary_bytes() - yield.grown_from_bytes;

	if (grown >= LEAST_GROWTH_BYTES && took_ns > 0) {
		yield.bytes_per_ms = (uint64_t)grown * 1000000 / took_ns;
		if (took_ns >= LEAST_WINDOW_NS)
			start_from(now_ns);
	} else if (took_ns >= WINDOW_NS || grown < -LEAST_GROWTH_BYTES) {
		be_calm(now_ns);
	}
	if (yield.bytes_per_ms < SLOWEST_BYTES_PER_MS)
		yield.bytes_per_ms = 0;
}

/* Is it calm? Then one number is read, that of this process's pages. Nanoseconds until the next look. */
static uint64_t look_for_loss(uint64_t now_ns)
{
	uint64_t resident_bytes;

	if (free_bytes() > yield.room.limit_bytes / FREE_SHARE) {
		const uint64_t until_ns = free_bytes() / BYTES_PER_NS;
		if (prim_headroom_again(&yield.room) != DRP_OK)
			yield.limit_read_ns = 0;
		start_from(now_ns);
		if (prim_resident(&yield.resident_bytes) != DRP_OK)
			return LONGEST_NS;
		return until_ns < CALM_LOOK_NS ? CALM_LOOK_NS : until_ns < LONGEST_NS ? until_ns : LONGEST_NS;
	}
	if (prim_resident(&resident_bytes) != DRP_OK)
		return LONGEST_NS;
	if (resident_bytes + LEAST_GROWTH_BYTES / 2 < yield.resident_bytes) {
		if (prim_headroom_again(&yield.room) == DRP_OK) {
			yield.suspicious = true;
			start_from(now_ns);
		}
		yield.resident_bytes = resident_bytes;
		return CALM_LOOK_NS;
	}
	if (resident_bytes > yield.resident_bytes)
		yield.resident_bytes = resident_bytes;
	return CALM_LOOK_NS;
}

static uint64_t look(struct cache *first, uint64_t now_ns)
{
	if ((yield.limit_read_ns == 0 || now_ns - yield.limit_read_ns > LONGEST_NS) && !read_limit(now_ns))
		return LONGEST_NS;
	if (!yield.suspicious)
		return look_for_loss(now_ns);
	if (prim_headroom_again(&yield.room) != DRP_OK) {
		be_calm(now_ns);
		yield.limit_read_ns = 0;
		return LONGEST_NS;
	}
	measure_growth(now_ns);
	uint64_t wanted = yield.bytes_per_ms * (AHEAD_NS / 1000000);
	if (wanted > yield.room.limit_bytes / AHEAD_SHARE)
		wanted = yield.room.limit_bytes / AHEAD_SHARE;
	if (wanted > free_bytes()) {
		wanted -= free_bytes();
		const uint64_t step = wanted < STEP_BYTES ? wanted : STEP_BYTES;
		if (give(first, step, now_ns) > 0 && wanted > step)
			return 0; /* the next call goes on */
	}
	if (prim_resident(&yield.resident_bytes) != DRP_OK)
		return LONGEST_NS;
	return yield.bytes_per_ms > 0 ? WAVE_LOOK_NS : CALM_LOOK_NS; /* who loses pages to page cache need not look that often */
}

void cache_reclaim(void)
{
	const uint64_t now_ns = prim_now_ns();
	struct cache *first;

	if (now_ns < atomic_load_explicit(&yield.next_look_ns, memory_order_relaxed) || !registry_try_lock(&first))
		return;
	atomic_store_explicit(&yield.next_look_ns, now_ns + look(first, now_ns), memory_order_relaxed);
	registry_unlock();
}

uint64_t cache_reclaim_once(void)
{
	cache_reclaim();
	const uint64_t now_ns = prim_now_ns(), next_ns = atomic_load_explicit(&yield.next_look_ns, memory_order_relaxed);

	return next_ns > now_ns ? next_ns - now_ns : 0;
}

uint64_t cache_give_back(uint64_t bytes)
{
	struct cache *first;

	if (!registry_try_lock(&first))
		return 0;
	const uint64_t given = give(first, bytes, prim_now_ns());
	registry_unlock();
	return given;
}
