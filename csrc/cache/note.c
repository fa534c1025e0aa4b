/*
 * cache/note.c - an entry was used by a reader that did not ask: see cache/publish.h.
 */
#include "cache/publish.h"

#include "policy/cost.h"
#include "cache/fresh.h"
#include "store/internal.h"
#include "os/hash.h"

bool cache_note_use(struct cache *cache, const void *key, size_t key_bytes)
{
	const uint64_t hash = hash_bytes(cache->secret, key, key_bytes);
	struct shard *shard = shard_of(cache, hash);
	struct entry_extent extent;
	unsigned char *address;
	struct found found;

	pthread_mutex_lock(&shard->lock);
	const bool there = !shard->closed && find_fresh(cache, shard, hash, key, key_bytes, &found) < 0;
	if (there) {
		note_found(cache, shard, &found);
		shard->hits++;
		cost_note_hit(shard, found.entry.cost_ns);
	}
	if (there && (found.entry.flags & ENTRY_EXTENT)) {
		entry_copy(&found.reader, NULL, found.entry.meta_bytes);
		struct segment *segment = shard_read_extent(&found, &extent) ? shard_extent_segment(shard, &extent, &address) : NULL;
		if (segment) {
			const size_t first = segment->kind == SEGMENT_WHOLE ? 0 : (size_t)(address - segment->base);
			segment->had_second_chance = false;
			segment_note_referenced(segment, first, first + 1);
		}
	}
	shard_unlock(shard);
	return there;
}
