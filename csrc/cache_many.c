/*
 * cache_many.c - see cache_many.h.
 *
 * Of a single look-up most of the time is waiting for memory, twice: for a bucket of the index, then for the entry. Here all
 * buckets of a shard's keys are asked for first, then all entries, so that the waits are one.
 */
#include "cache_many.h"

#include "cache_cost.h"
#include "cache_fresh.h"
#include "cache_room.h"
#include "cache_yield.h"
#include "drp_assert.h"
#include "hash.h"

enum { LOCK_BYTES = 32 * 1024 /* copied under a lock before it is given up: 2 us at 16 GB/s */ };

static void prefetch_entries(const struct shard *shard, const struct cache_wanted *wanted, const uint8_t *order, size_t count)
{
	if (shard->closed)
		return;
	for (size_t i = 0; i < count; i++)
		index_prefetch(&shard->index, wanted[order[i]].hash);
	for (size_t i = 0; i < count; i++) {
		const uint64_t place = index_peek(&shard->index, wanted[order[i]].hash);
		const struct segment *segment = place ? arena_segment(&shard->arena, arena_place_number(place)) : NULL;
		if (segment)
			__builtin_prefetch(segment->base + arena_place_offset(place));
	}
}

/* Bytes that were copied. */
static size_t look_up(struct cache *cache, struct shard *shard, struct cache_wanted *wanted)
{
	struct found found;

	if (shard->closed) {
		wanted->status = DRP_CLOSED;
		return 0;
	}
	const int cause = find_fresh(cache, shard, wanted->hash, wanted->key, wanted->key_bytes, &found);
	wanted->status = DRP_MISS;
	if (cause >= 0) {
		cost_note_miss(shard, wanted->hash, cause);
		return 0;
	}
	wanted->status = WANTED_ALONE;
	if (found.entry.flags & ENTRY_EXTENT)
		return 0;
	const int status = copy_inline(&found, wanted->sink);
	if (status == DRP_MISS)
		return 0; /* dropped: the other look-up says so, or finds what came instead */
	wanted->status = status;
	wanted->place = found_name(&found);
	note_found(cache, shard, &found);
	if (status == DRP_OK) {
		shard->hits++;
		cost_note_hit(shard, &found.entry);
	}
	return found.entry.inline_bytes;
}

/* True: it is time to look at the room, as other look-ups do. */
static bool look_up_all(struct cache *cache, struct shard *shard, struct cache_wanted *wanted, const uint8_t *order, size_t count)
{
	size_t copied_bytes = 0;

	pthread_mutex_lock(&shard->lock);
	const uint64_t hits = shard->hits;
	prefetch_entries(shard, wanted, order, count);
	for (size_t i = 0; i < count; i++) {
		if (copied_bytes > LOCK_BYTES) {
			shard_unlock(shard);
			pthread_mutex_lock(&shard->lock);
			copied_bytes = 0;
		}
		copied_bytes += look_up(cache, shard, &wanted[order[i]]);
	}
	const bool watch = shard->hits / WATCH_CALLS != hits / WATCH_CALLS;
	shard_unlock_last(cache, shard);
	return watch;
}

void cache_get_many(struct cache *cache, struct cache_wanted *wanted, size_t count)
{
	uint8_t order[MANY_KEYS_MOST], ends[MANY_KEYS_MOST + 1] = {0}; /* ends: of the keys of each shard, in order */
	const unsigned shards = cache->shard_count;
	bool watch = false;

	DRP_ASSERT(count <= MANY_KEYS_MOST && shards <= MANY_KEYS_MOST);
	for (size_t i = 0; i < count; i++) {
		wanted[i].hash = hash_bytes(cache->secret, wanted[i].key, wanted[i].key_bytes);
		ends[shard_of(cache, wanted[i].hash) - cache->shards]++;
	}
	for (unsigned i = 1; i < shards; i++)
		ends[i] = (uint8_t)(ends[i] + ends[i - 1]);
	for (size_t i = count; i-- > 0;) /* from the last one down: then each end has become a begin */
		order[--ends[shard_of(cache, wanted[i].hash) - cache->shards]] = (uint8_t)i;
	ends[shards] = (uint8_t)count;
	for (unsigned i = 0; i < shards; i++)
		if (ends[i] < ends[i + 1])
			watch |= look_up_all(cache, &cache->shards[i], wanted, order + ends[i], ends[i + 1] - ends[i]);
	if (watch) {
		cache_watch_room(cache);
		cache_yield();
	}
	expiry_pass(cache, EXPIRY_CALL_NS);
}
