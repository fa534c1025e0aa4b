/*
 * prim_headroom.h - the part of prim.h's contract that tells how much memory is left, to this process and to its group.
 *
 *   0 ............ usage_bytes ............ limit_bytes
 *   [ ordinary memory | reclaimable_bytes ][  free    ]       an allocation finds free memory, or makes reclaim take some
 *                       [ idle_bytes ]                        page cache that nobody misses: as good as free
 *
 * Callers: through prim.h. Implementations: prim_linux_headroom.c, tests/prim_fake.c.
 */
#ifndef DRP_PRIM_HEADROOM_H
#define DRP_PRIM_HEADROOM_H

#include <stdbool.h>
#include <stdint.h>

/* What could not be read, so that there may be a limit that is not in the figures. The first of them, and its errno. */
enum prim_unread {
	PRIM_READ_ALL = 0,
	PRIM_UNREAD_MEMBERSHIP, /* which group this process is in: /proc/self/cgroup */
	PRIM_UNREAD_OUTSIDE,    /* the group is none of those that can be seen here: another cgroup namespace, or no mount */
	PRIM_UNREAD_GROUP,      /* the files of the group, or of one above it */
	PRIM_UNREAD_MACHINE,    /* /proc/meminfo */
};

/*
 * How much this process could still allocate before reclaim finds nothing, over its memory cgroup, all the parents of that,
 * and the machine: the tightest of them. memory.high is a limit too, but one that slows down instead of killing.
 */
enum { PRIM_GROUP_BYTES = 4096 };
struct prim_headroom {
	uint64_t limit_bytes;       /* UINT64_MAX: none is known */
	uint64_t usage_bytes;
	uint64_t reclaimable_bytes; /* file LRUs, on which clean lazyfree and droppable memory sits */
	uint64_t idle_bytes;        /* of those: clean page cache that is not on the active list */
	uint64_t hard_left_bytes;   /* free and reclaimable under the tightest limit that kills; UINT64_MAX: none is known */
	bool slows;                 /* limit_bytes is memory.high */
	bool is_free;               /* much is free or idle at every level: reclaim need take nothing from anybody */
	enum prim_unread unread;
	int unread_errno;
	unsigned hierarchy;           /* private */
	char group[PRIM_GROUP_BYTES]; /* the tightest group, below its mount; empty: the machine */
};
int prim_headroom(struct prim_headroom *out);
/* Usage and what is reclaimable once more, of that group alone: 35 us. DRP_UNSUPPORTED: it is not a group, or is gone. */
int prim_headroom_again(struct prim_headroom *room);
/* Private memory of this process in RAM, droppable memory among it; exact to some hundred KiB. 8 us. */
int prim_resident(uint64_t *bytes);

/* The same from a tree of files in which root stands for /: for tests, which write such trees. Only on Linux. */
int prim_headroom_in(const char *root, struct prim_headroom *out);
int prim_headroom_again_in(const char *root, struct prim_headroom *room);

#endif
