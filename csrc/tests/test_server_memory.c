/*
 * test_server_memory.c - conversations with the server while one of its allocations fails: each in turn.
 *
 * Either the reply is the usual one, and what the command stored is there; or the client is told that there is no memory, or the
 * connection ends, and then its key has what it had before, or what the command stored, or nothing. Nothing is left behind, the budget
 * of all buffers is as it was, and the next connection is served.
 */
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "wrapped_alloc.h"

/* What the client allocates for itself does not fail. */
#define malloc(bytes) __real_malloc(bytes)
#define free(at) __real_free(at)
#include "server_client.h"
#undef malloc
#undef free

enum { MOST_ALLOCATIONS = 100, VALUE_BYTES = 100000 };

static struct {
	size_t calls, fails_at; /* 0: none */
	bool armed;
	long allocated;
} plan;

static bool fails(void)
{
	return plan.armed && ++plan.calls == plan.fails_at;
}

static void *counted(void *at)
{
	plan.allocated += at != NULL;
	return at;
}

void *__wrap_malloc(size_t bytes)
{
	return fails() ? NULL : counted(__real_malloc(bytes));
}

void *__wrap_calloc(size_t count, size_t bytes)
{
	return fails() ? NULL : counted(__real_calloc(count, bytes));
}

void *__wrap_realloc(void *old, size_t bytes)
{
	if (fails())
		return NULL;
	void *at = __real_realloc(old, bytes);
	plan.allocated += at && !old;
	return at;
}

void *__wrap_aligned_alloc(size_t alignment, size_t bytes)
{
	return fails() ? NULL : counted(__real_aligned_alloc(alignment, bytes));
}

void __wrap_free(void *at)
{
	plan.allocated -= at != NULL;
	__real_free(at);
}

static struct client client;
static char large[VALUE_BYTES + 100], large_is_there[VALUE_BYTES + 100];

/* usual: the reply begins so; then: what `look` gives afterwards; else what it gave before, or nothing. */
struct exchange {
	const char *name, *before, *command, *usual, *look, *old, *then;
};

#define GET_A "get a\r\n"
#define NOTHING "END\r\n"
#define ONE "set a 0 0 1\r\n1\r\n"
#define IS_ONE "VALUE a 0 1\r\n1\r\nEND\r\n"

static const struct exchange exchanges[] = {
	{"set", ONE, "set a 0 0 3\r\nabc\r\n", "STORED\r\n", GET_A, IS_ONE, "VALUE a 0 3\r\nabc\r\nEND\r\n"},
	{"set large", ONE, large, "STORED\r\n", GET_A, IS_ONE, large_is_there},
	{"get large", large, GET_A, large_is_there, GET_A, large_is_there, large_is_there},
	{"append", ONE, "append a 0 0 1\r\n2\r\n", "STORED\r\n", GET_A, IS_ONE, "VALUE a 0 2\r\n12\r\nEND\r\n"},
	{"incr", ONE, "incr a 5\r\n", "6\r\n", GET_A, IS_ONE, "VALUE a 0 1\r\n6\r\nEND\r\n"},
	{"touch", ONE, "touch a 100\r\n", "TOUCHED\r\n", GET_A, IS_ONE, IS_ONE},
	{"meta set", ONE, "ms YQ== 2 b T100\r\nhi\r\n", "HD\r\n", GET_A, IS_ONE, "VALUE a 0 2\r\nhi\r\nEND\r\n"},
	{"meta arithmetic", ONE, "ma a D4 v\r\n", "VA 1\r\n5\r\n", GET_A, IS_ONE, "VALUE a 0 1\r\n5\r\nEND\r\n"},
	{"meta get", ONE, "mg a v k f t Oq\r\n", "VA 1 ka f0 t-1 Oq\r\n1\r\n", GET_A, IS_ONE, IS_ONE},
	{"stats", ONE, "stats\r\n", "STAT ", GET_A, IS_ONE, IS_ONE},
	{"SET", ONE, "*3\r\n$3\r\nSET\r\n$1\r\na\r\n$2\r\nhi\r\n", "+OK\r\n", GET_A, IS_ONE, "VALUE a 0 2\r\nhi\r\nEND\r\n"},
	{"SET GET", ONE, "*4\r\n$3\r\nSET\r\n$1\r\na\r\n$2\r\nhi\r\n$3\r\nGET\r\n", "$1\r\n1\r\n", GET_A, IS_ONE,
	 "VALUE a 0 2\r\nhi\r\nEND\r\n"},
	{"APPEND", ONE, "*3\r\n$6\r\nAPPEND\r\n$1\r\na\r\n$1\r\n2\r\n", ":2\r\n", GET_A, IS_ONE, "VALUE a 0 2\r\n12\r\nEND\r\n"},
	{"INCRBY", ONE, "*3\r\n$6\r\nINCRBY\r\n$1\r\na\r\n$1\r\n7\r\n", ":8\r\n", GET_A, IS_ONE, "VALUE a 0 1\r\n8\r\nEND\r\n"},
	{"EXPIRE", ONE, "*3\r\n$6\r\nEXPIRE\r\n$1\r\na\r\n$3\r\n100\r\n", ":1\r\n", GET_A, IS_ONE, IS_ONE},
	{"MGET", ONE, "*3\r\n$4\r\nMGET\r\n$1\r\na\r\n$1\r\nb\r\n", "*2\r\n$1\r\n1\r\n$-1\r\n", GET_A, IS_ONE, IS_ONE},
	{"EXEC", ONE, "*1\r\n$5\r\nMULTI\r\n*2\r\n$4\r\nINCR\r\n$1\r\na\r\n*1\r\n$4\r\nEXEC\r\n", "+OK\r\n+QUEUED\r\n*1\r\n:2\r\n", GET_A,
	 IS_ONE, "VALUE a 0 1\r\n2\r\nEND\r\n"},
};

