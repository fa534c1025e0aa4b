/*
 * bench_reader.c - reads of another process's memory by the hundred million, while their owner stores, moves and drops, is stopped
 * and killed: is any byte ever wrong?
 *
 *   supervisor --starts, stops, kills--> owner: 2 threads store, touch and delete; one drops pages, clears, settles
 *        '--the new owner's descriptors--> 4 readers: by one key and by many; each byte of each hit is compared
 *
 * The table of versions outlives the owners (reader_storm.h). A new owner begins with nothing, so that what its readers find was
 * stored since. Each has another number space for its segments, of 24, 6 or 5 bits, the last one with 4 MB at most.
 *
 * bench_reader READS KILLS [FILE]: prints "reads hits stores dropped_pages kills stops wrong seconds". FILE: cgroup.procs of the
 * group that the owner goes into, so that its memory is squeezed. SIGTERM ends it before. Run by benchmarks/connect_storm.py.
 */
#include "client/reader.h"

#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>

#include "cache/publish.h"
#include "store/internal.h"

enum {
	LONG_SHARE = 256, READERS = 4,
	READS_A_STORE = 8, READS_A_DROP = 20000,
	STOPPED_SECONDS = 2,
};

#include "reader_storm.h"

static _Atomic uint64_t *wrong;
static volatile sig_atomic_t is_told_to_end; /* by SIGTERM: the figures come then, of what was done */
static uint64_t reads_wanted;

static void *drop_pages(void *argument)
{
	struct cache_drop drop;
	uint64_t seed = (uintptr_t)argument, next_at = atomic_load(&shared->reads);

	for (;;) {
		if (atomic_load(&shared->reads) < next_at) {
			usleep(2000);
			continue;
		}
		next_at += READS_A_DROP;
		const uint64_t chosen = next(&seed);
		if (cache_drop(cache, (double)(chosen % 100) / 300, chosen, &drop) == DRP_OK)
			atomic_fetch_add(&shared->drops, drop.dropped_pages);
		if (chosen >> 56 == 0)
			CHECK_EQ(cache_clear(cache), DRP_OK);
		else if (chosen >> 56 < 20)
			CHECK_EQ(cache_settle(cache), DRP_OK);
		if (check_failures())
			atomic_fetch_add(wrong, 1);
	}
	return NULL;
}

static void enter_group(const char *file)
{
	const int group = open(file, O_WRONLY | O_CLOEXEC);

	REQUIRE(group >= 0 && write(group, "0", 1) == 1);
	close(group);
}

static _Noreturn void own(int socket, uint64_t generation, const char *group)
{
	static const uint32_t masks[] = {(1u << ARENA_NUMBER_BITS) - 1, 63, 31};
	const struct cache_config config = {.backing = PRIM_LAZYFREE, .shards = 1, .segment_bytes = 64 * 4096,
					    .max_bytes = generation % 3 == 2 ? 4 << 20 : 0};
	struct publication publication;
	pthread_t thread;

	if (group)
		enter_group(group);
	const int memory = open("/proc/self/mem", O_RDONLY | O_CLOEXEC);
	REQUIRE(memory >= 0 && cache_create(&config, &cache) == DRP_OK);
	cache->shards[0].arena.number_mask = masks[generation % 3];
	REQUIRE(cache_publish(cache, &publication) == DRP_OK);
	for (uint64_t number = 0; number < KEYS; number++) {
		const uint64_t version = atomic_fetch_add(&shared->begun[number], 1) + 1;
		const int status = store(number, version, scratch, 0);
		REQUIRE(status == DRP_OK || status == DRP_REFUSED);
		atomic_store(&shared->done[number], version);
	}
	for (int i = 0; i < READERS; i++)
		send_descriptors(socket, memory, publication.descriptor, publication.bytes);
	for (uintptr_t i = 0; i < WRITERS; i++)
		REQUIRE(pthread_create(&thread, NULL, write_values, (void *)i) == 0);
	REQUIRE(pthread_create(&thread, NULL, drop_pages, (void *)(uintptr_t)(generation + 1)) == 0);
	for (;;)
		pause();
}

