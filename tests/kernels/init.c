/*
 * init.c - PID 1 of the kernel matrix. Started by the kernel from an initramfs; knows no test by name.
 *
 *     mounts -> what the command line asks for -> every executable of /tests, by name -> the verdict -> reboot
 *
 * The kernel puts unknown NAME=VALUE words of its command line into our environment. Known here:
 *   DRP_LRU_GEN=y|n     switch the multi-generational LRU on or off (fatal where the kernel cannot)
 *   DRP_SWAP=/dev/...   swap there (fatal where it fails)
 *   DRP_ONLY=NAME       this test alone
 *   DRP_VERDICT=/dev/...   the port that the verdict goes to, if that is not the second serial one
 * A test says what happened by its exit status, as for meson: 0 passed, 77 skipped, anything else failed.
 *
 * Console: the first serial port. Verdict: the second one, one line a test, and the last line is the word that tests
 * and tools wait for. It is written only if at least one test passed and none failed; whoever hears nothing has a
 * failure, whatever the reason (a hang, a panic, a kernel that killed us).
 */
#include <dirent.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <net/if.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/swap.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { EXIT_SKIPPED = 77 };

static const char success_word[] = "success";
static FILE *verdict;

static void leave(void)
{
	if (verdict)
		fclose(verdict); /* close waits until the port has sent everything */
	fflush(stdout);
	sync();
	reboot(RB_AUTOBOOT); /* QEMU runs with -no-reboot: this ends it, with or without ACPI in the kernel */
	_exit(1);
}

static void give_up(const char *what)
{
	int reason = errno;

	printf("init: %s: %s\n", what, strerror(reason));
	if (verdict)
		fprintf(verdict, "failed init %s: %s\n", what, strerror(reason));
	leave();
}

static void mount_at(const char *type, const char *where)
{
	mkdir(where, 0755);
	if (mount(type, where, type, 0, NULL) != 0 && errno != EBUSY)
		give_up(where);
}

/* For tests that open a terminal; a kernel without it runs the others all the same. */
static void mount_optional(const char *type, const char *where)
{
	mkdir(where, 0755);
	(void)mount(type, where, type, 0, NULL);
}

static void write_file(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);

	if (fd < 0 || write(fd, text, strlen(text)) < 0)
		give_up(path);
	close(fd);
}

static bool is_empty(const char *directory)
{
	struct dirent *found;
	DIR *open_one = opendir(directory);

	if (!open_one)
		return true;
	do
		found = readdir(open_one);
	while (found && found->d_name[0] == '.');
	closedir(open_one);
	return !found;
}

/* 127.0.0.1, for the server's tests. A kernel without a network has tests that ask for none. */
static void raise_loopback(void)
{
	struct ifreq request = {.ifr_name = "lo", .ifr_flags = IFF_UP | IFF_RUNNING};
	int descriptor = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	if (descriptor < 0)
		return;
	if (ioctl(descriptor, SIOCSIFFLAGS, &request) != 0)
		give_up("lo");
	close(descriptor);
}

static void prepare(void)
{
	mount_at("devtmpfs", "/dev");
	mount_at("proc", "/proc");
	mount_at("sysfs", "/sys");
	if (is_empty("/tmp")) /* a checkout below /tmp came along, at the path that it has: it must stay in sight */
		mount_at("tmpfs", "/tmp");
	mount_at("tmpfs", "/dev/shm");
	mount_optional("devpts", "/dev/pts");
	raise_loopback();
	chmod("/tmp", 01777);

	int console = open("/dev/console", O_RDWR);
	if (console >= 0)
		for (int fd = 0; fd <= 2; fd++)
			dup2(console, fd);
	setvbuf(stdout, NULL, _IOLBF, 0);
	const char *verdict_port = getenv("DRP_VERDICT") ? getenv("DRP_VERDICT") : "/dev/ttyS1";
	verdict = fopen(verdict_port, "we");
	if (!verdict)
		give_up(verdict_port);
	setvbuf(verdict, NULL, _IOLBF, 0);

	mount_at("cgroup2", "/sys/fs/cgroup");
	write_file("/sys/fs/cgroup/cgroup.subtree_control", "+memory");
	setenv("PATH", "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin", 1);
	setenv("HOME", "/tmp", 1);
	if (chdir("/tmp") != 0)
		give_up("/tmp");

	if (getenv("DRP_LRU_GEN"))
		write_file("/sys/kernel/mm/lru_gen/enabled", getenv("DRP_LRU_GEN"));
	if (getenv("DRP_SWAP") && swapon(getenv("DRP_SWAP"), 0) != 0)
		give_up(getenv("DRP_SWAP"));
}

static void introduce(void)
{
	char lru_gen[32] = "absent";
	struct utsname kernel;
	FILE *file = fopen("/sys/kernel/mm/lru_gen/enabled", "re");

	if (file) {
		if (fscanf(file, "%31s", lru_gen) != 1)
			strcpy(lru_gen, "unknown");
		fclose(file);
	}
	uname(&kernel);
	fprintf(verdict, "kernel %s %s lru_gen %s swap %s\n", kernel.release, kernel.machine, lru_gen,
		getenv("DRP_SWAP") ? getenv("DRP_SWAP") : "none");
	printf("init: kernel %s %s\n", kernel.release, kernel.machine);
}

static int run(const char *name)
{
	char path[512];
	int status = 0;
	pid_t child, dead;

	snprintf(path, sizeof(path), "/tests/%s", name);
	child = fork();
	if (child < 0)
		give_up("fork");
	if (child == 0) {
		setsid();
		execl(path, path, (char *)NULL);
		_exit(127);
	}
	do { /* orphans of tests come to us too */
		dead = wait(&status);
	} while (dead != child);
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static int is_test(const struct dirent *entry)
{
	const char *only = getenv("DRP_ONLY");

	return entry->d_name[0] != '.' && (!only || strcmp(entry->d_name, only) == 0);
}

int main(void)
{
	struct dirent **tests;
	int passed = 0, skipped = 0, failed = 0;

	prepare();
	introduce();
	int count = scandir("/tests", &tests, is_test, alphasort);
	if (count < 0)
		give_up("/tests");
	for (int i = 0; i < count; i++) {
		const char *name = tests[i]->d_name;
		struct timespec start, end;

		printf("init: run %s\n", name);
		clock_gettime(CLOCK_MONOTONIC, &start);
		int status = run(name);
		clock_gettime(CLOCK_MONOTONIC, &end);

		const char *word = status == 0 ? "passed" : status == EXIT_SKIPPED ? "skipped" : "failed";
		passed += status == 0;
		skipped += status == EXIT_SKIPPED;
		failed += status != 0 && status != EXIT_SKIPPED;
		printf("init: %s %s, status %d\n", word, name, status);
		fprintf(verdict, "%s %s %d %lds\n", word, name, status, (long)(end.tv_sec - start.tv_sec));
	}
	fprintf(verdict, "%d passed, %d failed, %d skipped\n", passed, failed, skipped);
	if (passed > 0 && failed == 0)
		fprintf(verdict, "%s\n", success_word);
	leave();
}
