/*
 * test_region_faults.c - regions on prim_fake: pages vanish at every step of every operation, calls fail one by one.
 *
 * A region is made anew for each fault, with a page of each sort. Then one operation runs, with one fault in it:
 *
 *   page      0      1      2      3             4        5
 *   content   whole  in part, both last byte     zeros    never written
 *
 * Whatever happens, afterwards each page gives what was there before or what the operation put there, whole, or its loss
 * is told (REGION_ZERO: byte by byte, or 0). What can be settled can be dropped, each page can be written again, and
 * closing leaves no mapping, no handle and no signal handler behind.
 *
 *   operation has S steps, the region P pages: S x (P + 1) runs (each page alone, and all at once); and a run a call
 */
#include "region/region.h"

#include <signal.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"
#include "prim_fake.h"

enum { PAGES = 6, MOST_PAGES = 2 * PAGES, FEWER_PAGES = 3, MAX_PAGE_BYTES = 65536, ENOUGH_FAILURES = 10 };

enum operation {
	OP_READ, OP_WRITE, OP_WRITE_WHOLE, OP_HOLD_READ, OP_HOLD_WRITE, OP_PIN, OP_SETTLE, OP_EXPOSED_WRITE, OP_PURGE,
	OP_PAGE_OUT, OP_REFILL, OP_CENSUS, OP_GROW, OP_SHRINK, OP_COUNT
};

struct setting {
	enum region_on_drop on_drop;
	enum prim_backing backing;
	bool exposed; /* tracking tells what was written */
};

typedef unsigned char sheet[MOST_PAGES * MAX_PAGE_BYTES];
static sheet before, after, got, source;

static size_t page;
static bool counting; /* allocations count as calls that can fail */

/* What became of an operation, and what may have happened to the pages. */
struct outcome {
	int status;
	bool may_be_gone[MOST_PAGES]; /* by the operation itself, or never there */
	bool may_be_old;	      /* though it succeeded */
	bool dropped;		      /* a drop was ordered, and came */
};

void *__real_malloc(size_t bytes);
void *__real_calloc(size_t count, size_t bytes);
void *__real_realloc(void *old, size_t bytes);
void *__wrap_malloc(size_t bytes);
void *__wrap_calloc(size_t count, size_t bytes);
void *__wrap_realloc(void *old, size_t bytes);

void *__wrap_malloc(size_t bytes)
{
	return counting && fake_fails() ? NULL : __real_malloc(bytes);
}

void *__wrap_calloc(size_t count, size_t bytes)
{
	return counting && fake_fails() ? NULL : __real_calloc(count, bytes);
}

void *__wrap_realloc(void *old, size_t bytes)
{
	return counting && fake_fails() ? NULL : __real_realloc(old, bytes);
}

typedef void handler(int);
static handler *handler_before; /* a sanitizer has one */

static handler *sigbus_handler(void)
{
	struct sigaction action;

	REQUIRE(sigaction(SIGBUS, NULL, &action) == 0);
	return action.sa_handler;
}

static void fill(unsigned char *bytes, size_t length, unsigned seed)
{
	for (size_t i = 0; i < length; i++)
		bytes[i] = (unsigned char)((i * 7 + seed) % 251 + 1);
}

static struct region *opened(const struct setting *setting)
{
	const struct region_options options = {.on_drop = setting->on_drop, .backing = setting->backing, .name = "faults"};
	struct region *region = NULL;

	REQUIRE(region_open(PAGES * page, &options, &region) == DRP_OK);
	return region;
}

static void put(struct region *region, size_t offset, const unsigned char *from, size_t length)
{
	struct region_gone gone = {0};

	REQUIRE(region_write(region, offset, from, length, &gone) == DRP_OK);
	memcpy(before + offset, from, length);
}

static struct region *filled(const struct setting *setting)
{
	static unsigned char last[MAX_PAGE_BYTES], zeros[MAX_PAGE_BYTES];
	struct region *region = opened(setting);

	memset(before, 0, sizeof(before));
	fill(source, sizeof(source), 1);
	last[page - 1] = 9;
	if (setting->exposed)
		REQUIRE(region_expose(region) == DRP_OK);
	put(region, 0, source, page);
	put(region, page + page / 4, source + 100, page + page / 4);
	put(region, 3 * page, last, page);
	put(region, 4 * page, last, page);
	put(region, 4 * page, zeros, page);
	REQUIRE(region_settle(region, 0, PAGES * page) == DRP_OK);
	memcpy(after, before, sizeof(after));
	fill(source, sizeof(source), 77);
	return region;
}

