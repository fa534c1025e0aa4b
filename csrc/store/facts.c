/*
 * store/facts.c - what the store notes for those who decide. See store/facts.h.
 */
#include "store/facts.h"

#include "store/clock.h"
#include "store/internal.h"

enum {
	LIVES_FACTOR_BITS = 4, /* each class lives up to 16 times as long as the one before */
	PATIENCE_NS = 1000000000, /* so long what expired may stay in a segment of which a part lives on */
	INDEX_SHARE = 16, /* of max_bytes comes on top, for the index: that of values of 200 bytes */
};

#define FIRST_LIFE_NS (UINT64_C(1) << 32) /* 4.3 seconds */

void admission_note_dropped(struct shard *shard, size_t bytes)
{
	shard->admission.budget_bytes += bytes * BUDGET_FACTOR;
}

void admission_note_appended(struct shard *shard, struct segment *segment, size_t bytes)
{
	if (segment->part != ARENA_SMALL)
		return;
	shard->admission.appended_bytes += bytes;
	segment->filled_at = shard->admission.appended_bytes;
}

unsigned expiry_life(struct cache *cache, uint64_t expires_ns)
{
	const uint64_t now_ns = cache_now_ns(cache);
	uint64_t left_ns = expires_ns > now_ns ? expires_ns - now_ns : 0;
	unsigned life = 1;

	for (; left_ns >= FIRST_LIFE_NS && life < ARENA_LIVES - 1; life++)
		left_ns >>= LIVES_FACTOR_BITS;
	return life;
}

uint64_t expiry_due_of(const struct segment *segment)
{
	if (segment->expires_last_ns == 0)
		return UINT64_MAX;
	if (segment->expires_last_ns - segment->expires_first_ns <= PATIENCE_NS)
		return segment->expires_last_ns;
	return segment->expires_first_ns + PATIENCE_NS;
}

void expiry_set_due(struct shard *shard, uint64_t due_ns)
{
	atomic_store_explicit(&shard->expiry.due_ns, due_ns, memory_order_relaxed);
}

void expiry_note_appended(struct cache *cache, struct shard *shard, struct segment *segment, uint64_t expires_ns)
{
	if (segment->expires_first_ns > expires_ns)
		segment->expires_first_ns = expires_ns;
	if (segment->expires_last_ns < expires_ns)
		segment->expires_last_ns = expires_ns;
	const uint64_t due_ns = expiry_due_of(segment);
	if (due_ns < atomic_load_explicit(&shard->expiry.due_ns, memory_order_relaxed))
		expiry_set_due(shard, due_ns);
	if (atomic_load_explicit(&cache->expiry_look_ns, memory_order_relaxed) == UINT64_MAX)
		atomic_store_explicit(&cache->expiry_look_ns, 0, memory_order_relaxed);
}

void cache_account(struct cache *cache, struct shard *shard)
{
	if (cache->config.max_bytes == 0)
		return;
	const uint64_t page = prim_page_size(), index_bytes = index_pages(&shard->index) * page;
	const uint64_t free_bytes = cache->config.max_bytes / INDEX_SHARE / cache->shard_count;
	const uint64_t held = shard->arena.held_pages * page + (index_bytes > free_bytes ? index_bytes - free_bytes : 0);
	if (held == shard->held_bytes)
		return;
	atomic_fetch_add_explicit(&cache->held_bytes, held - shard->held_bytes, memory_order_relaxed);
	shard->held_bytes = held;
}
