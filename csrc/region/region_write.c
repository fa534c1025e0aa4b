/*
 * region_write.c - everything that puts content into a region, and the holds under which it happens.
 *
 * REGION_RAISE on lazyfree: a page is dirtied first, then looked at, then written, so the look is final: from the
 * first of these on it cannot go before its mark.
 *
 * REGION_RAISE on PRIM_DROPPABLE: nothing makes a page stay. So: write, mark (which flushes stale translations,
 * KERNEL: a page is the same for all processors after it), compare. A page that compares equal after the mark is
 * complete, and from there on goes whole.
 *
 * REGION_SIGNAL: a page comes alive whole and at once (UFFDIO_COPY), or was alive and is dirtied under guard.
 *
 * Callers: binding/region.c through region.h.
 */
#include "region/region_holds.h"

#include <string.h>

#include "os/prim_track.h"
#include "log/witness.h"

enum { MAX_TRIES = 16, ZERO_BYTES = 65536 /* the largest page of any Linux */ };

static unsigned char zeros[ZERO_BYTES];

/* Content settled by others while the hold was not there yet is dirtied here; empty and open pages need nothing. */
static void pin_content(struct region *region, size_t first, size_t end)
{
	for (size_t page = first; page < end; page++)
		if (region_state(region, page) >= WITNESS_BASE)
			prim_pin(region_page(region, page), region->page_bytes);
	atomic_thread_fence(memory_order_seq_cst);
}

static int open_raise(struct region *region, struct region_hold *hold, size_t whole_first, size_t whole_end,
		      struct region_gone *gone)
{
	const size_t first = hold->first_page, end = hold->end_page;
	bool intact = true;

	prim_step();
	pin_content(region, first, end);
	if (whole_first >= whole_end) {
		intact = region_find_gone(region, first, end, gone);
	} else {
		intact = region_find_gone(region, first, whole_first, gone);
		intact = region_find_gone(region, whole_end, end, gone) && intact;
	}
	if (!intact)
		return DRP_FAULT;
	/*
	 * Never rewritten in place: the purge flushes what other processors may still see of the dropped page. It stays gone until it
	 * is written: should the purge of a later one fail, nothing is.
	 */
	for (size_t page = whole_first; page < whole_end; page++)
		if (!region_page_intact(region, page)) {
			region_repair_by_hold(region, hold);
			region_set_state(region, page, STATE_GONE);
			int status = prim_purge(region_page(region, page), region->page_bytes);
			if (status != DRP_OK)
				return status;
		}
	return DRP_OK;
}

static int zero_or_note(struct region *region, size_t page, void *gone)
{
	size_t done;

	if (region_state(region, page) == STATE_FILLED) {
		region_gone_add(region, gone, page);
		return DRP_OK;
	}
	return prim_signal_refill(region->signal_handle, region_page(region, page), zeros, region->page_bytes, &done);
}

/* Pages that were never filled come alive as zeros. In bulk: a fault for each would cost 2 us. */
static int fill_empty(struct region *region, size_t first, size_t end)
{
	const size_t batch = sizeof(zeros) / region->page_bytes;

	for (size_t page = first; page < end;) {
		size_t count = 0, done;
		while (page + count < end && count < batch && region_state(region, page + count) == STATE_EMPTY)
			count++;
		if (count > 0) {
			int status = prim_signal_refill(region->signal_handle, region_page(region, page), zeros,
							count * region->page_bytes, &done);
			if (status != DRP_OK && status != DRP_EXISTS)
				return status;
			count = done / region->page_bytes;
		}
		page += count ? count : 1;
	}
	return DRP_OK;
}

/* Dirties what is live, so that it stays; tells what was filled and is gone. Nothing else changes. */
static int keep_live(struct region *region, size_t first, size_t end, struct region_gone *gone)
{
	int status = DRP_OK;

	for (size_t page = first, run_end; page < end && status == DRP_OK; page = run_end) {
		bool filled = region_state(region, page) == STATE_FILLED;
		for (run_end = page + 1; run_end < end; run_end++)
			if ((region_state(region, run_end) == STATE_FILLED) != filled)
				break;
		if (filled)
			status = region_touch(region, page, run_end, true, zero_or_note, gone);
	}
	return status;
}

