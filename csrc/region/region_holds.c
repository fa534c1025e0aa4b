/*
 * region_holds.c - who uses which pages: holds that keep their range from being settled, and readers that have to hear of
 * repairs.
 *
 * Holds are a treap (a search tree by first page, a heap by a random priority), each knowing the furthest end below it:
 *
 *              [40,44) furthest 90             what is asked: how far do the holds reach that begin before page p?
 *             /                  \             and: where does the next one begin?
 *     [10,50) furthest 50    [80,90) furthest 90     Both in log n, so n holds begin and end in n log n, wherever they lie.
 *
 * Readers (REGION_RAISE: nothing keeps the kernel from their pages) are a list:
 *
 *   the kernel takes page 7; a reader computes on zeros; another thread repairs page 7; the reader looks: all is there
 *
 * So whoever makes a page that went look whole again tells first, under the lock, all readers of that page. A reader that
 * begins while the repair goes on is told at once: the repair may not have come to what it reads. region_read() is too
 * short for a list: it compares how many repairs had begun and ended before and after (and enters the list if there were any).
 *
 *   repair:   lost marks, begun + 1; purge; states; content; ended + 1
 *   reader:   ended == begun?; copy; states and witnesses; begun as before?        (what it saw of the repair comes after)
 *
 * Callers: the other files of the region.
 */
#include "region/region_holds.h"

static bool comes_before(const struct region_hold *a, const struct region_hold *b)
{
	return a->first_page != b->first_page ? a->first_page < b->first_page : a < b;
}

static void update(struct region_hold *hold)
{
	hold->furthest = hold->end_page;
	if (hold->left && hold->left->furthest > hold->furthest)
		hold->furthest = hold->left->furthest;
	if (hold->right && hold->right->furthest > hold->furthest)
		hold->furthest = hold->right->furthest;
}

/* Takes the tree apart into what comes before hold and what comes after. Depth: the tree's, some log n. */
static void split(struct region_hold *tree, const struct region_hold *hold, struct region_hold **before,
		  struct region_hold **after)
{
	if (!tree) {
		*before = *after = NULL;
	} else if (comes_before(tree, hold)) {
		split(tree->right, hold, &tree->right, after);
		*before = tree;
		update(tree);
	} else {
		split(tree->left, hold, before, &tree->left);
		*after = tree;
		update(tree);
	}
}

/* All of before comes before all of after. */
static struct region_hold *join(struct region_hold *before, struct region_hold *after)
{
	if (!before || !after)
		return before ? before : after;
	if (before->priority > after->priority) {
		before->right = join(before->right, after);
		update(before);
		return before;
	}
	after->left = join(before, after->left);
	update(after);
	return after;
}

static struct region_hold *with(struct region_hold *tree, struct region_hold *hold)
{
	if (!tree || hold->priority > tree->priority) {
		split(tree, hold, &hold->left, &hold->right);
		update(hold);
		return hold;
	}
	if (comes_before(hold, tree))
		tree->left = with(tree->left, hold);
	else
		tree->right = with(tree->right, hold);
	update(tree);
	return tree;
}

static struct region_hold *without(struct region_hold *tree, const struct region_hold *hold)
{
	if (!tree)
		return NULL;
	if (tree == hold)
		return join(tree->left, tree->right);
	if (comes_before(hold, tree))
		tree->left = without(tree->left, hold);
	else
		tree->right = without(tree->right, hold);
	update(tree);
	return tree;
}

void region_link_hold(struct region *region, struct region_hold *hold)
{
	region->random = region->random * 1664525u + 1013904223u; /* any numbers without a pattern in the pages */
	hold->owner = pthread_self();
	hold->priority = region->random;
	hold->left = hold->right = NULL;
	hold->is_repair = false;
	hold->is_linked = true;
	region->holds = with(region->holds, hold);
}

/* A hold that a fork ended is in no tree any more: fine. */
void region_unlink_hold(struct region *region, struct region_hold *hold)
{
	if (!hold->is_linked)
		return;
	region->holds = without(region->holds, hold);
	hold->is_linked = false;
	if (hold->is_repair)
		region_repair_end_locked(region);
}

/* How far the holds reach that begin before the page; 0 if there are none. */
static size_t furthest_before(const struct region *region, size_t page)
{
	size_t furthest = 0;

	for (const struct region_hold *hold = region->holds; hold;) {
		if (hold->first_page >= page) {
			hold = hold->left;
			continue;
		}
		if (hold->end_page > furthest)
			furthest = hold->end_page;
		if (hold->left && hold->left->furthest > furthest)
			furthest = hold->left->furthest;
		hold = hold->right;
	}
	return furthest;
}

bool region_is_held(const struct region *region, size_t first, size_t end)
{
	return furthest_before(region, end) > first;
}

bool region_next_unheld(const struct region *region, size_t *first, size_t end, size_t *run_end)
{
	for (size_t held; *first < end && (held = furthest_before(region, *first + 1)) > *first;)
		*first = held;
	if (*first >= end)
		return false;
	*run_end = end;
	for (const struct region_hold *hold = region->holds; hold;) {
		if (hold->first_page > *first) {
			if (hold->first_page < *run_end)
				*run_end = hold->first_page;
			hold = hold->left;
		} else {
			hold = hold->right;
		}
	}
	return true;
}

