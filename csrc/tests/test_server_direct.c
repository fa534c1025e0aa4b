/*
 * test_server_direct.c - DROPPABLE.INCR, TOUCH and TTL without a socket: sums of 64 bits, what is no integer, an expiry that stays, and a
 * count that is gone.
 */
#include "server_client.h"

#include <stdarg.h>
#include <stdio.h>

#define KIND "4"
#define OTHER_KIND "0"
#define MOST "9223372036854775807"
#define LEAST "-9223372036854775808"

static struct client client;
static struct session session;

/* Sends one command, whose words are given, the last one NULL. Its reply. */
static const char *ask(const char *word, ...)
{
	static char command[512];
	char words[sizeof(command)];
	size_t count = 0, used = 0;
	va_list rest;

	va_start(rest, word);
	for (; word; word = va_arg(rest, const char *), count++)
		used += (size_t)snprintf(words + used, sizeof(words) - used, "$%zu\r\n%s\r\n", strlen(word), word);
	va_end(rest);
	REQUIRE(used < sizeof(words) - 16);
	const int length = snprintf(command, sizeof(command), "*%zu\r\n%s", count, words);
	client.got = 0;
	CHECK_EQ(feed(&client, &session, command, (size_t)length, 7), TAKEN);
	return client.replies;
}

static void replies(const char *expected, const char *reply)
{
	if (!CHECK(strcmp(expected, reply) == 0))
		printf("# expected %s# got %s", expected, reply);
}

static void store(const char *value, const char *kind, const char *milliseconds)
{
	replies("+OK\r\n", ask("DROPPABLE.SET", "n", kind, "", value, milliseconds, NULL));
}

static void sums_have_64_bits(void)
{
	replies("$-1\r\n", ask("DROPPABLE.INCR", "n", KIND, "1", NULL)); /* nothing is there */
	store("41", KIND, "0");
	replies(":42\r\n", ask("DROPPABLE.INCR", "n", KIND, "1", NULL));
	replies(":-8\r\n", ask("DROPPABLE.INCR", "n", KIND, "-50", NULL));
	store(MOST, KIND, "0");
	replies("-ERR the sum has more than 64 bits\r\n", ask("DROPPABLE.INCR", "n", KIND, "1", NULL));
	replies(":" MOST "\r\n", ask("DROPPABLE.INCR", "n", KIND, "0", NULL)); /* it stayed */
	store(LEAST, KIND, "0");
	replies("-ERR the sum has more than 64 bits\r\n", ask("DROPPABLE.INCR", "n", KIND, "-1", NULL));
	replies(":" LEAST "\r\n", ask("DROPPABLE.INCR", "n", KIND, "0", NULL));
	replies(":-1\r\n", ask("DROPPABLE.INCR", "n", KIND, MOST, NULL));
}

static void what_is_no_integer_stays(void)
{
	static const char *const values[] = {"", "x", "1x", " 1", "1.5", "99999999999999999999", "text that is longer than any integer"};

	for (size_t i = 0; i < sizeof(values) / sizeof(*values); i++) {
		store(values[i], KIND, "0");
		replies("-ERR the value is no integer\r\n", ask("DROPPABLE.INCR", "n", KIND, "1", NULL));
		char expected[128];
		snprintf(expected, sizeof(expected), "*3\r\n:" KIND "\r\n$0\r\n\r\n$%zu\r\n%s\r\n", strlen(values[i]), values[i]);
		replies(expected, ask("DROPPABLE.GET", "n", NULL));
	}
	store("7", OTHER_KIND, "0");
	replies("-ERR the value is no integer\r\n", ask("DROPPABLE.INCR", "n", KIND, "1", NULL));
	store("7", KIND, "0");
	CHECK(strncmp(ask("DROPPABLE.INCR", "n", "256", "1", NULL), "-ERR", 4) == 0);
	CHECK(strncmp(ask("DROPPABLE.INCR", "n", KIND, "one", NULL), "-ERR", 4) == 0);
	CHECK(strncmp(ask("DROPPABLE.INCR", "", KIND, "1", NULL), "-ERR", 4) == 0);
	replies(":8\r\n", ask("DROPPABLE.INCR", "n", KIND, "1", NULL));
}

static void a_sum_expires_when_the_value_would_have(void)
{
	replies(":-2\r\n", ask("DROPPABLE.TTL", "absent", NULL));
	replies(":0\r\n", ask("DROPPABLE.TOUCH", "absent", "1000", NULL));
	store("1", KIND, "0");
	replies(":-1\r\n", ask("DROPPABLE.TTL", "n", NULL));
	store("1", KIND, "3600000");
	replies(":2\r\n", ask("DROPPABLE.INCR", "n", KIND, "1", NULL));
	const long left = atol(ask("DROPPABLE.TTL", "n", NULL) + 1);
	CHECK(left > 0 && left <= 3600000);
	replies(":1\r\n", ask("DROPPABLE.TOUCH", "n", "0", NULL));
	replies(":-1\r\n", ask("DROPPABLE.TTL", "n", NULL));
	replies(":3\r\n", ask("DROPPABLE.INCR", "n", KIND, "1", NULL));
	replies(":1\r\n", ask("DROPPABLE.TOUCH", "n", "1", NULL));
	cache_advance_clock(service.direct, UINT64_C(1000000000));
	replies("$-1\r\n", ask("DROPPABLE.INCR", "n", KIND, "1", NULL));
	replies(":-2\r\n", ask("DROPPABLE.TTL", "n", NULL));
}

/* A count that is gone does not begin at 0 by itself. */
static void a_count_that_is_gone_is_absent(void)
{
	store("41", KIND, "0");
	replies("+OK\r\n", ask("DROPPABLE.CLEAR", NULL));
	replies("$-1\r\n", ask("DROPPABLE.INCR", "n", KIND, "1", NULL));
	replies(":-2\r\n", ask("DROPPABLE.TTL", "n", NULL));
}

int main(void)
{
	set_up(&client);
	begin(&client, &session);
	session.is_local = true;
	RUN(sums_have_64_bits);
	RUN(what_is_no_integer_stays);
	RUN(a_sum_expires_when_the_value_would_have);
	RUN(a_count_that_is_gone_is_absent);
	session_destroy(&session);
	tear_down(&client);
	return check_done();
}
