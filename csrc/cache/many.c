/*
 * cache/many.c - see cache/many.h.
 *
 * Of a single look-up most of the time is waiting for memory, twice: for a bucket of the index, then for the entry. Here all
 * buckets of a shard's keys are asked for first, then all entries, so that the waits are one. Most entries are small and where
 * the hint says: those are copied from where they lie. The others are looked up afterwards, as a single one would be.
 *
 *   hash all -> by shard -> lock -> buckets -> slots -> small entries: copied, or left over -> left over: look_up() -> unlock
 */
#include "cache/many.h"

#include "policy/expire.h"
#include "store/clock.h"
#include "cache/small.h"
#include "policy/headroom.h"
#include "policy/reclaim.h"
#include "os/drp_assert.h"
#include "os/hash.h"

enum { LOCK_BYTES = 32 * 1024 /* copied under a lock before it is given up: 2 us at 16 GB/s */ };

/* Where the entries may begin, so that their memory is on its way: slot and segment, or no slot. */
static void find_slots(const struct shard *shard, struct cache_wanted *wanted, const uint8_t *order, size_t count)
{
	for (size_t i = 0; i < count; i++)
		wanted[order[i]].slot = index_home(&shard->index, wanted[order[i]].hash);
	for (size_t i = 0; i < count; i++) {
		struct cache_wanted *one = &wanted[order[i]];
		if (!one->slot || !(one->slot = index_home_slot(one->slot, one->hash)))
			continue;
		one->segment = small_segment(shard, one->slot);
		if (!one->segment)
			one->slot = NULL;
	}
}

/* False: look_up() finds out. Nothing was noted. */
static bool copy_small(struct cache *cache, struct shard *shard, struct cache_wanted *wanted)
{
	struct cache_about about;

	if (!wanted->slot)
		return false;
	const int status = small_get(cache, shard, wanted->segment, wanted->slot, wanted->hash, wanted->key, wanted->key_bytes,
				     wanted->sink, &about);
	if (status == SMALL_OTHER)
		return false;
	wanted->status = status;
	wanted->place = about.place;
	return true;
}

/*
 * What is small is copied; order has the others, and how many they are is returned. They are so short together that the lock is
 * not given up, so the slots stay what they are.
 */
static size_t copy_all_small(struct cache *cache, struct shard *shard, struct cache_wanted *wanted, uint8_t *order, size_t count)
{
	size_t left = 0;

	find_slots(shard, wanted, order, count);
	for (size_t i = 0; i < count; i++)
		if (!copy_small(cache, shard, &wanted[order[i]]))
			order[left++] = order[i];
	return left;
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
	if (status == DRP_MISS || status == COPY_AGAIN)
		return 0; /* dropped, perhaps: the other look-up says so, or finds what came instead */
	wanted->status = status;
	wanted->place = found_name(&found);
	note_found(cache, shard, &found);
	if (status == DRP_OK) {
		shard->hits++;
		cost_note_hit(shard, found.entry.cost_ns);
	}
	return found.entry.inline_bytes;
}

/* True: it is time to look at the room, as other look-ups do. */
static bool look_up_all(struct cache *cache, struct shard *shard, struct cache_wanted *wanted, uint8_t *order, size_t count)
{
	size_t copied_bytes = 0;

	pthread_mutex_lock(&shard->lock);
	const uint64_t hits = shard->hits;
	if (!shard->closed)
		count = copy_all_small(cache, shard, wanted, order, count);
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
		ends[shard_number_of(cache, wanted[i].hash)]++;
	}
	for (unsigned i = 1; i < shards; i++)
		ends[i] = (uint8_t)(ends[i] + ends[i - 1]);
	for (size_t i = count; i-- > 0;) /* from the last one down: then each end has become a begin */
		order[--ends[shard_number_of(cache, wanted[i].hash)]] = (uint8_t)i;
	ends[shards] = (uint8_t)count;
	for (unsigned i = 0; i < shards; i++)
		if (ends[i] < ends[i + 1])
			watch |= look_up_all(cache, &cache->shards[i], wanted, order + ends[i], ends[i + 1] - ends[i]);
	if (watch) {
		cache_watch_headroom(cache);
		cache_reclaim();
	}
	expiry_pass(cache, EXPIRY_CALL_NS);
}
