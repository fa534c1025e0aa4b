/*
 * region.c - see region.h: opening and closing, reading, purging, resizing.
 */
#include "region/region_holds.h"

#include <stdlib.h>
#include <string.h>

#include "os/prim_end.h"
#include "os/prim_track.h"
#include "log/witness.h"

static int map_memory(struct region *region, bool any_backing)
{
	const unsigned flags = region->keep_on_fork ? PRIM_KEEP_ON_FORK : 0;
	void *memory;
	int status;

	if (any_backing) { /* pins and signals want lazyfree; zeros want what never reaches swap */
		bool droppable = region->on_drop == REGION_ZERO && !region->keep_on_fork;
		region->backing = droppable ? PRIM_DROPPABLE : PRIM_LAZYFREE;
	}
	status = prim_map(region->backing, region->length, flags, &memory);
	if (status == DRP_UNSUPPORTED && any_backing && region->backing == PRIM_DROPPABLE) {
		region->backing = PRIM_LAZYFREE;
		status = prim_map(region->backing, region->length, flags, &memory);
	}
	if (status != DRP_OK)
		return status;
	status = prim_mark(memory, region->page_bytes); /* is it offered here? */
	if (status != DRP_OK) {
		prim_end(memory, region->length);
		return status;
	}
	region->memory = memory;
	return DRP_OK;
}

int region_arm(struct region *region)
{
	int status = prim_signal_open(&region->signal_handle);
	if (status != DRP_OK) {
		region->signal_handle = NO_HANDLE;
		return status;
	}
	status = prim_signal_arm(region->signal_handle, region->memory, region->length);
	if (status != DRP_OK) {
		prim_signal_close(region->signal_handle);
		region->signal_handle = NO_HANDLE;
	}
	return status;
}

int region_open(size_t length, const struct region_options *options, struct region **out)
{
	const size_t page = prim_page_size();
	void *states;
	int status;

	if (length == 0 || length % page != 0 || length > SIZE_MAX / 2)
		return DRP_INVALID;
	if (options->on_drop == REGION_SIGNAL && !options->any_backing && options->backing == PRIM_DROPPABLE)
		return DRP_UNSUPPORTED;
	struct region *region = calloc(1, sizeof(*region));
	if (!region)
		return DRP_NO_MEMORY;
	region->length = length;
	region->pages = length / page;
	region->page_bytes = page;
	region->on_drop = options->on_drop;
	region->backing = options->backing;
	region->keep_on_fork = options->keep_on_fork;
	region->signal_handle = region->track_handle = NO_HANDLE;
	strncpy(region->name, options->name ? options->name : "region", sizeof(region->name) - 1);
	pthread_mutex_init(&region->lock, NULL);

	status = map_memory(region, options->any_backing);
	if (status != DRP_OK)
		goto err_free;
	region->states_bytes = (region->pages * sizeof(*region->states) + page - 1) / page * page;
	status = prim_map(PRIM_PLAIN, region->states_bytes, 0, &states);
	if (status != DRP_OK)
		goto err_unmap;
	region->states = states;
	if (region->on_drop == REGION_SIGNAL) {
		status = region_arm(region);
		if (status != DRP_OK)
			goto err_states;
		status = guard_watch(region->memory, length, region->name, &region->watch);
		if (status != DRP_OK)
			goto err_disarm;
	}
	status = region_register(region);
	if (status != DRP_OK)
		goto err_unwatch;
	*out = region;
	return DRP_OK;

err_unwatch:
	if (region->watch)
		guard_unwatch(region->watch);
err_disarm:
	if (region->signal_handle != NO_HANDLE)
		prim_signal_close(region->signal_handle);
err_states:
	prim_end(states, region->states_bytes);
err_unmap:
	prim_end(region->memory, region->length);
err_free:
	pthread_mutex_destroy(&region->lock);
	free(region);
	return status;
}

