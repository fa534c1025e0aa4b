/*
 * budget.h - the bytes of all buffers of all connections together, and the most that they may be.
 *
 * Buffers are the memory of the server that the kernel cannot take back, so they are counted, and what does not fit is
 * refused: a value is then not stored, or a connection is closed. Nothing waits for a budget.
 *
 * Callers: whoever allocates for a connection.
 */
#ifndef DRP_SERVER_BUDGET_H
#define DRP_SERVER_BUDGET_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>

#include "os/drp_assert.h"

struct budget {
	_Atomic size_t used_bytes;
	size_t limit_bytes;
};

static inline bool budget_take(struct budget *budget, size_t bytes)
{
	const size_t before = atomic_fetch_add_explicit(&budget->used_bytes, bytes, memory_order_relaxed);

	if (bytes <= budget->limit_bytes && before <= budget->limit_bytes - bytes)
		return true;
	atomic_fetch_sub_explicit(&budget->used_bytes, bytes, memory_order_relaxed);
	return false;
}

static inline void budget_give(struct budget *budget, size_t bytes)
{
	const size_t before = atomic_fetch_sub_explicit(&budget->used_bytes, bytes, memory_order_relaxed);

	DRP_ASSERT(before >= bytes);
	(void)before;
}

#endif
