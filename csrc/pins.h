/*
 * pins.h - which extents are pinned, and how often: a small table by address, in ordinary memory.
 *
 *   buckets[hash of address] -> pin -> pin -> NULL        one pin for each extent, count for its holders
 *
 *   absent --take--> PINNING --(pages dirtied, witnesses there)--> HELD --count 0--> FREEING --(marked)--> absent
 *                                   |                                                  |
 *                                   +------------(a page was gone)------------> FREEING +
 *
 * While a pin is PINNING or FREEING, its pages are touched outside the lock by the one who set that state; others wait
 * for the shard's condition variable. So a page is never marked droppable under somebody who was told that it is held.
 *
 * Callers: cache, under the shard's lock.
 */
#ifndef DRP_PINS_H
#define DRP_PINS_H

#include <stddef.h>
#include <stdint.h>

struct segment;

enum pin_state { PIN_PINNING, PIN_HELD, PIN_FREEING };

struct pin {
	struct pin *next;
	struct segment *segment;
	unsigned char *address;
	size_t bytes;
	uint32_t count;
	uint8_t state;
	uint8_t forgotten; /* the entry is gone: give the pages back when the last holder lets go */
};

struct pins {
	struct pin **buckets;
	size_t bucket_count; /* a power of two, or 0 before the first pin */
	size_t pin_count;
	size_t pinned_bytes;
};

struct pin *pins_find(const struct pins *pins, const void *address);
/* A new pin, PINNING, with one holder. NULL: no memory. */
struct pin *pins_add(struct pins *pins, struct segment *segment, void *address, size_t bytes);
void pins_remove(struct pins *pins, struct pin *pin);
void pins_destroy(struct pins *pins);

#endif
