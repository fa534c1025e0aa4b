/*
 * policy/unlock.c - what is done as a shard's lock is given up, or right after: segments are unmapped, pins given back, pages of
 * the index marked. None of it is done under the lock, for other threads would wait.
 *
 *   retired --arena_take_unmaps()--> graves --arena_unmap()--> unmapped
 *
 * Callers: the files of the cache; cache/fork.c, which holds the graves' lock over a fork.
 */
#include "policy/unlock.h"

#include <stdlib.h>

#include "policy/unpin.h"
#include "store/internal.h"
#include "store/registry.h"

enum {
	WAIT_BYTES = 1 << 20, /* a third of a millisecond to unmap */
};

/*
 * Segments on their way to be unmapped are in this list while no shard names them, so that a forked child finds them: only the
 * thread that has the lock unmaps, and a fork takes it.
 */
static struct {
	pthread_mutex_t lock;
	_Atomic(struct segment *) first; /* by newer */
} graves = {.lock = PTHREAD_MUTEX_INITIALIZER};

void graves_lock(void)
{
	pthread_mutex_lock(&graves.lock);
}

bool graves_try_lock(void)
{
	return pthread_mutex_trylock(&graves.lock) == 0;
}

void graves_unlock(void)
{
	pthread_mutex_unlock(&graves.lock);
}

/* Under the lock of the shard that they were in. */
static void carry_out(struct segment *to_unmap)
{
	struct segment *last = to_unmap;

	while (last->newer)
		last = last->newer;
	last->newer = atomic_load_explicit(&graves.first, memory_order_relaxed);
	while (!atomic_compare_exchange_weak_explicit(&graves.first, &last->newer, to_unmap, memory_order_release,
						      memory_order_relaxed))
		;
}

/* One at a time, for a fork may wait. Who finds the lock taken leaves them to its owner, who looks again. */
void graves_close(void)
{
	while (atomic_load_explicit(&graves.first, memory_order_relaxed) && graves_try_lock()) {
		struct segment *segment = atomic_load_explicit(&graves.first, memory_order_acquire);
		/* Others put some before it, but only here one is taken. */
		while (segment && !atomic_compare_exchange_weak_explicit(&graves.first, &segment, segment->newer,
									 memory_order_acquire, memory_order_acquire))
			;
		if (segment) {
			segment->newer = NULL;
			arena_unmap(segment);
		}
		graves_unlock();
	}
}

/* Much is to be unmapped: the caller may let others run meanwhile. */
static void close_waiting(const struct drp_waits *waits)
{
	void *begun = waits->begin();

	graves_close();
	waits->end(begun);
}

/* cache: whose waits are asked if WAIT_BYTES or more are unmapped; NULL: they are not. */
__attribute__((noinline)) static void unlock_and_do(struct shard *shard, struct cache *cache)
{
	struct segment *to_unmap = arena_take_unmaps(&shard->arena);
	struct pin *leaving = shard->pins.leaving;
	const struct drp_waits *waits = cache && to_unmap && arena_unmap_bytes(to_unmap) >= WAIT_BYTES ? cache->config.waits : NULL;
	struct iovec dirty[SHARD_DIRTY_MOST];
	size_t count = 0;

	if (shard->index.dirty_pages >= shard->dirty_pages_most)
		count = index_take_dirty(&shard->index, dirty, SHARD_DIRTY_MOST);
	if (to_unmap)
		carry_out(to_unmap);
	if (leaving)
		shard->pins.leaving = NULL;
	pthread_mutex_unlock(&shard->lock);
	if (to_unmap)
		waits ? close_waiting(waits) : graves_close();
	if (leaving)
		unpin_give_back(leaving);
	if (count > 0 && index_mark_taken(&shard->index, dirty, count) != DRP_OK) {
		pthread_mutex_lock(&shard->lock);
		index_note_all_dirty(&shard->index);
		pthread_mutex_unlock(&shard->lock);
	}
}

/* Mostly there is nothing to do. */
static inline void unlock(struct shard *shard, struct cache *cache)
{
	if (shard->arena.to_unmap || shard->pins.leaving || shard->index.dirty_pages >= shard->dirty_pages_most)
		unlock_and_do(shard, cache);
	else
		pthread_mutex_unlock(&shard->lock);
}

void shard_unlock(struct shard *shard)
{
	unlock(shard, NULL);
}

void shard_unlock_last(struct cache *cache, struct shard *shard)
{
	unlock(shard, cache);
}

void shard_unlock_emptied(struct shard *shard)
{
	shard_unlock(shard);
	graves_lock();
	pthread_mutex_lock(&shard->lock);
	const struct index_chunks to_unmap = index_take_unmaps(&shard->index);
	pthread_mutex_unlock(&shard->lock);
	index_unmap(to_unmap);
	graves_unlock();
}

void cache_destroy(struct cache *cache)
{
	for (unsigned i = 0; i < cache->shard_count; i++)
		shard_destroy(&cache->shards[i]);
	free(cache);
}

void cache_release(struct cache *cache)
{
	if (atomic_fetch_sub_explicit(&cache->references, 1, memory_order_acq_rel) != 1)
		return;
	/* A fork finds it in the list, or waits until it is gone. */
	registry_lock();
	registry_remove(cache);
	graves_lock();
	registry_unlock();
	cache_destroy(cache);
	graves_unlock();
}
