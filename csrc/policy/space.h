/*
 * policy/space.h - address space for what is to be appended: made before, and won back where there turns out to be none.
 *
 *   shard_make_space() -> append --DRP_NO_MEMORY--> shard_gain_space() -> append again, until one of them says no
 *
 * Callers: the files of cache/, under the shard's lock.
 */
#ifndef DRP_POLICY_SPACE_H
#define DRP_POLICY_SPACE_H

#include <stdbool.h>
#include <stddef.h>

#include "store/internal.h"

/* If the span is used up: cleans towards a segment or address space; a step, or, if urgent, as far as it takes. */
void shard_make_space(struct cache *cache, struct shard *shard, enum segment_kind kind, size_t length, bool urgent);

/* Is there span for a segment, by the limit that was last looked at? Then shard_make_space() has nothing to do that is not urgent. */
static inline bool shard_has_space(const struct shard *shard)
{
	return shard->arena.mapped_bytes + shard->arena.segment_bytes <= shard->arena.span_limit_bytes;
}

/*
 * There was no address space for a segment (RLIMIT_AS, 32 bits, vm.max_map_count): older ones make room. *tries: 0 at first. False:
 * no more can be done. It is tried again after a while, for the limit may be lifted. Where a large part of the cache would have
 * to go for one value, or nothing was gained when others went for one, it does not get in, and nothing changes.
 */
bool shard_gain_space(struct cache *cache, struct shard *shard, enum segment_kind kind, size_t length, unsigned *tries);

#endif
