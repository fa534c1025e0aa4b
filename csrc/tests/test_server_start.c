/*
 * test_server_start.c - the server starts while the system refuses it something: each allocation and each system call in turn.
 *
 *   the test -- fork --> server_run(), call number N refused -- ready --> a value is stored and read, SIGTERM
 *                          `--> says why on standard error, and ends with 1
 *
 * Whichever it is, no socket is left in the file system, and no allocation in the process.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"
#include "server/options.h"
#include "server/server.h"

enum { HANG_SECONDS = 60, MOST_CALLS = 400, TEXT_BYTES = 4096, STARTED = 0, REFUSED = 1, LEFT_BEHIND = 9 };

static struct {
	size_t calls, refused; /* of the thread that starts the server; number of the one that is refused */
	pthread_t thread;
	bool armed;
} plan;
static _Atomic long allocated;

static bool refuses(void)
{
	return plan.armed && pthread_equal(plan.thread, pthread_self()) && ++plan.calls == plan.refused;
}

#define WRAPPED(type, name, parameters, arguments, error)                                                               \
	type __real_##name parameters;                                                                                  \
	type __wrap_##name parameters;                                                                                  \
	type __wrap_##name parameters                                                                                   \
	{                                                                                                               \
		if (refuses()) {                                                                                        \
			errno = error;                                                                                  \
			return -1;                                                                                      \
		}                                                                                                       \
		return __real_##name arguments;                                                                         \
	}

WRAPPED(int, socket, (int family, int type, int protocol), (family, type, protocol), EMFILE)
WRAPPED(int, bind, (int file, const struct sockaddr *to, socklen_t length), (file, to, length), EACCES)
WRAPPED(int, listen, (int file, int backlog), (file, backlog), EADDRINUSE)
WRAPPED(int, chmod, (const char *path, mode_t mode), (path, mode), EPERM)
WRAPPED(int, epoll_create1, (int flags), (flags), EMFILE)
WRAPPED(int, epoll_ctl, (int poll, int what, int file, struct epoll_event *event), (poll, what, file, event), ENOSPC)
WRAPPED(int, eventfd, (unsigned count, int flags), (count, flags), EMFILE)
WRAPPED(int, signalfd, (int file, const sigset_t *signals, int flags), (file, signals, flags), EMFILE)

int __real_open64(const char *path, int flags, ...);
int __wrap_open64(const char *path, int flags, ...);
int __wrap_open64(const char *path, int flags, ...)
{
	if (refuses()) {
		errno = EMFILE;
		return -1;
	}
	return __real_open64(path, flags);
}

int __real_pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*run)(void *), void *argument);
int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*run)(void *), void *argument);
int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*run)(void *), void *argument)
{
	return refuses() ? EAGAIN : __real_pthread_create(thread, attributes, run, argument);
}

/* It has started: from here on nothing is refused. */
int __real_epoll_wait(int poll, struct epoll_event *events, int most, int wait_ms);
int __wrap_epoll_wait(int poll, struct epoll_event *events, int most, int wait_ms);
int __wrap_epoll_wait(int poll, struct epoll_event *events, int most, int wait_ms)
{
	if (pthread_equal(plan.thread, pthread_self()))
		plan.armed = false;
	return __real_epoll_wait(poll, events, most, wait_ms);
}

#define ALLOCATES(name, parameters, arguments)                                                                          \
	void *__real_##name parameters;                                                                                 \
	void *__wrap_##name parameters;                                                                                 \
	void *__wrap_##name parameters                                                                                  \
	{                                                                                                               \
		void *at = refuses() ? NULL : __real_##name arguments;                                                  \
		allocated += at != NULL;                                                                                \
		return at;                                                                                              \
	}

ALLOCATES(malloc, (size_t bytes), (bytes))
ALLOCATES(calloc, (size_t count, size_t bytes), (count, bytes))
ALLOCATES(aligned_alloc, (size_t alignment, size_t bytes), (alignment, bytes))

void *__real_realloc(void *old, size_t bytes);
void *__wrap_realloc(void *old, size_t bytes);
void *__wrap_realloc(void *old, size_t bytes)
{
	if (refuses())
		return NULL;
	void *at = __real_realloc(old, bytes);
	allocated += at && !old;
	return at;
}

void __real_free(void *at);
void __wrap_free(void *at);
void __wrap_free(void *at)
{
	allocated -= at != NULL;
	__real_free(at);
}