static bool overlaps(const struct region_hold *hold, size_t first, size_t end)
{
	return hold->first_page < end && first < hold->end_page;
}

static void lose(struct region_hold *reader, size_t first, size_t end)
{
	if (reader->lost_first == reader->lost_end) {
		reader->lost_first = first;
		reader->lost_end = end;
		return;
	}
	reader->lost_first = first < reader->lost_first ? first : reader->lost_first;
	reader->lost_end = end > reader->lost_end ? end : reader->lost_end;
}

/* Goes through the repairs that are under way: writers, a few at most, so all of the tree is looked through. */
static void lose_what_is_repaired(const struct region_hold *tree, struct region_hold *reader)
{
	for (; tree; tree = tree->right) {
		if (tree->is_repair && overlaps(reader, tree->first_page, tree->end_page))
			lose(reader, tree->first_page, tree->end_page);
		lose_what_is_repaired(tree->left, reader);
	}
}

void region_link_reader(struct region *region, struct region_hold *reader)
{
	reader->owner = pthread_self();
	reader->lost_first = reader->lost_end = 0;
	reader->is_linked = true;
	pthread_mutex_lock(&region->lock);
	if (region_repairs_begun(region) != region_repairs_ended(region))
		lose_what_is_repaired(region->holds, reader);
	reader->left = NULL;
	reader->right = region->readers;
	if (region->readers)
		region->readers->left = reader;
	region->readers = reader;
	pthread_mutex_unlock(&region->lock);
}

/* Takes it out of the list; the lock is held. */
static void leave_list(struct region *region, struct region_hold *reader)
{
	if (reader->left)
		reader->left->right = reader->right;
	else
		region->readers = reader->right;
	if (reader->right)
		reader->right->left = reader->left;
	reader->is_linked = false;
}

static bool is_lost(const struct region_hold *reader, size_t page)
{
	return reader->lost_first <= page && page < reader->lost_end;
}

bool region_end_reader(struct region *region, struct region_hold *reader, struct region_gone *gone)
{
	atomic_thread_fence(memory_order_acquire); /* the bytes were used; now look at the marks */
	bool intact = region_find_gone(region, reader->first_page, reader->end_page, gone);

	/* After the look: whatever it saw of a repair comes after that repair's mark in the reader. */
	pthread_mutex_lock(&region->lock);
	if (reader->is_linked) /* else a fork ended it, and it has lost everything */
		leave_list(region, reader);
	pthread_mutex_unlock(&region->lock);
	if (reader->lost_first == reader->lost_end)
		return intact;
	region_gone_free(gone); /* the pages come in ascending order */
	for (size_t page = reader->first_page; page < reader->end_page; page++)
		if (is_lost(reader, page) || !region_page_intact(region, page))
			region_gone_add(region, gone, page);
	return false;
}

void region_repair_begin_locked(struct region *region, size_t first, size_t end)
{
	for (struct region_hold *reader = region->readers; reader; reader = reader->right)
		if (overlaps(reader, first, end))
			lose(reader, first, end);
	atomic_fetch_add(&region->repairs_begun, 1);
	atomic_thread_fence(memory_order_seq_cst); /* before anything of the page changes */
}

void region_repair_end_locked(struct region *region)
{
	atomic_fetch_add(&region->repairs_ended, 1);
}

void region_repair_by_hold(struct region *region, struct region_hold *hold)
{
	if (hold->is_repair)
		return;
	pthread_mutex_lock(&region->lock);
	hold->is_repair = true;
	region_repair_begin_locked(region, hold->first_page, hold->end_page);
	pthread_mutex_unlock(&region->lock);
}

/* Every hold of the tree, in any order: each is free to be linked again when it is seen. */
static void for_each(struct region_hold *tree, void (*call)(struct region *, struct region_hold *), struct region *region)
{
	if (!tree)
		return;
	struct region_hold *left = tree->left, *right = tree->right;
	for_each(left, call, region);
	for_each(right, call, region);
	call(region, tree);
}

/*
 * A hold in the child. What another thread was repairing is as it was when that thread stopped for ever: gone. (Wiped
 * regions have lost their open pages already.)
 */
static void keep_own(struct region *region, struct region_hold *hold)
{
	const bool was_repair = hold->is_repair;

	if (!pthread_equal(hold->owner, pthread_self())) {
		hold->is_linked = false;
		for (size_t page = hold->first_page; was_repair && page < hold->end_page; page++)
			region_set_state(region, page, STATE_GONE);
		return;
	}
	region_link_hold(region, hold);
	if (was_repair) {
		hold->is_repair = true;
		atomic_fetch_add(&region->repairs_begun, 1);
	}
}

void region_drop_holds_of_others(struct region *region)
{
	struct region_hold *holds = region->holds;

	region->holds = NULL;
	atomic_store(&region->repairs_begun, atomic_load(&region->repairs_ended));
	for_each(holds, keep_own, region);
	for (struct region_hold *reader = region->readers, *next; reader; reader = next) {
		next = reader->right;
		if (pthread_equal(reader->owner, pthread_self()))
			continue;
		leave_list(region, reader);
		lose(reader, reader->first_page, reader->end_page); /* nobody tells it of repairs any more */
	}
}

void region_for_each_hold(struct region *region, void (*call)(struct region *, struct region_hold *))
{
	for_each(region->holds, call, region);
}
