/*
 * fuzz_entries.c - what reads the log, under libFuzzer, over any bytes: a page can go and come back as zeros between any two reads,
 * and a processor may for a moment see what lay there before. Built and run by tools/fuzz.sh entries.
 *
 *   input:  | stamp 4 | end 2 | drops 2 | pages of a log ... |      drops: at which step of the reader half of the pages go
 *
 * Nothing may be read outside of the pages, no reader may go on for ever, and what is said to be intact stays within them.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "log/entry.h"
#include "log/entry_small.h"
#include "os/prim.h"

enum { HEAD_BYTES = 8, PAGES_MOST = 4 };

static struct {
	unsigned char *base;
	size_t bytes, step, drop_at;
} log_;

void prim_step(void)
{
	if (++log_.step == log_.drop_at)
		memset(log_.base, 0, log_.bytes / 2);
}

static void require(bool holds)
{
	if (!holds)
		abort();
}

/* Reads an entry as a look-up does: its key, its meta, its value, each into as many bytes as it is said to have. */
static void read_entry(size_t end, size_t start, uint32_t stamp)
{
	struct entry_reader reader;
	struct entry entry = {0};

	if (!entry_open(log_.base, end, start, stamp, &reader, &entry))
		return;
	const size_t lengths[] = {entry.key_bytes, entry.meta_bytes, entry.inline_bytes};
	require(entry.bytes <= end - start);
	for (size_t i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++) {
		require(lengths[i] <= entry.bytes);
		unsigned char *copy = malloc(lengths[i] + 1);
		require(copy != NULL);
		entry_copy(&reader, i == 1 ? NULL : copy, lengths[i]);
		free(copy);
	}
	(void)entry_intact(log_.base, start, stamp, entry.bytes);
}

static void match_entry(size_t end, size_t start, uint32_t stamp)
{
	struct entry_reader reader;
	struct entry entry = {0};

	if (!entry_open(log_.base, end, start, stamp, &reader, &entry))
		return;
	unsigned char *key = calloc(entry.key_bytes + 1, 1);
	require(key != NULL);
	(void)entry_match(&reader, key, entry.key_bytes);
	free(key);
}

static void read_small(size_t end, size_t start, uint32_t stamp)
{
	struct entry_small entry;

	if (!entry_small_open(log_.base, end, start, stamp, &entry))
		return;
	require(entry.key >= log_.base && entry.key_bytes + entry.meta_bytes + entry.value_bytes <= (size_t)(log_.base + end - entry.key));
	unsigned char *copy = malloc(entry.key_bytes + entry.meta_bytes + entry.value_bytes + 1);
	require(copy != NULL);
	memcpy(copy, entry.key, entry.key_bytes + entry.meta_bytes + entry.value_bytes);
	free(copy);
	(void)entry_small_intact(log_.base, start, stamp);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const size_t page = prim_page_size();
	uint32_t stamp;
	uint16_t end_word, drop_at;

	if (size <= HEAD_BYTES || size > HEAD_BYTES + PAGES_MOST * page)
		return 0;
	memcpy(&stamp, data, sizeof(stamp));
	memcpy(&end_word, data + 4, sizeof(end_word));
	memcpy(&drop_at, data + 6, sizeof(drop_at));
	log_.bytes = (size - HEAD_BYTES + page - 1) / page * page;
	log_.base = aligned_alloc(page, log_.bytes);
	require(log_.base != NULL);
	memset(log_.base, 0, log_.bytes);
	memcpy(log_.base, data + HEAD_BYTES, size - HEAD_BYTES);
	log_.step = 0;
	log_.drop_at = drop_at;
	const size_t end = end_word % (log_.bytes / ENTRY_ALIGN + 1) * ENTRY_ALIGN;
	for (size_t offset = 0, start = 0, before = 0; entry_next(log_.base, &offset, end, stamp, &start); before = offset) {
		require(offset > before && start < end && start % ENTRY_ALIGN == 0);
		read_entry(end, start, stamp);
		match_entry(end, start, stamp);
		read_small(end, start, stamp);
	}
	for (size_t start = 0; start < end; start += ENTRY_ALIGN) { /* the index may name any place */
		read_entry(end, start, stamp);
		read_small(end, start, stamp);
	}
	free(log_.base);
	return 0;
}
