/*
 * test_entry.c - entries of every shape at every place that matters come back as they were written, and a page that is
 * gone is told; on prim_fake.
 *
 *   shapes   small (lengths of 8 bits, never split), middling, wide (lengths of 64 bits); with and without expiry and cost
 *   places   the log stands at the start of a page, at each of its last multiples of ENTRY_ALIGN, somewhere between
 */
#include <string.h>

#include "check.h"
#include "log/entry.h"
#include "os/prim.h"
#include "prim_fake.h"

enum { PAGES = 80, STAMP = 0x1235a };

struct shape {
	size_t key_bytes, meta_bytes, value_bytes;
	uint8_t flags;
};

static const struct shape shapes[] = {
	{0, 0, 0, 0}, {9, 0, 100, 0}, {9, 16, 100, ENTRY_TTL | ENTRY_COST}, {255, 0, 100, 0}, {256, 0, 100, 0},
	{9, 255, 30, ENTRY_COST}, {9, 256, 30, ENTRY_COST},
	{0, 0, 502, 0}, {0, 0, 503, 0}, /* with its head an eighth of a page; one more */
	{9, 3, 4096, ENTRY_TTL}, {70000, 0, 5, 0}, {5, 70000, 5, ENTRY_TTL | ENTRY_COST}, {300, 300, 30000, 0},
};

static unsigned char source[140000];

static unsigned char *map_log(void)
{
	void *base;

	fake_reset();
	for (size_t i = 0; i < sizeof(source); i++)
		source[i] = (unsigned char)(i * 31 + i / 251);
	REQUIRE(prim_map(PRIM_DROPPABLE, PAGES * prim_page_size(), 0, &base) == DRP_OK);
	return base;
}

static void unmap_log(unsigned char *base)
{
	CHECK_EQ(prim_unmap(base, PAGES * prim_page_size()), DRP_OK);
}

/* Writes one where the log stands; the offset behind it. */
static size_t append(unsigned char *base, size_t offset, const struct shape *shape, size_t *start)
{
	struct entry entry = {.kind = 5, .flags = shape->flags, .key_bytes = shape->key_bytes, .meta_bytes = shape->meta_bytes,
			      .inline_bytes = shape->value_bytes, .expires_ns = 77, .cost_ns = 88};
	const struct drp_part parts[] = {{source, shape->key_bytes}, {source + 1, shape->meta_bytes},
					 {source + 2, shape->value_bytes / 2},
					 {source + 2 + shape->value_bytes / 2, shape->value_bytes - shape->value_bytes / 2}};

	entry_measure(&entry);
	const size_t end = entry_place(offset, entry.bytes, start);
	entry_write(base, *start, STAMP, &entry, parts, 4);
	CHECK(end % ENTRY_ALIGN == 0 && *start % ENTRY_ALIGN == 0 && *start >= offset);
	return end;
}

static bool is_whole(const unsigned char *base, size_t start, const struct shape *shape)
{
	struct entry_reader reader;
	struct entry entry;

	if (!entry_open(base, PAGES * prim_page_size(), start, STAMP, &reader, &entry))
		return false;
	CHECK_EQ(entry.kind, 5);
	CHECK_EQ(entry.flags & ~ENTRY_LENGTHS, shape->flags);
	CHECK_EQ(entry.key_bytes, shape->key_bytes);
	CHECK_EQ(entry.meta_bytes, shape->meta_bytes);
	CHECK_EQ(entry.inline_bytes, shape->value_bytes);
	CHECK_EQ(entry.expires_ns, shape->flags & ENTRY_TTL ? 77 : 0);
	CHECK_EQ(entry.cost_ns, shape->flags & ENTRY_COST ? 88 : 0);
	struct entry measured = entry;
	entry_measure(&measured);
	CHECK_EQ(measured.bytes, entry.bytes);
	return entry_match(&reader, source, shape->key_bytes) && entry_match(&reader, source + 1, shape->meta_bytes) &&
	       entry_match(&reader, source + 2, shape->value_bytes) && entry_intact(base, start, STAMP, entry.bytes);
}

/* Three in a row, the first where the log stands at offset; then the walk finds just these. */
static void comes_back(const struct shape *shape, size_t offset)
{
	unsigned char *base = map_log();
	size_t starts[3], end = offset, at = offset & ~(prim_page_size() - 1), start;

	for (int i = 0; i < 3; i++) {
		end = append(base, end, shape, &starts[i]);
		CHECK(is_whole(base, starts[i], shape));
	}
	if (offset % prim_page_size() != 0)
		at = starts[0]; /* nothing lies before it: a walk of the page would end there */
	for (int i = 0; i < 3; i++)
		if (CHECK(entry_next(base, &at, end, STAMP, &start)))
			CHECK_EQ(start, starts[i]);
	CHECK(!entry_next(base, &at, end, STAMP, &start));
	unmap_log(base);
}

