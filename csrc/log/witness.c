/*
 * witness.c - see witness.h for the picture and the protocol.
 */
#include "log/witness.h"

#include <stdatomic.h>
#include <string.h>

#include "os/prim.h"

enum { SAMPLE_PAGES = 16 };

/* Walks a list of parts as if they were one stretch of bytes. */
struct part_cursor {
	const struct drp_part *part, *end;
	size_t offset;
};

static size_t next_stretch(struct part_cursor *at, size_t wanted, const unsigned char **data)
{
	while (at->part < at->end && at->offset == at->part->bytes) {
		at->part++;
		at->offset = 0;
	}
	if (at->part == at->end)
		return 0;
	size_t bytes = at->part->bytes - at->offset;
	if (bytes > wanted)
		bytes = wanted;
	*data = (const unsigned char *)at->part->data + at->offset;
	at->offset += bytes;
	return bytes;
}

static size_t total_bytes(const struct drp_part *parts, size_t part_count)
{
	size_t bytes = 0;
	for (size_t i = 0; i < part_count; i++)
		bytes += parts[i].bytes;
	return bytes;
}

size_t witness_count(size_t bytes)
{
	size_t page = prim_page_size();
	return (bytes + page - 1) / page;
}

/* Offset of the first non-zero byte, or bytes. */
static size_t first_nonzero(const unsigned char *data, size_t bytes)
{
	size_t at = 0;
	uint64_t word;

	while (at + sizeof(word) <= bytes) {
		memcpy(&word, data + at, sizeof(word));
		if (word != 0)
			break;
		at += sizeof(word);
	}
	while (at < bytes && data[at] == 0)
		at++;
	return at;
}

uint16_t witness_of(const void *page, size_t bytes)
{
	size_t mark = first_nonzero(page, bytes);
	return mark == bytes ? WITNESS_ZERO : (uint16_t)mark;
}

static uint16_t page_in_order(unsigned char *page, struct part_cursor *parts, size_t bytes)
{
	struct part_cursor probe = *parts;
	const unsigned char *data = NULL;
	size_t mark = 0, stretch;
	unsigned char mark_byte = 0;

	for (; mark < bytes; mark += stretch) {
		stretch = next_stretch(&probe, bytes - mark, &data);
		size_t zeros = first_nonzero(data, stretch);
		if (zeros < stretch) {
			mark += zeros;
			mark_byte = data[zeros];
			break;
		}
	}
	if (mark < bytes) {
		atomic_store_explicit((_Atomic unsigned char *)(page + mark), mark_byte, memory_order_relaxed);
		prim_step();
		atomic_thread_fence(memory_order_release);
	}
	for (size_t at = 0; at < bytes; at += stretch) {
		stretch = next_stretch(parts, bytes - at, &data);
		if (mark >= at && mark < at + stretch) { /* the mark lies in this stretch: copy around it */
			memcpy(page + at, data, mark - at);
			prim_step();
			memcpy(page + mark + 1, data + (mark - at) + 1, stretch - (mark - at) - 1);
		} else {
			memcpy(page + at, data, stretch);
		}
		prim_step();
	}
	return mark < bytes ? (uint16_t)mark : WITNESS_ZERO;
}

static void page_at_once(unsigned char *page, struct part_cursor *parts, size_t bytes)
{
	const unsigned char *data = NULL;
	size_t stretch;

	for (size_t at = 0; at < bytes; at += stretch) {
		stretch = next_stretch(parts, bytes - at, &data);
		memcpy(page + at, data, stretch);
		prim_step();
	}
}

static bool is_equal(const unsigned char *extent, const struct drp_part *parts, size_t part_count)
{
	for (size_t i = 0; i < part_count; i++) {
		if (parts[i].bytes > 0 && memcmp(extent, parts[i].data, parts[i].bytes) != 0)
			return false;
		extent += parts[i].bytes;
	}
	return true;
}

/* Does the mark tell this page from one of zeros? */
static bool is_provable(const unsigned char *page, size_t bytes, uint16_t witness)
{
	return witness != WITNESS_ZERO || bytes <= UINT16_MAX || page[UINT16_MAX] == 0;
}

int witness_write(void *extent, const struct drp_part *parts, size_t part_count, uint16_t *witnesses, bool in_order)
{
	const size_t page = prim_page_size(), bytes = total_bytes(parts, part_count);
	const size_t pages = witness_count(bytes);
	struct part_cursor cursor = {parts, parts + part_count, 0};
	const unsigned cpu = in_order ? prim_cpu() : 0;
	unsigned char *base = extent;
	bool provable = true;

	for (size_t i = 0, marked = 0; i < pages; i++) {
		unsigned char *to = base + i * page;
		size_t length = bytes - i * page < page ? bytes - i * page : page;
		if (in_order) {
			witnesses[i] = page_in_order(to, &cursor, length);
		} else { /* lazyfree: a dirty page stays until prim_mark(), so the copy may come first */
			page_at_once(to, &cursor, length);
			witnesses[i] = witness_of(to, length);
		}
		provable = provable && is_provable(to, length, witnesses[i]);
		if (i + 1 == pages || i + 1 - marked == WITNESS_MARK_PAGES) {
			int status = prim_mark(base + marked * page, (i + 1 - marked) * page);
			if (status != DRP_OK)
				return status;
			marked = i + 1;
		}
	}
	if (!provable || (in_order && prim_cpu() != cpu && !is_equal(base, parts, part_count)))
		return DRP_REFUSED;
	return DRP_OK;
}

int witness_take(void *extent, size_t bytes, uint16_t *witnesses)
{
	const size_t page = prim_page_size(), pages = witness_count(bytes);
	unsigned char *base = extent;
	bool provable = true;

	for (size_t i = 0, marked = 0; i < pages; i++) {
		const size_t length = bytes - i * page < page ? bytes - i * page : page;
		witnesses[i] = witness_of(base + i * page, length);
		provable = provable && is_provable(base + i * page, length, witnesses[i]);
		if (i + 1 == pages || i + 1 - marked == WITNESS_MARK_PAGES) {
			int status = prim_mark(base + marked * page, (i + 1 - marked) * page);
			if (status != DRP_OK)
				return status;
			marked = i + 1;
		}
	}
	return provable ? DRP_OK : DRP_REFUSED;
}

static bool page_intact(const unsigned char *page, uint16_t witness)
{
	if (witness == WITNESS_ZERO)
		return true;
	prim_step();
	return atomic_load_explicit((const _Atomic unsigned char *)(page + witness), memory_order_relaxed) != 0;
}

bool witness_sample(const void *extent, size_t bytes, const uint16_t *witnesses)
{
	const size_t last = witness_count(bytes) - 1, step = last / SAMPLE_PAGES + 1;
	const unsigned char *base = extent;

	for (size_t i = 0; i < last; i += step)
		if (!page_intact(base + i * prim_page_size(), witnesses[i]))
			return false;
	return page_intact(base + last * prim_page_size(), witnesses[last]);
}

bool witness_intact(const void *extent, size_t bytes, const uint16_t *witnesses)
{
	const size_t page = prim_page_size();
	const unsigned char *at = extent;

	prim_step();
	atomic_thread_fence(memory_order_acquire);
	for (size_t i = 0; i < witness_count(bytes); i++, at += page)
		if (!page_intact(at, witnesses[i]))
			return false;
	return true;
}