/* Pages that were never filled come alive as zeros; where another writer was faster, his page is dirtied. */
static int open_empty(struct region *region, size_t first, size_t end, struct region_gone *gone)
{
	int status = first < end ? fill_empty(region, first, end) : DRP_OK;
	return status == DRP_OK ? region_touch(region, first, end, true, zero_or_note, gone) : status;
}

/* Two edges around what will be written whole; all of it is the first edge where nothing will. */
static int open_signal(struct region *region, size_t first, size_t first_end, size_t second, size_t end,
		       struct region_gone *gone)
{
	int status = keep_live(region, first, first_end, gone);
	if (status == DRP_OK)
		status = keep_live(region, second, end, gone);
	if (status == DRP_OK && gone->count == 0)
		status = open_empty(region, first, first_end, gone);
	if (status == DRP_OK && gone->count == 0)
		status = open_empty(region, second, end, gone);
	return status == DRP_OK && gone->count > 0 ? DRP_FAULT : status;
}

int region_open_pages(struct region *region, struct region_hold *hold, size_t whole_first, size_t whole_end,
		      struct region_gone *gone)
{
	const size_t first = hold->first_page, end = hold->end_page;

	switch (region->on_drop) {
	case REGION_ZERO:
		break;
	case REGION_RAISE:
		return open_raise(region, hold, whole_first, whole_end, gone);
	case REGION_SIGNAL:
		if (whole_first >= whole_end)
			return open_signal(region, first, end, end, end, gone);
		return open_signal(region, first, whole_first, whole_end, end, gone);
	}
	return DRP_OK;
}

static void hold_range(const struct region *region, size_t offset, size_t length, struct region_hold *hold)
{
	hold->offset = offset;
	hold->length = length;
	hold->first_page = offset / region->page_bytes;
	hold->end_page = (offset + length - 1) / region->page_bytes + 1;
}

static void hold_link(struct region *region, struct region_hold *hold)
{
	pthread_mutex_lock(&region->lock);
	region_link_hold(region, hold);
	pthread_mutex_unlock(&region->lock);
}

static int hold_settle(struct region *region, struct region_hold *hold)
{
	pthread_mutex_lock(&region->lock);
	region_unlink_hold(region, hold);
	int status = region_settle_locked(region, hold->first_page, hold->end_page,
					  region->on_drop == REGION_ZERO ? SETTLE_FOUND : SETTLE_ALL);
	pthread_mutex_unlock(&region->lock);
	return status;
}

static void set_states(struct region *region, size_t first, size_t end, unsigned state)
{
	for (size_t page = first; page < end; page++)
		region_set_state(region, page, state);
}

/* REGION_ZERO knows no content: what is resident is dirtied. It goes in chunks, since a census wants a buffer. */
static int pin_resident(struct region *region, size_t first, size_t end)
{
	unsigned char states[CENSUS_CHUNK_PAGES];

	for (size_t page = first; page < end;) {
		size_t count = end - page < CENSUS_CHUNK_PAGES ? end - page : CENSUS_CHUNK_PAGES;
		struct prim_census census;
		int status = prim_census(region_page(region, page), count * region->page_bytes, states, &census);
		if (status != DRP_OK)
			return status;
		for (size_t i = 0; i < count; i++)
			if (states[i] == PRIM_RESIDENT)
				prim_pin(region_page(region, page + i), region->page_bytes);
		page += count;
	}
	return DRP_OK;
}

static int note_gone(struct region *region, size_t page, void *gone)
{
	region_gone_add(region, gone, page);
	return DRP_OK;
}

