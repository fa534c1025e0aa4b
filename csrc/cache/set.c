/*
 * cache/set.c - stores. See cache.h and cache/update.h for the contract.
 *
 * The order in which a value of pages of its own comes to be:
 *
 *   lock: take an extent       unlock: write it (witness order), mark it      lock: append its entry, index it
 *
 * It is marked before anything names it. The mark flushes translations that other processors may still have of pages
 * dropped from those addresses earlier, so whoever finds the entry sees this value's pages or newer zeros, never an
 * older value's bytes.
 */
#include "cache/lease.h"
#include "cache/set.h"

#include <stdlib.h>
#include <string.h>

#include "policy/cost.h"
#include "policy/evict.h"
#include "cache/fork.h"
#include "policy/expire.h"
#include "policy/admission.h"
#include "policy/space.h"
#include "policy/cleaner.h"
#include "store/clock.h"
#include "cache/small.h"
#include "policy/headroom.h"
#include "policy/reclaim.h"
#include "os/drp_assert.h"
#include "os/hash.h"
#include "log/witness.h"

enum {
	SHRINK_CALLS = 4, /* that set, of a shard, between two steps in making its index smaller */
	INLINE_MAX_BYTES = 32 * 1024, /* shorter values are copied under the lock, if in the log: 2 us at 16 GB/s */
	PAGE_WASTE_SHARE = 8,
	OWN_PARTS = 2, /* of a value, and there is room on the stack; an extent and its witnesses are as many */
};

/*
 * A value that leaves no more than an eighth of its pages unused has them to itself. In the log it would share the first and
 * the last of them with its neighbours, and die with either.
 */
static bool fills_pages(size_t value_bytes)
{
	const size_t rounded = witness_count(value_bytes) * prim_page_size();
	return value_bytes > 0 && rounded - value_bytes <= rounded / PAGE_WASTE_SHARE;
}

/* Does the value lie on pages of its own? */
static inline bool takes_pages(const struct cache *cache, const struct cache_item *item, size_t value_bytes)
{
	const size_t page = prim_page_size();

	if (value_bytes < page - page / PAGE_WASTE_SHARE && value_bytes <= cache->config.segment_bytes / 4)
		return false; /* as most are: none of the reasons below */
	return value_bytes >= INLINE_MAX_BYTES || fills_pages(value_bytes) || (item->own_pages && value_bytes >= page) ||
	       value_bytes > cache->config.segment_bytes / 4;
}

static inline __attribute__((always_inline)) int measure(struct store *store, struct cache *cache, const void *key,
							 size_t key_bytes, const struct cache_item *item,
							 size_t value_bytes, bool keep_expiry)
{
	/* Parts may overlap, so that a value can be larger than all memory. */
	if (value_bytes > SIZE_MAX / 2 || key_bytes > cache->config.segment_bytes || item->meta_bytes > cache->config.segment_bytes)
		return DRP_TOO_LARGE;
	const bool on_pages = takes_pages(cache, item, value_bytes);
	const size_t extent_pages = on_pages ? witness_count(value_bytes) : 0;

	store->cache = cache;
	store->hash = hash_bytes(cache->secret, key, key_bytes);
	store->shard = shard_of(cache, store->hash);
	store->key = key;
	store->key_bytes = key_bytes;
	store->item = item;
	store->value_bytes = value_bytes;
	store->extent_bytes = extent_pages * prim_page_size();
	store->witness_bytes = extent_pages * sizeof(uint16_t);
	store->segment = NULL;
	store->entry = (struct entry){
		.kind = item->kind, .key_bytes = key_bytes, .meta_bytes = item->meta_bytes,
		.flags = (uint8_t)((item->ttl_ns || keep_expiry ? ENTRY_TTL : 0) | (item->cost_ns ? ENTRY_COST : 0) |
				   (item->versioned ? ENTRY_VERSION : 0) | (on_pages ? ENTRY_EXTENT : 0) |
				   (item->own_pages ? ENTRY_OWN_PAGES : 0)),
		.expires_ns = cache_expires_ns(cache, item->ttl_ns), .cost_ns = item->cost_ns,
		.inline_bytes = on_pages ? sizeof(store->extent) + store->witness_bytes : value_bytes,
	};
	entry_measure(&store->entry);
	store->stored_bytes = entry_most_bytes(store->entry.bytes); /* it must fit in a segment of its own */
	if (store->stored_bytes > cache->config.segment_bytes || store->entry.inline_bytes > UINT32_MAX ||
	    (cache->config.max_bytes && store->stored_bytes + store->extent_bytes > cache->config.max_bytes))
		return DRP_TOO_LARGE;
	return DRP_OK;
}

