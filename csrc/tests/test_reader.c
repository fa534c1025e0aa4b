/*
 * test_reader.c - values read from another process's memory, while that process stores, moves, drops and forgets them.
 *
 *   owner (a child)   two threads store and delete, one drops pages on order and clears      cache, board, /proc/self/mem
 *   readers (3 more)  read at random, and compare each byte                                  the passed descriptors alone
 *   all               a table of versions in shared memory: begun, done
 *
 * A value is made from its key and its version. What a reader gets must be whole, and of a version that was the key's at some
 * moment while it read: at least the last one that was done before, at most the last one that was begun after.
 */
#include "client/reader.h"

#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cache/publish.h"
#include "cache/update.h"
#include "cache_client.h"
#include "check.h"
#include "os/prim_self.h"
#include "store/internal.h"

enum {
	LONG_SHARE = 16, READERS = 3,
	READS = CHECK_LESS ? 30000 : 250000, /* of each reader; more with READER_READS in the environment */
};

#include "reader_storm.h"

static void *drop_pages(void *argument)
{
	struct cache_drop drop;
	uint64_t seed = 5;

	(void)argument;
	while (!atomic_load(&shared->stop)) {
		const uint64_t chosen = next(&seed);
		CHECK_EQ(cache_drop(cache, (double)(chosen % 100) / 300, chosen, &drop), DRP_OK);
		atomic_fetch_add(&shared->drops, drop.dropped_pages);
		if (chosen >> 56 == 0)
			CHECK_EQ(cache_clear(cache), DRP_OK);
		else if (chosen >> 56 < 20)
			CHECK_EQ(cache_settle(cache), DRP_OK);
		for (int i = 0; i < 50; i++)
			sched_yield();
	}
	return NULL;
}

struct owner {
	pid_t pid;
	int socket;
};

static void make_cache(struct publication *publication, uint32_t number_mask, uint64_t max_bytes)
{
	const struct cache_config config = {.backing = PRIM_LAZYFREE, .shards = 1, .segment_bytes = 64 * 4096, .max_bytes = max_bytes};

	REQUIRE(cache_create(&config, &cache) == DRP_OK);
	for (unsigned i = 0; i < cache->shard_count; i++)
		cache->shards[i].arena.number_mask = number_mask;
	REQUIRE(cache_publish(cache, publication) == DRP_OK);
}

/* Until the socket says something: the storm, or a cache at rest with all keys in it once. */
static void own(int socket, uint32_t number_mask, uint64_t max_bytes, bool is_storm)
{
	struct publication publication;
	pthread_t threads[WRITERS + 1];
	char word;
	int memory = open("/proc/self/mem", O_RDONLY | O_CLOEXEC);

	REQUIRE(memory >= 0);
	make_cache(&publication, number_mask, max_bytes);
	for (uint64_t number = 0; !is_storm && number < KEYS; number++) {
		REQUIRE(store(number, 1, scratch, 0) == DRP_OK);
		shared->begun[number] = shared->done[number] = 1;
	}
	for (int i = 0; i < READERS; i++)
		send_descriptors(socket, memory, publication.descriptor, publication.bytes);
	if (is_storm) {
		for (uintptr_t i = 0; i < WRITERS; i++)
			REQUIRE(pthread_create(&threads[i], NULL, write_values, (void *)i) == 0);
		REQUIRE(pthread_create(&threads[WRITERS], NULL, drop_pages, NULL) == 0);
	}
	REQUIRE(read(socket, &word, 1) == 1);
	for (int i = 0; is_storm && i <= WRITERS; i++)
		REQUIRE(pthread_join(threads[i], NULL) == 0);
	cache_unref(cache);
	publication_end(&publication);
	close(memory);
	_exit(check_failures());
}

static struct owner start_owner(uint32_t number_mask, uint64_t max_bytes, bool is_storm)
{
	struct owner owner;
	int ends[2];