static int pin_pages(struct region *region, const struct region_hold *hold, struct region_gone *gone)
{
	int status = DRP_OK;

	switch (region->on_drop) {
	case REGION_ZERO:
		return pin_resident(region, hold->first_page, hold->end_page);
	case REGION_RAISE:
		pin_content(region, hold->first_page, hold->end_page);
		return region_find_gone(region, hold->first_page, hold->end_page, gone) ? DRP_OK : DRP_FAULT;
	case REGION_SIGNAL:
		status = region_touch(region, hold->first_page, hold->end_page, true, note_gone, gone);
	}
	return status == DRP_OK && gone->count > 0 ? DRP_FAULT : status;
}

static bool keeps_range(const struct region *region, const struct region_hold *hold)
{
	return hold->kind != REGION_HOLD_READ || region->on_drop == REGION_SIGNAL;
}

int region_hold_begin(struct region *region, enum region_hold_kind kind, size_t offset, size_t length,
		      struct region_hold *hold, struct region_gone *gone)
{
	int status;

	hold->kind = kind;
	if (region_is_deaf(region))
		return DRP_UNSUPPORTED;
	hold_range(region, offset, length, hold);
	if (!keeps_range(region, hold)) {
		if (region->on_drop == REGION_RAISE)
			region_link_reader(region, hold);
		return DRP_OK;
	}
	if (region->backing == PRIM_DROPPABLE && (kind == REGION_HOLD_PIN || region->on_drop == REGION_RAISE))
		return DRP_UNSUPPORTED;
	if (kind == REGION_HOLD_WRITE && length == region->length && region->pages > MAX_PENDING_PAGES)
		prim_best_effort(region_expose(region)); /* its end costs more then */
	hold_link(region, hold);
	if (kind == REGION_HOLD_WRITE)
		status = region_open_pages(region, hold, 0, 0, gone);
	else
		status = pin_pages(region, hold, gone);
	if (status != DRP_OK) {
		prim_best_effort(hold_settle(region, hold)); /* a page that stays unmarked is not lost, only not droppable */
		return status;
	}
	if (kind == REGION_HOLD_WRITE && region->on_drop != REGION_ZERO)
		set_states(region, hold->first_page, hold->end_page,
			   region->on_drop == REGION_RAISE ? STATE_OPEN : STATE_FILLED);
	return DRP_OK;
}

int region_hold_end(struct region *region, struct region_hold *hold, struct region_gone *gone)
{
	if (keeps_range(region, hold)) {
		/* The kernel takes nothing of a pin, but a fork wipes it in the child, who may have computed on zeros. */
		bool intact = hold->kind != REGION_HOLD_PIN || region->on_drop != REGION_RAISE ||
			      region_find_gone(region, hold->first_page, hold->end_page, gone);
		int status = hold_settle(region, hold);
		return status == DRP_OK && !intact ? DRP_FAULT : status;
	}
	if (region->on_drop == REGION_ZERO)
		return DRP_OK;
	return region_end_reader(region, hold, gone) ? DRP_OK : DRP_FAULT;
}

struct page_copy {
	struct region *region;
	const unsigned char *from;
	volatile size_t at; /* offset in the region */
	size_t offset, stop;
};

/* Page by page, so that `at` says how far it came whatever order memcpy copies in. */
static void copy_pages(void *context)
{
	struct page_copy *copy = context;

	while (copy->at < copy->stop) {
		size_t count = copy->region->page_bytes - copy->at % copy->region->page_bytes;
		if (count > copy->stop - copy->at)
			count = copy->stop - copy->at;
		region_copy(copy->region->memory + copy->at, copy->from + (copy->at - copy->offset), count);
		copy->at += count;
	}
}

static int write_signal(struct region *region, size_t offset, const void *from, size_t length)
{
	struct page_copy copy = {.region = region, .from = from, .at = offset, .offset = offset, .stop = offset + length};
	int status = DRP_OK;

	for (int tries = 0; tries < MAX_TRIES && copy.at < copy.stop; tries++) {
		size_t before = copy.at, done = 0;
		uintptr_t fault;
		status = guard_call(copy_pages, &copy, region->memory, region->length, &fault);
		if (status != DRP_FAULT)
			return status;
		/* Only a page that is covered whole can be absent here: the others were opened before. */
		size_t whole = (copy.stop - copy.at) / region->page_bytes * region->page_bytes;
		status = prim_signal_refill(region->signal_handle, region->memory + copy.at,
					    copy.from + (copy.at - offset), whole, &done);
		if (status != DRP_OK && status != DRP_EXISTS)
			return status;
		copy.at += done;
		if (copy.at > before)
			tries = 0;
	}
	return copy.at < copy.stop ? DRP_REFUSED : DRP_OK;
}

