/*
 * policy/admission.h - while memory is short, what is new has to prove itself before it may take the place of what is in use.
 *
 * A shard is in one of two states. shard->arena.memory_is_short says in which; policy/admission.c alone changes it.
 *
 *              a page or more was found dropped, and memory is not seen to be free
 *             ---------------------------------------------------------------------->
 *      FREE                                                                            SHORT
 *             <----------------------------------------------------------------------
 *              at each look memory was seen to be free, while a fourteenth of the cache's bytes came in
 *
 *                              FREE                                 SHORT
 *   a new value goes to        the main log                         the small queue, unless its key is known to be in use
 *   what is in that queue      stays                                is evicted or promoted, within the budget
 *   a dead value's pages       stay, and are written again          go back to the kernel
 *   a retired segment          keeps its pages                      gives them back, but for one of each kind in the small queue
 *   entries of sparse segments stay where they are                  are brought together (policy/compact.c)
 *
 * The cache is told that memory is free by policy/headroom.c, which reads it with the limit. Drops add to the budget for evictions. It ends as
 * soon as memory is seen to be free, in either state, because a drop is found late and says nothing of the memory of now. The
 * state itself waits until some bytes came in, so that usage which goes to and fro around the threshold changes it seldom.
 *
 * At the end of SHORT nothing of it is left, but for what was learnt of the values: which keys are hot or were evicted
 * (the index has that), and what values cost.
 *
 * Callers: the files of the cache, under the shard's lock. policy/admission.c has the picture of the queues.
 */
#ifndef DRP_POLICY_ADMISSION_H
#define DRP_POLICY_ADMISSION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "log/arena.h"

struct cache;
struct shard;
struct found;

/* Where a new entry goes that took cost_ns to compute (0: not told). */
enum arena_part admission_choose(struct shard *shard, uint64_t hash, uint64_t cost_ns, size_t bytes);
/* Is it far less costly than what is in the main log? */
bool admission_is_cheap(const struct shard *shard, uint64_t cost_ns, size_t bytes);

/* Segments were opened, of shard->opened_bytes: looks for signs that the kernel takes pages of this cache. The state may become
 * SHORT. Not while a segment is being emptied: what is found gone then could be the very entry that is on its way. */
void admission_look(struct cache *cache, struct shard *shard);

/* Goes through what has been in the small queue for long enough, in proportion to the bytes that are about to be appended. The state
 * may become FREE. */
void admission_step(struct cache *cache, struct shard *shard, size_t appended_bytes);

/* The cleaner came to an entry: is it promoted, and where to? It takes that many bytes in the log. */
bool admission_promotes(struct cache *cache, struct shard *shard, struct found *found, size_t bytes, enum arena_part *to);

#endif
