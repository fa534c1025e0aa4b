/*
 * keyspace.h - the one key space: what the commands of all protocols ask of the cache.
 *
 *   memcached text ----+
 *   memcached meta ----+--> keyspace ---> cache        an entry's meta: version | flags | marks
 *   RESP --------------+
 *
 * Values are bytes, and numbers are decimal digits, as both protocols have it. Whatever reads a value and then writes one
 * that depends on it (append, incr, cas, touch) does so under the lock of the key's stripe, and so does each other write
 * and delete: nothing comes between. Look-ups take no such lock.
 *
 * Callers: the commands.
 */
#ifndef DRP_SERVER_KEYSPACE_H
#define DRP_SERVER_KEYSPACE_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct cache;
struct cache_fill;

enum { KEYSPACE_STRIPES = 256, KEYSPACE_NUMBER_BYTES = 24, KEYSPACE_KEY_BYTES = 250 };

struct keyspace_key {
	const char *bytes;
	size_t count;
};

struct keyspace {
	struct cache *cache;
	size_t max_value_bytes;
	_Atomic uint64_t last_version;
	_Atomic uint64_t skew_seconds; /* by which the clock was moved, for tests */
	struct keyspace_stripe {
		pthread_mutex_t lock;
	} __attribute__((aligned(64))) stripes[KEYSPACE_STRIPES];
	/* Who wants to know of changes: called after each, in the thread that made it. NULL: nobody. */
	void *watcher;
	void (*changed)(void *watcher, struct keyspace_key key);
	void (*cleared)(void *watcher);
};

/* What is known of an entry beside its value. */
enum keyspace_marks { KEYSPACE_STALE = 1, KEYSPACE_TOKEN_SENT = 2 }; /* of memcached's meta commands */
struct keyspace_item {
	uint64_t version; /* of this very value: never the same again for this or another */
	uint64_t left_ns; /* until it expires; KEYSPACE_NEVER */
	uint32_t flags;
	uint8_t marks;
	size_t value_bytes;
};
#define KEYSPACE_NEVER UINT64_MAX

/* Takes a value: returns where so many bytes go, or NULL to give up. May be called more than once; the last call counts.
 * It is called under a lock of the cache and must not wait for anything. */
struct keyspace_sink {
	void *(*place)(struct keyspace_sink *sink, size_t value_bytes);
};

enum keyspace_answer {
	KEYSPACE_DONE,
	KEYSPACE_NOT_FOUND,
	KEYSPACE_NOT_STORED, /* add: it is there; replace, append, prepend: it is not */
	KEYSPACE_EXISTS,     /* cas: it is another version */
	KEYSPACE_TOO_LARGE,
	KEYSPACE_NO_MEMORY,  /* nothing is stored, and what was there is gone */
	KEYSPACE_NO_NUMBER,
	KEYSPACE_OVERFLOW,
};

enum keyspace_mode { KEYSPACE_SET, KEYSPACE_ADD, KEYSPACE_REPLACE, KEYSPACE_APPEND, KEYSPACE_PREPEND };

/* A write. ttl_ns: KEYSPACE_NEVER or until it expires; 0: it has expired already, so the key is gone afterwards. */
struct keyspace_write {
	enum keyspace_mode mode;
	const void *value;
	size_t value_bytes;
	struct cache_fill *fill; /* the value lies there, see keyspace_begin(), and goes with it; NULL: elsewhere */
	uint64_t ttl_ns;
	uint64_t only_version; /* only instead of this one; 0: of any */
	uint64_t new_version;  /* which the caller chose; 0: one is chosen */
	uint32_t flags;
	uint8_t marks;
	bool keep_ttl; /* that of the value there, if there is one */
	bool stale_if_older; /* what is there is newer than only_version: stored all the same, but as stale, expiring as that did */
};

int keyspace_init(struct keyspace *keyspace, struct cache *cache, size_t max_value_bytes);
void keyspace_destroy(struct keyspace *keyspace);

/* KEYSPACE_DONE, KEYSPACE_NOT_FOUND, KEYSPACE_NO_MEMORY: place() gave none. */
enum keyspace_answer keyspace_get(struct keyspace *keyspace, struct keyspace_key key, struct keyspace_sink *sink, struct keyspace_item *item);
/* Is it there, and for how long? Counts as no use of it. */
enum keyspace_answer keyspace_peek(struct keyspace *keyspace, struct keyspace_key key, uint64_t *left_ns);
/* The same without the value. */
enum keyspace_answer keyspace_look(struct keyspace *keyspace, struct keyspace_key key, struct keyspace_item *item);

/* A value that the caller writes where it is to lie (cache/fill.h), and then stores under that key by keyspace_put(), or gives up
 * by cache_set_abort(). KEYSPACE_NOT_STORED: one of that length is to be written elsewhere; KEYSPACE_NO_MEMORY. Changes nothing. */
enum keyspace_answer keyspace_begin(struct keyspace *keyspace, struct keyspace_key key, size_t value_bytes, struct cache_fill *fill);
/* *version, if not NULL: of what is stored now. */
enum keyspace_answer keyspace_put(struct keyspace *keyspace, struct keyspace_key key, const struct keyspace_write *write, uint64_t *version);
/* only_version: 0 for any. */
enum keyspace_answer keyspace_delete(struct keyspace *keyspace, struct keyspace_key key, uint64_t only_version);
/* Another time to live; the value and its version stay. Where there is no memory to note it, the old one stays too. */
enum keyspace_answer keyspace_touch(struct keyspace *keyspace, struct keyspace_key key, uint64_t ttl_ns);
/* Changes what is known of a value, and leaves the value as it is. Each of these may be left alone. */
struct keyspace_change {
	bool sets_ttl, sets_marks, adds_marks, gives_version;
	uint64_t ttl_ns;
	uint8_t marks;
	uint64_t only_version, new_version;
};
enum keyspace_answer keyspace_alter(struct keyspace *keyspace, struct keyspace_key key, const struct keyspace_change *change,
			      struct keyspace_item *item);

/*
 * Adds to a decimal number. text gets the digits, *length of them. Without is_signed as memcached has it: 64 bits
 * without a sign, that wrap at the top and stop at 0; a shorter number is stored with spaces behind it. With is_signed as Redis has it: a key that is
 * not there counts as 0, and an overflow changes nothing.
 */
struct keyspace_sum {
	uint64_t delta;
	bool subtracts, is_signed;
	bool creates;     /* if it is not there: from initial, expiring after create_ttl_ns */
	uint64_t initial, create_ttl_ns;
	bool sets_ttl;    /* of one that is there */
	uint64_t ttl_ns;
	uint64_t only_version, new_version;
};
enum keyspace_answer keyspace_add(struct keyspace *keyspace, struct keyspace_key key, const struct keyspace_sum *sum,
			    char text[KEYSPACE_NUMBER_BYTES], size_t *length, struct keyspace_item *item, bool *created);

enum keyspace_answer keyspace_clear(struct keyspace *keyspace);

uint64_t keyspace_entries(struct keyspace *keyspace);

/* Seconds since 1970 by the clock that expiry times are compared with. */
int64_t keyspace_time(struct keyspace *keyspace);
int64_t keyspace_time_ms(struct keyspace *keyspace);
void keyspace_advance_clock(struct keyspace *keyspace, uint64_t seconds);

#endif
