/*
 * cache.c - looking values up, deleting them, and the cache's life. See cache.h for the contract; cache/set.c stores.
 */
#include "cache/cache.h"

#include <stdlib.h>
#include <string.h>

#include "policy/expire.h"
#include "policy/unlock.h"
#include "policy/cost.h"
#include "cache/fork.h"
#include "store/clock.h"
#include "cache/small.h"
#include "store/internal.h"
#include "policy/headroom.h"
#include "cache/update.h"
#include "store/deferred.h"
#include "policy/reclaim.h"
#include "os/drp_assert.h"
#include "os/hash.h"
#include "log/witness.h"
#include "cache/pin.h"

enum {
	GET_RETRIES = 3,
	STEP_TRIES = 4, /* of a copy during which the thread changed processor */
	SEGMENTS_AT_LIMIT = 1024, /* of a shard, in as much memory as there may be */
	SHARD_LEAST_BYTES = 128 << 20,
	SHARDS_MOST = 16,
	BOUND_SEGMENTS = 4, /* of each of several shards, in max_bytes: else what is being filled and emptied is most of it */
	SHARDS_ONE_BY_ONE = 2,
	GET_ASKS_ROOM = 2,       /* beside PIN_RETRY */
};

/* Of memory, as of now; a great many where none is known. */
static uint64_t read_limit_bytes(void)
{
	struct prim_headroom headroom;

	prim_best_effort(prim_headroom(&headroom)); /* .unread tells what could not be read */
	return cache_limit_bytes(&headroom);
}

/*
 * Sixteen let two threads get twice as much as one, if each holds enough to tell what is in use: at 5 MB a shard two to three
 * hits in a hundred are lost, at 20 MB none, and a cache may get less than its limit. Where threads seldom meet two are
 * enough: each shard more is memory that each call waits for, and a segment that is being emptied; where there is little, one.
 * A bound that is small is kept by one, so that it is kept exactly.
 */
static unsigned choose_shards(const struct cache_config *config, uint64_t limit_bytes)
{
	const uint64_t max_bytes = config->max_bytes;
	const uint64_t bytes = max_bytes != 0 && max_bytes < limit_bytes ? max_bytes : limit_bytes;
	const unsigned most = config->one_by_one ? SHARDS_ONE_BY_ONE : SHARDS_MOST;
	unsigned shards = max_bytes != 0 || (config->one_by_one && bytes < SHARD_LEAST_BYTES) ? 1 : 2;

	while (shards < most && bytes / SHARD_LEAST_BYTES >= 2 * shards)
		shards *= 2;
	return shards;
}

/*
 * Small enough that two of them are an eighth of a bound (policy/evict.c); without one, that what is in the small queue, a share of
 * what a shard holds, is some segments, also if the memory limit is lowered much later. Large ones for much memory: a value
 * of more than a quarter is a mapping of its own, and there is a limit to their number.
 */
static size_t choose_segment_bytes(uint64_t max_bytes, uint64_t limit_bytes, unsigned shards)
{
	const size_t least = max_bytes != 0 ? 8 * prim_page_size() : ARENA_SEGMENT_MAX / 4;
	const unsigned share = BOUND_SEGMENTS * shards > 16 ? BOUND_SEGMENTS * shards : 16;
	const uint64_t enough = max_bytes != 0 ? max_bytes / share : limit_bytes / shards / SEGMENTS_AT_LIMIT;
	size_t bytes = ARENA_SEGMENT_MAX;

	while (bytes > least && bytes > enough)
		bytes /= 2;
	return bytes;
}

/* Lazyfree memory is there if marking works; some sandboxes accept it and throw the content away at once. */
static int check_backing(const struct cache_config *config)
{
	const size_t page = prim_page_size();
	void *probe;

	int status = prim_map(config->backing, page, config->share_on_fork ? PRIM_KEEP_ON_FORK : 0, &probe);
	if (status != DRP_OK)
		return status;
	*(volatile unsigned char *)probe = 1;
	status = prim_mark(probe, page);
	if (status == DRP_OK && *(volatile unsigned char *)probe != 1)
		status = DRP_UNSUPPORTED;
	prim_best_effort(prim_unmap(probe, page)); /* where it would split a mapping: a page is lost */
	return status;
}

