/* server.c - the server's life. See server.h for who does what. */
#include "server/server.h"

#include <errno.h>
#include <malloc.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <netinet/tcp.h>
#include <netinet/in.h>
#include <unistd.h>
#include <fcntl.h>

#include "cache/cache.h"
#include "cache/tick.h"
#include "os/prim_self.h"
#include "server/claims.h"
#include "server/listener.h"
#include "server/output.h"
#include "server/password.h"
#include "server/stats.h"
#include "server/tracking.h"
#include "server/worker.h"

enum { BUFFERS_SHARE = 8, BUFFERS_LEAST_BYTES = 4 << 20, BUFFERS_MOST_BYTES = 64 << 20 };
enum {
	LISTENERS_MOST = OPTIONS_LISTEN_MOST + 16,
	FIRST_HANDED_OVER = 3,     /* systemd's convention */
	OTHER_DESCRIPTORS = 64,    /* beside those of connections */
	ACCEPTS = 64,              /* from one listener before the others' turn */
	LARGE_ALLOCATION = 64 << 10, /* goes back to the system when it is freed */
	FAILED = 1,
};

struct server {
	const struct options *options;
	struct service service;
	struct passwords *passwords;
	struct listener listeners[LISTENERS_MOST];
	unsigned listener_count;
	struct worker **workers;
	unsigned worker_count, turn;
	int poll, signals, reserve; /* reserve: a descriptor that is given up to tell a client that there are none left */
	char why[LISTENER_WHY_BYTES];
};

static int fail(const struct server *server)
{
	fprintf(stderr, "droppable-server: %s\n", server->why);
	return FAILED;
}

#define WHY(server, ...) snprintf((server)->why, sizeof((server)->why), __VA_ARGS__)

/* Sockets that systemd opened, if it started us: its environment names our process. */
static bool adopt_listeners(struct server *server)
{
	const char *whom = getenv("LISTEN_PID"), *count = getenv("LISTEN_FDS");

	if (!whom || !count || strtol(whom, NULL, 10) != (long)getpid())
		return true;
	const long number = strtol(count, NULL, 10);
	for (long i = 0; i < number && server->listener_count < LISTENERS_MOST; i++) {
		const int descriptor = FIRST_HANDED_OVER + (int)i;
		const int flags = fcntl(descriptor, F_GETFL);
		if (!listener_adopt(&server->listeners[server->listener_count], descriptor, server->why))
			return false;
		if (flags < 0 || fcntl(descriptor, F_SETFL, flags | O_NONBLOCK) != 0 || fcntl(descriptor, F_SETFD, FD_CLOEXEC) != 0) {
			WHY(server, "descriptor %d, which was handed over, cannot be used: %s", descriptor, strerror(errno));
			return false;
		}
		server->listener_count++;
	}
	return true;
}

static bool open_listeners(struct server *server)
{
	const struct options *options = server->options;
	char path[LISTENER_NAME_BYTES];
	const char *unix_path = options->unix_path;

	if (!adopt_listeners(server))
		return false;
	if (!unix_path && options->listen_count == 0 && server->listener_count == 0) {
		if (!listener_default_path(path, server->why))
			return false;
		unix_path = path;
	}
	if (unix_path) {
		if (!listener_open_unix(&server->listeners[server->listener_count], unix_path, options->mode, server->why))
			return false;
		server->listener_count++;
	}
	for (unsigned i = 0; i < options->listen_count; i++) {
		if (!listener_open_tcp(&server->listeners[server->listener_count], options->listen[i], options->is_public,
				       server->why))
			return false;
		server->listener_count++;
	}
	return true;
}

static void close_listeners(struct server *server)
{
	while (server->listener_count > 0)
		listener_close(&server->listeners[--server->listener_count]);
}

static int null_descriptor(void)
{
	return open("/dev/null", O_RDONLY | O_CLOEXEC);
}

