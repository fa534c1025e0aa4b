/*
 * publish.c - a cache's board. See publish.h.
 *
 * BOARD_LAYOUT names what a reader goes by, so that it never reads what another version wrote. If one of these no longer holds,
 * or anything else changes of how an entry, a slot or the board is read: another BOARD_LAYOUT, and the new figures here.
 */
#include "cache/publish.h"

#include <string.h>
#include <unistd.h>

#include "droppable.h"
#include "log/entry_small.h"
#include "os/prim_self.h"
#include "store/internal.h"

_Static_assert(BOARD_LAYOUT == 2, "the figures below are those of layout 2");
_Static_assert(sizeof(struct board_segment) == 16 && BOARD_STRIPES == 256 && BOARD_SEGMENTS == 8192 && BOARD_DEPTH_MOST == 16, "layout");
_Static_assert(offsetof(struct board_shard, changes) == 16 && offsetof(struct board_shard, directory) == 2064 &&
	       sizeof(struct board_shard) == 657424, "layout");
_Static_assert(offsetof(struct board, secret) == 24 && offsetof(struct board, sign_at) == 48 && offsetof(struct board, sign) == 56 &&
	       offsetof(struct board, shards) == 120, "layout");
_Static_assert(INDEX_TAG_BITS == 19 && INDEX_PLACE_BITS == 42 && INDEX_REACH == 4 && INDEX_BUCKET_SLOTS == 8, "layout");
_Static_assert(ARENA_NUMBER_BITS == 24 && ARENA_OFFSET_BITS == 18 && ARENA_UNIT == 8, "layout");
_Static_assert(sizeof(struct entry_piece) == 8 && sizeof(struct entry_small_lengths) == 2 && sizeof(struct entry_extent) == 16, "layout");
_Static_assert(ENTRY_FIRST == 1 && ENTRY_WIDE == 2 && ENTRY_TTL == 4 && ENTRY_COST == 8 && ENTRY_EXTENT == 16 && ENTRY_SMALL == 64 &&
	       ENTRY_VERSION == 128, "layout");
_Static_assert(SEGMENT_ENTRIES == 0 && SEGMENT_KINDS - 1 <= BOARD_KIND_MASK, "layout");

int cache_publish(struct cache *cache, struct publication *publication)
{
	void *memory;

	publication->bytes = sizeof(struct board) + cache->shard_count * sizeof(struct board_shard);
	int status = prim_share_open(publication->bytes, &publication->descriptor, &memory);
	if (status != DRP_OK)
		return status;
	struct board *board = memory;
	status = prim_sign_begin(board->sign, &board->sign_at);
	if (status != DRP_OK) {
		prim_share_unmap(memory, publication->bytes);
		close(publication->descriptor);
		*publication = (struct publication){.descriptor = -1};
		return status;
	}
	publication->board = board;
	board->layout = BOARD_LAYOUT;
	board->page_bytes = (uint32_t)prim_page_size();
	board->shard_count = cache->shard_count;
	board->number_mask = cache->shards[0].arena.number_mask;
	board->bytes = publication->bytes;
	memcpy(board->secret, cache->secret, sizeof(board->secret));
	atomic_init(&board->skew_ns, atomic_load_explicit(&cache->skew_ns, memory_order_relaxed));
	for (unsigned i = 0; i < cache->shard_count; i++) {
		struct shard *shard = &cache->shards[i];
		pthread_mutex_lock(&shard->lock);
		DRP_ASSERT(shard->arena.table_used == 0 && shard->index.entries == 0);
		shard->arena.board = &board->shards[i];
		index_publish(&shard->index, &board->shards[i]);
		shard_unlock(shard);
	}
	return DRP_OK;
}

void cache_withdraw(struct cache *cache)
{
	for (unsigned i = 0; i < cache->shard_count; i++) {
		struct shard *shard = &cache->shards[i];
		pthread_mutex_lock(&shard->lock);
		if (shard->index.board)
			board_begin(&shard->index.board->shape); /* and it never ends */
		shard->index.board = shard->arena.board = NULL;
		shard_unlock(shard);
	}
}

void publication_end(struct publication *publication)
{
	if (!publication->board)
		return;
	prim_sign_end(publication->board->sign);
	prim_share_unmap(publication->board, publication->bytes);
	close(publication->descriptor);
	*publication = (struct publication){.descriptor = -1};
}

void publication_advance_clock(struct publication *publication, uint64_t ns)
{
	if (publication->board)
		atomic_fetch_add_explicit(&publication->board->skew_ns, ns, memory_order_relaxed);
}
