/*
 * test_server_incoming.c - values that come straight into the cache's pages: the same replies and the same values as by way of a
 * buffer, whatever pieces they come in; and what never becomes whole leaves nothing behind.
 */
#include <pthread.h>

#include "server/incoming.h"
#include "server_client.h"

enum { LARGE = 20480, PAGE_VALUE = 4096, SMALL = 100, THREADS = 3, THREAD_ROUNDS = 300, THREAD_KEYS = 3 };

static struct client client;

/* Text that is written by pieces. */
struct text {
	char bytes[LONGEST_BYTES];
	size_t count;
};

static void add(struct text *text, const char *bytes)
{
	const size_t count = strlen(bytes);

	REQUIRE(text->count + count < sizeof(text->bytes));
	memcpy(text->bytes + text->count, bytes, count + 1);
	text->count += count;
}

/* A value of so many letters, none of which is another's neighbour: what is shifted differs. */
static void add_value(struct text *text, char first, size_t count)
{
	REQUIRE(text->count + count < sizeof(text->bytes));
	for (size_t i = 0; i < count; i++)
		text->bytes[text->count++] = (char)(first + (char)(i * 7 % 19));
	text->bytes[text->count] = '\0';
}

static void add_set(struct text *text, const char *line, char first, size_t count, const char *end)
{
	char head[128];

	snprintf(head, sizeof(head), line, count);
	add(text, head);
	add_value(text, first, count);
	add(text, end);
}

static uint64_t entries(void)
{
	return keyspace_entries(&service.keyspace);
}

/* The conversation gives those replies in any pieces, and whether or not values are written in place. */
static void check_conversation(const struct text *sent, const struct text *expected)
{
	static const size_t pieces[] = {1, 2, 3, 17, 100, 4095, 4096, 4097, 5000, 20000, 30000, LONGEST_BYTES};

	for (size_t i = 0; i < 2 * (sizeof(pieces) / sizeof(pieces[0])); i++) {
		struct session session;
		begin(&client, &session);
		client.is_direct = i % 2 == 1;
		const size_t used_bytes = service.budget.used_bytes;
		CHECK_EQ(feed(&client, &session, sent->bytes, sent->count, pieces[i / 2]), TAKEN);
		CHECK(session_is_at_rest(&session));
		CHECK(!session.incoming);
		session_destroy(&session);
		output_shrink(&client.output);
		CHECK_EQ(service.budget.used_bytes, used_bytes);
		CHECK_EQ(client.got, expected->count);
		if (!CHECK(strcmp(client.replies, expected->bytes) == 0))
			printf("# pieces of %zu, direct %d: %.300s\n", pieces[i / 2], client.is_direct, client.replies);
	}
}

static void memcached_stores_in_place(void)
{
	static struct text sent, expected;

	sent.count = expected.count = 0;
	add_set(&sent, "set a 5 0 %zu\r\n", 'a', LARGE, "\r\nget a\r\n");
	add_set(&expected, "STORED\r\nVALUE a 5 %zu\r\n", 'a', LARGE, "\r\nEND\r\n");
	add_set(&sent, "set a 6 0 %zu noreply\r\n", 'b', PAGE_VALUE, "\r\nget a\r\n");
	add_set(&expected, "VALUE a 6 %zu\r\n", 'b', PAGE_VALUE, "\r\nEND\r\n");
	add_set(&sent, "add a 0 0 %zu\r\n", 'c', LARGE, "\r\n");
	add_set(&sent, "replace a 0 0 %zu\r\n", 'd', LARGE, "\r\n");
	add_set(&sent, "replace none 0 0 %zu\r\n", 'd', LARGE, "\r\n");
	add_set(&sent, "cas a 0 0 %zu 1\r\n", 'e', LARGE, "\r\n");
	add_set(&sent, "set a 0 0 %zu\r\n", 'f', LARGE, "xy"); /* badly ended: the next command is found behind it */
	add_set(&sent, "set gone 0 -1 %zu\r\n", 'g', LARGE, "\r\n");
	add_set(&sent, "append a 0 0 %zu\r\n", 'h', PAGE_VALUE, "\r\nget a gone none\r\n");
	add(&expected, "NOT_STORED\r\nSTORED\r\nNOT_STORED\r\nEXISTS\r\nCLIENT_ERROR bad data chunk\r\nSTORED\r\nSTORED\r\n");
	add_set(&expected, "VALUE a 0 24576\r\n", 'd', LARGE, "");
	add_set(&expected, "", 'h', PAGE_VALUE, "\r\nEND\r\n");
	add_set(&sent, "ms m %zu T0 F9 k Oq1\r\n", 'i', LARGE, "\r\nmg m v f\r\n");
	add_set(&expected, "HD km Oq1\r\nVA %zu f9\r\n", 'i', LARGE, "\r\n");
	add_set(&sent, "ms Zm9v %zu b\r\n", 'j', LARGE, "\r\nmg Zm9v s b\r\n");
	add(&expected, "HD\r\nHD s20480\r\n");
	add_set(&sent, "ms new %zu MA N0\r\n", 'k', LARGE, "\r\n"); /* appends to what is not there: created */
	add_set(&sent, "ms new %zu MA N0\r\n", 'l', LARGE, "\r\nmg new s\r\n");
	add(&expected, "HD\r\nHD\r\nHD s40960\r\n");
	add_set(&sent, "ms bad %zu x\r\n", 'm', LARGE, "\r\nmn\r\n");
	add(&expected, "CLIENT_ERROR invalid flag\r\nMN\r\n");
	check_conversation(&sent, &expected);
}

