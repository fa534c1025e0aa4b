/*
 * test_board.c - a reader of another process's cache, and its owner, each stopped between any two steps of the other, on prim_fake.
 *
 *   the reader looks up      1 2 3 ... n ... S   at step n the owner does one thing, all of it        a run for each n
 *   the owner does it        1 2 3 ... n ... S   at each step the reader looks the key up             one run
 *
 * What is found must be whole, and of a version that was the key's at some moment of the look-up. What is looked up afterwards must
 * be the last one. Both are one process here, so each run takes the same course every time; test_reader.c has the real processes.
 */
#include "client/reader.h"

#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "cache/publish.h"
#include "cache/update.h"
#include "cache_client.h"
#include "cache_on_fake.h"
#include "check.h"
#include "os/hash.h"
#include "store/internal.h"

enum {
	PAGE = 4096,
	FILLERS = 500, FIRST_FILLER = 1000, /* short values: the index has two pages or more with them */
	OTHERS = 4, FIRST_OTHER = 100,      /* values like the key's own, which come later: see is_upper() */
	FEW_NUMBERS = 7,                    /* of segments, so that they go round */
};

/* In one piece; over pages; on pages of its own among others, and alone in its segment. */
enum layout { SMALL, LONG, EXTENT, ALONE, LAYOUTS };
static const size_t sizes[LAYOUTS] = {100, 6000, 3 * PAGE - 100, 6 * PAGE};

enum thing {
	NOTHING,
	REPLACE,        /* and store others where the old version was */
	DELETE,         /* likewise */
	TOUCH,          /* the entry moves */
	CLEAR,          /* and store others */
	GO_ROUND,       /* until an older version lies where the key's entry was, in a segment of the same number */
	SPLIT,          /* the key's page of the index */
	MERGE,          /* it, so that the page is not used any more but stays as it was; and delete the key, and store others */
	LOSE_INDEX,     /* the page of the index; and delete the key, which finds that out */
	RETIRE,         /* all segments; and store others */
	RETIRE_VALUES,  /* the segment of the key's value, and not that of its entry; and store others */
	DROP_PAGE,      /* owner.page of all pages */
	THINGS,
};

static struct client_sink sink;

static struct {
	struct cache *cache;
	struct publication publication;
	struct reader reader;
	enum layout layout;
	enum thing thing;
	size_t page;          /* for DROP_PAGE */
	uint64_t key, latest; /* version that was stored last */
	uint64_t done, begun; /* versions: what is found is none before and none after; done > latest: it was deleted */
	bool many;            /* the key is looked up together with others */
	unsigned reserved;    /* calls */
	unsigned alone;       /* times that the key was to be looked up alone */
	unsigned point, act_at;
} owner;

static int count_reserve(struct cache_sink *base, uint8_t kind, size_t meta_bytes, size_t value_bytes, void **meta, void **value)
{
	owner.reserved++;
	return client_reserve(base, kind, meta_bytes, value_bytes, meta, value);
}

/* Is the value in the sink whole, and the key's? *version: which one. */
static bool is_whole(const struct client_sink *of, uint64_t key, uint64_t *version)
{
	uint64_t meta[2];

	if (of->meta_bytes != sizeof(meta) || of->kind != (key & 7))
		return false;
	memcpy(meta, of->meta, sizeof(meta));
	unsigned char *expected = malloc(of->bytes + 1);
	REQUIRE(expected != NULL);
	client_fill(expected, key, meta[0], of->bytes);
	const bool same = meta[1] == of->bytes && memcmp(of->value, expected, of->bytes) == 0;
	free(expected);
	*version = meta[0];
	return same;
}

/* The key between others, of which some lie beside it in the log, and one is not there. */
static int look_among_others(void)
{
	enum { COUNT = 6, KEY_AT = 2, ABSENT = 4 };
	static struct client_sink sinks[COUNT];
	uint64_t keys[COUNT] = {FIRST_FILLER + 3, FIRST_FILLER + 400, owner.key, FIRST_FILLER, 7777777, FIRST_FILLER + 1}, version;
	struct reader_wanted wanted[COUNT];

	for (int i = 0; i < COUNT; i++) {
		sinks[i].base.reserve = client_reserve;
		wanted[i] = (struct reader_wanted){.key = &keys[i], .key_bytes = sizeof(keys[i]), .sink = &sinks[i].base};
	}
	wanted[KEY_AT].sink = &sink.base;
	reader_get_many(&owner.reader, wanted, COUNT);
	for (int i = 0; i < COUNT; i++)
		if (i != KEY_AT && wanted[i].status == DRP_OK)
			CHECK(i != ABSENT && is_whole(&sinks[i], keys[i], &version) && version == 1);
		else
			CHECK(wanted[i].status == DRP_OK || wanted[i].status == DRP_MISS || wanted[i].status == READER_ALONE);
	if (wanted[KEY_AT].status != READER_ALONE)
		return wanted[KEY_AT].status;
	owner.alone++;
	return reader_get(&owner.reader, &owner.key, sizeof(owner.key), &sink.base);
}

