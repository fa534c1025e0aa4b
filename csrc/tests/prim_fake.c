/*
 * prim_fake.c - see prim_fake.h.
 *
 *   mapping -> pages: { marked, checksum of the content when it was marked,
 *                       absent: in signal mode, the empty file is mapped there, not to be touched,
 *                       kept: in a forked child; what is not is zeros there
 *                       seen: tracking told of it, with the checksum of what it was then }
 */
#include "prim_fake.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "droppable.h"
#include "os/prim.h"
#include "os/prim_track.h"

struct page {
	bool marked, absent, seen;
	bool kept; /* over a fork */
	uint64_t checksum, seen_checksum;
};

struct mapping {
	struct mapping *next;
	unsigned char *address;
	size_t page_count;
	enum prim_backing backing;
	int signal_handle, track_handle; /* 0: none */
	struct page pages[];
};

static struct {
	struct mapping *first;
	size_t steps, drop_step, drop_page;
	size_t calls, fail_call;
	int failure; /* DRP_OK: what is most likely for the call */
	size_t handles, marked_pages;
	int last_handle;
	bool moves;
	void (*hook)(void);
	bool in_hook, fails_keeping, is_locked, no_mappings;
	unsigned cpu;
	struct prim_headroom headroom;
	uint64_t resident_bytes;
	uint64_t now_ns, random;
	size_t space_pages;
	bool (*lock_is_held)(void *context);
	void *lock_context;
	size_t given_under_lock;
} fake = {.headroom = {.limit_bytes = UINT64_MAX, .hard_left_bytes = UINT64_MAX}, .random = 1};

static void point(void)
{
	if (!fake.hook || fake.in_hook)
		return;
	fake.in_hook = true;
	fake.hook();
	fake.in_hook = false;
}

void fake_at_each_point(void (*hook)(void))
{
	fake.hook = hook;
}

void fake_fail_keeping(bool fails)
{
	fake.fails_keeping = fails;
}

static uint64_t checksum(const unsigned char *at)
{
	uint64_t sum = 0, word;
	for (size_t i = 0; i < prim_page_size(); i += sizeof(word)) {
		memcpy(&word, at + i, sizeof(word));
		sum = (sum ^ word) * UINT64_C(0x9e3779b97f4a7c15);
		sum ^= sum >> 29;
	}
	return sum;
}

static void place_page(struct mapping *mapping, size_t i, int type, int file)
{
	unsigned char *at = mapping->address + i * prim_page_size();

	if (mmap(at, prim_page_size(), PROT_READ | PROT_WRITE, type | MAP_FIXED, file, 0) != at)
		abort();
	mapping->pages[i].absent = !(type & MAP_ANONYMOUS);
}

/* Without content: zeros, or absent in signal mode. */
static void empty_page(struct mapping *mapping, size_t i)
{
	struct page *page = &mapping->pages[i];
	static int empty_file = -1;

	page->marked = page->seen = false;
	if (page->absent)
		return;
	if (mapping->signal_handle == 0) {
		memset(mapping->address + i * prim_page_size(), 0, prim_page_size());
		return;
	}
	if (empty_file < 0)
		empty_file = memfd_create("absent", MFD_CLOEXEC);
	place_page(mapping, i, MAP_SHARED, empty_file);
}

static void drop_page(struct mapping *mapping, size_t i)
{
	const unsigned char *at = mapping->address + i * prim_page_size();
	const struct page *page = &mapping->pages[i];

	if (mapping->backing == PRIM_DROPPABLE || (page->marked && !page->absent && page->checksum == checksum(at)))
		empty_page(mapping, i);
}

void fake_drop(size_t n)
{
	for (struct mapping *mapping = fake.first; mapping; mapping = mapping->next) {
		if (n != FAKE_EVERY_PAGE && n >= mapping->page_count) {
			n -= mapping->page_count;
			continue;
		}
		for (size_t i = 0; i < mapping->page_count; i++)
			if (n == FAKE_EVERY_PAGE || n == i)
				drop_page(mapping, i);
		if (n != FAKE_EVERY_PAGE)
			return;
	}
}

static bool is_zero(const unsigned char *at)
{
	static const unsigned char zeros[256];
	for (size_t i = 0; i < prim_page_size(); i += sizeof(zeros))
		if (memcmp(at + i, zeros, sizeof(zeros)) != 0)
			return false;
	return true;
}

