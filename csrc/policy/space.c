/*
 * policy/space.c - see policy/space.h. shard_make_space() is in policy/cleaner.c, whose work it is.
 */
#include "policy/space.h"

#include "store/internal.h"

enum {
	SPAN_CAP_NS = 100000000, /* between two tries to get more address space than there was */
	IN_VAIN_NS = 1000000000, /* the same for a mapping of its own, for which others were given up and nothing was gained */
};

/* About how much address space a mapping of that length wants that is not there: by halves of it, tried. */
static size_t missing_space(size_t length)
{
	const size_t page = prim_page_size();
	void *tried;

	for (size_t there = length / 2 & ~(page - 1); there > 0; there = there / 2 & ~(page - 1)) {
		if (prim_map(PRIM_PLAIN, there, 0, &tried) != DRP_OK)
			continue;
		prim_best_effort(prim_unmap(tried, there)); /* all of a mapping: cannot fail */
		return length - there;
	}
	return length;
}

/* Where all segments of a kind are heads, one is sealed, so that it can be emptied and opened again. False: they are in use. */
static bool seal_a_head(struct arena *arena, enum segment_kind kind)
{
	for (struct segment *segment = NULL; (segment = arena_next(arena, segment)) != NULL;)
		if (segment->kind == kind && segment->state == SEGMENT_OPEN && segment->users == segment->deferred) {
			arena_seal(arena, segment);
			return true;
		}
	return false;
}

bool shard_gain_space(struct cache *cache, struct shard *shard, enum segment_kind kind, size_t length, unsigned *tries)
{
	struct arena *arena = &shard->arena;
	const size_t wanted = kind == SEGMENT_WHOLE ? length : arena->segment_bytes;

	if (arena->mapped_bytes == 0)
		return false;
	if ((*tries)++ == 0) {
		const size_t missing = arena_has_number(arena) ? missing_space(wanted) : wanted;
		if (kind == SEGMENT_WHOLE && (missing > arena->mapped_bytes / 2 || shard_is_in_vain(shard)))
			return false;
		shard->span_cap_bytes = arena->mapped_bytes + wanted - missing;
		shard->span_cap_until_ns = prim_now_ns() + SPAN_CAP_NS;
	} else {
		shard->span_cap_bytes = arena->mapped_bytes;
		if (kind == SEGMENT_WHOLE)
			shard->in_vain_until_ns = prim_now_ns() + IN_VAIN_NS;
		if (kind == SEGMENT_WHOLE || !seal_a_head(arena, kind))
			return false;
	}
	shard_make_space(cache, shard, kind, length, true);
	arena_unmap(arena_take_unmaps(arena)); /* under the lock for once: the address space is needed now */
	return true;
}