static void will_put(size_t offset, const unsigned char *from, size_t length)
{
	memcpy(after + offset, from, length);
}

/* Copies with steps in between, as any code might that reads or writes by address. */
static void slow_copy(unsigned char *to, const unsigned char *from, size_t length)
{
	for (size_t i = 0; i < length; i += page / 2) {
		prim_step();
		memcpy(to + i, from + i, length - i < page / 2 ? length - i : page / 2);
	}
	prim_step();
}

static int do_hold_read(struct region *region, const struct setting *setting, struct region_gone *gone)
{
	struct region_hold hold;

	int status = region_hold_begin(region, REGION_HOLD_READ, 10, 4 * page, &hold, gone);
	if (status != DRP_OK)
		return status;
	slow_copy(got, (unsigned char *)region_memory(region) + 10, 4 * page);
	status = region_hold_end(region, &hold, gone);
	if (status == DRP_OK && setting->on_drop != REGION_ZERO)
		CHECK_EQ(memcmp(got, before + 10, 4 * page), 0);
	return status;
}

static int do_hold_write(struct region *region, struct region_gone *gone)
{
	struct region_hold hold;

	int status = region_hold_begin(region, REGION_HOLD_WRITE, page, 2 * page, &hold, gone);
	if (status != DRP_OK)
		return status;
	slow_copy((unsigned char *)region_memory(region) + page, source, 2 * page);
	will_put(page, source, 2 * page);
	return region_hold_end(region, &hold, gone);
}

static int do_pin(struct region *region, const struct setting *setting, struct region_gone *gone)
{
	struct region_hold hold;

	int status = region_hold_begin(region, REGION_HOLD_PIN, 0, 5 * page, &hold, gone);
	if (status != DRP_OK)
		return status;
	if (setting->on_drop != REGION_ZERO) {
		slow_copy(got, region_memory(region), 5 * page);
		fake_drop(FAKE_EVERY_PAGE);
		CHECK_EQ(memcmp(got, before, 5 * page), 0);
		CHECK_EQ(memcmp(region_memory(region), before, 5 * page), 0);
	}
	CHECK_EQ(region_purge(region, page, page), DRP_EXISTS);
	return region_hold_end(region, &hold, gone);
}

static int do_exposed_write(struct region *region)
{
	unsigned char *memory = region_memory(region);

	int status = region_expose(region);
	slow_copy(memory + page, source, page);
	slow_copy(memory + 3 * page + 7, source, page / 2);
	will_put(page, source, page);
	will_put(3 * page + 7, source, page / 2);
	return status == DRP_OK ? region_settle(region, 0, PAGES * page) : status;
}

static int do_census(struct region *region, struct region_gone *gone)
{
	struct region_census census = {0};

	int status = region_census(region, 0, PAGES * page, &census, gone);
	if (status == DRP_OK) {
		CHECK_EQ(census.pages.pages, PAGES);
		CHECK(census.dropped_pages <= 4);
	}
	return status;
}

static void operate(struct region *region, const struct setting *setting, enum operation operation,
		    struct outcome *outcome, struct region_gone *gone)
{
	size_t filled_bytes = 0;

