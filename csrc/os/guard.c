/*
 * guard.c - see guard.h for the picture.
 *
 * What stands below our handler, newest first. A node is written once, published, and never freed, so the handler
 * follows the pointers without a lock; a disposition that was seen before in the same place takes its old node.
 *
 *   below --> [faulthandler] --> [a library] --> NULL: the default action
 *
 * A handler that is called again while the one below it runs in the same thread was reached from there (by raise(), or
 * because it was restored): the signal then goes one node deeper, so that two handlers that name each other end.
 */
#include "os/guard.h"

#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <ucontext.h>
#include <unistd.h>

#include "droppable.h"

enum {
	MAX_FRUITLESS_RETURNS = 100, /* of a chained handler that changes nothing, for one address in a row */
	MESSAGE_BYTES = 320,
};

/*
 * The handler must find these without allocating: glibc allocates the thread-local memory of a loaded library at its
 * first use in a thread, except with this model; musl has it ready in every thread, and refuses this model.
 */
#ifdef __GLIBC__
#define HANDLER_LOCAL static _Thread_local __attribute__((tls_model("initial-exec")))
#else
#define HANDLER_LOCAL static _Thread_local
#endif

struct frame {
	sigjmp_buf out;
	uintptr_t start, end;
	volatile uintptr_t fault;
	struct frame *outer;
};

struct disposition {
	struct sigaction action;
	struct disposition *below;
	struct disposition *next; /* all nodes, for reuse; guarded by lock */
};

struct guard_watch {
	_Atomic uintptr_t start, end; /* start 0: free for reuse */
	char name[GUARD_NAME_BYTES];
	struct guard_watch *next; /* set before the node is published, then constant */
};

HANDLER_LOCAL struct frame *volatile innermost;
HANDLER_LOCAL struct disposition *volatile running; /* the handler below us that this thread is in */
HANDLER_LOCAL volatile uintptr_t running_stack;     /* where the stack was when it was called */
HANDLER_LOCAL volatile uintptr_t fruitless_address;
HANDLER_LOCAL volatile unsigned fruitless_returns;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_once_t fork_once = PTHREAD_ONCE_INIT;
static int fork_status; /* whether the handlers are there; written once */
static _Atomic(struct disposition *) below;
static _Atomic(struct guard_watch *) watches;
static struct disposition *dispositions;
static size_t watch_count;

static char *put_text(char *at, const char *end, const char *text)
{
	while (*text && at < end)
		*at++ = *text++;
	return at;
}

static char *put_number(char *at, const char *end, uintptr_t number)
{
	char digits[24];
	char *digit = digits + sizeof(digits) - 1;

	*digit = 0;
	do {
		*--digit = (char)('0' + number % 10);
	} while (number /= 10);
	return put_text(at, end, digit);
}

static void report(uintptr_t address)
{
	char text[MESSAGE_BYTES], *at = text;
	const char *end = text + sizeof(text);
	struct guard_watch *watch = atomic_load_explicit(&watches, memory_order_acquire);

	for (; watch; watch = watch->next) {
		uintptr_t start = atomic_load_explicit(&watch->start, memory_order_acquire);
		if (start == 0 || address < start || address >= atomic_load_explicit(&watch->end, memory_order_relaxed))
			continue;
		at = put_text(at, end, "droppable: SIGBUS: the kernel dropped the page at byte ");
		at = put_number(at, end, address - start);
		at = put_text(at, end, " of region '");
		at = put_text(at, end, watch->name);
		at = put_text(at, end, "', and it was touched outside a guard; read through the Region, or refill it first\n");
		if (write(STDERR_FILENO, text, (size_t)(at - text)) < 0)
			return; /* nobody listens: nothing better to do in a signal handler */
		return;
	}
}

static void default_action(const siginfo_t *info)
{
	struct sigaction action = {.sa_handler = SIG_DFL};
	sigaction(SIGBUS, &action, NULL);
	if (info->si_code <= 0) /* sent by a process: nothing will raise it again after the return */
		raise(SIGBUS);
}

