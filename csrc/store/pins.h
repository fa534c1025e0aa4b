/*
 * pins.h - which extents are pinned, and how often: a small table by address, in ordinary memory.
 *
 *   buckets[hash of address] -> pin -> pin -> NULL        one pin for each extent, count for its holders
 *
 *   absent --take--> PINNING --(pages dirtied, witnesses there)--> HELD --count 0--> FREEING --(marked)--> absent
 *                                   |                              |  ^ |               ^
 *                                   +---(a page was gone)--> absent  | +- deferred ----+   (store/deferred.h)
 *
 * While a pin is PINNING or FREEING, its pages are touched outside the lock by the one who set that state; others wait
 * for the shard's condition variable. So a page is never marked droppable under somebody who was told that it is held.
 * In a forked child there is nobody to finish what another thread of the parent had begun: see cache/fork.c.
 *
 * Callers: cache, under the shard's lock.
 */
#ifndef DRP_PINS_H
#define DRP_PINS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct cache;
struct segment;

enum pin_state { PIN_PINNING, PIN_HELD, PIN_FREEING };

struct pin {
	struct pin *next;
	struct pin *ring_next, *ring_previous; /* of store/deferred.c, under its lock too; the first also of those that leave */
	void *copy;                            /* while a fork is under way: of its pages, where they could not be kept */
	struct cache *cache;                   /* the pin has a reference to it */
	struct segment *segment;
	unsigned char *address;
	size_t bytes;
	uint32_t count;
	unsigned shard;
	uint8_t state;
	bool in_ring;   /* of store/deferred.c */
	bool deferred;  /* HELD, and in the ring, without holders */
	bool used;      /* was taken up again since the hand came by */
	bool forgotten; /* the entry is gone: give the pages back when the last holder lets go */
	bool useless;   /* FREEING: it was so from the start, and its pages need not be marked first */
};

struct pins {
	struct pin **buckets;
	size_t bucket_count; /* a power of two, or 0 before the first pin */
	size_t pin_count;
	size_t pinned_bytes, deferred_bytes;
	struct pin *leaving; /* FREEING, in no ring: whoever gives up the lock gives their pages back (shard_unlock()) */
};

struct pin *pins_find(const struct pins *pins, const void *address);
/* A new pin, PINNING, with one holder. NULL: no memory. */
struct pin *pins_add(struct pins *pins, struct segment *segment, void *address, size_t bytes);
void pins_remove(struct pins *pins, struct pin *pin);
/* Its last holder left and it stays; it has one again, or is to be freed. */
void pins_defer(struct pins *pins, struct pin *pin);
void pins_take_up(struct pins *pins, struct pin *pin);
/* Nobody holds it any more: FREEING from now on. */
void pins_begin_free(struct pin *pin);
void pins_destroy(struct pins *pins);

#endif
