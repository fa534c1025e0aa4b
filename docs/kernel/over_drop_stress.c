/*
 * over_drop_stress.c - does reclaim of droppable and lazily freed memory ever lose what it must not lose?
 *
 *     gcc -O2 over_drop_stress.c -o over_drop_stress && STRESS_SECONDS=600 ./over_drop_stress    as root; cgroup v2
 *
 * Four processes in a group of 64 MB have 48 MB of memory each, in areas of 4 MB, and do one thing after the other to one
 * of them, chosen at random. What a page holds is known: its number and the round in which it was written.
 *
 *   area       memory                  what may be read of a page
 *   0, 1, 2    droppable               what was written, or zeros
 *   3          droppable, huge pages   the same
 *   4, 5       private                 what was written, and zeros only since MADV_FREE
 *   6          private, huge pages     the same
 *   7          private, never freed    what was written (no swap: it stays)
 *
 * The things: write, read, MADV_FREE, MADV_PAGEOUT, MADV_DONTNEED, unmap and map anew, a child that looks and writes, and
 * references that others hold (a page in a pipe, by vmsplice). The kernel's own complaints are on its console.
 */
#define _GNU_SOURCE
#include <err.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define GROUP "/sys/fs/cgroup/over_drop_stress"
#define AREA_BYTES ((size_t)4 << 20)
enum { DROPPABLE = 0x08, PAGE = 4096, AREAS = 8, FIRST_PRIVATE = 4, KEPT_AREA = 7, PROCESSES = 4, KEPT_PAGES = 256 };
enum { PAGES = AREA_BYTES / PAGE };

static struct area { uint64_t *at; int is_droppable; uint32_t round[PAGES]; char may_be_zero[PAGES]; } areas[AREAS];
static uint64_t random_state, reads, zeros, things;
static uint32_t rounds;

static uint64_t draw(uint64_t below)
{
	random_state ^= random_state << 13, random_state ^= random_state >> 7, random_state ^= random_state << 17;
	return random_state % below;
}

static uint64_t *page_of(struct area *area, size_t page)
{
	return area->at + page * (PAGE / sizeof(uint64_t));
}

static uint64_t content(size_t page, uint32_t round)
{
	return (uint64_t)round << 32 | (page + 1);
}

