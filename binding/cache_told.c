/*
 * cache_told.c - what _core.Cache tells of itself, and what tests order of it: counts, marks, drops, another time.
 *
 * Called by Cache.stats(), droppable.testing and the metrics. No call changes what is stored, but for a drop.
 */
#include "arguments.h"
#include "cache/cache.h"
#include "cache_object.h"
#include "module.h"

static PyObject *cache_object_counts(CacheObject *self, PyObject *unused)
{
	struct cache *cache = atomic_load_explicit(&self->cache, memory_order_acquire);
	struct cache_stats stats = {0};

	(void)unused;
	if (cache) /* also of one that is closed: arrays that are held are counted still */
		cache_read_stats(cache, &stats);
	stats.sets += self->accepted;
	stats.evicted += self->accepted;
	return Py_BuildValue("{sKsKsKsKsKsKsKsKsKsKsKsKsKsKsKsKsKsKsKsKsKsKsKsKsKsK}",
			     "hits", (unsigned long long)stats.hits,
			     "misses_absent", (unsigned long long)stats.misses[MISS_ABSENT],
			     "misses_expired", (unsigned long long)stats.misses[MISS_EXPIRED],
			     "misses_evicted", (unsigned long long)stats.misses[MISS_EVICTED],
			     "misses_dropped", (unsigned long long)stats.misses[MISS_DROPPED],
			     "misses_unloadable", (unsigned long long)stats.misses[MISS_REJECTED],
			     "sets", (unsigned long long)stats.sets,
			     "deletes", (unsigned long long)stats.deletes,
			     "refused", (unsigned long long)stats.refused + atomic_load(&self->uncached),
			     "unstorable_unpicklable",
			     (unsigned long long)atomic_load(&self->unstorable[UNSTORABLE_UNPICKLABLE]),
			     "unstorable_too_large",
			     (unsigned long long)atomic_load(&self->unstorable[UNSTORABLE_TOO_LARGE]),
			     "unstorable_refused", (unsigned long long)atomic_load(&self->unstorable[UNSTORABLE_REFUSED]),
			     "evicted", (unsigned long long)stats.evicted,
			     "expired", (unsigned long long)stats.expired,
			     "replaced", (unsigned long long)stats.replaced,
			     "cleared", (unsigned long long)stats.cleared,
			     "dropped", (unsigned long long)stats.dropped,
			     "entries", (unsigned long long)stats.entries,
			     "bytes", (unsigned long long)stats.bytes,
			     "mapped_bytes", (unsigned long long)stats.mapped_bytes,
			     "pinned_bytes", (unsigned long long)stats.pinned_bytes,
			     "window_bytes", (unsigned long long)stats.window_bytes,
			     "index_lost_pages", (unsigned long long)stats.index_lost_pages,
			     "yielded_bytes", (unsigned long long)stats.yielded_bytes,
			     "saved_ns", (unsigned long long)stats.saved_ns, "lost_ns", (unsigned long long)stats.lost_ns);
}

static PyObject *cache_object_settle(CacheObject *self, PyObject *unused)
{
	(void)unused;
	struct cache *cache = cache_object_core(self);
	if (!cache)
		return NULL;
	if (cache_object_without_gil(cache, cache_settle) == DRP_CLOSED)
		return core_raise(DRP_CLOSED, "this cache");
	Py_RETURN_NONE;
}

static PyObject *cache_object_drop(CacheObject *self, PyObject *arguments)
{
	struct cache *cache = cache_object_core(self);
	struct cache_drop drop;
	unsigned long long seed;
	double share;
	int status;

	if (!cache || !PyArg_ParseTuple(arguments, "dK", &share, &seed))
		return NULL;
	Py_BEGIN_ALLOW_THREADS
	status = cache_drop(cache, share, seed, &drop);
	Py_END_ALLOW_THREADS
	if (status != DRP_OK)
		return core_raise(status, status == DRP_CLOSED ? "this cache" : "dropping pages on order");
	return Py_BuildValue("KKK", (unsigned long long)drop.resident_pages, (unsigned long long)drop.chosen_pages,
			     (unsigned long long)drop.dropped_pages);
}

static PyObject *cache_object_advance_clock(CacheObject *self, PyObject *argument)
{
	struct cache *cache = cache_object_open(self);
	uint64_t ns;

	if (!cache || read_seconds(argument, "seconds", &ns) < 0)
		return NULL;
	cache_advance_clock(cache, ns);
	Py_RETURN_NONE;
}

PyMethodDef cache_told_methods[] = {
	{"_counts", (PyCFunction)cache_object_counts, METH_NOARGS, "_counts($self, /)\n--\n\nStatistics as a dict."},
	{"_settle", (PyCFunction)cache_object_settle, METH_NOARGS,
	 "_settle($self, /)\n--\n\nMarks everything that can be: the kernel may take all but what is pinned."},
	{"_drop", (PyCFunction)cache_object_drop, METH_VARARGS,
	 "_drop($self, share, seed, /)\n--\n\nReal drops: (resident, chosen, dropped) pages."},
	{"_advance_clock", (PyCFunction)cache_object_advance_clock, METH_O,
	 "_advance_clock($self, seconds, /)\n--\n\nMoves this cache's clock forward, for tests of expiry."},
	{NULL, NULL, 0, NULL},
};
