/*
 * claims.c - who computes the value of a key now. See claims.h.
 *
 *   places[4096]   a claim lies in one of the eight places from its hash on
 */
#include "server/claims.h"

#include <pthread.h>
#include <stdlib.h>

#include "droppable.h"
#include "os/hash.h"
#include "os/prim.h"

enum { PLACES = 4096, REACH = 8, STRIPES = 64 };

struct claims {
	pthread_mutex_t lock;
	uint64_t secret[2];
	uint64_t last_number;
	pthread_mutex_t stripes[STRIPES]; /* of keys: taken before lock, in their order */
	struct place {
		uint64_t hash, holder, number; /* holder 0: free */
		bool is_stale;
	} places[PLACES];
};

struct claims *claims_create(void)
{
	struct claims *claims = calloc(1, sizeof(*claims));

	if (!claims)
		return NULL;
	if (prim_random(claims->secret, sizeof(claims->secret)) != DRP_OK) {
		free(claims);
		return NULL;
	}
	pthread_mutex_init(&claims->lock, NULL); /* without attributes it cannot fail on Linux */
	for (unsigned i = 0; i < STRIPES; i++)
		pthread_mutex_init(&claims->stripes[i], NULL);
	return claims;
}

void claims_destroy(struct claims *claims)
{
	if (!claims)
		return;
	for (unsigned i = 0; i < STRIPES; i++)
		pthread_mutex_destroy(&claims->stripes[i]);
	pthread_mutex_destroy(&claims->lock);
	free(claims);
}

void claims_lock_key(struct claims *claims, const void *key, size_t key_bytes)
{
	if (key)
		pthread_mutex_lock(&claims->stripes[hash_bytes(claims->secret, key, key_bytes) >> 32 & (STRIPES - 1)]);
	for (unsigned i = 0; !key && i < STRIPES; i++)
		pthread_mutex_lock(&claims->stripes[i]);
}

void claims_unlock_key(struct claims *claims, const void *key, size_t key_bytes)
{
	if (key)
		pthread_mutex_unlock(&claims->stripes[hash_bytes(claims->secret, key, key_bytes) >> 32 & (STRIPES - 1)]);
	for (unsigned i = 0; !key && i < STRIPES; i++)
		pthread_mutex_unlock(&claims->stripes[i]);
}

/* The claim on a key; if there is none, a free place, or NULL: there is none either. Under the lock. */
static struct place *find(struct claims *claims, uint64_t hash, bool or_free)
{
	struct place *vacant = NULL;

	for (unsigned i = 0; i < REACH; i++) {
		struct place *place = &claims->places[(hash + i) % PLACES];
		if (place->holder != 0 && place->hash == hash)
			return place;
		if (place->holder == 0 && !vacant)
			vacant = place;
	}
	return or_free ? vacant : NULL;
}

static uint64_t lock_key(struct claims *claims, const void *key, size_t key_bytes)
{
	pthread_mutex_lock(&claims->lock);
	return hash_bytes(claims->secret, key, key_bytes);
}

enum claim claims_take(struct claims *claims, const void *key, size_t key_bytes, uint64_t holder, bool anyway, uint64_t *number)
{
	const uint64_t hash = lock_key(claims, key, key_bytes);
	struct place *place = find(claims, hash, true);
	enum claim answer = CLAIM_FULL;

	if (place && place->holder != 0 && place->holder != holder && !anyway) {
		answer = CLAIM_OTHERS;
	} else if (place) {
		*number = ++claims->last_number;
		*place = (struct place){.hash = hash, .holder = holder, .number = *number};
		answer = CLAIM_TAKEN;
	}
	pthread_mutex_unlock(&claims->lock);
	return answer;
}

bool claims_hold(struct claims *claims, const void *key, size_t key_bytes, uint64_t holder, uint64_t number)
{
	const struct place *place = find(claims, lock_key(claims, key, key_bytes), false);
	const bool holds = place && place->holder == holder && place->number == number && !place->is_stale;

	pthread_mutex_unlock(&claims->lock);
	return holds;
}

bool claims_give_up(struct claims *claims, const void *key, size_t key_bytes, uint64_t holder, uint64_t number)
{
	struct place *place = find(claims, lock_key(claims, key, key_bytes), false);
	const bool held = place && place->holder == holder && (number == 0 || place->number == number);

	if (held)
		place->holder = 0;
	pthread_mutex_unlock(&claims->lock);
	return held;
}

void claims_revoke(struct claims *claims, const void *key, size_t key_bytes)
{
	if (key) {
		struct place *place = find(claims, lock_key(claims, key, key_bytes), false);
		if (place)
			place->is_stale = true;
	} else {
		pthread_mutex_lock(&claims->lock);
		for (unsigned i = 0; i < PLACES; i++)
			claims->places[i].is_stale = true;
	}
	pthread_mutex_unlock(&claims->lock);
}

void claims_end(struct claims *claims, uint64_t holder)
{
	pthread_mutex_lock(&claims->lock);
	for (unsigned i = 0; i < PLACES; i++)
		if (claims->places[i].holder == holder)
			claims->places[i].holder = 0;
	pthread_mutex_unlock(&claims->lock);
}