	switch (operation) {
	case OP_READ:
		outcome->status = region_read(region, 5, got, 4 * page + 100, gone);
		if (outcome->status == DRP_OK && setting->on_drop != REGION_ZERO)
			CHECK_EQ(memcmp(got, before + 5, 4 * page + 100), 0);
		break;
	case OP_WRITE:
		will_put(page / 2, source, 2 * page);
		outcome->status = region_write(region, page / 2, source, 2 * page, gone);
		break;
	case OP_WRITE_WHOLE:
		will_put(page, source, 5 * page);
		outcome->status = region_write(region, page, source, 5 * page, gone);
		break;
	case OP_HOLD_READ:
		outcome->status = do_hold_read(region, setting, gone);
		break;
	case OP_HOLD_WRITE:
		outcome->status = do_hold_write(region, gone);
		break;
	case OP_PIN:
		outcome->status = do_pin(region, setting, gone);
		break;
	case OP_SETTLE:
		outcome->status = region_settle(region, 0, PAGES * page);
		break;
	case OP_EXPOSED_WRITE: /* by address, and no hold: for zeros only */
		outcome->status = setting->on_drop == REGION_ZERO ? do_exposed_write(region) : DRP_OK;
		break;
	case OP_PURGE:
		memset(after + page, 0, page);
		outcome->may_be_gone[1] = setting->on_drop == REGION_SIGNAL;
		outcome->status = region_purge(region, page, page);
		break;
	case OP_PAGE_OUT:
		for (size_t i = 0; i < PAGES; i++)
			outcome->may_be_gone[i] = true;
		outcome->status = region_page_out(region, 0, PAGES * page);
		break;
	case OP_REFILL:
		will_put(page, source, 5 * page);
		outcome->status = region_refill(region, page, source, 5 * page, &filled_bytes);
		if (outcome->status == DRP_OK)
			CHECK(filled_bytes >= page); /* the page never written, and what was dropped just before */
		outcome->may_be_old = true;
		break;
	case OP_CENSUS:
		outcome->status = do_census(region, gone);
		break;
	case OP_GROW:
		outcome->status = region_resize(region, MOST_PAGES * page);
		CHECK_EQ(region_length(region), (outcome->status == DRP_OK ? MOST_PAGES : PAGES) * page);
		break;
	case OP_SHRINK:
		outcome->status = region_resize(region, FEWER_PAGES * page);
		CHECK_EQ(region_length(region), (outcome->status == DRP_OK ? FEWER_PAGES : PAGES) * page);
		break;
	case OP_COUNT:
		break;
	}
}

/* May the operation end like this? failing: a call was made to fail. */
static void check_status(const struct setting *setting, enum operation operation, const struct outcome *outcome, bool failing)
{
	const bool droppable = setting->backing == PRIM_DROPPABLE, provable = droppable && setting->on_drop == REGION_RAISE;

	switch (outcome->status) {
	case DRP_OK:
		break;
	case DRP_FAULT:
		CHECK(outcome->dropped && setting->on_drop != REGION_ZERO);
		break;
	case DRP_REFUSED:
		CHECK(outcome->dropped && provable);
		break;
	case DRP_UNSUPPORTED:
		CHECK(failing || (operation == OP_PIN && droppable) || (operation == OP_HOLD_WRITE && provable) ||
		      (operation == OP_REFILL && setting->on_drop != REGION_SIGNAL));
		break;
	default:
		CHECK(failing);
	}
}

/* A call that failed may cost content only where the operation was to change it. */
static bool may_cost(enum operation operation)
{
	return operation == OP_WRITE || operation == OP_WRITE_WHOLE || operation == OP_HOLD_WRITE || operation == OP_PURGE;
}

static void check_bytes(size_t number, bool may_be_old, bool may_be_zero)
{
	const unsigned char *is = got + number * page, *new = after + number * page, *old = before + number * page;

	if (!may_be_zero) { /* page by page */
		CHECK(memcmp(is, new, page) == 0 || (may_be_old && memcmp(is, old, page) == 0));
		return;
	}
	for (size_t i = 0; i < page; i++)
		if (!CHECK(is[i] == 0 || is[i] == new[i] || (may_be_old && is[i] == old[i])))
			return;
}

static void check_pages(struct region *region, const struct setting *setting, enum operation operation,
			const struct outcome *outcome)
{
	const bool failed = outcome->status != DRP_OK, zero = setting->on_drop == REGION_ZERO;
	struct region_gone gone = {0};

	/* "Nothing was written": on PRIM_DROPPABLE only what had gone before is told in time. */
	if (outcome->status == DRP_FAULT && setting->backing == PRIM_LAZYFREE && operation != OP_HOLD_WRITE)
		memcpy(after, before, sizeof(after));
	for (size_t i = 0; i < region_length(region) / page; i++) {
		const bool gone_is_fine = outcome->dropped || outcome->may_be_gone[i] || (failed && may_cost(operation));
		int status = region_read(region, i * page, got + i * page, page, &gone);
		if (status == DRP_OK)
			check_bytes(i, failed || outcome->may_be_old, zero && gone_is_fine);
		else if (CHECK_EQ(status, DRP_FAULT))
			CHECK(!zero && gone_is_fine && gone.count == 1 && gone.ranges[0].start == i * page);
		region_gone_free(&gone);
	}
}

