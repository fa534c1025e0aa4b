/*
 * reader_storm.h - what test_reader.c and bench_reader.c share: values that tell whose version they are, a table of versions in
 * memory that all processes see, and the two sides of passing an owner's descriptors.
 *
 *   writer of a key   begun = n --> cache_set() --> done = n
 *   reader            least = done --> reader_get() --> most = begun: what it got must be whole, and of a version between the two
 *
 * The file that includes it says before how seldom long values are: LONG_SHARE, one in so many of each of five kinds.
 */
#ifndef DRP_READER_STORM_H
#define DRP_READER_STORM_H

#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "cache/cache.h"
#include "cache/update.h"
#include "check.h"
#include "client/reader.h"

enum {
	KEYS = 3000, HOT_KEYS = 40, WRITERS = 2,
	VALUE_MOST_BYTES = 300000,
	META_BYTES = 3,
	BATCH_KEYS = 24,
};

struct shared {
	_Atomic uint64_t begun[KEYS], done[KEYS];
	_Atomic bool stop;
	_Atomic uint64_t reads, hits, stores, drops;
	bool is_killed;         /* the owner, now and then */
	uint64_t reads_a_store; /* writers wait for so many before each store; 0: they do not wait */
};

static struct shared *shared;
static unsigned char scratch[VALUE_MOST_BYTES];

static inline uint64_t mix(uint64_t x)
{
	x ^= x >> 30;
	x *= UINT64_C(0xbf58476d1ce4e5b9);
	x ^= x >> 27;
	x *= UINT64_C(0x94d049bb133111eb);
	return x ^ x >> 31;
}

static inline uint64_t next(uint64_t *seed)
{
	return mix(*seed += UINT64_C(0x9e3779b97f4a7c15));
}

/* Short, in one page, across pages, on pages of its own, alone in its segment. Some pages are nothing but zeros. */
static inline size_t value_bytes(uint64_t key, uint64_t version)
{
	const uint64_t chosen = mix(key * 1000003 + version);

	switch (chosen % LONG_SHARE) {
	case 0:
		return 16 + (chosen >> 8) % 30000;
	case 1:
		return 4096 * (1 + (chosen >> 8) % 8) - (chosen >> 40) % 300;
	case 2:
		return key < HOT_KEYS ? 40000 + (chosen >> 8) % 200000 : 4096;
	case 3:
	case 4:
		return 400 + (chosen >> 8) % 5000;
	default:
		return 16 + (chosen >> 8) % 300;
	}
}

static inline size_t make_value(unsigned char *value, uint64_t key, uint64_t version)
{
	const size_t bytes = value_bytes(key, version);
	uint64_t seed = mix(key << 32 ^ version);

	for (size_t at = 0; at < bytes; at += 8) {
		const uint64_t word = at % 65536 >= 57344 ? 0 : at < 16 ? (at ? version : key) : next(&seed);
		memcpy(value + at, &word, bytes - at < 8 ? bytes - at : 8);
	}
	return bytes;
}

static inline void make_key(char key[32], uint64_t number)
{
	snprintf(key, 32, "key-%06llu%s", (unsigned long long)number, number % 3 ? "" : "-and-some-more");
}

struct copy {
	struct cache_sink base;
	uint8_t kind;
	size_t bytes, meta_bytes;
	unsigned char meta[META_BYTES], value[VALUE_MOST_BYTES];
};

static inline int reserve(struct cache_sink *base, uint8_t kind, size_t meta_bytes, size_t bytes, void **meta, void **value)
{
	struct copy *copy = (struct copy *)base;

	copy->kind = kind;
	copy->bytes = bytes;
	copy->meta_bytes = meta_bytes;
	*meta = copy->meta;
	*value = copy->value;
	return meta_bytes <= sizeof(copy->meta) && bytes <= sizeof(copy->value) ? 0 : -1;
}

static inline void send_descriptors(int socket, int memory, int board, size_t bytes)
{
	int both[2] = {memory, board};
	_Alignas(struct cmsghdr) char space[CMSG_SPACE(sizeof(both))] = {0};
	struct iovec part = {&bytes, sizeof(bytes)};
	struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = space, .msg_controllen = sizeof(space)};
	struct cmsghdr *head = CMSG_FIRSTHDR(&message);

	head->cmsg_level = SOL_SOCKET;
	head->cmsg_type = SCM_RIGHTS;
	head->cmsg_len = CMSG_LEN(sizeof(both));
	memcpy(CMSG_DATA(head), both, sizeof(both));
	REQUIRE(sendmsg(socket, &message, 0) == sizeof(bytes));
}

/* Both descriptors, and how long the board is. */
static inline size_t receive_descriptors(int socket, int both[2])
{
	size_t bytes;
	_Alignas(struct cmsghdr) char space[CMSG_SPACE(2 * sizeof(int))];
	struct iovec part = {&bytes, sizeof(bytes)};
	struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = space, .msg_controllen = sizeof(space)};

	REQUIRE(recvmsg(socket, &message, MSG_CMSG_CLOEXEC) == sizeof(bytes));
	REQUIRE(CMSG_FIRSTHDR(&message) != NULL);
	memcpy(both, CMSG_DATA(CMSG_FIRSTHDR(&message)), 2 * sizeof(int));
	return bytes;
}