/* The first byte of [from, to) of the page that is not zero, or page_bytes. */
static size_t nonzero_in(const struct region *region, const unsigned char *page, size_t from, size_t to)
{
	if (from == to)
		return region->page_bytes;
	uint16_t at = witness_of(page + from, to - from);
	return at == WITNESS_ZERO ? region->page_bytes : from + at;
}

static void set_witness(struct region *region, size_t page, size_t first_nonzero)
{
	region_set_state(region, page, first_nonzero == region->page_bytes ? STATE_EMPTY :
				       first_nonzero + WITNESS_BASE > UINT16_MAX ? STATE_GONE : /* cannot be proven */
				       (unsigned)first_nonzero + WITNESS_BASE);
}

static size_t min_size(size_t a, size_t b)
{
	return a < b ? a : b;
}

/*
 * One page on PRIM_DROPPABLE. The bytes around what is written prove themselves by one of them that is not zero, kept.
 * DRP_FAULT: those are gone. Under the lock: two writers of one page come one after the other, and no fork comes
 * between, whose child could not tell what the page lost.
 */
static int write_provable_page(struct region *region, size_t page, size_t in_page, const unsigned char *from,
			       size_t length, bool *is_repair)
{
	const size_t bytes = region->page_bytes;
	unsigned char *content = region_page(region, page);
	_Atomic unsigned char *byte = (_Atomic unsigned char *)content;
	const bool whole = length == bytes;
	size_t kept = bytes;

	if (!whole) {
		kept = min_size(nonzero_in(region, content, 0, in_page),
				nonzero_in(region, content, in_page + length, bytes));
		prim_step();
		atomic_thread_fence(memory_order_acquire);
		if (!region_page_intact(region, page))
			return DRP_FAULT;
	}
	for (int tries = 0; tries < MAX_TRIES; tries++) {
		const bool went = tries > 0 || !region_page_intact(region, page);
		if (went && !*is_repair) {
			region_repair_begin_locked(region, page, page + 1);
			*is_repair = true;
		}
		if (whole && went) {
			int status = prim_purge(content, bytes);
			if (status != DRP_OK) {
				region_set_state(region, page, STATE_GONE);
				return status;
			}
		}
		prim_step();
		region_set_state(region, page, STATE_OPEN);
		region_copy(content + in_page, from, length);
		int status = prim_mark(content, bytes);
		if (status != DRP_OK) { /* unproven, and it may go at any time */
			region_set_state(region, page, STATE_GONE);
			return status;
		}
		prim_step();
		bool equal = memcmp(content + in_page, from, length) == 0;
		prim_step();
		atomic_thread_fence(memory_order_acquire);
		if (equal && (kept == bytes || atomic_load_explicit(byte + kept, memory_order_relaxed) != 0)) {
			uint16_t own = witness_of(from, length);
			set_witness(region, page, min_size(kept, own == WITNESS_ZERO ? bytes : in_page + own));
			return DRP_OK;
		}
		if (kept != bytes && atomic_load_explicit(byte + kept, memory_order_relaxed) == 0) {
			region_set_state(region, page, STATE_GONE); /* what was around it went while it was written */
			return DRP_FAULT;
		}
	}
	region_set_state(region, page, STATE_GONE);
	return DRP_REFUSED;
}

static int write_provable(struct region *region, size_t offset, const unsigned char *from, size_t length,
			  struct region_gone *gone)
{
	const size_t first = offset / region->page_bytes, last = (offset + length - 1) / region->page_bytes;
	const size_t stop = offset + length;
	bool intact = true;

