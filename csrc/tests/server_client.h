/*
 * server_client.h - a client of the server without a socket: feeds a session bytes in pieces, and keeps the replies.
 *
 * Callers: tests of sessions.
 */
#ifndef DRP_SERVER_CLIENT_H
#define DRP_SERVER_CLIENT_H

#include <stdlib.h>
#include <string.h>

#include "cache/cache.h"
#include "check.h"
#include "os/prim.h"
#include "server/claims.h"
#include "server/session.h"

enum { REPLIES_BYTES = 1 << 20, LONGEST_BYTES = 1 << 18 };

/* The first member is what the session writes to; flush() takes it all, as a fast reader does. */
struct client {
	struct output output;
	bool is_slow; /* takes nothing */
	bool is_direct; /* values are written to where the session wants them, as a connection does */
	size_t got;
	char replies[REPLIES_BYTES];
};

static struct service service;
static struct counts counts;

static inline void flush(struct output *output)
{
	struct client *of = (struct client *)output;

	if (of->is_slow)
		return;
	REQUIRE(of->got + output->used < REPLIES_BYTES);
	CHECK_EQ(output->first, 0);
	memcpy(of->replies + of->got, output->bytes, output->used);
	of->got += output->used;
	of->replies[of->got] = '\0';
	output->used = 0;
}

static inline void set_up(struct client *client)
{
	const struct cache_config config = {.backing = PRIM_LAZYFREE};
	struct cache *cache;

	service.budget.limit_bytes = 64 << 20;
	service.settings = (struct settings){.max_value_bytes = 1 << 20, .max_request_bytes = 4 << 20, .allows_flush = true};
	service.counts = &counts;
	service.count_sets = 1;
	service.stop_descriptor = -1;
	REQUIRE(cache_create(&config, &cache) == DRP_OK);
	REQUIRE(cache_create(&config, &service.direct) == DRP_OK);
	service.claims = claims_create();
	REQUIRE(service.claims);
	REQUIRE(keyspace_init(&service.keyspace, cache, service.settings.max_value_bytes) == DRP_OK);
	REQUIRE(output_init(&client->output, &service.budget, flush));
}

static inline void tear_down(struct client *client)
{
	output_destroy(&client->output);
	CHECK_EQ(service.budget.used_bytes, 0);
	cache_unref(service.keyspace.cache);
	claims_destroy(service.claims);
	cache_unref(service.direct);
	keyspace_destroy(&service.keyspace);
}

static inline void begin(struct client *client, struct session *session)
{
	session_init(session, &service, &counts);
	session->out = &client->output;
	client->got = 0;
	client->is_slow = client->is_direct = false;
	client->replies[0] = '\0';
	client->output.used = 0;
	REQUIRE(keyspace_clear(&service.keyspace) == KEYSPACE_DONE);
}

/* Feeds bytes in pieces of the given length, as a connection does: what was not used comes again, with more behind it. */
static inline enum taken feed(struct client *client, struct session *session, const char *bytes, size_t count, size_t piece)
{
	unsigned char *const held = malloc(LONGEST_BYTES);
	size_t there = 0;
	enum taken taken = TAKEN;

	for (size_t at = 0; at < count && taken == TAKEN;) {
		size_t more = count - at < piece ? count - at : piece, used, room_bytes;
		void *const room = client->is_direct ? session_room(session, &room_bytes) : NULL;
		if (room) {
			REQUIRE(there == 0); /* it has all of the command */
			const size_t filled = more < room_bytes ? more : room_bytes;
			memcpy(room, bytes + at, filled);
			session_filled(session, filled);
			at += filled;
			more -= filled;
			if (more == 0)
				continue;
		}
		REQUIRE(held && there + more <= LONGEST_BYTES);
		memcpy(held + there, bytes + at, more);
		there += more;
		at += more;
		/* At the end of the memory that it may read, so that the sanitizer sees what reads on. */
		unsigned char *copy = malloc(there);
		REQUIRE(copy);
		memcpy(copy, held, there);
		taken = session_take(session, copy, there, &used);
		free(copy);
		REQUIRE(used <= there);
		memmove(held, held + used, there - used);
		there -= used;
	}
	free(held);
	flush(&client->output);
	return taken;
}

#endif