static inline void open_passed(struct reader *reader, int socket)
{
	int both[2];
	const size_t bytes = receive_descriptors(socket, both);

	REQUIRE(reader_open(reader, both[0], both[1], bytes) == DRP_OK);
}

/* In the owner. */
static struct cache *cache;

static inline int store(uint64_t number, uint64_t version, unsigned char *value, uint64_t ttl_ns)
{
	char key[32];
	const struct drp_part part = {value, make_value(value, number, version)};
	const struct cache_item item = {.parts = &part, .part_count = 1, .meta = "abc", .meta_bytes = number % 5 ? 0 : META_BYTES,
					.kind = (uint8_t)(number % 7), .ttl_ns = ttl_ns, .own_pages = number % 2};

	make_key(key, number);
	return cache_set(cache, key, strlen(key), &item, SET_ALWAYS);
}

static inline void *write_values(void *argument)
{
	const uint64_t which = (uintptr_t)argument;
	unsigned char *value = malloc(VALUE_MOST_BYTES);
	uint64_t seed = 77 + which;
	char key[32];

	REQUIRE(value != NULL);
	while (!atomic_load(&shared->stop)) {
		if (atomic_load(&shared->stores) * shared->reads_a_store > atomic_load(&shared->reads)) {
			usleep(500);
			continue;
		}
		const uint64_t chosen = next(&seed);
		const uint64_t number = ((chosen & 3 ? (chosen >> 8) % HOT_KEYS : (chosen >> 8) % KEYS) & ~UINT64_C(1)) + which;
		const uint64_t version = atomic_load(&shared->begun[number]) + 1;
		int status;
		make_key(key, number);
		if (chosen >> 60 == 1) { /* it moves, and is the same version */
			status = cache_touch(cache, key, strlen(key), UINT64_C(1000000000000));
			CHECK(status == DRP_OK || status == DRP_MISS || status == DRP_REFUSED || status == DRP_NO_MEMORY);
			continue;
		}
		atomic_store(&shared->begun[number], version);
		if (chosen >> 60 == 0) {
			status = cache_delete(cache, key, strlen(key), 0);
			CHECK(status == DRP_OK || status == DRP_MISS);
		} else {
			status = store(number, version, value, chosen >> 60 == 2 ? UINT64_C(1000000000000) : 0);
			if (status == DRP_NO_MEMORY) /* no number for another segment: nothing has changed */
				continue;
			CHECK(status == DRP_OK || status == DRP_REFUSED); /* refused: the key is gone */
		}
		atomic_store(&shared->done[number], version);
		atomic_fetch_add(&shared->stores, 1);
	}
	free(value);
	return NULL;
}

/* Is what a read gave right? True: a hit. */
static inline bool check_read(int status, const struct copy *copy, uint64_t number, uint64_t least, uint64_t most)
{
	uint64_t version;

	if (status != DRP_OK) {
		CHECK(status == DRP_MISS || (status == DRP_CLOSED && shared->is_killed));
		return false;
	}
	REQUIRE(copy->bytes >= 16);
	memcpy(&version, copy->value + 8, 8);
	CHECK(version >= least && version <= most);
	CHECK_EQ(copy->kind, number % 7);
	CHECK_EQ(copy->meta_bytes, number % 5 ? 0 : META_BYTES);
	CHECK(memcmp(copy->meta, "abc", copy->meta_bytes) == 0);
	if (CHECK_EQ(copy->bytes, value_bytes(number, version))) {
		make_value(scratch, number, version);
		CHECK(memcmp(copy->value, scratch, copy->bytes) == 0);
	}
	return true;
}

/* One read, and whether what it gave is right. True: a hit. */
static inline bool read_one(struct reader *reader, struct copy *copy, uint64_t number)
{
	char key[32];

	make_key(key, number);
	const uint64_t least = atomic_load(&shared->done[number]);
	const int status = reader_get(reader, key, strlen(key), &copy->base);
	return check_read(status, copy, number, least, atomic_load(&shared->begun[number]));
}

/* The same of several keys at once, but for those that are to be read alone. Returns how many were hits. */
static inline unsigned read_some(struct reader *reader, struct copy *copies, const uint64_t *numbers)
{
	struct reader_wanted wanted[BATCH_KEYS];
	char keys[BATCH_KEYS][32];
	uint64_t least[BATCH_KEYS];
	unsigned hits = 0;

	for (unsigned i = 0; i < BATCH_KEYS; i++) {
		make_key(keys[i], numbers[i]);
		wanted[i] = (struct reader_wanted){.key = keys[i], .key_bytes = strlen(keys[i]), .sink = &copies[i].base};
		least[i] = atomic_load(&shared->done[numbers[i]]);
	}
	reader_get_many(reader, wanted, BATCH_KEYS);
	for (unsigned i = 0; i < BATCH_KEYS; i++)
		if (wanted[i].status != READER_ALONE)
			hits += check_read(wanted[i].status, &copies[i], numbers[i], least[i],
					   atomic_load(&shared->begun[numbers[i]]));
	return hits;
}

#endif