/* One look-up, and whether what it gives can be. */
static int look(uint64_t *version)
{
	const uint64_t least = owner.done;

	sink.base.reserve = count_reserve;
	owner.reserved = 0;
	const int status = owner.many ? look_among_others() : reader_get(&owner.reader, &owner.key, sizeof(owner.key), &sink.base);
	if (status != DRP_OK) {
		CHECK_EQ(status, DRP_MISS);
		return status;
	}
	if (CHECK(is_whole(&sink, owner.key, version)) && !CHECK(*version >= least && *version <= owner.begun))
		printf("# version %llu, from %llu to %llu: layout %d, thing %d, point %u\n", (unsigned long long)*version,
		       (unsigned long long)least, (unsigned long long)owner.begun, owner.layout, owner.thing, owner.act_at);
	return status;
}

static void store_key(void)
{
	owner.begun++;
	owner.latest = owner.begun;
	CHECK_EQ(client_set(owner.cache, owner.key, owner.latest, sizes[owner.layout], owner.layout >= EXTENT, SET_ALWAYS), DRP_OK);
	owner.done = owner.latest;
}

static void delete_key(int expected)
{
	owner.begun++; /* no value has that version */
	CHECK_EQ(cache_delete(owner.cache, &owner.key, sizeof(owner.key), 0), expected);
	owner.done = owner.begun;
}

/* The key's hash is in the upper half of all, those of others in the lower: where the index has more pages, it is not on theirs. */
static bool is_upper(const struct cache *cache, uint64_t key)
{
	return hash_bytes(cache->secret, &key, sizeof(key)) >> 63 != 0;
}

static void store_others(void)
{
	uint64_t key = FIRST_OTHER;

	for (int i = 0; i < OTHERS; i++, key++) {
		while (is_upper(owner.cache, key))
			key++;
		CHECK_EQ(client_set(owner.cache, key, 1, sizes[owner.layout], owner.layout >= EXTENT, SET_ALWAYS), DRP_OK);
	}
}

static void store_fillers(uint64_t first)
{
	for (uint64_t i = 0; i < FILLERS; i++)
		CHECK_EQ(client_set(owner.cache, first + i, 1, 20, false, SET_ALWAYS), DRP_OK);
}

static void find_key(struct index_cursor *cursor)
{
	struct index *index = &owner.cache->shards[0].index;

	index_find(index, hash_bytes(owner.cache->secret, &owner.key, sizeof(owner.key)), cursor);
	REQUIRE(index_next(index, cursor));
}

static void go_round(uint64_t place)
{
	struct index_cursor cursor = {0};

	for (unsigned rounds = 0; cursor.place != place; rounds++) {
		REQUIRE(rounds < 2 * FEW_NUMBERS);
		CHECK_EQ(cache_clear(owner.cache), DRP_OK);
		owner.done = ++owner.begun;
		store_key();
		find_key(&cursor);
	}
	store_key();
}

static void merge_index(void)
{
	struct shard *shard = &owner.cache->shards[0];

	fake_lock(true); /* its page cannot be given back */
	for (uint64_t key = FIRST_FILLER; key < FIRST_FILLER + FILLERS; key++)
		CHECK_EQ(cache_delete(owner.cache, &key, sizeof(key), 0), DRP_OK);
	pthread_mutex_lock(&shard->lock);
	for (unsigned i = 0; shard->index.depth > 0 && i < 16; i++)
		index_shrink(&shard->index);
	CHECK_EQ(shard->index.depth, 0);
	pthread_mutex_unlock(&shard->lock);
	fake_lock(false);
}

