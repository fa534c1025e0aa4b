/*
 * probe.c - finds out by trying what this kernel does; see probe.h.
 *
 * The kernel may skip a page that it is asked to drop (referenced just now, or waiting in another processor's LRU batch
 * after this thread moved), and may drop one that it was not asked for (real pressure). So every probe has several
 * pages, asks that at least one of them behaves as promised, and tries again on fresh pages a bounded number of times.
 *
 *   fill --> mark --> any page still there?   no: LOST_AT_ONCE
 *                 --> page out --> any gone?  no: NEVER_DROPPED
 */
#include "os/probe.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>

#include "droppable.h"
#include "os/prim.h"
#include "os/prim_end.h"

enum { PAGES = 8, ATTEMPTS = 8, FILL = 0x5a };

static struct probe_result works(void)
{
	return (struct probe_result){.available = true, .finding = PROBE_WORKS};
}

static struct probe_result fails(enum probe_finding finding, int error)
{
	return (struct probe_result){.finding = finding, .error = error};
}

static bool is_transient(int error)
{
	return error == ENOMEM || error == EAGAIN || error == EMFILE || error == ENFILE;
}

static size_t probe_bytes(void)
{
	return PAGES * prim_page_size();
}

/* How many pages hold what was written. Volatile: the kernel changes them between two reads. */
static int pages_alive(const unsigned char *pages)
{
	int alive = 0;

	for (int i = 0; i < PAGES; i++)
		alive += *(volatile const unsigned char *)(pages + i * prim_page_size()) == FILL;
	return alive;
}

/* One round on fresh pages: does a mark keep the content, and does paging out drop it? */
static struct probe_result try_drop(unsigned char *pages, bool marked)
{
	memset(pages, FILL, probe_bytes());
	if (marked && prim_mark(pages, probe_bytes()) != DRP_OK)
		return fails(PROBE_CALL_FAILED, errno);
	if (pages_alive(pages) == 0)
		return fails(PROBE_LOST_AT_ONCE, 0);
	if (prim_page_out(pages, probe_bytes()) != DRP_OK)
		return fails(PROBE_UNPROVEN, errno);
	return pages_alive(pages) < PAGES ? works() : fails(PROBE_NEVER_DROPPED, 0);
}

static struct probe_result probe_drop(enum prim_backing backing)
{
	struct probe_result result;
	int attempts = 0;
	void *pages;

	do {
		if (prim_map(backing, probe_bytes(), 0, &pages) != DRP_OK)
			return fails(PROBE_CALL_FAILED, errno);
		result = try_drop(pages, backing == PRIM_LAZYFREE);
		prim_end(pages, probe_bytes());
	} while ((result.finding == PROBE_LOST_AT_ONCE || result.finding == PROBE_NEVER_DROPPED) &&
		 ++attempts < ATTEMPTS);
	return result;
}

static struct probe_result probe_backing(enum prim_backing backing)
{
	struct probe_result result = probe_drop(backing);
	if (result.finding == PROBE_UNPROVEN)
		result = (struct probe_result){.available = true, .finding = PROBE_UNPROVEN};
	return result;
}

static struct probe_result probe_page_out(void)
{
	struct probe_result result = probe_drop(PRIM_LAZYFREE);
	if (result.finding == PROBE_UNPROVEN)
		result.finding = PROBE_CALL_FAILED;
	return result;
}

static struct probe_result probe_cold(void)
{
	struct probe_result result = works();
	void *pages;

	if (prim_map(PRIM_LAZYFREE, probe_bytes(), 0, &pages) != DRP_OK)
		return fails(PROBE_CALL_FAILED, errno);
	memset(pages, FILL, probe_bytes());
	if (prim_cold(pages, probe_bytes()) != DRP_OK)
		result = fails(PROBE_CALL_FAILED, errno);
	else if (pages_alive(pages) < PAGES) /* not marked: nothing may take them */
		result = fails(PROBE_LOST_AT_ONCE, 0);
	prim_end(pages, probe_bytes());
	return result;
}

static struct probe_result probe_wipe_on_fork(void)
{
	struct probe_result result = works();
	void *pages;

	if (prim_map(PRIM_LAZYFREE, probe_bytes(), PRIM_KEEP_ON_FORK, &pages) != DRP_OK)
		return fails(PROBE_CALL_FAILED, errno);
	if (prim_fork_content(pages, probe_bytes(), false) != DRP_OK)
		result = fails(PROBE_CALL_FAILED, errno);
	prim_end(pages, probe_bytes());
	return result;
}