/* What holds for any region, whatever happened to it; it is closed at the end. */
static void check_works(struct region *region, const struct setting *setting)
{
	const size_t length = region_length(region);
	struct region_gone gone = {0};
	bool had_content[MOST_PAGES];

	CHECK_EQ(region_settle(region, 0, length), DRP_OK);
	memset(after, 0, sizeof(after));
	for (size_t i = 0; i < length / page; i++) {
		had_content[i] = region_read(region, i * page, got, page, &gone) == DRP_OK && memcmp(got, after, page) != 0;
		region_gone_free(&gone);
	}
	fake_drop(FAKE_EVERY_PAGE);
	for (size_t i = 0; i < length / page; i++) {
		int status = region_read(region, i * page, got, page, &gone);
		if (status == DRP_OK) /* REGION_RAISE: zeros that were zeros, and no loss */
			CHECK(setting->on_drop != REGION_SIGNAL && memcmp(got, after, page) == 0 &&
			      !(had_content[i] && setting->on_drop == REGION_RAISE));
		else
			CHECK(status == DRP_FAULT && setting->on_drop != REGION_ZERO);
		region_gone_free(&gone);
	}
	fill(source, length, 200);
	CHECK_EQ(region_write(region, 0, source, length, &gone), DRP_OK);
	CHECK_EQ(region_read(region, 0, got, length, &gone), DRP_OK);
	CHECK_EQ(memcmp(got, source, length), 0);
	region_close(region);
	CHECK_EQ(fake_mappings(), 0);
	CHECK_EQ(fake_handles(), 0);
	CHECK(sigbus_handler() == handler_before);
}

static void never_there(const struct setting *setting, enum operation operation, struct outcome *outcome)
{
	const bool alive = outcome->status == DRP_OK && (operation == OP_WRITE_WHOLE || operation == OP_REFILL);

	for (size_t i = alive ? PAGES : PAGES - 1; setting->on_drop == REGION_SIGNAL && i < MOST_PAGES; i++)
		outcome->may_be_gone[i] = true;
}

/* One operation with a drop at a step, or a failing call; 0: none. Tells how many steps and calls there were. */
static void run(const struct setting *setting, enum operation operation, size_t step, size_t victim, size_t call,
		size_t *steps, size_t *calls)
{
	struct region_gone gone = {0};
	struct outcome outcome = {0};

	fake_reset();
	struct region *region = filled(setting);
	fake_drop_at_step(step, victim);
	fake_fail_call(call);
	counting = true;
	operate(region, setting, operation, &outcome, &gone);
	counting = false;
	*steps = fake_steps();
	*calls = fake_calls();
	fake_drop_at_step(0, 0);
	fake_fail_call(0);
	outcome.dropped = step != 0 && *steps >= step;
	check_status(setting, operation, &outcome, call != 0);
	if (outcome.status == DRP_FAULT)
		CHECK(gone.count > 0);
	region_gone_free(&gone);
	never_there(setting, operation, &outcome);
	check_pages(region, setting, operation, &outcome);
	check_works(region, setting);
	if (check_failures())
		printf("# operation %d, drop of page %zd at step %zu, call %zu\n", (int)operation, (ssize_t)victim, step, call);
}

static void at_every_step(struct setting setting)
{
	const size_t state_pages = (MOST_PAGES * 2 + page - 1) / page; /* 2 bytes a page, in a mapping of their own */
	size_t runs = 0;

	for (int operation = 0; operation < OP_COUNT; operation++) {
		/* the region's; when it grows, also those of the place that it moves to */
		size_t pages = operation == OP_GROW ? PAGES + MOST_PAGES + state_pages : PAGES, steps = 1, seen, calls;
		for (size_t step = 1; step <= steps; step++)
			for (size_t victim = 0; victim <= pages; victim++, runs++) {
				if (victim < pages && !check_makes(runs)) /* all pages at once always: that tells how many steps there are */
					continue;
				run(&setting, operation, step, victim < pages ? victim : FAKE_EVERY_PAGE, 0, &seen, &calls);
				steps = seen > steps ? seen : steps; /* more: the drop made it go another way */
				if (check_failures() > ENOUGH_FAILURES)
					return;
			}
	}
	printf("# %zu runs\n", runs);
}

/* The first call that fails, and the second, ... until all succeed. */
static void at_every_call(struct setting setting)
{
	size_t runs = 0;

	for (int operation = 0; operation < OP_COUNT; operation++) {
		size_t steps, calls, call = 0;
		do {
			run(&setting, operation, 0, 0, ++call, &steps, &calls);
			runs++;
			if (check_failures() > ENOUGH_FAILURES)
				return;
		} while (calls >= call);
	}
	printf("# %zu runs\n", runs);
}

