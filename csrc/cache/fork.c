/*
 * cache/fork.c - what fork() means for caches.
 *
 *   prepare   all locks are taken, so that the child's copy of the ordinary memory is consistent, and nothing is being
 *             unmapped; mappings in which something is held are set to be kept (they are wiped in the child otherwise)
 *   parent    back to wiping; locks released
 *   child     the same, and each cache is emptied: its pages are zeros there. What was held stays valid, on a copy of the pages
 *
 * A mapping is kept whole. To keep the pages of each held value alone would split it in as many parts, of which a process
 * may have 65,530. The child gives the rest of it back at once. Where even that fails, what is held goes to the child as a copy
 * in ordinary memory and is put back there. If there is no memory either, the child ends: it would read zeros.
 *
 * Threads of the parent but the one that forks do not exist in the child, and nobody finishes there what they began:
 *
 *   PINNING    nobody has looked yet whether that value is there: the pin goes, and the child looks itself
 *   FREEING    nobody holds it: the pin goes, its pages are marked
 *   users      of each segment are counted anew. With share_on_fork, pages that such a thread was writing are marked, and what is
 *              live in that segment is counted: a value that was not in the index yet is dead
 *
 * The thread that forks may itself be amid a call, in a callback of its sink: what it has begun stays (struct callback).
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cache/cache.h"
#include "cache/fork.h"
#include "policy/unlock.h"
#include "store/internal.h"
#include "store/registry.h"
#include "policy/headroom.h"
#include "store/deferred.h"
#include "os/drp_assert.h"
#include "policy/cleaner.h"

/* On the stack of a thread in a callback: what it has in use. */
struct callback {
	struct callback *outer;
	struct shard *shard;
	struct segment *segment;
	struct pin *pin;
};

static pthread_once_t fork_once = PTHREAD_ONCE_INIT;
static int fork_status; /* whether the handlers are there; written once */
static _Thread_local struct callback *callbacks;

void cache_begin_copy(struct cache_sink *sink, size_t bytes, struct shard *shard, struct segment *segment, struct pin *pin)
{
	struct callback own = {callbacks, shard, segment, pin};

	if (!sink->begin_copy)
		return;
	callbacks = &own;
	sink->begin_copy(sink, bytes);
	callbacks = own.outer;
}

void cache_end_copy(struct cache_sink *sink, struct shard *shard, struct segment *segment)
{
	struct callback own = {callbacks, shard, segment, NULL};

	if (!sink->end_copy)
		return;
	callbacks = &own;
	sink->end_copy(sink);
	callbacks = own.outer;
}

/* The pin may be removed. */
static void each_pin(struct shard *shard, void (*what)(struct shard *shard, struct pin *pin))
{
	for (size_t i = 0; i < shard->pins.bucket_count; i++)
		for (struct pin *pin = shard->pins.buckets[i], *next; pin; pin = next) {
			next = pin->next;
			what(shard, pin);
		}
}

static void each_segment(struct shard *shard, void (*what)(struct segment *segment))
{
	for (struct segment *segment = arena_next(&shard->arena, NULL), *next; segment; segment = next) {
		next = arena_next(&shard->arena, segment);
		what(segment);
	}
	for (struct segment *segment = shard->arena.zombies, *next; segment; segment = next) {
		next = segment->newer;
		what(segment);
	}
}

static bool is_held(const struct pin *pin)
{
	return pin->state == PIN_HELD && pin->count > 0;
}

static void keep_mapping(struct shard *shard, struct pin *pin)
{
	struct segment *segment = pin->segment;

	(void)shard;
	if (!is_held(pin) || segment->fork_plan != FORK_NONE)
		return;
	segment->unwiped = true;
	segment->fork_plan = prim_fork_content(segment->base, segment->length, true) == DRP_OK ? FORK_KEEP : FORK_COPY;
}

static void copy_held(struct shard *shard, struct pin *pin)
{
	if (!is_held(pin) || pin->segment->fork_plan != FORK_COPY || !cache_headroom_is_known(pin->cache, shard, pin->bytes))
		return;
	pin->copy = malloc(pin->bytes);
	if (pin->copy)
		memcpy(pin->copy, pin->address, pin->bytes);
}

static void forget_copy(struct shard *shard, struct pin *pin)
{
	(void)shard;
	free(pin->copy);
	pin->copy = NULL;
	pin->segment->fork_plan = FORK_NONE;
}

