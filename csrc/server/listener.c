/* listener.c - sockets that connections come in by. See listener.h. */
#include "server/listener.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

enum { BACKLOG = 1024, HOST_BYTES = 256, LOCK_TRIES = 100, LOCK_WAIT_NS = 10000000 };

#define SAY(...) snprintf(why, LISTENER_WHY_BYTES, __VA_ARGS__)

/* A private folder, made if it is not there. */
static bool make_folder(const char *path, char *why)
{
	struct stat about;

	if (mkdir(path, 0700) != 0 && errno != EEXIST) {
		SAY("the folder %s cannot be made: %s", path, strerror(errno));
		return false;
	}
	if (lstat(path, &about) != 0 || !S_ISDIR(about.st_mode) || about.st_uid != geteuid() || (about.st_mode & 077)) {
		SAY("%s is there, but is not a folder of yours with mode 0700: remove it, or choose a path with --unix", path);
		return false;
	}
	return true;
}

bool listener_default_path(char path[LISTENER_NAME_BYTES], char *why)
{
	const char *runtime = getenv("XDG_RUNTIME_DIR");
	char folder[LISTENER_NAME_BYTES - 16];
	int length;

	if (runtime && runtime[0] == '/' && access(runtime, W_OK) == 0)
		length = snprintf(folder, sizeof(folder), "%s/droppable", runtime);
	else
		length = snprintf(folder, sizeof(folder), "/tmp/droppable-%u", (unsigned)geteuid());
	if ((size_t)length >= sizeof(folder)) {
		SAY("XDG_RUNTIME_DIR is too long a path: choose one with --unix");
		return false;
	}
	snprintf(path, LISTENER_NAME_BYTES, "%s/server.sock", folder);
	return make_folder(folder, why);
}

/* A socket file that nobody listens at any more is removed. */
static bool remove_left_behind(const struct sockaddr_un *address, char *why)
{
	struct stat about;

	if (lstat(address->sun_path, &about) != 0)
		return true;
	if (!S_ISSOCK(about.st_mode)) {
		SAY("%s is there, and is not a socket", address->sun_path);
		return false;
	}
	const int probe = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (probe < 0) {
		SAY("no socket can be made: %s", strerror(errno));
		return false;
	}
	const bool refused = connect(probe, (const struct sockaddr *)address, sizeof(*address)) != 0 && errno == ECONNREFUSED;
	close(probe);
	if (!refused) {
		SAY("another server listens at %s", address->sun_path);
		return false;
	}
	if (unlink(address->sun_path) != 0 && errno != ENOENT) {
		SAY("%s was left behind and cannot be removed: %s", address->sun_path, strerror(errno));
		return false;
	}
	return true;
}

/*
 * Of two servers that start at the same path, each could take the other's socket, which does not listen yet, for one left behind.
 * So they look and bind one after the other. A second is enough for that; who holds the folder longer is somebody else, and must
 * not keep a server from starting. The descriptor, or -1.
 */
static int lock_folder(const char *path)
{
	const struct timespec moment = {.tv_nsec = LOCK_WAIT_NS};
	char folder[LISTENER_NAME_BYTES];
	const char *const slash = strrchr(path, '/');
	const size_t length = slash && slash > path ? (size_t)(slash - path) : 1;

	if (length >= sizeof(folder))
		return -1;
	memcpy(folder, slash ? path : ".", length);
	folder[length] = '\0';
	const int descriptor = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	for (int i = 0; descriptor >= 0 && i < LOCK_TRIES; i++) {
		if (flock(descriptor, LOCK_EX | LOCK_NB) == 0 || (errno != EWOULDBLOCK && errno != EINTR))
			break;
		nanosleep(&moment, NULL);
	}
	return descriptor;
}

/* The file at its path, if it is the one that was bound: another server may have come to that place. */
static bool is_still_there(const struct listener *listener)
{
	struct stat about;

	return lstat(listener->name, &about) == 0 && about.st_dev == listener->device && about.st_ino == listener->inode;
}

static bool open_unix(struct listener *listener, const char *path, mode_t mode, char *why)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	struct stat about;

	*listener = (struct listener){.is_unix = true, .is_ours = true};
	if (strlen(path) >= sizeof(address.sun_path)) {
		SAY("the path of a unix socket may have %zu bytes: %.300s", sizeof(address.sun_path) - 1, path);
		return false;
	}
	strcpy(address.sun_path, path);
	strcpy(listener->name, path);
	if (!remove_left_behind(&address, why))
		return false;
	listener->descriptor = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (listener->descriptor < 0) {
		SAY("no socket can be made: %s", strerror(errno));
		return false;
	}
	/* Nobody may connect before the mode is what was asked for. */
	const mode_t before = umask(0177);
	const int bound = bind(listener->descriptor, (const struct sockaddr *)&address, sizeof(address));
	const int reason = errno;
	umask(before);
	if (bound != 0) {
		SAY("%s cannot be bound: %s", path, strerror(reason));
		goto err_close;
	}
	if (chmod(path, mode) != 0 || listen(listener->descriptor, BACKLOG) != 0 || lstat(path, &about) != 0) {
		SAY("%s cannot be listened at: %m", listener->name);
		unlink(path);
		goto err_close;
	}
	listener->device = about.st_dev;
	listener->inode = about.st_ino;
	return true;