int store_measure(struct store *store, struct cache *cache, const void *key, size_t key_bytes, const struct cache_item *item,
		  size_t value_bytes, bool keep_expiry)
{
	return measure(store, cache, key, key_bytes, item, value_bytes, keep_expiry);
}

int store_take_extent(struct store *store)
{
	struct cache *cache = store->cache;
	struct shard *shard = store->shard;
	const size_t length = store->extent_bytes;

	pthread_mutex_lock(&shard->lock);
	int status = shard->closed ? DRP_CLOSED : DRP_OK;
	if (status == DRP_OK) {
		admission_step(cache, shard, length); /* before pages are taken for this one */
		const enum arena_part part = admission_choose(shard, store->hash, store->item->cost_ns, store->value_bytes);
		const struct segment *head = shard->arena.logs[part].extents;
		const enum segment_kind kind = shard_extent_kind(shard, length);
		bool urgent = kind == SEGMENT_WHOLE || !head || head->length - head->used < length;
		shard_make_space(cache, shard, kind, length, urgent);
		unsigned tries = 0;
		do
			status = shard_take_extent(cache, shard, part, store->hash, store->value_bytes, &store->segment,
						   &store->extent, &store->is_resident);
		while (status == DRP_NO_MEMORY && shard_gain_space(cache, shard, kind, length, &tries));
		if (status != DRP_OK)
			store->segment = NULL;
	}
	shard_unlock(shard);
	return status;
}

void store_give_up_pages(struct store *store)
{
	if (prim_purge(store_extent_address(store), store->extent_bytes) == DRP_OK)
		return;
	pthread_mutex_lock(&store->shard->lock);
	store->segment->dirty = true;
	pthread_mutex_unlock(&store->shard->lock);
}

/* What comes before the entry is indexed, for a value on pages of its own; without the lock but at its ends. */
static int write_extent(struct store *store, uint16_t *witnesses)
{
	int status = store_take_extent(store);
	if (status != DRP_OK)
		return status;
	unsigned char *address = store_extent_address(store);
	status = witness_write(address, store->item->parts, store->item->part_count, witnesses,
			       store->cache->config.backing == PRIM_DROPPABLE);
	if (status == DRP_OK) {
		if (store->is_resident) /* it keeps its old place in the reclaim order, and must not look unused there */
			prim_touch(address, store->extent_bytes);
		return DRP_OK;
	}
	store_give_up_pages(store);
	return DRP_REFUSED; /* it would not be droppable, or is gone */
}

/* The segment that the older one is in, if its slot was seen in the home bucket and nothing changed since; or NULL. */
static struct segment *home_segment(const struct store *store)
{
	const struct index_home *home = &store->home;

	return home->alike && home->changes == store->shard->index.changes ? small_segment(store->shard, home->alike) : NULL;
}

/* Where the older one is a small entry, as most are, and in that segment. False: nothing was done. */
static bool replace_small(struct store *store, const struct segment *segment, uint64_t place)
{
	struct shard *shard = store->shard;
	struct entry_small older;

	struct index_cursor cursor = index_home_cursor(&shard->index, &store->home, store->hash);
	const size_t offset = arena_place_offset(cursor.place);
	if (!small_find(segment, cursor.place, store->key, store->key_bytes, &older) ||
	    !entry_small_intact(segment->base, offset, arena_stamp(segment->number)))
		return false;
	size_t start;
	return shard_replace(store->cache, shard, &cursor, entry_place(offset, older.bytes, &start) - offset, place);
}

