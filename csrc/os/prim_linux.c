/*
 * prim_linux.c - prim.h on Linux. The only file that calls mmap, madvise and ioctl.
 *
 * Kernel headers of the build machine may be older than the kernel that runs, so what is newer than Linux 5.0 is
 * spelled out here with the number the kernel's ABI fixed for it.
 */
#include "os/prim.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "droppable.h"
#include "os/prim_self.h"

#ifndef MAP_DROPPABLE
#define MAP_DROPPABLE 0x08
#endif
#ifndef MADV_COLD
#define MADV_COLD 20
#endif
#ifndef MADV_PAGEOUT
#define MADV_PAGEOUT 21
#endif
#ifndef SYS_process_madvise
#define SYS_process_madvise 440
#endif
#ifndef UFFD_USER_MODE_ONLY
#define UFFD_USER_MODE_ONLY 1
#endif
#ifndef UFFD_FEATURE_SIGBUS
#define UFFD_FEATURE_SIGBUS (1 << 7)
#endif

enum {
	ERRNO_ENOTSUPP = 524, /* the kernel's own, leaked to user space by 32-bit kernels for MAP_DROPPABLE */
	OWN_PROCESS = -10001, /* PIDFD_SELF_THREAD_GROUP; kernels without it answer EBADF */
	MAX_EAGAIN_RETRIES = 16,
	CENSUS_BATCH = 256,
};

/* PAGEMAP_SCAN, Linux 6.7 */
struct pagemap_region {
	uint64_t start, end, categories;
};
struct pagemap_scan {
	uint64_t size, flags, start, end, walk_end, vec, vec_len, max_pages;
	uint64_t category_inverted, category_mask, category_anyof_mask, return_mask;
};
#define PAGEMAP_SCAN_REQUEST _IOWR('f', 16, struct pagemap_scan)
#define PAGEMAP_PRESENT (1u << 3)
#define PAGEMAP_SWAPPED (1u << 4)
#define PAGEMAP_PFNZERO (1u << 5)

static int status_of_errno(void)
{
	switch (errno) {
	case ENOMEM:
	case EAGAIN: /* of kernel memory, of mappings, or of what may be locked */
		return DRP_NO_MEMORY;
	case EINVAL:
	case ENOSYS:
	case EOPNOTSUPP:
	case ERRNO_ENOTSUPP:
		return DRP_UNSUPPORTED;
	case EFAULT:
		return DRP_FAULT;
	case EEXIST:
		return DRP_EXISTS;
	default:
		return DRP_SYSTEM;
	}
}

/* madvise() answers EAGAIN when kernel memory is short for a moment: bounded retries, then the caller hears of it. */
static int advise(void *address, size_t length, int advice)
{
	for (int tries = 0; madvise(address, length, advice) != 0; tries++)
		if (errno != EAGAIN || tries == MAX_EAGAIN_RETRIES)
			return status_of_errno();
	return DRP_OK;
}

int prim_map(enum prim_backing backing, size_t length, unsigned flags, void **out)
{
	int type = backing == PRIM_DROPPABLE ? MAP_DROPPABLE : MAP_PRIVATE | MAP_NORESERVE;
	int status;

	if (backing == PRIM_DROPPABLE && (flags & PRIM_KEEP_ON_FORK)) {
		errno = EINVAL;
		return DRP_UNSUPPORTED;
	}
	void *address = mmap(NULL, length, PROT_READ | PROT_WRITE, type | MAP_ANONYMOUS, -1, 0);
	if (address == MAP_FAILED)
		return status_of_errno();

	if (!(flags & PRIM_HUGE_PAGES)) {
		status = advise(address, length, MADV_NOHUGEPAGE);
		if (status != DRP_OK && status != DRP_UNSUPPORTED) /* where the kernel has no huge pages */
			goto err_unmap;
	}
	if (backing != PRIM_DROPPABLE && !(flags & PRIM_DUMPABLE)) {
		status = advise(address, length, MADV_DONTDUMP);
		if (status != DRP_OK)
			goto err_unmap;
	}
	if (backing == PRIM_LAZYFREE && !(flags & PRIM_KEEP_ON_FORK)) {
		status = advise(address, length, MADV_WIPEONFORK);
		if (status != DRP_OK && status != DRP_UNSUPPORTED) /* before Linux 4.14: the cache resets itself instead */
			goto err_unmap;
	}
	*out = address;
	return DRP_OK;

err_unmap:
	munmap(address, length);
	return status;
}

