/*
 * cache/touch.c - a new time to live, for an entry that stays what it is.
 *
 *   old place    [head: expires at t1 | key | meta | value, or where it lies]      dead from now on
 *                         |
 *                         v copied to the head of the log, where entries live about as long
 *   new place    [head: expires at t2 | key | meta | value, or where it lies]      the index leads here
 *
 * The time is not written in place: that would make a marked page dirty, so that it cannot be dropped until it is marked again,
 * and if the page is dropped at this moment, the write would bring zeros with a time in them back. A segment also goes as a whole
 * when the last of its entries has expired, by times that it noted when they were appended. So the entry moves, as it does when
 * its segment is emptied. A value on pages of its own stays where it is.
 */
#include "cache/update.h"

#include "policy/expire.h"
#include "policy/admission.h"
#include "store/clock.h"
#include "cache/fresh.h"
#include "store/move.h"
#include "policy/headroom.h"
#include "policy/reclaim.h"
#include "os/hash.h"
#include "cache/set.h"
#include "policy/space.h"

/* What touching it will write. */
static struct entry entry_for(struct cache *cache, const struct entry *old, uint64_t ttl_ns)
{
	struct entry entry = *old;

	entry.flags = (uint8_t)((entry.flags & ~ENTRY_TTL) | (ttl_ns ? ENTRY_TTL : 0));
	entry.expires_ns = cache_expires_ns(cache, ttl_ns);
	entry_measure(&entry);
	return entry;
}

/* Does the head of the log where it goes have no place for it? */
static bool needs_segment(struct cache *cache, struct shard *shard, enum arena_part part, const struct entry *entry, size_t stored_bytes)
{
	const unsigned life = entry->flags & ENTRY_TTL ? expiry_life(cache, entry->expires_ns) : 0;
	const struct segment *head = shard->arena.logs[part].entries[life];

	return !head || head->length - head->used < stored_bytes + prim_page_size();
}

static int move(struct cache *cache, struct shard *shard, struct found *found, const struct entry *entry, size_t stored_bytes)
{
	const enum arena_part part = found->segment->part; /* an entry goes with its extent */

	const int status = shard_move_entry_as(cache, shard, part, found, entry, NULL);
	if (status != DRP_OK)
		return status;
	if (cache->config.max_bytes || part == ARENA_SMALL)
		index_set_hot(&shard->index, &found->cursor); /* it was used */
	admission_step(cache, shard, stored_bytes);
	shard_settle_append(cache, shard, found->cursor.place);
	return DRP_OK;
}

int cache_touch(struct cache *cache, const void *key, size_t key_bytes, uint64_t ttl_ns)
{
	const uint64_t hash = hash_bytes(cache->secret, key, key_bytes);
	struct shard *shard = shard_of(cache, hash);
	size_t room_bytes = 0; /* that were asked for, and are there */
	bool made_space = false;
	unsigned tries = 0; /* to get more address space */
	int status;

	pthread_mutex_lock(&shard->lock);
	for (;;) {
		struct found found;
		status = shard->closed ? DRP_CLOSED : DRP_MISS;
		if (shard->closed || !find_whole(cache, shard, hash, key, key_bytes, &found))
			break;
		status = DRP_OK;
		if (ttl_ns == 0 && !(found.entry.flags & ENTRY_TTL))
			break; /* it never expires as it is */
		const struct entry entry = entry_for(cache, &found.entry, ttl_ns);
		const size_t stored_bytes = entry_most_bytes(entry.bytes);
		status = stored_bytes > cache->config.segment_bytes ? DRP_TOO_LARGE : DRP_OK;
		if (status != DRP_OK)
			break;
		if (room_bytes < stored_bytes && !cache_headroom_is_fresh(cache, shard, stored_bytes)) {
			pthread_mutex_unlock(&shard->lock);
			const bool there = cache_has_headroom(cache, shard, stored_bytes, 0);
			pthread_mutex_lock(&shard->lock);
			room_bytes = stored_bytes;
			if (there)
				continue;
			status = DRP_REFUSED;
			break;
		}
		if (!made_space && needs_segment(cache, shard, found.segment->part, &entry, stored_bytes)) {
			shard_make_space(cache, shard, SEGMENT_ENTRIES, 0, true);
			made_space = true;
			continue; /* it may have moved, or left */
		}
		status = move(cache, shard, &found, &entry, stored_bytes);
		if (status == DRP_NO_MEMORY && shard_gain_space(cache, shard, SEGMENT_ENTRIES, 0, &tries))
			continue;
		if (status == DRP_STALE)
			status = DRP_MISS; /* it went with a page of the index */
		else if (status == DRP_MISS)
			continue; /* it was dropped while it was copied, and will be found so */
		break;
	}
	shard->counts.refused += status == DRP_REFUSED;
	shard_unlock_last(cache, shard);
	if (made_space)
		cache_reclaim();
	expiry_pass(cache, EXPIRY_CALL_NS);
	return status;
}
