/*
 * scope.c - see scope.h.
 *
 *   next_number   the number that is given next; grows, modulo 2^64
 *   owner         the process that went to its own start already; another one: this is a forked child, or nobody yet
 *
 * Two threads that both find themselves in a new process both go forward: that is harmless. Nobody takes owner for his own
 * before the step was made, because it is stored after it.
 */
#include "cache/scope.h"

#include <stdatomic.h>
#include <sys/types.h>
#include <unistd.h>

#include "droppable.h"
#include "os/prim.h"

static const uint64_t LONGEST_STEP = UINT64_C(1) << 48;

static _Atomic uint64_t next_number;
static _Atomic int64_t owner;

static int go_to_own_start(int64_t process)
{
	uint64_t step;
	const int status = prim_random(&step, sizeof(step));

	if (status != DRP_OK)
		return status;
	if (atomic_load_explicit(&owner, memory_order_relaxed) != 0)
		step %= LONGEST_STEP;
	atomic_fetch_add_explicit(&next_number, step, memory_order_relaxed);
	atomic_store_explicit(&owner, process, memory_order_release);
	return DRP_OK;
}

int scope_new(uint64_t *number)
{
	const int64_t process = getpid();

	if (atomic_load_explicit(&owner, memory_order_acquire) != process) {
		const int status = go_to_own_start(process);
		if (status != DRP_OK)
			return status;
	}
	do
		*number = atomic_fetch_add_explicit(&next_number, 1, memory_order_relaxed);
	while (*number < SCOPE_FIRST);
	return DRP_OK;
}