void region_close(struct region *region)
{
	region_unregister(region);
	if (region->watch)
		guard_unwatch(region->watch);
	if (region->signal_handle != NO_HANDLE)
		prim_signal_close(region->signal_handle);
	if (region->track_handle != NO_HANDLE)
		prim_track_close(region->track_handle);
	prim_end((void *)region->states, region->states_bytes);
	prim_end(region->memory, region->length);
	pthread_mutex_destroy(&region->lock);
	free(region);
}

void *region_memory(const struct region *region)
{
	return region->memory;
}

size_t region_length(const struct region *region)
{
	return region->length;
}

enum prim_backing region_backing(const struct region *region)
{
	return region->backing;
}

bool region_is_deaf(const struct region *region)
{
	return region->on_drop == REGION_SIGNAL &&
	       (region->signal_handle == NO_HANDLE || !prim_handle_is_open(region->signal_handle));
}

struct range_copy {
	void *to;
	const void *from;
	size_t length;
};

static void copy_range(void *context)
{
	const struct range_copy *copy = context;
	region_copy(copy->to, copy->from, copy->length);
}

static int note_gone(struct region *region, size_t page, void *gone)
{
	region_gone_add(region, gone, page);
	return DRP_OK;
}

/* Whether of some page nothing but zeros was copied: so a dropped one reads where nothing tells of drops any more. */
static bool has_page_of_zeros(const struct region *region, const struct range_copy *copy)
{
	size_t in_page = (size_t)((const unsigned char *)copy->from - region->memory) % region->page_bytes;

	for (size_t done = 0, count; done < copy->length; done += count, in_page = 0) {
		const size_t left = copy->length - done;
		count = left < region->page_bytes - in_page ? left : region->page_bytes - in_page;
		if (witness_of((const unsigned char *)copy->to + done, count) == WITNESS_ZERO)
			return true;
	}
	return false;
}

static int read_signal(struct region *region, struct range_copy copy, size_t first, size_t end, struct region_gone *gone)
{
	uintptr_t fault;

	if (region->signal_handle == NO_HANDLE)
		return DRP_UNSUPPORTED;
	int status = guard_call(copy_range, &copy, region->memory, region->length, &fault);
	if (status == DRP_OK && has_page_of_zeros(region, &copy) && region_is_deaf(region)) /* not before: it costs a system call */
		return DRP_UNSUPPORTED;
	if (status != DRP_FAULT)
		return status;
	status = region_touch(region, first, end, false, note_gone, gone);
	if (status == DRP_OK && gone->count == 0) /* refilled meanwhile; this reader came too early all the same */
		region_gone_add(region, gone, (size_t)(fault - (uintptr_t)region->memory) / region->page_bytes);
	return status == DRP_OK ? DRP_FAULT : status;
}

/* As a reader that hears of repairs: they go on at this moment. */
static int read_beside_repairs(struct region *region, const struct range_copy *copy, size_t first, size_t end,
			       struct region_gone *gone)
{
	struct region_hold reader = {.kind = REGION_HOLD_READ, .first_page = first, .end_page = end};

	region_link_reader(region, &reader);
	region_copy(copy->to, copy->from, copy->length);
	return region_end_reader(region, &reader, gone) ? DRP_OK : DRP_FAULT;
}

int region_read(struct region *region, size_t offset, void *to, size_t length, struct region_gone *gone)
{
	const size_t first = offset / region->page_bytes, end = (offset + length - 1) / region->page_bytes + 1;
	const struct range_copy copy = {to, region->memory + offset, length};

	if (region->on_drop == REGION_SIGNAL)
		return read_signal(region, copy, first, end, gone);
	const size_t ended = region_repairs_ended(region), begun = region_repairs_begun(region);
	region_copy(to, copy.from, length); /* to may be a bare view of this region */
	if (region->on_drop == REGION_ZERO)
		return DRP_OK;
	atomic_thread_fence(memory_order_acquire); /* the bytes are out; now look at the marks */
	bool intact = region_find_gone(region, first, end, gone);
	atomic_thread_fence(memory_order_acquire); /* what was seen of a repair comes after its beginning */
	if (!intact)
		return DRP_FAULT;
	return ended == begun && region_repairs_begun(region) == begun ? DRP_OK
								       : read_beside_repairs(region, &copy, first, end, gone);
}