/* As many descriptors as connections may need, if the hard limit allows it. */
static void raise_descriptor_limit(const struct settings *settings)
{
	struct rlimit limit;
	const rlim_t wanted = (rlim_t)settings->most_connections + OTHER_DESCRIPTORS;

	if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur >= wanted)
		return;
	limit.rlim_cur = limit.rlim_max < wanted ? limit.rlim_max : wanted;
	if (setrlimit(RLIMIT_NOFILE, &limit) != 0)
		fputs("droppable-server: the limit of open files stays as it is; fewer connections may be taken\n", stderr);
}

static bool watch(struct server *server, int descriptor, const void *what)
{
	struct epoll_event event = {.events = EPOLLIN, .data.ptr = (void *)(uintptr_t)what};

	return epoll_ctl(server->poll, EPOLL_CTL_ADD, descriptor, &event) == 0;
}

/* Buffers cannot be dropped, so where memory is short they must leave room for the cache. */
static size_t buffers_bytes(const struct settings *settings)
{
	if (settings->buffers_bytes > 0)
		return settings->buffers_bytes;
	const uint64_t share = stats_limit_bytes() / BUFFERS_SHARE;
	if (share < BUFFERS_LEAST_BYTES)
		return BUFFERS_LEAST_BYTES;
	return share < BUFFERS_MOST_BYTES ? (size_t)share : BUFFERS_MOST_BYTES;
}

/* What clients read without asking. Where it cannot be had they ask over the socket. */
static void open_memory(struct service *service)
{
	service->publication = (struct publication){.descriptor = -1};
	if (!service->settings.allows_attach || cache_publish(service->direct, &service->publication) != DRP_OK)
		return;
	if (prim_self_open(&service->passed[0]) != DRP_OK)
		return;
	service->passed[1] = service->publication.descriptor;
	service->passed_count = 2;
}

static bool make_service(struct server *server)
{
	const struct cache_config config = {.backing = PRIM_LAZYFREE};
	struct service *service = &server->service;
	struct cache *cache;

	service->settings = server->options->settings;
	service->passwords = server->passwords;
	service->budget.limit_bytes = buffers_bytes(&service->settings) + service->settings.threads * (size_t)OUTPUT_BYTES;
	service->count_sets = service->settings.threads;
	service->counts = aligned_alloc(_Alignof(struct counts), service->count_sets * sizeof(struct counts));
	if (!service->counts) {
		WHY(server, "there is no memory to count in");
		return false;
	}
	memset(service->counts, 0, service->count_sets * sizeof(struct counts));
	const int status = cache_create(&config, &cache);
	if (status != DRP_OK) {
		WHY(server, status == DRP_UNSUPPORTED ? "this kernel has no memory that it may take back (MADV_FREE)"
						      : "there is no memory for a cache");
		goto err_counts;
	}
	if (keyspace_init(&service->keyspace, cache, service->settings.max_value_bytes) != DRP_OK) {
		WHY(server, "there is no memory for a cache");
		goto err_cache;
	}
	service->tracking = tracking_create(&service->keyspace, &service->budget);
	if (!service->tracking) {
		WHY(server, "there is no memory for tracking");
		goto err_keyspace;
	}
	service->started_seconds = keyspace_time(&service->keyspace);
	if (cache_create(&config, &service->direct) != DRP_OK) {
		WHY(server, "there is no memory for a cache");
		goto err_tracking;
	}
	service->claims = claims_create();
	if (!service->claims) {
		WHY(server, "there is no memory for claims");
		goto err_direct;
	}
	open_memory(service);
	return true;

err_direct:
	cache_unref(service->direct);
err_tracking:
	tracking_destroy(service->tracking);
err_keyspace:
	keyspace_destroy(&service->keyspace);
err_cache:
	cache_unref(cache);
err_counts:
	free(service->counts);
	return false;
}

static void free_service(struct service *service)
{
	if (service->passed_count > 0)
		close(service->passed[0]);
	claims_destroy(service->claims);
	cache_unref(service->direct);
	publication_end(&service->publication);
	tracking_destroy(service->tracking);
	cache_unref(service->keyspace.cache);
	keyspace_destroy(&service->keyspace);
	free(service->counts);
}

