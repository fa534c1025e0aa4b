/*
 * test_server_session.c - memcached's and Redis' protocols without a socket: whatever pieces the bytes of a conversation arrive in, the
 * same replies leave. Hostile bytes neither crash it nor make it ask for memory without bound.
 */
#include "server_client.h"

enum { GARBAGE_ROUNDS = 20000 };

static struct client client;

static const char conversation[] =
	"set a 5 0 3\r\nabc\r\nget a\r\ngets nope a\r\nset b 0 0 0\r\n\r\nget a b\r\nadd a 0 0 1\r\nx\r\nappend a 0 0 2\r\nde\r\n"
	"set bin 0 0 10\r\nx\r\nget a\r\n\r\nget bin\r\nincr a 1\r\nset n 0 0 2\r\n10\r\nincr n 5\r\ndecr n 20\r\nget n\r\n"
	"set q 0 0 1 noreply\r\nq\r\nget q\r\ndelete q\r\ndelete q\r\ntouch a 100\r\ngat 100 a\r\nfoo\r\n\r\nset c 0 0 2\r\nabc\r\n\r\n"
	"mg a v f s k Oxyz\r\nms m 3 T100 F7\r\nabc\r\nmg m v f t\r\nmg nope\r\nma n D3 v\r\nmd m q\r\nmn\r\nmd m\r\n"
	"set big 0 0 2000000\r\n";

static const char expected[] =
	"STORED\r\nVALUE a 5 3\r\nabc\r\nEND\r\nVALUE a 5 3 #\r\nabc\r\nEND\r\nSTORED\r\nVALUE a 5 3\r\nabc\r\nVALUE b 0 0\r\n\r\n"
	"END\r\nNOT_STORED\r\nSTORED\r\nSTORED\r\nVALUE bin 0 10\r\nx\r\nget a\r\n\r\nEND\r\n"
	"CLIENT_ERROR cannot increment or decrement non-numeric value\r\nSTORED\r\n15\r\n0\r\nVALUE n 0 2\r\n0 \r\nEND\r\n"
	"VALUE q 0 1\r\nq\r\nEND\r\nDELETED\r\nNOT_FOUND\r\nTOUCHED\r\nVALUE a 5 5\r\nabcde\r\nEND\r\nERROR\r\nERROR\r\n"
	"CLIENT_ERROR bad data chunk\r\nERROR\r\nERROR\r\n"
	"VA 5 f5 s5 ka Oxyz\r\nabcde\r\nHD\r\nVA 3 f7 t100\r\nabc\r\nEN\r\nVA 1\r\n3\r\nMN\r\nNF\r\n"
	"SERVER_ERROR object too large for cache\r\n";

/* The number of a version is a new one each time. */
static void hide_version(char *text)
{
	char *at = strstr(text, "VALUE a 5 3 1");

	if (!at)
		return;
	char *number = at + strlen("VALUE a 5 3 ");
	const size_t digits = strspn(number, "0123456789");
	*number = '#';
	memmove(number + 1, number + digits, strlen(number + digits) + 1);
}

static void replies_do_not_depend_on_the_pieces(size_t piece)
{
	struct session session;

	begin(&client, &session);
	CHECK_EQ(feed(&client, &session, conversation, sizeof(conversation) - 1, piece), TAKEN);
	hide_version(client.replies);
	if (!CHECK(strcmp(client.replies, expected) == 0))
		for (char *line = strtok(client.replies, "\n"); line; line = strtok(NULL, "\n"))
			printf("# %s\n", line);
	CHECK_EQ(session.skip_bytes, 2000002); /* the value that is too large is skipped as it comes */
	session_destroy(&session);
}

static void all_pieces(void)
{
	for (size_t piece = 1; piece < sizeof(conversation) && check_failures() == 0; piece++)
		replies_do_not_depend_on_the_pieces(piece);
}

#define RESP_2(a, b) "*2\r\n$" a "\r\n$" b "\r\n"

static const char resp_conversation[] =
	"*3\r\n$3\r\nSET\r\n$1\r\na\r\n$3\r\nabc\r\n" RESP_2("3\r\nGET", "1\r\na") RESP_2("3\r\nget", "4\r\nnope")
	"*-1\r\n*0\r\n*4\r\n$4\r\nMGET\r\n$1\r\na\r\n$0\r\n\r\n$1\r\na\r\n" RESP_2("5\r\nHELLO", "1\r\n3")
	RESP_2("3\r\nGET", "4\r\nnope") "*1\r\n$5\r\nMULTI\r\n" RESP_2("4\r\nINCR", "1\r\nn") RESP_2("3\r\nGET", "1\r\nn")
	"*1\r\n$4\r\nEXEC\r\n" RESP_2("4\r\nNOPE", "3\r\n\r\n\xff") "*1\r\n$3\r\nGET\r\n"
	"*3\r\n$3\r\nSET\r\n$1\r\na\r\n$2000000\r\n";

