/* worker.c - one thread that serves connections as their sockets become ready. See worker.h for the picture. */
#include "server/worker.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "os/prim.h"
#include "server/connection.h"

enum {
	EVENTS = 64,        /* served between two looks at the clock */
	LOOK_MS = 1000,     /* between two looks for connections that say nothing */
	STOP_SECONDS = 5,   /* so long a client has for the rest of its command, or to take its reply */
	STOP_LOOK_MS = 100,
};

#define NS_PER_SECOND UINT64_C(1000000000)

struct worker {
	struct service *service;
	struct counts *counts;
	pthread_t thread;
	int poll, wake;
	struct workbench bench;
	pthread_mutex_t lock; /* of arrivals */
	struct connection *arrivals;
	struct connection *first, *last; /* the longest unheard of first */
	_Atomic bool has_mail; /* for some of its connections */
	uint64_t now_ns, looked_ns;
	uint64_t stop_ns; /* when it leaves, whoever is still there; 0: it does not stop */
};

static void unlink_connection(struct worker *worker, struct connection *connection)
{
	*(connection->previous ? &connection->previous->next : &worker->first) = connection->next;
	*(connection->next ? &connection->next->previous : &worker->last) = connection->previous;
}

static void link_last(struct worker *worker, struct connection *connection)
{
	connection->next = NULL;
	connection->previous = worker->last;
	*(worker->last ? &worker->last->next : &worker->first) = connection;
	worker->last = connection;
}

static void end_connection(struct worker *worker, struct connection *connection)
{
	unlink_connection(worker, connection);
	connection_destroy(connection, &worker->bench); /* closing it takes it out of the epoll set */
	atomic_fetch_sub_explicit(&worker->service->connections, 1, memory_order_relaxed);
}

/* Called from any thread, and under a lock. */
static void wake_for_mail(void *of)
{
	struct worker *worker = of;

	if (!atomic_exchange(&worker->has_mail, true))
		worker_wake(worker);
}

/* What epoll reports of it from now on. False: that cannot be changed. */
static bool watch(struct worker *worker, struct connection *connection)
{
	const uint32_t wanted = connection_wants(connection);
	struct epoll_event event = {.events = wanted, .data.ptr = connection};

	if (wanted == connection->interest)
		return true;
	if (epoll_ctl(worker->poll, EPOLL_CTL_MOD, connection->descriptor, &event) != 0)
		return false;
	if (wanted == EPOLLOUT)
		COUNT(worker->counts, conn_yields);
	connection->interest = wanted;
	return true;
}

/* False: it has ended, and is gone. */
static bool serve(struct worker *worker, struct connection *connection)
{
	if (worker->last != connection) {
		unlink_connection(worker, connection);
		link_last(worker, connection);
	}
	connection->active_ns = worker->now_ns;
	if (!connection_serve(connection, &worker->bench))
		goto err_end;
	if (session_has_mail(&connection->session) && !connection_send_mail(connection, &worker->bench))
		goto err_end;
	if (!watch(worker, connection))
		goto err_end;
	return true;

err_end:
	end_connection(worker, connection);
	return false;
}

static void take_arrivals(struct worker *worker)
{
	uint64_t times;

	if (read(worker->wake, &times, sizeof(times)) < 0 && errno != EAGAIN && errno != EINTR)
		DRP_ASSERT(!"an eventfd that cannot be read");
	pthread_mutex_lock(&worker->lock);
	struct connection *connection = worker->arrivals;
	worker->arrivals = NULL;
	pthread_mutex_unlock(&worker->lock);
	while (connection) {
		struct connection *next = connection->next;
		struct epoll_event event = {.events = EPOLLIN, .data.ptr = connection};
		link_last(worker, connection);
		connection->active_ns = worker->now_ns;
		connection->interest = EPOLLIN;
		if (epoll_ctl(worker->poll, EPOLL_CTL_ADD, connection->descriptor, &event) != 0)
			end_connection(worker, connection); /* no memory in the kernel, or its limit of watches */
		connection = next;
	}
}

/* Ends those that said nothing for too long: between two commands, or in the middle of one. */
static void end_silent(struct worker *worker)
{
	const struct settings *settings = &worker->service->settings;
	const uint64_t idle_ns = settings->idle_seconds * NS_PER_SECOND, stall_ns = settings->stall_seconds * NS_PER_SECOND;

	for (struct connection *connection = worker->first, *next; connection; connection = next) {
		const uint64_t silent_ns = worker->now_ns - connection->active_ns;
		const uint64_t limit_ns = connection_is_at_rest(connection) ? idle_ns : stall_ns;
		next = connection->next;
		if (limit_ns == 0 || silent_ns < limit_ns)
			continue;
		COUNT(worker->counts, idle_kicks);
		end_connection(worker, connection);
	}
}