static void redis_stores_in_place(void)
{
	static struct text sent, expected;

	sent.count = expected.count = 0;
	add_set(&sent, "*3\r\n$3\r\nSET\r\n$1\r\na\r\n$%zu\r\n", 'a', LARGE, "\r\n*2\r\n$3\r\nGET\r\n$1\r\na\r\n");
	add_set(&expected, "+OK\r\n$%zu\r\n", 'a', LARGE, "\r\n");
	add_set(&sent, "*5\r\n$3\r\nset\r\n$1\r\na\r\n$%zu\r\n", 'b', LARGE, "\r\n$2\r\nEX\r\n$3\r\n100\r\n*2\r\n$3\r\nTTL\r\n$1\r\na\r\n");
	add(&expected, "+OK\r\n:100\r\n");
	add_set(&sent, "*4\r\n$3\r\nSET\r\n$1\r\na\r\n$%zu\r\n", 'c', LARGE, "\r\n$2\r\nNX\r\n");
	add(&expected, "$-1\r\n");
	add_set(&sent, "*4\r\n$3\r\nSET\r\n$1\r\na\r\n$%zu\r\n", 'd', PAGE_VALUE, "\r\n$3\r\nGET\r\n");
	add_set(&expected, "$%zu\r\n", 'b', LARGE, "\r\n");
	add_set(&sent, "*4\r\n$5\r\nSETEX\r\n$1\r\nb\r\n$2\r\n10\r\n$%zu\r\n", 'e', LARGE, "\r\n");
	add_set(&sent, "*3\r\n$5\r\nSETNX\r\n$1\r\nb\r\n$%zu\r\n", 'f', LARGE, "\r\n");
	add_set(&sent, "*3\r\n$6\r\nGETSET\r\n$1\r\na\r\n$%zu\r\n", 'g', LARGE, "\r\n");
	add(&expected, "+OK\r\n:0\r\n");
	add_set(&expected, "$%zu\r\n", 'd', PAGE_VALUE, "\r\n");
	add_set(&sent, "*4\r\n$3\r\nSET\r\n$1\r\nz\r\n$%zu\r\n", 'h', LARGE, "\r\n$4\r\nNOPE\r\n");
	add(&expected, "-ERR syntax error\r\n");
	add_set(&sent, "*4\r\n$3\r\nSET\r\n$1\r\nz\r\n$%zu\r\n", 'i', LARGE, "\r\n$70000\r\n"); /* a long word behind the value */
	add_set(&sent, "", 'i', 70000, "\r\n*2\r\n$6\r\nEXISTS\r\n$1\r\nz\r\n");
	add(&expected, "-ERR syntax error\r\n:0\r\n");
	add_set(&sent, "*1\r\n$5\r\nMULTI\r\n*3\r\n$3\r\nSET\r\n$1\r\na\r\n$%zu\r\n", 'j', LARGE,
		"\r\n*1\r\n$4\r\nEXEC\r\n*2\r\n$3\r\nGET\r\n$1\r\na\r\n");
	add_set(&expected, "+OK\r\n+QUEUED\r\n*1\r\n+OK\r\n$%zu\r\n", 'j', LARGE, "\r\n");
	check_conversation(&sent, &expected);
}