static char folder[] = "/tmp/droppable-test-XXXXXX", path[64], password_path[64];

static void serve(size_t refused, int ready, int complaints)
{
	char ready_text[16];
	char *arguments[] = {"droppable-server", "--unix", path, "--listen", "127.0.0.1:0", "--threads", "2", "--password-file",
			     password_path, "--ready-fd", ready_text, NULL};
	const int count = sizeof(arguments) / sizeof(arguments[0]) - 1;
	struct options options;
	int status;

	snprintf(ready_text, sizeof(ready_text), "%d", ready);
	REQUIRE(dup2(complaints, STDERR_FILENO) >= 0);
	REQUIRE(freopen("/dev/null", "w", stdout) != NULL);
	REQUIRE(options_read(&options, count, arguments, &status));
	alarm(HANG_SECONDS);
	const long allocated_before = allocated;
	plan.thread = pthread_self();
	plan.refused = refused;
	plan.armed = true;
	status = server_run(&options);
	plan.armed = false;
	_exit(allocated != allocated_before ? LEFT_BEHIND : plan.calls < refused ? STARTED : status);
}

static size_t read_all(int file, char *text)
{
	size_t done = 0;

	for (ssize_t got; done < TEXT_BYTES - 1 && (got = read(file, text + done, TEXT_BYTES - 1 - done)) > 0;)
		done += (size_t)got;
	text[done] = '\0';
	return done;
}

static void use(void)
{
	static const char wanted[] = "STORED\r\nSTORED\r\nVALUE a 0 1\r\nb\r\nEND\r\n",
			  commands[] = "set auth 0 0 6\r\nme him\r\nset a 0 0 1\r\nb\r\nget a\r\nquit\r\n";
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	const int client = __real_socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	char text[TEXT_BYTES];

	strcpy(address.sun_path, path);
	REQUIRE(client >= 0 && connect(client, (struct sockaddr *)&address, sizeof(address)) == 0);
	CHECK_EQ(write(client, commands, sizeof(commands) - 1), sizeof(commands) - 1);
	read_all(client, text);
	if (!CHECK(strcmp(text, wanted) == 0))
		printf("# %s\n", text);
	close(client);
}

/* Does it start all the same? */
static bool starts(size_t refused)
{
	int ready[2], complaints[2], status = -1;
	char text[TEXT_BYTES], byte;

	REQUIRE(pipe(ready) == 0 && pipe(complaints) == 0);
	fflush(stdout);
	const pid_t pid = fork();
	if (pid == 0) {
		close(ready[0]);
		serve(refused, ready[1], complaints[1]);
	}
	REQUIRE(pid > 0);
	close(ready[1]);
	close(complaints[1]);
	const bool started = read(ready[0], &byte, 1) == 1;
	if (started) {
		use();
		REQUIRE(kill(pid, SIGTERM) == 0);
	}
	read_all(complaints[0], text);
	REQUIRE(waitpid(pid, &status, 0) == pid);
	CHECK(WIFEXITED(status));
	if (!CHECK_EQ(WEXITSTATUS(status), started ? STARTED : REFUSED))
		printf("# call %zu: %s\n", refused, text);
	if (!started && !CHECK(strncmp(text, "droppable-server: ", 18) == 0))
		printf("# call %zu was refused, and nothing was said of it\n", refused);
	CHECK(access(path, F_OK) != 0);
	close(ready[0]);
	close(complaints[0]);
	return started;
}

static void each_call_is_refused(void)
{
	size_t told = 0, in_a_row = 0, number = 1;

	CHECK(starts(0));
	for (; number < MOST_CALLS && in_a_row < 60 && check_failures() < 10; number++) {
		const bool started = starts(number);
		told += !started;
		in_a_row = started ? in_a_row + 1 : 0;
	}
	CHECK(told > 20);
	CHECK(number < MOST_CALLS);
	printf("# %zu of %zu calls are needed\n", told, number - in_a_row);
}

int main(void)
{
	REQUIRE(mkdtemp(folder) != NULL);
	snprintf(path, sizeof(path), "%s/socket", folder);
	snprintf(password_path, sizeof(password_path), "%s/password", folder);
	FILE *password = fopen(password_path, "w");
	REQUIRE(password && fputs("me:him\n", password) >= 0 && fclose(password) == 0);
	RUN(each_call_is_refused);
	unlink(password_path);
	rmdir(folder);
	return check_done();
}