/* A reader has a socket of its own: each datagram there is an owner's two descriptors. */
static _Noreturn void read_all(int socket, uint64_t seed)
{
	static struct copy copies[BATCH_KEYS];
	uint64_t numbers[BATCH_KEYS];
	struct reader reader;

	for (unsigned i = 0; i < BATCH_KEYS; i++)
		copies[i].base.reserve = reserve;
	open_passed(&reader, socket);
	while (!atomic_load(&shared->stop)) {
		uint64_t hits = 0;
		char key[32];
		make_key(key, 1);
		if (reader_get(&reader, key, strlen(key), &copies[0].base) == DRP_CLOSED) {
			reader_close(&reader);
			open_passed(&reader, socket);
		}
		for (int i = 0; i < 8 * BATCH_KEYS; i++) {
			const uint64_t chosen = next(&seed);
			numbers[i % BATCH_KEYS] = chosen & 3 ? (chosen >> 8) % HOT_KEYS : (chosen >> 8) % KEYS;
			if (i / BATCH_KEYS % 2 == 0)
				hits += read_one(&reader, &copies[0], numbers[i % BATCH_KEYS]);
			else if (i % BATCH_KEYS == BATCH_KEYS - 1)
				hits += read_some(&reader, copies, numbers);
		}
		atomic_fetch_add(&shared->hits, hits);
		atomic_fetch_add(&shared->reads, 8 * BATCH_KEYS);
		if (check_failures()) {
			atomic_fetch_add(wrong, 1);
			_exit(1);
		}
	}
	_exit(0);
}

static pid_t start_owner(const int *readers, uint64_t generation, const char *group)
{
	int ends[2];
	pid_t owner;

	REQUIRE(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) == 0);
	owner = fork();
	REQUIRE(owner >= 0);
	if (owner == 0)
		own(ends[1], generation, group);
	for (int i = 0; i < READERS; i++) {
		int both[2];
		const size_t bytes = receive_descriptors(ends[0], both);
		send_descriptors(readers[i], both[0], both[1], bytes);
		close(both[0]);
		close(both[1]);
	}
	close(ends[0]);
	close(ends[1]);
	return owner;
}

static void note_end(int signal)
{
	(void)signal;
	is_told_to_end = 1;
}

/* Until so many reads were made. False: one was wrong, or it is to end. */
static bool wait_for(uint64_t reads, pid_t owner)
{
	while (atomic_load(&shared->reads) < reads && atomic_load(wrong) == 0 && !is_told_to_end) {
		REQUIRE(waitpid(owner, NULL, WNOHANG) == 0); /* nobody else ends it */
		usleep(10000);
	}
	return atomic_load(wrong) == 0 && !is_told_to_end;
}

int main(int count, char **arguments)
{
	int sockets[READERS], stops = 0, status;
	pid_t readers[READERS], owner;
	struct timespec begin, end;
	uint64_t kills = 0;

	if (count < 3) {
		fprintf(stderr, "usage: bench_reader READS KILLS [cgroup.procs]\n");
		return 2;
	}
	reads_wanted = strtoull(arguments[1], NULL, 10);
	const uint64_t kills_wanted = strtoull(arguments[2], NULL, 10), steps = 2 * kills_wanted + 1;
	shared = mmap(NULL, sizeof(*shared) + sizeof(*wrong), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	REQUIRE(shared != MAP_FAILED);
	wrong = (_Atomic uint64_t *)(void *)(shared + 1);
	shared->reads_a_store = READS_A_STORE;
	shared->is_killed = true;
	REQUIRE(sigaction(SIGTERM, &(struct sigaction){.sa_handler = note_end}, NULL) == 0);
	clock_gettime(CLOCK_MONOTONIC, &begin);
	for (int i = 0; i < READERS; i++) {
		int ends[2];
		REQUIRE(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) == 0);
		readers[i] = fork();
		REQUIRE(readers[i] >= 0);
		if (readers[i] == 0)
			read_all(ends[1], 1000 + (uint64_t)i);
		close(ends[1]);
		sockets[i] = ends[0];
	}
	owner = start_owner(sockets, 0, count > 3 ? arguments[3] : NULL);
	for (uint64_t step = 1; step < steps && wait_for(reads_wanted / steps * step, owner); step++) {
		if (step % 2 != 0) {
			REQUIRE(kill(owner, SIGSTOP) == 0);
			sleep(STOPPED_SECONDS);
			REQUIRE(kill(owner, SIGCONT) == 0);
			stops++;
			continue;
		}
		REQUIRE(kill(owner, SIGKILL) == 0);
		REQUIRE(waitpid(owner, &status, 0) == owner && WIFSIGNALED(status));
		fprintf(stderr, "%" PRIu64 " reads, %" PRIu64 " kills\n", shared->reads, ++kills);
		owner = start_owner(sockets, kills, count > 3 ? arguments[3] : NULL);
	}
	wait_for(reads_wanted, owner);
	atomic_store(&shared->stop, true);
	for (int i = 0; i < READERS; i++) {
		REQUIRE(waitpid(readers[i], &status, 0) == readers[i]);
		if (status != 0)
			printf("# a reader ended with %d\n", status);
	}
	REQUIRE(kill(owner, SIGKILL) == 0);
	REQUIRE(waitpid(owner, &status, 0) == owner);
	clock_gettime(CLOCK_MONOTONIC, &end);
	printf("%" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRIu64 " %d %" PRIu64 " %lld\n", shared->reads, shared->hits, shared->stores,
	       shared->drops, kills, stops, *wrong, (long long)(end.tv_sec - begin.tv_sec));
	return *wrong != 0;
}
