/*
 * prim_headroom.h - the part of prim.h's contract that tells how much memory is left, to this process and to its group.
 *
 *   0 ............ usage_bytes ............ limit_bytes
 *   [ ordinary memory | reclaimable_bytes ][  free    ]       an allocation finds free memory, or makes reclaim take some
 *
 * Callers: through prim.h. Implementations: prim_linux_headroom.c, tests/prim_fake.c.
 */
#ifndef DRP_PRIM_HEADROOM_H
#define DRP_PRIM_HEADROOM_H

#include <stdint.h>

/* How much this process could still allocate before reclaim finds nothing, over its memory cgroup, all the parents of
 * that, and the machine: the tightest of them. */
enum { PRIM_GROUP_BYTES = 512 };
struct prim_headroom {
	uint64_t limit_bytes;       /* UINT64_MAX: no limit */
	uint64_t usage_bytes;
	uint64_t reclaimable_bytes; /* file LRUs, on which clean lazyfree and droppable memory sits */
	unsigned hierarchy;         /* private */
	char group[PRIM_GROUP_BYTES]; /* the tightest group's directory; empty: the machine, or its name is too long */
};
int prim_headroom(struct prim_headroom *out);
/* Usage and what is reclaimable once more, of that group alone: 35 us. DRP_UNSUPPORTED: it is not a group, or is gone. */
int prim_headroom_again(struct prim_headroom *room);
/* Private memory of this process in RAM, droppable memory among it; exact to some hundred KiB. 8 us. */
int prim_resident(uint64_t *bytes);

#endif
