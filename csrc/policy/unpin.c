/*
 * policy/unpin.c - see policy/unpin.h for the picture.
 *
 * How much may be deferred, over all caches of the process: a share of the memory limit, 4 to 64 MiB, and at most a sixteenth of
 * the room that is left (policy/headroom.c). The room is read again by the calls that come along: inserts, and gets now and
 * then. Each reading sets the bound anew and sends the hand round once, so a pin that is not used between two readings
 * goes; the less room there is, the shorter they are apart. An insert that finds no room takes everything first.
 *
 * A pin that is given back was in use until then: it is touched after it is marked (ADR 0003).
 */
#include "policy/unpin.h"

#include "policy/unlock.h"
#include "store/deferred.h"
#include "store/internal.h"

enum {
	LIMIT_SHARE = 64,
	ROOM_SHARE = 16,
	SLACK_SHARE = 8, /* of the bound: when there is too much, that much less is left, so that marks come in batches */
	PINS_MAX = 1024,
	STEP_PINS = 32,
};

#define LEAST_BYTES (UINT64_C(4) << 20)
#define MOST_BYTES (UINT64_C(64) << 20)
#define STEP_BYTES ((size_t)2 << 20) /* marked in one step: 40 us */

static _Atomic uint64_t bound_bytes; /* so much may be deferred */
static _Atomic size_t due_pins;      /* that the hand has still to look at since the room was read */

bool unpin_defer(struct shard *shard, struct pin *pin)
{
	const bool may = !pin->forgotten && !shard->closed && pin->segment->state != SEGMENT_ZOMBIE &&
			 pin->bytes <= atomic_load_explicit(&bound_bytes, memory_order_relaxed);

	if (may && !pin->in_ring)
		deferred_enter(pin);
	else if (!may && pin->in_ring)
		deferred_leave(pin);
	if (may)
		pins_defer(&shard->pins, pin);
	return may;
}

static int mark_and_touch(unsigned char *address, size_t bytes)
{
	const int status = prim_mark(address, bytes);

	prim_touch(address, bytes);
	return status;
}

void unpin_leave(struct shard *shard, struct segment *segment)
{
	struct pins *pins = &shard->pins;

	for (size_t i = 0; i < pins->bucket_count && segment->deferred > 0; i++)
		for (struct pin *pin = pins->buckets[i], *next; pin; pin = next) {
			next = pin->next;
			if (!pin->deferred || pin->segment != segment)
				continue;
			if (mark_and_touch(pin->address, pin->bytes) != DRP_OK && !give_up_pages(pin->address, pin->bytes))
				segment->dirty = true;
			deferred_forget(shard, pin);
		}
}

static void sort_by_address(struct pin **pins, size_t count)
{
	for (size_t i = 1; i < count; i++) /* few: by insertion */
		for (size_t k = i; k > 0 && pins[k]->address < pins[k - 1]->address; k--) {
			struct pin *swapped = pins[k];
			pins[k] = pins[k - 1];
			pins[k - 1] = swapped;
		}
}

static void mark_runs(struct pin **pins, size_t count, bool *marked)
{
	for (size_t i = 0, end; i < count; i = end) {
		size_t bytes = pins[i]->bytes;
		for (end = i + 1; end < count && pins[end]->segment == pins[i]->segment && !pins[i]->useless &&
				  !pins[end]->useless && pins[end]->address == pins[i]->address + bytes; end++)
			bytes += pins[end]->bytes;
		const bool done = !pins[i]->useless && mark_and_touch(pins[i]->address, bytes) == DRP_OK;
		for (size_t k = i; k < end; k++)
			marked[k] = done;
	}
}

/*
 * Under the shard's lock, which is given up in between: ends a pin, or defers that once more. What is of no use to anybody goes at
 * once, but for a large value, whose mapping may be written again. True: it ended.
 */
static bool finish_pin(struct shard *shard, struct pin *pin, bool marked)
{
	struct segment *segment = pin->segment;

	if (!marked && !pin->forgotten && unpin_defer(shard, pin)) {
		pin->state = PIN_HELD;
		return false;
	}
	/* forgotten: before, or while its pages were marked */
	if (!marked || (pin->forgotten && segment->kind == SEGMENT_EXTENTS)) {
		pthread_mutex_unlock(&shard->lock);
		const bool purged = prim_purge(pin->address, pin->bytes) == DRP_OK;
		pthread_mutex_lock(&shard->lock);
		if (!purged && !marked && prim_mark(pin->address, pin->bytes) != DRP_OK)
			segment->dirty = true;
		if (purged && pin->forgotten && segment->kind == SEGMENT_EXTENTS && segment->state != SEGMENT_ZOMBIE)
			reuse_note_absent(shard, segment, (size_t)(pin->address - segment->base) / prim_page_size(),
					  pin->bytes / prim_page_size());
	}
	pin_end(shard, pin);
	return true;
}