static bool start_workers(struct server *server)
{
	const unsigned count = server->service.settings.threads;

	server->workers = calloc(count, sizeof(*server->workers));
	if (!server->workers) {
		WHY(server, "there is no memory for threads");
		return false;
	}
	for (; server->worker_count < count; server->worker_count++) {
		server->workers[server->worker_count] = worker_start(&server->service, server->worker_count);
		if (!server->workers[server->worker_count]) {
			WHY(server, "a thread cannot be started: %s", strerror(errno));
			return false;
		}
	}
	return true;
}

static void stop_workers(struct server *server)
{
	atomic_store_explicit(&server->service.is_stopping, true, memory_order_release);
	for (unsigned i = 0; i < server->worker_count; i++)
		worker_wake(server->workers[i]);
	while (server->worker_count > 0)
		worker_join(server->workers[--server->worker_count]);
	free(server->workers);
}

/* A client that cannot be served is told so, in words that its protocol has. */
static void turn_away(struct server *server, int descriptor)
{
	static const char words[] = "ERROR Too many open connections\r\n";

	atomic_fetch_add_explicit(&server->service.rejected_connections, 1, memory_order_relaxed);
	/* It may be gone already, and need not hear it. */
	if (send(descriptor, words, sizeof(words) - 1, MSG_NOSIGNAL | MSG_DONTWAIT) < 0)
		errno = 0;
	close(descriptor);
}

static void take_connection(struct server *server, const struct listener *listener, int descriptor)
{
	struct service *service = &server->service;
	const int on = 1;

	if (atomic_load_explicit(&service->connections, memory_order_relaxed) >= service->settings.most_connections) {
		turn_away(server, descriptor);
		return;
	}
	/* Without it replies may be slow, and are right. */
	if (!listener->is_unix && setsockopt(descriptor, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)) != 0)
		errno = 0;
	atomic_fetch_add_explicit(&service->total_connections, 1, memory_order_relaxed);
	worker_give(server->workers[server->turn++ % server->worker_count], descriptor);
}

