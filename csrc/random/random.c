/*
 * random.c - random.h on the vDSO's getrandom and getrandom(2).
 *
 * States lie in droppable pages of their own, several a page, none across a page: what is dropped is dropped whole.
 * Everything that must outlive a drop or a fork lies in ordinary memory beside them:
 *
 *   pool.pages -> struct slot_page -> next                       ordinary memory, one OS page
 *                   slots: [state, next, busy][...]...
 *                     | state
 *                     v
 *                 |state 0   |state 1   |state 2 ... |           droppable, one OS page; wiped in a forked child
 *
 *   mine (thread-local) -> the thread's slot, NULL before its first draw and after its exit handler ran
 *   pool.free -> slots whose thread has ended; the next new thread takes one
 *
 * Who may interrupt whom:
 *
 * - A signal handler in the middle of a draw finds `busy` and takes the system call. The vDSO has such a flag too, but
 *   inside the state: a page dropped at that moment reads "not busy", the handler would fill the state anew under the
 *   interrupted call, and that call would hand out bytes the handler has used and wiped. So the flag that counts is
 *   ours, in ordinary memory.
 * - Pops and growth happen under pool.lock, which nobody waits for: who finds it taken (by another thread, or by the
 *   code its own signal interrupted) takes the system call this once. Pushes, from threads that end, are lock-free; with
 *   one popper at a time there is no ABA.
 * - fork in another thread: the states are wiped by the kernel, and the child, whose only thread is the one that forked,
 *   takes back every slot but its own. Children made without the C library's fork keep their own slot and leak the
 *   others; at worst they find the lock taken for ever and use the system call. No slot ever has two owners.
 * - A drop, a reseed of the kernel's generator, a snapshot of the virtual machine and a fork within the vDSO's function
 *   are noticed by that function, which starts over.
 */
#include "random/random.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <sys/types.h>

#include "droppable.h"
#include "os/prim.h"
#include "os/prim_end.h"

enum {
	CACHE_LINE = 64,       /* states of two threads never share one */
	STATES_PER_PAGE = 64,  /* at most; 21 on x86-64 */
	/*
	 * Up to here the vDSO's function wins everywhere it was measured: it saves the entry into the kernel (250 to 400 ns)
	 * while its own generator costs 1.4 to 1.7 ns a byte. Beyond it, which of the two ciphers is the faster one differs
	 * from machine to machine by a factor of two either way, and is measured once.
	 */
	SHORT_BYTES = 256,
	/* One call of the vDSO in a long request: what a drop or a reseed in its middle makes it do again. */
	BULK_CALL_BYTES = 32768,
	TRIAL_BYTES = 2048,
	TRIALS = 3,
};

/* The name and version are the ABI. powerpc's function has a calling convention of its own and is left alone. */
#if defined(__x86_64__)
#define VDSO_NAME "__vdso_getrandom"
#define VDSO_VERSION "LINUX_2.6"
#elif defined(__aarch64__)
#define VDSO_NAME "__kernel_getrandom"
#define VDSO_VERSION "LINUX_2.6.39"
#endif

typedef ssize_t vdso_getrandom(void *buffer, size_t length, unsigned flags, void *state, size_t state_length);

/* What the vDSO answers to (NULL, 0, 0, &params, ~0). */
struct vdso_params {
	uint32_t state_bytes, protection, flags, reserved[13];
};

struct slot {
	void *state;
	struct slot *next;
	volatile sig_atomic_t busy;
};

struct slot_page {
	struct slot_page *next;
	unsigned count;
	struct slot slots[];
};

enum readiness { UNKNOWN, READY, UNAVAILABLE };
enum bulk { BULK_UNKNOWN, BULK_VDSO, BULK_SYSCALL };

static struct {
	_Atomic int readiness;
	_Atomic int bulk;
	atomic_flag lock;
	vdso_getrandom *call;
	struct vdso_params params;
	const char *reason;
	pthread_key_t key; /* only for its destructor */
	_Atomic(struct slot *) free;
	_Atomic(struct slot_page *) pages; /* only pushed to, under the lock; read without it */
	_Atomic unsigned state_count;
} pool = {.lock = ATOMIC_FLAG_INIT, .reason = ""};

