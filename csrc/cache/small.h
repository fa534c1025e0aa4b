/*
 * cache/small.h - a look-up of a small entry, which is one piece in one page: read where it lies, without a reader.
 *
 *   slot (store/index_home.h) -> segment -> [head | key | meta | value]     key compared, not expired, copied, stamp there still
 *
 * Whatever is not so plain is said to be SMALL_OTHER, and the general look-up finds out what it is. Nothing was noted then.
 *
 * Callers: cache/cache.c, cache/many.c, cache/set.c, under the shard's lock.
 */
#ifndef DRP_CACHE_SMALL_H
#define DRP_CACHE_SMALL_H

#include "cache/fresh.h"
#include "log/entry_small.h"
#include "policy/cost.h"
#include "store/index_home.h"

enum { SMALL_OTHER = 1 };

/* Of 8 to 16 bytes, as many keys are, two words are compared; a call costs three times as much. */
static inline bool is_same_key(const unsigned char *a, const unsigned char *b, size_t bytes)
{
	uint64_t words[4];

	if (bytes < 8 || bytes > 16)
		return memcmp(a, b, bytes) == 0;
	memcpy(&words[0], a, 8);
	memcpy(&words[1], b, 8);
	memcpy(&words[2], a + bytes - 8, 8);
	memcpy(&words[3], b + bytes - 8, 8);
	return words[0] == words[1] && words[2] == words[3];
}

/* The segment that a slot leads to, whose memory is asked for; or NULL. */
static inline struct segment *small_segment(const struct shard *shard, const uint64_t *slot)
{
	const uint64_t place = index_load(slot) & INDEX_PLACE_MASK;
	struct segment *segment = arena_segment(&shard->arena, arena_place_number(place));

	if (segment) {
		const unsigned char *at = segment->base + arena_place_offset(place);
		__builtin_prefetch(at);
		__builtin_prefetch(at + 64);
	}
	return segment;
}

/* Does a small entry with that key begin at a place of the segment? Expired or not. False: or something else is the matter. */
static inline bool small_find(const struct segment *segment, uint64_t place, const void *key, size_t key_bytes,
			      struct entry_small *entry)
{
	const size_t offset = arena_place_offset(place);

	/* A slot may lead elsewhere than it did: its page of the index may have been begun anew since. */
	return arena_place_number(place) == segment->number && segment->kind == SEGMENT_ENTRIES &&
	       !segment_is_dropped(segment, offset) &&
	       entry_small_open(segment->base, segment->used, offset, arena_stamp(segment->number), entry) &&
	       entry->key_bytes == key_bytes && is_same_key(entry->key, key, key_bytes);
}

/* DRP_OK: copied and counted, *about filled in. DRP_REFUSED: from reserve(). SMALL_OTHER. */
static inline __attribute__((always_inline)) int small_get(struct cache *cache, struct shard *shard, struct segment *segment,
							   uint64_t *slot, uint64_t hash, const void *key, size_t key_bytes,
							   struct cache_sink *sink, struct cache_about *about)
{
	void *meta = NULL, *value = NULL;
	struct entry_small entry;
	const uint64_t place = index_load(slot) & INDEX_PLACE_MASK;
	const size_t offset = arena_place_offset(place);
	const uint32_t stamp = arena_stamp(segment->number);
	const unsigned cpu = prim_cpu(); /* see copy_inline() */

	if (!small_find(segment, place, key, key_bytes, &entry) ||
	    (entry.expires_ns != 0 && entry.expires_ns <= cache_now_ns(cache)))
		return SMALL_OTHER;
	prim_step();
	if (about)
		*about = (struct cache_about){entry_name(segment, offset), entry.expires_ns, entry.version, entry.cost_ns};
	if (sink->reserve(sink, entry.kind, entry.meta_bytes, entry.value_bytes, &meta, &value) != 0)
		return DRP_REFUSED;
	if (entry.meta_bytes > 0)
		memcpy(meta, entry.key + key_bytes, entry.meta_bytes);
	prim_step();
	if (entry.value_bytes > 0)
		memcpy(value, entry.key + key_bytes + entry.meta_bytes, entry.value_bytes);
	if (!entry_small_intact(segment->base, offset, stamp) || prim_cpu() != cpu)
		return SMALL_OTHER;
	/* As note_found() does; all of a small entry is in one page. */
	if (cache->config.max_bytes || segment->part == ARENA_SMALL)
		index_home_set_hot(&shard->index, hash, slot);
	segment_note_referenced(segment, offset, offset + 1);
	shard->hits++;
	cost_note_hit(shard, entry.cost_ns);
	return DRP_OK;
}

#endif