static void give_back(struct pin **pins, size_t count)
{
	bool marked[STEP_PINS];

	sort_by_address(pins, count);
	mark_runs(pins, count, marked);
	for (size_t i = 0; i < count; i++) {
		struct cache *cache = pins[i]->cache;
		struct shard *shard = &cache->shards[pins[i]->shard];
		pthread_mutex_lock(&shard->lock);
		const bool ended = finish_pin(shard, pins[i], marked[i]);
		pthread_cond_broadcast(&shard->pin_changed);
		shard_unlock(shard);
		if (ended)
			cache_release(cache);
	}
}

void unpin_give_back(struct pin *pins)
{
	while (pins) {
		struct pin *some[STEP_PINS];
		size_t count = 0, bytes = 0;
		for (; pins && count < STEP_PINS && bytes < STEP_BYTES; pins = pins->ring_next) {
			bytes += pins->bytes;
			some[count++] = pins;
		}
		give_back(some, count);
	}
}

static bool is_over(uint64_t bytes, size_t pins)
{
	return deferred_bytes() > bytes || deferred_count() > pins;
}

/*
 * The hand goes on over *pins pins at most, until no more than bytes are left, and gives back what was not used, or, if
 * all, whatever is deferred. How many that were; *pins: how many it looked at.
 */
static size_t step(uint64_t bytes, bool all, size_t *pins)
{
	struct pin *taken[STEP_PINS];
	size_t count = 0, taken_bytes = 0, looked = 0;

	deferred_lock();
	for (; deferred_bytes() > bytes && looked < *pins && count < STEP_PINS && taken_bytes < STEP_BYTES; looked++) {
		struct pin *pin = deferred_next();
		if (!pin)
			break;
		struct shard *shard = &pin->cache->shards[pin->shard];
		if (pthread_mutex_trylock(&shard->lock) != 0)
			continue; /* somebody is in there, who may wait for the ring's lock: another time */
		if (pin->count > 0) {
			deferred_unlink(pin); /* is asked about anew when it is let go */
		} else if (pin->used && !all) {
			pin->used = false;
		} else {
			deferred_unlink(pin);
			pins_take_up(&shard->pins, pin);
			pins_begin_free(pin);
			taken_bytes += pin->bytes;
			taken[count++] = pin;
		}
		pthread_mutex_unlock(&shard->lock);
	}
	deferred_unlock();
	give_back(taken, count);
	*pins = looked;
	return count;
}

/* Steps until no more than bytes and pins are left; twice round at most, for shards may be busy. */
static size_t cut(uint64_t bytes, size_t pins, bool all)
{
	size_t given_back = 0, left = 2 * deferred_count();

	while (left > 0 && is_over(bytes, pins)) {
		size_t looked = left < STEP_PINS ? left : STEP_PINS;
		given_back += step(deferred_bytes() > bytes ? bytes : 0, all, &looked);
		left -= looked;
		if (looked == 0)
			break;
	}
	return given_back;
}

void unpin_set_headroom(uint64_t limit_bytes, int64_t room_bytes)
{
	uint64_t bound = limit_bytes / LIMIT_SHARE;

	if (bound < LEAST_BYTES)
		bound = LEAST_BYTES;
	if (bound > MOST_BYTES)
		bound = MOST_BYTES;
	if (room_bytes < 0)
		room_bytes = 0;
	if (bound > (uint64_t)room_bytes / ROOM_SHARE)
		bound = (uint64_t)room_bytes / ROOM_SHARE;
	atomic_store_explicit(&bound_bytes, bound, memory_order_relaxed);
	atomic_store_explicit(&due_pins, deferred_count(), memory_order_relaxed);
}

void unpin_trim(void)
{
	const uint64_t bound = atomic_load_explicit(&bound_bytes, memory_order_relaxed);

	if (deferred_bytes() == 0)
		return;
	if (is_over(bound, PINS_MAX)) {
		(void)cut(bound - bound / SLACK_SHARE, PINS_MAX - PINS_MAX / SLACK_SHARE, false);
	} else {
		size_t due = atomic_load_explicit(&due_pins, memory_order_relaxed), looked = due;
		if (looked > 2 * STEP_PINS)
			looked = 2 * STEP_PINS;
		if (looked == 0)
			return;
		(void)step(0, false, &looked);
		atomic_store_explicit(&due_pins, looked > 0 ? due - looked : 0, memory_order_relaxed);
	}
}

bool unpin_all(void)
{
	return cut(0, 0, true) > 0;
}