int prim_map_raw(size_t length, unsigned protection, unsigned flags, void **out)
{
	void *address = mmap(NULL, length, (int)protection, (int)flags, -1, 0);
	if (address == MAP_FAILED)
		return status_of_errno();
	*out = address;
	return DRP_OK;
}

int prim_unmap(void *address, size_t length)
{
	return munmap(address, length) == 0 ? DRP_OK : status_of_errno();
}

int prim_mark(void *address, size_t length)
{
	return advise(address, length, MADV_FREE);
}

int prim_mark_ranges(const struct iovec *ranges, size_t count)
{
	long bytes = count > 1 ? syscall(SYS_process_madvise, OWN_PROCESS, ranges, count, MADV_FREE, 0) : 0;
	int status = DRP_OK;

	/* It tells how many bytes it came. The rest, or all where there is no such call, goes one by one. */
	for (size_t i = 0; i < count; i++) {
		if (bytes >= (long)ranges[i].iov_len) {
			bytes -= (long)ranges[i].iov_len;
			continue;
		}
		bytes = 0;
		int result = prim_mark(ranges[i].iov_base, ranges[i].iov_len);
		if (result != DRP_OK)
			status = result;
	}
	return status;
}

int prim_purge(void *address, size_t length)
{
	return advise(address, length, MADV_DONTNEED);
}

int prim_page_out(void *address, size_t length)
{
	return advise(address, length, MADV_PAGEOUT);
}

int prim_cold(void *address, size_t length)
{
	return advise(address, length, MADV_COLD);
}

/* An OR of 0 changes no byte, so others may read meanwhile: not the race that ThreadSanitizer would take it for. */
__attribute__((no_sanitize("thread"))) void prim_pin(void *address, size_t length)
{
	uintptr_t page = prim_page_size();
	uintptr_t at = (uintptr_t)address & ~(page - 1);
	unsigned char nothing = 0;

	/* A zero that the compiler cannot know: clang turns an OR with a constant 0 into a read, which dirties no page. */
	__asm__("" : "+r"(nothing));
	for (; at < (uintptr_t)address + length; at += page)
		atomic_fetch_or_explicit((_Atomic unsigned char *)at, nothing, memory_order_relaxed);
}

void prim_touch(const void *address, size_t length)
{
	uintptr_t page = prim_page_size();
	uintptr_t at = (uintptr_t)address & ~(page - 1);

	for (; at < (uintptr_t)address + length; at += page)
		(void)atomic_load_explicit((const _Atomic unsigned char *)at, memory_order_relaxed);
}

int prim_fork_content(void *address, size_t length, bool keep)
{
	return advise(address, length, keep ? MADV_KEEPONFORK : MADV_WIPEONFORK);
}

static void count_page(enum prim_page_state state, size_t pages, struct prim_census *census)
{
	switch (state) {
	case PRIM_RESIDENT:
		census->resident_pages += pages;
		break;
	case PRIM_ZERO:
		census->zero_pages += pages;
		break;
	case PRIM_ABSENT:
		census->absent_pages += pages;
		break;
	}
}

