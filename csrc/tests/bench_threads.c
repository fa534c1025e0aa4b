/*
 * bench_threads.c - gets and sets a second on the C core, by 1 thread and by more: do shards let threads go on side by side?
 *
 *   main --+-- thread 0: draws keys, gets or sets, counts      all until the same moment; each has generator, value and
 *          +-- thread 1: ...                                    counters on cache lines of its own
 *
 * bench_threads KEYS VALUE_BYTES SETS_IN_1000 THREADS MILLISECONDS ROUNDS: prints one line a round, "calls hits seconds
 * rate": what all threads together did, and the sum of their calls a second of time in which they were not kept waiting
 * for a processor that other programs had (run_delay in schedstat; waits for a lock are in it). The first line is of a
 * short round that warms up. Run by benchmarks/cache_threads.py, which interleaves the numbers of threads.
 */
#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "cache/cache.h"

enum { THREADS_MAX = 64, LINE_BYTES = 128, VALUE_BYTES_MAX = 1 << 20, BATCH = 64 };

struct worker {
	struct cache_sink sink;
	struct cache *cache;
	unsigned char *value; /* what is stored and what is read goes here */
	uint64_t keys, state, calls, hits, deadline_ns, own_ns;
	size_t value_bytes;
	unsigned sets_in_1000;
	pthread_barrier_t *start;
} __attribute__((aligned(LINE_BYTES)));

static uint64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * UINT64_C(1000000000) + (uint64_t)now.tv_nsec;
}

/* Time that this thread was ready and had no processor; 0 where the kernel does not count it. */
static uint64_t run_delay_ns(void)
{
	uint64_t ran = 0, waited = 0;
	FILE *file = fopen("/proc/thread-self/schedstat", "r");

	if (file) {
		if (fscanf(file, "%" SCNu64 " %" SCNu64, &ran, &waited) != 2)
			waited = 0;
		fclose(file);
	}
	return waited;
}

static int take(struct cache_sink *sink, uint8_t kind, size_t meta_bytes, size_t value_bytes, void **meta, void **value)
{
	struct worker *worker = (struct worker *)sink;

	(void)kind;
	(void)meta_bytes;
	if (value_bytes > worker->value_bytes)
		return -1;
	*meta = NULL;
	*value = worker->value;
	return 0;
}

static int put(struct worker *worker, uint64_t key)
{
	const struct drp_part part = {worker->value, worker->value_bytes};
	const struct cache_item item = {.parts = &part, .part_count = 1};

	memcpy(worker->value, &key, sizeof(key));
	return cache_set(worker->cache, &key, sizeof(key), &item, SET_ALWAYS);
}

static void *work(void *argument)
{
	struct worker *worker = argument;
	struct cache_pin pin;
	uint64_t state = worker->state, calls = 0, hits = 0;

	pthread_barrier_wait(worker->start);
	const uint64_t began_ns = now_ns(), waited_ns = run_delay_ns();
	while (now_ns() < worker->deadline_ns) {
		for (int i = 0; i < BATCH; i++) {
			state ^= state << 13;
			state ^= state >> 7;
			state ^= state << 17;
			uint64_t key = (state >> 20) % worker->keys;
			if (state % 1000 < worker->sets_in_1000)
				(void)put(worker, key);
			else
				hits += cache_get(worker->cache, &key, sizeof(key), GET_COPY, &worker->sink, &pin, NULL) ==
					DRP_OK;
		}
		calls += BATCH;
	}
	const uint64_t took_ns = now_ns() - began_ns, delay_ns = run_delay_ns() - waited_ns;
	worker->own_ns = took_ns > delay_ns ? took_ns - delay_ns : 1;
	worker->state = state;
	worker->calls = calls;
	worker->hits = hits;
	return NULL;
}

static void play(struct worker *workers, unsigned threads, uint64_t duration_ns)
{
	pthread_t ids[THREADS_MAX];
	pthread_barrier_t start;
	uint64_t calls = 0, hits = 0;
	double rate = 0;

	pthread_barrier_init(&start, NULL, threads);
	const uint64_t began_ns = now_ns();
	for (unsigned i = 0; i < threads; i++) {
		workers[i].deadline_ns = began_ns + duration_ns;
		workers[i].start = &start;
		if (pthread_create(&ids[i], NULL, work, &workers[i]) != 0) {
			fprintf(stderr, "bench_threads: no more threads can be made here\n");
			exit(1);
		}
	}
	for (unsigned i = 0; i < threads; i++) {
		pthread_join(ids[i], NULL);
		calls += workers[i].calls;
		hits += workers[i].hits;
		rate += (double)workers[i].calls * 1e9 / (double)workers[i].own_ns;
	}
	printf("%" PRIu64 " %" PRIu64 " %.6f %.0f\n", calls, hits, (double)(now_ns() - began_ns) / 1e9, rate);
	pthread_barrier_destroy(&start);
}

int main(int count, char **words)
{
	static struct worker workers[THREADS_MAX];
	struct cache *cache;

	if (count != 7) {
		fprintf(stderr, "bench_threads KEYS VALUE_BYTES SETS_IN_1000 THREADS MILLISECONDS ROUNDS\n");
		return 2;
	}
	const uint64_t keys = strtoull(words[1], NULL, 10), milliseconds = strtoull(words[5], NULL, 10);
	const size_t value_bytes = strtoul(words[2], NULL, 10);
	const unsigned sets_in_1000 = (unsigned)atoi(words[3]), threads = (unsigned)atoi(words[4]);
	if (keys == 0 || value_bytes < sizeof(uint64_t) || value_bytes > VALUE_BYTES_MAX || threads - 1 >= THREADS_MAX) {
		fprintf(stderr, "bench_threads: a number is out of range\n");
		return 2;
	}
	if (cache_create(&(struct cache_config){.backing = PRIM_LAZYFREE}, &cache) != DRP_OK) {
		fprintf(stderr, "bench_threads: no cache can be made here\n");
		return 1;
	}
	for (unsigned i = 0; i < threads; i++) {
		workers[i] = (struct worker){.sink = {.reserve = take}, .cache = cache, .keys = keys,
					     .state = UINT64_C(0x9e3779b97f4a7c15) * (i + 1), .value_bytes = value_bytes,
					     .sets_in_1000 = sets_in_1000};
		workers[i].value = aligned_alloc(LINE_BYTES, (value_bytes + LINE_BYTES - 1) / LINE_BYTES * LINE_BYTES);
		if (!workers[i].value)
			return 1;
		memset(workers[i].value, 7, value_bytes);
	}
	for (uint64_t key = 0; key < keys; key++)
		(void)put(&workers[0], key);
	play(workers, threads, milliseconds * 100000); /* what only the first calls do */
	for (int round = atoi(words[6]); round > 0; round--)
		play(workers, threads, milliseconds * 1000000);
	cache_close(cache);
	cache_unref(cache);
	for (unsigned i = 0; i < threads; i++)
		free(workers[i].value);
	return 0;
}