int cache_create(const struct cache_config *config, struct cache **out)
{
	const uint64_t limit_bytes = read_limit_bytes();
	unsigned shards = config->shards;
	unsigned made = 0;
	int status;

	if (shards == 0)
		shards = choose_shards(config, limit_bytes);
	if ((shards & (shards - 1)) != 0 || shards > 64 || config->backing > PRIM_DROPPABLE ||
	    (config->share_on_fork && config->backing == PRIM_DROPPABLE))
		return DRP_INVALID;
	status = check_backing(config);
	if (status != DRP_OK)
		return status;

	const size_t segment_bytes =
		config->segment_bytes ? config->segment_bytes : choose_segment_bytes(config->max_bytes, limit_bytes, shards);
	if (shards > 1 && config->max_bytes != 0 && config->max_bytes / shards / BOUND_SEGMENTS < segment_bytes)
		return DRP_INVALID;
	size_t bytes = sizeof(struct cache) + shards * sizeof(struct shard);
	struct cache *cache = aligned_alloc(_Alignof(struct cache), (bytes + _Alignof(struct cache) - 1) &
								    ~(_Alignof(struct cache) - 1));
	if (!cache)
		return DRP_NO_MEMORY;
	memset(cache, 0, bytes);
	atomic_init(&cache->references, 1);
	cache->config = *config;
	cache->config.segment_bytes = segment_bytes;
	cache->shard_count = shards;
	atomic_init(&cache->expiry_look_ns, UINT64_MAX);
	atomic_init(&cache->span_bytes, config->span_bytes ? config->span_bytes / shards : UINT64_MAX);
	status = prim_random(cache->secret, sizeof(cache->secret));
	if (status != DRP_OK)
		goto err_free;
	for (; made < shards; made++) {
		status = shard_init(cache, &cache->shards[made]);
		if (status != DRP_OK)
			goto err_shards;
	}
	status = cache_register(cache);
	if (status != DRP_OK)
		goto err_shards;
	*out = cache;
	return DRP_OK;

err_shards:
	while (made > 0)
		shard_destroy(&cache->shards[--made]);
err_free:
	free(cache);
	return status;
}

void cache_close(struct cache *cache)
{
	for (unsigned i = 0; i < cache->shard_count; i++) {
		struct shard *shard = &cache->shards[i];
		pthread_mutex_lock(&shard->lock);
		if (!shard->closed) {
			shard->closed = true;
			shard_empty(cache, shard);
			arena_destroy(&shard->arena);
		}
		shard_unlock_emptied(shard);
	}
}

void cache_unref(struct cache *cache)
{
	cache_close(cache); /* deferred pins have references too */
	cache_release(cache);
}

static struct shard *lock_shard(struct cache *cache, uint64_t hash)
{
	struct shard *shard = shard_of(cache, hash);
	pthread_mutex_lock(&shard->lock);
	return shard;
}

/*
 * The copy itself, without the lock; the segment has a user more, so its memory stays mapped and is not written anew. A large
 * value is looked at piece by piece before it is copied: if it is gone, the caller's buffer is not written for nothing, which
 * would be memory that nobody asked room for.
 */
static bool copy_extent(const unsigned char *from, size_t bytes, const uint16_t *witnesses, struct cache_sink *sink,
			unsigned char *value, struct shard *shard, struct segment *segment)
{
	bool intact = true;

	cache_begin_copy(sink, bytes, shard, segment, NULL);
	for (size_t at = 0, length; intact && at < bytes; at += length) {
		const uint16_t *those = witnesses + at / prim_page_size();
		length = bytes - at < WITNESS_STEP_BYTES ? bytes - at : WITNESS_STEP_BYTES;
		bool moved = true; /* to another processor, meanwhile: see copy_inline() */
		for (int tries = 0; intact && moved && tries < STEP_TRIES; tries++) {
			const unsigned cpu = prim_cpu();
			if (bytes >= LARGE_BYTES && !witness_intact(from + at, length, those))
				intact = false;
			else
				memcpy(value + at, from + at, length);
			intact = intact && witness_intact(from + at, length, those);
			moved = prim_cpu() != cpu;
		}
		intact = intact && !moved;
	}
	cache_end_copy(sink, shard, segment);
	return intact;
}