	memset(shared, 0, sizeof(*shared));
	REQUIRE(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) == 0);
	fflush(stdout);
	owner.pid = fork();
	REQUIRE(owner.pid >= 0);
	if (owner.pid == 0) {
		close(ends[0]);
		own(ends[1], number_mask, max_bytes, is_storm);
	}
	close(ends[1]);
	owner.socket = ends[0];
	return owner;
}

static void stop_owner(const struct owner *owner)
{
	int status = -1;

	REQUIRE(write(owner->socket, "x", 1) == 1);
	REQUIRE(waitpid(owner->pid, &status, 0) == owner->pid);
	CHECK_EQ(status, 0);
	close(owner->socket);
}

static uint64_t reads_of_each(void)
{
	const char *asked = getenv("READER_READS");
	return asked ? strtoull(asked, NULL, 10) : READS;
}

static uint64_t choose_key(uint64_t *seed)
{
	const uint64_t chosen = next(seed);

	return chosen & 3 ? (chosen >> 8) % HOT_KEYS : (chosen >> 8) % KEYS;
}

static void read_values(int socket, uint64_t seed)
{
	static struct copy copies[BATCH_KEYS];
	uint64_t numbers[BATCH_KEYS], hits = 0;
	struct reader reader;

	for (unsigned i = 0; i < BATCH_KEYS; i++)
		copies[i].base.reserve = reserve;
	open_passed(&reader, socket);
	for (uint64_t i = 0, reads = reads_of_each(); i < reads && check_failures() < 5;) {
		for (int one = 0; one < BATCH_KEYS; one++, i++)
			hits += read_one(&reader, &copies[0], choose_key(&seed));
		for (int one = 0; one < BATCH_KEYS; one++, i++)
			numbers[one] = choose_key(&seed);
		hits += read_some(&reader, copies, numbers);
	}
	atomic_fetch_add(&shared->hits, hits);
	reader_close(&reader);
	_exit(check_failures() ? 1 : 0);
}

static void values_are_right_in_a_storm(uint32_t number_mask, uint64_t max_bytes)
{
	struct owner owner = start_owner(number_mask, max_bytes, true);
	pid_t readers[READERS];
	int status;

	for (int i = 0; i < READERS; i++) {
		readers[i] = fork();
		REQUIRE(readers[i] >= 0);
		if (readers[i] == 0)
			read_values(owner.socket, 1000 + (uint64_t)i);
	}
	for (int i = 0; i < READERS; i++) {
		REQUIRE(waitpid(readers[i], &status, 0) == readers[i]);
		CHECK_EQ(status, 0);
	}
	atomic_store(&shared->stop, true);
	stop_owner(&owner);
	printf("# %llu reads, %llu hits, %llu stores, %llu pages dropped\n", (unsigned long long)(READERS * reads_of_each()),
	       (unsigned long long)shared->hits, (unsigned long long)shared->stores, (unsigned long long)shared->drops);
	CHECK(shared->hits > 0 && shared->stores > 0 && shared->drops > 0);
}

/* Where nothing changes, nothing is in doubt: each key is found, whatever its length. */
static void all_is_found_where_nothing_changes(void)
{
	struct owner owner = start_owner((1u << ARENA_NUMBER_BITS) - 1, 0, false);
	static struct copy copy = {.base = {.reserve = reserve}};
	struct reader reader;

	open_passed(&reader, owner.socket);
	for (uint64_t number = 0; number < KEYS; number++)
		if (!CHECK(read_one(&reader, &copy, number)))
			printf("# key %llu of %zu bytes\n", (unsigned long long)number, value_bytes(number, 1));
	CHECK_EQ(reader_get(&reader, "nobody", 6, &copy.base), DRP_MISS);
	reader_close(&reader);
	stop_owner(&owner);
}