bool fake_page_in_use(size_t n)
{
	for (struct mapping *mapping = fake.first; mapping; mapping = mapping->next) {
		if (n < mapping->page_count)
			return !mapping->pages[n].absent && !is_zero(mapping->address + n * prim_page_size());
		n -= mapping->page_count;
	}
	return false;
}

static struct mapping *mapping_of_page(size_t *n)
{
	for (struct mapping *mapping = fake.first; mapping; mapping = mapping->next) {
		if (*n < mapping->page_count)
			return mapping;
		*n -= mapping->page_count;
	}
	abort();
}

const void *fake_page_at(size_t n)
{
	const struct mapping *mapping = mapping_of_page(&n);
	return mapping->address + n * prim_page_size();
}

bool fake_page_is_dirty(size_t n)
{
	const struct mapping *mapping = mapping_of_page(&n);
	const unsigned char *at = mapping->address + n * prim_page_size();
	const struct page *page = &mapping->pages[n];

	return mapping->backing == PRIM_LAZYFREE && !page->absent && !is_zero(at) &&
	       !(page->marked && page->checksum == checksum(at));
}

bool fake_page_is_kept(size_t n)
{
	const struct mapping *mapping = mapping_of_page(&n);
	return mapping->pages[n].kept;
}

size_t fake_pages(void)
{
	size_t pages = 0;
	for (struct mapping *mapping = fake.first; mapping; mapping = mapping->next)
		pages += mapping->page_count;
	return pages;
}

void fake_lock(bool locked)
{
	fake.is_locked = locked;
}

void fake_no_mappings(bool none)
{
	fake.no_mappings = none;
}

void fake_space(size_t pages)
{
	fake.space_pages = pages;
}

size_t fake_mappings(void)
{
	size_t count = 0;
	for (struct mapping *mapping = fake.first; mapping; mapping = mapping->next)
		count++;
	return count;
}

size_t fake_handles(void)
{
	return fake.handles;
}

size_t fake_marked_pages(void)
{
	return fake.marked_pages;
}

void fake_reset(void)
{
	struct mapping *first = fake.first;
	const uint64_t now_ns = fake.now_ns; /* a clock does not go back */
	memset(&fake, 0, sizeof(fake));
	fake.first = first;
	fake.now_ns = now_ns;
	fake.headroom.limit_bytes = fake.headroom.hard_left_bytes = UINT64_MAX;
	fake.random = 1;
}

void fake_drop_at_step(size_t step, size_t n)
{
	fake.steps = 0;
	fake.drop_step = step;
	fake.drop_page = n;
}

size_t fake_steps(void)
{
	return fake.steps;
}

void fake_fail_call(size_t call)
{
	fake.calls = 0;
	fake.fail_call = call;
}

size_t fake_calls(void)
{
	return fake.calls;
}

void fake_move_between_cpus(bool moves)
{
	fake.moves = moves;
}

/* As prim_linux_headroom.c reckons it for a group. */
static void reckon(struct prim_headroom *room)
{
	const uint64_t free_bytes = room->usage_bytes < room->limit_bytes ? room->limit_bytes - room->usage_bytes : 0;

	room->is_free = room->limit_bytes != UINT64_MAX && room->unread == PRIM_READ_ALL &&
			free_bytes + room->idle_bytes >= room->limit_bytes / 16;
	room->hard_left_bytes = room->limit_bytes == UINT64_MAX ? UINT64_MAX : free_bytes + room->reclaimable_bytes;
}

void fake_headroom(uint64_t limit_bytes, uint64_t usage_bytes, uint64_t reclaimable_bytes)
{
	fake.headroom = (struct prim_headroom){
		.limit_bytes = limit_bytes, .usage_bytes = usage_bytes, .reclaimable_bytes = reclaimable_bytes};
	reckon(&fake.headroom);
	fake.resident_bytes = 0;
}

void fake_idle(uint64_t idle_bytes)
{
	fake.headroom.idle_bytes = idle_bytes;
	reckon(&fake.headroom);
}

void fake_slows(uint64_t hard_left_bytes)
{
	fake.headroom.slows = true;
	fake.headroom.hard_left_bytes = hard_left_bytes;
}

void fake_unread(enum prim_unread unread)
{
	fake.headroom = (struct prim_headroom){
		.limit_bytes = UINT64_MAX, .hard_left_bytes = UINT64_MAX, .unread = unread};
}

void fake_group(uint64_t resident_bytes)
{
	fake.headroom.group[0] = '/';
	fake.resident_bytes = resident_bytes;
}

