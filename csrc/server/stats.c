/* stats.c - what the server counted, under the names that exporters of memcached and Redis know. See stats.h. */
#include "server/stats.h"

#include <sys/resource.h>
#include <unistd.h>

#include "cache/cache.h"
#include "os/prim.h"

typedef unsigned long long count_t;

static const char *const names[] = {
#define X(name) #name,
	SERVER_COUNTS(X) SERVER_OWN_COUNTS(X)
#undef X
};
enum { NAMES_OF_MEMCACHED = 0
#define X(name) + 1
       SERVER_COUNTS(X)
#undef X
};

void stats_add_up(struct service *service, uint64_t sums[COUNTS_FIELDS])
{
	for (int field = 0; field < COUNTS_FIELDS; field++) {
		sums[field] = 0 - atomic_load_explicit(&service->count_base[field], memory_order_relaxed);
		for (unsigned i = 0; i < service->count_sets; i++)
			sums[field] += atomic_load_explicit((_Atomic uint64_t *)&service->counts[i] + field, memory_order_relaxed);
	}
}

void stats_reset(struct service *service)
{
	uint64_t sums[COUNTS_FIELDS];

	stats_add_up(service, sums);
	for (int field = 0; field < COUNTS_FIELDS; field++)
		atomic_fetch_add_explicit(&service->count_base[field], sums[field], memory_order_relaxed);
	atomic_store_explicit(&service->total_connections, 0, memory_order_relaxed);
	atomic_store_explicit(&service->rejected_connections, 0, memory_order_relaxed);
}

static void stat(struct output *out, const char *name, uint64_t value)
{
	output_format(out, "STAT %s %llu\r\n", name, (count_t)value);
}

static void stat_text(struct output *out, const char *name, const char *value)
{
	output_format(out, "STAT %s %s\r\n", name, value);
}

static void stat_time(struct output *out, const char *name, struct timeval time)
{
	output_format(out, "STAT %s %ld.%06ld\r\n", name, (long)time.tv_sec, (long)time.tv_usec);
}

uint64_t stats_limit_bytes(void)
{
	struct prim_headroom headroom;

	prim_best_effort(prim_headroom(&headroom)); /* what cannot be read counts as no limit */
	return headroom.limit_bytes;
}

/* What droppable knows and memcached does not. */
static void write_own(struct service *service, struct output *out, const struct cache_stats *cache)
{
	uint64_t resident_bytes = 0;

	prim_best_effort(prim_resident(&resident_bytes)); /* where it cannot be read it says 0 */
	stat(out, "dropped", cache->dropped);
	stat(out, "refused", cache->refused);
	stat(out, "replaced", cache->replaced);
	stat(out, "misses_dropped", cache->misses[MISS_DROPPED]);
	stat(out, "misses_evicted", cache->misses[MISS_EVICTED]);
	stat(out, "yielded_bytes", cache->yielded_bytes);
	stat(out, "mapped_bytes", cache->mapped_bytes);
	stat(out, "resident_bytes", resident_bytes);
	stat(out, "buffer_bytes", atomic_load_explicit(&service->budget.used_bytes, memory_order_relaxed));
	stat(out, "buffer_limit_bytes", service->budget.limit_bytes);
}

void stats_write_general(struct service *service, struct output *out)
{
	uint64_t sums[COUNTS_FIELDS];
	struct cache_stats cache;
	struct rusage usage;
	const int64_t now = keyspace_time(&service->keyspace);

	stats_add_up(service, sums);
	cache_read_stats(service->keyspace.cache, &cache);
	if (getrusage(RUSAGE_SELF, &usage) != 0)
		usage = (struct rusage){0};
	stat(out, "pid", (uint64_t)getpid());
	stat(out, "uptime", (uint64_t)(now - service->started_seconds));
	stat(out, "time", (uint64_t)now);
	stat_text(out, "version", SERVICE_SPEAKS_MEMCACHED);
	stat_text(out, "droppable_version", SERVICE_VERSION);
	stat(out, "pointer_size", 8 * sizeof(void *));
	stat_time(out, "rusage_user", usage.ru_utime);
	stat_time(out, "rusage_system", usage.ru_stime);
	stat(out, "max_connections", service->settings.most_connections);
	stat(out, "curr_connections", atomic_load_explicit(&service->connections, memory_order_relaxed));
	stat(out, "total_connections", atomic_load_explicit(&service->total_connections, memory_order_relaxed));
	stat(out, "rejected_connections", atomic_load_explicit(&service->rejected_connections, memory_order_relaxed));
	stat(out, "listen_disabled_num", atomic_load_explicit(&service->listen_disabled, memory_order_relaxed));
	for (int field = 0; field < COUNTS_FIELDS; field++)
		if (field < NAMES_OF_MEMCACHED)
			stat(out, names[field], sums[field]);
	stat(out, "get_expired", cache.misses[MISS_EXPIRED]);
	stat(out, "get_flushed", 0);
	stat(out, "limit_maxbytes", stats_limit_bytes());
	stat(out, "accepting_conns", 1);
	stat(out, "threads", service->settings.threads);
	stat(out, "bytes", cache.bytes);
	stat(out, "curr_items", cache.entries);
	stat(out, "total_items", cache.sets);
	stat(out, "expired_unfetched", cache.expired);
	stat(out, "evictions", cache.evicted + cache.dropped);
	stat(out, "reclaimed", cache.expired);
	for (int field = NAMES_OF_MEMCACHED; field < COUNTS_FIELDS; field++)
		stat(out, names[field], sums[field]);
	write_own(service, out, &cache);
}

void stats_write_settings(struct service *service, struct output *out)
{
	const struct settings *settings = &service->settings;

	stat(out, "maxbytes", stats_limit_bytes());
	stat(out, "maxconns", settings->most_connections);
	stat(out, "num_threads", settings->threads);
	stat(out, "item_size_max", settings->max_value_bytes);
	stat(out, "idle_timeout", settings->idle_seconds);
	stat_text(out, "cas_enabled", "yes");
	stat_text(out, "flush_enabled", settings->allows_flush ? "yes" : "no");
	stat_text(out, "auth_enabled_ascii", service->passwords ? "yes" : "no");
	stat_text(out, "binding_protocol", "auto-negotiate");
	stat_text(out, "evictions", "on");
	stat_text(out, "maxconns_fast", "yes");
	stat(out, "buffers", service->budget.limit_bytes);
}

/* memcached tells these for each slab class. Here there is one, which has all. */
void stats_write_items(struct service *service, struct output *out)
{
	struct cache_stats cache;

	cache_read_stats(service->keyspace.cache, &cache);
	if (cache.entries == 0)
		return;
	stat(out, "items:1:number", cache.entries);
	stat(out, "items:1:mem_requested", cache.bytes);
	stat(out, "items:1:evicted", cache.evicted + cache.dropped);
	stat(out, "items:1:outofmemory", cache.refused);
	stat(out, "items:1:reclaimed", cache.expired);
}

void stats_write_slabs(struct service *service, struct output *out)
{
	struct cache_stats cache;

	cache_read_stats(service->keyspace.cache, &cache);
	stat(out, "active_slabs", cache.entries > 0);
	stat(out, "total_malloced", cache.mapped_bytes);
}