static const char resp_expected[] =
	"+OK\r\n$3\r\nabc\r\n$-1\r\n*3\r\n$3\r\nabc\r\n$-1\r\n$3\r\nabc\r\n"
	"%7\r\n$6\r\nserver\r\n$5\r\nredis\r\n$7\r\nversion\r\n$5\r\n" SERVICE_SPEAKS_REDIS "\r\n$5\r\nproto\r\n:3\r\n"
	"$2\r\nid\r\n:#\r\n$4\r\nmode\r\n$10\r\nstandalone\r\n$4\r\nrole\r\n$6\r\nmaster\r\n$7\r\nmodules\r\n*0\r\n"
	"_\r\n+OK\r\n+QUEUED\r\n+QUEUED\r\n*2\r\n:1\r\n$1\r\n1\r\n-ERR unknown command 'NOPE'\r\n"
	"-ERR wrong number of arguments for 'get' command\r\n-ERR the value is larger than the server's --max-value\r\n";

static void all_pieces_of_resp(void)
{
	for (size_t piece = 1; piece < sizeof(resp_conversation) && check_failures() == 0; piece++) {
		struct session session;
		begin(&client, &session);
		CHECK_EQ(feed(&client, &session, resp_conversation, sizeof(resp_conversation) - 1, piece), TAKEN);
		char *id = strstr(client.replies, "$2\r\nid\r\n:");
		REQUIRE(id);
		id += strlen("$2\r\nid\r\n:");
		const size_t digits = strspn(id, "0123456789");
		*id = '#';
		memmove(id + 1, id + digits, strlen(id + digits) + 1);
		if (!CHECK(strcmp(client.replies, resp_expected) == 0))
			for (char *line = strtok(client.replies, "\n"); line; line = strtok(NULL, "\n"))
				printf("# piece %zu: %s\n", piece, line);
		CHECK_EQ(session.skip_bytes, 2000002);
		session_destroy(&session);
	}
}

static void strings_without_memory_are_refused(void)
{
	static const char start[] = "*3\r\n$3\r\nSET\r\n$1\r\na\r\n$100\r\nabc";
	struct session session;
	size_t used;

	begin(&client, &session);
	CHECK_EQ(session_take(&session, (const unsigned char *)start, sizeof(start) - 1, &used), TAKEN);
	CHECK_EQ(used, 0);
	CHECK_EQ(session.need_bytes, sizeof(start) - 1 - 3 + 102);
	session.refuses_value = true;
	session.need_bytes = 0;
	CHECK_EQ(session_take(&session, (const unsigned char *)start, sizeof(start) - 1, &used), TAKEN);
	CHECK_EQ(used, sizeof(start) - 1);
	CHECK_EQ(session.skip_bytes, 99);
	flush(&client.output);
	CHECK(strcmp(client.replies, "-OOM no memory is left for this command\r\n") == 0);
	session_destroy(&session);
}

/* Nobody can make it hold more of a conversation than one command may have. */
static void a_line_without_an_end_is_given_up(void)
{
	static char line[1 << 15];
	struct session session;
	size_t used;

	begin(&client, &session);
	memset(line, 'a', sizeof(line));
	CHECK_EQ(session_take(&session, (unsigned char *)line, 2048, &used), TAKEN);
	CHECK_EQ(used, 0);
	CHECK_EQ(session_take(&session, (unsigned char *)line, 2049, &used), TAKEN_CLOSE);
	session_destroy(&session);

	begin(&client, &session);
	memcpy(line, "get ", 4); /* many keys may be long, but not without bound */
	CHECK_EQ(session_take(&session, (unsigned char *)line, sizeof(line), &used), TAKEN);
	service.settings.max_request_bytes = sizeof(line) - 1;
	session.need_bytes = 0;
	CHECK_EQ(session_take(&session, (unsigned char *)line, sizeof(line), &used), TAKEN_CLOSE);
	service.settings.max_request_bytes = 4 << 20;
	session_destroy(&session);
}

static void other_protocols_are_hung_up_on(void)
{
	static const char *const starts[] = {"GET / HTTP/1.1\r\n", "POST /x HTTP/1.1\r\n", "OPTIONS * HTTP/1.1\r\n", "Host: a\r\n"};
	struct session session;

	for (size_t i = 0; i < sizeof(starts) / sizeof(starts[0]); i++) {
		begin(&client, &session);
		CHECK_EQ(feed(&client, &session, starts[i], strlen(starts[i]), 100), TAKEN_CLOSE);
		CHECK_EQ(client.got, 0);
		session_destroy(&session);
	}
}