void prim_step(void)
{
	if (++fake.steps == fake.drop_step)
		fake_drop(fake.drop_page);
	point();
}

bool fake_fails(void)
{
	return ++fake.calls == fake.fail_call;
}

void fake_fail_as(int status)
{
	fake.failure = status;
}

/* What a call that fails returns, if the test did not say. */
static int failure(int as_a_rule)
{
	return fake.failure != DRP_OK ? fake.failure : as_a_rule;
}

static struct mapping *mapping_of(const void *address, size_t *page)
{
	for (struct mapping *mapping = fake.first; mapping; mapping = mapping->next) {
		size_t offset = (size_t)((uintptr_t)address - (uintptr_t)mapping->address);
		if (offset < mapping->page_count * prim_page_size()) {
			*page = offset / prim_page_size();
			return mapping;
		}
	}
	abort();
}

void fake_drop_at(const void *address)
{
	size_t page;
	struct mapping *mapping = mapping_of(address, &page);

	drop_page(mapping, page);
}

/* Before any handler of the code under test: children's handlers run in the order in which they were installed. */
static void wipe_in_child(void)
{
	for (struct mapping *mapping = fake.first; mapping; mapping = mapping->next)
		for (size_t i = 0; i < mapping->page_count; i++)
			if (!mapping->pages[i].kept)
				empty_page(mapping, i);
}

static void install_fork_handler(void)
{
	if (pthread_atfork(NULL, NULL, wipe_in_child) != 0)
		abort();
}

int prim_map(enum prim_backing backing, size_t length, unsigned flags, void **out)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;

	pthread_once(&once, install_fork_handler);
	size_t pages = length / prim_page_size();
	if (fake_fails() || fake.no_mappings || (fake.space_pages != 0 && fake_pages() + pages > fake.space_pages))
		return failure(DRP_NO_MEMORY);
	struct mapping *mapping = calloc(1, sizeof(*mapping) + pages * sizeof(mapping->pages[0]));
	void *address = mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (address == MAP_FAILED)
		abort();
	if (!mapping) {
		munmap(address, length);
		return DRP_NO_MEMORY;
	}
	mapping->address = address;
	mapping->page_count = pages;
	mapping->backing = backing;
	for (size_t i = 0; i < pages; i++)
		mapping->pages[i].kept = backing == PRIM_PLAIN || (flags & PRIM_KEEP_ON_FORK);
	struct mapping **at = &fake.first;
	while (*at)
		at = &(*at)->next;
	*at = mapping;
	*out = address;
	return DRP_OK;
}

void fake_watch_lock(bool (*held)(void *context), void *context)
{
	fake.lock_is_held = held;
	fake.lock_context = context;
	fake.given_under_lock = 0;
}

size_t fake_pages_given_back_under_lock(void)
{
	return fake.given_under_lock;
}

static void note_given_back(size_t length)
{
	if (fake.lock_is_held && fake.lock_is_held(fake.lock_context))
		fake.given_under_lock += length / prim_page_size();
}

/* All of a mapping, which cannot fail, or its end. */
int prim_unmap(void *address, size_t length)
{
	point();
	note_given_back(length);
	for (struct mapping **at = &fake.first; *at; at = &(*at)->next) {
		struct mapping *mapping = *at;
		if (mapping->address == address) {
			*at = mapping->next;
			munmap(address, length);
			free(mapping);
			return DRP_OK;
		}
		if (mapping->address + mapping->page_count * prim_page_size() == (unsigned char *)address + length) {
			if (fake_fails())
				return failure(DRP_NO_MEMORY);
			mapping->page_count -= length / prim_page_size();
			munmap(address, length);
			return DRP_OK;
		}
	}
	abort();
}

int prim_mark(void *address, size_t length)
{
	size_t first;
	point();
	if (fake_fails())
		return failure(DRP_NO_MEMORY);
	if (fake.is_locked)
		return DRP_UNSUPPORTED;
	struct mapping *mapping = mapping_of(address, &first);
	for (size_t i = first; i < first + length / prim_page_size(); i++) {
		if (mapping->pages[i].absent)
			continue;
		fake.marked_pages++;
		mapping->pages[i].marked = true;
		mapping->pages[i].checksum = checksum(mapping->address + i * prim_page_size());
	}
	point();
	return DRP_OK;
}

