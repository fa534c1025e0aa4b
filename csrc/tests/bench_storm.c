/*
 * bench_storm.c - reads by the hundred million while the kernel takes pages all the time: is any byte ever wrong?
 *
 *   reader 0 --+
 *   reader 1 --+--> cache <-- dropper: every 32,768 reads real drops of a page in 100, chosen at random; memory given back
 *
 * A value's words follow from its key and version, and the version is its first word: each word of each hit is compared.
 * A version that nobody stored yet is wrong too. Most values are small, one in 512 has pages of its own and is pinned or
 * copied. What is missing is set again, and one hit in 64 is replaced.
 *
 * bench_storm lazyfree|droppable READS: prints "reads hits dropped_misses dropped_entries yielded_bytes wrong seconds".
 * Run by benchmarks/cache_storm.py.
 */
#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "cache/cache.h"
#include "policy/reclaim.h"

enum { READERS = 2, KEYS = 1 << 14, MOST_WORDS = 2500, BATCH = 1024, READS_A_DROP = 32 * BATCH };

static struct {
	struct cache *cache;
	_Atomic uint32_t newest[KEYS];
	_Atomic uint64_t reads, hits, wrong, refused;
	_Atomic bool over;
	uint64_t wanted_reads;
	pthread_mutex_t lock;
	pthread_cond_t due;  /* the next drop is */
	uint64_t drop_at;    /* so many reads */
} storm = {.lock = PTHREAD_MUTEX_INITIALIZER, .due = PTHREAD_COND_INITIALIZER};

struct reader {
	struct cache_sink sink;
	uint64_t words[MOST_WORDS];
	size_t bytes;
	uint64_t state;
};

static size_t words_of(uint64_t key)
{
	return key % 512 == 0 ? 700 + key / 512 % (MOST_WORDS - 700) : 2 + key % 40;
}

static uint64_t word_of(uint64_t key, uint64_t version, size_t i)
{
	return i == 0 ? version : (key << 32 | version) * UINT64_C(0x9e3779b97f4a7c15) + i * UINT64_C(0xbf58476d1ce4e5b9);
}

static int take(struct cache_sink *sink, uint8_t kind, size_t meta_bytes, size_t value_bytes, void **meta, void **value)
{
	struct reader *reader = (struct reader *)sink;

	(void)kind;
	(void)meta_bytes;
	if (value_bytes > sizeof(reader->words))
		return -1;
	reader->bytes = value_bytes;
	*meta = NULL;
	*value = reader->words;
	return 0;
}

static void put(struct reader *reader, uint64_t key)
{
	const uint64_t version = atomic_fetch_add(&storm.newest[key], 1) + 1;
	const size_t words = words_of(key);
	const struct drp_part part = {reader->words, words * sizeof(uint64_t)};
	const struct cache_item item = {.parts = &part, .part_count = 1, .own_pages = true};

	for (size_t i = 0; i < words; i++)
		reader->words[i] = word_of(key, version, i);
	if (cache_set(storm.cache, &key, sizeof(key), &item, SET_ALWAYS) != DRP_OK)
		atomic_fetch_add(&storm.refused, 1);
}

static bool is_right(const uint64_t *words, size_t bytes, uint64_t key)
{
	const uint64_t version = words[0];
	uint64_t differs = 0;

	if (bytes != words_of(key) * sizeof(uint64_t) || version == 0 || version > atomic_load(&storm.newest[key]))
		return false;
	for (size_t i = 1; i < bytes / sizeof(uint64_t); i++)
		differs |= words[i] ^ word_of(key, version, i);
	return differs == 0;
}

static bool get(struct reader *reader, uint64_t key, bool *right)
{
	struct cache_pin pin;
	const enum cache_get_mode mode = reader->state & 1 ? GET_PIN : GET_COPY;

	if (cache_get(storm.cache, &key, sizeof(key), mode, &reader->sink, &pin, NULL) != DRP_OK)
		return false;
	if (!pin.cache) {
		*right = is_right(reader->words, reader->bytes, key);
		return true;
	}
	*right = is_right(pin.value, pin.value_bytes, key);
	cache_unpin(&pin);
	return true;
}