/* What fails is tried again at the next fork; such a mapping is not used for anything else. */
static void wipe_again(struct segment *segment)
{
	if (segment->unwiped && prim_fork_content(segment->base, segment->length, false) == DRP_OK)
		segment->unwiped = false;
}

static void before_fork(void)
{
	registry_lock();
	graves_lock();
	for (struct cache *cache = registry_first(); cache; cache = cache->registry_next)
		for (unsigned i = 0; i < cache->shard_count; i++)
			pthread_mutex_lock(&cache->shards[i].lock);
	deferred_lock();
	for (struct cache *cache = registry_first(); cache; cache = cache->registry_next)
		for (unsigned i = 0; i < cache->shard_count && !cache->config.share_on_fork; i++) {
			struct shard *shard = &cache->shards[i];
			each_segment(shard, wipe_again);
			each_pin(shard, keep_mapping);
			each_pin(shard, copy_held);
		}
}

static void after_fork_in_parent(void)
{
	deferred_unlock();
	graves_unlock();
	for (struct cache *cache = registry_first(); cache; cache = cache->registry_next)
		for (unsigned i = 0; i < cache->shard_count; i++) {
			struct shard *shard = &cache->shards[i];
			if (!cache->config.share_on_fork) {
				each_pin(shard, forget_copy);
				each_segment(shard, wipe_again);
			}
			pthread_mutex_unlock(&shard->lock);
		}
	registry_unlock();
	graves_close();
}

static bool is_own(const struct pin *pin)
{
	for (const struct callback *own = callbacks; own; own = own->outer)
		if (own->pin == pin)
			return true;
	return false;
}

/* In the child: a pin that another thread was just taking or giving back. */
static void end_unfinished(struct shard *shard, struct pin *pin)
{
	struct segment *segment = pin->segment;

	if (pin->state == PIN_HELD || is_own(pin))
		return;
	if (pin->cache->config.share_on_fork && prim_mark(pin->address, pin->bytes) != DRP_OK)
		segment->dirty = true;
	atomic_fetch_sub_explicit(&pin->cache->references, 1, memory_order_relaxed);
	pins_remove(&shard->pins, pin);
	segment->users--;
}

/* Fewer users for each pin and each callback of this thread: what is left are those of threads that are not there. */
static void count_off(struct shard *shard, struct pin *pin)
{
	(void)shard;
	DRP_ASSERT(pin->segment->users > 0);
	pin->segment->users--;
}

static void count_on(struct shard *shard, struct pin *pin)
{
	(void)shard;
	pin->segment->users++;
}

static void note_left_behind(struct segment *segment)
{
	segment->left_behind = segment->users > 0;
	segment->users = 0;
}

static void recount_users(struct shard *shard)
{
	each_pin(shard, count_off);
	for (const struct callback *own = callbacks; own; own = own->outer)
		if (own->shard == shard && !own->pin)
			own->segment->users--;
	each_segment(shard, note_left_behind);
	each_pin(shard, count_on);
	for (const struct callback *own = callbacks; own; own = own->outer)
		if (own->shard == shard && !own->pin)
			own->segment->users++;
}

/* The bits of pages that are in use serve for those that are pinned: where this is asked for nothing else needs them. */
static void clear_pinned(struct segment *segment)
{
	for (size_t i = segment_words(segment->kind, segment->length); i-- > 0;)
		segment->pages[i].referenced = 0;
}

static void clear_pinned_of(struct shard *shard, struct pin *pin)
{
	(void)shard;
	clear_pinned(pin->segment);
}

static void clear_if_left(struct segment *segment)
{
	if (segment->left_behind)
		clear_pinned(segment);
}

static void note_pinned(struct shard *shard, struct pin *pin)
{
	struct segment *segment = pin->segment;
	const size_t offset = (size_t)(pin->address - segment->base);

	(void)shard;
	if (pin->state == PIN_HELD)
		segment_note_referenced(segment, segment->kind == SEGMENT_WHOLE ? 0 : offset,
				  segment->kind == SEGMENT_WHOLE ? 1 : offset + pin->bytes);
}

