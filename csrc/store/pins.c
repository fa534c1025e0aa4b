/*
 * pins.c - see pins.h for the picture.
 */
#include "store/pins.h"

#include <stdlib.h>

#include "log/arena.h"
#include "os/drp_assert.h"

enum { FIRST_BUCKETS = 16 };

static struct pin **bucket_of(const struct pins *pins, const void *address)
{
	/* Addresses differ above the page offset; the multiplier spreads them (Fibonacci hashing). */
	uint64_t mixed = ((uint64_t)(uintptr_t)address >> 12) * UINT64_C(0x9e3779b97f4a7c15);
	return &pins->buckets[(size_t)(mixed >> 32) & (pins->bucket_count - 1)];
}

static int grow(struct pins *pins)
{
	struct pins grown = {.bucket_count = pins->bucket_count ? pins->bucket_count * 2 : FIRST_BUCKETS};

	grown.buckets = calloc(grown.bucket_count, sizeof(*grown.buckets));
	if (!grown.buckets)
		return -1;
	for (size_t i = 0; i < pins->bucket_count; i++)
		for (struct pin *pin = pins->buckets[i], *next; pin; pin = next) {
			struct pin **bucket = bucket_of(&grown, pin->address);
			next = pin->next;
			pin->next = *bucket;
			*bucket = pin;
		}
	free(pins->buckets);
	pins->buckets = grown.buckets;
	pins->bucket_count = grown.bucket_count;
	return 0;
}

struct pin *pins_find(const struct pins *pins, const void *address)
{
	if (pins->bucket_count == 0)
		return NULL;
	for (struct pin *pin = *bucket_of(pins, address); pin; pin = pin->next)
		if (pin->address == address)
			return pin;
	return NULL;
}

struct pin *pins_add(struct pins *pins, struct segment *segment, void *address, size_t bytes)
{
	if (pins->pin_count >= pins->bucket_count && grow(pins) != 0 && pins->bucket_count == 0)
		return NULL;
	struct pin *pin = malloc(sizeof(*pin));
	if (!pin)
		return NULL;
	struct pin **bucket = bucket_of(pins, address);
	*pin = (struct pin){.next = *bucket, .segment = segment, .address = address, .bytes = bytes, .count = 1,
			    .state = PIN_PINNING};
	*bucket = pin;
	pins->pin_count++;
	pins->pinned_bytes += bytes;
	return pin;
}

void pins_remove(struct pins *pins, struct pin *pin)
{
	struct pin **at = bucket_of(pins, pin->address);

	DRP_ASSERT(!pin->deferred && !pin->in_ring && pins->pin_count > 0 && pins->pinned_bytes >= pin->bytes);
	while (*at != pin)
		at = &(*at)->next;
	*at = pin->next;
	pins->pin_count--;
	pins->pinned_bytes -= pin->bytes;
	free(pin);
}

void pins_defer(struct pins *pins, struct pin *pin)
{
	DRP_ASSERT(!pin->deferred && pins->pinned_bytes >= pin->bytes);
	pin->deferred = true;
	pin->segment->deferred++;
	pins->pinned_bytes -= pin->bytes;
	pins->deferred_bytes += pin->bytes;
}

void pins_take_up(struct pins *pins, struct pin *pin)
{
	DRP_ASSERT(pin->deferred && pin->segment->deferred > 0 && pins->deferred_bytes >= pin->bytes);
	pin->deferred = false;
	pin->segment->deferred--;
	pins->pinned_bytes += pin->bytes;
	pins->deferred_bytes -= pin->bytes;
}

void pins_begin_free(struct pin *pin)
{
	DRP_ASSERT(pin->count == 0 && !pin->deferred);
	pin->state = PIN_FREEING;
	pin->useless = pin->forgotten && pin->segment->kind == SEGMENT_EXTENTS;
}

void pins_destroy(struct pins *pins)
{
	DRP_ASSERT(pins->pin_count == 0);
	free(pins->buckets);
	*pins = (struct pins){0};
}
