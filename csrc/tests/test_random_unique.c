/*
 * test_random_unique.c - draws 16-byte blocks while everything happens at once, and looks for one that came twice.
 *
 *   test_random_unique [blocks]      default 1,000,000: a second or two. The full run is 100000000: 1.6 GB, minutes.
 *
 * At the same time, until all blocks are drawn, into one array that all processes share:
 *
 *   64 lanes    each a thread that draws some hundred blocks and ends, and then the next one: states change hands
 *   storm       signals to the whole process as fast as it can; the handler draws a block, in the middle of whatever
 *               draw it interrupts; now and then the handler forks, and its child draws some
 *   2 forkers   fork again and again while the others draw; the child draws some, and so does a thread of the child
 *   pager       has the kernel drop every page of states, over and over
 *
 * One draw is one block of 16 bytes, or a longer request cut into blocks: both the vDSO's batches and its bulk way, and
 * whatever falls back to the system call. Then the array is sorted. Among 10^8 blocks of 128 random bits two are equal
 * with a chance of 10^-23. A block of zeros would be a dropped page handed out.
 */
#include "random/random.c"

#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"

enum {
	DEFAULT_BLOCKS = 1000000,
	LANES = 64,
	LANE_NICE = 10,
	FORKERS = 2,
	BATCH = 16,             /* blocks claimed at once */
	BATCHES_OF_A_LIFE = 64, /* then the thread ends */
	BATCHES_OF_A_CHILD = 4,
	SIGNALS_A_FORK = 256,
};

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
enum { SANITIZED = 1 }; /* their locks may be taken for ever in the child of a threaded process: no threads there */
#else
enum { SANITIZED = 0 };
#endif

struct block {
	uint64_t high, low;
};

static struct {
	_Atomic size_t claimed, by_signal, by_child, forks, page_outs, drops, lives;
	_Atomic bool done;
} *shared;
static struct block *blocks;
static size_t block_count;

/* Claims and draws up to BATCH blocks; how: one by one, or in one request. false: all are drawn. */
static bool draw_batch(bool at_once)
{
	size_t first = atomic_fetch_add(&shared->claimed, BATCH), count = BATCH;

	if (first >= block_count)
		return false;
	if (first + count > block_count)
		count = block_count - first;
	if (at_once) {
		CHECK_EQ(random_fill(&blocks[first], count * sizeof(*blocks)), DRP_OK);
	} else {
		for (size_t i = 0; i < count; i++)
			CHECK_EQ(random_fill(&blocks[first + i], sizeof(*blocks)), DRP_OK);
	}
	return true;
}

/* One request of 4 KiB: beyond SHORT_BYTES, so the bulk way. */
static bool draw_long(void)
{
	enum { LONG = 256 };
	size_t first = atomic_fetch_add(&shared->claimed, LONG), count = LONG;

	if (first >= block_count)
		return false;
	if (first + count > block_count)
		count = block_count - first;
	CHECK_EQ(random_fill(&blocks[first], count * sizeof(*blocks)), DRP_OK);
	return true;
}

static void *child_thread(void *unused)
{
	for (int i = 0; i < BATCHES_OF_A_CHILD && draw_batch(false); i++)
		atomic_fetch_add(&shared->by_child, BATCH);
	return unused;
}

static _Noreturn void be_child(bool with_thread)
{
	child_thread(NULL);
	pthread_t thread;
	if (with_thread && !SANITIZED && pthread_create(&thread, NULL, child_thread, NULL) == 0)
		pthread_join(thread, NULL);
	child_thread(NULL);
	_exit(check_failures() != 0);
}

static void handle_signal(int number)
{
	size_t index = atomic_fetch_add(&shared->claimed, 1);
	int saved_errno = errno;

	(void)number;
	if (index < block_count) {
		CHECK_EQ(random_fill(&blocks[index], sizeof(*blocks)), DRP_OK);
		if (atomic_fetch_add(&shared->by_signal, 1) % SIGNALS_A_FORK == 0) {
			int status = 0;
			pid_t pid = fork();
			if (pid == 0)
				be_child(false);
			while (pid > 0 && waitpid(pid, &status, 0) < 0 && errno == EINTR)
				;
			CHECK_EQ(status, 0);
			atomic_fetch_add(&shared->forks, pid > 0);
		}
	}
	errno = saved_errno;
}