/* So are many keys at once, in one read where they lie together. Long values are left to be read alone. */
static void many_are_found_at_once(void)
{
	struct owner owner = start_owner((1u << ARENA_NUMBER_BITS) - 1, 0, false);
	static struct copy copies[BATCH_KEYS];
	uint64_t numbers[BATCH_KEYS];
	struct reader reader;

	for (unsigned i = 0; i < BATCH_KEYS; i++)
		copies[i].base.reserve = reserve;
	open_passed(&reader, owner.socket);
	for (int again = 0; again < 2; again++) /* and once more, by the places that are remembered */
		for (uint64_t first = 0; first + 3 * BATCH_KEYS <= KEYS; first += BATCH_KEYS) {
			unsigned short_ones = 0;
			for (unsigned i = 0; i < BATCH_KEYS; i++) { /* some that lie together, some that do not */
				numbers[i] = i % 2 ? first + i : first + (i * 37) % (3 * BATCH_KEYS);
				short_ones += value_bytes(numbers[i], 1) < 400;
			}
			const unsigned hits = read_some(&reader, copies, numbers);
			CHECK(hits >= short_ones && hits <= BATCH_KEYS);
		}
	reader_close(&reader);
	stop_owner(&owner);
}

static void a_stopped_owner_is_read_and_a_dead_one_is_closed(void)
{
	struct owner owner = start_owner((1u << ARENA_NUMBER_BITS) - 1, 0, false);
	static struct copy copy = {.base = {.reserve = reserve}};
	struct reader reader;
	int status;

	open_passed(&reader, owner.socket);
	REQUIRE(kill(owner.pid, SIGSTOP) == 0);
	REQUIRE(waitpid(owner.pid, &status, WUNTRACED) == owner.pid);
	CHECK(read_one(&reader, &copy, 1));
	REQUIRE(kill(owner.pid, SIGKILL) == 0);
	REQUIRE(waitpid(owner.pid, &status, 0) == owner.pid);
	CHECK_EQ(reader_get(&reader, "key-000001", 10, &copy.base), DRP_CLOSED);
	/* Nothing of it is taken for alive by a later process either: its memory is gone for good. */
	struct owner other = start_owner((1u << ARENA_NUMBER_BITS) - 1, 0, false);
	CHECK_EQ(reader_get(&reader, "key-000001", 10, &copy.base), DRP_CLOSED);
	stop_owner(&other);
	close(owner.socket);
	reader_close(&reader);
}

static int hold_memory(void *argument)
{
	(void)argument;
	while (pause() < 0)
		;
	return 0;
}

/*
 * Who reads a process's memory holds it, so that others can read it after the process has ended; and hold it again. A process that
 * shares the memory does so here for sure.
 */
static void an_owner_whose_memory_stays_is_dead_all_the_same(void)
{
	static struct copy copies[BATCH_KEYS];
	static char stack[64 << 10] __attribute__((aligned(64)));
	uint64_t numbers[BATCH_KEYS] = {1};
	struct reader reader;
	int ends[2], status;
	pid_t holder;

	memset(shared, 0, sizeof(*shared));
	REQUIRE(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) == 0);
	fflush(stdout);
	const pid_t owner = fork();
	REQUIRE(owner >= 0);
	if (owner == 0) {
		holder = clone(hold_memory, stack + sizeof(stack), CLONE_VM, NULL);
		if (holder < 0 || write(ends[1], &holder, sizeof(holder)) != sizeof(holder))
			_exit(1);
		own(ends[1], (1u << ARENA_NUMBER_BITS) - 1, 0, false);
	}
	REQUIRE(read(ends[0], &holder, sizeof(holder)) == sizeof(holder));
	open_passed(&reader, ends[0]);
	copies[0].base.reserve = reserve;
	CHECK(read_one(&reader, &copies[0], 1));
	REQUIRE(kill(owner, SIGKILL) == 0);
	REQUIRE(waitpid(owner, &status, 0) == owner);
	unsigned char word;
	CHECK_EQ(pread(reader.memory, &word, 1, (off_t)(uintptr_t)shared), 1); /* the memory is there still */
	CHECK_EQ(reader_get(&reader, "key-000001", 10, &copies[0].base), DRP_CLOSED);
	CHECK_EQ(reader_get(&reader, "key-000002", 10, &copies[0].base), DRP_CLOSED);
	shared->is_killed = true;
	for (unsigned i = 0; i < BATCH_KEYS; i++) {
		copies[i].base.reserve = reserve;
		numbers[i] = i;
	}
	CHECK_EQ(read_some(&reader, copies, numbers), 0);
	REQUIRE(kill(holder, SIGKILL) == 0);
	close(ends[0]);
	close(ends[1]);
	reader_close(&reader);
}

