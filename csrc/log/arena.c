/*
 * arena.c - see arena.h for the picture.
 */
#include "log/arena.h"

#include <stdlib.h>
#include <string.h>

#include "os/drp_assert.h"
#include "os/prim_end.h"
#include "droppable.h"

enum {
	FIRST_TABLE_SIZE = 16,
	UNMAP_STEP_BYTES = 16 << 20, /* given back at once: 2 ms */
	NAMED_EXPIRED = 1, /* all that was in it had expired */
	NAMED_ROUND = 2,   /* times 1 + the round in which it was retired */
	KEPT_MAX = 1, /* segments of a kind kept with their pages while memory is short */
	KEPT_WHOLES_MAX = 4, /* of WHOLE while it is not: some may be of a size that is not wanted again */
	KEPT_LEAST = 4, KEPT_SHARE = 8, /* of the others while it is not: for each eight in use one, and some more */
	WHOLE_CLASSES = 8, /* lengths of WHOLE between a power of two and the next, so that a dead one fits again */
};

int arena_init(struct arena *arena, enum prim_backing backing, unsigned map_flags, size_t segment_bytes)
{
	if (segment_bytes < prim_page_size() || segment_bytes > ARENA_SEGMENT_MAX ||
	    (segment_bytes & (segment_bytes - 1)) != 0)
		return DRP_INVALID;
	*arena = (struct arena){
		.backing = backing, .map_flags = map_flags, .segment_bytes = segment_bytes,
		.span_limit_bytes = UINT64_MAX, .table_size = FIRST_TABLE_SIZE, .next_serial = 1,
		.number_mask = (1u << ARENA_NUMBER_BITS) - 1,
	};
	arena->table = calloc(FIRST_TABLE_SIZE, sizeof(*arena->table));
	arena->named = calloc(FIRST_TABLE_SIZE, sizeof(*arena->named));
	if (arena->table && arena->named)
		return DRP_OK;
	arena_free(arena);
	return DRP_NO_MEMORY;
}

/* Along the arrows that segment.h draws, and no other. */
static void move_to(struct segment *segment, enum segment_state state)
{
	static const uint8_t arrows[] = {
		[SEGMENT_FREE] = 1 << SEGMENT_OPEN | 1 << SEGMENT_SEALED,
		[SEGMENT_OPEN] = 1 << SEGMENT_SEALED | 1 << SEGMENT_FREE | 1 << SEGMENT_ZOMBIE,
		[SEGMENT_SEALED] = 1 << SEGMENT_FREE | 1 << SEGMENT_ZOMBIE,
		[SEGMENT_ZOMBIE] = 1 << SEGMENT_FREE,
	};

	DRP_ASSERT(arrows[segment->state] >> state & 1);
	DRP_ASSERT(segment->state != SEGMENT_FREE || (state == SEGMENT_SEALED) == (segment->kind == SEGMENT_WHOLE));
	DRP_ASSERT(state != SEGMENT_FREE || segment->users == 0);
	segment->state = (uint8_t)state;
}

static void by_age_remove(struct arena *arena, struct segment *segment)
{
	struct arena_log *log = &arena->logs[segment->part];

	*(segment->older ? &segment->older->newer : &log->oldest) = segment->newer;
	*(segment->newer ? &segment->newer->older : &log->newest) = segment->older;
	segment->older = segment->newer = NULL;
}

static void by_age_append(struct arena *arena, struct segment *segment)
{
	struct arena_log *log = &arena->logs[segment->part];

	segment->older = log->newest;
	segment->newer = NULL;
	*(log->newest ? &log->newest->newer : &log->oldest) = segment;
	log->newest = segment;
}

void arena_note_held(struct arena *arena, struct segment *segment, size_t pages)
{
	segment->held_pages += (uint32_t)pages;
	arena->held_pages += pages;
}

void arena_note_given_back(struct arena *arena, struct segment *segment, size_t pages)
{
	DRP_ASSERT(pages <= segment->held_pages && pages <= arena->held_pages);
	segment->held_pages -= (uint32_t)pages;
	arena->held_pages -= pages;
}

