/*
 * tracking.h - clients that keep values near them are told when those change.
 *
 *   a read by a client that tracks ---> table: key -> who read it          (bounded: what is crowded out is told as changed)
 *   a write by anybody ---> the table, and those that watch a prefix ---> mail of each ---> its worker sends it
 *
 * Mail is bounded too: where it would overflow, one message stands for all: the client forgets everything that it keeps. So a
 * client may be told too much, and never too little. A key is noted before its value is read, and told after the value has
 * changed; the mail of a client leaves after the replies that were begun before, so no reply with an older value comes after it.
 *
 * That an entry expired, was evicted or dropped is not told: its value did not change.
 *
 * Threads: everything may be called from any thread; one lock, which nobody takes while no client tracks.
 *
 * Callers: resp.c, resp_values.c, keyspace.c through its hook, connection.c.
 */
#ifndef DRP_SERVER_TRACKING_H
#define DRP_SERVER_TRACKING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "server/budget.h"
#include "server/keyspace.h"
#include "server/output.h"

enum {
	TRACKING_KEYS_MOST = 1 << 17, /* pairs of a key and a client */
	TRACKING_PREFIXES_MOST = 32,
	TRACKING_MAIL_BYTES = 64 * 1024,
};

struct tracking;
struct tracker;

struct tracker_options {
	bool broadcasts;  /* keys with one of the prefixes, read or not; without any: all keys */
	bool skips_own;   /* what the client changed itself is not told to it */
	struct keyspace_key prefixes[TRACKING_PREFIXES_MOST];
	unsigned prefix_count;
	void (*wake)(void *of); /* there is mail: called from any thread, under the lock */
	void *wakes;
};

/* Watches a key space. NULL: there is no memory. */
struct tracking *tracking_create(struct keyspace *keyspace, struct budget *budget);
void tracking_destroy(struct tracking *tracking);
size_t tracking_clients(struct tracking *tracking);
size_t tracking_keys(struct tracking *tracking);

/* NULL: there is no memory. */
struct tracker *tracker_begin(struct tracking *tracking, const struct tracker_options *options);
void tracker_end(struct tracker *tracker);
/* The client is about to read a key. Does nothing for one that is told of prefixes, or for NULL. */
void tracker_note(struct tracker *tracker, struct keyspace_key key);
/* What this thread changes from now on is changed by that client; NULL: by one that does not track. */
void tracker_set_writer(struct tracker *tracker);
bool tracker_has_mail(struct tracker *tracker);
/* Writes the mail, as RESP3 has it. */
void tracker_send_mail(struct tracker *tracker, struct output *out);

#endif