static void what_expired_is_a_miss(void)
{
	static struct copy copy = {.base = {.reserve = reserve}};
	struct publication publication;
	struct reader reader;
	const struct drp_part part = {"0123456789abcdef", 16};
	const struct cache_item item = {.parts = &part, .part_count = 1, .ttl_ns = UINT64_C(60000000000)};

	make_cache(&publication, (1u << ARENA_NUMBER_BITS) - 1, 0);
	REQUIRE(cache_set(cache, "k", 1, &item, SET_ALWAYS) == DRP_OK);
	REQUIRE(reader_open(&reader, open("/proc/self/mem", O_RDONLY | O_CLOEXEC), dup(publication.descriptor), publication.bytes) == DRP_OK);
	CHECK_EQ(reader_get(&reader, "k", 1, &copy.base), DRP_OK);
	CHECK_EQ(copy.bytes, 16);
	cache_advance_clock(cache, UINT64_C(61000000000));
	publication_advance_clock(&publication, UINT64_C(61000000000));
	CHECK_EQ(reader_get(&reader, "k", 1, &copy.base), DRP_MISS);
	cache_unref(cache);
	CHECK_EQ(reader_get(&reader, "k", 1, &copy.base), DRP_MISS); /* a closed cache is an empty one */
	reader_close(&reader);
	publication_end(&publication);
}

/* Owner and reader are one process here: what the owner does while the reader asks where the value goes. */
enum meanwhile { NOTHING, REPLACED, DELETED, CLEARED, TOUCHED, MOVED_PAGE, RETIRED };

struct interrupted {
	struct copy copy;
	enum meanwhile meanwhile;
	uint64_t number;
	unsigned calls;
};

static void retire_all(void)
{
	struct shard *shard = &cache->shards[0];

	pthread_mutex_lock(&shard->lock);
	for (struct segment *segment; (segment = arena_next(&shard->arena, NULL)) != NULL;)
		shard_retire(cache, shard, segment);
	shard_unlock(shard);
}

static int reserve_meanwhile(struct cache_sink *base, uint8_t kind, size_t meta_bytes, size_t bytes, void **meta, void **value)
{
	struct interrupted *of = (struct interrupted *)base;
	char key[32];

	make_key(key, of->number);
	if (of->calls++ == 0)
		switch (of->meanwhile) {
		case REPLACED:
			CHECK_EQ(store(of->number, 2, scratch, 0), DRP_OK);
			break;
		case DELETED:
			CHECK_EQ(cache_delete(cache, key, strlen(key), 0), DRP_OK);
			break;
		case CLEARED:
			CHECK_EQ(cache_clear(cache), DRP_OK);
			break;
		case TOUCHED:
			CHECK_EQ(cache_touch(cache, key, strlen(key), UINT64_C(1000000000000)), DRP_OK);
			break;
		case MOVED_PAGE: /* pages of the index split, so that the directory leads elsewhere */
			for (uint64_t other = 1; other < KEYS; other += 7) /* short ones */
				CHECK_EQ(store(other, 1, scratch, 0), DRP_OK);
			break;
		case RETIRED:
			retire_all();
			break;
		default:
			break;
		}
	return reserve(base, kind, meta_bytes, bytes, meta, value);
}