/* What has arrived by now is answered once more. */
static void serve_all(struct worker *worker)
{
	struct connection *const last = worker->last;

	for (bool more = last != NULL; more;) { /* each goes to the end of the list, or away */
		struct connection *connection = worker->first;
		more = connection != last;
		serve(worker, connection);
	}
}

/* Whoever has nothing under way is left, and after a while everybody. True: nobody is there any more. */
static bool stop(struct worker *worker)
{
	if (worker->stop_ns == 0) {
		worker->stop_ns = worker->now_ns + STOP_SECONDS * NS_PER_SECOND;
		serve_all(worker);
	}
	for (struct connection *connection = worker->first, *next; connection; connection = next) {
		next = connection->next;
		if (connection_is_at_rest(connection) || worker->now_ns >= worker->stop_ns)
			end_connection(worker, connection);
	}
	return worker->first == NULL;
}

static void send_mail(struct worker *worker)
{
	if (!atomic_exchange(&worker->has_mail, false))
		return;
	for (struct connection *connection = worker->first, *next; connection; connection = next) {
		next = connection->next;
		if (session_has_mail(&connection->session) &&
		    !(connection_send_mail(connection, &worker->bench) && watch(worker, connection)))
			end_connection(worker, connection);
	}
}

static void *run(void *argument)
{
	struct worker *worker = argument;
	struct epoll_event events[EVENTS];

	for (;;) {
		const int wait_ms = worker->stop_ns != 0 ? STOP_LOOK_MS : worker->first ? LOOK_MS : -1;
		const int ready = epoll_wait(worker->poll, events, EVENTS, wait_ms);
		bool is_woken = false;
		worker->now_ns = prim_now_coarse_ns();
		for (int i = 0; i < ready; i++) {
			if (events[i].data.ptr)
				serve(worker, events[i].data.ptr);
			else
				is_woken = true;
		}
		if (is_woken) {
			take_arrivals(worker);
			send_mail(worker);
		}
		if (worker->now_ns - worker->looked_ns >= LOOK_MS * UINT64_C(1000000)) {
			worker->looked_ns = worker->now_ns;
			end_silent(worker);
			workbench_shrink(&worker->bench);
		}
		if (atomic_load_explicit(&worker->service->is_stopping, memory_order_acquire) && stop(worker))
			return NULL;
	}
}

struct worker *worker_start(struct service *service, unsigned number)
{
	struct worker *worker = calloc(1, sizeof(*worker));
	struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL};

	if (!worker)
		return NULL;
	worker->service = service;
	worker->counts = &service->counts[number];
	worker->poll = epoll_create1(EPOLL_CLOEXEC);
	if (worker->poll < 0)
		goto err_free;
	worker->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (worker->wake < 0)
		goto err_poll;
	if (epoll_ctl(worker->poll, EPOLL_CTL_ADD, worker->wake, &event) != 0)
		goto err_wake;
	if (!workbench_init(&worker->bench, &service->budget, worker->counts, service->settings.threads)) {
		errno = ENOMEM;
		goto err_wake;
	}
	pthread_mutex_init(&worker->lock, NULL);
	errno = pthread_create(&worker->thread, NULL, run, worker);
	if (errno == 0)
		return worker;
	pthread_mutex_destroy(&worker->lock);
	workbench_destroy(&worker->bench);
err_wake:
	close(worker->wake);
err_poll:
	close(worker->poll);
err_free:
	free(worker);
	return NULL;
}

void worker_wake(struct worker *worker)
{
	const uint64_t one = 1;

	/* It fails only where 2^64 - 2 wakes are still unseen. */
	if (write(worker->wake, &one, sizeof(one)) < 0)
		return;
}

void worker_give(struct worker *worker, int descriptor)
{
	struct connection *connection = connection_create(descriptor, worker->service, worker->counts);

	if (!connection) {
		close(descriptor);
		return;
	}
	connection->session.wake = wake_for_mail;
	connection->session.wakes = worker;
	atomic_fetch_add_explicit(&worker->service->connections, 1, memory_order_relaxed);
	pthread_mutex_lock(&worker->lock);
	connection->next = worker->arrivals;
	worker->arrivals = connection;
	pthread_mutex_unlock(&worker->lock);
	worker_wake(worker);
}

void worker_join(struct worker *worker)
{
	pthread_join(worker->thread, NULL);
	for (struct connection *connection = worker->arrivals, *next; connection; connection = next) {
		next = connection->next; /* they came after it had left */
		close(connection->descriptor);
		free(connection);
	}
	workbench_destroy(&worker->bench);
	pthread_mutex_destroy(&worker->lock);
	close(worker->wake);
	close(worker->poll);
	free(worker);
}