static bool tells_of_memory(const char *reply)
{
	return strstr(reply, "memory") || strstr(reply, "OOM") || strstr(reply, "EXECABORT");
}

/* In a connection of its own, in pieces. The reply is in client.replies. */
static enum taken say(const char *command, bool is_direct)
{
	struct session session;

	session_init(&session, &service, &counts);
	session.out = &client.output;
	client.got = 0;
	client.is_direct = is_direct;
	client.replies[0] = '\0';
	const enum taken taken = feed(&client, &session, command, strlen(command), 5000);
	session_destroy(&session);
	return taken;
}

/* One failure: of allocation number fails_at. Whether there were so many. */
static bool fails_once(const struct exchange *exchange, size_t fails_at, bool is_direct, size_t *told)
{
	REQUIRE(keyspace_clear(&service.keyspace) == KEYSPACE_DONE);
	CHECK_EQ(say(exchange->before, false), TAKEN);
	const size_t used_before = service.budget.used_bytes;

	plan.calls = 0;
	plan.fails_at = fails_at;
	plan.armed = true;
	const enum taken taken = say(exchange->command, is_direct);
	plan.armed = false;
	const bool reached = plan.calls >= fails_at;
	const bool is_usual = taken == TAKEN && strncmp(client.replies, exchange->usual, strlen(exchange->usual)) == 0;
	if (!CHECK(is_usual || (reached && (taken == TAKEN_CLOSE || tells_of_memory(client.replies)))))
		printf("# %s, allocation %zu: %d, %.200s\n", exchange->name, fails_at, (int)taken, client.replies);
	*told += !is_usual;
	CHECK_EQ(service.budget.used_bytes, used_before);
	CHECK_EQ(say(exchange->look, false), TAKEN);
	const bool is_done = strcmp(client.replies, exchange->then) == 0;
	const bool is_old = strcmp(client.replies, exchange->old) == 0 || strcmp(client.replies, NOTHING) == 0;
	if (!CHECK(is_done || (!is_usual && is_old)))
		printf("# %s, allocation %zu: then %.200s\n", exchange->name, fails_at, client.replies);
	return reached;
}

static void each_allocation_fails(const struct exchange *exchange)
{
	const long allocated_before = plan.allocated;

	set_up(&client);
	for (int is_direct = 0; is_direct < 2; is_direct++) {
		size_t told = 0, number = 1;

		while (number < MOST_ALLOCATIONS && check_failures() < 10 && fails_once(exchange, number, is_direct, &told))
			number++;
		CHECK(number < MOST_ALLOCATIONS);
		printf("# %s: %zu allocations, %zu of them told\n", exchange->name, number - 1, told);
	}
	tear_down(&client);
	CHECK_EQ(plan.allocated, allocated_before);
}

int main(void)
{
	snprintf(large, sizeof(large), "set a 0 0 %d\r\n%0*d\r\n", VALUE_BYTES, VALUE_BYTES, 7);
	snprintf(large_is_there, sizeof(large_is_there), "VALUE a 0 %d\r\n%0*d\r\nEND\r\n", VALUE_BYTES, VALUE_BYTES, 7);
	for (size_t i = 0; i < sizeof(exchanges) / sizeof(exchanges[0]); i++)
		RUN(each_allocation_fails, &exchanges[i]);
	return check_done();
}
