/*
 * store/shard.c - one shard: entries are found, appended and forgotten. All of it under the shard's lock.
 *
 * Accounting. An entry is what a slot of the index names: the index counts them, and what it loses with a page. Each segment
 * knows how many of its entries (or extents) are live, and their bytes; both are never less than the truth:
 *
 *   live_count   of entries: slots that name the segment. Those that were lost with a page of the index are told to no segment,
 *                and are found when a whole round of the index was gone through (end_round())
 *   live_bytes   an entry whose head was dropped is counted off, but its size is not known any more: those bytes leave
 *                with the segment
 *
 *   sets = entries + dropped + evicted + expired + deletes + replaced + cleared, at any moment, to the last one
 */
#include <stdlib.h>
#include <string.h>

#include "store/index_home.h"
#include "store/index_stands.h"
#include "store/internal.h"
#include "store/move.h"
#include "store/deferred.h"
#include "os/drp_assert.h"
#include "os/hash.h"
#include "log/witness.h"

enum {
	APPEND_RETRIES = 3,
	EXTENT_BACKED_FACTOR = 8,
	SPENT_BYTES = 32 * 1024,
	MARK_SHARE = 4, /* of a segment is appended between two marks: each interrupts the other processors */
	UNMARKED_BATCHES = 2, /* of those at most */
	/* Pages of the index between two marks: they cannot be dropped on lazyfree, and to mark one takes 2 us. Of all shards. */
	INDEX_DIRTY_PAGES = 256,
	SHARD_DIRTY_LEAST = 64,
	INDEX_SPARSE_SHARE = 8, /* of the slots are taken: a third to two thirds are, as a rule */
};

/* A live entry less in a segment that the caller cannot retire at this point: shard_retire_emptied() does later. */
static void count_one_off(struct shard *shard, struct segment *segment)
{
	DRP_ASSERT(segment->live_count > 0);
	segment->live_count--;
	if (segment->live_count == 0 && segment->state == SEGMENT_SEALED)
		shard->emptied = true;
}

enum index_fate shard_is_stale(void *context, uint64_t place, bool scrub)
{
	struct shard *shard = context;
	struct segment *segment = arena_segment(&shard->arena, arena_place_number(place));

	if (!segment || segment->kind != SEGMENT_ENTRIES)
		return INDEX_ORPHAN;
	if (!segment_is_dropped(segment, arena_place_offset(place))) {
		segment->seen_in_round += scrub;
		return INDEX_STAYS;
	}
	/* Its size is not known any more; and a segment is not retired in the midst of a change of the index. */
	count_one_off(shard, segment);
	return INDEX_GONE;
}

static void end_round(struct shard *shard)
{
	for (struct segment *segment = NULL; (segment = arena_next(&shard->arena, segment)) != NULL;) {
		if (segment->kind != SEGMENT_ENTRIES)
			continue;
		/* One that was sealed all the time got no new entries, so there are no more than were seen. */
		if (segment->state == SEGMENT_SEALED && segment->serial < shard->round_serial &&
		    segment->seen_in_round < segment->live_count) {
			segment->live_count = segment->seen_in_round;
			shard->emptied |= segment->live_count == 0;
		}
		segment->seen_in_round = 0;
	}
	/* Heads get entries still: the next round leaves them out, too. */
	shard->round_serial = shard->arena.next_serial;
	for (int part = 0; part < ARENA_PARTS; part++)
		for (unsigned life = 0; life < shard->arena.logs[part].lives; life++) {
			const struct segment *head = shard->arena.logs[part].entries[life];
			if (head && head->serial < shard->round_serial)
				shard->round_serial = head->serial;
		}
}

void shard_scrub(struct shard *shard)
{
	index_scrub(&shard->index, shard->scrubbed_page++);
	if (shard->scrubbed_page < shard->index.page_count)
		return;
	shard->scrubbed_page = 0;
	arena_end_round(&shard->arena);
	end_round(shard);
}

void shard_retire_emptied(struct cache *cache, struct shard *shard)
{
	shard->emptied = false;
	for (struct segment *segment = arena_next(&shard->arena, NULL), *next; segment; segment = next) {
		next = arena_next(&shard->arena, segment);
		if (segment->live_count == 0 && segment->state == SEGMENT_SEALED)
			shard_retire(cache, shard, segment);
	}
}

