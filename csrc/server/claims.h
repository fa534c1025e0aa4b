/*
 * claims.h - who computes the value of a key now: one client at a time, so that the others need not.
 *
 *   nobody --claims_take()--> one client's --claims_give_up(), claims_end(): it has hung up--> nobody
 *                                 |--claims_take() of the same client, or of another one that waited too long--> theirs, anew
 *                                 '--claims_revoke(): the key was set, deleted or cleared meanwhile--> stale: its value is not stored
 *
 * Each claim has a number that is never given again. So what was begun under a claim that another one has replaced is not taken
 * for the other's, also where both are the same client's: of two threads, or one in the other.
 *
 * Keys are told apart by a keyed hash alone: two keys that share it wait for one another. The table has room for 4,096; a client
 * that finds it full computes without a claim.
 *
 * Threads: all, under a lock of its own. Whoever asks whether a claim holds and then stores, and whoever revokes and then deletes,
 * does both under claims_lock_key(), so that neither comes between the other's two steps.
 * Callers: direct.c, session.c.
 */
#ifndef DRP_SERVER_CLAIMS_H
#define DRP_SERVER_CLAIMS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct claims;

enum claim { CLAIM_TAKEN, CLAIM_OTHERS, CLAIM_FULL };

struct claims *claims_create(void); /* NULL: there is no memory */
void claims_destroy(struct claims *claims);

/*
 * Holders are told apart by numbers that are not 0. One that has it already gets it again; with anyway another one's, too. *number:
 * of the claim, from 1 up; CLAIM_TAKEN alone sets it.
 */
enum claim claims_take(struct claims *claims, const void *key, size_t key_bytes, uint64_t holder, bool anyway, uint64_t *number);
/* Has the holder that claim, and was nothing changed since? */
bool claims_hold(struct claims *claims, const void *key, size_t key_bytes, uint64_t holder, uint64_t number);
/* Ends it; number 0: whichever it has. True: there was one. */
bool claims_give_up(struct claims *claims, const void *key, size_t key_bytes, uint64_t holder, uint64_t number);
/* Somebody has set or deleted the key; NULL: all keys. */
void claims_revoke(struct claims *claims, const void *key, size_t key_bytes);
/* Changes of one key after the other, and of others at the same time, mostly; key NULL: of all keys. */
void claims_lock_key(struct claims *claims, const void *key, size_t key_bytes);
void claims_unlock_key(struct claims *claims, const void *key, size_t key_bytes);
/* The holder is gone. */
void claims_end(struct claims *claims, uint64_t holder);

#endif
