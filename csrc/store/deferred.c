/*
 * store/deferred.c - see store/deferred.h for the picture.
 */
#include "store/deferred.h"

#include "os/drp_assert.h"
#include "store/internal.h"

static struct {
	pthread_mutex_t lock;
	struct pin *hand; /* the next pin to look at; new ones come in behind it. NULL: the ring is empty */
	_Atomic size_t count;
	_Atomic uint64_t bytes;
} ring = {.lock = PTHREAD_MUTEX_INITIALIZER};

uint64_t deferred_bytes(void)
{
	return atomic_load_explicit(&ring.bytes, memory_order_relaxed);
}

size_t deferred_count(void)
{
	return atomic_load_explicit(&ring.count, memory_order_relaxed);
}

void deferred_lock(void)
{
	pthread_mutex_lock(&ring.lock);
}

void deferred_unlock(void)
{
	pthread_mutex_unlock(&ring.lock);
}

void deferred_enter(struct pin *pin)
{
	deferred_lock();
	struct pin *hand = ring.hand ? ring.hand : pin;
	pin->ring_next = hand;
	pin->ring_previous = ring.hand ? hand->ring_previous : pin;
	pin->ring_previous->ring_next = pin;
	hand->ring_previous = pin;
	ring.hand = hand;
	atomic_fetch_add_explicit(&ring.count, 1, memory_order_relaxed);
	atomic_fetch_add_explicit(&ring.bytes, pin->bytes, memory_order_relaxed);
	pin->in_ring = true;
	deferred_unlock();
}

void deferred_unlink(struct pin *pin)
{
	DRP_ASSERT(pin->in_ring && ring.hand && deferred_count() > 0 && deferred_bytes() >= pin->bytes);
	if (ring.hand == pin)
		ring.hand = pin->ring_next == pin ? NULL : pin->ring_next;
	pin->ring_previous->ring_next = pin->ring_next;
	pin->ring_next->ring_previous = pin->ring_previous;
	atomic_fetch_sub_explicit(&ring.count, 1, memory_order_relaxed);
	atomic_fetch_sub_explicit(&ring.bytes, pin->bytes, memory_order_relaxed);
	pin->in_ring = false;
}

void deferred_leave(struct pin *pin)
{
	deferred_lock();
	deferred_unlink(pin);
	deferred_unlock();
}

struct pin *deferred_next(void)
{
	struct pin *pin = ring.hand;

	if (pin)
		ring.hand = pin->ring_next;
	return pin;
}

void deferred_use(struct shard *shard, struct pin *pin)
{
	pins_take_up(&shard->pins, pin);
	pin->used = true;
}

void pin_end(struct shard *shard, struct pin *pin)
{
	struct segment *segment = pin->segment;

	pins_remove(&shard->pins, pin);
	arena_release(&shard->arena, segment);
}

void deferred_forget(struct shard *shard, struct pin *pin)
{
	deferred_leave(pin);
	pins_take_up(&shard->pins, pin);
	/* Never the last one: who has the shard's lock came here with a reference. */
	atomic_fetch_sub_explicit(&pin->cache->references, 1, memory_order_relaxed);
	pin_end(shard, pin);
}

void deferred_free(struct shard *shard, struct pin *pin)
{
	deferred_leave(pin);
	pins_take_up(&shard->pins, pin);
	pins_begin_free(pin);
	pin->ring_next = shard->pins.leaving;
	shard->pins.leaving = pin;
}

void deferred_free_all(struct shard *shard)
{
	const struct pins *pins = &shard->pins;

	for (size_t i = 0; i < pins->bucket_count && pins->deferred_bytes > 0; i++)
		for (struct pin *pin = pins->buckets[i]; pin; pin = pin->next)
			if (pin->deferred)
				deferred_free(shard, pin);
}

void deferred_retire(struct shard *shard, const struct segment *segment)
{
	const struct pins *pins = &shard->pins;

	for (size_t i = 0; i < pins->bucket_count && segment->deferred > 0; i++)
		for (struct pin *pin = pins->buckets[i]; pin; pin = pin->next)
			if (pin->deferred && pin->segment == segment) {
				pin->forgotten = true;
				deferred_free(shard, pin);
			}
}

void deferred_empty(struct shard *shard)
{
	struct pins *pins = &shard->pins;

	for (size_t i = 0; i < pins->bucket_count && pins->deferred_bytes > 0; i++)
		for (struct pin *pin = pins->buckets[i], *next; pin; pin = next) {
			next = pin->next;
			if (!pin->deferred)
				continue;
			if (pin->segment->users == pin->segment->deferred) {
				pin->segment->dirty = true;
				deferred_forget(shard, pin);
			} else {
				pin->forgotten = true;
				deferred_free(shard, pin);
			}
		}
}
