/*
 * swap.c - writes patterns that the host looks for on the swap disk after the machine is off (search_swap.sh), and
 * checks here what can be seen from here. Has something to do only where the row has a swap disk.
 *
 *     ordinary           ordinary memory: must be found, or the search proves nothing
 *     unmarked           lazyfree, written and not marked: the kernel may swap it, so the cache marks what it writes
 *     marked             lazyfree, written and marked: never
 *     droppable          MAP_DROPPABLE, dirty: never
 *     droppable-marked   MAP_DROPPABLE, written and marked: never
 */
#include "guest.h"

enum { PAGES = 4096, MAX_WAITS = 1000 };

static size_t length;

static bool swap_is_on(void)
{
	char line[256];
	FILE *swaps = fopen("/proc/swaps", "re");

	REQUIRE(swaps);
	bool on = fgets(line, sizeof(line), swaps) && fgets(line, sizeof(line), swaps);
	fclose(swaps);
	return on;
}

static long swapped_kib(void)
{
	return guest_field("/proc/self/status", "VmSwap:");
}

/* Fills with patterns and makes the kernel take them; they stay mapped, the disk keeps what came there. */
static char *pushed_out(enum prim_backing backing, const char *kind, bool mark)
{
	char *at = guest_map(backing, length, 0);

	for (size_t page = 0; page < PAGES; page++)
		guest_pattern(at + page * prim_page_size(), kind, page);
	if (mark)
		CHECK_EQ(prim_mark(at, length), DRP_OK);
	long before = guest_field("/proc/vmstat", "pswpout ");
	for (int round = 0; round < 4; round++) /* MADV_PAGEOUT skips what is referenced just then */
		CHECK_EQ(prim_page_out(at, length), DRP_OK);
	printf("# %s: %ld pages were written to swap\n", kind, guest_field("/proc/vmstat", "pswpout ") - before);
	return at;
}

static void never_on_swap(enum prim_backing backing, const char *kind, bool mark)
{
	if (!swap_is_on())
		SKIP("this row has no swap disk");
	if (!guest_has(backing))
		SKIP(guest_no_droppable);
	long before = swapped_kib();
	char *at = pushed_out(backing, kind, mark);
	CHECK_EQ(swapped_kib(), before);
	CHECK_EQ(guest_live_pages(at, length), 0);
}

static void ordinary_memory_reaches_the_disk(void)
{
	if (!swap_is_on())
		SKIP("this row has no swap disk");
	pushed_out(PRIM_PLAIN, "ordinary", false);
	CHECK(swapped_kib() > (long)(length / 1024 / 2));
}

static void unmarked_lazyfree_may(void)
{
	if (!swap_is_on())
		SKIP("this row has no swap disk");
	char *at = pushed_out(PRIM_LAZYFREE, "unmarked", false);
	CHECK_EQ(guest_live_pages(at, length), PAGES); /* from there it comes back: written is kept */
}

/* The host looks at the disk later: leave when the last write is on it. */
static void the_last_write_is_done(void)
{
	for (int waits = 0; guest_field("/proc/vmstat", "nr_writeback ") > 0 && waits < MAX_WAITS; waits++)
		usleep(10000);
	CHECK_EQ(guest_field("/proc/vmstat", "nr_writeback "), 0);
}

int main(void)
{
	length = PAGES * prim_page_size();
	guest_stay();
	RUN(ordinary_memory_reaches_the_disk);
	RUN(unmarked_lazyfree_may);
	RUN(never_on_swap, PRIM_LAZYFREE, "marked", true);
	RUN(never_on_swap, PRIM_DROPPABLE, "droppable", false);
	RUN(never_on_swap, PRIM_DROPPABLE, "droppable-marked", true);
	RUN(the_last_write_is_done);
	return check_done();
}
