/*
 * prim_page.h - bytes of one OS page: a constant where the architecture has one size only, so that the compiler makes
 * masks and shifts of what is worked out with it in every look-up; elsewhere asked for once.
 *
 * Callers: everything, through prim.h.
 */
#ifndef DRP_PRIM_PAGE_H
#define DRP_PRIM_PAGE_H

#include <stddef.h>

#if defined(__x86_64__) || defined(__i386__)
static inline size_t prim_page_size(void)
{
	return 4096;
}
#else
#include <stdatomic.h>
#include <unistd.h>

static inline size_t prim_page_size(void)
{
	static _Atomic size_t known;
	size_t size = atomic_load_explicit(&known, memory_order_relaxed);
	if (size == 0) {
		size = (size_t)sysconf(_SC_PAGESIZE);
		atomic_store_explicit(&known, size, memory_order_relaxed);
	}
	return size;
}
#endif

#endif