/* Volatile: a signal handler of this thread may set it between any two instructions. */
static _Thread_local struct slot *volatile mine;
static _Thread_local volatile sig_atomic_t taking; /* this thread is inside take_slot() */

static void push(struct slot *slot)
{
	struct slot *head = atomic_load_explicit(&pool.free, memory_order_relaxed);
	do
		slot->next = head;
	while (!atomic_compare_exchange_weak_explicit(&pool.free, &head, slot, memory_order_release,
						      memory_order_relaxed));
}

/* Caller holds pool.lock. */
static struct slot *pop(void)
{
	struct slot *head = atomic_load_explicit(&pool.free, memory_order_acquire);
	while (head && !atomic_compare_exchange_weak_explicit(&pool.free, &head, head->next, memory_order_acquire,
							      memory_order_acquire))
		;
	return head;
}

static void thread_ended(void *slot_argument)
{
	struct slot *slot = slot_argument;
	mine = NULL; /* a later destructor of this thread that draws takes a slot again */
	push(slot);
}

/*
 * In the child there is one thread. Its fork may have come from a signal handler in the middle of its own take_slot():
 * then that frame still owns a slot and the lock, and everything else is left as it is.
 */
static void forked_child(void)
{
	if (taking)
		return;
	atomic_store_explicit(&pool.free, NULL, memory_order_relaxed);
	for (struct slot_page *page = atomic_load_explicit(&pool.pages, memory_order_acquire); page; page = page->next)
		for (unsigned i = 0; i < page->count; i++) {
			struct slot *slot = &page->slots[i];
			if (slot == mine)
				continue;
			slot->busy = 0;
			push(slot);
		}
	atomic_flag_clear_explicit(&pool.lock, memory_order_release);
}

/* Caller holds pool.lock. */
static int find_vdso(void)
{
#ifdef VDSO_NAME
	pool.call = (vdso_getrandom *)prim_vdso_symbol(VDSO_NAME, VDSO_VERSION);
#endif
	if (!pool.call) {
		pool.reason = "the vDSO has no getrandom: Linux before 6.11 (x86-64) or 6.12 (arm64), another "
			      "architecture, or a sandbox that hides it";
		return UNAVAILABLE;
	}
	if (pool.call(NULL, 0, 0, &pool.params, ~(size_t)0) != 0 || pool.params.state_bytes == 0 ||
	    pool.params.state_bytes > prim_page_size()) {
		pool.reason = "the vDSO's getrandom does not say what state it needs";
		return UNAVAILABLE;
	}
	if (pthread_key_create(&pool.key, thread_ended) != 0 || pthread_atfork(NULL, NULL, forked_child) != 0) {
		pool.reason = "the C library has no thread key left to return a thread's state with";
		return UNAVAILABLE;
	}
	return READY;
}

/* Caller holds pool.lock. Adds a page of states; a failure is harmless, the caller takes the system call. */
static void grow(void)
{
	const size_t page_bytes = prim_page_size();
	const size_t stride = (pool.params.state_bytes + CACHE_LINE - 1) / CACHE_LINE * CACHE_LINE;
	struct slot_page *page;
	unsigned char *states;
	void *address;

	_Static_assert(sizeof(*page) + STATES_PER_PAGE * sizeof(struct slot) <= 4096, "slots fit the smallest page");
	if (prim_map_raw(page_bytes, pool.params.protection, pool.params.flags, &address) != DRP_OK)
		return;
	states = address;
	if (prim_map(PRIM_PLAIN, page_bytes, 0, &address) != DRP_OK) {
		prim_end(states, page_bytes);
		return;
	}
	page = address;
	page->count = (unsigned)(page_bytes / stride < STATES_PER_PAGE ? page_bytes / stride : STATES_PER_PAGE);
	if (page->count == 0)
		page->count = 1;
	for (unsigned i = 0; i < page->count; i++)
		page->slots[i].state = states + i * stride;
	page->next = atomic_load_explicit(&pool.pages, memory_order_relaxed);
	atomic_store_explicit(&pool.pages, page, memory_order_release);
	/* Visible in pool.pages before any slot of it can be taken: a forked child must find them all. */
	atomic_signal_fence(memory_order_seq_cst);
	for (unsigned i = page->count; i-- > 0;)
		push(&page->slots[i]);
	atomic_fetch_add_explicit(&pool.state_count, page->count, memory_order_relaxed);
}