static void forget(struct region *region, size_t first, size_t end)
{
	for (size_t page = first; page < end; page++)
		if (region_state(region, page) != STATE_EMPTY) /* do not touch the states of a vast empty region */
			region_set_state(region, page, STATE_EMPTY);
}

int region_purge(struct region *region, size_t offset, size_t length)
{
	const size_t first = offset / region->page_bytes, end = first + length / region->page_bytes;
	int status = DRP_EXISTS;

	pthread_mutex_lock(&region->lock);
	if (!region_is_held(region, first, end)) {
		region_repair_begin_locked(region, first, end);
		forget(region, first, end); /* before: a reader between the two sees content that needs no proof */
		prim_step();
		status = prim_purge(region->memory + offset, length);
		/* Nobody can tell what is there and what is not: none of it, until it is purged again or written whole. */
		for (size_t page = first; status != DRP_OK && region->on_drop == REGION_RAISE && page < end; page++)
			region_set_state(region, page, STATE_GONE);
		region_repair_end_locked(region);
	}
	pthread_mutex_unlock(&region->lock);
	return status;
}

int region_page_out(struct region *region, size_t offset, size_t length)
{
	const size_t first = offset / region->page_bytes;

	pthread_mutex_lock(&region->lock);
	int status = region_settle_locked(region, first, first + length / region->page_bytes, SETTLE_ALL);
	pthread_mutex_unlock(&region->lock);
	return status == DRP_OK ? prim_page_out(region->memory + offset, length) : status;
}

static int shrink(struct region *region, size_t length)
{
	pthread_mutex_lock(&region->lock);
	int status = prim_unmap(region->memory + length, region->length - length);
	if (status == DRP_OK) { /* from here on nothing fails */
		forget(region, length / region->page_bytes, region->pages);
		region->length = length;
		region->pages = length / region->page_bytes;
		if (region->watch)
			guard_shrink(region->watch, length);
	}
	pthread_mutex_unlock(&region->lock);
	return status;
}

struct page_move {
	unsigned char *to;
	const unsigned char *from;
	size_t bytes;
	bool intact;
};

/*
 * Nobody writes: a page that went in the middle of the copy reads zero where the copy has its first non-zero byte. It
 * is dropped in the new place as well then. A page of zeros needs no copy.
 */
static void move_page(void *context)
{
	struct page_move *move = context;
	size_t at = witness_of(move->from, move->bytes);

	move->intact = false;
	if (at == WITNESS_ZERO && move->from[move->bytes - 1] == 0)
		return;
	at = at == WITNESS_ZERO ? move->bytes - 1 : at;
	region_copy(move->to, move->from, move->bytes);
	atomic_thread_fence(memory_order_acquire);
	move->intact = atomic_load_explicit((const _Atomic unsigned char *)(move->from + at), memory_order_relaxed) != 0;
}

/* To an armed page from a page that may vanish, through a buffer. */
static int move_page_signal(struct region *from, struct region *to, size_t page, unsigned char *buffer)
{
	struct range_copy copy = {buffer, region_page(from, page), from->page_bytes};
	uintptr_t fault;
	size_t done;

	int status = guard_call(copy_range, &copy, from->memory, from->length, &fault);
	if (status == DRP_OK)
		status = prim_signal_refill(to->signal_handle, region_page(to, page), buffer, from->page_bytes, &done);
	return status == DRP_FAULT ? DRP_OK : status; /* gone: stays gone */
}

/* REGION_RAISE on PRIM_DROPPABLE: the new page can go while it is written, so it is written as any other there is. */
static int move_page_provable(struct region *from, struct region *to, size_t page, unsigned char *buffer)
{
	struct region_gone gone = {0};

	region_copy(buffer, region_page(from, page), from->page_bytes);
	atomic_thread_fence(memory_order_acquire);
	if (!region_page_intact(from, page))
		return DRP_OK;
	region_set_state(to, page, STATE_EMPTY);
	int status = region_write(to, page * to->page_bytes, buffer, to->page_bytes, &gone);
	region_gone_free(&gone);
	return status == DRP_REFUSED ? DRP_OK : status; /* gone again, and noted */
}