/* Segments of values alone: no slot of the index changes for that. */
static void retire(bool all)
{
	struct shard *shard = &owner.cache->shards[0];
	struct segment *next;

	if (!all && owner.layout < EXTENT)
		return;
	owner.begun++;
	pthread_mutex_lock(&shard->lock);
	for (struct segment *segment = arena_next(&shard->arena, NULL); segment; segment = next) {
		next = arena_next(&shard->arena, segment);
		if (all || segment->kind != SEGMENT_ENTRIES)
			shard_retire(owner.cache, shard, segment);
	}
	shard_unlock(shard);
	owner.done = owner.begun;
}

static void act(void)
{
	struct index_cursor cursor;

	switch (owner.thing) {
	case REPLACE:
		store_key();
		store_others();
		break;
	case DELETE:
		delete_key(DRP_OK);
		store_others();
		break;
	case TOUCH:
		CHECK_EQ(cache_touch(owner.cache, &owner.key, sizeof(owner.key), UINT64_C(1000000000000)), DRP_OK);
		break;
	case CLEAR:
		owner.begun++;
		CHECK_EQ(cache_clear(owner.cache), DRP_OK);
		owner.done = owner.begun;
		store_others();
		break;
	case GO_ROUND:
		find_key(&cursor);
		go_round(cursor.place);
		break;
	case SPLIT:
		store_fillers(FIRST_FILLER + FILLERS);
		break;
	case MERGE:
		merge_index();
		delete_key(DRP_OK);
		store_others();
		break;
	case LOSE_INDEX:
		find_key(&cursor);
		fake_drop_at(cursor.page);
		delete_key(DRP_MISS);
		break;
	case RETIRE:
	case RETIRE_VALUES:
		retire(owner.thing == RETIRE);
		store_others();
		break;
	case DROP_PAGE:
		fake_drop(owner.page);
		break;
	default:
		break;
	}
}

static bool has_fillers(enum thing thing)
{
	return thing == GO_ROUND || thing == SPLIT || thing == MERGE || thing == RETIRE_VALUES;
}

static void begin(enum layout layout, enum thing thing)
{
	const struct cache_config config = {.backing = PRIM_LAZYFREE, .shards = 1, .segment_bytes = 16 * PAGE};
	struct cache *cache = fake_cache_make(&config);

	memset(&owner, 0, sizeof(owner));
	owner.cache = cache;
	owner.layout = layout;
	owner.thing = thing;
	if (thing == GO_ROUND)
		cache->shards[0].arena.number_mask = FEW_NUMBERS;
	REQUIRE(cache_publish(cache, &owner.publication) == DRP_OK);
	REQUIRE(reader_open(&owner.reader, open("/proc/self/mem", O_RDONLY | O_CLOEXEC), dup(owner.publication.descriptor),
			    owner.publication.bytes) == DRP_OK);
	while (!is_upper(cache, owner.key))
		owner.key++;
	store_key();
	if (has_fillers(thing))
		store_fillers(FIRST_FILLER);
	CHECK_EQ(cache_settle(cache), DRP_OK);
}

static void end(void)
{
	fake_at_each_point(NULL);
	reader_close(&owner.reader);
	fake_cache_end(owner.cache);
	publication_end(&owner.publication);
}

static void act_at_point(void)
{
	if (++owner.point == owner.act_at)
		act();
}

/* Once the owner has done it, nothing older is found, and what is there is found, unless it was dropped. */
static void check_afterwards(void)
{
	for (int again = 0; again < 2; again++) {
		uint64_t version = 0;
		const int status = look(&version);
		if (owner.thing != DROP_PAGE)
			CHECK_EQ(status, owner.done == owner.latest ? DRP_OK : DRP_MISS);
	}
}

/* How the key is looked up: it was before, so that the look begins where its entry was; together with others. */
enum way { ANEW, REMEMBERED, MANY_ANEW, MANY_REMEMBERED, WAYS };

/* True: the look-up has as many steps. */
static bool act_at_step(enum layout layout, enum thing thing, size_t page, enum way way, unsigned step)
{
	uint64_t version = 0;

	begin(layout, thing);
	owner.page = page;
	owner.act_at = step;
	owner.many = way >= MANY_ANEW;
	if (way == REMEMBERED || way == MANY_REMEMBERED)
		CHECK_EQ(look(&version), DRP_OK);
	owner.alone = 0;
	fake_at_each_point(act_at_point);
	const int status = look(&version);
	fake_at_each_point(NULL);
	const bool acted = owner.point >= step;
	if (!acted) {
		CHECK_EQ(status, DRP_OK);
		CHECK(layout == LONG || owner.alone == (owner.many && layout != SMALL)); /* LONG: if its pages are read for others */
	}
	else
		check_afterwards();
	end();
	return acted;
}

