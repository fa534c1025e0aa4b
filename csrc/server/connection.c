/* connection.c - one client's socket, and what of its bytes has to wait. See connection.h for the picture. */
#include "server/connection.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

enum { BYTES_ALIGN = 4096, LEAST_INPUT_BYTES = 512, HAND_OVER_BYTES = 32 * 1024 };

static size_t there(const struct bytes *bytes)
{
	return bytes->end - bytes->first;
}

static void bytes_free(struct bytes *bytes, struct budget *budget)
{
	free(bytes->data);
	budget_give(budget, bytes->capacity);
	*bytes = (struct bytes){0};
}

/* Back to the bench, where the next large value finds it. */
static void bytes_put_away(struct bytes *bytes, struct workbench *bench)
{
	if (bytes->capacity > BYTES_ALIGN && bytes->capacity <= SPARE_MOST_BYTES && bench->spare_count < SPARES &&
	    bytes->capacity <= bench->spares_most_bytes - bench->spare_bytes) {
		bench->spare_bytes += bytes->capacity;
		bench->spares[bench->spare_count++] = (struct bytes){.data = bytes->data, .capacity = bytes->capacity};
		*bytes = (struct bytes){0};
	} else if (bytes->data) {
		bytes_free(bytes, bench->budget);
	}
}

static void free_spares(struct workbench *bench)
{
	while (bench->spare_count > 0)
		bytes_free(&bench->spares[--bench->spare_count], bench->budget);
	bench->spare_bytes = 0;
}

/* Memory of at least that size. False: the bench has none. */
static bool take_spare(struct workbench *bench, size_t capacity, struct bytes *out)
{
	for (unsigned i = 0; i < bench->spare_count; i++)
		if (bench->spares[i].capacity >= capacity) {
			*out = bench->spares[i];
			bench->spare_bytes -= out->capacity;
			bench->spares[i] = bench->spares[--bench->spare_count];
			return true;
		}
	return false;
}

/* Room for so many bytes in all, with what is there at its front. False: there is no memory, and nothing is lost. */
static bool bytes_grow(struct bytes *bytes, size_t capacity, struct workbench *bench)
{
	if (bytes->first > 0) {
		memmove(bytes->data, bytes->data + bytes->first, there(bytes));
		bytes->end -= bytes->first;
		bytes->first = 0;
	}
	if (bytes->capacity >= capacity)
		return true;
	if (capacity > LEAST_INPUT_BYTES)
		capacity = (capacity + BYTES_ALIGN - 1) & ~(size_t)(BYTES_ALIGN - 1);
	if (!bytes->data && capacity > BYTES_ALIGN && take_spare(bench, capacity, bytes))
		return true;
	if (!budget_take(bench->budget, capacity - bytes->capacity)) {
		free_spares(bench);
		if (!budget_take(bench->budget, capacity - bytes->capacity))
			return false;
	}
	unsigned char *grown = realloc(bytes->data, capacity);
	if (!grown) {
		budget_give(bench->budget, capacity - bytes->capacity);
		return false;
	}
	bytes->data = grown;
	bytes->capacity = capacity;
	return true;
}

/* With these bytes the descriptors leave that the client asked for: whoever reads the first of them gets them. */
static ssize_t send_descriptors(const struct connection *connection, const unsigned char *data, size_t count)
{
	const struct service *service = connection->session.service;
	const size_t bytes = service->passed_count * sizeof(service->passed[0]);
	_Alignas(struct cmsghdr) char space[CMSG_SPACE(sizeof(service->passed))] = {0};
	struct iovec part = {(void *)(uintptr_t)data, count};
	struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = space, .msg_controllen = CMSG_SPACE(bytes)};
	struct cmsghdr *head = CMSG_FIRSTHDR(&message);

	head->cmsg_level = SOL_SOCKET;
	head->cmsg_type = SCM_RIGHTS;
	head->cmsg_len = CMSG_LEN(bytes);
	memcpy(CMSG_DATA(head), service->passed, bytes);
	return sendmsg(connection->descriptor, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
}

/* Sends what the socket takes. How much it was. */
static size_t send_some(struct connection *connection, const unsigned char *data, size_t count, struct counts *counts)
{
	bool *const passes = &connection->session.passes;
	size_t sent = 0;

	while (sent < count && !connection->is_dead) {
		const ssize_t now = *passes ? send_descriptors(connection, data + sent, count - sent)
					    : send(connection->descriptor, data + sent, count - sent, MSG_NOSIGNAL | MSG_DONTWAIT);
		if (now > 0)
			*passes = false;
		if (now >= 0)
			sent += (size_t)now;
		else if (errno == EAGAIN || errno == EWOULDBLOCK)
			break;
		else if (errno == ETOOMANYREFS)
			*passes = false; /* clients hold back so many, unread, that this user may pass no more: this one asks by its socket */
		else if (errno != EINTR)
			connection->is_dead = true; /* also when the kernel has no memory: the client sees an end, not a hole */
	}
	count_add(&counts->bytes_written, sent);
	return sent;
}

