/*
 * cache/fill.c - see cache/fill.h.
 *
 * A page that the caller has begun to write is dirty, so that it stays until it is marked. One that he has not, or that was marked when it
 * had another value, may still go; what he writes then lands on zeros, and all of it is there. So the witnesses are taken at the
 * commit, of pages that are whole, and then they are marked, step by step.
 */
#include "cache/fill.h"

#include <stdlib.h>

#include "cache/fork.h"
#include "policy/unlock.h"
#include "policy/headroom.h"
#include "cache/set.h"
#include "os/drp_assert.h"
#include "os/hash.h"
#include "log/witness.h"

/* Pages, if the value can lie on them while it is written; else a buffer. */
static int take_memory(struct store *store, struct cache_fill *fill)
{
	if ((store->entry.flags & ENTRY_EXTENT) && store->cache->config.backing == PRIM_LAZYFREE) {
		const int status = store_take_extent(store);
		if (status != DRP_OK)
			return status;
		fill->in_place = true;
		fill->segment = store->segment;
		fill->extent = store->extent;
		fill->is_resident = store->is_resident;
		fill->value = store_extent_address(store);
		return DRP_OK;
	}
	fill->value = malloc(store->value_bytes ? store->value_bytes : 1);
	return fill->value ? DRP_OK : DRP_NO_MEMORY;
}

int cache_set_begin(struct cache *cache, const void *key, size_t key_bytes, const struct cache_item *item, size_t value_bytes,
		    struct cache_fill *fill)
{
	struct store store;

	*fill = (struct cache_fill){0};
	int status = store_measure(&store, cache, key, key_bytes, item, value_bytes, false);
	if (status != DRP_OK)
		return status;
	struct shard *shard = store.shard;
	pthread_mutex_lock(&shard->lock);
	status = shard->closed ? DRP_CLOSED : DRP_OK;
	fill->fork_count = shard->leases.fork_count;
	pthread_mutex_unlock(&shard->lock);
	if (status != DRP_OK)
		return status;
	/* Neither pages that are being written nor a buffer can be dropped: all of it is promised until the fill ends. */
	fill->promised_bytes = store.extent_bytes > value_bytes ? store.extent_bytes : value_bytes;
	cache_promise_headroom(fill->promised_bytes);
	status = cache_has_headroom(cache, shard, store.stored_bytes + fill->promised_bytes, fill->promised_bytes) ? DRP_OK : DRP_REFUSED;
	if (status == DRP_OK)
		status = take_memory(&store, fill);
	if (status != DRP_OK) {
		cache_promise_kept(cache, fill->promised_bytes, false);
		if (status == DRP_REFUSED) {
			pthread_mutex_lock(&shard->lock);
			shard->counts.refused++;
			pthread_mutex_unlock(&shard->lock);
		}
		return status;
	}
	fill->value_bytes = value_bytes;
	fill->hash = store.hash;
	fill->own_pages = item->own_pages;
	fill->cache = cache;
	atomic_fetch_add_explicit(&cache->references, 1, memory_order_relaxed);
	return DRP_OK;
}

/* Was it begun in the parent of this process? What it had there is not here, but for a buffer. */
static bool is_left_behind(const struct cache_fill *fill)
{
	struct shard *shard = shard_of(fill->cache, fill->hash);

	pthread_mutex_lock(&shard->lock);
	const bool left = fill->fork_count != shard->leases.fork_count;
	pthread_mutex_unlock(&shard->lock);
	return left;
}

static void end(struct cache_fill *fill)
{
	struct cache *cache = fill->cache;

	if (!fill->in_place)
		free(fill->value);
	*fill = (struct cache_fill){0};
	cache_release(cache);
}

static void give_back(struct cache_fill *fill)
{
	struct cache *cache = fill->cache;
	struct shard *shard = shard_of(cache, fill->hash);
	struct store store = {.shard = shard, .segment = fill->segment, .extent = fill->extent,
			      .extent_bytes = witness_count(fill->value_bytes) * prim_page_size()};

	store_give_up_pages(&store);
	pthread_mutex_lock(&shard->lock);
	shard_free_extent(cache, shard, &fill->extent, LEAVE_DROPPED, PAGES_REUSED);
	arena_release(&shard->arena, fill->segment);
	shard_unlock_last(cache, shard);
}

void cache_set_abort(struct cache_fill *fill)
{
	if (!fill->cache)
		return;
	if (!is_left_behind(fill)) {
		if (fill->in_place)
			give_back(fill);
		cache_promise_kept(fill->cache, fill->promised_bytes, false);
	}
	end(fill);
}

/* What lies in ordinary memory is stored as any value is. */
static int commit_copy(struct cache_fill *fill, const void *key, size_t key_bytes, struct cache_item *item,
		       struct cache_update *update)
{
	const struct drp_part part = {fill->value, fill->value_bytes};

	item->parts = &part;
	item->part_count = 1;
	cache_promise_kept(fill->cache, fill->promised_bytes, true); /* the buffer is written, and a reading has it */
	return cache_update(fill->cache, key, key_bytes, item, update);
}

static int commit_in_place(struct cache_fill *fill, const void *key, size_t key_bytes, const struct cache_item *item,
			   struct cache_update *update)
{
	struct cache *cache = fill->cache;
	uint16_t on_stack[STACK_WITNESSES], *witnesses = on_stack;
	struct drp_part parts[4] = {{key, key_bytes}, {item->meta, item->meta_bytes}};
	struct store store;

	int status = store_measure(&store, cache, key, key_bytes, item, fill->value_bytes, update->keep_expiry);
	if (status == DRP_OK && store.witness_bytes > sizeof(on_stack)) {
		witnesses = malloc(store.witness_bytes);
		status = witnesses ? DRP_OK : DRP_NO_MEMORY;
	}
	if (status != DRP_OK) {
		give_back(fill);
		cache_promise_kept(cache, fill->promised_bytes, false);
		return status;
	}
	DRP_ASSERT(store.hash == fill->hash && (store.entry.flags & ENTRY_EXTENT));
	store.segment = fill->segment;
	store.extent = fill->extent;
	parts[2] = (struct drp_part){&store.extent, sizeof(store.extent)};
	parts[3] = (struct drp_part){witnesses, store.witness_bytes};
	store.parts = parts;
	store.part_count = 4;
	if (witness_take(fill->value, fill->value_bytes, witnesses) == DRP_OK) {
		if (fill->is_resident) /* as in cache/set.c */
			prim_touch(fill->value, store.extent_bytes);
		cache_promise_stored(cache, fill->promised_bytes);
	} else {
		store_give_up_pages(&store);
		cache_promise_kept(cache, fill->promised_bytes, false);
		status = DRP_REFUSED; /* it would not be droppable */
	}
	status = store_enter(&store, update, status);
	if (witnesses != on_stack)
		free(witnesses);
	return status;
}

int cache_set_commit(struct cache_fill *fill, const void *key, size_t key_bytes, const struct cache_item *item,
		     struct cache_update *update)
{
	struct cache_item as_begun = *item;
	int status;

	if (!fill->cache)
		return DRP_INVALID;
	if (is_left_behind(fill)) {
		end(fill);
		return DRP_STALE;
	}
	as_begun.own_pages = fill->own_pages; /* where the value lies is decided */
	update->new_version = 0;
	status = fill->in_place ? commit_in_place(fill, key, key_bytes, &as_begun, update)
				: commit_copy(fill, key, key_bytes, &as_begun, update);
	end(fill);
	return status;
}