/* The lock is held for a fraction of a microsecond, mostly: whoever finds it taken spins first, where that is offered. */
static void init_lock(pthread_mutex_t *lock)
{
	pthread_mutexattr_t attributes;

	pthread_mutexattr_init(&attributes);
#ifdef PTHREAD_ADAPTIVE_MUTEX_INITIALIZER_NP
	pthread_mutexattr_settype(&attributes, PTHREAD_MUTEX_ADAPTIVE_NP);
#endif
	pthread_mutex_init(lock, &attributes);
	pthread_mutexattr_destroy(&attributes);
}

int shard_init(struct cache *cache, struct shard *shard)
{
	const unsigned map_flags = cache->config.share_on_fork ? PRIM_KEEP_ON_FORK : 0;
	int status;

	status = arena_init(&shard->arena, cache->config.backing, map_flags, cache->config.segment_bytes);
	if (status != DRP_OK)
		return status;
	status = index_init(&shard->index, cache->config.backing, map_flags);
	if (status != DRP_OK)
		goto err_arena;
	shard->dirty_pages_most = INDEX_DIRTY_PAGES / cache->shard_count;
	if (shard->dirty_pages_most < SHARD_DIRTY_LEAST)
		shard->dirty_pages_most = SHARD_DIRTY_LEAST;
	if (shard->dirty_pages_most > SHARD_DIRTY_MOST)
		shard->dirty_pages_most = SHARD_DIRTY_MOST;
	shard->index.is_stale = shard_is_stale;
	shard->index.context = shard;
	atomic_init(&shard->expiry.due_ns, UINT64_MAX);
	init_lock(&shard->lock);
	pthread_cond_init(&shard->pin_changed, NULL);
	return DRP_OK;

err_arena:
	arena_free(&shard->arena);
	return status;
}

void shard_destroy(struct shard *shard)
{
	arena_destroy(&shard->arena);
	arena_unmap(arena_take_unmaps(&shard->arena));
	arena_free(&shard->arena);
	index_destroy(&shard->index);
	pins_destroy(&shard->pins);
	pthread_cond_destroy(&shard->pin_changed);
	pthread_mutex_destroy(&shard->lock);
}

void shard_shrink_index(struct shard *shard)
{
	const size_t slots = index_pages(&shard->index) * index_slots_per_page();

	if (shard_entries(shard) < slots / INDEX_SPARSE_SHARE)
		index_shrink(&shard->index);
}

static void subtract_bytes(struct shard *shard, struct segment *segment, size_t bytes)
{
	DRP_ASSERT(bytes <= segment->live_bytes && bytes <= shard->counts.bytes);
	segment->live_bytes -= bytes;
	shard->counts.bytes -= bytes;
}

static void add_bytes(struct shard *shard, struct segment *segment, size_t bytes)
{
	segment->live_bytes += bytes;
	segment->live_count++;
	shard->counts.bytes += bytes;
}

void shard_set_live(struct shard *shard, struct segment *segment, size_t bytes, size_t count)
{
	subtract_bytes(shard, segment, segment->live_bytes);
	add_bytes(shard, segment, bytes);
	segment->live_count = count;
}

/* Did all entries that left the segment leave one by one? Else its count is what they are at most. */
bool shard_knows_whose(struct shard *shard, const struct segment *segment)
{
	if (shard->index.blind_losses != shard->seen_blind_losses) {
		shard->seen_blind_losses = shard->index.blind_losses;
		shard->told_serial = shard->arena.next_serial;
	}
	return segment->serial >= shard->told_serial;
}

static void retire(struct cache *cache, struct shard *shard, struct segment *segment, bool expired)
{
	subtract_bytes(shard, segment, segment->live_bytes);
	if (segment->kind == SEGMENT_ENTRIES && segment->live_count > 0) {
		/* Slots lead to it still, and are cleared when somebody comes by. How many they are is known if none was lost. */
		if (shard_knows_whose(shard, segment))
			index_note_orphans(&shard->index, segment->live_count);
		arena_note_named(&shard->arena, segment, expired);
		if (segment->has_extents)
			shard->audit_due = AUDIT_DUE; /* their values are nobody's now */
	}
	segment->live_count = 0;
	if (segment->kind == SEGMENT_EXTENTS)
		reuse_leave(shard, segment->serial);
	if (segment->deferred > 0)
		deferred_retire(shard, segment);
	arena_retire(&shard->arena, segment);
	cache_account(cache, shard);
}

