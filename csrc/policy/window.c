/*
 * policy/window.c - see policy/window.h for the picture.
 *
 * How much may rest, over all caches of the process: a share of the memory limit, 4 to 64 MiB, and at most a sixteenth of
 * the room that is left (policy/room.c). The room is read again by the calls that come along: inserts, and gets now and
 * then. Each reading sets the bound anew and sends the hand round once, so a pin that is not used between two readings
 * goes; the less room there is, the shorter they are apart. An insert that finds no room takes everything first.
 *
 * A pin that is given back was in use until then: it is touched after it is marked (ADR 0003).
 */
#include "policy/window.h"

#include "policy/unlock.h"
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

static struct {
	pthread_mutex_t lock;
	struct pin *hand; /* the next pin to look at; new ones come in behind it. NULL: the ring is empty */
	_Atomic size_t pin_count;
	_Atomic uint64_t bytes, bound_bytes;
	_Atomic size_t due_pins; /* that the hand has still to look at since the room was read */
} window = {.lock = PTHREAD_MUTEX_INITIALIZER};

static void link_pin(struct pin *pin)
{
	struct pin *hand = window.hand ? window.hand : pin;

	pin->ring_next = hand;
	pin->ring_previous = window.hand ? hand->ring_previous : pin;
	pin->ring_previous->ring_next = pin;
	hand->ring_previous = pin;
	window.hand = hand;
	atomic_fetch_add_explicit(&window.pin_count, 1, memory_order_relaxed);
	atomic_fetch_add_explicit(&window.bytes, pin->bytes, memory_order_relaxed);
	pin->in_window = true;
}

static void unlink_pin(struct pin *pin)
{
	if (window.hand == pin)
		window.hand = pin->ring_next == pin ? NULL : pin->ring_next;
	pin->ring_previous->ring_next = pin->ring_next;
	pin->ring_next->ring_previous = pin->ring_previous;
	atomic_fetch_sub_explicit(&window.pin_count, 1, memory_order_relaxed);
	atomic_fetch_sub_explicit(&window.bytes, pin->bytes, memory_order_relaxed);
	pin->in_window = false;
}

uint64_t window_bytes(void)
{
	return atomic_load_explicit(&window.bytes, memory_order_relaxed);
}

static size_t pin_count(void)
{
	return atomic_load_explicit(&window.pin_count, memory_order_relaxed);
}

void window_lock(void)
{
	pthread_mutex_lock(&window.lock);
}

void window_unlock(void)
{
	pthread_mutex_unlock(&window.lock);
}

bool window_keep(struct shard *shard, struct pin *pin)
{
	const bool may = !pin->forgotten && !shard->closed && pin->segment->state != SEGMENT_ZOMBIE &&
			 pin->bytes <= atomic_load_explicit(&window.bound_bytes, memory_order_relaxed);

	if (may != pin->in_window) {
		window_lock();
		if (may)
			link_pin(pin);
		else
			unlink_pin(pin);
		window_unlock();
	}
	if (may)
		pins_rest(&shard->pins, pin);
	return may;
}

void window_use(struct shard *shard, struct pin *pin)
{
	pins_wake(&shard->pins, pin);
	pin->used = true;
}

/* The end of a pin, under its shard's lock. Its reference to the cache is left to the caller. */
static void end_pin(struct shard *shard, struct pin *pin)
{
	struct segment *segment = pin->segment;

	pins_remove(&shard->pins, pin);
	arena_release(&shard->arena, segment);
}

void window_forget(struct shard *shard, struct pin *pin)
{
	window_lock();
	unlink_pin(pin);
	window_unlock();
	pins_wake(&shard->pins, pin);
	/* Never the last one: who has the shard's lock came here with a reference. */
	atomic_fetch_sub_explicit(&pin->cache->references, 1, memory_order_relaxed);
	end_pin(shard, pin);
}

static int mark_and_touch(unsigned char *address, size_t bytes)
{
	const int status = prim_mark(address, bytes);

	prim_touch(address, bytes);
	return status;
}

void window_let_go(struct shard *shard, struct pin *pin)
{
	window_lock();
	unlink_pin(pin);
	window_unlock();
	pins_wake(&shard->pins, pin);
	pins_begin_free(pin);
	pin->ring_next = shard->pins.leaving;
	shard->pins.leaving = pin;
}

void window_let_all_go(struct shard *shard)
{
	const struct pins *pins = &shard->pins;

	for (size_t i = 0; i < pins->bucket_count && pins->resting_bytes > 0; i++)
		for (struct pin *pin = pins->buckets[i]; pin; pin = pin->next)
			if (pin->resting)
				window_let_go(shard, pin);
}

void window_retire(struct shard *shard, const struct segment *segment)
{
	const struct pins *pins = &shard->pins;

	for (size_t i = 0; i < pins->bucket_count && segment->resting > 0; i++)
		for (struct pin *pin = pins->buckets[i]; pin; pin = pin->next)
			if (pin->resting && pin->segment == segment) {
				pin->forgotten = true;
				window_let_go(shard, pin);
			}
}

