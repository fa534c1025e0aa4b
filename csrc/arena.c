/*
 * arena.c - see arena.h for the picture.
 */
#include "arena.h"

#include <stdlib.h>
#include <string.h>

#include "droppable.h"

enum { FIRST_TABLE_SIZE = 16 };

int arena_init(struct arena *arena, enum prim_backing backing, unsigned map_flags, size_t segment_bytes)
{
	if (segment_bytes < prim_page_size() || segment_bytes > ARENA_SEGMENT_MAX ||
	    (segment_bytes & (segment_bytes - 1)) != 0)
		return DRP_INVALID;
	*arena = (struct arena){
		.backing = backing, .map_flags = map_flags, .segment_bytes = segment_bytes,
		.span_limit_bytes = UINT64_MAX, .table_size = FIRST_TABLE_SIZE, .next_number = 1,
	};
	arena->table = calloc(FIRST_TABLE_SIZE, sizeof(*arena->table));
	return arena->table ? DRP_OK : DRP_NO_MEMORY;
}

static void by_age_remove(struct arena *arena, struct segment *segment)
{
	*(segment->older ? &segment->older->newer : &arena->oldest) = segment->newer;
	*(segment->newer ? &segment->newer->older : &arena->newest) = segment->older;
	segment->older = segment->newer = NULL;
}

static void by_age_append(struct arena *arena, struct segment *segment)
{
	segment->older = arena->newest;
	segment->newer = NULL;
	*(arena->newest ? &arena->newest->newer : &arena->oldest) = segment;
	arena->newest = segment;
}

static void doom(struct arena *arena, struct segment *segment)
{
	arena->mapped_bytes -= segment->length;
	segment->newer = arena->doomed;
	arena->doomed = segment;
}

struct segment *arena_take_doomed(struct arena *arena)
{
	struct segment *doomed = arena->doomed;
	if (doomed) /* no write where nothing changes: each look-up comes by */
		arena->doomed = NULL;
	return doomed;
}

void arena_bury(struct segment *doomed)
{
	while (doomed) {
		struct segment *next = doomed->newer;
		(void)prim_unmap(doomed->base, doomed->length);
		free(doomed);
		doomed = next;
	}
}

void arena_renew(struct arena *arena, struct segment *segment)
{
	by_age_remove(arena, segment);
	by_age_append(arena, segment);
}

bool arena_trim(struct arena *arena)
{
	struct segment *segment = arena->free;
	if (!segment)
		return false;
	arena->free = segment->newer;
	doom(arena, segment);
	return true;
}

void arena_destroy(struct arena *arena)
{
	arena->closed = true;
	while (arena->oldest)
		arena_retire(arena, arena->oldest);
	while (arena_trim(arena))
		;
	memset(arena->table, 0, arena->table_size * sizeof(*arena->table));
}

void arena_free(struct arena *arena)
{
	free(arena->table);
	arena->table = NULL;
}

/* Doubles the table. Numbers in use are distinct modulo the old size, so they are modulo the new one. */
static int grow_table(struct arena *arena)
{
	uint32_t size = arena->table_size * 2;
	struct segment **table = calloc(size, sizeof(*table));
	if (!table)
		return DRP_NO_MEMORY;
	for (uint32_t i = 0; i < arena->table_size; i++)
		if (arena->table[i])
			table[arena->table[i]->number & (size - 1)] = arena->table[i];
	free(arena->table);
	arena->table = table;
	arena->table_size = size;
	return DRP_OK;
}

/* Numbers go round; one whose cell is taken by a long-lived segment is passed over. */
static void give_number(struct arena *arena, struct segment *segment)
{
	uint32_t number = arena->next_number;
	while (number == 0 || arena->table[number & (arena->table_size - 1)])
		number = (number + 1) & ((1u << ARENA_NUMBER_BITS) - 1);
	segment->number = number;
	arena->table[number & (arena->table_size - 1)] = segment;
	arena->table_used++;
	arena->next_number = (number + 1) & ((1u << ARENA_NUMBER_BITS) - 1);
}

bool arena_is_full(const struct arena *arena, enum segment_kind kind, size_t length)
{
	if (kind == SEGMENT_WHOLE)
		return arena->mapped_bytes + length > arena->span_limit_bytes;
	return !arena->free && arena->mapped_bytes + arena->segment_bytes > arena->span_limit_bytes;
}