static __attribute__((noinline)) void call_below(struct disposition *to, int signal_number, siginfo_t *info, void *context)
{
	struct disposition *outer = running;
	uintptr_t outer_stack = running_stack;
	sigset_t mask = to->action.sa_mask, before;

	if (!(to->action.sa_flags & SA_NODEFER))
		sigaddset(&mask, signal_number);
	pthread_sigmask(SIG_BLOCK, &mask, &before);
	running = to;
	running_stack = (uintptr_t)__builtin_frame_address(0);
	if (to->action.sa_flags & SA_SIGINFO)
		to->action.sa_sigaction(signal_number, info, context);
	else
		to->action.sa_handler(signal_number);
	running = outer;
	running_stack = outer_stack;
	pthread_sigmask(SIG_SETMASK, &before, NULL);
}

/* A chained handler that returns and repairs nothing would be called for ever: true when that is enough. */
static bool is_fruitless(uintptr_t address)
{
	if (fruitless_address != address) {
		fruitless_address = address;
		fruitless_returns = 0;
	}
	return ++fruitless_returns > MAX_FRUITLESS_RETURNS;
}

static __attribute__((noinline)) void pass_on(int signal_number, siginfo_t *info, void *context)
{
	struct disposition *to = atomic_load_explicit(&below, memory_order_acquire);
	const bool from_fault = info->si_code > 0;
	mcontext_t registers;

	/* Deeper in the stack than the call of the handler below: it was reached from there. Otherwise that handler
	 * left by longjmp and what is noted is stale. */
	if (running && (uintptr_t)__builtin_frame_address(0) <= running_stack)
		to = running->below;
	if (!to || to->action.sa_handler == SIG_DFL || (to->action.sa_handler == SIG_IGN && from_fault)) {
		default_action(info);
		return;
	}
	if (to->action.sa_handler == SIG_IGN)
		return;
	memcpy(&registers, &((ucontext_t *)context)->uc_mcontext, sizeof(registers));
	call_below(to, signal_number, info, context);
	if (from_fault && memcmp(&registers, &((ucontext_t *)context)->uc_mcontext, sizeof(registers)) == 0 &&
	    is_fruitless((uintptr_t)info->si_addr))
		default_action(info);
}

static void on_sigbus(int signal_number, siginfo_t *info, void *context)
{
	const int saved_errno = errno;
	struct frame *frame = innermost;
	const uintptr_t address = (uintptr_t)info->si_addr;

	if (info->si_code == BUS_ADRERR) {
		if (frame && address >= frame->start && address < frame->end) {
			frame->fault = address;
			innermost = frame->outer;
			errno = saved_errno;
			siglongjmp(frame->out, 1);
		}
		report(address);
	}
	pass_on(signal_number, info, context);
	errno = saved_errno;
}

static bool is_ours(const struct sigaction *action)
{
	return (action->sa_flags & SA_SIGINFO) && action->sa_sigaction == on_sigbus;
}

/* The node for action on top of what is below now, old or new. */
static struct disposition *disposition_for(const struct sigaction *action)
{
	struct disposition *under = atomic_load_explicit(&below, memory_order_relaxed), *node;

	for (node = dispositions; node; node = node->next)
		if (node->action.sa_sigaction == action->sa_sigaction && node->action.sa_flags == action->sa_flags &&
		    node->below == under)
			return node;
	/* The same handler deeper in the chain: it came back on top. Nothing between is reached any more. */
	for (node = under; node; node = node->below)
		if (node->action.sa_sigaction == action->sa_sigaction && node->action.sa_flags == action->sa_flags)
			return node;
	node = malloc(sizeof(*node));
	if (!node)
		return NULL;
	*node = (struct disposition){.action = *action, .below = under, .next = dispositions};
	dispositions = node;
	return node;
}

/* Puts our handler on top, if it is not. lock is held. */
static int install(void)
{
	struct sigaction current, ours = {.sa_sigaction = on_sigbus, .sa_flags = SA_SIGINFO | SA_NODEFER | SA_ONSTACK};

	if (sigaction(SIGBUS, NULL, &current) != 0)
		return DRP_SYSTEM;
	if (is_ours(&current))
		return DRP_OK;
	struct disposition *node = disposition_for(&current);
	if (!node)
		return DRP_NO_MEMORY;
	/* Before the installation: from its first moment our handler knows where to pass signals on. */
	atomic_store_explicit(&below, node, memory_order_release);
	return sigaction(SIGBUS, &ours, NULL) == 0 ? DRP_OK : DRP_SYSTEM;
}

