/*
 * cache/walk.c - going through the keys: one page of the index at a time, copied out under the lock, given to the caller
 * without it.
 *
 *   cursor   | shard 16 | how the next hash begins, 48 |
 */
#include <stdlib.h>
#include <string.h>

#include "store/clock.h"
#include "policy/expire.h"
#include "store/internal.h"

struct key_batch {
	unsigned char *bytes; /* {size_t length, key}... */
	size_t used, size;
};

static int add_key(struct key_batch *batch, struct found *found)
{
	const size_t key_bytes = found->entry.key_bytes, start = batch->used;
	const uint32_t stamp = arena_stamp(found->segment->number);

	if (key_bytes > found->segment->length)
		return DRP_OK;
	if (batch->size - batch->used < sizeof(key_bytes) + key_bytes) {
		size_t size = (batch->size + sizeof(key_bytes) + key_bytes) * 2;
		unsigned char *bytes = realloc(batch->bytes, size);
		if (!bytes)
			return DRP_NO_MEMORY;
		batch->bytes = bytes;
		batch->size = size;
	}
	memcpy(batch->bytes + start, &key_bytes, sizeof(key_bytes));
	entry_copy(&found->reader, batch->bytes + start + sizeof(key_bytes), key_bytes);
	if (!found->reader.lost &&
	    entry_intact(found->segment->base, found->offset, stamp, found->entry.bytes))
		batch->used = start + sizeof(key_bytes) + key_bytes;
	return DRP_OK;
}

static int read_batch(struct cache *cache, struct shard *shard, uint32_t *prefix, uint64_t *places, struct key_batch *batch)
{
	size_t count = index_list(&shard->index, prefix, places);
	struct found found;
	int status = DRP_OK;

	for (size_t i = 0; i < count && status == DRP_OK; i++) {
		found.segment = arena_segment(&shard->arena, arena_place_number(places[i]));
		found.offset = arena_place_offset(places[i]);
		if (!found.segment || found.segment->kind != SEGMENT_ENTRIES || !shard_open_entry(&found))
			continue;
		if ((found.entry.flags & ENTRY_TTL) && found.entry.expires_ns <= cache_now_ns(cache))
			continue;
		status = add_key(batch, &found);
	}
	return status;
}

int cache_walk(struct cache *cache, uint64_t *cursor, int (*take)(void *context, const void *key, size_t key_bytes),
	       void *context)
{
	struct key_batch batch = {0};
	int status = DRP_MISS;

	uint64_t *places = malloc(index_slots_per_page() * sizeof(*places));
	if (!places)
		return DRP_NO_MEMORY;
	expiry_pass(cache, EXPIRY_CALL_NS);
	while (status == DRP_MISS && *cursor >> 48 < cache->shard_count) {
		struct shard *shard = &cache->shards[*cursor >> 48];
		uint32_t prefix = (uint32_t)(*cursor & ((UINT64_C(1) << 48) - 1));
		pthread_mutex_lock(&shard->lock);
		if (shard->closed) {
			status = DRP_CLOSED;
		} else if (prefix >= INDEX_PREFIXES) {
			*cursor = ((*cursor >> 48) + 1) << 48;
		} else {
			status = read_batch(cache, shard, &prefix, places, &batch);
			*cursor = *cursor >> 48 << 48 | prefix;
		}
		shard_unlock(shard);
	}
	for (size_t at = 0, key_bytes; status == DRP_OK && at < batch.used; at += sizeof(key_bytes) + key_bytes) {
		memcpy(&key_bytes, batch.bytes + at, sizeof(key_bytes));
		status = take(context, batch.bytes + at + sizeof(key_bytes), key_bytes);
	}
	free(batch.bytes);
	free(places);
	return status;
}