static void opening_fails_at_every_call(struct setting setting)
{
	const struct region_options options = {.on_drop = setting.on_drop, .backing = setting.backing, .name = "faults"};
	int status = DRP_NO_MEMORY;

	for (size_t call = 1; status != DRP_OK; call++) {
		struct region *region = NULL;
		fake_reset();
		fake_fail_call(call);
		counting = true;
		status = region_open(PAGES * page, &options, &region);
		counting = false;
		CHECK_EQ(status == DRP_OK, fake_calls() < call);
		if (status == DRP_OK)
			region_close(region);
		else
			CHECK(!region);
		CHECK_EQ(fake_mappings(), 0);
		CHECK_EQ(fake_handles(), 0);
		CHECK(sigbus_handler() == handler_before);
	}
}

/* In the child, where the handlers of fork() put things right, each of their calls fails once. */
static void check_child(struct region *region, const struct setting *setting)
{
	struct region_gone gone = {0};

	for (size_t i = 0; i < PAGES; i++) {
		int status = region_read(region, i * page, got, page, &gone);
		if (status == DRP_OK) /* never half of it: wiped, or (no failure is that of the kernel's own wiping) not */
			CHECK(memcmp(got, before + i * page, page) == 0 ||
			      (setting->on_drop == REGION_ZERO && memcmp(got, after, page) == 0));
		else
			CHECK(status == DRP_FAULT || (status == DRP_UNSUPPORTED && setting->on_drop == REGION_SIGNAL));
		region_gone_free(&gone);
	}
	struct region_hold hold;
	int status = region_hold_begin(region, REGION_HOLD_READ, 0, page, &hold, &gone);
	if (status == DRP_OK) {
		memcpy(got, region_memory(region), page);
		status = region_hold_end(region, &hold, &gone);
	}
	if (status == DRP_OK)
		CHECK(memcmp(got, before, page) == 0 || setting->on_drop == REGION_ZERO);
	region_gone_free(&gone);
	status = region_write(region, page, source, page / 2, &gone);
	if (status == DRP_OK) {
		CHECK_EQ(region_read(region, page, got, page, &gone), DRP_OK);
		CHECK_EQ(memcmp(got, source, page / 2), 0);
	} else {
		CHECK(status == DRP_FAULT || (status == DRP_UNSUPPORTED && setting->on_drop == REGION_SIGNAL));
	}
	region_gone_free(&gone);
}

static void a_child_is_put_right_at_every_call(struct setting setting)
{
	for (size_t call = 0; call <= 3; call++) { /* purge, and for signals: open, arm */
		struct region_gone gone = {0};
		int status;
		fake_reset();
		struct region *region = filled(&setting);
		memset(after, 0, sizeof(after));
		put(region, 0, source, 2 * page); /* not settled yet */
		fake_fail_call(call);
		fflush(stdout);
		pid_t child = fork();
		REQUIRE(child >= 0);
		if (child == 0) {
			fake_fail_call(0);
			check_child(region, &setting);
			fflush(stdout);
			_exit(check_failures());
		}
		fake_fail_call(0);
		REQUIRE(waitpid(child, &status, 0) == child);
		CHECK_EQ(status, 0);
		CHECK_EQ(region_read(region, 0, got, 5 * page, &gone), DRP_OK);
		CHECK_EQ(memcmp(got, before, 5 * page), 0);
		check_works(region, &setting);
	}
}

/* A write that lies elsewhere settles what was written before; that fails, and nobody settles either any more. */
static void a_child_hears_of_what_was_never_settled(struct setting setting)
{
	struct region_gone gone = {0};
	int status;

	fake_reset();
	struct region *region = opened(&setting);
	memset(before, 0, sizeof(before));
	fill(source, sizeof(source), 5);
	put(region, 0, source, page);
	fake_fail_call(1);
	CHECK(region_write(region, 3 * page, source, page, &gone) != DRP_OK);
	fake_fail_call(0);
	memcpy(before + 3 * page, source, page); /* there all the same */
	fflush(stdout);
	pid_t child = fork();
	REQUIRE(child >= 0);
	if (child == 0) {
		CHECK_EQ(region_read(region, 0, got, page, &gone), DRP_FAULT);
		CHECK_EQ(region_read(region, 3 * page, got, page, &gone), DRP_FAULT);
		_exit(check_failures());
	}
	REQUIRE(waitpid(child, &status, 0) == child);
	CHECK_EQ(status, 0);
	CHECK_EQ(region_read(region, 0, got, 4 * page, &gone), DRP_OK);
	CHECK_EQ(memcmp(got, before, 4 * page), 0);
	check_works(region, &setting);
}