/* Page 0 is written, page 1 read, page 2 left alone: an exact census tells the three apart. */
static struct probe_result probe_exact_census(void)
{
	struct probe_result result = fails(PROBE_CALL_FAILED, 0);
	struct prim_census census;
	unsigned char states[PAGES];
	void *mapped;

	if (prim_map(PRIM_LAZYFREE, probe_bytes(), 0, &mapped) != DRP_OK)
		return fails(PROBE_CALL_FAILED, errno);
	volatile unsigned char *pages = mapped;
	pages[0] = FILL;
	(void)pages[prim_page_size()];
	if (prim_census(mapped, probe_bytes(), states, &census) != DRP_OK)
		result.error = errno;
	else if (census.exact && states[0] == PRIM_RESIDENT && states[1] == PRIM_ZERO && states[2] == PRIM_ABSENT)
		result = works();
	prim_end(mapped, probe_bytes());
	return result;
}

/* Asks a system call about each page, so that no signal handler is needed: write(2) copies from the page or says EFAULT. */
static struct probe_result look_for_fault(int pipe_in, const unsigned char *pages)
{
	for (int i = 0; i < PAGES; i++)
		if (write(pipe_in, pages + i * prim_page_size(), 1) < 0)
			return errno == EFAULT ? works() : fails(PROBE_CALL_FAILED, errno);
	return fails(PROBE_NO_FAULT, 0);
}

static struct probe_result try_signal(int handle, int pipe_in)
{
	struct probe_result result;
	void *pages;

	if (prim_map(PRIM_LAZYFREE, probe_bytes(), 0, &pages) != DRP_OK)
		return fails(PROBE_CALL_FAILED, errno);
	memset(pages, FILL, probe_bytes());
	if (prim_signal_arm(handle, pages, probe_bytes()) != DRP_OK || prim_mark(pages, probe_bytes()) != DRP_OK ||
	    prim_page_out(pages, probe_bytes()) != DRP_OK)
		result = fails(PROBE_CALL_FAILED, errno);
	else
		result = look_for_fault(pipe_in, pages);
	prim_end(pages, probe_bytes()); /* disarms it too */
	return result;
}

static struct probe_result probe_signal(void)
{
	struct probe_result result;
	int handle, ends[2];

	if (prim_signal_open(&handle) != DRP_OK)
		return fails(PROBE_CALL_FAILED, errno);
	if (pipe2(ends, O_CLOEXEC | O_NONBLOCK) != 0) {
		result = fails(PROBE_CALL_FAILED, errno);
		goto out_handle;
	}
	int attempts = 0;
	do {
		result = try_signal(handle, ends[1]);
	} while (result.finding == PROBE_NO_FAULT && ++attempts < ATTEMPTS);
	close(ends[0]);
	close(ends[1]);
out_handle:
	prim_signal_close(handle);
	return result;
}

static struct probe_result run(enum probe probe)
{
	switch (probe) {
	case PROBE_LAZYFREE:
		return probe_backing(PRIM_LAZYFREE);
	case PROBE_DROPPABLE:
		return probe_backing(PRIM_DROPPABLE);
	case PROBE_PAGE_OUT:
		return probe_page_out();
	case PROBE_COLD:
		return probe_cold();
	case PROBE_WIPE_ON_FORK:
		return probe_wipe_on_fork();
	case PROBE_EXACT_CENSUS:
		return probe_exact_census();
	case PROBE_SIGNAL:
		return probe_signal();
	case PROBE_COUNT:
		break;
	}
	return fails(PROBE_CALL_FAILED, EINVAL);
}

struct probe_result probe_kernel(enum probe probe)
{
	/* One word an answer, so that threads that probe at once need no lock: known, available, finding, errno. */
	static _Atomic uint32_t remembered[PROBE_COUNT];
	const uint32_t known = 1u << 31, available = 1u << 30;

	uint32_t word = probe < PROBE_COUNT ? atomic_load_explicit(&remembered[probe], memory_order_relaxed) : 0;
	if (word & known)
		return (struct probe_result){
			.available = word & available, .finding = word >> 16 & 0xff, .error = word & 0xffff};

	int saved_errno = errno;
	struct probe_result result = run(probe);
	if (probe < PROBE_COUNT && !is_transient(result.error)) {
		word = known | (result.available ? available : 0) | (uint32_t)result.finding << 16 | (uint32_t)result.error;
		atomic_store_explicit(&remembered[probe], word, memory_order_relaxed);
	}
	errno = saved_errno;
	return result;
}
