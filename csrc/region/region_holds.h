/*
 * region_holds.h - who uses which pages of a region: holds, readers and repairs. region_holds.c has the picture.
 *
 * Callers: the other files of the region; nobody else includes it.
 */
#ifndef DRP_REGION_HOLDS_H
#define DRP_REGION_HOLDS_H

#include "region/region_internal.h"

/* The lock is held. */
void region_link_hold(struct region *region, struct region_hold *hold);
void region_unlink_hold(struct region *region, struct region_hold *hold);
bool region_is_held(const struct region *region, size_t first, size_t end);
/* The first run of pages in [*first, end) that nobody holds; false if there is none. */
bool region_next_unheld(const struct region *region, size_t *first, size_t end, size_t *run_end);
void region_for_each_hold(struct region *region, void (*call)(struct region *, struct region_hold *));
void region_drop_holds_of_others(struct region *region); /* in a forked child */
/* Around all that makes pages look whole that went, or may have: from before their content and states change. */
void region_repair_begin_locked(struct region *region, size_t first, size_t end);
void region_repair_end_locked(struct region *region);

/* The lock is free. */
void region_repair_by_hold(struct region *region, struct region_hold *hold); /* ends with the hold */
void region_link_reader(struct region *region, struct region_hold *reader);
/* Adds what is gone of the reader's pages, and what was repaired or purged meanwhile; true if that is nothing. */
bool region_end_reader(struct region *region, struct region_hold *reader, struct region_gone *gone);

static inline size_t region_repairs_begun(const struct region *region)
{
	return atomic_load_explicit(&region->repairs_begun, memory_order_acquire);
}

static inline size_t region_repairs_ended(const struct region *region)
{
	return atomic_load_explicit(&region->repairs_ended, memory_order_acquire);
}

#endif