static int census_by_scan(int fd, uintptr_t start, uintptr_t end, unsigned char *states, struct prim_census *census)
{
	struct pagemap_region regions[CENSUS_BATCH];
	const size_t page = prim_page_size();
	uintptr_t at = start;
	size_t found_pages = 0;

	if (states)
		memset(states, PRIM_ABSENT, (end - start) / page);
	while (at < end) {
		struct pagemap_scan scan = {
			.size = sizeof(scan), .start = at, .end = end,
			.vec = (uintptr_t)regions, .vec_len = CENSUS_BATCH,
			.category_mask = PAGEMAP_PRESENT, .return_mask = PAGEMAP_PRESENT | PAGEMAP_PFNZERO,
		};
		long count = ioctl(fd, PAGEMAP_SCAN_REQUEST, &scan);
		if (count < 0)
			return status_of_errno();
		for (long i = 0; i < count; i++) {
			size_t pages = (size_t)(regions[i].end - regions[i].start) / page;
			enum prim_page_state state = regions[i].categories & PAGEMAP_PFNZERO ? PRIM_ZERO : PRIM_RESIDENT;
			count_page(state, pages, census);
			if (states)
				memset(states + (regions[i].start - start) / page, state, pages);
			found_pages += pages;
		}
		if (count == 0 && scan.walk_end <= at)
			break;
		at = (uintptr_t)scan.walk_end;
	}
	census->absent_pages += (end - start) / page - found_pages;
	census->exact = true;
	return DRP_OK;
}

static int census_by_mincore(uintptr_t start, uintptr_t end, unsigned char *states, struct prim_census *census)
{
	unsigned char resident[CENSUS_BATCH];
	const size_t page = prim_page_size();

	for (uintptr_t at = start; at < end; at += CENSUS_BATCH * page) {
		size_t pages = (end - at) / page;
		if (pages > CENSUS_BATCH)
			pages = CENSUS_BATCH;
		if (mincore((void *)at, pages * page, resident) != 0)
			return status_of_errno();
		for (size_t i = 0; i < pages; i++) {
			enum prim_page_state state = resident[i] & 1 ? PRIM_RESIDENT : PRIM_ABSENT;
			count_page(state, 1, census);
			if (states)
				states[(at - start) / page + i] = state;
		}
	}
	census->exact = false;
	return DRP_OK;
}

int prim_census(const void *address, size_t length, unsigned char *states, struct prim_census *out)
{
	uintptr_t start = (uintptr_t)address, end = start + length;
	struct prim_census census = {.pages = length / prim_page_size()};
	int status = DRP_UNSUPPORTED;

	int fd = prim_pagemap_take();
	if (fd >= 0) {
		status = census_by_scan(fd, start, end, states, &census);
		prim_pagemap_give(fd);
	}
	if (status != DRP_OK) {
		census = (struct prim_census){.pages = length / prim_page_size()};
		status = census_by_mincore(start, end, states, &census);
	}
	if (status == DRP_OK)
		*out = census;
	return status;
}

/*
 * The kernel keeps it up to date in a thread's restartable sequence area (rseq(2)), which glibc registers from 2.35 on: one load,
 * where sched_getcpu() takes three calls. What is not there leaves the fields as they were set: UINT32_MAX, or one less.
 */
extern const ptrdiff_t __rseq_offset __attribute__((weak));
extern const unsigned int __rseq_size __attribute__((weak));

static bool read_rseq_cpu(uint32_t *cpu)
{
	enum { CPU_ID = 4 /* in struct rseq: cpu_id_start, cpu_id */ };
#if defined(__x86_64__)
	const char *self;
	if (!&__rseq_offset || !&__rseq_size || __rseq_size == 0)
		return false;
	__asm__("mov %%fs:0, %0" : "=r"(self));
	*cpu = *(const volatile uint32_t *)(self + __rseq_offset + CPU_ID);
	return (int32_t)*cpu >= 0;
#else
	(void)cpu;
	return false;
#endif
}

