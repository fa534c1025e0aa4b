/*
 * drp_assert.h - what must hold, checked wherever tests run: on the fake, under the sanitizers, and in any build with
 * -DDRP_ASSERTIONS. In the library as it ships the condition is not evaluated.
 *
 * It is for the core's own mistakes: a count below zero, a list that names what is not there. What a caller, the kernel
 * or a dropped page can cause is no such mistake, and is handled.
 *
 * Callers: all of csrc.
 */
#ifndef DRP_ASSERT_H
#define DRP_ASSERT_H

#if defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define DRP_SANITIZED 1
#endif
#endif
#if defined(PRIM_FAKE) || defined(DRP_ASSERTIONS) || defined(DRP_SANITIZED) || defined(__SANITIZE_ADDRESS__) || \
	defined(__SANITIZE_THREAD__)
#include <stdio.h>
#include <stdlib.h>

#define DRP_ASSERT(condition) \
	((condition) ? (void)0 : (fprintf(stderr, "%s:%d: %s: DRP_ASSERT(%s) failed\n", __FILE__, __LINE__, __func__, \
					  #condition), abort()))
#else
#define DRP_ASSERT(condition) ((void)sizeof(!(condition)))
#endif

#endif
