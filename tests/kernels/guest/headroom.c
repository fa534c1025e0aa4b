/*
 * headroom.c - memory.high, which cgroup v2 alone has, is read as a limit that slows down instead of killing.
 *
 *     cgroup "outer": memory.max 128 MiB, memory.high 64 MiB
 *        └─ cgroup "outer/inner": memory.max 96 MiB             this process: the parent's memory.high is the tightest
 */
#include "guest.h"

enum { HIGH_MIB = 64, INNER_MIB = 96, OUTER_MIB = 128, SLACK_MIB = 8 };

static void read_in_group(enum prim_backing backing)
{
	struct prim_headroom room;

	guest_confine("outer", OUTER_MIB * MIB);
	CHECK_EQ(prim_headroom(&room), DRP_OK);
	CHECK_EQ(room.limit_bytes, OUTER_MIB * MIB);
	CHECK(!room.slows);
	CHECK_EQ(room.unread, PRIM_READ_ALL);

	guest_write("/sys/fs/cgroup/outer/memory.high", "64M");
	CHECK_EQ(prim_headroom(&room), DRP_OK);
	CHECK_EQ(room.limit_bytes, HIGH_MIB * MIB);
	CHECK(room.slows);
	/* What kills is further away than what slows down. */
	CHECK(room.hard_left_bytes > (OUTER_MIB - SLACK_MIB) * MIB && room.hard_left_bytes <= OUTER_MIB * MIB);

	/* Marked pages make room under it as they do under memory.max, and nobody is killed. */
	char *cache = guest_filled(backing, INNER_MIB * MIB);
	CHECK_EQ(prim_headroom(&room), DRP_OK);
	CHECK(room.usage_bytes <= (HIGH_MIB + SLACK_MIB) * MIB);
	CHECK(room.reclaimable_bytes >= (HIGH_MIB - 2 * SLACK_MIB) * MIB);
	CHECK(!room.is_free);
	CHECK(guest_live_mib(cache, INNER_MIB * MIB) >= HIGH_MIB - 2 * SLACK_MIB);
	CHECK_EQ(guest_field("/sys/fs/cgroup/outer/memory.events", "oom_kill "), 0);
	CHECK(guest_field("/sys/fs/cgroup/outer/memory.events", "high ") > 0);

	guest_write("/sys/fs/cgroup/outer/memory.high", "max");
	CHECK_EQ(prim_headroom(&room), DRP_OK);
	CHECK_EQ(room.limit_bytes, OUTER_MIB * MIB);
	CHECK(!room.slows);
}

static void memory_high_is_a_limit_that_slows(enum prim_backing backing)
{
	if (!guest_has(backing))
		SKIP(guest_no_droppable);
	CHECK_EQ(guest_child(read_in_group, backing), 0);
}

static void read_below_group(enum prim_backing unused)
{
	struct prim_headroom room;

	(void)unused;
	guest_confine("outer/inner", INNER_MIB * MIB);
	guest_write("/sys/fs/cgroup/outer/memory.high", "64M");
	CHECK_EQ(prim_headroom(&room), DRP_OK);
	CHECK_EQ(room.limit_bytes, HIGH_MIB * MIB);
	CHECK(room.slows);
	guest_write("/sys/fs/cgroup/outer/memory.high", "max");
	CHECK_EQ(prim_headroom(&room), DRP_OK);
	CHECK_EQ(room.limit_bytes, INNER_MIB * MIB);
	CHECK(!room.slows);
}

/* After the groups above: "outer" is there and has no process of its own any more. */
static void a_parents_memory_high_counts(void)
{
	guest_write("/sys/fs/cgroup/outer/cgroup.subtree_control", "+memory");
	CHECK_EQ(guest_child(read_below_group, PRIM_LAZYFREE), 0);
}

int main(void)
{
	RUN(memory_high_is_a_limit_that_slows, PRIM_LAZYFREE);
	RUN(memory_high_is_a_limit_that_slows, PRIM_DROPPABLE);
	RUN(a_parents_memory_high_counts, );
	return check_done();
}