err_close:
	close(listener->descriptor);
	return false;
}

bool listener_open_unix(struct listener *listener, const char *path, mode_t mode, char *why)
{
	const int folder = lock_folder(path);
	const bool is_open = open_unix(listener, path, mode, why);

	if (folder >= 0)
		close(folder);
	return is_open;
}

static bool is_loopback(const struct sockaddr *address)
{
	if (address->sa_family == AF_INET)
		return ntohl(((const struct sockaddr_in *)address)->sin_addr.s_addr) >> 24 == 127;
	return IN6_IS_ADDR_LOOPBACK(&((const struct sockaddr_in6 *)address)->sin6_addr);
}

/* host:port, or [host]:port; without a host, the loopback. */
static bool split_address(const char *address, char host[HOST_BYTES], char port[16], char *why)
{
	const char *colon = strrchr(address, ':');
	const char *from = address, *end = colon ? colon : address;

	if (colon && end > from && *from == '[' && end[-1] == ']') {
		from++;
		end--;
	}
	if (colon && strlen(colon + 1) > 0 && strlen(colon + 1) < 16 && end - from < HOST_BYTES) {
		memcpy(host, from, (size_t)(end - from));
		host[end - from] = '\0';
		strcpy(port, colon + 1);
		if (host[0] == '\0')
			strcpy(host, "127.0.0.1");
		return true;
	}
	SAY("an address to listen at is HOST:PORT, as in 127.0.0.1:11211; you gave '%s'", address);
	return false;
}

static void name_address(struct listener *listener)
{
	struct sockaddr_storage address = {0};
	socklen_t length = sizeof(address);
	char host[HOST_BYTES], port[16];

	if (getsockname(listener->descriptor, (struct sockaddr *)&address, &length) != 0 ||
	    getnameinfo((struct sockaddr *)&address, length, host, sizeof(host), port, sizeof(port),
			NI_NUMERICHOST | NI_NUMERICSERV) != 0)
		return;
	snprintf(listener->name, sizeof(listener->name), address.ss_family == AF_INET6 ? "[%s]:%s" : "%s:%s", host, port);
}

bool listener_open_tcp(struct listener *listener, const char *text, bool may_be_public, char *why)
{
	const struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE};
	char host[HOST_BYTES], port[16];
	struct addrinfo *found;
	const int on = 1;

	*listener = (struct listener){0};
	if (!split_address(text, host, port, why))
		return false;
	const int failed = getaddrinfo(host, port, &hints, &found);
	if (failed != 0) {
		SAY("%s is no address to listen at: %s", text, gai_strerror(failed));
		return false;
	}
	if (!may_be_public && !is_loopback(found->ai_addr)) {
		SAY("%s can be reached from other hosts: add --public and --password-file FILE if that is meant", text);
		goto err_found;
	}
	listener->descriptor = socket(found->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (listener->descriptor < 0) {
		SAY("no socket can be made: %s", strerror(errno));
		goto err_found;
	}
	if (setsockopt(listener->descriptor, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) != 0 ||
	    bind(listener->descriptor, found->ai_addr, found->ai_addrlen) != 0 || listen(listener->descriptor, BACKLOG) != 0) {
		SAY("%s cannot be listened at: %s", text, strerror(errno));
		close(listener->descriptor);
		goto err_found;
	}
	freeaddrinfo(found);
	snprintf(listener->name, sizeof(listener->name), "%s", text);
	name_address(listener);
	return true;

err_found:
	freeaddrinfo(found);
	return false;
}

bool listener_adopt(struct listener *listener, int descriptor, char *why)
{
	struct sockaddr_storage address = {0};
	socklen_t length = sizeof(address);
	int listens = 0;
	socklen_t listens_bytes = sizeof(listens);

	*listener = (struct listener){.descriptor = descriptor};
	if (getsockopt(descriptor, SOL_SOCKET, SO_ACCEPTCONN, &listens, &listens_bytes) != 0 || !listens ||
	    getsockname(descriptor, (struct sockaddr *)&address, &length) != 0) {
		SAY("descriptor %d, which was handed over, is no socket that listens", descriptor);
		return false;
	}
	listener->is_unix = address.ss_family == AF_UNIX;
	if (listener->is_unix)
		snprintf(listener->name, sizeof(listener->name), "%s", ((struct sockaddr_un *)&address)->sun_path);
	else
		name_address(listener);
	return true;
}

void listener_close(struct listener *listener)
{
	if (listener->is_ours && listener->is_unix && is_still_there(listener))
		unlink(listener->name);
	close(listener->descriptor);
}