void arena_note_appended(struct arena *arena, struct segment *segment, size_t used)
{
	const size_t page = prim_page_size(), pages = (used + page - 1) / page;

	segment->used = used;
	if (pages > segment->touched_pages) {
		arena_note_held(arena, segment, pages - segment->touched_pages);
		segment->touched_pages = (uint32_t)pages;
	}
}

/* It has no pages any more. */
static void note_emptied(struct arena *arena, struct segment *segment)
{
	arena_note_given_back(arena, segment, segment->held_pages);
	segment->touched_pages = 0;
}

/*
 * What was written to a retired segment and not marked yet is dead; the kernel may have it. The directory of values is written
 * again after it was marked, where places of dead values were.
 */
static void mark_dead(struct segment *segment)
{
	const bool is_directory = segment->kind == SEGMENT_EXTENTS;
	const size_t bytes = is_directory ? arena_directory_bytes(segment->length) : segment->used;

	if ((is_directory ? prim_mark(segment->base, bytes) : arena_mark(segment, true)) != DRP_OK)
		segment->dirty = true;
}

static void purge(struct arena *arena, struct segment *segment)
{
	if (prim_purge(segment->base, segment->length) != DRP_OK)
		mark_dead(segment); /* the rest is marked already */
	note_emptied(arena, segment);
}

static void doom(struct arena *arena, struct segment *segment)
{
	note_emptied(arena, segment);
	arena->mapped_bytes -= segment->length;
	segment->newer = arena->to_unmap;
	arena->to_unmap = segment;
}

struct segment *arena_take_unmaps(struct arena *arena)
{
	struct segment *to_unmap = arena->to_unmap;
	if (to_unmap) /* no write where nothing changes: each look-up comes by */
		arena->to_unmap = NULL;
	return to_unmap;
}

/* Large mappings are emptied in steps first: whoever maps memory waits while one ends, with as many pages as it has. */
static void unmap(struct segment *segment)
{
	for (size_t at = 0, step = UNMAP_STEP_BYTES; segment->length > step && at < segment->used; at += step) {
		const size_t left = segment->length - at;
		/* What is not given back here goes with the mapping. */
		prim_best_effort(prim_purge(segment->base + at, left < step ? left : step));
	}
	prim_end(segment->base, segment->length);
	free(segment);
}

size_t arena_unmap_bytes(const struct segment *to_unmap)
{
	size_t bytes = 0;

	for (; to_unmap; to_unmap = to_unmap->newer)
		bytes += to_unmap->length;
	return bytes;
}

void arena_unmap(struct segment *to_unmap)
{
	while (to_unmap) {
		struct segment *next = to_unmap->newer;
		unmap(to_unmap);
		to_unmap = next;
	}
}

void arena_renew(struct arena *arena, enum arena_part part, struct segment *segment)
{
	by_age_remove(arena, segment);
	segment->part = (uint8_t)part;
	by_age_append(arena, segment);
}

struct segment *arena_next(const struct arena *arena, const struct segment *segment)
{
	if (segment && segment->newer)
		return segment->newer;
	for (unsigned part = segment ? segment->part + 1u : 0; part < ARENA_PARTS; part++)
		if (arena->logs[part].oldest)
			return arena->logs[part].oldest;
	return NULL;
}

void arena_note_purged(struct arena *arena, struct segment *segment, size_t pages)
{
	if (segment->state == SEGMENT_OPEN)
		segment->purged_pages += (uint32_t)pages;
	else
		arena_count(arena, segment, segment->resident_pages > pages ? segment->resident_pages - pages : 0);
}

void arena_note_written(struct arena *arena, struct segment *segment, size_t pages)
{
	if (segment->state == SEGMENT_OPEN)
		segment->purged_pages -= (uint32_t)pages;
	else
		arena_count(arena, segment, segment->resident_pages + pages);
}

void arena_count(struct arena *arena, struct segment *segment, size_t resident_pages)
{
	arena->resident_pages += resident_pages;
	arena->resident_pages -= segment->resident_pages;
	segment->resident_pages = (uint32_t)resident_pages;
}

