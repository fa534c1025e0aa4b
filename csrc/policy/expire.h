/*
 * policy/expire.h - what expired leaves, asked for or not.
 *
 * Callers: the files of the cache. policy/expire.c has the picture.
 */
#ifndef DRP_CACHE_EXPIRE_H
#define DRP_CACHE_EXPIRE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct cache;
struct shard;
struct segment;

struct expiry {
	_Atomic uint64_t due_ns;  /* nothing of this shard is to be looked for before; UINT64_MAX: nothing expires */
	uint64_t rest_until_ns;   /* segments of which a part lives on are not gone through before */
	uint64_t serial;          /* of the segment that is gone through, */
	size_t swept;             /* how far, */
	uint64_t first_ns, last_ns; /* and when what was seen to live in it expires */
};

/* For which head of its log an entry is that expires then: where entries live about as long. 0 is for those that do not. */
unsigned expiry_life(struct cache *cache, uint64_t expires_ns);

/* Under the lock. An entry that expires was appended to a segment; the sweep came by one that lives. */
void expiry_note_appended(struct cache *cache, struct shard *shard, struct segment *segment, uint64_t expires_ns);
void expiry_note_live(struct shard *shard, uint64_t expires_ns);
/* Under the lock. Some of what expired leaves. False: there is nothing to be done now. */
bool expiry_step(struct cache *cache, struct shard *shard, uint64_t now_ns);

/* Without a lock. Some of what expired leaves all shards, for at most about that long; they are left alone that are busy. */
enum { EXPIRY_CALL_NS = 200000, EXPIRY_COUNT_NS = 20000000 };
void expiry_look(struct cache *cache, uint64_t budget_ns);

#endif