int prim_mark_ranges(const struct iovec *ranges, size_t count)
{
	int status = DRP_OK;

	for (size_t i = 0; i < count; i++) {
		int result = prim_mark(ranges[i].iov_base, ranges[i].iov_len);
		if (result != DRP_OK)
			status = result;
	}
	return status;
}

int prim_purge(void *address, size_t length)
{
	size_t first;
	point();
	note_given_back(length);
	if (fake_fails())
		return failure(DRP_NO_MEMORY);
	if (fake.is_locked)
		return DRP_UNSUPPORTED;
	struct mapping *mapping = mapping_of(address, &first);
	for (size_t i = first; i < first + length / prim_page_size(); i++)
		empty_page(mapping, i);
	point();
	return DRP_OK;
}

int prim_page_out(void *address, size_t length)
{
	size_t first;
	point();
	struct mapping *mapping = mapping_of(address, &first);
	for (size_t i = first; i < first + length / prim_page_size(); i++)
		drop_page(mapping, i);
	return DRP_OK;
}

int prim_cold(void *address, size_t length)
{
	(void)address;
	(void)length;
	return DRP_OK;
}

void prim_pin(void *address, size_t length)
{
	size_t first;
	point();
	struct mapping *mapping = mapping_of(address, &first);
	for (size_t i = first; i < first + (length + prim_page_size() - 1) / prim_page_size(); i++) {
		(void)*(volatile unsigned char *)(mapping->address + i * prim_page_size()); /* SIGBUS, if it is absent */
		mapping->pages[i].marked = mapping->pages[i].seen = false;
	}
	point();
}

void prim_touch(const void *address, size_t length)
{
	(void)address;
	(void)length;
}

int prim_fork_content(void *address, size_t length, bool keep)
{
	const size_t pages = length / prim_page_size();
	size_t first;
	struct mapping *mapping = mapping_of(address, &first);
	const bool fails = fake_fails() || (keep && fake.fails_keeping);

	for (size_t i = first; i < first + (fails ? pages / 2 : pages); i++) /* failing, it may have come some way */
		mapping->pages[i].kept = keep;
	return fails ? DRP_NO_MEMORY : DRP_OK;
}

int prim_census(const void *address, size_t length, unsigned char *states, struct prim_census *out)
{
	size_t first;
	if (fake_fails())
		return failure(DRP_SYSTEM);
	const struct mapping *mapping = mapping_of(address, &first);
	*out = (struct prim_census){.pages = length / prim_page_size(), .exact = true};
	for (size_t i = 0; i < out->pages; i++) {
		bool zeros = mapping->signal_handle ? mapping->pages[first + i].absent :
						      is_zero(mapping->address + (first + i) * prim_page_size());
		*(zeros ? &out->absent_pages : &out->resident_pages) += 1;
		if (states)
			states[i] = zeros ? PRIM_ABSENT : PRIM_RESIDENT;
	}
	return DRP_OK;
}

unsigned prim_cpu(void)
{
	return fake.moves ? ++fake.cpu : 0;
}

uint64_t prim_now_ns(void)
{
	return fake.now_ns += 1000;
}

uint64_t prim_now_coarse_ns(void)
{
	return fake.now_ns;
}

int prim_random(void *buffer, size_t length)
{
	unsigned char *at = buffer;
	if (fake_fails())
		return failure(DRP_SYSTEM);
	for (size_t i = 0; i < length; i++) /* the same in each run: a failure repeats */
		at[i] = (unsigned char)((fake.random = fake.random * UINT64_C(6364136223846793005) + 1) >> 56);
	return DRP_OK;
}

int prim_headroom(struct prim_headroom *out)
{
	*out = fake.headroom; /* also where it fails: what could be read is told always */
	return fake_fails() ? failure(DRP_SYSTEM) : DRP_OK;
}

int prim_headroom_again(struct prim_headroom *room)
{
	if (fake_fails())
		return failure(DRP_SYSTEM);
	*room = fake.headroom;
	return DRP_OK;
}

int prim_resident(uint64_t *bytes)
{
	if (fake_fails())
		return failure(DRP_SYSTEM);
	*bytes = fake.resident_bytes;
	return DRP_OK;
}

static int open_handle(int *handle)
{
	if (fake_fails())
		return failure(DRP_UNSUPPORTED);
	fake.handles++;
	*handle = ++fake.last_handle;
	return DRP_OK;
}

static void close_handle(void)
{
	if (fake.handles-- == 0)
		abort();
}

int prim_signal_open(int *handle)
{
	return open_handle(handle);
}