/* Its client is gone in the middle of a value: the key keeps what it has, and all memory is back. */
static void half_a_value_leaves_nothing(bool is_resp, bool is_direct)
{
	static struct text half, whole, expected;
	struct session session;

	begin(&client, &session);
	whole.count = half.count = expected.count = 0;
	add_set(&whole, "set a 0 0 %zu\r\n", 'a', LARGE, "\r\n");
	CHECK_EQ(feed(&client, &session, whole.bytes, whole.count, LONGEST_BYTES), TAKEN);
	session_destroy(&session);
	const size_t used_bytes = service.budget.used_bytes;
	for (size_t lost = 1; lost < LARGE + 2; lost = lost * 3 + 1) {
		session_init(&session, &service, &counts);
		session.out = &client.output;
		client.is_direct = is_direct;
		half.count = 0;
		add_set(&half, is_resp ? "*3\r\n$3\r\nSET\r\n$1\r\na\r\n$%zu\r\n" : "set a 0 0 %zu\r\n", 'x', LARGE, "\r\n");
		CHECK_EQ(feed(&client, &session, half.bytes, half.count - lost, 1000), TAKEN);
		CHECK(session.incoming != NULL);
		CHECK(!session_is_at_rest(&session));
		CHECK(service.budget.used_bytes >= used_bytes + LARGE);
		session_destroy(&session);
		CHECK_EQ(service.budget.used_bytes, used_bytes);
		CHECK_EQ(entries(), 1);
	}
	session_init(&session, &service, &counts);
	session.out = &client.output;
	client.got = 0;
	CHECK_EQ(feed(&client, &session, "get a\r\n", 7, 7), TAKEN);
	add_set(&expected, "VALUE a 0 %zu\r\n", 'a', LARGE, "\r\nEND\r\n");
	CHECK(strcmp(client.replies, expected.bytes) == 0);
	session_destroy(&session);
}

/* All pages that may go do so while a value is coming: it is there afterwards, or it is a miss; never half of it. */
static void a_value_survives_drops_under_way(void)
{
	static struct text sent, expected;
	struct session session;
	struct cache_drop drop;

	begin(&client, &session);
	client.is_direct = true;
	sent.count = expected.count = 0;
	add_set(&sent, "set a 0 0 %zu\r\n", 'a', LARGE, "\r\nget a\r\n");
	CHECK_EQ(feed(&client, &session, sent.bytes, LARGE / 2, 4096), TAKEN);
	CHECK_EQ(cache_drop(service.keyspace.cache, 1.0, 1, &drop), DRP_OK);
	CHECK_EQ(feed(&client, &session, sent.bytes + LARGE / 2, sent.count - LARGE / 2, LONGEST_BYTES), TAKEN);
	add_set(&expected, "STORED\r\nVALUE a 0 %zu\r\n", 'a', LARGE, "\r\nEND\r\n");
	CHECK(strcmp(client.replies, expected.bytes) == 0 || strcmp(client.replies, "STORED\r\nEND\r\n") == 0);
	session_destroy(&session);
}

/* Everything is forgotten while a value is coming. Its client is answered, and nobody finds an older one. */
static void a_value_may_come_through_a_flush(void)
{
	static struct text sent;
	struct session session;

	begin(&client, &session);
	client.is_direct = true;
	sent.count = 0;
	add_set(&sent, "set a 0 0 %zu\r\n", 'a', LARGE, "\r\n");
	CHECK_EQ(feed(&client, &session, sent.bytes, sent.count, LONGEST_BYTES), TAKEN);
	CHECK_EQ(feed(&client, &session, sent.bytes, sent.count - 100, 4096), TAKEN);
	CHECK_EQ(keyspace_clear(&service.keyspace), KEYSPACE_DONE);
	CHECK_EQ(feed(&client, &session, sent.bytes + sent.count - 100, 100, 4096), TAKEN);
	CHECK(strcmp(client.replies, "STORED\r\nSTORED\r\n") == 0);
	client.got = 0;
	CHECK_EQ(feed(&client, &session, "get a\r\n", 7, 7), TAKEN);
	CHECK(strcmp(client.replies, "END\r\n") == 0);
	CHECK_EQ(entries(), 0);
	CHECK_EQ(feed(&client, &session, sent.bytes, sent.count, 4096), TAKEN);
	CHECK_EQ(entries(), 1);
	session_destroy(&session);
}

