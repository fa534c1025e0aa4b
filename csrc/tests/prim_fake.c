/*
 * prim_fake.c - see prim_fake.h.
 *
 *   mapping -> pages: { marked, checksum of the content when it was marked }
 */
#include "prim_fake.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "droppable.h"
#include "prim.h"

struct page {
	bool marked;
	uint64_t checksum;
};

struct mapping {
	struct mapping *next;
	unsigned char *address;
	size_t page_count;
	enum prim_backing backing;
	struct page pages[];
};

static struct {
	struct mapping *first;
	size_t steps, drop_step, drop_page;
	size_t calls, fail_call;
	bool moves;
	unsigned cpu;
	struct prim_headroom headroom;
	uint64_t now_ns, random;
} fake = {.headroom = {.limit_bytes = UINT64_MAX}, .random = 1};

size_t prim_page_size(void)
{
	static size_t known;
	if (known == 0)
		known = (size_t)sysconf(_SC_PAGESIZE);
	return known;
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

static void drop_page(struct mapping *mapping, size_t i)
{
	unsigned char *at = mapping->address + i * prim_page_size();
	struct page *page = &mapping->pages[i];

	if (mapping->backing == PRIM_DROPPABLE || (page->marked && page->checksum == checksum(at))) {
		memset(at, 0, prim_page_size());
		page->marked = false;
	}
}

void fake_drop(size_t n)
{
	for (struct mapping *mapping = fake.first; mapping; mapping = mapping->next)
		for (size_t i = 0; i < mapping->page_count; i++)
			if (n == FAKE_EVERY_PAGE || n-- == 0) {
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
			return !is_zero(mapping->address + n * prim_page_size());
		n -= mapping->page_count;
	}
	return false;
}

size_t fake_pages(void)
{
	size_t pages = 0;
	for (struct mapping *mapping = fake.first; mapping; mapping = mapping->next)
		pages += mapping->page_count;
	return pages;
}

size_t fake_mappings(void)
{
	size_t count = 0;
	for (struct mapping *mapping = fake.first; mapping; mapping = mapping->next)
		count++;
	return count;
}

void fake_reset(void)
{
	struct mapping *first = fake.first;
	memset(&fake, 0, sizeof(fake));
	fake.first = first;
	fake.headroom.limit_bytes = UINT64_MAX;
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

void fake_headroom(uint64_t limit_bytes, uint64_t usage_bytes, uint64_t reclaimable_bytes)
{
	fake.headroom = (struct prim_headroom){limit_bytes, usage_bytes, reclaimable_bytes};
}

void prim_step(void)
{
	if (++fake.steps == fake.drop_step)
		fake_drop(fake.drop_page);
}

static bool fails(void)
{
	return ++fake.calls == fake.fail_call;
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

int prim_map(enum prim_backing backing, size_t length, unsigned flags, void **out)
{
	(void)flags;
	if (fails())
		return DRP_NO_MEMORY;
	size_t pages = length / prim_page_size();
	struct mapping *mapping = calloc(1, sizeof(*mapping) + pages * sizeof(mapping->pages[0]));
	void *address = mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (!mapping || address == MAP_FAILED)
		abort();
	mapping->address = address;
	mapping->page_count = pages;
	mapping->backing = backing;
	struct mapping **at = &fake.first;
	while (*at)
		at = &(*at)->next;
	*at = mapping;
	*out = address;
	return DRP_OK;
}

int prim_unmap(void *address, size_t length)
{
	for (struct mapping **at = &fake.first; *at; at = &(*at)->next)
		if ((*at)->address == address) {
			struct mapping *mapping = *at;
			*at = mapping->next;
			munmap(address, length);
			free(mapping);
			return DRP_OK;
		}
	abort();
}

int prim_mark(void *address, size_t length)
{
	size_t first;
	if (fails())
		return DRP_NO_MEMORY;
	struct mapping *mapping = mapping_of(address, &first);
	for (size_t i = first; i < first + length / prim_page_size(); i++) {
		mapping->pages[i].marked = true;
		mapping->pages[i].checksum = checksum(mapping->address + i * prim_page_size());
	}
	return DRP_OK;
}

int prim_purge(void *address, size_t length)
{
	size_t first;
	struct mapping *mapping = mapping_of(address, &first);
	memset(address, 0, length);
	for (size_t i = first; i < first + length / prim_page_size(); i++)
		mapping->pages[i].marked = false;
	return DRP_OK;
}

int prim_page_out(void *address, size_t length)
{
	size_t first;
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
	struct mapping *mapping = mapping_of(address, &first);
	for (size_t i = first; i < first + (length + prim_page_size() - 1) / prim_page_size(); i++)
		mapping->pages[i].marked = false;
}

void prim_touch(const void *address, size_t length)
{
	(void)address;
	(void)length;
}

int prim_fork_content(void *address, size_t length, bool keep)
{
	(void)address;
	(void)length;
	(void)keep;
	return DRP_OK;
}

int prim_census(const void *address, size_t length, unsigned char *states, struct prim_census *out)
{
	const unsigned char *at = address;
	if (fails())
		return DRP_SYSTEM;
	*out = (struct prim_census){.pages = length / prim_page_size(), .exact = true};
	for (size_t i = 0; i < out->pages; i++) {
		bool zeros = is_zero(at + i * prim_page_size());
		*(zeros ? &out->absent_pages : &out->resident_pages) += 1;
		if (states)
			states[i] = zeros ? PRIM_ABSENT : PRIM_RESIDENT;
	}
	return DRP_OK;
}

unsigned prim_cpu(void)
{
	return fake.moves ? fake.cpu++ : 0;
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
	if (fails())
		return DRP_SYSTEM;
	for (size_t i = 0; i < length; i++) /* the same in each run: a failure repeats */
		at[i] = (unsigned char)((fake.random = fake.random * UINT64_C(6364136223846793005) + 1) >> 56);
	return DRP_OK;
}

int prim_headroom(struct prim_headroom *out)
{
	*out = fake.headroom;
	return DRP_OK;
}