static void *read_on(void *argument)
{
	struct reader *reader = argument;

	reader->sink.reserve = take;
	while (!atomic_load_explicit(&storm.over, memory_order_relaxed)) {
		uint64_t hits = 0, wrong = 0;
		for (int i = 0; i < BATCH; i++) {
			reader->state ^= reader->state << 13;
			reader->state ^= reader->state >> 7;
			reader->state ^= reader->state << 17;
			const uint64_t key = (reader->state >> 24) % KEYS;
			bool right = true;
			const bool hit = get(reader, key, &right);
			hits += hit;
			wrong += !right;
			if (!hit || reader->state % 64 == 3)
				put(reader, key);
		}
		atomic_fetch_add(&storm.hits, hits);
		atomic_fetch_add(&storm.wrong, wrong);
		const uint64_t reads = atomic_fetch_add(&storm.reads, BATCH) + BATCH;
		pthread_mutex_lock(&storm.lock);
		if (reads >= storm.wanted_reads)
			atomic_store(&storm.over, true);
		if (reads >= storm.drop_at || atomic_load(&storm.over))
			pthread_cond_signal(&storm.due);
		pthread_mutex_unlock(&storm.lock);
	}
	return NULL;
}

/* False: it is over. A drop takes so long that readers would do little else but wait for the next, had they no time between. */
static bool wait_for_reads(uint64_t drops)
{
	pthread_mutex_lock(&storm.lock);
	storm.drop_at = drops * READS_A_DROP;
	while (atomic_load(&storm.reads) < storm.drop_at && !atomic_load(&storm.over))
		pthread_cond_wait(&storm.due, &storm.lock);
	pthread_mutex_unlock(&storm.lock);
	return !atomic_load(&storm.over);
}

static void *drop_on(void *argument)
{
	struct cache_drop drop;

	(void)argument;
	for (uint64_t seed = 1; wait_for_reads(seed); seed++) {
		(void)cache_drop(storm.cache, 0.01, seed, &drop);
		if (seed % 8 == 0)
			(void)cache_give_back(1 << 18);
	}
	return NULL;
}

int main(int count, char **words)
{
	static struct reader readers[READERS];
	struct cache_config config = {.backing = PRIM_LAZYFREE};
	struct cache_stats stats;
	struct timespec began, ended;
	pthread_t threads[READERS], dropper;

	if (count != 3 || (strcmp(words[1], "lazyfree") != 0 && strcmp(words[1], "droppable") != 0)) {
		fprintf(stderr, "usage: bench_storm lazyfree|droppable READS\n");
		return 2;
	}
	if (words[1][0] == 'd')
		config.backing = PRIM_DROPPABLE;
	storm.wanted_reads = strtoull(words[2], NULL, 10);
	int status = cache_create(&config, &storm.cache);
	if (status != DRP_OK) {
		fprintf(stderr, "bench_storm: no such cache here (%d)\n", status);
		return 1;
	}
	clock_gettime(CLOCK_MONOTONIC, &began);
	for (unsigned i = 0; i < READERS; i++) {
		readers[i].state = (i + 1) * UINT64_C(0x9e3779b97f4a7c15);
		if (pthread_create(&threads[i], NULL, read_on, &readers[i]) != 0)
			return 1;
	}
	if (pthread_create(&dropper, NULL, drop_on, NULL) != 0)
		return 1;
	for (unsigned i = 0; i < READERS; i++)
		pthread_join(threads[i], NULL);
	pthread_join(dropper, NULL);
	clock_gettime(CLOCK_MONOTONIC, &ended);
	cache_read_stats(storm.cache, &stats);
	printf("%" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRIu64 " %.1f\n", storm.reads, storm.hits,
	       stats.misses[MISS_DROPPED], stats.dropped, stats.yielded_bytes, storm.wrong,
	       (double)(ended.tv_sec - began.tv_sec) + (double)(ended.tv_nsec - began.tv_nsec) / 1e9);
	cache_close(storm.cache);
	cache_unref(storm.cache);
	return storm.wrong != 0;
}
