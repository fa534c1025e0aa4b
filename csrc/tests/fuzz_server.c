/*
 * fuzz_server.c - both parsers under libFuzzer: any bytes, in pieces of any length. Built and run by tools/fuzz.sh server.
 *
 * The first byte of an input is the length of the pieces, the rest is what a client sends. Nothing may crash, read outside of what was
 * sent, or ask for more memory than one command may have.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "cache/cache.h"
#include "os/prim.h"
#include "server/claims.h"
#include "server/session.h"

enum { MAX_VALUE_BYTES = 8192 };

static struct service service;
static struct counts counts;
static struct output output;

static void flush(struct output *of)
{
	of->first = of->used = 0;
}

static void set_up(void)
{
	const struct cache_config config = {.backing = PRIM_LAZYFREE};
	struct cache *cache;

	service.budget.limit_bytes = 64 << 20;
	service.settings = (struct settings){.max_value_bytes = MAX_VALUE_BYTES, .max_request_bytes = 5 * MAX_VALUE_BYTES,
					     .allows_flush = true, .allows_clock = true};
	service.counts = &counts;
	service.count_sets = 1;
	service.stop_descriptor = -1;
	if (cache_create(&config, &cache) != DRP_OK || keyspace_init(&service.keyspace, cache, MAX_VALUE_BYTES) != DRP_OK ||
	    cache_create(&config, &service.direct) != DRP_OK || !(service.claims = claims_create()) || !output_init(&output, &service.budget, flush))
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct session session;
	enum taken taken = TAKEN;
	size_t there = 0, used;

	if (!service.counts)
		set_up();
	if (size < 2)
		return 0;
	const size_t piece = (size_t)data[0] + 1;
	session_init(&session, &service, &counts);
	session.out = &output;
	data++;
	size--;
	for (size_t from = 0; there < size - from && taken == TAKEN;) {
		there += size - from - there < piece ? size - from - there : piece;
		unsigned char *copy = malloc(there); /* so that reading on is seen */
		if (!copy)
			abort();
		memcpy(copy, data + from, there);
		taken = session_take(&session, copy, there, &used);
		free(copy);
		if (used > there || session.need_bytes > 6 * MAX_VALUE_BYTES)
			abort();
		from += used;
		there -= used;
		if (session.need_bytes > size - from)
			session.refuses_value = data[0] & 1; /* sometimes there is no memory to wait in */
	}
	session_destroy(&session);
	flush(&output);
	return 0;
}