/* What is mapped for a WHOLE of that many bytes: an eighth more at most, of which nothing is touched. */
static size_t whole_length(size_t length)
{
	size_t step = prim_page_size();

	while (step * 2 * WHOLE_CLASSES <= length)
		step *= 2;
	return (length + step - 1) & ~(step - 1);
}

/* Where the list of kept ones leads to the newest of a kind, of WHOLE to that of a length. It leads to NULL if there is none. */
static struct segment **find_kept(struct arena *arena, enum segment_kind kind, size_t length)
{
	struct segment **at = &arena->kept[kind];

	while (*at && kind == SEGMENT_WHOLE && (*at)->length != length)
		at = &(*at)->newer;
	return at;
}

/* A kept segment of a kind, or NULL. length: of a WHOLE, else ignored. */
static struct segment *take_kept(struct arena *arena, enum segment_kind kind, size_t length)
{
	struct segment **at = find_kept(arena, kind, length), *segment = *at;

	if (segment) {
		*at = segment->newer;
		arena->kept_count[kind]--;
		segment->reused = true;
	}
	return segment;
}

/* Any kept one but a WHOLE, which gives its pages back. NULL: there is none. */
static struct segment *take_purged(struct arena *arena)
{
	struct segment *segment = NULL;

	for (unsigned kind = 0; kind < SEGMENT_WHOLE && !segment; kind++)
		segment = take_kept(arena, kind, 0);
	if (segment)
		purge(arena, segment);
	return segment;
}

/* One without pages; of those that have some, if need be, one that gives them up. NULL: there is none at all. */
static struct segment *take_free(struct arena *arena)
{
	struct segment *segment = arena->free;

	if (segment) {
		arena->free = segment->newer;
	} else {
		segment = take_purged(arena);
	}
	if (segment)
		segment->reused = false;
	return segment;
}

size_t arena_purge_kept(struct arena *arena)
{
	const uint64_t mapped_bytes = arena->mapped_bytes;

	if (arena_trim_whole(arena))
		return (size_t)(mapped_bytes - arena->mapped_bytes);
	struct segment *segment = take_purged(arena);
	if (!segment)
		return 0;
	segment->newer = arena->free;
	arena->free = segment;
	return segment->length;
}

bool arena_trim_whole(struct arena *arena)
{
	struct segment **at = &arena->kept[SEGMENT_WHOLE];

	if (!*at)
		return false;
	while ((*at)->newer) /* the one that was kept first */
		at = &(*at)->newer;
	doom(arena, *at);
	*at = NULL;
	arena->kept_count[SEGMENT_WHOLE]--;
	return true;
}

bool arena_trim(struct arena *arena)
{
	if (arena_trim_whole(arena))
		return true;
	struct segment *segment = take_free(arena);
	if (!segment)
		return false;
	doom(arena, segment);
	return true;
}

static void doom_all(struct arena *arena, struct segment **list)
{
	for (struct segment *segment; (segment = *list) != NULL;) {
		*list = segment->newer;
		doom(arena, segment);
	}
}

void arena_begin_emptying(struct arena *arena)
{
	arena->emptying = true;
}

void arena_end_emptying(struct arena *arena)
{
	arena->emptying = false;
	doom_all(arena, &arena->free);
	for (int kind = 0; kind < SEGMENT_KINDS; kind++) {
		doom_all(arena, &arena->kept[kind]);
		arena->kept_count[kind] = 0;
	}
}

void arena_destroy(struct arena *arena)
{
	arena->closed = true;
	for (struct segment *segment; (segment = arena_next(arena, NULL)) != NULL;)
		arena_retire(arena, segment);
	arena_end_emptying(arena);
	memset(arena->table, 0, arena->table_size * sizeof(*arena->table));
}

void arena_free(struct arena *arena)
{
	free(arena->table);
	free(arena->named);
	arena->table = NULL;
	arena->named = NULL;
}