int arena_open(struct arena *arena, enum segment_kind kind, size_t length, struct segment **out)
{
	struct segment *segment;
	int status;

	if (arena->table_used * 2 >= arena->table_size) {
		status = grow_table(arena);
		if (status != DRP_OK)
			return status;
	}
	if (kind != SEGMENT_WHOLE && arena->free) {
		segment = arena->free;
		arena->free = segment->newer;
	} else {
		void *base;
		segment = calloc(1, sizeof(*segment));
		if (!segment)
			return DRP_NO_MEMORY;
		segment->length = kind == SEGMENT_WHOLE ? length : arena->segment_bytes;
		status = prim_map(arena->backing, segment->length, arena->map_flags, &base);
		if (status != DRP_OK) {
			free(segment);
			return status;
		}
		segment->base = base;
		arena->mapped_bytes += segment->length;
	}
	segment->kind = (uint8_t)kind;
	segment->state = SEGMENT_OPEN;
	segment->used = segment->marked = segment->swept = segment->live_bytes = segment->live_count = 0;
	segment->users = segment->resting = segment->extents = 0;
	segment->spared = false;
	give_number(arena, segment);
	by_age_append(arena, segment);

	struct segment **head = kind == SEGMENT_ENTRIES ? &arena->entries
				: kind == SEGMENT_EXTENTS ? &arena->extents : NULL;
	if (head) {
		if (*head) {
			(*head)->state = SEGMENT_SEALED;
			(void)arena_mark(*head, true);
		}
		*head = segment;
	} else {
		segment->state = SEGMENT_SEALED;
	}
	if (kind == SEGMENT_EXTENTS)
		segment->used = arena_directory_bytes(segment->length);
	*out = segment;
	return DRP_OK;
}

/* A segment that nothing names and nobody uses: to the free ones, or away. */
static void dispose(struct arena *arena, struct segment *segment)
{
	if (arena->closed || segment->kind == SEGMENT_WHOLE) {
		doom(arena, segment);
		return;
	}
	/* What is left on its pages is dead: clean, so that the kernel may have it before the segment is used again. */
	segment->state = SEGMENT_FREE;
	(void)prim_mark(segment->base, segment->length);
	segment->older = NULL;
	segment->newer = arena->free;
	arena->free = segment;
}

void arena_retire(struct arena *arena, struct segment *segment)
{
	arena->table[segment->number & (arena->table_size - 1)] = NULL;
	arena->table_used--;
	segment->number = 0;
	by_age_remove(arena, segment);
	if (arena->entries == segment)
		arena->entries = NULL;
	if (arena->extents == segment)
		arena->extents = NULL;
	if (segment->users > 0)
		segment->state = SEGMENT_ZOMBIE;
	else
		dispose(arena, segment);
}

void arena_release(struct arena *arena, struct segment *segment)
{
	if (--segment->users == 0 && segment->state == SEGMENT_ZOMBIE)
		dispose(arena, segment);
}

int arena_mark(struct segment *segment, bool part_pages)
{
	const size_t page = prim_page_size();
	size_t used = segment->kind == SEGMENT_EXTENTS ? arena_directory_bytes(segment->length) : segment->used;
	size_t whole = used & ~(page - 1), end = part_pages ? (used + page - 1) & ~(page - 1) : whole;

	if (segment->kind == SEGMENT_WHOLE || end <= segment->marked)
		return DRP_OK;
	int status = prim_mark(segment->base + segment->marked, end - segment->marked);
	/* The directory is written again with each extent, a part page with the next entry: to be marked once more. */
	if (status == DRP_OK && (segment->kind == SEGMENT_ENTRIES || segment->state != SEGMENT_OPEN))
		segment->marked = segment->state == SEGMENT_OPEN ? whole : end;
	return status;
}

size_t arena_directory_bytes(size_t segment_bytes)
{
	const size_t page = prim_page_size();
	size_t bytes = segment_bytes / page * sizeof(struct arena_extent);
	return (bytes + page - 1) & ~(page - 1);
}

struct arena_extent *arena_directory(const struct segment *segment)
{
	return (struct arena_extent *)segment->base;
}