/*
 * A value on pages of its own. Takes the shard's lock over from the caller and gives it back.
 * DRP_MISS: dropped; the entry stands still and the caller forgets it. GET_ASKS_ROOM: *room_bytes is less than what it will
 * take from the memory that is left, which is new; nothing was done.
 */
static int get_extent(struct cache *cache, struct shard *shard, struct found *found, enum cache_get_mode mode,
		      struct cache_sink *sink, struct cache_pin *pin, size_t *room_bytes)
{
	uint16_t on_stack[STACK_WITNESSES], *witnesses = on_stack;
	const struct entry *entry = &found->entry;
	const bool pinning = cache->config.backing == PRIM_LAZYFREE &&
			     (mode == GET_PIN || (mode == GET_PIN_OWN && (entry->flags & ENTRY_OWN_PAGES)));
	struct entry_extent extent;
	void *meta = NULL, *value = NULL;
	int status = DRP_MISS;

	/* Meta comes before the extent in the entry, but its size is needed first. */
	struct entry_reader at_meta = found->reader;
	entry_copy(&found->reader, NULL, entry->meta_bytes);
	if (!shard_read_extent(found, &extent))
		return DRP_MISS;
	unsigned char *address;
	struct segment *segment = shard_extent_segment(shard, &extent, &address);
	if (!segment)
		return DRP_MISS;
	const size_t value_bytes = (size_t)extent.value_bytes;
	/* What is pinned cannot have been dropped: its witnesses need not be read. */
	struct pin *of = pinning ? pins_find(&shard->pins, address) : NULL;
	const size_t all_witness_bytes = entry->inline_bytes - sizeof(extent), witness_bytes = of ? 0 : all_witness_bytes;
	if (witness_bytes > sizeof(on_stack)) {
		witnesses = malloc(witness_bytes);
		if (!witnesses)
			return DRP_REFUSED;
	}
	const size_t read_bytes = entry->bytes - all_witness_bytes + witness_bytes;
	entry_copy(&found->reader, witnesses, witness_bytes);
	if (value_bytes >= LARGE_BYTES && !of) {
		if (found->reader.lost || !entry_intact(found->segment->base, found->offset,
							arena_stamp(found->segment->number), read_bytes) ||
		    !witness_sample(address, value_bytes, witnesses))
			goto out;
		if (*room_bytes < value_bytes && !cache_headroom_is_fresh(cache, shard, value_bytes)) {
			*room_bytes = value_bytes;
			status = GET_ASKS_ROOM;
			goto out;
		}
	}
	if (sink->reserve(sink, entry->kind, entry->meta_bytes, pinning ? 0 : value_bytes, &meta, pinning ? NULL : &value) != 0) {
		status = DRP_REFUSED;
		goto out;
	}
	entry_copy(&at_meta, meta, entry->meta_bytes);
	if (at_meta.lost || found->reader.lost ||
	    !entry_intact(found->segment->base, found->offset, arena_stamp(found->segment->number), read_bytes))
		goto out;

	segment->had_second_chance = false;
	const size_t first = segment->kind == SEGMENT_WHOLE ? 0 : (size_t)extent.page * prim_page_size();
	segment_note_referenced(segment, first, first + 1);
	if (pinning) {
		status = of ? cache_share_pin(cache, shard, of, value_bytes, pin)
			    : cache_take_pin(cache, shard, segment, address, value_bytes, witnesses, sink, pin);
		goto out;
	}
	segment->users++;
	pthread_mutex_unlock(&shard->lock);
	if (value_bytes >= LARGE_BYTES)
		cache_promise_headroom(value_bytes);
	bool intact = copy_extent(address, value_bytes, witnesses, sink, value, shard, segment);
	if (value_bytes >= LARGE_BYTES)
		cache_promise_kept(cache, value_bytes, true);
	pthread_mutex_lock(&shard->lock);
	arena_release(&shard->arena, segment);
	status = intact ? DRP_OK : DRP_MISS;
out:
	if (witnesses != on_stack)
		free(witnesses);
	return status;
}

