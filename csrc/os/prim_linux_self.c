/* prim_linux_self.c - a descriptor of this process's memory, for others to read. See prim_self.h for the order. */
#include "os/prim_self.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <pthread.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "droppable.h"
#include "os/drp_assert.h"

#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 8U /* Linux 6.3 */
#endif
#ifndef F_SEAL_FUTURE_WRITE
#define F_SEAL_FUTURE_WRITE 16 /* Linux 5.1 */
#endif

static int kept_pagemap = -1; /* written before there is a second thread */

int prim_pagemap_take(void)
{
	return kept_pagemap >= 0 ? kept_pagemap : open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
}

void prim_pagemap_give(int descriptor)
{
	if (descriptor != kept_pagemap)
		close(descriptor);
}

int prim_self_open(int *memory)
{
	const int pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC); /* without it a census goes by mincore(), as ever */

	*memory = open("/proc/self/mem", O_RDONLY | O_CLOEXEC);
	if (*memory < 0 || prctl(PR_SET_DUMPABLE, 0) != 0)
		goto err_close;
	kept_pagemap = pagemap;
	return DRP_OK;

err_close:
	if (*memory >= 0)
		close(*memory);
	if (pagemap >= 0)
		close(pagemap);
	*memory = -1;
	return DRP_UNSUPPORTED;
}

/* No kernel that has the seals that matter here lacks memory for files; only their rights differ. */
static int new_file(void)
{
	const int descriptor = memfd_create("droppable", MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_NOEXEC_SEAL);

	return descriptor >= 0 || errno != EINVAL ? descriptor : memfd_create("droppable", MFD_CLOEXEC | MFD_ALLOW_SEALING);
}

int prim_share_open(size_t length, int *descriptor, void **memory)
{
	int status = DRP_NO_MEMORY;

	*descriptor = new_file();
	if (*descriptor < 0)
		return errno == ENOSYS ? DRP_UNSUPPORTED : DRP_NO_MEMORY;
	if (ftruncate(*descriptor, (off_t)length) != 0)
		goto err_close;
	*memory = mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_SHARED, *descriptor, 0);
	if (*memory == MAP_FAILED)
		goto err_close;
	/* Our own mapping was there before, so it can write; no later one can. */
	if (fcntl(*descriptor, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_FUTURE_WRITE | F_SEAL_SEAL) != 0) {
		status = DRP_UNSUPPORTED;
		goto err_unmap;
	}
	return DRP_OK;

err_unmap:
	munmap(*memory, length);
err_close:
	close(*descriptor);
	*descriptor = -1;
	return status;
}

int prim_share_map(int descriptor, size_t length, const void **memory)
{
	struct stat about;

	/* A file that could shrink would end us by SIGBUS. */
	if (fstat(descriptor, &about) != 0 || (uint64_t)about.st_size != length || !(fcntl(descriptor, F_GET_SEALS) & F_SEAL_SHRINK))
		return DRP_INVALID;
	void *mapped = mmap(NULL, length, PROT_READ, MAP_SHARED, descriptor, 0);
	if (mapped == MAP_FAILED)
		return DRP_NO_MEMORY;
	*memory = mapped;
	return DRP_OK;
}

void prim_share_unmap(const void *memory, size_t length)
{
	munmap((void *)(uintptr_t)memory, length);
}

/*
 * A robust mutex, which this thread holds as long as it lives. When it ends, however that comes, the kernel goes through the list of
 * those that it holds and sets FUTEX_OWNER_DIED in the word that has its number. Where that word stands differs between C libraries.
 */
_Static_assert(sizeof(pthread_mutex_t) <= PRIM_SIGN_BYTES && PRIM_SIGN_ENDED == FUTEX_OWNER_DIED, "see prim_sign_begin()");

int prim_sign_begin(void *sign, uint32_t *word_at)
{
	const uint32_t thread = (uint32_t)syscall(SYS_gettid);
	pthread_mutexattr_t attributes;
	pthread_mutex_t *mutex = sign;
	uint32_t word;

	if (pthread_mutexattr_init(&attributes) != 0)
		return DRP_NO_MEMORY;
	int failed = pthread_mutexattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED) != 0 ||
		     pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST) != 0 || pthread_mutex_init(mutex, &attributes) != 0;
	pthread_mutexattr_destroy(&attributes);
	if (failed || pthread_mutex_lock(mutex) != 0)
		return DRP_UNSUPPORTED;
	for (*word_at = 0; *word_at < sizeof(*mutex); *word_at += sizeof(word)) {
		memcpy(&word, (const char *)sign + *word_at, sizeof(word));
		if (word == thread)
			return DRP_OK;
	}
	pthread_mutex_unlock(mutex);
	return DRP_UNSUPPORTED;
}

void prim_sign_end(void *sign)
{
	const int failed = pthread_mutex_unlock(sign);

	DRP_ASSERT(failed == 0);
}