/* Doubles the table. Numbers in use are distinct modulo the old size, so they are modulo the new one. */
static int grow_table(struct arena *arena)
{
	uint32_t size = arena->table_size * 2;
	struct segment **table = calloc(size, sizeof(*table));
	uint64_t *named = calloc(size, sizeof(*named));
	if (!table || !named) {
		free(table);
		free(named);
		return DRP_NO_MEMORY;
	}
	for (uint32_t i = 0; i < arena->table_size; i++) {
		if (arena->table[i])
			table[arena->table[i]->number & (size - 1)] = arena->table[i];
		named[i] = named[i + arena->table_size] = arena->named[i]; /* of which of the two is not known */
	}
	free(arena->table);
	free(arena->named);
	arena->named = named;
	arena->table = table;
	arena->table_size = size;
	return DRP_OK;
}

/* May slots of the index still name a number of that cell? A round that began after the last of them was retired ends that. */
static bool is_named(const struct arena *arena, uint32_t cell)
{
	const uint64_t named = arena->named[cell] / NAMED_ROUND;

	return named != 0 && arena->rounds < named + 1;
}

/*
 * The next serial that can be given. Numbers go round: 0, which names no segment, one whose cell is taken by a segment that
 * lives long, and one that slots may still name are passed over. 0: there is none.
 */
static uint64_t choose_serial(const struct arena *arena)
{
	const uint64_t first = arena->next_serial;

	for (uint64_t serial = first; serial - first <= arena->table_size; serial++) {
		const uint32_t number = (uint32_t)serial & arena->number_mask, cell = number & (arena->table_size - 1);
		const bool is_new = serial <= arena->number_mask; /* nothing was ever named so */
		if (number != 0 && !arena->table[cell] && (is_new || !is_named(arena, cell)))
			return serial;
	}
	return 0;
}

bool arena_has_number(const struct arena *arena)
{
	return choose_serial(arena) != 0;
}

void arena_note_named(struct arena *arena, const struct segment *segment, bool expired)
{
	arena->named[segment->number & (arena->table_size - 1)] =
		(arena->rounds + 1) * NAMED_ROUND + (expired ? NAMED_EXPIRED : 0);
}

bool arena_expired(const struct arena *arena, uint32_t number)
{
	return arena->named[number & (arena->table_size - 1)] & NAMED_EXPIRED;
}

void arena_end_round(struct arena *arena)
{
	arena->rounds++;
}

static void give_serial(struct arena *arena, struct segment *segment, uint64_t serial)
{
	segment->serial = serial;
	segment->number = (uint32_t)serial & arena->number_mask;
	arena->table[segment->number & (arena->table_size - 1)] = segment;
	arena->table_used++;
	arena->next_serial = serial + 1;
	if (arena->board)
		board_note_segment(arena->board, serial, segment->number, segment->base, segment->kind);
}

bool arena_is_full(struct arena *arena, enum segment_kind kind, size_t length)
{
	if (kind == SEGMENT_WHOLE)
		return arena->mapped_bytes + whole_length(length) > arena->span_limit_bytes &&
		       !*find_kept(arena, kind, whole_length(length));
	return !arena->free && !arena->kept[SEGMENT_ENTRIES] && !arena->kept[SEGMENT_EXTENTS] &&
	       arena->mapped_bytes + arena->segment_bytes > arena->span_limit_bytes;
}

/* Pages of a segment that were written and not given back. A directory is used from its start, seldom to its end. */
static size_t written_pages(const struct segment *segment)
{
	const size_t page = prim_page_size(), pages = (segment->used + page - 1) / page;

	if (segment->kind != SEGMENT_EXTENTS)
		return pages - segment->purged_pages;
	const size_t directory = (segment->extents * sizeof(struct arena_extent) + page - 1) / page;
	return pages - arena_directory_bytes(segment->length) / page + directory - segment->purged_pages;
}

/* It is no head any more. */
static void leave_log(struct arena *arena, const struct segment *segment)
{
	struct arena_log *log = &arena->logs[segment->part];

	if (log->entries[segment->life] == segment)
		log->entries[segment->life] = NULL;
	if (log->extents == segment)
		log->extents = NULL;
}