static void flush(struct output *output)
{
	struct workbench *bench = (struct workbench *)output;
	struct connection *connection = bench->connection;

	if (there(&connection->pending) == 0)
		output->first += send_some(connection, output->bytes + output->first, output_waiting(output), bench->counts);
	if (connection->is_dead || output_waiting(output) == 0)
		output->first = output->used = 0;
}

bool workbench_init(struct workbench *bench, struct budget *budget, struct counts *counts, unsigned benches)
{
	*bench = (struct workbench){.budget = budget, .counts = counts,
				    .spares_most_bytes = budget->limit_bytes / SPARES_SHARE / benches};
	bench->read = malloc(READ_BYTES);
	if (!bench->read)
		return false;
	if (!output_init(&bench->output, budget, flush)) {
		free(bench->read);
		return false;
	}
	return true;
}

void workbench_destroy(struct workbench *bench)
{
	free_spares(bench);
	output_destroy(&bench->output);
	free(bench->read);
}

void workbench_shrink(struct workbench *bench)
{
	free_spares(bench);
	output_shrink(&bench->output);
}

static bool is_unix(int descriptor)
{
	int domain = 0;
	socklen_t bytes = sizeof(domain);

	return getsockopt(descriptor, SOL_SOCKET, SO_DOMAIN, &domain, &bytes) == 0 && domain == AF_UNIX;
}

struct connection *connection_create(int descriptor, struct service *service, struct counts *counts)
{
	struct connection *connection = calloc(1, sizeof(*connection));

	if (!connection)
		return NULL;
	connection->descriptor = descriptor;
	session_init(&connection->session, service, counts);
	connection->session.is_local = is_unix(descriptor);
	return connection;
}

void connection_destroy(struct connection *connection, struct workbench *bench)
{
	bytes_free(&connection->input, bench->budget);
	bytes_free(&connection->pending, bench->budget);
	session_destroy(&connection->session);
	close(connection->descriptor);
	free(connection);
}

bool connection_is_at_rest(const struct connection *connection)
{
	return there(&connection->input) == 0 && there(&connection->pending) == 0 && session_is_at_rest(&connection->session);
}

uint32_t connection_wants(const struct connection *connection)
{
	return there(&connection->pending) > 0 ? EPOLLOUT : EPOLLIN;
}

/* Much of it goes with the memory that it lies in, and the bench gets other memory. False: there is none. */
static bool hand_over(struct connection *connection, struct workbench *bench)
{
	struct output *output = &bench->output;
	struct bytes other = {0};

	if (there(&connection->pending) > 0 || output_waiting(output) < HAND_OVER_BYTES ||
	    !bytes_grow(&other, OUTPUT_BYTES, bench))
		return false;
	bytes_free(&connection->pending, bench->budget);
	connection->pending = (struct bytes){output->bytes, output->first, output->used, output->capacity};
	output->bytes = other.data;
	output->capacity = other.capacity;
	return true;
}

/* What the client has not taken yet becomes its own. */
static void keep_replies(struct connection *connection, struct workbench *bench)
{
	struct output *output = &bench->output;
	struct bytes *pending = &connection->pending;
	const size_t count = output_waiting(output);

	if (output->is_broken) {
		connection->is_dead = true; /* a reply is missing: what comes after it would be taken for it */
		output->is_broken = false;
	}
	if (count > 0 && !connection->is_dead && !hand_over(connection, bench)) {
		if (bytes_grow(pending, there(pending) + count, bench)) {
			memcpy(pending->data + pending->end, output->bytes + output->first, count);
			pending->end += count;
		} else {
			COUNT(bench->counts, buffers_refused);
			connection->is_dead = true;
		}
	}
	output->first = output->used = 0;
}

/* What is no whole command yet stays, with room for what is missing. False: there is no memory. */
static bool keep_input(struct connection *connection, struct workbench *bench, const unsigned char *rest, size_t count)
{
	struct bytes *input = &connection->input;
	size_t capacity = connection->session.need_bytes;

	if (count == 0) {
		bytes_put_away(input, bench);
		return true;
	}
	if (capacity <= count + 1) /* a line, of which nobody knows how long it is */
		capacity = count < LEAST_INPUT_BYTES / 2 ? LEAST_INPUT_BYTES : 2 * count;
	if (input->data && rest >= input->data && rest < input->data + input->capacity) {
		input->first = (size_t)(rest - input->data);
		input->end = input->first + count;
		return bytes_grow(input, capacity, bench);
	}
	DRP_ASSERT(there(input) == 0);
	if (!bytes_grow(input, capacity, bench))
		return false;
	memcpy(input->data, rest, count);
	input->first = 0;
	input->end = count;
	return true;
}