void shard_retire(struct cache *cache, struct shard *shard, struct segment *segment)
{
	retire(cache, shard, segment, false);
}

void shard_retire_expired(struct cache *cache, struct shard *shard, struct segment *segment)
{
	DRP_ASSERT(segment->kind == SEGMENT_ENTRIES && shard_knows_whose(shard, segment));
	shard->counts.expired += segment->live_count;
	shard->not_dropped += segment->live_count; /* though the index will find them gone */
	retire(cache, shard, segment, true);
}

void shard_empty(struct cache *cache, struct shard *shard)
{
	deferred_empty(shard);
	shard->counts.cleared += shard_entries(shard);
	index_clear(&shard->index);
	arena_begin_emptying(&shard->arena);
	for (struct segment *segment; (segment = arena_next(&shard->arena, NULL)) != NULL;) {
		segment->live_count = 0; /* no slot is left */
		shard_retire(cache, shard, segment);
	}
	arena_end_emptying(&shard->arena);
	shard->reuse = (struct reuse){0};
	shard->scrubbed_page = 0;
	cache_account(cache, shard);
}

/* One live entry or extent less in a segment; the last one takes the segment along. */
static void leave_segment(struct cache *cache, struct shard *shard, struct segment *segment, size_t bytes)
{
	subtract_bytes(shard, segment, bytes);
	DRP_ASSERT(segment->live_count > 0);
	segment->live_count--;
	if (segment->live_count == 0 && segment->state == SEGMENT_SEALED)
		shard_retire(cache, shard, segment);
}

void shard_free_extent(struct cache *cache, struct shard *shard, const struct entry_extent *extent, enum leave why,
		       enum pages_fate fate)
{
	const size_t page = prim_page_size(), bytes = witness_count((size_t)extent->value_bytes) * page;
	unsigned char *address;
	struct segment *segment = shard_extent_segment(shard, extent, &address);

	if (!segment)
		return;
	struct pin *pin = pins_find(&shard->pins, address);
	bool was_deferred = false;
	if (pin) {
		pin->forgotten = true; /* seen to by who lets it go */
		was_deferred = pin->deferred && fate == PAGES_RETIRED; /* the space is needed now */
		if (pin->deferred && !was_deferred)
			deferred_free(shard, pin);
	}
	if (was_deferred) { /* its pages are not marked */
		deferred_forget(shard, pin);
		pin = NULL;
		segment->dirty |= segment->kind == SEGMENT_WHOLE;
	}
	const bool to_give = !pin && segment->kind == SEGMENT_EXTENTS && (was_deferred || fate != PAGES_LEFT);
	const bool may_stay = to_give && fate == PAGES_REUSED && why != LEAVE_DROPPED;
	if (!may_stay || !reuse_keep(shard, segment, extent->page, bytes / page)) {
		const bool is_purged = to_give && prim_purge(address, bytes) == DRP_OK;
		if (is_purged && fate == PAGES_REUSED)
			reuse_note_absent(shard, segment, extent->page, bytes / page);
		else if (to_give && !is_purged && was_deferred && prim_mark(address, bytes) != DRP_OK) /* others were marked long ago */
			segment->dirty = true;
		arena_note_purged(&shard->arena, segment, bytes / page);
		arena_note_given_back(&shard->arena, segment, bytes / page);
	}
	leave_segment(cache, shard, segment, bytes);
}

size_t found_end(const struct found *found)
{
	size_t start;
	return entry_place(found->offset, found->entry.bytes, &start);
}

bool shard_read_extent(struct found *found, struct entry_extent *extent)
{
	entry_copy(&found->reader, extent, sizeof(*extent));
	/* What was copied counts only if the pieces up to here are there still; their stamps come first in each page. */
	size_t read_bytes = found->entry.bytes - found->entry.inline_bytes + sizeof(*extent);
	return !found->reader.lost && extent->value_bytes > 0 && /* zeros of a page that another processor sees still */
	       entry_intact(found->segment->base, found->offset, arena_stamp(found->segment->number), read_bytes) &&
	       (found->entry.inline_bytes - sizeof(*extent)) / sizeof(uint16_t) * prim_page_size() >= extent->value_bytes;
}