void window_leave(struct shard *shard, struct segment *segment)
{
	struct pins *pins = &shard->pins;

	for (size_t i = 0; i < pins->bucket_count && segment->resting > 0; i++)
		for (struct pin *pin = pins->buckets[i], *next; pin; pin = next) {
			next = pin->next;
			if (!pin->resting || pin->segment != segment)
				continue;
			if (mark_and_touch(pin->address, pin->bytes) != DRP_OK && !give_up_pages(pin->address, pin->bytes))
				segment->dirty = true;
			window_forget(shard, pin);
		}
}

void window_empty(struct shard *shard)
{
	struct pins *pins = &shard->pins;

	for (size_t i = 0; i < pins->bucket_count && pins->resting_bytes > 0; i++)
		for (struct pin *pin = pins->buckets[i], *next; pin; pin = next) {
			next = pin->next;
			if (!pin->resting)
				continue;
			if (pin->segment->users == pin->segment->resting) {
				pin->segment->dirty = true;
				window_forget(shard, pin);
			} else {
				pin->forgotten = true;
				window_let_go(shard, pin);
			}
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
 * Under the shard's lock, which is given up in between: ends a pin, or lets it rest again. What is of no use to anybody goes at
 * once, but for a large value, whose mapping may be written again. True: it ended.
 */
static bool finish_pin(struct shard *shard, struct pin *pin, bool marked)
{
	struct segment *segment = pin->segment;

	if (!marked && !pin->forgotten && window_keep(shard, pin)) {
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
			rewrite_note_absent(shard, segment, (size_t)(pin->address - segment->base) / prim_page_size(),
					  pin->bytes / prim_page_size());
	}
	end_pin(shard, pin);
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

void window_give_back(struct pin *pins)
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
	return window_bytes() > bytes || pin_count() > pins;
}

/*
 * The hand goes on over *pins pins at most, until no more than bytes are left, and gives back what was not used, or, if
 * all, whatever rests. How many that were; *pins: how many it looked at.
 */
static size_t step(uint64_t bytes, bool all, size_t *pins)
{
	struct pin *taken[STEP_PINS];
	size_t count = 0, taken_bytes = 0, looked = 0;

	window_lock();
	for (; window.hand && window_bytes() > bytes && looked < *pins && count < STEP_PINS && taken_bytes < STEP_BYTES;
	     looked++) {
		struct pin *pin = window.hand;
		struct shard *shard = &pin->cache->shards[pin->shard];
		window.hand = pin->ring_next;
		if (pthread_mutex_trylock(&shard->lock) != 0)
			continue; /* somebody is in there, who may wait for the window's lock: another time */
		if (pin->count > 0) {
			unlink_pin(pin); /* is asked about anew when it is let go */
		} else if (pin->used && !all) {
			pin->used = false;
		} else {
			unlink_pin(pin);
			pins_wake(&shard->pins, pin);
			pins_begin_free(pin);
			taken_bytes += pin->bytes;
			taken[count++] = pin;
		}
		pthread_mutex_unlock(&shard->lock);
	}
	window_unlock();
	give_back(taken, count);
	*pins = looked;
	return count;
}

/* Steps until no more than bytes and pins are left; twice round at most, for shards may be busy. */
static size_t cut(uint64_t bytes, size_t pins, bool all)
{
	size_t given_back = 0, left = 2 * pin_count();

	while (left > 0 && is_over(bytes, pins)) {
		size_t looked = left < STEP_PINS ? left : STEP_PINS;
		given_back += step(window_bytes() > bytes ? bytes : 0, all, &looked);
		left -= looked;
		if (looked == 0)
			break;
	}
	return given_back;
}

void window_set_room(uint64_t limit_bytes, int64_t room_bytes)
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
	atomic_store_explicit(&window.bound_bytes, bound, memory_order_relaxed);
	atomic_store_explicit(&window.due_pins, pin_count(), memory_order_relaxed);
}

void window_trim(void)
{
	const uint64_t bound = atomic_load_explicit(&window.bound_bytes, memory_order_relaxed);

	if (window_bytes() == 0)
		return;
	if (is_over(bound, PINS_MAX)) {
		(void)cut(bound - bound / SLACK_SHARE, PINS_MAX - PINS_MAX / SLACK_SHARE, false);
	} else {
		size_t due = atomic_load_explicit(&window.due_pins, memory_order_relaxed), looked = due;
		if (looked > 2 * STEP_PINS)
			looked = 2 * STEP_PINS;
		if (looked == 0)
			return;
		(void)step(0, false, &looked);
		atomic_store_explicit(&window.due_pins, looked > 0 ? due - looked : 0, memory_order_relaxed);
	}
}

bool window_release(void)
{
	return cut(0, 0, true) > 0;
}
