/*
 * prim_end.h - a mapping ends.
 *
 * munmap() fails where it would split a mapping and there may be no more of them: neighbours may have become one. Then the address
 * space alone is lost, and its pages go.
 *
 * Callers: all who map.
 */
#ifndef DRP_PRIM_END_H
#define DRP_PRIM_END_H

#include "droppable.h"
#include "os/prim.h"

static inline void prim_end(void *address, size_t length)
{
	if (prim_unmap(address, length) != DRP_OK)
		prim_best_effort(prim_purge(address, length)); /* locked memory stays: nothing is left to be tried */
}

#endif