static void *live(void *unused)
{
	sigset_t storm;

	sigemptyset(&storm);
	sigaddset(&storm, SIGUSR1);
	pthread_sigmask(SIG_UNBLOCK, &storm, NULL);
	for (int i = 0; i < BATCHES_OF_A_LIFE; i++)
		if (!(i % 32 == 31 ? draw_long() : draw_batch(i % 8 == 7)))
			break;
	pthread_sigmask(SIG_BLOCK, &storm, NULL);
	atomic_fetch_add(&shared->lives, 1);
	return unused;
}

static void *run_lane(void *unused)
{
	pthread_t thread;

	/* The many stand back a little, or the few that disturb them would hardly run. Harmless where refused. */
	(void)setpriority(PRIO_PROCESS, (id_t)gettid(), LANE_NICE);
	while (atomic_load(&shared->claimed) < block_count) {
		REQUIRE(pthread_create(&thread, NULL, live, NULL) == 0);
		pthread_join(thread, NULL);
	}
	return unused;
}

static void *run_forker(void *unused)
{
	int status;

	while (atomic_load(&shared->claimed) < block_count) {
		pid_t pid = fork();
		REQUIRE(pid >= 0);
		if (pid == 0)
			be_child(true);
		REQUIRE(waitpid(pid, &status, 0) == pid);
		CHECK_EQ(status, 0);
		atomic_fetch_add(&shared->forks, 1);
	}
	return unused;
}

static void *run_storm(void *unused)
{
	while (!atomic_load(&shared->done)) {
		CHECK_EQ(kill(getpid(), SIGUSR1), 0);
		sched_yield();
	}
	return unused;
}

static void *run_pager(void *unused)
{
	const size_t page = prim_page_size();
	struct prim_census census;

	while (!atomic_load(&shared->done)) {
		for (struct slot_page *at = atomic_load_explicit(&pool.pages, memory_order_acquire); at; at = at->next) {
			int status = prim_page_out(at->slots[0].state, page);
			CHECK(status == DRP_OK || status == DRP_UNSUPPORTED);
			atomic_fetch_add(&shared->page_outs, 1);
			if (prim_census(at->slots[0].state, page, NULL, &census) == DRP_OK && census.resident_pages == 0)
				atomic_fetch_add(&shared->drops, 1);
		}
		sched_yield();
	}
	return unused;
}

/* ---- the search */

static int compare_blocks(const void *a, const void *b)
{
	const struct block *x = a, *y = b;
	if (x->high != y->high)
		return x->high < y->high ? -1 : 1;
	return x->low < y->low ? -1 : x->low > y->low;
}

enum { BUCKET_BITS = 12, BUCKETS = 1 << BUCKET_BITS };

static unsigned bucket_of(const struct block *block)
{
	return (unsigned)(block->high >> (64 - BUCKET_BITS));
}

/* Sorts in place: into buckets by the first bits, by cycles of exchanges, then each bucket. Random blocks spread well. */
static void sort_blocks(struct block *at, size_t count)
{
	static size_t next[BUCKETS], end[BUCKETS];
	size_t start = 0;

	memset(end, 0, sizeof(end));
	for (size_t i = 0; i < count; i++)
		end[bucket_of(&at[i])]++;
	for (unsigned i = 0; i < BUCKETS; i++) {
		next[i] = start;
		start += end[i];
		end[i] = start;
	}
	for (unsigned i = 0; i < BUCKETS; i++)
		while (next[i] < end[i]) {
			unsigned home = bucket_of(&at[next[i]]);
			if (home == i) {
				next[i]++;
				continue;
			}
			struct block moved = at[next[home]];
			at[next[home]++] = at[next[i]];
			at[next[i]] = moved;
		}
	start = 0;
	for (unsigned i = 0; i < BUCKETS; i++) {
		qsort(at + start, end[i] - start, sizeof(*at), compare_blocks);
		start = end[i];
	}
}