static void all_shapes_come_back_at_all_places(void)
{
	const size_t page = prim_page_size();

	for (size_t i = 0; i < sizeof(shapes) / sizeof(shapes[0]); i++) {
		comes_back(&shapes[i], 0);
		for (size_t left = ENTRY_ALIGN; left <= 256; left += ENTRY_ALIGN)
			comes_back(&shapes[i], page - left);
		comes_back(&shapes[i], page / 2);
		comes_back(&shapes[i], page + 904);
	}
}

/* What the cache reckons with before it knows the place is never less than what an entry takes. */
static void none_takes_more_than_reckoned(void)
{
	unsigned char *base = map_log();
	const size_t page = prim_page_size();

	for (size_t i = 0; i < sizeof(shapes) / sizeof(shapes[0]); i++)
		for (size_t offset = 0; offset < page; offset += ENTRY_ALIGN) {
			struct entry entry = {.flags = shapes[i].flags, .key_bytes = shapes[i].key_bytes,
					      .meta_bytes = shapes[i].meta_bytes, .inline_bytes = shapes[i].value_bytes};
			size_t start;
			entry_measure(&entry);
			const size_t end = entry_place(offset, entry.bytes, &start);
			CHECK(end - start <= entry_most_bytes(entry.bytes));
		}
	unmap_log(base);
}

/* Each page of an entry for itself. */
static void a_lost_page_is_told(void)
{
	for (size_t i = 0; i < sizeof(shapes) / sizeof(shapes[0]); i++) {
		size_t lost = 0, pages = 1;
		for (; lost < pages; lost++) {
			unsigned char *base = map_log();
			size_t start;
			const size_t end = append(base, prim_page_size() - 64, &shapes[i], &start);
			CHECK(is_whole(base, start, &shapes[i]));
			pages = (end - 1) / prim_page_size() - start / prim_page_size() + 1;
			fake_drop(start / prim_page_size() + lost);
			CHECK(!is_whole(base, start, &shapes[i]));
			unmap_log(base);
		}
		CHECK(lost == pages && pages > 0);
	}
}

/* A page of it goes at each step in which the head is read: what is told of the entry is right, or nothing is. */
static void a_head_is_read_whole_or_not_at_all(void)
{
	for (size_t i = 0; i < sizeof(shapes) / sizeof(shapes[0]); i++) {
		size_t steps = 1, told = 0;
		for (size_t step = 1; step <= steps; step++) {
			unsigned char *base = map_log();
			struct entry_reader reader;
			struct entry entry;
			size_t start;
			append(base, prim_page_size() - 64, &shapes[i], &start);
			fake_drop_at_step(step, FAKE_EVERY_PAGE);
			if (entry_open(base, PAGES * prim_page_size(), start, STAMP, &reader, &entry)) {
				CHECK_EQ(entry.kind, 5);
				CHECK_EQ(entry.key_bytes, shapes[i].key_bytes);
				CHECK_EQ(entry.meta_bytes, shapes[i].meta_bytes);
				CHECK_EQ(entry.inline_bytes, shapes[i].value_bytes);
				CHECK_EQ(entry.expires_ns, shapes[i].flags & ENTRY_TTL ? 77 : 0);
				CHECK_EQ(entry.cost_ns, shapes[i].flags & ENTRY_COST ? 88 : 0);
				told++;
			}
			if (fake_steps() > steps)
				steps = fake_steps();
			fake_drop_at_step(0, 0);
			unmap_log(base);
		}
		CHECK(steps > 1);
		CHECK_EQ(told, 0); /* the last step comes before the last look */
	}
}

/* Lengths whose sum wraps, as a head of any bytes may have them: there is no such entry, and nothing is read of it. */
static void lengths_that_wrap_are_none(void)
{
	static const size_t keys[] = {SIZE_MAX, SIZE_MAX - 100, SIZE_MAX / 2 + 1, 5000};
	unsigned char *base = map_log();
	const struct { /* of a piece, and the lengths of a wide entry */
		uint32_t stamp;
		uint16_t length;
		uint8_t flags, kind;
		uint16_t small_key, small_meta;
		uint32_t inline_value;
	} head = {.stamp = STAMP, .length = 400, .flags = ENTRY_FIRST | ENTRY_WIDE};

	for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++) {
		const uint64_t lengths[] = {keys[i], (size_t)0 - keys[i]};
		struct entry_reader reader;
		struct entry entry;
		memcpy(base, &head, sizeof(head));
		memcpy(base + sizeof(head), lengths, sizeof(lengths));
		CHECK(!entry_open(base, 1024, 0, STAMP, &reader, &entry));
	}
	unmap_log(base);
}

/* A small one takes ten bytes beside its key and its value. */
static void a_small_one_is_small(void)
{
	struct entry entry = {.key_bytes = 9, .inline_bytes = 101};
	size_t start;

	entry_measure(&entry);
	CHECK_EQ(entry_place(0, entry.bytes, &start), 120);
}

int main(void)
{
	RUN(all_shapes_come_back_at_all_places, );
	RUN(none_takes_more_than_reckoned, );
	RUN(a_lost_page_is_told, );
	RUN(a_head_is_read_whole_or_not_at_all, );
	RUN(lengths_that_wrap_are_none, );
	RUN(a_small_one_is_small, );
	return check_done();
}
