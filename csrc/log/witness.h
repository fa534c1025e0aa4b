/*
 * witness.h - how a value that lies on pages of its own proves that it is still there.
 *
 *   extent   |page 0 of the value    |page 1                 |page 2       ....|
 *             ^ first non-zero byte      ^ first non-zero byte   (all zeros)
 *   witness  [ 0 ]                    [ 3 ]                   [ WITNESS_ZERO ]      kept beside it, 2 bytes a page
 *
 * A dropped page reads as zeros, so the page's own first non-zero byte is the mark: while it is not zero, the page was
 * not dropped since the mark was written. A page of zeros needs none: dropped and intact are the same bytes.
 *
 * The order of writes is the protocol (backing PRIM_DROPPABLE, where a page may go between any two stores): the mark
 * first, a release fence, then the rest of the page, never the mark again. A page lost before or during the copy has
 * a mark that reads 0. A reader mirrors it: use the bytes, acquire fence, then look at the marks in the mapping.
 *
 * One hole is left to the writer (KERNEL.md, stale translations): after it moved to another processor in the middle,
 * stores may have gone to a page that is already unmapped. prim_mark() flushes; comparing after it tells.
 *
 * Callers: cache (extents), region.
 */
#ifndef DRP_WITNESS_H
#define DRP_WITNESS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "droppable.h"

enum { STACK_WITNESSES = 512 /* of values of up to 2 MiB: more do not lie on the stack */ };

#define WITNESS_ZERO UINT16_MAX /* all zeros, or (with pages of 64 KiB only) first non-zero byte at the very end */

/* Pages, and so witnesses, that a value of bytes needs. */
size_t witness_count(size_t bytes);

/*
 * Copies the parts, one behind the other, to extent (page aligned), marks it, and fills witnesses. It marks as it goes,
 * every few pages, so that reclaim finds little that is dirty (on PRIM_DROPPABLE dirty pages make it over-drop).
 * in_order: keep the order above, which costs about a tenth of the copy's speed; needed on PRIM_DROPPABLE only.
 * DRP_REFUSED: it was written to pages that are gone (see above: compared after the mark), or this content cannot prove
 * itself (a page of 64 KiB with nothing but its last byte set); it must not be kept. Else what prim_mark() said.
 */
int witness_write(void *extent, const struct drp_part *parts, size_t part_count, uint16_t *witnesses, bool in_order);

/* The same for what the caller wrote there, all of it, since it was last marked; where a page that was written stays until then (lazyfree). */
int witness_take(void *extent, size_t bytes, uint16_t *witnesses);

/* True if no page of the extent was dropped since it was written; to be called after the bytes were used. */
bool witness_intact(const void *extent, size_t bytes, const uint16_t *witnesses);

/*
 * A look at some pages, the first and the last among them: false if one of them was dropped. It takes no memory, where a copy,
 * or a write to pin it, would take a page for each that is gone.
 */
bool witness_sample(const void *extent, size_t bytes, const uint16_t *witnesses);

/* What is copied or pinned between two looks at a large value: a multiple of all page sizes. */
enum { WITNESS_STEP_BYTES = 2 << 20 };
/* What of a value that is being written is not marked yet, at most. */
enum { WITNESS_MARK_PAGES = 32 };

/* The witness of one page of content: the offset of its first non-zero byte, or WITNESS_ZERO. */
uint16_t witness_of(const void *page, size_t bytes);

#endif