static size_t count_repeats(struct block *at, size_t count)
{
	size_t repeats = 0;

	sort_blocks(at, count);
	for (size_t i = 1; i < count; i++)
		repeats += compare_blocks(&at[i - 1], &at[i]) == 0;
	return repeats;
}

static size_t count_zeros(const struct block *at, size_t count)
{
	size_t zeros = 0;
	for (size_t i = 0; i < count; i++)
		zeros += at[i].high == 0 && at[i].low == 0;
	return zeros;
}

/* ---- the cases */

static void no_block_comes_twice(void)
{
	pthread_t lanes[LANES], forkers[FORKERS], storm, pager;
	struct sigaction action = {.sa_handler = handle_signal, .sa_flags = SA_RESTART};
	sigset_t blocked;

	/* The very first draw registers a fork handler; a handler's fork in the middle of that would wait for itself. */
	CHECK_EQ(random_fill(&(struct block){0}, sizeof(struct block)), DRP_OK);
	REQUIRE(sigaction(SIGUSR1, &action, NULL) == 0);
	sigemptyset(&blocked);
	sigaddset(&blocked, SIGUSR1);
	pthread_sigmask(SIG_BLOCK, &blocked, NULL); /* inherited: only the lanes' lives take the signals */
	REQUIRE(pthread_create(&storm, NULL, run_storm, NULL) == 0);
	REQUIRE(pthread_create(&pager, NULL, run_pager, NULL) == 0);
	for (int i = 0; i < LANES; i++)
		REQUIRE(pthread_create(&lanes[i], NULL, run_lane, NULL) == 0);
	for (int i = 0; i < FORKERS; i++)
		REQUIRE(pthread_create(&forkers[i], NULL, run_forker, NULL) == 0);
	for (int i = 0; i < LANES; i++)
		pthread_join(lanes[i], NULL);
	for (int i = 0; i < FORKERS; i++)
		pthread_join(forkers[i], NULL);
	atomic_store(&shared->done, true);
	pthread_join(storm, NULL);
	pthread_join(pager, NULL);
	printf("# %zu blocks; %zu thread lives, %zu forks, %zu blocks by children, %zu by the signal handler, %zu page-outs "
	       "of which %zu found the page gone, %u states\n", block_count, atomic_load(&shared->lives),
	       atomic_load(&shared->forks), atomic_load(&shared->by_child), atomic_load(&shared->by_signal),
	       atomic_load(&shared->page_outs), atomic_load(&shared->drops), atomic_load(&pool.state_count));
	CHECK(atomic_load(&shared->claimed) >= block_count);
	CHECK(atomic_load(&shared->lives) >= LANES);
	CHECK(atomic_load(&shared->forks) > 0);
	CHECK(atomic_load(&pool.state_count) <= 4 * LANES); /* states come back: threads at one time, not threads ever */
	CHECK_EQ(count_zeros(blocks, block_count), 0);
	CHECK_EQ(count_repeats(blocks, block_count), 0);
}

/* The search finds what it should. After the sort: two neighbours made equal, and one block made zero. */
static void the_search_can_tell(void)
{
	blocks[block_count / 2] = blocks[block_count / 3];
	blocks[block_count / 4] = (struct block){0, 0};
	CHECK_EQ(count_zeros(blocks, block_count), 1);
	CHECK_EQ(count_repeats(blocks, block_count), 1);
}

int main(int argc, char **argv)
{
	void *memory;

	block_count = argc > 1 ? strtoull(argv[1], NULL, 10) : DEFAULT_BLOCKS;
	REQUIRE(block_count >= 100);
	memory = mmap(NULL, block_count * sizeof(*blocks), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	REQUIRE(memory != MAP_FAILED);
	blocks = memory;
	memory = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	REQUIRE(memory != MAP_FAILED);
	shared = memory;
	RUN(no_block_comes_twice);
	RUN(the_search_can_tell);
	return check_done();
}