struct segment *shard_extent_segment(const struct shard *shard, const struct entry_extent *extent, unsigned char **address)
{
	struct segment *segment = arena_find(&shard->arena, extent->segment);
	const size_t page = prim_page_size(), first = (size_t)extent->page * page;

	if (!segment)
		return NULL;
	/* What is used of it ends with a page, so its last page lies inside with the last byte. */
	const bool inside = segment->kind != SEGMENT_ENTRIES && first <= segment->used &&
			    extent->value_bytes <= segment->used - first;
	DRP_ASSERT(inside);
	if (!inside)
		return NULL;
	*address = segment->base + first;
	return segment;
}

bool shard_is_whole(struct shard *shard, struct found *found)
{
	const size_t page = prim_page_size();
	uint16_t witnesses[64];
	struct entry_extent extent;

	if (!entry_intact(found->segment->base, found->offset, arena_stamp(found->segment->number),
			  found->entry.bytes))
		return false;
	if (!(found->entry.flags & ENTRY_EXTENT))
		return true;
	entry_copy(&found->reader, NULL, found->entry.meta_bytes);
	if (!shard_read_extent(found, &extent))
		return false;
	unsigned char *at;
	if (!shard_extent_segment(shard, &extent, &at))
		return false;
	for (size_t left = (size_t)extent.value_bytes; left > 0;) {
		size_t some = left < 64 * page ? left : 64 * page;
		entry_copy(&found->reader, witnesses, witness_count(some) * sizeof(witnesses[0]));
		if (found->reader.lost || !witness_intact(at, some, witnesses))
			return false;
		at += some;
		left -= some;
	}
	/* The witnesses themselves: read from pages that are there still? */
	return entry_intact(found->segment->base, found->offset, arena_stamp(found->segment->number),
			    found->entry.bytes);
}

static void count_left(struct shard *shard, enum leave why)
{
	switch (why) {
	case LEAVE_DROPPED:
		shard->counts.dropped++;
		break;
	case LEAVE_EVICTED:
		shard->counts.evicted++;
		break;
	case LEAVE_EXPIRED:
		shard->counts.expired++;
		break;
	case LEAVE_DELETED:
		shard->counts.deletes++;
		break;
	case LEAVE_REPLACED:
		shard->counts.replaced++;
		break;
	}
}

void shard_leave_place(struct cache *cache, struct shard *shard, uint64_t place, size_t stored_bytes)
{
	struct segment *segment = arena_segment(&shard->arena, arena_place_number(place));

	DRP_ASSERT(segment && segment->kind == SEGMENT_ENTRIES);
	if (segment)
		leave_segment(cache, shard, segment, stored_bytes);
}

bool shard_replace(struct cache *cache, struct shard *shard, struct index_cursor *cursor, size_t stored_bytes,
		   uint64_t place)
{
	const uint64_t old_place = cursor->place;
	const bool replaced = index_replace(&shard->index, cursor, place);

	if (replaced)
		count_left(shard, LEAVE_REPLACED);
	shard_leave_place(cache, shard, old_place, stored_bytes);
	return replaced;
}

void shard_leave(struct cache *cache, struct shard *shard, struct index_cursor *cursor, size_t stored_bytes,
		 enum leave why)
{
	const uint64_t place = cursor->place;

	const bool left = why == LEAVE_EVICTED ? index_replace(&shard->index, cursor, PLACE_EVICTED)
					       : index_erase(&shard->index, cursor);
	if (left)
		count_left(shard, why);
	/* Else its page of the index went: it is counted as dropped there. */
	if (!left || why == LEAVE_DROPPED)
		shard->audit_due++;
	shard_leave_place(cache, shard, place, stored_bytes);
}

void shard_evict_place(struct cache *cache, struct shard *shard, uint64_t place)
{
	struct found found = {.segment = arena_segment(&shard->arena, arena_place_number(place)),
			      .offset = arena_place_offset(place)};
	struct entry_extent extent;
	size_t stored_bytes = 0;

	count_left(shard, LEAVE_EVICTED);
	if (!found.segment)
		return; /* nor did it lead anywhere */
	if (!segment_is_dropped(found.segment, found.offset) && shard_open_entry(&found)) {
		stored_bytes = found_end(&found) - found.offset;
		entry_copy(&found.reader, NULL, found.entry.key_bytes + found.entry.meta_bytes);
		if ((found.entry.flags & ENTRY_EXTENT) && shard_read_extent(&found, &extent))
			shard_free_extent(cache, shard, &extent, LEAVE_EVICTED, PAGES_REUSED);
	}
	shard_leave_place(cache, shard, place, stored_bytes);
}

