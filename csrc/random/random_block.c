/*
 * random_block.c - random_block.h: the one place where random numbers wait in memory before they are handed out.
 *
 *   | filled | left_words |  0  0  0  0  0  | w w w w w w w w w w |      16 KiB, one mapping
 *     mark                  handed out        <- left_words - 1         taken from the top down
 *
 * The mapping is private memory that the kernel wipes in a forked child and leaves out of core dumps. It is never
 * marked as free, so nothing is dropped from it, but it may be swapped: at most the words not yet handed out.
 *
 * In the child everything reads 0, left_words too, so its first draw fills the block anew. `filled` is read after the
 * word: a fork from a signal handler between the two reads is then noticed in the child, which draws again.
 */
#include "random/random_block.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

#include "droppable.h"
#include "os/prim.h"
#include "os/prim_end.h"
#include "random/random.h"

/*
 * 16 KiB: filling it costs about 25 us with the vDSO's cipher, of which one call's overhead is less than 2 %; a quarter
 * to a half of a first-level cache. A power of two, so a whole number of pages up to 16 KiB; larger pages round up.
 */
enum { BLOCK_BYTES = 16384, HEADER_BYTES = 2 * sizeof(uint32_t) };
enum { WORD_COUNT = (BLOCK_BYTES - HEADER_BYTES) / sizeof(uint32_t) };

struct random_block {
	volatile uint32_t filled;
	volatile uint32_t left_words;
	volatile uint32_t words[WORD_COUNT];
};

_Static_assert(sizeof(struct random_block) == BLOCK_BYTES, "no padding");

static size_t mapping_bytes(void)
{
	size_t page = prim_page_size();
	return (BLOCK_BYTES + page - 1) / page * page;
}

static int fill(struct random_block *block)
{
	block->left_words = 0;
	block->filled = 1; /* before the words: a fork in the middle of the fill wipes it, and the child fills again */
	atomic_signal_fence(memory_order_seq_cst);
	int status = random_fill((void *)block->words, sizeof(block->words));
	if (status == DRP_OK)
		block->left_words = WORD_COUNT;
	return status;
}

int random_block_open(struct random_block **out)
{
	void *address;
	int status = prim_map(PRIM_LAZYFREE, mapping_bytes(), 0, &address);
	if (status != DRP_OK)
		return status;
	status = prim_fork_content(address, mapping_bytes(), false); /* prim_map asks for it, but does not insist */
	if (status == DRP_OK)
		status = fill(address);
	if (status != DRP_OK) {
		prim_end(address, mapping_bytes());
		return status;
	}
	*out = address;
	return DRP_OK;
}

void random_block_close(struct random_block *block)
{
	prim_end(block, mapping_bytes());
}

static void fill_or_die(struct random_block *block)
{
	if (fill(block) == DRP_OK)
		return;
	fputs("droppable: the kernel gives no random bytes any more; ending the process rather than going on without\n",
	      stderr);
	abort();
}

uint64_t random_block_uint64(void *argument)
{
	struct random_block *block = argument;

	for (;;) {
		uint32_t left = block->left_words;
		if (left < 2) { /* an odd word left over goes unused */
			fill_or_die(block);
			continue;
		}
		uint64_t number = (uint64_t)block->words[left - 1] << 32 | block->words[left - 2];
		block->words[left - 1] = 0;
		block->words[left - 2] = 0;
		block->left_words = left - 2;
		if (block->filled)
			return number;
		block->left_words = 0;
	}
}

uint32_t random_block_uint32(void *argument)
{
	struct random_block *block = argument;

	for (;;) {
		uint32_t left = block->left_words;
		if (left < 1) {
			fill_or_die(block);
			continue;
		}
		uint32_t number = block->words[left - 1];
		block->words[left - 1] = 0;
		block->left_words = left - 1;
		if (block->filled)
			return number;
		block->left_words = 0;
	}
}

double random_block_double(void *block)
{
	return (double)(random_block_uint64(block) >> 11) * 0x1p-53;
}