static int move_chunk(struct region *from, struct region *to, size_t first, size_t count, unsigned char *buffer)
{
	const size_t bytes = from->page_bytes;
	unsigned char states[MAX_PENDING_PAGES];
	struct prim_census census;

	int status = prim_census(region_page(from, first), count * bytes, states, &census);
	for (size_t i = 0; i < count && status == DRP_OK; i++) {
		unsigned state = region_state(from, first + i);
		region_set_state(to, first + i, state == STATE_OPEN ? STATE_GONE : state); /* no witness to take along */
		if (states[i] != PRIM_RESIDENT)
			continue;
		if (from->on_drop == REGION_SIGNAL) {
			status = move_page_signal(from, to, first + i, buffer);
			continue;
		}
		if (from->on_drop == REGION_RAISE && from->backing == PRIM_DROPPABLE) {
			status = move_page_provable(from, to, first + i, buffer);
			continue;
		}
		struct page_move move = {region_page(to, first + i), region_page(from, first + i), bytes, false};
		move_page(&move);
		if (!move.intact)
			status = prim_purge(move.to, bytes);
	}
	/* Both copies of 64 pages at most: the old ones go as the new ones come. */
	if (status == DRP_OK)
		status = prim_mark(region_page(to, first), count * bytes);
	if (status == DRP_OK)
		status = prim_mark(region_page(from, first), count * bytes);
	return status;
}

static void swap_memory(struct region *a, struct region *b)
{
	struct region old = *a;

	a->memory = b->memory;
	a->length = b->length;
	a->pages = b->pages;
	a->signal_handle = b->signal_handle;
	a->track_handle = b->track_handle;
	a->watch = b->watch;
	a->states = b->states;
	a->states_bytes = b->states_bytes;
	b->memory = old.memory;
	b->length = old.length;
	b->pages = old.pages;
	b->signal_handle = old.signal_handle;
	b->track_handle = old.track_handle;
	b->watch = old.watch;
	b->states = old.states;
	b->states_bytes = old.states_bytes;
}

static int grow(struct region *region, size_t length)
{
	struct region_options options = {.on_drop = region->on_drop, .backing = region->backing,
					 .keep_on_fork = region->keep_on_fork, .name = region->name};
	struct region *bigger;
	unsigned char *buffer = malloc(region->page_bytes);
	if (!buffer)
		return DRP_NO_MEMORY;
	int status = region_open(length, &options, &bigger);
	if (status != DRP_OK)
		goto out_free;
	for (size_t page = 0; page < region->pages && status == DRP_OK; page += MAX_PENDING_PAGES) {
		size_t left = region->pages - page;
		status = move_chunk(region, bigger, page, left < MAX_PENDING_PAGES ? left : MAX_PENDING_PAGES, buffer);
	}
	if (status == DRP_OK) {
		region_registry_lock(); /* a fork sees all of it before or after */
		swap_memory(region, bigger);
		region_registry_unlock();
		if (region->on_drop == REGION_ZERO && bigger->track_handle != NO_HANDLE)
			prim_best_effort(region_expose(region)); /* as with holds: settling costs more */
	}
	region_close(bigger);
out_free:
	free(buffer);
	return status;
}

int region_resize(struct region *region, size_t length)
{
	if (length == 0 || length % region->page_bytes != 0 || length > SIZE_MAX / 2)
		return DRP_INVALID;
	if (region_is_deaf(region))
		return DRP_UNSUPPORTED;
	pthread_mutex_lock(&region->lock);
	int status = region->holds || region->readers ? DRP_EXISTS : region_settle_locked(region, 0, region->pages, SETTLE_FOUND);
	pthread_mutex_unlock(&region->lock);
	if (status != DRP_OK || length == region->length)
		return status;
	return length < region->length ? shrink(region, length) : grow(region, length);
}