void shard_forget(struct cache *cache, struct shard *shard, struct index_cursor *cursor, struct found *found,
		  enum leave why, enum pages_fate fate)
{
	struct entry_extent extent = {0};
	size_t stored_bytes = 0;

	if (found) {
		stored_bytes = found_end(found) - found->offset;
		if ((found->entry.flags & ENTRY_EXTENT) && shard_read_extent(found, &extent))
			shard_free_extent(cache, shard, &extent, why, fate);
	}
	if (why == LEAVE_DROPPED)
		admission_note_dropped(shard, stored_bytes + (size_t)extent.value_bytes);
	shard_leave(cache, shard, cursor, stored_bytes, why);
}

/* From where its cursor stands. */
static inline __attribute__((always_inline)) int find(struct cache *cache, struct shard *shard, const void *key,
						      size_t key_bytes, struct found *found)
{
	struct index_cursor *cursor = &found->cursor;
	int cause = MISS_ABSENT;

	while (index_next(&shard->index, cursor)) {
		const uint32_t number = arena_place_number(cursor->place);
		struct segment *segment = arena_segment(&shard->arena, number);
		if (!segment || segment->kind != SEGMENT_ENTRIES) {
			const bool evicted = cursor->place == PLACE_EVICTED;
			if (!evicted) /* its segment was retired with it */
				index_clear_stale(&shard->index, cursor);
			if (cause == MISS_ABSENT)
				cause = evicted ? MISS_EVICTED : arena_expired(&shard->arena, number) ? MISS_EXPIRED : MISS_DROPPED;
			continue;
		}
		found->segment = segment;
		found->offset = arena_place_offset(cursor->place);
		__builtin_prefetch(segment->base + found->offset + 64); /* what stands behind the head */
		bool there = !segment_is_dropped(segment, found->offset) && /* read, it would be a page of zeros */
			     shard_open_entry(found);
		if (there && found->entry.key_bytes == key_bytes && entry_match(&found->reader, key, key_bytes))
			return -1;
		/* Another key with this tag, or half of ours is gone: the stamps tell, on the processor that compared. */
		if (there && !found->reader.lost &&
		    entry_intact(segment->base, found->offset, arena_stamp(number), found->entry.bytes) && prim_cpu() == cursor->cpu)
			continue;
		shard_forget(cache, shard, cursor, NULL, LEAVE_DROPPED, PAGES_REUSED);
		cause = MISS_DROPPED;
	}
	index_end_search(&shard->index, cursor);
	return cursor->page_lost ? MISS_DROPPED : cause;
}

int shard_find(struct cache *cache, struct shard *shard, uint64_t hash, const void *key, size_t key_bytes,
	       struct found *found)
{
	index_find(&shard->index, hash, &found->cursor);
	return find(cache, shard, key, key_bytes, found);
}

/* Nearly always it is what the slot names. What find() would see of that slot is seen here with the segment at hand. */
int shard_find_from(struct cache *cache, struct shard *shard, uint64_t hash, uint64_t *slot, struct segment *segment,
		    const void *key, size_t key_bytes, struct found *found)
{
	struct index_cursor *cursor = &found->cursor;

	index_home_find(&shard->index, hash, slot, cursor);
	found->segment = segment;
	found->offset = arena_place_offset(cursor->place);
	if (arena_place_number(cursor->place) == segment->number && segment->kind == SEGMENT_ENTRIES &&
	    !segment_is_dropped(segment, found->offset) && shard_open_entry(found) && found->entry.key_bytes == key_bytes &&
	    entry_match(&found->reader, key, key_bytes))
		return -1;
	cursor->next--; /* the search begins with that very slot */
	return find(cache, shard, key, key_bytes, found);
}

bool shard_find_place(struct shard *shard, uint64_t hash, uint64_t place, struct index_cursor *cursor)
{
	index_find(&shard->index, hash, cursor);
	while (index_next(&shard->index, cursor))
		if (cursor->place == place)
			return true;
	return false;
}

/*
 * PRIM_DROPPABLE, after the writer changed processor, or does not find its own stamp: was it written to the pages that are there
 * now? Its page may have gone in the midst of it, and the stamp have come to be in the old one, the value in the new.
 */
