/*
 * region_settle.c - marking what was written so that the kernel can drop it page by page.
 *
 *   pages     0 1 2 3 4 5 6 7 8 9
 *   settle    |---------------|
 *   holds         |---|              their pages are left out: who ends the hold settles them
 *   marked    |-|       |-----|
 *
 * A mark may not take: on lazyfree the kernel passes over a page that is still in the batch of new pages of another
 * processor (up to 31 of them), which happens where the writer moved to this processor just before. The page stays
 * ordinary memory until it is marked again. So a settle by range marks what has content again, written since or not.
 *
 * Callers: the other files of the region.
 */
#include "region/region_holds.h"

#include "os/prim_track.h"
#include "log/witness.h"

static int mark(struct region *region, size_t first, size_t end)
{
	if (first == end)
		return DRP_OK;
	prim_step();
	return prim_mark(region_page(region, first), (end - first) * region->page_bytes);
}

/*
 * Gives an open page its witness. The page is dirty and lazyfree: it cannot go before the mark. False: a page of
 * 64 KiB whose only bytes are so far back that no witness fits. It stays open and unmarked, and so is never dropped.
 */
static bool prove(struct region *region, size_t page)
{
	const unsigned char *content = region_page(region, page);
	unsigned witness = witness_of(content, region->page_bytes);

	if (witness == WITNESS_ZERO && (region->page_bytes <= UINT16_MAX || content[region->page_bytes - 1] == 0)) {
		region_set_state(region, page, STATE_EMPTY);
		return true;
	}
	if (witness + WITNESS_BASE > UINT16_MAX) {
		region->strays = true;
		return false;
	}
	region_set_state(region, page, witness + WITNESS_BASE);
	return true;
}

static int settle_raise(struct region *region, size_t first, size_t end, enum settle_how how)
{
	size_t run = first;
	int status = DRP_OK;

	if (region->backing == PRIM_DROPPABLE) /* settled by region_write(), never open */
		return DRP_OK;
	for (size_t page = first; page < end && status == DRP_OK; page++) {
		unsigned state = region_state(region, page);
		bool wanted = state == STATE_OPEN ? prove(region, page) : how != SETTLE_KNOWN && state >= WITNESS_BASE;
		if (!wanted) {
			status = mark(region, run, page);
			run = page + 1;
		}
	}
	return status == DRP_OK ? mark(region, run, end) : status;
}

static void set_filled(struct region *region, size_t first, size_t end)
{
	for (size_t page = first; page < end; page++)
		region_set_state(region, page, STATE_FILLED);
}

static int settle_tracked_run(void *context, void *address, size_t length)
{
	struct region *region = context;
	size_t first = (size_t)((unsigned char *)address - region->memory) / region->page_bytes;
	size_t end = first + length / region->page_bytes;

	set_filled(region, first, end);
	return mark(region, first, end);
}

/* What is resident now has content: noted before the mark, for later censuses. */
static int note_resident(struct region *region, size_t first, size_t end)
{
	unsigned char states[CENSUS_CHUNK_PAGES];

	while (first < end) {
		size_t count = end - first < CENSUS_CHUNK_PAGES ? end - first : CENSUS_CHUNK_PAGES;
		struct prim_census census;
		int status = prim_census(region_page(region, first), count * region->page_bytes, states, &census);
		if (status != DRP_OK)
			return status;
		for (size_t i = 0; i < count; i++)
			if (states[i] == PRIM_RESIDENT)
				region_set_state(region, first + i, STATE_FILLED);
		first += count;
	}
	return DRP_OK;
}

static int settle_zero(struct region *region, size_t first, size_t end, enum settle_how how)
{
	if (region->track_handle != NO_HANDLE && how != SETTLE_ALL) {
		int status = prim_track_collect(region_page(region, first), (end - first) * region->page_bytes,
						settle_tracked_run, region);
		if (status == DRP_OK)
			return status;
		/* What it told of and was not marked it will not tell of again: tracking ends, all is marked from now on. */
		prim_track_close(region->track_handle);
		region->track_handle = NO_HANDLE;
	}
	if (how == SETTLE_KNOWN) {
		set_filled(region, first, end);
	} else {
		int status = note_resident(region, first, end);
		if (status != DRP_OK)
			return status;
	}
	return mark(region, first, end);
}

int region_settle_locked(struct region *region, size_t first, size_t end, enum settle_how how)
{
	const bool all_pending = first <= region->pending_first && end >= region->pending_end;
	int status = DRP_OK;

	for (size_t at = first, run_end; status == DRP_OK && region_next_unheld(region, &at, end, &run_end); at = run_end) {
		switch (region->on_drop) {
		case REGION_RAISE:
			status = settle_raise(region, at, run_end, how);
			break;
		case REGION_ZERO:
			status = settle_zero(region, at, run_end, how);
			break;
		case REGION_SIGNAL: /* filled was noted when it came alive; an absent page ignores the mark */
			status = mark(region, at, run_end);
			break;
		}
	}
	if (status != DRP_OK)
		region->strays = true;
	else if (all_pending)
		region->pending_first = region->pending_end = 0;
	return status;
}

/* Adds written pages to those that are pending; settles them when they are many or lie elsewhere. */
int region_pend_locked(struct region *region, size_t first, size_t end)
{
	int status = DRP_OK;

	if (region->pending_first < region->pending_end &&
	    (first > region->pending_end || end < region->pending_first))
		status = region_settle_locked(region, region->pending_first, region->pending_end, SETTLE_KNOWN);
	if (status != DRP_OK)
		return status;
	if (region->pending_first == region->pending_end) {
		region->pending_first = first;
		region->pending_end = end;
	} else {
		region->pending_first = first < region->pending_first ? first : region->pending_first;
		region->pending_end = end > region->pending_end ? end : region->pending_end;
	}
	if (region->pending_end - region->pending_first > MAX_PENDING_PAGES)
		status = region_settle_locked(region, region->pending_first, region->pending_end, SETTLE_KNOWN);
	return status;
}

int region_settle(struct region *region, size_t offset, size_t length)
{
	const size_t end = (offset + length + region->page_bytes - 1) / region->page_bytes;

	pthread_mutex_lock(&region->lock);
	int status = region_settle_locked(region, offset / region->page_bytes, end, SETTLE_FOUND);
	pthread_mutex_unlock(&region->lock);
	return status;
}

int region_expose(struct region *region)
{
	int status = DRP_OK;

	pthread_mutex_lock(&region->lock);
	if (region->on_drop == REGION_ZERO && region->backing == PRIM_LAZYFREE && region->track_handle == NO_HANDLE) {
		status = prim_track_open(region->memory, region->length, &region->track_handle);
		if (status != DRP_OK)
			region->track_handle = NO_HANDLE;
	}
	pthread_mutex_unlock(&region->lock);
	return status == DRP_UNSUPPORTED ? DRP_OK : status; /* without it a settle goes over its whole range */
}