/* A slow reader gets no further than its buffer, and goes on from there: each key is answered once. */
static void a_slow_reader_waits(void)
{
	static char value[40000], command[45000];
	struct session session;
	size_t used, blocked = 0;

	begin(&client, &session);
	memset(value, 'v', sizeof(value));
	const int head = sprintf(command, "set k 0 0 %zu\r\n", sizeof(value));
	memcpy(command + head, value, sizeof(value));
	memcpy(command + head + sizeof(value), "\r\n", 2);
	CHECK_EQ(feed(&client, &session, command, (size_t)head + sizeof(value) + 2, sizeof(command)), TAKEN);
	client.got = 0;
	client.is_slow = true;
	static const char get[] = "get k k k k k k k k\r\n";
	for (;;) {
		const enum taken taken = session_take(&session, (const unsigned char *)get, sizeof(get) - 1, &used);
		REQUIRE(client.output.used <= OUTPUT_FULL_BYTES + sizeof(value) + 100);
		if (taken == TAKEN)
			break;
		CHECK_EQ(taken, TAKEN_BLOCKED);
		CHECK_EQ(used, 0);
		blocked++;
		client.is_slow = false;
		flush(&client.output);
		client.is_slow = true;
	}
	client.is_slow = false;
	flush(&client.output);
	CHECK(blocked >= 3);
	CHECK_EQ(client.got, 8 * (strlen("VALUE k 0 40000\r\n\r\n") + sizeof(value)) + strlen("END\r\n"));
	session_destroy(&session);
}

static void a_value_without_memory_is_refused(void)
{
	static const char start[] = "set a 0 0 100\r\nabc";
	struct session session;
	size_t used;

	begin(&client, &session);
	CHECK_EQ(session_take(&session, (const unsigned char *)start, sizeof(start) - 1, &used), TAKEN);
	CHECK_EQ(used, 0);
	CHECK_EQ(session.need_bytes, strlen("set a 0 0 100\r\n") + 102);
	session.refuses_value = true;
	session.need_bytes = 0;
	CHECK_EQ(session_take(&session, (const unsigned char *)start, sizeof(start) - 1, &used), TAKEN);
	CHECK_EQ(used, sizeof(start) - 1);
	CHECK_EQ(session.skip_bytes, 99);
	CHECK(!session.refuses_value);
	flush(&client.output);
	CHECK(strcmp(client.replies, "SERVER_ERROR out of memory storing object\r\n") == 0);
	session_destroy(&session);
}

/* Words that are nearly commands, with numbers at all limits: no crash, no reading on, and need_bytes stays in bounds. */
static void garbage_is_survived(void)
{
	static const char *const words[] = {
		"get", "set", "mg", "ms", "ma", "md", "cas", "gat", "incr", "stats", "a", "k", "0", "1", "-1", "4294967296",
		"18446744073709551615", "99999999999999999999999", "2147483647", "noreply", "\r\n", "\n", "\r", " ", "b", "v",
		"T-1", "N5", "Mx", "q", "O", "\xff", "", "abc\r\n", "flush_all", "touch", "S10", "Zm9v", "=", "debugtime", "me", "shutdown",
		"*1\r\n", "*2\r\n", "*3\r\n", "$3\r\nGET\r\n", "$3\r\nSET\r\n", "$1\r\na\r\n", "$-1\r\n", "$100\r\n", "*-1\r\n", "$5\r\nMULTI\r\n",
		"$4\r\nEXEC\r\n", "$0\r\n\r\n", "$99999999\r\n", "*1000000\r\n", "$5\r\nHELLO\r\n", "$1\r\n3\r\n", "$6\r\nCLIENT\r\n", "$4\r\nINFO\r\n",
	};
	unsigned seed = 12345;

	for (int round = 0; round < GARBAGE_ROUNDS; round++) {
		struct session session;
		char bytes[1024];
		size_t count = 0;
		begin(&client, &session);
		for (int i = 0; i < 30; i++) {
			const char *word = words[rand_r(&seed) % (sizeof(words) / sizeof(words[0]))];
			const char *ends = round % 2 ? "" : rand_r(&seed) % 4 ? " " : "\r\n"; /* the strings of RESP have theirs */
			if (round % 2 && i == 0)
				word = "*2\r\n";
			count += (size_t)snprintf(bytes + count, sizeof(bytes) - count, "%s%s", word, ends);
			REQUIRE(count < sizeof(bytes));
			if (rand_r(&seed) % (round % 2 ? 64 : 8) == 0)
				bytes[count++] = (char)(rand_r(&seed) % 256);
		}
		feed(&client, &session, bytes, count, 1 + (size_t)rand_r(&seed) % 100);
		CHECK(session.need_bytes <= (4 << 20));
		session_destroy(&session);
	}
}

int main(void)
{
	set_up(&client);
	RUN(all_pieces);
	RUN(all_pieces_of_resp);
	RUN(strings_without_memory_are_refused);
	RUN(a_line_without_an_end_is_given_up);
	RUN(other_protocols_are_hung_up_on);
	RUN(a_slow_reader_waits);
	RUN(a_value_without_memory_is_refused);
	RUN(garbage_is_survived);
	tear_down(&client);
	return check_done();
}
