/*
 * test_reader_version.c - what a near cache goes by: a version is that of one entry, and of no other one before or after it, in
 * whichever owner. All in one process, which reads its own memory.
 */
#include "client/reader.h"

#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "cache/publish.h"
#include "cache/update.h"
#include "check.h"
#include "droppable.h"

enum { SHORT_BYTES = 100, LONG_BYTES = 40000, ROUNDS = 300, OWNERS = 3, SEEN_MOST = 2 * ROUNDS + OWNERS };

struct owner {
	struct cache *cache;
	struct publication publication;
	struct reader reader;
};

static void start(struct owner *owner)
{
	const struct cache_config config = {.backing = PRIM_LAZYFREE, .shards = 1, .segment_bytes = 64 * 4096, .max_bytes = 4 << 20};
	const int memory = open("/proc/self/mem", O_RDONLY | O_CLOEXEC);

	REQUIRE(memory >= 0);
	REQUIRE(cache_create(&config, &owner->cache) == DRP_OK);
	REQUIRE(cache_publish(owner->cache, &owner->publication) == DRP_OK);
	const int board = dup(owner->publication.descriptor);
	REQUIRE(board >= 0);
	REQUIRE(reader_open(&owner->reader, memory, board, owner->publication.bytes) == DRP_OK);
}

static void stop(struct owner *owner)
{
	reader_close(&owner->reader);
	cache_unref(owner->cache);
	publication_end(&owner->publication);
}

static void store(struct owner *owner, const char *key, size_t bytes, unsigned char fill)
{
	static unsigned char value[LONG_BYTES];
	const struct drp_part part = {value, bytes};
	const struct cache_item item = {.parts = &part, .part_count = 1};

	memset(value, fill, bytes);
	REQUIRE(cache_set(owner->cache, key, strlen(key), &item, SET_ALWAYS) == DRP_OK);
}

struct copy {
	struct cache_sink base;
	bool gives_up;
	unsigned calls;
	unsigned char value[LONG_BYTES];
};

static int reserve(struct cache_sink *base, uint8_t kind, size_t meta_bytes, size_t bytes, void **meta, void **value)
{
	struct copy *copy = (struct copy *)base;

	CHECK_EQ(kind, 0);
	CHECK_EQ(meta_bytes, 0);
	REQUIRE(bytes <= sizeof(copy->value));
	copy->calls++;
	*meta = *value = copy->value;
	return copy->gives_up ? -1 : 0;
}

static struct reader_version look(struct owner *owner, const char *key, unsigned char fill)
{
	struct reader_version version = {0}, again = {0};
	static struct copy copy;

	copy = (struct copy){.base = {.reserve = reserve}};
	CHECK_EQ(reader_get_version(&owner->reader, key, strlen(key), &copy.base, &version), DRP_OK);
	CHECK_EQ(copy.value[0], fill);
	/* The same for who gives up before the value is copied. */
	copy = (struct copy){.base = {.reserve = reserve}, .gives_up = true};
	CHECK_EQ(reader_get_version(&owner->reader, key, strlen(key), &copy.base, &again), DRP_REFUSED);
	CHECK_EQ(copy.calls, 1);
	CHECK(memcmp(&version, &again, sizeof(version)) == 0);
	return version;
}

static struct reader_version seen[SEEN_MOST];
static size_t seen_count;

static bool is_new(struct reader_version version)
{
	for (size_t i = 0; i < seen_count; i++)
		if (memcmp(&seen[i], &version, sizeof(version)) == 0)
			return false;
	REQUIRE(seen_count < SEEN_MOST);
	seen[seen_count++] = version;
	return true;
}

/* Stored, deleted and cleared, while the segments go round. */
static void an_entry_is_none_of_those_before(void)
{
	struct owner owner;

	start(&owner);
	seen_count = 0;
	for (int round = 0; round < ROUNDS; round++) {
		const unsigned char fill = (unsigned char)(1 + round % 250);
		store(&owner, "short", SHORT_BYTES, fill);
		store(&owner, "long", LONG_BYTES, fill);
		CHECK(is_new(look(&owner, "short", fill)));
		CHECK(is_new(look(&owner, "long", fill)));
		if (round % 50 == 49)
			CHECK_EQ(cache_clear(owner.cache), DRP_OK);
		else if (round % 3 == 0)
			CHECK_EQ(cache_delete(owner.cache, "long", 4, 0), DRP_OK);
	}
	stop(&owner);
}

/* What is stored beside it changes the page of the index alone. */
static void an_entry_stays_what_it_is(void)
{
	struct owner owner;
	char key[32];

	start(&owner);
	store(&owner, "long", LONG_BYTES, 7);
	const struct reader_version version = look(&owner, "long", 7);
	for (int i = 0; i < ROUNDS; i++) {
		snprintf(key, sizeof(key), "beside %d", i);
		store(&owner, key, SHORT_BYTES, 1);
		const struct reader_version again = look(&owner, "long", 7);
		CHECK(memcmp(&version, &again, sizeof(version)) == 0);
	}
	stop(&owner);
}

/* Each stores the same first, in the same place. */
static void an_owner_is_none_of_those_before(void)
{
	seen_count = 0;
	for (int i = 0; i < OWNERS; i++) {
		struct owner owner;
		start(&owner);
		store(&owner, "long", LONG_BYTES, 7);
		CHECK(is_new(look(&owner, "long", 7)));
		stop(&owner);
	}
	for (int i = 1; i < OWNERS; i++)
		CHECK(seen[i].serial == seen[0].serial && seen[i].place == seen[0].place);
}

int main(void)
{
	RUN(an_entry_is_none_of_those_before);
	RUN(an_entry_stays_what_it_is);
	RUN(an_owner_is_none_of_those_before);
	return check_done();
}
