/*
 * bench_server.c - how many commands a second a server of memcached's or Redis' protocol answers: run by benchmarks/server.py.
 *
 *   bench_server ADDRESS PROTOCOL VALUE_BYTES DEPTH CONNECTIONS KEYS SECONDS
 *
 * ADDRESS: the path of a unix socket, or a port of 127.0.0.1. PROTOCOL: text or resp. SECONDS 0: stores all keys, and ends. Else nine
 * of ten commands get, the others set, over those keys; a key that is not there is stored by its next set. Each connection has DEPTH
 * commands under way. One thread, so that it disturbs the server alike whichever it is.
 *
 * Prints: commands, seconds, hits in a hundred look-ups, and how long the DEPTH commands of one connection took from the first byte
 * that was sent to the last that came: median and 99.9th percentile, in microseconds.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

enum { HEAD_BYTES = 128, DEPTH_MOST = 64, SETS_OF_TEN = 1, SAMPLES_MOST = 1 << 22, FILL_BYTES = 128 * 1024 };

struct client {
	int descriptor;
	unsigned char *out; /* the batch that is sent */
	size_t out_bytes, sent;
	bool sets[DEPTH_MOST]; /* of the commands under way, in order */
	int under_way, answered;
	size_t skip;           /* bytes of the reply that is being read */
	size_t part_bytes;     /* of its beginning, that is too short to tell */
	char part[16];
	double began;
};

static bool is_resp;
static size_t value_bytes;
static unsigned key_count;
static int depth;
static unsigned char *value;
static float *samples; /* seconds */
static size_t sample_count;
static uint64_t random_state = 88172645463325252u, commands, gets, hits;

static void fail(const char *what)
{
	perror(what);
	exit(1);
}

static double now(void)
{
	struct timespec time;

	if (clock_gettime(CLOCK_MONOTONIC, &time) != 0)
		fail("clock_gettime");
	return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

static uint64_t next_random(void)
{
	random_state ^= random_state << 13;
	random_state ^= random_state >> 7;
	return random_state ^= random_state << 17;
}

static int connect_to(const char *address)
{
	const int port = atoi(address);
	struct sockaddr_un at_path = {.sun_family = AF_UNIX};
	struct sockaddr_in at_port = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
	const int on = 1;

	at_port.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	snprintf(at_path.sun_path, sizeof(at_path.sun_path), "%s", address);
	const int descriptor = socket(port > 0 ? AF_INET : AF_UNIX, SOCK_STREAM, 0);
	if (descriptor < 0 || connect(descriptor, port > 0 ? (struct sockaddr *)&at_port : (struct sockaddr *)&at_path,
				      port > 0 ? sizeof(at_port) : sizeof(at_path)) != 0)
		fail(address);
	if (port > 0 && setsockopt(descriptor, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)) != 0)
		fail("TCP_NODELAY");
	return descriptor;
}

static size_t put_set(unsigned char *at, unsigned key)
{
	const int head = is_resp ? sprintf((char *)at, "*3\r\n$3\r\nSET\r\n$9\r\nk%08u\r\n$%zu\r\n", key, value_bytes)
				 : sprintf((char *)at, "set k%08u 0 0 %zu\r\n", key, value_bytes);

	memcpy(at + head, value, value_bytes);
	memcpy(at + head + value_bytes, "\r\n", 2);
	return (size_t)head + value_bytes + 2;
}

static size_t put_get(unsigned char *at, unsigned key)
{
	return (size_t)(is_resp ? sprintf((char *)at, "*2\r\n$3\r\nGET\r\n$9\r\nk%08u\r\n", key)
				: sprintf((char *)at, "get k%08u\r\n", key));
}

static void send_some(struct client *client)
{
	while (client->sent < client->out_bytes) {
		const ssize_t sent = send(client->descriptor, client->out + client->sent, client->out_bytes - client->sent,
					  MSG_NOSIGNAL | MSG_DONTWAIT);
		if (sent < 0 && (errno == EAGAIN || errno == EINTR))
			return;
		if (sent < 0)
			fail("send");
		client->sent += (size_t)sent;
	}
}

static void begin_batch(struct client *client)
{
	client->out_bytes = client->sent = 0;
	client->answered = 0;
	client->under_way = depth;
	client->began = now();
	for (int i = 0; i < depth; i++) {
		const unsigned key = (unsigned)(next_random() % key_count);
		client->sets[i] = next_random() % 10 < SETS_OF_TEN;
		client->out_bytes += (client->sets[i] ? put_set : put_get)(client->out + client->out_bytes, key);
	}
	send_some(client);
}

/* The bytes of a reply that begins so; 0: too few of them are there. */
static size_t reply_bytes(bool is_set, const char *part, size_t count)
{
	char head[HEAD_BYTES];

	if (count < 5)
		return 0;
	if (is_set) {
		if (memcmp(part, is_resp ? "+OK\r\n" : "STORE", 5) != 0) {
			fprintf(stderr, "a set was answered by %.*s\n", (int)count, part);
			exit(1);
		}
		return is_resp ? 5 : 8;
	}
	gets++;
	if (memcmp(part, is_resp ? "$-1\r\n" : "END\r\n", 5) == 0)
		return 5;
	hits++;
	if (is_resp)
		return (size_t)sprintf(head, "$%zu\r\n", value_bytes) + value_bytes + 2;
	return (size_t)sprintf(head, "VALUE k%08u 0 %zu\r\n", 0u, value_bytes) + value_bytes + 7;
}

