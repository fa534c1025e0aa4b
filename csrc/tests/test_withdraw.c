/*
 * test_withdraw.c - when a reader in another process must stop finding an entry whose slot nobody has written: the owner is about
 * to end, or a page of the index went while the owner searched it.
 */
#include "client/reader.h"

#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "cache/publish.h"
#include "check.h"
#include "os/hash.h"
#include "store/index_search.h"
#include "store/index_stands.h"
#include "store/internal.h"

struct copy {
	struct cache_sink base;
	unsigned char value[16];
};

static int reserve(struct cache_sink *base, uint8_t kind, size_t meta_bytes, size_t bytes, void **meta, void **value)
{
	struct copy *copy = (struct copy *)base;

	(void)kind;
	*meta = NULL;
	*value = copy->value;
	return meta_bytes == 0 && bytes == sizeof(copy->value) ? 0 : -1;
}

static struct copy copy = {.base = {.reserve = reserve}};
static struct cache *cache;
static struct publication publication;
static struct reader reader;

/* A cache with one entry, whose place the reader knows by now. */
static void begin(void)
{
	const struct cache_config config = {.backing = PRIM_LAZYFREE, .shards = 1, .segment_bytes = 64 * 4096};
	const struct drp_part part = {"0123456789abcdef", sizeof(copy.value)};
	const struct cache_item item = {.parts = &part, .part_count = 1};

	REQUIRE(cache_create(&config, &cache) == DRP_OK);
	REQUIRE(cache_publish(cache, &publication) == DRP_OK);
	REQUIRE(cache_set(cache, "k", 1, &item, SET_ALWAYS) == DRP_OK);
	REQUIRE(reader_open(&reader, open("/proc/self/mem", O_RDONLY | O_CLOEXEC), dup(publication.descriptor), publication.bytes) == DRP_OK);
	for (int i = 0; i < 2; i++) {
		CHECK_EQ(reader_get(&reader, "k", 1, &copy.base), DRP_OK);
		CHECK(memcmp(copy.value, part.data, part.bytes) == 0);
	}
}

static void end(void)
{
	cache_unref(cache);
	reader_close(&reader);
	publication_end(&publication);
}

static void an_owner_that_withdraws_is_read_no_more(void)
{
	const struct drp_part part = {"fedcba9876543210", sizeof(copy.value)};
	const struct cache_item item = {.parts = &part, .part_count = 1};

	begin();
	cache_withdraw(cache);
	CHECK_EQ(reader_get(&reader, "k", 1, &copy.base), DRP_MISS);
	/* It goes on for those who ask. */
	CHECK_EQ(cache_contains(cache, "k", 1), 1);
	CHECK_EQ(cache_set(cache, "l", 1, &item, SET_ALWAYS), DRP_OK);
	CHECK_EQ(reader_get(&reader, "l", 1, &copy.base), DRP_MISS);
	cache_withdraw(cache);
	CHECK_EQ(reader_get(&reader, "k", 1, &copy.base), DRP_MISS);
	end();
}

/* The owner finds nothing, and says so to whoever deletes the key. So nobody may find it after that. */
static void a_page_of_the_index_that_goes_amid_a_search_is_told(void)
{
	struct index_cursor cursor;

	begin();
	struct index *index = &cache->shards[0].index;
	index_find(index, hash_bytes(cache->secret, "k", 1), &cursor);
	REQUIRE(madvise(cursor.page, prim_page_size(), MADV_DONTNEED) == 0);
	CHECK(!index_next(index, &cursor));
	CHECK_EQ(reader_get(&reader, "k", 1, &copy.base), DRP_OK); /* nobody has noticed yet */
	index_end_search(index, &cursor);
	CHECK(cursor.page_lost);
	CHECK_EQ(reader_get(&reader, "k", 1, &copy.base), DRP_MISS);
	CHECK_EQ(cache_delete(cache, "k", 1, 0), DRP_MISS);
	end();
}

int main(void)
{
	RUN(an_owner_that_withdraws_is_read_no_more);
	RUN(a_page_of_the_index_that_goes_amid_a_search_is_told);
	return check_done();
}
