/*
 * stats.h - what the server counted, under the names that exporters of memcached and Redis know.
 *
 * Callers: the commands `stats` and INFO.
 */
#ifndef DRP_SERVER_STATS_H
#define DRP_SERVER_STATS_H

#include "server/output.h"
#include "server/service.h"

void stats_write_general(struct service *service, struct output *out);
void stats_write_settings(struct service *service, struct output *out);
void stats_write_items(struct service *service, struct output *out);
void stats_write_slabs(struct service *service, struct output *out);
/* What INFO tells, in memory of the caller's to free. False: there is none. */
bool stats_info(struct service *service, char **text, size_t *count);
/* Counts begin at 0 again, but for those of this moment. */
void stats_reset(struct service *service);

/* What the memory cgroup, or the machine, lets us have: what memcached calls the size that it was given. */
uint64_t stats_limit_bytes(void);
/* All workers' together, since the last reset: in the order of struct counts. */
void stats_add_up(struct service *service, uint64_t sums[COUNTS_FIELDS]);

#endif
