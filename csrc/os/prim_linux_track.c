/*
 * prim_linux_track.c - prim_track.h on Linux: userfaultfd in asynchronous write-protect mode, and PAGEMAP_SCAN.
 *
 * Pages that were never written are not write-protected (no PM_SCAN_WP_MATCHING for them), so tracking a large empty
 * range costs no page tables. A page that is dropped loses its protection with its content: written again it is new,
 * and found; read again it is the shared zero page, and not.
 */
#include "os/prim_track.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <stdint.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "droppable.h"
#include "os/prim.h"
#include "os/prim_self.h"

#ifndef UFFD_USER_MODE_ONLY
#define UFFD_USER_MODE_ONLY 1
#endif
#define TRACK_FEATURE_WP_UNPOPULATED (1u << 13)
#define TRACK_FEATURE_WP_ASYNC (1u << 15)

/* PAGEMAP_SCAN, Linux 6.7 */
struct track_run {
	uint64_t start, end, categories;
};
struct track_scan {
	uint64_t size, flags, start, end, walk_end, vec, vec_len, max_pages;
	uint64_t category_inverted, category_mask, category_anyof_mask, return_mask;
};
#define TRACK_SCAN_REQUEST _IOWR('f', 16, struct track_scan)
enum {
	SCAN_WP_MATCHING = 1 << 0,
	SCAN_CHECK_WPASYNC = 1 << 1,
	PAGE_WRITTEN = 1 << 1,
	PAGE_PRESENT = 1 << 3,
	PAGE_PFNZERO = 1 << 5,
	RUN_BATCH = 256,
};

int prim_track_open(void *address, size_t length, int *handle)
{
	int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | UFFD_USER_MODE_ONLY);
	if (fd < 0)
		return DRP_UNSUPPORTED;

	struct uffdio_api api = {.api = UFFD_API, .features = TRACK_FEATURE_WP_ASYNC | TRACK_FEATURE_WP_UNPOPULATED};
	struct uffdio_register range = {
		.range = {(uintptr_t)address, length}, .mode = UFFDIO_REGISTER_MODE_WP};
	if (ioctl(fd, UFFDIO_API, &api) != 0 || ioctl(fd, UFFDIO_REGISTER, &range) != 0) {
		close(fd);
		return DRP_UNSUPPORTED;
	}
	*handle = fd;
	return DRP_OK;
}

void prim_track_close(int handle)
{
	prim_handle_close(handle);
}

int prim_track_collect(void *address, size_t length, prim_track_found *found, void *context)
{
	const uintptr_t end = (uintptr_t)address + length;
	struct track_run runs[RUN_BATCH];
	int status = DRP_OK;

	int fd = prim_pagemap_take();
	if (fd < 0)
		return DRP_UNSUPPORTED;
	for (uintptr_t at = (uintptr_t)address; at < end && status == DRP_OK;) {
		struct track_scan scan = {
			.size = sizeof(scan), .flags = SCAN_WP_MATCHING | SCAN_CHECK_WPASYNC, .start = at, .end = end,
			.vec = (uintptr_t)runs, .vec_len = RUN_BATCH,
			.category_mask = PAGE_WRITTEN | PAGE_PRESENT | PAGE_PFNZERO, .category_inverted = PAGE_PFNZERO,
			.return_mask = PAGE_WRITTEN,
		};
		long count = ioctl(fd, TRACK_SCAN_REQUEST, &scan);
		if (count < 0) {
			status = errno == EPERM || errno == ENOTTY || errno == EINVAL ? DRP_UNSUPPORTED : DRP_SYSTEM;
			break;
		}
		for (long i = 0; i < count && status == DRP_OK; i++)
			status = found(context, (void *)(uintptr_t)runs[i].start, (size_t)(runs[i].end - runs[i].start));
		if (count == 0 && scan.walk_end <= at)
			break;
		at = (uintptr_t)scan.walk_end;
	}
	prim_pagemap_give(fd);
	return status;
}