/* Puts an appended entry into the index, in the place of the key's older one if there is one. */
static int publish(struct store *store, uint64_t place)
{
	struct cache *cache = store->cache;
	struct shard *shard = store->shard;
	struct found older;
	struct entry_extent extent;
	uint64_t displaced;

	if (index_home_is_free(&shard->index, &store->home) &&
	    index_home_insert(&shard->index, &store->home, store->hash, place))
		return DRP_OK;
	struct segment *segment = home_segment(store);
	if (segment && replace_small(store, segment, place))
		return DRP_OK;
	const int cause = segment ? shard_find_from(cache, shard, store->hash, store->home.alike, segment, store->key,
						    store->key_bytes, &older)
				  : shard_find(cache, shard, store->hash, store->key, store->key_bytes, &older);
	if (cause < 0) {
		const size_t older_bytes = found_end(&older) - older.offset;
		if (older.entry.flags & ENTRY_EXTENT) {
			entry_copy(&older.reader, NULL, older.entry.meta_bytes);
			if (shard_read_extent(&older, &extent))
				shard_free_extent(cache, shard, &extent, LEAVE_REPLACED, PAGES_REUSED);
		}
		if (shard_replace(cache, shard, &older.cursor, older_bytes, place))
			return DRP_OK;
	}
	int status = index_insert(&shard->index, store->hash, place, &displaced);
	if (displaced)
		shard_evict_place(cache, shard, displaced);
	return status;
}

/* What publish() will read: the entry that stands there now comes from memory while the new one is written. */
static void look_at_home(struct store *store)
{
	const struct shard *shard = store->shard;

	store->home = (struct index_home){0};
	if (shard->closed)
		return;
	store->home = index_home_look(&shard->index, store->hash);
	if (store->home.alike)
		(void)small_segment(shard, store->home.alike);
}

/* An entry that could not be stored for want of memory: the older one of its key must not stand in for it. */
static void forget_older(struct store *store)
{
	struct found older;

	if (shard_find(store->cache, store->shard, store->hash, store->key, store->key_bytes, &older) < 0) {
		entry_copy(&older.reader, NULL, older.entry.meta_bytes);
		shard_forget(store->cache, store->shard, &older.cursor, &older, LEAVE_EVICTED, PAGES_REUSED);
	}
}

/* Does what is there now allow it? The entry takes the other's expiry over, where that is asked for. */
static int look_at_present(struct store *store, const struct cache_update *update)
{
	struct found found;
	struct entry *entry = &store->entry;
	const bool there = find_whole(store->cache, store->shard, store->hash, store->key, store->key_bytes, &found);

	if (there && update->mode == SET_IF_ABSENT)
		return DRP_EXISTS;
	if (!there && (update->mode == SET_IF_PRESENT || update->mode == SET_IF_SAME))
		return DRP_MISS;
	if (update->mode == SET_IF_SAME && ((update->place != 0 && update->place != found_name(&found)) ||
					    (update->version != 0 && update->version != found.entry.version)))
		return DRP_EXISTS;
	if (update->keep_expiry) {
		if (there)
			entry->expires_ns = found.entry.expires_ns;
		entry->flags = (uint8_t)((entry->flags & ~ENTRY_TTL) | (entry->expires_ns ? ENTRY_TTL : 0));
		entry_measure(entry); /* no more than it was measured to be, with an expiry */
	}
	return DRP_OK;
}

static int check_conditions(struct store *store, const struct cache_update *update, int status)
{
	struct shard *shard = store->shard;
	const struct cache_lease *lease = update->lease;

	if (shard->closed)
		return status == DRP_OK ? DRP_CLOSED : status;
	/* Before it could be refused, which would forget what somebody else stored. */
	if (lease && (!leases_hold(&shard->leases, lease) || (update->is_strict && lease->is_overtaken)))
		return DRP_STALE;
	if ((status == DRP_OK || status == DRP_REFUSED) && (update->mode != SET_ALWAYS || update->keep_expiry)) {
		const int seen = look_at_present(store, update);
		if (seen != DRP_OK)
			return seen; /* with all the memory there is it would not be stored either */
	}
	return status;
}