static void what_changes_while_it_is_read_is_read_anew(enum meanwhile meanwhile)
{
	static struct interrupted of;
	struct publication publication;
	struct reader reader;
	unsigned answers[3] = {0};

	for (uint64_t number = 0; number < 200; number++) { /* of all lengths */
		make_cache(&publication, (1u << ARENA_NUMBER_BITS) - 1, 0);
		REQUIRE(reader_open(&reader, open("/proc/self/mem", O_RDONLY | O_CLOEXEC), dup(publication.descriptor),
				    publication.bytes) == DRP_OK);
		REQUIRE(store(number, 1, scratch, 0) == DRP_OK);
		of = (struct interrupted){.copy.base.reserve = reserve_meanwhile, .meanwhile = meanwhile, .number = number};
		shared->done[number] = meanwhile == REPLACED ? 2 : 1;
		shared->begun[number] = 2;
		const bool hit = read_one(&reader, &of.copy, number);
		answers[hit ? of.calls : 0]++;
		if (meanwhile == DELETED || meanwhile == CLEARED || meanwhile == RETIRED)
			CHECK(!hit);
		reader_close(&reader);
		cache_unref(cache);
		publication_end(&publication);
	}
	printf("# %u misses, %u at once, %u at the second try\n", answers[0], answers[1], answers[2]);
	CHECK_EQ(answers[1], meanwhile == NOTHING ? 200 : answers[1]);
	CHECK(meanwhile != REPLACED || answers[2] == 200);
	CHECK(meanwhile != TOUCHED || answers[1] == 0);
}

/* A program that becomes a daemon closes what it does not know, and opens files of its own in their places. */
static void a_descriptor_that_was_taken_over_is_not_closed(void)
{
	struct publication publication;
	struct reader reader;

	make_cache(&publication, (1u << ARENA_NUMBER_BITS) - 1, 0);
	REQUIRE(reader_open(&reader, open("/proc/self/mem", O_RDONLY | O_CLOEXEC), dup(publication.descriptor), publication.bytes) == DRP_OK);
	const int own = open("/dev/null", O_RDONLY | O_CLOEXEC), number = reader.memory;
	REQUIRE(own >= 0 && dup2(own, number) == number);
	reader_close(&reader);
	CHECK_EQ(close(number), 0);
	CHECK_EQ(close(own), 0);
	cache_unref(cache);
	publication_end(&publication);
}

/* A child of the owner has the board mapped too: what it does to its caches must not show there. */
static void a_fork_of_the_owner_writes_nothing_on_the_board(void)
{
	static struct copy copy = {.base = {.reserve = reserve}};
	struct publication publication;
	struct reader reader;
	int status;

	make_cache(&publication, (1u << ARENA_NUMBER_BITS) - 1, 0);
	REQUIRE(reader_open(&reader, open("/proc/self/mem", O_RDONLY | O_CLOEXEC), dup(publication.descriptor), publication.bytes) == DRP_OK);
	for (uint64_t number = 0; number < 500; number++) {
		REQUIRE(store(number, 1, scratch, 0) == DRP_OK);
		shared->begun[number] = shared->done[number] = 1;
	}
	fflush(stdout);
	const pid_t child = fork();
	REQUIRE(child >= 0);
	if (child == 0) {
		for (uint64_t number = 0; number < 500; number++)
			CHECK_EQ(store(number, 2, scratch, 0), DRP_OK);
		CHECK_EQ(cache_clear(cache), DRP_OK);
		_exit(check_failures());
	}
	REQUIRE(waitpid(child, &status, 0) == child);
	CHECK_EQ(status, 0);
	for (uint64_t number = 0; number < 500; number++)
		CHECK(read_one(&reader, &copy, number));
	reader_close(&reader);
	cache_unref(cache);
	publication_end(&publication);
}

/* Sealed: who has the descriptor can map it to be read, and nothing else. */
static void the_board_cannot_be_written_by_others(void)
{
	struct publication publication;

	make_cache(&publication, (1u << ARENA_NUMBER_BITS) - 1, 0);
	const int board = publication.descriptor;
	CHECK(mmap(NULL, publication.bytes, PROT_READ | PROT_WRITE, MAP_SHARED, board, 0) == MAP_FAILED);
	void *readable = mmap(NULL, publication.bytes, PROT_READ, MAP_SHARED, board, 0);
	REQUIRE(readable != MAP_FAILED);
	CHECK(mprotect(readable, publication.bytes, PROT_READ | PROT_WRITE) != 0);
	munmap(readable, publication.bytes);
	CHECK(pwrite(board, "x", 1, 0) < 0);
	CHECK(ftruncate(board, 0) != 0);
	CHECK(ftruncate(board, (off_t)publication.bytes * 2) != 0);
	cache_unref(cache);
	publication_end(&publication);
}