/* All of a segment that is not pinned is given to the kernel one way or the other. False: it could not be. */
static bool give_rest(struct segment *segment, int (*give)(void *address, size_t length))
{
	const size_t page = prim_page_size(), pages = segment->length / page;
	bool given = true;

	if (segment->kind == SEGMENT_WHOLE)
		return segment_is_referenced(segment, 0) || give(segment->base, segment->length) == DRP_OK;
	for (size_t first = 0, end; first < pages; first = end + 1) {
		for (end = first; end < pages && !segment_is_referenced(segment, end);)
			end++;
		if (end > first)
			given &= give(segment->base + first * page, (end - first) * page) == DRP_OK;
	}
	return given;
}

static void put_back(struct shard *shard, struct pin *pin)
{
	(void)shard;
	if (!is_held(pin))
		return;
	if (pin->copy) {
		memcpy(pin->address, pin->copy, pin->bytes);
	} else if (pin->segment->fork_plan == FORK_COPY) {
		fputs("droppable: no memory to keep a value over fork() that is held in the child\n", stderr);
		abort();
	}
}

/* Once for each mapping that was to be kept. */
static void give_rest_of(struct shard *shard, struct pin *pin)
{
	if (pin->segment->fork_plan != FORK_NONE && !give_rest(pin->segment, prim_purge) &&
	    !give_rest(pin->segment, prim_mark))
		pin->segment->dirty = true; /* it is unmapped once nothing is held in it */
	forget_copy(shard, pin);
}

static void forget_deferred(struct shard *shard, struct pin *pin)
{
	if (pin->deferred)
		deferred_forget(shard, pin);
}

static void empty_in_child(struct cache *cache, struct shard *shard)
{
	each_pin(shard, forget_deferred);
	recount_users(shard);
	each_pin(shard, clear_pinned_of);
	each_pin(shard, note_pinned);
	each_pin(shard, put_back);
	each_pin(shard, give_rest_of);
	each_segment(shard, wipe_again);
	shard_empty(cache, shard);
}

static void mark_what_others_wrote(struct segment *segment)
{
	if (segment->left_behind && segment->kind != SEGMENT_ENTRIES && !give_rest(segment, prim_mark))
		segment->dirty = true;
}

static void share_in_child(struct cache *cache, struct shard *shard)
{
	recount_users(shard);
	each_segment(shard, clear_if_left);
	each_pin(shard, note_pinned);
	each_segment(shard, mark_what_others_wrote);
	index_note_all_dirty(&shard->index);
	for (struct segment *segment = arena_next(&shard->arena, NULL), *next; segment; segment = next) {
		next = arena_next(&shard->arena, segment);
		if (segment->left_behind && segment->kind != SEGMENT_ENTRIES)
			shard_audit_segment(cache, shard, segment);
	}
}

static void child_shard(struct cache *cache, struct shard *shard)
{
	shard->index.board = shard->arena.board = NULL; /* it is the parent's: readers know nothing of this process */
	pthread_cond_init(&shard->pin_changed, NULL);
	shard->pins.leaving = NULL; /* they are unfinished */
	atomic_store_explicit(&shard->index.users, 0, memory_order_relaxed); /* of this thread there are none */
	leases_forget(&shard->leases);
	each_pin(shard, end_unfinished);
	if (cache->config.share_on_fork)
		share_in_child(cache, shard);
	else
		empty_in_child(cache, shard);
	arena_unmap_zombies(&shard->arena);
	index_unmap(index_take_unmaps(&shard->index));
}

static void after_fork_in_child(void)
{
	deferred_unlock();
	graves_unlock();
	cache_headroom_in_child();
	for (struct cache *cache = registry_first(), *next; cache; cache = next) {
		next = cache->registry_next;
		for (unsigned i = 0; i < cache->shard_count; i++) {
			child_shard(cache, &cache->shards[i]);
			shard_unlock(&cache->shards[i]);
		}
		if (atomic_load_explicit(&cache->references, memory_order_relaxed) == 0) {
			registry_remove(cache); /* the thread that was about to do so is not here, or its pin was the last */
			cache_destroy(cache);
		}
	}
	registry_unlock();
	graves_close();
}

static void register_fork_handlers(void)
{
	fork_status = pthread_atfork(before_fork, after_fork_in_parent, after_fork_in_child) == 0 ? DRP_OK : DRP_NO_MEMORY;
}

int cache_register(struct cache *cache)
{
	/* No lock is held meanwhile: another thread may fork before the handlers are there, and its child would find it locked. */
	pthread_once(&fork_once, register_fork_handlers);
	if (fork_status != DRP_OK)
		return fork_status;
	registry_lock();
	registry_add(cache);
	registry_unlock();
	return DRP_OK;
}