unsigned prim_cpu(void)
{
	uint32_t cpu;

	atomic_signal_fence(memory_order_seq_cst); /* the compiler might swap the load below with what is copied before or after */
	if (!read_rseq_cpu(&cpu))
		cpu = (unsigned)sched_getcpu();
	atomic_signal_fence(memory_order_seq_cst);
	return cpu;
}

static uint64_t clock_ns(clockid_t clock)
{
	struct timespec now;
	clock_gettime(clock, &now);
	return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

uint64_t prim_now_ns(void)
{
	return clock_ns(CLOCK_MONOTONIC);
}

uint64_t prim_now_coarse_ns(void)
{
	return clock_ns(CLOCK_MONOTONIC_COARSE);
}

int prim_random(void *buffer, size_t length)
{
	unsigned char *at = buffer;
	while (length > 0) {
		ssize_t got = getrandom(at, length, 0);
		if (got < 0) {
			if (errno == EINTR)
				continue;
			return status_of_errno();
		}
		at += got;
		length -= (size_t)got;
	}
	return DRP_OK;
}

int prim_signal_open(int *handle)
{
	int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | UFFD_USER_MODE_ONLY);
	if (fd < 0 && errno == EINVAL) /* UFFD_USER_MODE_ONLY came with Linux 5.11 */
		fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
	if (fd < 0)
		return errno == EPERM || errno == ENOSYS ? DRP_UNSUPPORTED : status_of_errno();

	struct uffdio_api api = {.api = UFFD_API, .features = UFFD_FEATURE_SIGBUS};
	if (ioctl(fd, UFFDIO_API, &api) != 0) {
		int status = status_of_errno();
		close(fd);
		return status;
	}
	*handle = fd;
	return DRP_OK;
}

int prim_signal_arm(int handle, void *address, size_t length)
{
	struct uffdio_register request = {
		.range = {(uintptr_t)address, length}, .mode = UFFDIO_REGISTER_MODE_MISSING};
	return ioctl(handle, UFFDIO_REGISTER, &request) == 0 ? DRP_OK : status_of_errno();
}

int prim_signal_disarm(int handle, void *address, size_t length)
{
	struct uffdio_range request = {(uintptr_t)address, length};
	return ioctl(handle, UFFDIO_UNREGISTER, &request) == 0 ? DRP_OK : status_of_errno();
}

int prim_signal_refill(int handle, void *address, const void *source, size_t length, size_t *done_bytes)
{
	size_t done = 0;
	int status = DRP_OK;

	for (int tries = 0; done < length;) {
		struct uffdio_copy request = {
			.dst = (uintptr_t)address + done, .src = (uintptr_t)source + done, .len = length - done};
		if (ioctl(handle, UFFDIO_COPY, &request) == 0) {
			done += (size_t)request.copy;
			continue;
		}
		if (request.copy > 0)
			done += (size_t)request.copy;
		if (errno != EAGAIN || ++tries > MAX_EAGAIN_RETRIES) {
			status = status_of_errno();
			break;
		}
	}
	*done_bytes = done;
	return status;
}

void prim_signal_close(int handle)
{
	prim_handle_close(handle);
}

/* A version that there is none of: every userfaultfd refuses it, and is as it was. Other files do not know the request. */
bool prim_handle_is_open(int handle)
{
	struct uffdio_api nothing = {.api = 0};
	return ioctl(handle, UFFDIO_API, &nothing) == 0 || errno == EINVAL;
}

/* Some devices refuse any request with EINVAL, so the name decides, where there is a /proc. */
void prim_handle_close(int handle)
{
	static const char wanted[] = "anon_inode:[userfaultfd]";
	char path[32], name[sizeof(wanted) - 1];

	snprintf(path, sizeof(path), "/proc/self/fd/%d", handle);
	const ssize_t length = readlink(path, name, sizeof(name));
	const bool is_ours = length < 0 ? prim_handle_is_open(handle)
					: (size_t)length == sizeof(name) && memcmp(name, wanted, sizeof(name)) == 0;
	if (is_ours)
		close(handle);
}