/* The first time all that is resident counts as written; from then on tracking tells. */
static void a_writing_hold_on_all_marks_what_was_written(void)
{
	enum { MANY = 100, WRITTEN = 3 };
	const struct region_options options = {.on_drop = REGION_ZERO, .backing = PRIM_LAZYFREE};
	struct region_gone gone = {0};
	struct region *region;
	size_t marked[2];

	fake_reset();
	REQUIRE(region_open(MANY * page, &options, &region) == DRP_OK);
	for (size_t round = 0; round < 2; round++) {
		struct region_hold hold;
		unsigned char *memory = region_memory(region);
		size_t before_pages = fake_marked_pages();
		REQUIRE(region_hold_begin(region, REGION_HOLD_WRITE, 0, MANY * page, &hold, &gone) == DRP_OK);
		if (round == 0)
			memset(memory, 1, MANY * page);
		for (size_t i = 0; i < WRITTEN; i++)
			memory[(7 + 20 * i) * page + 11] = (unsigned char)(2 + round);
		REQUIRE(region_hold_end(region, &hold, &gone) == DRP_OK);
		marked[round] = fake_marked_pages() - before_pages;
		memory[0] = 3;
		REQUIRE(region_settle(region, 0, page) == DRP_OK);
	}
	CHECK_EQ(marked[0], MANY);
	CHECK_EQ(marked[1], WRITTEN);
	fake_drop(FAKE_EVERY_PAGE);
	for (size_t i = 0; i < MANY; i++)
		CHECK(!fake_page_in_use(i));
	region_close(region);
	CHECK_EQ(fake_handles(), 0);
}

#define ZERO_LAZYFREE ((struct setting){REGION_ZERO, PRIM_LAZYFREE, false})
#define ZERO_TRACKED ((struct setting){REGION_ZERO, PRIM_LAZYFREE, true})
#define ZERO_DROPPABLE ((struct setting){REGION_ZERO, PRIM_DROPPABLE, false})
#define RAISE_LAZYFREE ((struct setting){REGION_RAISE, PRIM_LAZYFREE, false})
#define RAISE_DROPPABLE ((struct setting){REGION_RAISE, PRIM_DROPPABLE, false})
#define SIGNAL_LAZYFREE ((struct setting){REGION_SIGNAL, PRIM_LAZYFREE, false})

int main(void)
{
	page = prim_page_size();
	handler_before = sigbus_handler();
	RUN(opening_fails_at_every_call, ZERO_LAZYFREE);
	RUN(opening_fails_at_every_call, RAISE_DROPPABLE);
	RUN(opening_fails_at_every_call, SIGNAL_LAZYFREE);
	RUN(a_writing_hold_on_all_marks_what_was_written);
	RUN(at_every_call, ZERO_LAZYFREE);
	RUN(at_every_call, ZERO_TRACKED);
	RUN(at_every_call, ZERO_DROPPABLE);
	RUN(at_every_call, RAISE_LAZYFREE);
	RUN(at_every_call, RAISE_DROPPABLE);
	RUN(at_every_call, SIGNAL_LAZYFREE);
	RUN(a_child_is_put_right_at_every_call, ZERO_LAZYFREE);
	RUN(a_child_is_put_right_at_every_call, ZERO_TRACKED);
	RUN(a_child_is_put_right_at_every_call, RAISE_LAZYFREE);
	RUN(a_child_is_put_right_at_every_call, RAISE_DROPPABLE);
	RUN(a_child_is_put_right_at_every_call, SIGNAL_LAZYFREE);
	RUN(a_child_hears_of_what_was_never_settled, RAISE_LAZYFREE);
	RUN(at_every_step, RAISE_LAZYFREE);
	RUN(at_every_step, ZERO_LAZYFREE);
	RUN(at_every_step, ZERO_TRACKED);
	RUN(at_every_step, ZERO_DROPPABLE);
	RUN(at_every_step, RAISE_DROPPABLE);
	RUN(at_every_step, SIGNAL_LAZYFREE);
	return check_done();
}