/* Runs what is whole of these bytes, and keeps the rest. */
static void take(struct connection *connection, struct workbench *bench, const unsigned char *bytes, size_t count)
{
	struct session *session = &connection->session;

	bench->connection = connection;
	session->out = &bench->output;
	for (;;) {
		size_t used;
		const enum taken taken = session_take(session, bytes, count, &used);
		bytes += used;
		count -= used;
		flush(&bench->output);
		if (taken == TAKEN_CLOSE) {
			connection->is_last = true;
			count = 0;
		}
		if (taken == TAKEN_BLOCKED && output_waiting(&bench->output) == 0 && !connection->is_dead)
			continue; /* the client took it meanwhile */
		keep_replies(connection, bench);
		if (connection->is_dead)
			count = 0;
		if (keep_input(connection, bench, bytes, count))
			return;
		COUNT(bench->counts, buffers_refused);
		if (taken == TAKEN_BLOCKED || session->refuses_value || session->need_bytes == 0) {
			connection->is_dead = true;
			return;
		}
		session->refuses_value = true; /* its command is told, and its value skipped */
		session->need_bytes = 0;
		if (there(&connection->input) > 0) /* it may have been moved to the front */
			bytes = connection->input.data + connection->input.first;
	}
}

/* Sends what is pending. True: all of it has left. */
static bool send_pending(struct connection *connection, struct workbench *bench)
{
	struct bytes *pending = &connection->pending;

	pending->first += send_some(connection, pending->data + pending->first, there(pending), bench->counts);
	if (connection->is_dead || there(pending) > 0)
		return false;
	bytes_put_away(pending, bench);
	return true;
}

/*
 * One read of the socket: to where half a command waits, or to the bench; while a value is on its way into the cache, to its place
 * there, and to the bench what comes behind it.
 */
static void read_some(struct connection *connection, struct workbench *bench)
{
	struct bytes *input = &connection->input;
	const bool waits = there(input) > 0;
	struct iovec to[2] = {{NULL, 0}, {waits ? input->data + input->end : bench->read,
					  waits ? input->capacity - input->end : READ_BYTES}};
	to[0].iov_base = session_room(&connection->session, &to[0].iov_len);
	struct msghdr message = {.msg_iov = to[0].iov_base ? &to[0] : &to[1], .msg_iovlen = to[0].iov_base ? 2 : 1};
	ssize_t got;

	DRP_ASSERT(to[1].iov_len > 0 && !(waits && to[0].iov_base));
	do
		got = recvmsg(connection->descriptor, &message, MSG_DONTWAIT);
	while (got < 0 && errno == EINTR);
	if (got < 0) {
		connection->is_dead = errno != EAGAIN && errno != EWOULDBLOCK;
		return;
	}
	if (got == 0) {
		connection->is_last = true; /* it says no more, but may still listen: half a command is none */
		return;
	}
	count_add(&bench->counts->bytes_read, (uint64_t)got);
	if (to[0].iov_base) {
		const size_t filled = (size_t)got < to[0].iov_len ? (size_t)got : to[0].iov_len;
		session_filled(&connection->session, filled);
		got -= (ssize_t)filled;
	}
	if (!waits) {
		if (got > 0)
			take(connection, bench, bench->read, (size_t)got);
		return;
	}
	input->end += (size_t)got;
	take(connection, bench, input->data + input->first, there(input));
}

bool connection_serve(struct connection *connection, struct workbench *bench)
{
	if (there(&connection->pending) > 0) {
		if (!send_pending(connection, bench))
			return !connection->is_dead;
		const struct bytes *input = &connection->input;
		if (!connection->is_last) /* also without input: a command whose value lies in the cache may have waited for this */
			take(connection, bench, there(input) > 0 ? input->data + input->first : bench->read, there(input));
	} else if (!connection->is_last) {
		read_some(connection, bench);
	}
	return !connection->is_dead && (!connection->is_last || there(&connection->pending) > 0);
}

bool connection_send_mail(struct connection *connection, struct workbench *bench)
{
	if (there(&connection->pending) > 0 || connection->is_last)
		return true; /* later: its client reads slowly */
	bench->connection = connection;
	connection->session.out = &bench->output;
	session_send_mail(&connection->session);
	flush(&bench->output);
	keep_replies(connection, bench);
	return !connection->is_dead;
}
