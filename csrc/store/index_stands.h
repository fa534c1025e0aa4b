/*
 * index_stands.h - a page of the index that was written or searched: was it there all the time?
 *
 *   prim_cpu() --> the page's guard --> slots are read or written --> index_page_stands()? else the page is begun anew, or lost
 *
 * It may have been dropped in between. What was written is then in a new page, and what was read may be zeros of one, while another
 * processor sees the old page still, through a stale translation. Whoever came to such a processor in between sees its guard, too:
 * he looks once more after a mark, which ends all stale translations.
 *
 * Callers: index.c; store/shard.c, for searches that found nothing.
 */
#ifndef DRP_INDEX_STANDS_H
#define DRP_INDEX_STANDS_H

#include "droppable.h"
#include "os/prim.h"
#include "store/index_search.h"

/* cpu: what prim_cpu() told before its guard was looked at, or before it was written. All that was done before is ordered before. */
static inline bool index_guard_stands(uint64_t *page, unsigned cpu)
{
	return index_load(page) == INDEX_GUARD &&
	       (prim_cpu() == cpu || (prim_mark(page, prim_page_size()) == DRP_OK && index_load(page) == INDEX_GUARD));
}

/* After a page was written. */
static inline bool index_page_stands(uint64_t *page, unsigned cpu)
{
	prim_step();
	atomic_thread_fence(memory_order_seq_cst);
	return index_guard_stands(page, cpu);
}

/*
 * A search found nothing. If its page did not stand all the time it is lost, for everybody: else what was said not to be there might be
 * found by another processor. A search only reads, so that the weaker fence will do.
 */
static inline void index_end_search(struct index *index, struct index_cursor *cursor)
{
	if (!cursor->has_page)
		return;
	prim_step();
	atomic_thread_fence(memory_order_acquire);
	if (index_guard_stands(cursor->page, cursor->cpu))
		return;
	index_note_lost(index, cursor->page_number);
	cursor->has_page = false;
	cursor->page_lost = true;
}

#endif
