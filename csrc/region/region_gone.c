/*
 * region_gone.c - finding out which pages of a region went, by content (REGION_RAISE) or by touch (REGION_SIGNAL), and
 * counting.
 *
 * Callers: the other files of the region.
 */
#include "region/region_internal.h"

#include <stdlib.h>

#include "log/witness.h"

void region_gone_free(struct region_gone *gone)
{
	free(gone->ranges);
	*gone = (struct region_gone){0};
}

/* Pages come in ascending order. Without memory for the list it stays shorter; the status tells of the loss anyway. */
void region_gone_add(const struct region *region, struct region_gone *gone, size_t page)
{
	const size_t start = page * region->page_bytes;

	if (gone->count > 0 && gone->ranges[gone->count - 1].stop >= start) {
		if (gone->ranges[gone->count - 1].stop == start)
			gone->ranges[gone->count - 1].stop += region->page_bytes;
		return;
	}
	if (gone->count == gone->capacity) {
		size_t capacity = gone->capacity ? gone->capacity * 2 : 8;
		struct region_range *ranges = realloc(gone->ranges, capacity * sizeof(*ranges));
		if (!ranges)
			return;
		gone->ranges = ranges;
		gone->capacity = capacity;
	}
	gone->ranges[gone->count++] = (struct region_range){start, start + region->page_bytes};
}

/* PRIM_DROPPABLE: a page can go while it is written; whoever writes it, under the lock, knows at the end whether it did. */
static void await_writer(struct region *region, size_t page)
{
	if (region_state(region, page) != STATE_OPEN || region->backing != PRIM_DROPPABLE)
		return;
	pthread_mutex_lock(&region->lock);
	pthread_mutex_unlock(&region->lock);
	atomic_thread_fence(memory_order_acquire);
}

bool region_find_gone(struct region *region, size_t first, size_t end, struct region_gone *gone)
{
	bool intact = true;

	for (size_t page = first; page < end; page++) {
		prim_step();
		await_writer(region, page);
		if (!region_page_intact(region, page)) {
			region_gone_add(region, gone, page);
			intact = false;
		}
	}
	return intact;
}

struct touch {
	struct region *region;
	volatile size_t at;
	size_t end;
	bool dirty;
};

static void touch_pages(void *context)
{
	struct touch *touch = context;

	for (; touch->at < touch->end; touch->at++) {
		volatile _Atomic unsigned char *page = region_page(touch->region, touch->at);
		if (touch->dirty)
			prim_pin((void *)page, 1);
		else
			(void)atomic_load_explicit(page, memory_order_relaxed);
		prim_step();
	}
}

int region_touch(struct region *region, size_t first, size_t end, bool dirty, region_on_absent *on_absent, void *context)
{
	struct touch touch = {.region = region, .at = first, .end = end, .dirty = dirty};
	uintptr_t fault;

	while (touch.at < end) {
		int status = guard_call(touch_pages, &touch, region->memory, region->length, &fault);
		if (status == DRP_FAULT) {
			status = on_absent(region, touch.at, context);
			if (status == DRP_EXISTS) /* came back meanwhile: touch it */
				status = DRP_OK;
			else
				touch.at++;
		}
		if (status != DRP_OK)
			return status;
	}
	return DRP_OK;
}

static int note_absent(struct region *region, size_t page, void *context)
{
	region_gone_add(region, context, page);
	return DRP_OK;
}

/* Settled content of this page is gone. A page that is present is not asked: where it was, it is. */
static bool is_dropped(struct region *region, size_t page, enum prim_page_state state)
{
	if (region->on_drop == REGION_RAISE) {
		unsigned known = region_state(region, page);
		return known == STATE_GONE || (known >= WITNESS_BASE && !region_page_intact(region, page));
	}
	if (state == PRIM_RESIDENT || region_state(region, page) != STATE_FILLED)
		return false;
	if (region->on_drop == REGION_SIGNAL) { /* absent can mean swapped: the touch tells */
		struct region_gone absent = {0};
		/* What cannot be looked at is taken for gone. */
		const bool dropped = region_touch(region, page, page + 1, false, note_absent, &absent) != DRP_OK ||
				     absent.count > 0;
		region_gone_free(&absent);
		return dropped;
	}
	return true;
}

int region_census(struct region *region, size_t offset, size_t length, struct region_census *out,
		  struct region_gone *gone)
{
	const size_t end = (offset + length + region->page_bytes - 1) / region->page_bytes;
	struct region_census census = {.pages.exact = true};
	unsigned char states[CENSUS_CHUNK_PAGES];

	if (region_is_deaf(region))
		return DRP_UNSUPPORTED;
	for (size_t page = offset / region->page_bytes; page < end;) {
		size_t count = end - page < CENSUS_CHUNK_PAGES ? end - page : CENSUS_CHUNK_PAGES;
		struct prim_census part;
		int status = prim_census(region_page(region, page), count * region->page_bytes, states, &part);
		if (status != DRP_OK)
			return status;
		census.pages.pages += part.pages;
		census.pages.resident_pages += part.resident_pages;
		census.pages.zero_pages += part.zero_pages;
		census.pages.absent_pages += part.absent_pages;
		census.pages.exact = census.pages.exact && part.exact;
		for (size_t i = 0; i < count; i++) {
			if (!is_dropped(region, page + i, states[i]))
				continue;
			census.dropped_pages++;
			if (gone)
				region_gone_add(region, gone, page + i);
		}
		page += count;
	}
	*out = census;
	return DRP_OK;
}

static bool is_zeros(const unsigned char *content, size_t bytes)
{
	return witness_of(content, bytes) == WITNESS_ZERO && content[bytes - 1] == 0;
}

int region_page_states(struct region *region, size_t offset, size_t length, unsigned char *states)
{
	const size_t first = offset / region->page_bytes;
	struct prim_census census;

	int status = prim_census(region->memory + offset, length, states, &census);
	if (status != DRP_OK || census.exact || region->on_drop == REGION_SIGNAL) /* an armed page never is the zero page */
		return status;
	for (size_t i = 0; i < length / region->page_bytes; i++)
		if (states[i] == PRIM_RESIDENT && is_zeros(region_page(region, first + i), region->page_bytes))
			states[i] = PRIM_ZERO;
	return DRP_OK;
}