/* No descriptor is left: one that is kept for this is given up for a moment, so that the client hears of it and goes. */
static bool turn_away_without_descriptor(struct server *server, const struct listener *listener)
{
	atomic_fetch_add_explicit(&server->service.listen_disabled, 1, memory_order_relaxed);
	if (server->reserve < 0)
		return false;
	close(server->reserve);
	const int descriptor = accept4(listener->descriptor, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	if (descriptor >= 0)
		turn_away(server, descriptor);
	server->reserve = null_descriptor();
	return descriptor >= 0;
}

static void accept_some(struct server *server, const struct listener *listener)
{
	for (int i = 0; i < ACCEPTS; i++) {
		const int descriptor = accept4(listener->descriptor, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
		if (descriptor >= 0) {
			take_connection(server, listener, descriptor);
			continue;
		}
		if (errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == ENOBUFS) {
			if (turn_away_without_descriptor(server, listener))
				continue;
			/* Nothing can be done but wait a little: the listener would report it again and again. */
			const struct timespec moment = {.tv_nsec = 20000000};
			nanosleep(&moment, NULL);
			return;
		}
		if (errno != EINTR && errno != ECONNABORTED)
			return;
	}
}

/* Tells systemd, if it started us and asked to be told. */
static void notify(const char *state)
{
	const char *path = getenv("NOTIFY_SOCKET");
	struct sockaddr_un address = {.sun_family = AF_UNIX};

	if (!path || strlen(path) >= sizeof(address.sun_path) || (path[0] != '/' && path[0] != '@'))
		return;
	const size_t length = strlen(path);
	memcpy(address.sun_path, path, length);
	if (path[0] == '@')
		address.sun_path[0] = '\0';
	const int descriptor = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (descriptor < 0)
		return;
	if (sendto(descriptor, state, strlen(state), MSG_NOSIGNAL, (struct sockaddr *)&address,
		   (socklen_t)(offsetof(struct sockaddr_un, sun_path) + length)) < 0)
		fprintf(stderr, "droppable-server: systemd could not be told %s: %s\n", state, strerror(errno));
	close(descriptor);
}

static bool say_ready(struct server *server)
{
	const int descriptor = server->options->ready_descriptor;

	for (unsigned i = 0; i < server->listener_count; i++)
		printf("%s\n", server->listeners[i].name);
	fflush(stdout); /* where it is closed nobody reads it */
	if (descriptor >= 0) {
		if (write(descriptor, "\n", 1) != 1) {
			WHY(server, "--ready-fd %d cannot be written to: %s", descriptor, strerror(errno));
			return false;
		}
		close(descriptor);
	}
	notify("READY=1");
	return true;
}

/* Serves until it is asked to stop. */
static void loop(struct server *server)
{
	struct epoll_event events[LISTENERS_MOST + 2];

	for (;;) {
		const uint64_t wait_ns = cache_tick(server->service.keyspace.cache), other_ns = cache_tick(server->service.direct);
		const int wait_ms = (int)((wait_ns < other_ns ? wait_ns : other_ns) / 1000000);
		const int ready = epoll_wait(server->poll, events, LISTENERS_MOST + 2, wait_ms);
		service_look_at_clock(&server->service);
		for (int i = 0; i < ready; i++) {
			if (!events[i].data.ptr)
				return;
			accept_some(server, events[i].data.ptr);
		}
	}
}

/* All but the loop, in the order in which it is undone. */
static int serve(struct server *server)
{
	int status = FAILED;

	if (!make_service(server))
		return fail(server);
	server->service.stop_descriptor = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	server->reserve = null_descriptor();
	server->poll = epoll_create1(EPOLL_CLOEXEC);
	if (server->service.stop_descriptor < 0 || server->poll < 0 || !watch(server, server->signals, NULL) ||
	    !watch(server, server->service.stop_descriptor, NULL)) {
		WHY(server, "a descriptor cannot be opened: %s", strerror(errno));
		goto out;
	}
	if (!open_listeners(server))
		goto out;
	if (!start_workers(server))
		goto out_workers;
	for (unsigned i = 0; i < server->listener_count; i++)
		if (!watch(server, server->listeners[i].descriptor, &server->listeners[i])) {
			WHY(server, "%s cannot be watched: %s", server->listeners[i].name, strerror(errno));
			goto out_workers;
		}
	if (!say_ready(server))
		goto out_workers;
	loop(server);
	cache_withdraw(server->service.direct); /* before the socket is free for another server */
	notify("STOPPING=1");
	status = 0;
out_workers:
	close_listeners(server);
	stop_workers(server);
out:
	close_listeners(server);
	if (status != 0)
		fail(server);
	close(server->poll);
	close(server->reserve);
	close(server->service.stop_descriptor);
	free_service(&server->service);
	return status;
}

int server_run(const struct options *options)
{
	struct server *server = calloc(1, sizeof(*server));
	sigset_t stopping;
	int status = FAILED;

	if (!server) {
		fputs("droppable-server: there is no memory to start with\n", stderr);
		return FAILED;
	}
	server->options = options;
	if (options->password_file) {
		server->passwords = passwords_read(options->password_file, server->why, sizeof(server->why));
		if (!server->passwords) {
			fail(server);
			goto out;
		}
	}
	raise_descriptor_limit(&options->settings);
	mallopt(M_MMAP_THRESHOLD, LARGE_ALLOCATION);
	/* Taken from a descriptor, in this thread; SIGPIPE stays blocked, and a write says EPIPE. */
	sigemptyset(&stopping);
	sigaddset(&stopping, SIGTERM);
	sigaddset(&stopping, SIGINT);
	server->signals = signalfd(-1, &stopping, SFD_CLOEXEC | SFD_NONBLOCK);
	sigaddset(&stopping, SIGPIPE);
	if (server->signals < 0 || pthread_sigmask(SIG_BLOCK, &stopping, NULL) != 0) {
		WHY(server, "signals cannot be taken: %s", strerror(errno));
		fail(server);
		goto out;
	}
	status = serve(server);
	close(server->signals);
out:
	passwords_free(server->passwords);
	free(server);
	return status;
}