void arena_seal(struct arena *arena, struct segment *head)
{
	leave_log(arena, head);
	move_to(head, SEGMENT_SEALED);
	arena_renew(arena, head->part, head); /* it is as old as what was appended to it last */
	prim_best_effort(arena_mark(head, true)); /* what it did not mark is dropped later, or when the segment is retired */
	arena_count(arena, head, written_pages(head));
}

static int map_segment(struct arena *arena, enum segment_kind kind, size_t length, struct segment **out)
{
	struct segment *segment = calloc(1, sizeof(*segment) + segment_words(kind, length) * sizeof(segment->pages[0]));
	void *base;

	if (!segment)
		return DRP_NO_MEMORY;
	const int status = prim_map(arena->backing, length, arena->map_flags, &base);
	if (status != DRP_OK) {
		free(segment);
		return status;
	}
	segment->base = base;
	segment->length = length;
	arena->mapped_bytes += length;
	*out = segment;
	return DRP_OK;
}

int arena_open(struct arena *arena, enum arena_part part, unsigned life, enum segment_kind kind, size_t length,
	       struct segment **out)
{
	struct arena_log *log = &arena->logs[part];
	struct segment *segment = NULL;
	int status;

	if (arena->table_used * 2 >= arena->table_size && arena->table_size <= arena->number_mask) {
		status = grow_table(arena);
		if (status != DRP_OK)
			return status;
	}
	const uint64_t serial = choose_serial(arena);
	if (serial == 0)
		return DRP_NO_MEMORY;
	const size_t map_bytes = kind == SEGMENT_WHOLE ? whole_length(length) : arena->segment_bytes;
	/* While memory is short the main log takes fresh pages: they stand last in the reclaim order. */
	if (part == ARENA_SMALL || !arena->memory_is_short)
		segment = take_kept(arena, kind, map_bytes);
	if (kind != SEGMENT_WHOLE && !segment && (arena->free || arena->mapped_bytes >= arena->span_limit_bytes))
		segment = take_free(arena);
	if (!segment) {
		status = map_segment(arena, kind, map_bytes, &segment);
		if (status != DRP_OK && kind != SEGMENT_WHOLE)
			segment = take_free(arena); /* there is one that was of another kind */
		if (!segment)
			return status;
	}
	segment->kind = (uint8_t)kind;
	move_to(segment, kind == SEGMENT_WHOLE ? SEGMENT_SEALED : SEGMENT_OPEN);
	segment->used = segment->marked = segment->cleaned = segment->live_bytes = segment->live_count = 0;
	segment->users = segment->deferred = segment->extents = segment->examined_extents = 0;
	segment->resident_pages = segment->purged_pages = segment->seen_in_round = 0;
	segment->had_second_chance = false;
	memset(segment->pages, 0, segment_words(kind, map_bytes) * sizeof(segment->pages[0]));
	segment->part = (uint8_t)part;
	segment->life = (uint8_t)life;
	if (log->lives <= life)
		log->lives = life + 1;
	segment->has_extents = false;
	segment->expires_first_ns = UINT64_MAX;
	segment->expires_last_ns = 0;
	give_serial(arena, segment, serial);

	struct segment **head = kind == SEGMENT_ENTRIES ? &log->entries[life]
				: kind == SEGMENT_EXTENTS ? &log->extents : NULL;
	if (head) {
		if (*head)
			arena_seal(arena, *head);
		*head = segment;
	} else {
		arena_count(arena, segment, length / prim_page_size());
	}
	by_age_append(arena, segment);
	if (kind == SEGMENT_EXTENTS)
		arena_note_appended(arena, segment, arena_directory_bytes(segment->length));
	segment->examined = segment->used;
	*out = segment;
	return DRP_OK;
}

static bool is_worth_keeping(const struct arena *arena, const struct segment *segment)
{
	if (segment->dirty || segment->unwiped)
		return false;
	return !arena->memory_is_short || (segment->part == ARENA_SMALL && arena->kept_count[segment->kind] < KEPT_MAX);
}

/* Of one kind there are more with their pages than will be wanted soon: what many values left behind. */
static bool keeps_too_many(const struct arena *arena, enum segment_kind kind)
{
	return arena->kept_count[kind] > KEPT_LEAST + arena->table_used / KEPT_SHARE;
}