/* After a value was found dropped: forgets its entry, if it is still that very one. */
static void forget_dropped(struct cache *cache, struct shard *shard, uint64_t hash, uint64_t name, const void *key,
			   size_t key_bytes, bool *replaced)
{
	struct found found;

	*replaced = false;
	if (shard_find(cache, shard, hash, key, key_bytes, &found) >= 0)
		return; /* shard_find() forgot it, or somebody else did */
	if (found_name(&found) != name) {
		*replaced = true;
		return;
	}
	entry_copy(&found.reader, NULL, found.entry.meta_bytes);
	shard_forget(cache, shard, &found.cursor, &found, LEAVE_DROPPED, PAGES_REUSED);
}

int cache_get(struct cache *cache, const void *key, size_t key_bytes, enum cache_get_mode mode, struct cache_sink *sink,
	      struct cache_pin *pin, struct cache_about *about)
{
	const uint64_t hash = hash_bytes(cache->secret, key, key_bytes);
	struct shard *shard = lock_shard(cache, hash);
	struct found found;
	size_t room_bytes = 0; /* that were asked for, and are there */
	int status = DRP_MISS, cause = MISS_DROPPED;
	bool copied_pages = false;

	pin->cache = NULL;
	if (shard->closed) {
		status = DRP_CLOSED;
		goto out;
	}
	/* Most look-ups find a small entry in its home bucket; the search goes on from there for others. */
	uint64_t *bucket = index_home(&shard->index, hash), *slot = bucket ? index_home_slot(bucket, hash) : NULL;
	struct segment *segment = slot ? small_segment(shard, slot) : NULL;
	if (segment) {
		status = small_get(cache, shard, segment, slot, hash, key, key_bytes, sink, about);
		if (status != SMALL_OTHER)
			goto out;
		status = DRP_MISS;
	}
	for (int tries = 0; tries < GET_RETRIES; tries++) {
		cause = segment ? shard_find_from(cache, shard, hash, slot, segment, key, key_bytes, &found)
				: shard_find(cache, shard, hash, key, key_bytes, &found);
		cause = expire_found(cache, shard, cause, &found);
		segment = NULL; /* after this the index may have changed */
		if (cause >= 0) {
			cost_note_miss(shard, hash, cause);
			status = DRP_MISS;
			goto out;
		}
		note_found(cache, shard, &found);
		const uint64_t name = found_name(&found);
		if (about)
			*about = (struct cache_about){name, found.entry.expires_ns, found.entry.version, found.entry.cost_ns};
		if (found.entry.flags & ENTRY_EXTENT)
			status = get_extent(cache, shard, &found, mode, sink, pin, &room_bytes);
		else
			status = copy_inline(&found, sink);
		if (status == GET_ASKS_ROOM) {
			pthread_mutex_unlock(&shard->lock);
			const bool there = cache_has_headroom(cache, shard, room_bytes, 0);
			pthread_mutex_lock(&shard->lock);
			status = shard->closed ? DRP_CLOSED : there ? PIN_RETRY : DRP_MISS;
			if (status == DRP_MISS)
				break; /* it stays: another time there may be room */
			if (status == DRP_CLOSED)
				goto out;
		}
		if (status == COPY_AGAIN)
			continue;
		if (status == PIN_RETRY) {
			tries--;
			continue;
		}
		if (status == DRP_OK) {
			shard->hits++;
			cost_note_hit(shard, found.entry.cost_ns);
			copied_pages = (found.entry.flags & ENTRY_EXTENT) && !pin->cache;
		}
		if (status != DRP_MISS)
			goto out;
		bool replaced;
		forget_dropped(cache, shard, hash, name, key, key_bytes, &replaced);
		if (!replaced)
			break;
	}
	status = DRP_MISS;
	cause = MISS_DROPPED;
	cost_note_miss(shard, hash, cause);
out:;
	/* Each of the two counts goes on with its own calls: after the last hit a program may only miss. */
	const bool watch = (status == DRP_MISS ? shard->counts.misses[cause] : shard->hits) % WATCH_CALLS == 0;
	shard_unlock_last(cache, shard);
	if (watch)
		cache_watch_headroom(cache);
	if (watch || copied_pages)
		cache_reclaim();
	expiry_pass(cache, EXPIRY_CALL_NS);
	return status;
}