/* A slot for this thread, or NULL: none to be had just now. */
static struct slot *take_slot(void)
{
	struct slot *slot = NULL;
	const sig_atomic_t was_taking = taking;
	int readiness = atomic_load_explicit(&pool.readiness, memory_order_acquire);

	if (readiness == UNAVAILABLE)
		return NULL;
	taking = 1;
	if (atomic_flag_test_and_set_explicit(&pool.lock, memory_order_acquire))
		goto out; /* the holder may be the code this signal interrupted: never wait */
	readiness = atomic_load_explicit(&pool.readiness, memory_order_relaxed);
	if (readiness == UNKNOWN) {
		readiness = find_vdso();
		atomic_store_explicit(&pool.readiness, readiness, memory_order_release);
	}
	if (readiness != READY)
		goto out_unlock;
	slot = mine; /* a signal handler that came in just before the lock may have taken one */
	if (slot)
		goto out_unlock;
	slot = pop();
	if (!slot) {
		grow();
		slot = pop();
	}
	if (slot && pthread_setspecific(pool.key, slot) != 0) {
		push(slot);
		slot = NULL;
	}
	mine = slot; /* before the lock is free: a signal handler must not take a second one */
out_unlock:
	atomic_flag_clear_explicit(&pool.lock, memory_order_release);
out:
	taking = was_taking;
	return slot;
}

/* Fills by the vDSO, whole (true), or not, and then nothing of the buffer counts. */
static bool fill_by_vdso(struct slot *slot, unsigned char *at, size_t length)
{
	bool whole = true;

	if (slot->busy)
		return false;
	slot->busy = 1;
	while (length > 0 && whole) {
		size_t part = length < BULK_CALL_BYTES ? length : BULK_CALL_BYTES;
		whole = pool.call(at, part, 0, slot->state, pool.params.state_bytes) == (ssize_t)part;
		at += part;
		length -= part;
	}
	slot->busy = 0;
	return whole;
}

/* Which is faster for long requests: the best of a few of each, some tens of microseconds once in a process. */
static int try_bulk(struct slot *slot)
{
	unsigned char bytes[TRIAL_BYTES];
	uint64_t best_vdso_ns = UINT64_MAX, best_syscall_ns = UINT64_MAX;
	int answer = BULK_SYSCALL;

	if (slot->busy)
		return BULK_UNKNOWN;
	for (int i = 0; i < TRIALS; i++) {
		uint64_t start_ns = prim_now_ns();
		if (!fill_by_vdso(slot, bytes, sizeof(bytes)))
			break;
		uint64_t middle_ns = prim_now_ns();
		if (prim_random(bytes, sizeof(bytes)) != DRP_OK)
			break;
		uint64_t end_ns = prim_now_ns();
		if (middle_ns - start_ns < best_vdso_ns)
			best_vdso_ns = middle_ns - start_ns;
		if (end_ns - middle_ns < best_syscall_ns)
			best_syscall_ns = end_ns - middle_ns;
	}
	if (best_vdso_ns < best_syscall_ns)
		answer = BULK_VDSO;
	atomic_store_explicit(&pool.bulk, answer, memory_order_relaxed);
	return answer;
}

static bool bulk_by_vdso(struct slot *slot)
{
	int bulk = atomic_load_explicit(&pool.bulk, memory_order_relaxed);
	if (bulk == BULK_UNKNOWN)
		bulk = try_bulk(slot);
	return bulk == BULK_VDSO;
}

int random_fill(void *buffer, size_t length)
{
	struct slot *slot = mine;

	if (!slot)
		slot = take_slot();
	if (slot && (length <= SHORT_BYTES || bulk_by_vdso(slot)) && fill_by_vdso(slot, buffer, length))
		return DRP_OK;
	return prim_random(buffer, length);
}

void random_describe(struct random_info *out)
{
	struct slot *slot = mine ? mine : take_slot();

	*out = (struct random_info){.reason = pool.reason};
	if (atomic_load_explicit(&pool.readiness, memory_order_acquire) != READY)
		return;
	out->vdso = true;
	out->vdso_in_bulk = slot && bulk_by_vdso(slot);
	out->state_bytes = pool.params.state_bytes;
	out->state_count = atomic_load_explicit(&pool.state_count, memory_order_relaxed);
}
