/*
 * region_fork.c - all regions of the process, and what a forked child has to put right in them.
 *
 * The content is wiped by the kernel (Linux 4.14; purged here for older ones). What is left to do: a page that was open
 * has no witness that could tell of the loss; signal mode and write tracking are not inherited; the holds of threads
 * that the child does not have lie on stacks that may be used again.
 *
 * fork() takes the locks before and gives them back on both sides, so the child finds no region half changed. A child
 * made by other means (vfork, clone without libc) must not use regions.
 */
#include "region/region_holds.h"

#include "os/prim_track.h"

static pthread_mutex_t registry_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_once_t fork_once = PTHREAD_ONCE_INIT;
static int fork_status; /* whether the handlers are there; written once */
static struct region *regions;

static void before_fork(void)
{
	pthread_mutex_lock(&registry_lock);
	for (struct region *region = regions; region; region = region->next)
		pthread_mutex_lock(&region->lock);
}

static void after_fork(void)
{
	for (struct region *region = regions; region; region = region->next)
		pthread_mutex_unlock(&region->lock);
	pthread_mutex_unlock(&registry_lock);
}

static void lose_open_pages(struct region *region, size_t first, size_t end)
{
	for (size_t page = first; page < end; page++)
		if (region_state(region, page) == STATE_OPEN)
			region_set_state(region, page, STATE_GONE);
}

static void lose_held_pages(struct region *region, struct region_hold *hold)
{
	lose_open_pages(region, hold->first_page, hold->end_page);
}

static void wiped_in_child(struct region *region)
{
	/* The kernel wiped it, but before Linux 4.14. There it cannot fail, for a child's memory is not locked. */
	prim_best_effort(prim_purge(region->memory, region->length));
	lose_open_pages(region, region->pending_first, region->pending_end);
	if (region->strays)
		lose_open_pages(region, 0, region->pages);
	region->pending_first = region->pending_end = 0;
	region_for_each_hold(region, lose_held_pages);
}

static void child_region(struct region *region)
{
	if (!region->keep_on_fork)
		wiped_in_child(region);
	region_drop_holds_of_others(region);
	if (region->track_handle != NO_HANDLE) {
		prim_track_close(region->track_handle);
		region->track_handle = NO_HANDLE;
	}
	if (region->signal_handle != NO_HANDLE) {
		prim_signal_close(region->signal_handle);
		prim_best_effort(region_arm(region)); /* without a handle it is deaf, and says so: region_is_deaf() */
	}
}

static void after_fork_in_child(void)
{
	for (struct region *region = regions; region; region = region->next)
		child_region(region);
	after_fork();
}

static void register_fork_handlers(void)
{
	fork_status = pthread_atfork(before_fork, after_fork, after_fork_in_child) == 0 ? DRP_OK : DRP_NO_MEMORY;
}

int region_register(struct region *region)
{
	/* No lock is held meanwhile: another thread may fork before the handlers are there, and its child would find it locked. */
	pthread_once(&fork_once, register_fork_handlers);
	if (fork_status != DRP_OK)
		return fork_status;
	pthread_mutex_lock(&registry_lock);
	region->next = regions;
	regions = region;
	pthread_mutex_unlock(&registry_lock);
	return DRP_OK;
}

void region_unregister(struct region *region)
{
	pthread_mutex_lock(&registry_lock);
	for (struct region **at = &regions; *at; at = &(*at)->next)
		if (*at == region) {
			*at = region->next;
			break;
		}
	pthread_mutex_unlock(&registry_lock);
}

void region_registry_lock(void)
{
	pthread_mutex_lock(&registry_lock);
}

void region_registry_unlock(void)
{
	pthread_mutex_unlock(&registry_lock);
}