	/* "Nothing was written" holds for what was gone before; look at the edges first. */
	atomic_thread_fence(memory_order_acquire);
	if (offset % region->page_bytes != 0 || stop < (first + 1) * region->page_bytes)
		intact = region_find_gone(region, first, first + 1, gone);
	if (stop % region->page_bytes != 0 && last != first)
		intact &= region_find_gone(region, last, last + 1, gone);
	if (!intact)
		return DRP_FAULT;
	for (size_t page = first; page <= last; page++) {
		size_t in_page = page == first ? offset % region->page_bytes : 0;
		size_t at = page * region->page_bytes + in_page;
		size_t count = min_size(region->page_bytes - in_page, stop - at);
		bool is_repair = false;
		pthread_mutex_lock(&region->lock);
		int status = write_provable_page(region, page, in_page, from + (at - offset), count, &is_repair);
		if (is_repair)
			region_repair_end_locked(region);
		pthread_mutex_unlock(&region->lock);
		if (status == DRP_FAULT)
			region_gone_add(region, gone, page);
		if (status != DRP_OK)
			return status;
	}
	return DRP_OK;
}

static int write_held(struct region *region, struct region_hold *hold, const void *from, struct region_gone *gone)
{
	const size_t stop = hold->offset + hold->length, page = region->page_bytes;
	const size_t whole_first = (hold->offset + page - 1) / page, whole_end = stop / page;

	int status = region_open_pages(region, hold, whole_first, whole_end, gone);
	if (status != DRP_OK)
		return status;
	if (region->on_drop == REGION_RAISE)
		set_states(region, hold->first_page, hold->end_page, STATE_OPEN);
	if (region->on_drop != REGION_SIGNAL) {
		region_copy(region->memory + hold->offset, from, hold->length); /* from may be a bare view of this region */
		return DRP_OK;
	}
	status = write_signal(region, hold->offset, from, hold->length);
	if (status == DRP_OK)
		set_states(region, hold->first_page, hold->end_page, STATE_FILLED);
	return status;
}

int region_write(struct region *region, size_t offset, const void *from, size_t length, struct region_gone *gone)
{
	struct region_hold hold = {.kind = REGION_HOLD_WRITE};

	if (region->on_drop == REGION_RAISE && region->backing == PRIM_DROPPABLE)
		return write_provable(region, offset, from, length, gone);
	if (region_is_deaf(region))
		return DRP_UNSUPPORTED;
	hold_range(region, offset, length, &hold);
	hold_link(region, &hold);
	int status = write_held(region, &hold, from, gone);
	if (status != DRP_OK) {
		prim_best_effort(hold_settle(region, &hold)); /* the same */
		return status;
	}
	pthread_mutex_lock(&region->lock);
	region_unlink_hold(region, &hold);
	status = region_pend_locked(region, hold.first_page, hold.end_page);
	pthread_mutex_unlock(&region->lock);
	return status;
}

int region_refill(struct region *region, size_t offset, const void *from, size_t length, size_t *filled_bytes)
{
	struct region_hold hold = {.kind = REGION_HOLD_WRITE};
	size_t at = 0, filled = 0;
	int status = DRP_OK;

	if (region->on_drop != REGION_SIGNAL || region_is_deaf(region))
		return DRP_UNSUPPORTED;
	hold_range(region, offset, length, &hold);
	hold_link(region, &hold);
	while (at < length) {
		size_t done;
		status = prim_signal_refill(region->signal_handle, region->memory + offset + at,
					    (const unsigned char *)from + at, length - at, &done);
		filled += done;
		at += done;
		if (status == DRP_EXISTS)
			at += region->page_bytes; /* live already: kept as it is */
		else if (status != DRP_OK)
			break;
	}
	set_states(region, hold.first_page, hold.first_page + (at < length ? at : length) / region->page_bytes,
		   STATE_FILLED);
	int settled = hold_settle(region, &hold);
	*filled_bytes = filled;
	return status != DRP_OK && status != DRP_EXISTS ? status : settled;
}
