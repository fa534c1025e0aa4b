/*
 * swap.c - writes patterns that the host looks for on the swap disk after the machine is off (search_swap.sh), and
 * checks inside what can be seen from here. Runs only where the row has a swap disk.
 *
 *     ordinary   ordinary memory: must be found, or the search proves nothing
 *     unmarked   lazyfree, written and not marked: the kernel may swap it (the cache marks what it writes)
 *     marked     lazyfree, written and marked: never
 *     droppable  MAP_DROPPABLE, dirty: never;  droppable-marked: never
 *
 * A pattern is put together inside the mapping itself, letter by letter: this program's text, stack and heap could
 * reach the swap disk too (an initramfs is swappable), and must not hold it.
 */
#include "guest.h"

enum { PAGES = 4096, MAX_WAITS = 1000 };

/* What search_swap.sh looks for: "drp<" name ">" and a number, each letter one higher here. */
static const char opening[] = "esq=";

static void put_pattern(char *page, const char *kind, size_t number)
{
	volatile char *at = page;

	for (const char *letter = opening; *letter; letter++)
		*at++ = (char)(*letter - 1);
	for (const char *letter = kind; *letter; letter++)
		*at++ = *letter;
	*at++ = '>';
	for (size_t digit = 10000; digit > 0; digit /= 10)
		*at++ = (char)('0' + number / digit % 10);
}

static char *patterned(enum prim_backing backing, const char *kind, bool mark, size_t length)
{
	void *address;

	CHECK(prim_map(backing, length, 0, &address) == DRP_OK, "map %s", kind);
	for (size_t page = 0; page < PAGES; page++)
		put_pattern((char *)address + page * prim_page_size(), kind, page);
	if (mark)
		CHECK(prim_mark(address, length) == DRP_OK, "mark %s", kind);
	return address;
}

/* MADV_PAGEOUT skips what is referenced just then, so more than once. */
static void push_out(const char *kind, char *address, size_t length)
{
	long swapped = guest_field("/proc/vmstat", "pswpout ");
	for (int round = 0; round < 4; round++)
		CHECK(prim_page_out(address, length) == DRP_OK, "page out %s", kind);
	printf("%s: %ld pages were written to swap\n", kind, guest_field("/proc/vmstat", "pswpout ") - swapped);
}

int main(void)
{
	const size_t length = PAGES * prim_page_size();
	char line[256];
	FILE *swaps = fopen("/proc/swaps", "re");

	CHECK(swaps, "open /proc/swaps");
	if (!fgets(line, sizeof(line), swaps) || !fgets(line, sizeof(line), swaps))
		SKIP("no swap disk in this row");
	fclose(swaps);

	char *ordinary = patterned(PRIM_PLAIN, "ordinary", false, length);
	push_out("ordinary", ordinary, length);
	long swapped = guest_field("/proc/self/status", "VmSwap:");
	CHECK(swapped > (long)(length / 1024 / 2), "ordinary memory must reach the disk: %ld KiB did", swapped);

	char *unmarked = patterned(PRIM_LAZYFREE, "unmarked", false, length);
	push_out("unmarked", unmarked, length);
	swapped = guest_field("/proc/self/status", "VmSwap:");

	char *marked = patterned(PRIM_LAZYFREE, "marked", true, length);
	push_out("marked", marked, length);
	CHECK(guest_field("/proc/self/status", "VmSwap:") == swapped, "marked lazyfree memory was swapped");
	CHECK(guest_live_pages(marked, length) == 0, "marked lazyfree memory was not dropped");

	if (guest_has(&guest_backings[1])) {
		char *dirty = patterned(PRIM_DROPPABLE, "droppable", false, length);
		push_out("droppable", dirty, length);
		char *clean = patterned(PRIM_DROPPABLE, "droppable-marked", true, length);
		push_out("droppable-marked", clean, length);
		CHECK(guest_field("/proc/self/status", "VmSwap:") == swapped, "droppable memory was swapped");
		CHECK(guest_live_pages(dirty, length) + guest_live_pages(clean, length) == 0, "it was not dropped");
	}

	/* Until the last write is on the disk. */
	int waits = 0;
	while (guest_field("/proc/vmstat", "nr_writeback ") > 0 && waits++ < MAX_WAITS)
		usleep(10000);
	CHECK(guest_field("/proc/vmstat", "nr_writeback ") == 0, "writes to the swap disk did not end");
	return 0;
}