/* Whoever computes the value of this key anew does so for nothing, or may store it too. */
static void tell_leases(struct store *store, const struct cache_update *update)
{
	if (update->lease && !update->is_strict)
		leases_overtake(&store->shard->leases, store->hash);
	else
		leases_revoke(&store->shard->leases, store->hash);
}

static int append(struct store *store, uint64_t *place)
{
	struct cache *cache = store->cache;
	struct shard *shard = store->shard;
	struct entry *entry = &store->entry;
	/* An entry goes with its extent. */
	const enum arena_part part = store->segment ? store->segment->part
						    : admission_choose(shard, store->hash, entry->cost_ns, store->stored_bytes);

	if (!store->segment && shard->arena.memory_is_short)
		admission_step(cache, shard, store->stored_bytes);
	if (entry->flags & ENTRY_VERSION)
		entry->version = atomic_fetch_add_explicit(&cache->last_version, 1, memory_order_relaxed) + 1;
	const unsigned life = entry->flags & ENTRY_TTL ? expiry_life(cache, entry->expires_ns) : 0;
	const struct segment *head = shard->arena.logs[part].entries[life];
	bool urgent = !head || head->length - head->used < store->stored_bytes + prim_page_size();
	if (urgent || !shard_has_space(shard))
		shard_make_space(cache, shard, SEGMENT_ENTRIES, 0, urgent);
	unsigned tries = 0;
	int status;
	do
		status = shard_append(cache, shard, part, entry, store->parts, store->part_count, place);
	while (status == DRP_NO_MEMORY && shard_gain_space(cache, shard, SEGMENT_ENTRIES, 0, &tries));
	if (status != DRP_OK)
		return status;
	status = publish(store, *place);
	if (status != DRP_OK) { /* nothing leads to it */
		size_t start;
		const size_t offset = arena_place_offset(*place);
		shard_leave_place(cache, shard, *place, entry_place(offset, entry->bytes, &start) - offset);
	}
	return status;
}

/* What cache_get() tells of the entry that was appended at a place. */
static uint64_t name_of(const struct shard *shard, uint64_t place)
{
	const struct found found = {.segment = arena_segment(&shard->arena, arena_place_number(place)),
				    .offset = arena_place_offset(place)};
	return found_name(&found);
}

void shard_settle_append(struct cache *cache, struct shard *shard, uint64_t newest_place)
{
	if (shard->opened_bytes > 0)
		admission_look(cache, shard);
	if (shard->marks_due)
		shard_mark(shard, false);
	shard_evict(cache, shard, newest_place);
	if (shard->emptied)
		shard_retire_emptied(cache, shard);
}

int store_enter(struct store *store, struct cache_update *update, int status)
{
	struct cache *cache = store->cache;
	struct shard *shard = store->shard;
	struct segment *segment = store->segment;
	uint64_t place = 0;

	pthread_mutex_lock(&shard->lock);
	look_at_home(store);
	status = check_conditions(store, update, status);
	if (status == DRP_OK)
		status = append(store, &place);
	/* What is set in any case is newer than what was there; what depends on it changed nothing. */
	const bool depends = update->mode == SET_IF_ABSENT || update->mode == SET_IF_SAME || update->is_strict;
	if (status == DRP_REFUSED && !shard->closed) {
		shard->counts.refused++;
		if (!depends)
			forget_older(store);
	}
	if (status == DRP_OK || (status == DRP_REFUSED && !depends && !update->lease))
		tell_leases(store, update);
	if (segment) {
		if (status != DRP_OK)
			shard_free_extent(cache, shard, &store->extent, LEAVE_DROPPED, PAGES_REUSED); /* or was never written whole */
		arena_release(&shard->arena, segment);
	}
	if (status == DRP_OK) {
		update->new_version = store->entry.version;
		if (update->is_strict)
			update->new_place = name_of(shard, place);
		shard->counts.sets++;
		cost_note_store(shard, store->hash, store->entry.cost_ns);
		if (segment)
			shard_audit(cache, shard, 1);
		shard_settle_append(cache, shard, place);
		if (shard->counts.sets % SHRINK_CALLS == 0)
			shard_shrink_index(shard);
	}
	const bool watch = segment || shard->counts.sets % WATCH_CALLS == 0;
	shard_unlock_last(cache, shard);
	if (watch)
		cache_reclaim();
	expiry_pass(cache, EXPIRY_CALL_NS);
	return status;
}

