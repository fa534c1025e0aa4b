/*
 * wrapped_alloc.h - the allocator's calls, for a test that is linked with --wrap for them (meson.build): the test defines the
 * wrapped ones, which let an allocation fail, and the real ones are the C library's.
 *
 *   malloc() of the code under test --the linker--> __wrap_malloc() of the test --> __real_malloc(), or NULL
 *
 * Callers: test_failures.c, test_server_memory.c.
 */
#ifndef DRP_TEST_WRAPPED_ALLOC_H
#define DRP_TEST_WRAPPED_ALLOC_H

#include <stddef.h>

void *__real_malloc(size_t bytes);
void *__real_calloc(size_t count, size_t bytes);
void *__real_realloc(void *old, size_t bytes);
void *__real_aligned_alloc(size_t alignment, size_t bytes);
void __real_free(void *at);
void *__wrap_malloc(size_t bytes);
void *__wrap_calloc(size_t count, size_t bytes);
void *__wrap_realloc(void *old, size_t bytes);
void *__wrap_aligned_alloc(size_t alignment, size_t bytes);
void __wrap_free(void *at);

#endif