static void take(struct client *client, const unsigned char *bytes, size_t count)
{
	while (count > 0) {
		if (client->skip == 0) {
			const size_t more = 5 - client->part_bytes < count ? 5 - client->part_bytes : count;
			memcpy(client->part + client->part_bytes, bytes, more);
			client->part_bytes += more;
			bytes += more;
			count -= more;
			const size_t whole = reply_bytes(client->sets[client->answered], client->part, client->part_bytes);
			if (whole == 0)
				return;
			client->part_bytes = 0;
			client->skip = whole - 5;
		}
		const size_t skipped = client->skip < count ? client->skip : count;
		client->skip -= skipped;
		bytes += skipped;
		count -= skipped;
		if (client->skip == 0) {
			client->answered++;
			commands++;
		}
	}
}

/* Stores all keys, some at a time. */
static void fill(const char *address)
{
	const int descriptor = connect_to(address);
	const size_t reply = is_resp ? 5 : 8;
	const unsigned some = value_bytes < FILL_BYTES ? (unsigned)(FILL_BYTES / (value_bytes + HEAD_BYTES)) + 1 : 1;
	unsigned char *out = malloc((value_bytes + HEAD_BYTES) * some);
	char answer[4096];

	if (!out)
		fail("malloc");
	for (unsigned key = 0; key < key_count;) {
		size_t count = 0;
		unsigned sets = 0;
		for (; sets < some && key < key_count; sets++, key++)
			count += put_set(out + count, key);
		for (size_t sent = 0; sent < count;) {
			const ssize_t now_sent = send(descriptor, out + sent, count - sent, MSG_NOSIGNAL);
			if (now_sent < 0)
				fail("send");
			sent += (size_t)now_sent;
		}
		for (size_t got = 0; got < sets * reply;) {
			const ssize_t now_got = recv(descriptor, answer, sizeof(answer), 0);
			if (now_got <= 0)
				fail("recv");
			got += (size_t)now_got;
		}
	}
	free(out);
	close(descriptor);
}

static void end_batch(struct client *client)
{
	if (sample_count < SAMPLES_MOST)
		samples[sample_count++] = (float)(now() - client->began);
}

static int compare(const void *one, const void *other)
{
	const float a = *(const float *)one, b = *(const float *)other;
	return (a > b) - (a < b);
}

static double percentile_us(double share)
{
	return sample_count ? 1e6 * (double)samples[(size_t)(share * (double)(sample_count - 1))] : 0.0;
}

int main(int argc, char **argv)
{
	static unsigned char read_buffer[1 << 20];
	struct epoll_event events[64];

	if (argc != 8) {
		fputs("bench_server ADDRESS text|resp VALUE_BYTES DEPTH CONNECTIONS KEYS SECONDS\n", stderr);
		return 2;
	}
	is_resp = strcmp(argv[2], "resp") == 0;
	value_bytes = strtoul(argv[3], NULL, 10);
	depth = atoi(argv[4]);
	const int connections = atoi(argv[5]);
	key_count = (unsigned)atoi(argv[6]);
	const double seconds = atof(argv[7]);
	if (depth < 1 || depth > DEPTH_MOST || connections < 1 || key_count < 1)
		return 2;
	value = malloc(value_bytes);
	samples = malloc(SAMPLES_MOST * sizeof(*samples));
	if (!value || !samples)
		fail("malloc");
	memset(value, 'v', value_bytes);
	if (seconds <= 0) {
		fill(argv[1]);
		return 0;
	}

	const int poll = epoll_create1(0);
	for (int i = 0; i < connections; i++) {
		struct client *client = calloc(1, sizeof(*client));
		if (!client || !(client->out = malloc((value_bytes + HEAD_BYTES) * (size_t)depth)))
			fail("malloc");
		client->descriptor = connect_to(argv[1]);
		struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLET, .data.ptr = client};
		if (epoll_ctl(poll, EPOLL_CTL_ADD, client->descriptor, &event) != 0)
			fail("epoll_ctl");
		begin_batch(client);
	}
	const double began = now();
	double ended = began;
	while (ended - began < seconds) {
		const int ready = epoll_wait(poll, events, 64, 1000);
		for (int i = 0; i < ready; i++) {
			struct client *client = events[i].data.ptr;
			for (;;) {
				send_some(client);
				const ssize_t got = recv(client->descriptor, read_buffer, sizeof(read_buffer), MSG_DONTWAIT);
				if (got < 0 && (errno == EAGAIN || errno == EINTR))
					break;
				if (got <= 0)
					fail("recv");
				take(client, read_buffer, (size_t)got);
				if (client->answered == client->under_way) {
					end_batch(client);
					begin_batch(client);
				}
				if ((size_t)got < sizeof(read_buffer))
					break; /* edge-triggered: what comes later is reported */
			}
		}
		ended = now();
	}
	qsort(samples, sample_count, sizeof(*samples), compare);
	printf("%llu %.3f %.2f %.1f %.1f\n", (unsigned long long)commands, ended - began,
	       gets ? 100.0 * (double)hits / (double)gets : 0.0, percentile_us(0.5), percentile_us(0.999));
	return 0;
}
