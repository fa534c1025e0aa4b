/* stats_info.c - what INFO tells: what was counted, under Redis' names. See stats.h. */
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

#include "cache/cache.h"
#include "os/prim.h"
#include "server/stats.h"
#include "server/tracking.h"

typedef unsigned long long count_t;

static void write_server(FILE *out, struct service *service)
{
	fprintf(out, "# Server\r\nredis_version:%s\r\ndroppable_version:%s\r\nredis_mode:standalone\r\nos:Linux\r\narch_bits:%zu\r\n",
		SERVICE_SPEAKS_REDIS, SERVICE_VERSION, 8 * sizeof(void *));
	fprintf(out, "process_id:%ld\r\ntcp_port:0\r\nuptime_in_seconds:%lld\r\n\r\n", (long)getpid(),
		(long long)(keyspace_time(&service->keyspace) - service->started_seconds));
	fprintf(out, "# Clients\r\nconnected_clients:%llu\r\nmaxclients:%u\r\nblocked_clients:0\r\n",
		(count_t)atomic_load_explicit(&service->connections, memory_order_relaxed), service->settings.most_connections);
	fprintf(out, "tracking_clients:%zu\r\n\r\n", service->tracking ? tracking_clients(service->tracking) : 0);
}

static void write_memory(FILE *out, struct service *service, const struct cache_stats *cache)
{
	uint64_t resident_bytes = 0;
	struct prim_headroom headroom;

	prim_best_effort(prim_resident(&resident_bytes)); /* where it cannot be read it says 0 */
	prim_best_effort(prim_headroom(&headroom));       /* what cannot be read counts as no limit */
	fprintf(out, "# Memory\r\nused_memory:%llu\r\nused_memory_rss:%llu\r\nused_memory_dataset:%llu\r\nmaxmemory:%llu\r\n",
		(count_t)cache->bytes, (count_t)resident_bytes, (count_t)cache->bytes, (count_t)headroom.limit_bytes);
	fprintf(out, "maxmemory_policy:allkeys-lru\r\nmem_clients_normal:%llu\r\nyielded_bytes:%llu\r\n\r\n",
		(count_t)atomic_load_explicit(&service->budget.used_bytes, memory_order_relaxed), (count_t)cache->yielded_bytes);
	fprintf(out, "# Persistence\r\nloading:0\r\nrdb_changes_since_last_save:0\r\naof_enabled:0\r\n\r\n");
}

static void write_stats(FILE *out, struct service *service, const struct cache_stats *cache)
{
	uint64_t sums[COUNTS_FIELDS];

	stats_add_up(service, sums);
#define SUM(name) ((count_t)sums[offsetof(struct counts, name) / sizeof(_Atomic uint64_t)])
	fprintf(out, "# Stats\r\ntotal_connections_received:%llu\r\nrejected_connections:%llu\r\n",
		(count_t)atomic_load_explicit(&service->total_connections, memory_order_relaxed),
		(count_t)atomic_load_explicit(&service->rejected_connections, memory_order_relaxed));
	fprintf(out, "total_commands_processed:%llu\r\ntotal_net_input_bytes:%llu\r\ntotal_net_output_bytes:%llu\r\n", SUM(commands),
		SUM(bytes_read), SUM(bytes_written));
	fprintf(out, "keyspace_hits:%llu\r\nkeyspace_misses:%llu\r\nexpired_keys:%llu\r\nevicted_keys:%llu\r\n", SUM(get_hits),
		SUM(get_misses), (count_t)cache->expired, (count_t)(cache->evicted + cache->dropped));
	fprintf(out, "tracking_total_keys:%zu\r\n", service->tracking ? tracking_keys(service->tracking) : 0);
	fprintf(out, "dropped_keys:%llu\r\nrefused_keys:%llu\r\n\r\n", (count_t)cache->dropped, (count_t)cache->refused);
#undef SUM
}

bool stats_info(struct service *service, char **text, size_t *count)
{
	struct cache_stats cache;
	struct rusage usage = {0};
	FILE *out = open_memstream(text, count);

	if (!out)
		return false;
	cache_read_stats(service->keyspace.cache, &cache);
	write_server(out, service);
	write_memory(out, service, &cache);
	write_stats(out, service, &cache);
	if (getrusage(RUSAGE_SELF, &usage) != 0)
		usage = (struct rusage){0};
	fprintf(out, "# Replication\r\nrole:master\r\nconnected_slaves:0\r\n\r\n# CPU\r\n");
	fprintf(out, "used_cpu_sys:%ld.%06ld\r\nused_cpu_user:%ld.%06ld\r\n\r\n# Cluster\r\ncluster_enabled:0\r\n\r\n", (long)usage.ru_stime.tv_sec, (long)usage.ru_stime.tv_usec,
		(long)usage.ru_utime.tv_sec, (long)usage.ru_utime.tv_usec);
	fprintf(out, "# Keyspace\r\ndb0:keys=%llu,expires=0,avg_ttl=0\r\n", (count_t)cache.entries);
	const bool is_broken = ferror(out) != 0;
	if (fclose(out) == 0 && !is_broken)
		return true;
	free(*text);
	return false;
}