static void uninstall(void)
{
	struct disposition *top = atomic_load_explicit(&below, memory_order_relaxed);
	struct sigaction current;

	if (!top || sigaction(SIGBUS, NULL, &current) != 0 || !is_ours(&current))
		return;
	if (sigaction(SIGBUS, &top->action, NULL) == 0)
		atomic_store_explicit(&below, top->below, memory_order_release);
}

static void fork_lock(void)
{
	pthread_mutex_lock(&lock);
}

static void fork_unlock(void)
{
	pthread_mutex_unlock(&lock);
}

static void fork_register(void)
{
	fork_status = pthread_atfork(fork_lock, fork_unlock, fork_unlock) == 0 ? DRP_OK : DRP_NO_MEMORY;
}

int guard_watch(const void *start, size_t length, const char *name, struct guard_watch **out)
{
	struct guard_watch *watch;

	pthread_once(&fork_once, fork_register);
	if (fork_status != DRP_OK)
		return fork_status;
	pthread_mutex_lock(&lock);
	int status = install();
	if (status != DRP_OK)
		goto out_unlock;
	for (watch = atomic_load_explicit(&watches, memory_order_relaxed); watch; watch = watch->next)
		if (atomic_load_explicit(&watch->start, memory_order_relaxed) == 0)
			break;
	if (!watch) {
		watch = calloc(1, sizeof(*watch));
		if (!watch) {
			status = DRP_NO_MEMORY;
			goto out_unlock;
		}
		watch->next = atomic_load_explicit(&watches, memory_order_relaxed);
		atomic_store_explicit(&watches, watch, memory_order_release);
	}
	strncpy(watch->name, name, sizeof(watch->name) - 1);
	atomic_store_explicit(&watch->end, (uintptr_t)start + length, memory_order_relaxed);
	atomic_store_explicit(&watch->start, (uintptr_t)start, memory_order_release);
	watch_count++;
	*out = watch;
out_unlock:
	if (status != DRP_OK && watch_count == 0)
		uninstall();
	pthread_mutex_unlock(&lock);
	return status;
}

void guard_shrink(struct guard_watch *watch, size_t length)
{
	const uintptr_t start = atomic_load_explicit(&watch->start, memory_order_relaxed);
	atomic_store_explicit(&watch->end, start + length, memory_order_relaxed);
}

void guard_unwatch(struct guard_watch *watch)
{
	pthread_mutex_lock(&lock);
	atomic_store_explicit(&watch->start, 0, memory_order_release);
	memset(watch->name, 0, sizeof(watch->name));
	if (--watch_count == 0)
		uninstall();
	pthread_mutex_unlock(&lock);
}

/* On top, and not blocked: one system call each, only where a thread enters its outermost guard. */
static int prepare(sigset_t *mask_before)
{
	struct sigaction current;
	sigset_t sigbus;
	int status = DRP_OK;

	if (sigaction(SIGBUS, NULL, &current) != 0)
		return DRP_SYSTEM;
	if (!is_ours(&current)) {
		pthread_mutex_lock(&lock);
		status = install();
		pthread_mutex_unlock(&lock);
	}
	sigemptyset(&sigbus);
	sigaddset(&sigbus, SIGBUS);
	pthread_sigmask(SIG_UNBLOCK, &sigbus, mask_before);
	return status;
}

int guard_call(void (*work)(void *context), void *context, const void *start, size_t length, uintptr_t *fault)
{
	struct frame frame = {.start = (uintptr_t)start, .end = (uintptr_t)start + length, .outer = innermost};
	sigset_t mask_before;
	volatile int status = prepare(&mask_before);

	if (status != DRP_OK)
		return status;
	/* The handler runs with SA_NODEFER and an empty mask, so there is no mask for siglongjmp to restore. */
	if (sigsetjmp(frame.out, 0) == 0) {
		innermost = &frame;
		atomic_signal_fence(memory_order_seq_cst);
		work(context);
		atomic_signal_fence(memory_order_seq_cst);
		innermost = frame.outer;
	} else {
		*fault = frame.fault;
		status = DRP_FAULT;
	}
	if (sigismember(&mask_before, SIGBUS) == 1)
		pthread_sigmask(SIG_SETMASK, &mask_before, NULL);
	return status;
}