static void other_layouts_and_files_are_refused(void)
{
	struct publication publication;
	struct reader reader;
	void *memory;
	int descriptor;

	make_cache(&publication, (1u << ARENA_NUMBER_BITS) - 1, 0);
	CHECK_EQ(reader_open(&reader, -1, publication.descriptor, publication.bytes - 1), DRP_INVALID);
	CHECK_EQ(reader_open(&reader, -1, publication.descriptor, 8), DRP_INVALID);
	publication.board->layout++;
	CHECK_EQ(reader_open(&reader, -1, publication.descriptor, publication.bytes), DRP_UNSUPPORTED);
	publication.board->layout--;
	publication.board->page_bytes *= 2;
	CHECK_EQ(reader_open(&reader, -1, publication.descriptor, publication.bytes), DRP_UNSUPPORTED);
	publication.board->page_bytes /= 2;
	const uint32_t sign_at = publication.board->sign_at;
	for (uint32_t wrong = PRIM_SIGN_BYTES - 3; wrong <= PRIM_SIGN_BYTES; wrong++) {
		publication.board->sign_at = wrong;
		CHECK_EQ(reader_open(&reader, -1, publication.descriptor, publication.bytes), DRP_UNSUPPORTED);
	}
	publication.board->sign_at = sign_at;
	publication.board->shard_count = 64;
	CHECK_EQ(reader_open(&reader, -1, publication.descriptor, publication.bytes), DRP_UNSUPPORTED);
	cache_unref(cache);
	publication_end(&publication);
	REQUIRE(prim_share_open(1 << 20, &descriptor, &memory) == DRP_OK);
	CHECK_EQ(reader_open(&reader, -1, descriptor, 1 << 20), DRP_UNSUPPORTED); /* zeros */
	prim_share_unmap(memory, 1 << 20);
	close(descriptor);
	descriptor = memfd_create("could shrink", MFD_CLOEXEC);
	REQUIRE(descriptor >= 0 && ftruncate(descriptor, 1 << 20) == 0);
	CHECK_EQ(reader_open(&reader, -1, descriptor, 1 << 20), DRP_INVALID);
	close(descriptor);
}

int main(void)
{
	shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	REQUIRE(shared != MAP_FAILED);
	RUN(all_is_found_where_nothing_changes);
	RUN(many_are_found_at_once);
	RUN(what_expired_is_a_miss);
	RUN(what_changes_while_it_is_read_is_read_anew, NOTHING);
	RUN(what_changes_while_it_is_read_is_read_anew, REPLACED);
	RUN(what_changes_while_it_is_read_is_read_anew, DELETED);
	RUN(what_changes_while_it_is_read_is_read_anew, CLEARED);
	RUN(what_changes_while_it_is_read_is_read_anew, TOUCHED);
	RUN(what_changes_while_it_is_read_is_read_anew, MOVED_PAGE);
	RUN(what_changes_while_it_is_read_is_read_anew, RETIRED);
	RUN(a_stopped_owner_is_read_and_a_dead_one_is_closed);
	RUN(a_descriptor_that_was_taken_over_is_not_closed);
	RUN(an_owner_whose_memory_stays_is_dead_all_the_same);
	RUN(a_fork_of_the_owner_writes_nothing_on_the_board);
	RUN(the_board_cannot_be_written_by_others);
	RUN(other_layouts_and_files_are_refused);
	RUN(values_are_right_in_a_storm, (1u << ARENA_NUMBER_BITS) - 1, 0);
	RUN(values_are_right_in_a_storm, 63, 0);
	RUN(values_are_right_in_a_storm, 31, 4 << 20);
	return check_done();
}