/* A segment that nothing names and nobody uses: to the free ones, or away. */
static void dispose(struct arena *arena, struct segment *segment)
{
	const bool ends = arena->closed || arena->emptying;

	if (!ends && is_worth_keeping(arena, segment))
		mark_dead(segment);
	const bool kept = !ends && is_worth_keeping(arena, segment);
	if (ends || segment->dirty || segment->unwiped || (segment->kind == SEGMENT_WHOLE && !kept)) {
		doom(arena, segment);
		return;
	}
	move_to(segment, SEGMENT_FREE);
	segment->older = NULL;
	if (kept) {
		if (segment->kind == SEGMENT_WHOLE && arena->kept_count[SEGMENT_WHOLE] == KEPT_WHOLES_MAX)
			(void)arena_trim_whole(arena);
		arena_note_held(arena, segment, segment->touched_pages - segment->held_pages); /* will be, once it is used again */
		segment->newer = arena->kept[segment->kind];
		arena->kept[segment->kind] = segment;
		arena->kept_count[segment->kind]++;
		/* Two for one, for there may be fewer in use from now on. */
		for (int i = 0; i < 2 && segment->kind != SEGMENT_WHOLE && keeps_too_many(arena, segment->kind); i++)
			doom(arena, take_kept(arena, segment->kind, 0));
	} else {
		purge(arena, segment);
		segment->newer = arena->free;
		arena->free = segment;
	}
}

void arena_retire(struct arena *arena, struct segment *segment)
{
	arena_count(arena, segment, 0);
	if (arena->board)
		board_forget_segment(arena->board, segment->serial, segment->number);
	arena->table[segment->number & (arena->table_size - 1)] = NULL;
	arena->table_used--;
	segment->number = 0;
	segment->serial = 0;
	by_age_remove(arena, segment);
	leave_log(arena, segment);
	if (segment->users > 0) {
		move_to(segment, SEGMENT_ZOMBIE);
		mark_dead(segment);
		arena_note_given_back(arena, segment, segment->held_pages); /* they are its users' */
		segment->newer = arena->zombies;
		if (arena->zombies)
			arena->zombies->older = segment;
		arena->zombies = segment;
	} else {
		dispose(arena, segment);
	}
}

static void dispose_zombie(struct arena *arena, struct segment *segment)
{
	*(segment->older ? &segment->older->newer : &arena->zombies) = segment->newer;
	if (segment->newer)
		segment->newer->older = segment->older;
	dispose(arena, segment);
}

void arena_release(struct arena *arena, struct segment *segment)
{
	DRP_ASSERT(segment->users > segment->deferred || segment->deferred == 0);
	DRP_ASSERT(segment->users > 0);
	if (--segment->users == 0 && segment->state == SEGMENT_ZOMBIE)
		dispose_zombie(arena, segment);
}

void arena_unmap_zombies(struct arena *arena)
{
	for (struct segment *segment = arena->zombies, *next; segment; segment = next) {
		next = segment->newer;
		if (segment->users == 0)
			dispose_zombie(arena, segment);
	}
}

int arena_mark(struct segment *segment, bool part_pages)
{
	const size_t page = prim_page_size();
	size_t used = segment->kind == SEGMENT_EXTENTS ? arena_directory_bytes(segment->length) : segment->used;
	size_t whole = used & ~(page - 1), end = part_pages ? (used + page - 1) & ~(page - 1) : whole;

	if (segment->kind == SEGMENT_WHOLE || end <= segment->marked)
		return DRP_OK;
	int status = prim_mark(segment->base + segment->marked, end - segment->marked);
	if (status == DRP_OK && segment->reused) /* the mark left these pages where they stood in the reclaim order, and made them look unused */
		prim_touch(segment->base + segment->marked, end - segment->marked);
	/* The directory is written again with each extent, a part page with the next entry: to be marked once more. */
	if (status == DRP_OK && (segment->kind == SEGMENT_ENTRIES || segment->state != SEGMENT_OPEN))
		segment->marked = segment->state == SEGMENT_OPEN ? whole : end;
	return status;
}