bool find_whole(struct cache *cache, struct shard *shard, uint64_t hash, const void *key, size_t key_bytes,
		struct found *found)
{
	if (find_fresh(cache, shard, hash, key, key_bytes, found) >= 0)
		return false;
	struct found read = *found;
	if (shard_is_whole(shard, &read))
		return true;
	entry_copy(&found->reader, NULL, found->entry.meta_bytes);
	shard_forget(cache, shard, &found->cursor, found, LEAVE_DROPPED, PAGES_REUSED);
	return false;
}

int cache_look_at(struct cache *cache, const void *key, size_t key_bytes, struct cache_about *about)
{
	const uint64_t hash = hash_bytes(cache->secret, key, key_bytes);
	struct shard *shard = lock_shard(cache, hash);
	struct found found;
	int status = DRP_MISS;

	if (shard->closed) {
		status = DRP_CLOSED;
	} else if (find_whole(cache, shard, hash, key, key_bytes, &found)) {
		*about = (struct cache_about){found_name(&found), found.entry.expires_ns, found.entry.version, found.entry.cost_ns};
		status = DRP_OK;
	}
	shard_unlock_last(cache, shard);
	expiry_pass(cache, EXPIRY_CALL_NS);
	return status;
}

int cache_contains(struct cache *cache, const void *key, size_t key_bytes)
{
	struct cache_about about;
	const int status = cache_look_at(cache, key, key_bytes, &about);

	return status == DRP_CLOSED ? status : status == DRP_OK;
}

int cache_delete(struct cache *cache, const void *key, size_t key_bytes, uint64_t place)
{
	const uint64_t hash = hash_bytes(cache->secret, key, key_bytes);
	struct shard *shard = lock_shard(cache, hash);
	struct found found;
	int status = DRP_MISS;

	leases_revoke(&shard->leases, hash); /* also of what is not there: it may be computed */
	if (shard->closed) {
		status = DRP_CLOSED;
	} else if (find_fresh(cache, shard, hash, key, key_bytes, &found) < 0 &&
		   (place == 0 || place == found_name(&found))) {
		entry_copy(&found.reader, NULL, found.entry.meta_bytes);
		shard_forget(cache, shard, &found.cursor, &found, LEAVE_DELETED, PAGES_REUSED);
		shard_shrink_index(shard);
		status = DRP_OK;
	}
	shard_unlock_last(cache, shard);
	expiry_pass(cache, EXPIRY_CALL_NS);
	return status;
}

int cache_delete_version(struct cache *cache, const void *key, size_t key_bytes, uint64_t version)
{
	const uint64_t hash = hash_bytes(cache->secret, key, key_bytes);
	struct shard *shard = lock_shard(cache, hash);
	struct found found;
	int status = DRP_OK;

	if (shard->closed)
		status = DRP_CLOSED;
	else if (!find_whole(cache, shard, hash, key, key_bytes, &found))
		status = DRP_MISS;
	else if (found.entry.version != version)
		status = DRP_EXISTS;
	if (status == DRP_OK) {
		leases_revoke(&shard->leases, hash);
		entry_copy(&found.reader, NULL, found.entry.meta_bytes);
		shard_forget(cache, shard, &found.cursor, &found, LEAVE_DELETED, PAGES_REUSED);
		shard_shrink_index(shard);
	}
	shard_unlock_last(cache, shard);
	expiry_pass(cache, EXPIRY_CALL_NS);
	return status;
}