static void map(int number)
{
	struct area *area = &areas[number];
	if (area->at && munmap(area->at, AREA_BYTES) != 0)
		err(1, "munmap");
	area->is_droppable = number < FIRST_PRIVATE;
	int type = area->is_droppable ? DROPPABLE : MAP_PRIVATE;
	char *at = mmap(NULL, 2 * AREA_BYTES, PROT_READ | PROT_WRITE, type | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (at == MAP_FAILED)
		errx(77, "this kernel has no MAP_DROPPABLE");
	size_t before = -(size_t)at & (AREA_BYTES - 1); /* huge pages want to be aligned */
	if ((before && munmap(at, before) != 0) || munmap(at + before + AREA_BYTES, AREA_BYTES - before) != 0)
		err(1, "munmap");
	area->at = (uint64_t *)(void *)(at + before);
	if ((number == 3 || number == 6) && madvise(area->at, AREA_BYTES, MADV_HUGEPAGE) != 0 && number == 3 && rounds == 0)
		printf("no huge pages\n");
	memset(area->round, 0, sizeof(area->round));
}

static void look(struct area *area, size_t page)
{
	volatile uint64_t *words = page_of(area, page);
	uint64_t first = words[0], last = words[PAGE / 8 - 1], wanted = content(page, area->round[page]);
	int may_be_zero = area->round[page] == 0 || area->is_droppable || area->may_be_zero[page];
	reads++;
	zeros += first == 0;
	if ((first != wanted && !(first == 0 && may_be_zero)) || (last != wanted && !(last == 0 && may_be_zero)))
		errx(1, "area %td page %zu: %#lx and %#lx, but %#lx was written", area - areas, page, (long)first, (long)last, (long)wanted);
}

static void write_page(struct area *area, size_t page)
{
	uint64_t *words = page_of(area, page);
	area->round[page] = ++rounds;
	area->may_be_zero[page] = 0;
	for (size_t i = 0; i < PAGE / 8; i++)
		words[i] = content(page, rounds);
}

static void advise(struct area *area, size_t page, size_t pages, int advice)
{
	if (madvise(page_of(area, page), pages * PAGE, advice) != 0)
		err(1, "madvise %d", advice);
	for (size_t i = page; i < page + pages && advice == MADV_FREE; i++)
		area->may_be_zero[i] = 1;
	if (advice == MADV_DONTNEED)
		memset(area->round + page, 0, pages * sizeof(*area->round));
}

/* A page that a pipe refers to does not change there, whatever becomes of the mapping. Writing would, so nothing writes. */
static void hold(struct area *area, size_t page)
{
	uint64_t seen[PAGE / 8];
	int ends[2];
	struct iovec part = {page_of(area, page), PAGE};
	write_page(area, page);
	uint64_t wanted = content(page, area->round[page]);
	if (pipe(ends) != 0 || vmsplice(ends[1], &part, 1, 0) != PAGE)
		err(1, "vmsplice");
	advise(area, 0, PAGES, MADV_PAGEOUT);
	if (read(ends[0], seen, PAGE) != PAGE || close(ends[0]) != 0 || close(ends[1]) != 0)
		err(1, "pipe");
	/* The pipe took the page that was there then: a droppable one may have been dropped before it did. */
	if (seen[0] != wanted && !(area->is_droppable && seen[0] == 0))
		errx(1, "a page that was held has %#lx, but %#lx was written", (long)seen[0], (long)wanted);
	look(area, page);
}

/* A child has zeros in droppable memory, and what was written elsewhere; what it writes is its own. */
static void child(void)
{
	const uint32_t inherited = rounds; /* what was written in a later round is the child's own */
	int status;
	pid_t pid = fork();
	if (pid < 0)
		err(1, "fork");
	if (pid == 0) {
		for (int i = 0; i < AREAS; i++)
			for (int n = 0; n < 64; n++) {
				size_t page = draw(i == KEPT_AREA ? KEPT_PAGES : PAGES);
				if (areas[i].is_droppable && areas[i].round[page] <= inherited &&
				    *(volatile uint64_t *)page_of(&areas[i], page) != 0)
					errx(1, "droppable memory was inherited");
				look(&areas[i], page);
				write_page(&areas[i], page);
			}
		_exit(0);
	}
	if (waitpid(pid, &status, 0) != pid || status != 0)
		errx(1, "child: status %d", status);
}

static void work(uint64_t seed, time_t until)
{
	random_state = seed * 0x9e3779b97f4a7c15 + 1;
	for (int i = 0; i < AREAS; i++)
		map(i);
	for (; time(NULL) < until; things++) {
		int number = (int)draw(AREAS);
		struct area *area = &areas[number];
		size_t page = draw(PAGES - 64), pages = 1 + draw(64);
		if (number == KEPT_AREA)
			page %= KEPT_PAGES - 64;
		switch (draw(number == KEPT_AREA ? 6 : 16)) {
		case 0: case 1: case 2: case 9: case 10: case 11: case 12:
			for (size_t i = page; i < page + pages; i++)
				write_page(area, i);
			break;
		case 3: advise(area, page, pages, MADV_PAGEOUT); break;
		case 4: case 5: case 13:
			for (size_t i = page; i < page + pages; i++)
				look(area, i);
			break;
		case 6: case 14: advise(area, page, pages, MADV_FREE); break;
		case 7: advise(area, page, pages, MADV_DONTNEED); break;
		case 8: hold(area, page); break;
		default:
			if (draw(16) == 0)
				child();
			else if (draw(16) == 0)
				map(number);
		}
	}
	printf("process %lu: %lu things, %lu pages read, of which %lu were zeros\n", (long)seed, (long)things, (long)reads, (long)zeros);
	exit(0);
}

static void put(const char *path, const char *text)
{
	FILE *out = fopen(path, "w");
	if (!out || fputs(text, out) < 0 || fclose(out) != 0)
		err(1, "%s", path);
}

int main(void)
{
	const char *seconds = getenv("STRESS_SECONDS");
	struct utsname kernel;
	int status, failed = 0;
	uname(&kernel);
	printf("Linux %s: stress of %s seconds\n", kernel.release, seconds ? seconds : "10");
	if (mkdir(GROUP, 0755) != 0)
		err(1, GROUP);
	put(GROUP "/memory.max", "67108864");
	put(GROUP "/cgroup.procs", "0");
	fflush(stdout);
	for (int i = 1; i <= PROCESSES; i++)
		if (fork() == 0)
			work((uint64_t)i, time(NULL) + (seconds ? atoi(seconds) : 10));
	while (wait(&status) > 0)
		failed |= status;
	printf("%s\n\n", failed ? "failed" : "nothing was lost");
	return failed != 0;
}
