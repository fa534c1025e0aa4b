/*
 * coverage_exit.c - has forked children write gcov's counts, in what `make coverage` builds: linked with
 * -Wl,--wrap=_exit,--wrap=__gcov_fork,--wrap=sigaction.
 *
 * They end by _exit(), where gcov writes nothing, or by a SIGBUS that our handler passes on to the default action. And gcc puts __gcov_fork() in the place of fork(), which forgets in the child
 * what was counted so far: also what the handlers of fork() did there. Without it a child counts once more what its parent had
 * counted. So the counts tell whether a line was run, and not how often.
 *
 * Callers: the C tests, by the linker; tools/coverage_site/sitecustomize.py for Python's os._exit().
 */
#include <signal.h>
#include <unistd.h>

void __gcov_dump(void);
void __real__exit(int status) __attribute__((noreturn));
void __wrap__exit(int status) __attribute__((noreturn));
pid_t __wrap___gcov_fork(void);
int __real_sigaction(int number, const struct sigaction *action, struct sigaction *old);
int __wrap_sigaction(int number, const struct sigaction *action, struct sigaction *old);

__attribute__((visibility("default"))) void coverage_dump(void);

void coverage_dump(void)
{
	__gcov_dump();
}

void __wrap__exit(int status)
{
	coverage_dump();
	__real__exit(status);
}

pid_t __wrap___gcov_fork(void)
{
	return fork();
}

int __wrap_sigaction(int number, const struct sigaction *action, struct sigaction *old)
{
	if (number == SIGBUS && action && action->sa_handler == SIG_DFL)
		coverage_dump();
	return __real_sigaction(number, action, old);
}