int cache_reject(struct cache *cache, const void *key, size_t key_bytes, uint64_t place)
{
	const uint64_t hash = hash_bytes(cache->secret, key, key_bytes);
	struct shard *shard = lock_shard(cache, hash);
	struct found found;
	int status = DRP_OK;

	DRP_ASSERT(shard->hits > 0);
	shard->hits--;
	shard->counts.misses[MISS_REJECTED]++;
	if (shard->closed) {
		status = DRP_CLOSED;
	} else if (find_fresh(cache, shard, hash, key, key_bytes, &found) < 0 && place == found_name(&found)) {
		cost_take_back(shard, found.entry.cost_ns);
		entry_copy(&found.reader, NULL, found.entry.meta_bytes);
		shard_forget(cache, shard, &found.cursor, &found, LEAVE_DELETED, PAGES_REUSED);
	}
	shard_unlock(shard);
	return status;
}

int cache_clear(struct cache *cache)
{
	int status = DRP_OK;

	for (unsigned i = 0; i < cache->shard_count; i++) {
		struct shard *shard = &cache->shards[i];
		pthread_mutex_lock(&shard->lock);
		if (shard->closed)
			status = DRP_CLOSED;
		leases_revoke_all(&shard->leases);
		shard_empty(cache, shard);
		shard_unlock_emptied(shard);
	}
	return status;
}

void cache_read_stats(struct cache *cache, struct cache_stats *out)
{
	*out = (struct cache_stats){0};
	expiry_pass(cache, EXPIRY_COUNT_NS);
	for (unsigned i = 0; i < cache->shard_count; i++) {
		struct shard *shard = &cache->shards[i];
		pthread_mutex_lock(&shard->lock);
		const struct cache_stats *counts = &shard->counts;
		out->hits += shard->hits;
		out->saved_ns += shard->saved_ns;
		out->lost_ns += counts->lost_ns;
		for (int cause = 0; cause < MISS_CAUSES; cause++)
			out->misses[cause] += counts->misses[cause];
		out->sets += counts->sets;
		out->deletes += counts->deletes;
		out->refused += counts->refused;
		out->evicted += counts->evicted;
		out->expired += counts->expired;
		out->replaced += counts->replaced;
		out->cleared += counts->cleared;
		const uint64_t found_gone = counts->dropped + shard->index.lost_entries + shard->index.orphans;
		DRP_ASSERT(shard->not_dropped <= found_gone);
		out->dropped += found_gone - shard->not_dropped;
		out->entries += shard_entries(shard);
		out->bytes += counts->bytes;
		out->mapped_bytes += shard->arena.mapped_bytes;
		out->pinned_bytes += shard->pins.pinned_bytes;
		out->window_bytes += shard->pins.deferred_bytes;
		out->index_lost_pages += shard->index.lost_pages;
		out->yielded_bytes += counts->yielded_bytes;
		shard_unlock(shard);
	}
}

int cache_settle(struct cache *cache)
{
	int status = DRP_OK;

	for (unsigned i = 0; i < cache->shard_count; i++) {
		struct shard *shard = &cache->shards[i];
		pthread_mutex_lock(&shard->lock);
		if (shard->closed)
			status = DRP_CLOSED;
		else
			shard_mark(shard, true);
		deferred_free_all(shard);
		shard_unlock(shard);
	}
	return status;
}

uint64_t cache_remaining_ns(struct cache *cache, const struct cache_about *about)
{
	const uint64_t now_ns = cache_now_ns(cache);

	if (about->expires_ns == 0)
		return 0;
	return about->expires_ns > now_ns ? about->expires_ns - now_ns : 1;
}

void cache_advance_clock(struct cache *cache, uint64_t ns)
{
	atomic_fetch_add_explicit(&cache->skew_ns, ns, memory_order_relaxed);
}