int cache_update(struct cache *cache, const void *key, size_t key_bytes, const struct cache_item *item,
		 struct cache_update *update)
{
	uint16_t on_stack[STACK_WITNESSES], *witnesses = on_stack;
	struct drp_part own[2 + OWN_PARTS] = {{key, key_bytes}, {item->meta, item->meta_bytes}};
	struct drp_part *parts = own;
	struct store store;
	size_t value_bytes = 0;

	update->new_version = 0;
	for (size_t i = 0; i < item->part_count; i++) {
		if (__builtin_add_overflow(value_bytes, item->parts[i].bytes, &value_bytes))
			return DRP_TOO_LARGE;
		if (i < OWN_PARTS)
			own[2 + i] = item->parts[i];
	}
	int status = measure(&store, cache, key, key_bytes, item, value_bytes, update->keep_expiry);
	if (status != DRP_OK)
		return status;
	DRP_ASSERT(!update->lease || (update->lease->cache == cache && update->lease->hash == store.hash));
	const bool on_pages = store.entry.flags & ENTRY_EXTENT;
	store.part_count = 2 + (on_pages ? OWN_PARTS : item->part_count);
	if (store.part_count > 2 + OWN_PARTS) {
		parts = malloc(store.part_count * sizeof(*parts));
		if (!parts)
			return DRP_NO_MEMORY;
		memcpy(parts, own, 2 * sizeof(*parts));
		memcpy(parts + 2, item->parts, item->part_count * sizeof(*parts));
	}
	store.parts = parts;
	if (store.witness_bytes > sizeof(on_stack)) {
		witnesses = malloc(store.witness_bytes);
		if (!witnesses) {
			status = DRP_NO_MEMORY;
			goto out_free;
		}
	}

	const size_t promised_bytes = store.extent_bytes >= LARGE_BYTES ? store.extent_bytes : 0;
	if (promised_bytes)
		cache_promise_headroom(promised_bytes);
	status = cache_has_headroom(cache, store.shard, store.stored_bytes + store.extent_bytes, promised_bytes) ? DRP_OK : DRP_REFUSED;
	if (status == DRP_OK && on_pages) {
		status = write_extent(&store, witnesses);
		parts[2] = (struct drp_part){&store.extent, sizeof(store.extent)};
		parts[3] = (struct drp_part){witnesses, store.witness_bytes};
	}
	if (promised_bytes && status == DRP_OK)
		cache_promise_stored(cache, promised_bytes);
	else if (promised_bytes)
		cache_promise_kept(cache, promised_bytes, false);
	status = store_enter(&store, update, status);
	if (witnesses != on_stack)
		free(witnesses);
out_free:
	if (parts != own)
		free(parts);
	return status;
}

int cache_set(struct cache *cache, const void *key, size_t key_bytes, const struct cache_item *item,
	      enum cache_set_mode mode)
{
	struct cache_update update = {.mode = mode};
	return cache_update(cache, key, key_bytes, item, &update);
}

int cache_set_leased(struct cache *cache, const void *key, size_t key_bytes, const struct cache_item *item,
		     struct cache_lease *lease)
{
	struct cache_update update = {.mode = SET_ALWAYS, .lease = lease};
	return cache_update(cache, key, key_bytes, item, &update);
}