static bool landed(struct segment *segment, size_t start, size_t end, const struct entry *entry,
		   const struct drp_part *parts, size_t part_count)
{
	const size_t page = prim_page_size();
	const size_t first = start & ~(page - 1), last = (end + page - 1) & ~(page - 1);
	struct entry_reader reader;
	struct entry read;

	if (prim_mark(segment->base + first, last - first) != DRP_OK ||
	    !entry_open(segment->base, segment->used, start, arena_stamp(segment->number), &reader, &read) ||
	    read.bytes != entry->bytes)
		return false;
	for (size_t i = 0; i < part_count; i++)
		if (!entry_match(&reader, parts[i].data, parts[i].bytes))
			return false;
	return true;
}

/* What mark_entries() would find: asked at each append, so that a store need not look through all logs. */
static void note_appended(struct shard *shard, const struct segment *head)
{
	if (head->used - head->marked + shard->unmarked_extent_bytes[head->part] >= head->length / MARK_SHARE)
		shard->marks_due = true;
}

static int mark_entries(struct shard *shard, struct segment *head, bool all)
{
	const size_t marked = head->marked, unmarked = head->used - marked;
	const size_t batch = head->length / MARK_SHARE;
	size_t *extent_bytes = &shard->unmarked_extent_bytes[head->part];

	if (!all && unmarked + *extent_bytes < batch)
		return DRP_OK; /* and it was not this log that was due: note_appended() */
	const int status = arena_mark(head, all);
	if (head->marked == marked && !all)
		return status;
	/* Few entries stand for many pages here: they must outlive them, or those pages are there for nobody. */
	if (*extent_bytes > EXTENT_BACKED_FACTOR * unmarked)
		prim_touch(head->base + marked, unmarked);
	*extent_bytes = 0;
	return status;
}

/*
 * Nothing is appended behind much that cannot be marked (mlockall(2) keeps it from being so): it would be memory taken from
 * others for good, and there would be ever more of it.
 */
static bool may_append(struct segment *head)
{
	return head->used - head->marked < head->length / MARK_SHARE * UNMARKED_BATCHES || arena_mark(head, false) == DRP_OK;
}

/*
 * DRP_NO_MEMORY: there is no more address space (RLIMIT_AS, 32 bits, vm.max_map_count) than what is mapped, or no number. Who
 * appends may win some back (policy/space.h) and try again.
 */
static int open_segment(struct cache *cache, struct shard *shard, enum arena_part part, unsigned life,
			enum segment_kind kind, size_t length, struct segment **out)
{
	struct arena *arena = &shard->arena;
	struct segment *head = kind == SEGMENT_ENTRIES ? arena->logs[part].entries[life] : NULL;

	if (head && mark_entries(shard, head, true) != DRP_OK)
		return DRP_REFUSED; /* see may_append() */
	shard->opened_bytes += kind == SEGMENT_WHOLE ? length : arena->segment_bytes;
	/* What is sealed now and holds nothing: nothing of it will leave any more, and take it along. */
	struct segment *full = kind == SEGMENT_EXTENTS ? arena->logs[part].extents : NULL;
	if (full && full->live_count == 0 && full->users == 0)
		shard_retire(cache, shard, full);
	else if (full && full->live_count == 0)
		shard->emptied = true; /* what is deferred in it is on its way out */
	if (head && head->live_count == 0)
		shard->emptied = true;
	for (size_t pages = 2 * shard->index.page_count; !arena_has_number(arena) && pages > 0; pages--)
		shard_scrub(shard); /* a whole round and what is left of this one: then all numbers without a segment are free */
	return arena_open(arena, part, life, kind, length, out);
}

/*
 * Entries that stand for many pages each leave the small queue long before they fill a segment. Their dead bytes would fill pages
 * that are kept resident, so that the head is sealed early.
 */
static bool is_spent(const struct segment *head)
{
	return head->part == ARENA_SMALL && head->used >= SPENT_BYTES && head->live_bytes < head->used / 4;
}