int prim_signal_arm(int handle, void *address, size_t length)
{
	size_t first;
	if (fake_fails())
		return failure(DRP_NO_MEMORY);
	struct mapping *mapping = mapping_of(address, &first);
	mapping->signal_handle = handle;
	for (size_t i = first; i < first + length / prim_page_size(); i++)
		if (is_zero(mapping->address + i * prim_page_size()))
			empty_page(mapping, i);
	return DRP_OK;
}

int prim_signal_disarm(int handle, void *address, size_t length)
{
	(void)handle;
	(void)address;
	(void)length;
	abort(); /* nobody does */
}

/* Each page comes at once: it is made elsewhere and moved to its place. */
int prim_signal_refill(int handle, void *address, const void *source, size_t length, size_t *done_bytes)
{
	const size_t page = prim_page_size();
	size_t first;
	struct mapping *mapping = mapping_of(address, &first);
	int status = DRP_OK;

	if (mapping->signal_handle != handle)
		abort();
	for (*done_bytes = 0; *done_bytes < length; *done_bytes += page, first++) {
		unsigned char *at = mapping->address + first * page;
		prim_step();
		if (!mapping->pages[first].absent)
			status = DRP_EXISTS;
		else if (fake_fails())
			status = failure(DRP_NO_MEMORY);
		if (status != DRP_OK)
			break;
		unsigned char *made = mmap(NULL, page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		if (made == MAP_FAILED)
			abort();
		memcpy(made, (const unsigned char *)source + *done_bytes, page);
		if (mremap(made, page, page, MREMAP_MAYMOVE | MREMAP_FIXED, at) != at)
			abort();
		mapping->pages[first].absent = false;
	}
	return status;
}

/* What was absent is zeros from now on. */
void prim_signal_close(int handle)
{
	for (struct mapping *mapping = fake.first; mapping; mapping = mapping->next) {
		if (mapping->signal_handle != handle)
			continue;
		mapping->signal_handle = 0;
		for (size_t i = 0; i < mapping->page_count; i++)
			if (mapping->pages[i].absent)
				place_page(mapping, i, MAP_PRIVATE | MAP_ANONYMOUS, -1);
	}
	close_handle();
}

bool prim_handle_is_open(int handle)
{
	return handle > 0 && handle <= fake.last_handle; /* they are no descriptors, so nobody else closes them */
}

void prim_handle_close(int handle)
{
	(void)handle;
	abort(); /* nobody does, but for the implementations of closing */
}

int prim_track_open(void *address, size_t length, int *handle)
{
	size_t first;
	int status = open_handle(handle);
	struct mapping *mapping = mapping_of(address, &first);

	if (status != DRP_OK)
		return status;
	mapping->track_handle = *handle;
	for (size_t i = first; i < first + length / prim_page_size(); i++)
		mapping->pages[i].seen = false;
	return DRP_OK;
}

void prim_track_close(int handle)
{
	for (struct mapping *mapping = fake.first; mapping; mapping = mapping->next)
		if (mapping->track_handle == handle)
			mapping->track_handle = 0;
	close_handle();
}

static bool was_written(const struct mapping *mapping, size_t i)
{
	const unsigned char *at = mapping->address + i * prim_page_size();
	const struct page *page = &mapping->pages[i];

	return !is_zero(at) && !(page->seen && page->seen_checksum == checksum(at));
}

/* The kernel protects a batch before it tells of it; here the batch is the range. */
int prim_track_collect(void *address, size_t length, prim_track_found *found, void *context)
{
	const size_t page = prim_page_size(), pages = length / page;
	size_t first;
	struct mapping *mapping = mapping_of(address, &first);
	bool *written = calloc(pages, sizeof(*written));
	int status = DRP_OK;

	if (!written || fake_fails())
		status = failure(DRP_SYSTEM);
	else if (mapping->track_handle == 0)
		status = DRP_UNSUPPORTED;
	for (size_t i = 0; i < pages && status == DRP_OK; i++) {
		written[i] = was_written(mapping, first + i);
		mapping->pages[first + i].seen = true;
		mapping->pages[first + i].seen_checksum = checksum(mapping->address + (first + i) * page);
	}
	for (size_t i = 0, end; i < pages && status == DRP_OK; i = end) {
		end = i + 1;
		if (!written[i])
			continue;
		while (end < pages && written[end])
			end++;
		status = found(context, mapping->address + (first + i) * page, (end - i) * page);
	}
	free(written);
	return status;
}
