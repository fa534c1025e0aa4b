/*
 * policy/compact.c - entries of values on pages of their own are brought together.
 *
 *   oldest  [ x . . . y . . . . ] [ . . . . . z . . . ]   ...    newest: a few entries live, all pages are kept young
 *             '-------'---------------------'---------> [ x y z | head of the main log
 *
 * Such entries are kept young (policy/census.c), for each stands for pages. So the kernel does not take the pages of those that
 * died, as it does of others, and they would stay as long as one entry of their segment lives: at 4 KB a value, one and a
 * half in a hundred bytes of the cache. Once less than half of a segment lives, what does is copied to the main log's head,
 * a step with each insert, and the pages are given back. Not while nobody counts pages (max_bytes): there the cleaner
 * goes round.
 */
#include "store/internal.h"
#include "policy/headroom.h"
#include "store/move.h"
#include "policy/cleaner.h"

enum { STEP_TAKES_BYTES = 16 * 1024 }; /* new pages, about */

bool shard_is_extent_backed(const struct shard *shard)
{
	return shard->counts.bytes >= shard_entries(shard) * prim_page_size();
}

void shard_note_sparse(struct shard *shard, const struct segment *segment)
{
	if (shard->admission.sparse_serial == 0 && segment->part == ARENA_MAIN && segment->live_bytes < segment->used / 2)
		shard->admission.sparse_serial = segment->serial;
}

void shard_compact(struct cache *cache, struct shard *shard)
{
	struct admission *admission = &shard->admission;

	if (admission->sparse_serial == 0)
		return;
	struct segment *segment = arena_find(&shard->arena, admission->sparse_serial);
	if (segment && (segment->users > 0 || !cache_headroom_is_known(cache, shard, STEP_TAKES_BYTES)))
		return; /* a copy is under way, which ends soon; or there is no memory, and each entry stands for more of it */
	if (segment) {
		shard_clean_entries(cache, shard, segment, CLEAN_COMPACT);
		segment = arena_find(&shard->arena, admission->sparse_serial);
	}
	if (!segment)
		admission->sparse_serial = 0;
}