int shard_append(struct cache *cache, struct shard *shard, enum arena_part part, const struct entry *entry,
		 const struct drp_part *parts, size_t part_count, uint64_t *place)
{
	const size_t bytes = entry->bytes;
	const bool in_order = cache->config.backing == PRIM_DROPPABLE;
	const unsigned life = entry->flags & ENTRY_TTL ? expiry_life(cache, entry->expires_ns) : 0;
	size_t start = 0, end;

	for (int tries = 0; tries < APPEND_RETRIES; tries++) {
		struct segment *head = shard->arena.logs[part].entries[life];
		if (head && !may_append(head))
			return DRP_REFUSED;
		end = head ? entry_place(head->used, bytes, &start) : SIZE_MAX;
		if (!head || end > head->length || is_spent(head)) {
			int status = open_segment(cache, shard, part, life, SEGMENT_ENTRIES, 0, &head);
			if (status != DRP_OK)
				return status;
			end = entry_place(0, bytes, &start);
		}
		unsigned cpu = in_order ? prim_cpu() : 0;
		entry_write(head->base, start, arena_stamp(head->number), entry, parts, part_count);
		admission_note_appended(shard, head, end - head->used);
		arena_note_appended(&shard->arena, head, end);
		note_appended(shard, head);
		if (in_order &&
		    (!entry_intact(head->base, start, arena_stamp(head->number), entry->bytes) || prim_cpu() != cpu) && /* in that order */
		    !landed(head, start, end, entry, parts, part_count))
			continue; /* what lies there is dead; the next try goes behind it */
		add_bytes(shard, head, end - start);
		if (entry->flags & ENTRY_EXTENT)
			head->has_extents = true;
		if (life > 0)
			expiry_note_appended(cache, shard, head, entry->expires_ns);
		*place = arena_place(head, start);
		return DRP_OK;
	}
	return DRP_REFUSED;
}

int shard_take_extent(struct cache *cache, struct shard *shard, enum arena_part part, uint64_t hash, size_t bytes,
		      struct segment **out, struct entry_extent *extent, bool *resident)
{
	struct arena *arena = &shard->arena;
	const size_t page = prim_page_size(), length = witness_count(bytes) * page;
	struct segment *segment = arena->logs[part].extents;
	size_t offset, first;
	int status;

	if (shard_extent_kind(shard, length) == SEGMENT_WHOLE) {
		status = open_segment(cache, shard, part, 0, SEGMENT_WHOLE, length, &segment);
		if (status != DRP_OK)
			return status;
		segment->hash = hash;
		offset = 0;
	} else if (part == ARENA_MAIN && reuse_take(shard, hash, length / page, &segment, &first, resident)) {
		goto taken;
	} else {
		if (!segment || segment->used + length > segment->length) {
			status = open_segment(cache, shard, part, 0, SEGMENT_EXTENTS, 0, &segment);
			if (status != DRP_OK)
				return status;
		}
		offset = segment->used;
		arena_directory(segment)[segment->extents++] = (struct arena_extent){
			.hash = hash, .page = (uint32_t)(offset / page), .stamp = arena_stamp(segment->number)};
	}
	admission_note_appended(shard, segment, offset + length - segment->used);
	arena_note_appended(&shard->arena, segment, offset + length);
	*resident = segment->reused;
	first = offset / page;
taken:
	segment->users++;
	shard->unmarked_extent_bytes[part] += length;
	shard->marks_due = true; /* perhaps: whose entries lead to it, shard_mark() sees */
	add_bytes(shard, segment, length);
	*extent = (struct entry_extent){.segment = segment->serial, .value_bytes = bytes, .page = (uint16_t)first};
	*out = segment;
	return DRP_OK;
}

void shard_mark(struct shard *shard, bool all)
{
	shard->marks_due = false; /* a log that cannot be marked now is due again with the next entry */
	for (int part = 0; part < ARENA_PARTS; part++) {
		const struct arena_log *log = &shard->arena.logs[part];
		for (unsigned life = 0; life < log->lives; life++)
			if (log->entries[life])
				prim_best_effort(mark_entries(shard, log->entries[life], all)); /* see may_append() */
		if (all && log->extents)
			prim_best_effort(arena_mark(log->extents, true)); /* it is so again with the next value anyhow */
	}
	if (!all)
		return;
	for (struct segment *segment = arena_next(&shard->arena, NULL); segment; segment = arena_next(&shard->arena, segment))
		if (segment->marked < segment->used && segment->state == SEGMENT_SEALED)
			prim_best_effort(arena_mark(segment, true)); /* it failed when it was sealed: now, or the next time */
	reuse_mark(shard);
	prim_best_effort(index_mark(&shard->index)); /* those pages count as dirty still */
}
