/*
 * store/found.h - an entry that was found, what is read of it, and the way to its value.
 *
 *   hash --index--> place --> [ head | key | meta | extent: {serial, page, bytes}, witnesses ] --serial--> segment --> pages
 *                                          ^ reader
 *
 * Callers: the files of the cache, under the shard's lock. store/shard.c has all of it.
 */
#ifndef DRP_CACHE_FOUND_H
#define DRP_CACHE_FOUND_H

#include "log/arena.h"
#include "log/entry.h"
#include "store/index.h"

struct cache;
struct shard;

struct found { /* an entry, under the lock */
	struct index_cursor cursor;
	struct segment *segment; /* that its place is in */
	size_t offset;
	struct entry entry;
	struct entry_reader reader; /* stands behind the key */
};

/*
 * Finds the key's entry, expired ones included. MISS_*: why not, as far as can be told. -1: found.
 * An entry that turns out to be dropped is forgotten on the way.
 */
int shard_find(struct cache *cache, struct shard *shard, uint64_t hash, const void *key, size_t key_bytes,
	       struct found *found);
/*
 * The same, by a search that comes to this slot of the home bucket first: index_home_slot() found it, it names that segment, and
 * nothing changed since.
 */
int shard_find_from(struct cache *cache, struct shard *shard, uint64_t hash, uint64_t *slot, struct segment *segment,
		    const void *key, size_t key_bytes, struct found *found);
/* Finds the entry at a place, whose key is not known, by the hash of its key. */
bool shard_find_place(struct shard *shard, uint64_t hash, uint64_t place, struct index_cursor *cursor);
/* Decodes the head of the entry at found's segment and offset. False: dropped, or none begins there. */
static inline bool shard_open_entry(struct found *found)
{
	const struct segment *segment = found->segment;
	return entry_open(segment->base, segment->used, found->offset, arena_stamp(segment->number), &found->reader,
			  &found->entry);
}
/* Reads the extent of an entry whose reader stands behind key and meta. False: dropped. */
bool shard_read_extent(struct found *found, struct entry_extent *extent);
/* The one way from an extent to its pages: the segment that it is in and where it begins. NULL: the segment is gone. */
struct segment *shard_extent_segment(const struct shard *shard, const struct entry_extent *extent, unsigned char **address);
/* Tells the entry at an offset from all others that are or will be there, also after the lock was given back. */
static inline uint64_t entry_name(const struct segment *segment, size_t offset)
{
	return segment->serial << ARENA_OFFSET_BITS | offset / ARENA_UNIT;
}
static inline uint64_t found_name(const struct found *found)
{
	return entry_name(found->segment, found->offset);
}
size_t found_end(const struct found *found);
/* Is all of the found entry there, its extent included? Its reader stands behind the key, and is used up. */
bool shard_is_whole(struct shard *shard, struct found *found);

#endif