static void the_owner_acts_at_every_step(enum thing thing)
{
	unsigned runs = 0, pages = 1;

	for (enum layout layout = 0; layout < LAYOUTS; layout++) {
		if (thing == DROP_PAGE) {
			begin(layout, thing);
			pages = (unsigned)fake_pages();
		}
		for (unsigned page = 0; page < pages; page++) {
			if (thing == DROP_PAGE && !fake_page_in_use(page))
				continue;
			if (thing == DROP_PAGE)
				end();
			for (enum way way = 0; way < WAYS; way++)
				for (unsigned step = 1; act_at_step(layout, thing, page, way, step); step++)
					runs++;
			if (thing == DROP_PAGE)
				begin(layout, thing);
		}
		if (thing == DROP_PAGE)
			end();
	}
	printf("# %u runs\n", runs);
	CHECK(runs > 0);
}

static void look_at_point(void)
{
	uint64_t version;

	owner.point++;
	(void)look(&version); /* a miss is right at any time, and look() checks what is found */
}

static void a_reader_looks_at_every_step(enum thing thing)
{
	unsigned looks = 0;

	for (enum layout layout = 0; layout < LAYOUTS; layout++)
		for (enum way way = 0; way < WAYS; way++) {
			uint64_t version;
			begin(layout, thing);
			owner.many = way >= MANY_ANEW;
			if (way == REMEMBERED || way == MANY_REMEMBERED)
				CHECK_EQ(look(&version), DRP_OK);
			fake_at_each_point(look_at_point);
			act();
			fake_at_each_point(NULL);
			looks += owner.point;
			check_afterwards();
			end();
		}
	printf("# %u looks\n", looks);
	CHECK(looks > 0);
}

/* Memory for a value is taken for one that is there, not for one that has lost a page of its entry. */
static void nothing_is_reserved_for_an_entry_that_lost_a_page(void)
{
	struct index_cursor cursor;
	uint64_t version;

	for (size_t lost = 0; lost < 2; lost++) {
		begin(LONG, NOTHING);
		CHECK_EQ(look(&version), DRP_OK);
		CHECK_EQ(owner.reserved, 1);
		find_key(&cursor);
		const struct segment *segment = arena_next(&owner.cache->shards[0].arena, NULL);
		REQUIRE(segment->number == arena_place_number(cursor.place));
		const unsigned char *at = segment->base + arena_place_offset(cursor.place) + lost * PAGE;
		fake_drop_at(at);
		CHECK_EQ(look(&version), DRP_MISS);
		CHECK_EQ(owner.reserved, 0);
		end();
	}
}

int main(void)
{
	RUN(nothing_is_reserved_for_an_entry_that_lost_a_page);
	RUN(the_owner_acts_at_every_step, REPLACE);
	RUN(the_owner_acts_at_every_step, DELETE);
	RUN(the_owner_acts_at_every_step, TOUCH);
	RUN(the_owner_acts_at_every_step, CLEAR);
	RUN(the_owner_acts_at_every_step, GO_ROUND);
	RUN(the_owner_acts_at_every_step, SPLIT);
	RUN(the_owner_acts_at_every_step, MERGE);
	RUN(the_owner_acts_at_every_step, LOSE_INDEX);
	RUN(the_owner_acts_at_every_step, RETIRE);
	RUN(the_owner_acts_at_every_step, RETIRE_VALUES);
	RUN(the_owner_acts_at_every_step, DROP_PAGE);
	RUN(a_reader_looks_at_every_step, REPLACE);
	RUN(a_reader_looks_at_every_step, DELETE);
	RUN(a_reader_looks_at_every_step, TOUCH);
	RUN(a_reader_looks_at_every_step, CLEAR);
	RUN(a_reader_looks_at_every_step, GO_ROUND);
	RUN(a_reader_looks_at_every_step, SPLIT);
	RUN(a_reader_looks_at_every_step, MERGE);
	RUN(a_reader_looks_at_every_step, LOSE_INDEX);
	RUN(a_reader_looks_at_every_step, RETIRE);
	RUN(a_reader_looks_at_every_step, RETIRE_VALUES);
	free(sink.value);
	return check_done();
}