/* What does not fit into the budget is refused as it comes, the old value does not stand in for it, and the next command is found. */
static void without_budget_a_value_is_refused(void)
{
	static struct text sent;
	struct session session;
	const size_t limit_bytes = service.budget.limit_bytes;

	begin(&client, &session);
	sent.count = 0;
	add_set(&sent, "set a 0 0 %zu\r\n", 'a', SMALL, "\r\n");
	add_set(&sent, "set a 0 0 %zu\r\n", 'a', LARGE, "\r\nget a\r\n");
	add_set(&sent, "ms b %zu\r\n", 'a', LARGE, "\r\nmn\r\n");
	service.budget.limit_bytes = service.budget.used_bytes + LARGE - 1;
	CHECK_EQ(feed(&client, &session, sent.bytes, sent.count, 1000), TAKEN);
	CHECK(strcmp(client.replies, "STORED\r\nSERVER_ERROR out of memory storing object\r\nEND\r\n"
				     "SERVER_ERROR out of memory storing object\r\nMN\r\n") == 0);
	CHECK(session_is_at_rest(&session));
	session_destroy(&session);

	begin(&client, &session);
	sent.count = 0;
	add_set(&sent, "*4\r\n$3\r\nSET\r\n$1\r\na\r\n$%zu\r\n", 'a', LARGE, "\r\n$2\r\nNX\r\n*2\r\n$3\r\nGET\r\n$1\r\na\r\n");
	CHECK_EQ(feed(&client, &session, sent.bytes, sent.count, 1000), TAKEN);
	CHECK(strcmp(client.replies, "-OOM no memory is left for this command\r\n$-1\r\n") == 0);
	session_destroy(&session);
	service.budget.limit_bytes = limit_bytes;
}

/* Whoever has shown no password takes no pages of the cache, and his value none of its memory for longer than it is read. */
static void strangers_get_no_pages(void)
{
	static struct text sent;
	struct session session;

	begin(&client, &session);
	session.is_authenticated = false;
	sent.count = 0;
	add_set(&sent, "set a 0 0 %zu\r\n", 'a', LARGE, "\r\n");
	CHECK_EQ(feed(&client, &session, sent.bytes, sent.count - 2, 1000), TAKEN);
	CHECK(!session.incoming);
	session_destroy(&session);
}

/* A value that one thread wrote: all of its letters are those of one version. */
static bool is_one_value(const char *reply)
{
	const char *at = strchr(reply, '\n');

	if (strcmp(reply, "END\r\n") == 0)
		return true;
	for (size_t i = 0; at && i < LARGE; i++)
		if (at[1 + i] != (char)(at[1] + (char)(i * 7 % 19)))
			return false;
	return at != NULL;
}

static void *store_and_read(void *argument)
{
	struct client *own = calloc(1, sizeof(*own));
	struct text *sent = malloc(sizeof(*sent));
	unsigned seed = (unsigned)(uintptr_t)argument;
	struct session session;

	REQUIRE(own && sent && output_init(&own->output, &service.budget, flush));
	session_init(&session, &service, &counts);
	session.counts = aligned_alloc(_Alignof(struct counts), sizeof(struct counts));
	REQUIRE(session.counts);
	memset(session.counts, 0, sizeof(struct counts));
	session.out = &own->output;
	own->is_direct = true;
	for (int round = 0; round < THREAD_ROUNDS; round++) {
		char line[64];
		const int key = rand_r(&seed) % THREAD_KEYS, what = rand_r(&seed) % 16;
		own->got = 0;
		if (what == 0) {
			keyspace_clear(&service.keyspace);
		} else if (what < 8) {
			sent->count = 0;
			snprintf(line, sizeof(line), "set k%d 0 0 %%zu\r\n", key);
			add_set(sent, line, (char)('A' + rand_r(&seed) % 26), LARGE, "\r\n");
			feed(own, &session, sent->bytes, sent->count, 1 + (size_t)rand_r(&seed) % LARGE);
			CHECK(strcmp(own->replies, "STORED\r\n") == 0);
		} else {
			const int count = snprintf(line, sizeof(line), "get k%d\r\n", key);
			feed(own, &session, line, (size_t)count, sizeof(line));
			CHECK(is_one_value(own->replies));
		}
	}
	session_destroy(&session);
	output_destroy(&own->output);
	free(session.counts);
	free(sent);
	free(own);
	return NULL;
}

static void many_threads_store_in_place(void)
{
	pthread_t threads[THREADS];

	for (uintptr_t i = 0; i < THREADS; i++)
		REQUIRE(pthread_create(&threads[i], NULL, store_and_read, (void *)(i + 1)) == 0);
	for (int i = 0; i < THREADS; i++)
		pthread_join(threads[i], NULL);
}

int main(void)
{
	set_up(&client);
	RUN(memcached_stores_in_place);
	RUN(redis_stores_in_place);
	RUN(half_a_value_leaves_nothing, false, false);
	RUN(half_a_value_leaves_nothing, false, true);
	RUN(half_a_value_leaves_nothing, true, true);
	RUN(a_value_survives_drops_under_way);
	RUN(a_value_may_come_through_a_flush);
	RUN(without_budget_a_value_is_refused);
	RUN(strangers_get_no_pages);
	RUN(many_threads_store_in_place);
	tear_down(&client);
	return check_done();
}
