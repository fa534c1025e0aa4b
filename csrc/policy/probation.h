/*
 * policy/probation.h - while memory is short, what is new has to prove itself before it may take the place of what is in use.
 *
 * A shard is in one of two states. shard->arena.memory_is_short says in which; policy/probation.c alone changes it.
 *
 *              a page or more was found dropped, and memory is not seen to be free
 *             ---------------------------------------------------------------------->
 *      FREE                                                                            SHORT
 *             <----------------------------------------------------------------------
 *              at each look memory was seen to be free, while a fourteenth of the cache's bytes came in
 *
 *                              FREE                                 SHORT
 *   a new value goes to        the main log                         probation, unless its key is known to be in use
 *   what is on probation       stays                                leaves or passes, as far as there is credit
 *   a dead value's pages       stay, and are written again          go back to the kernel
 *   a retired segment          keeps its pages                      gives them back, but for one of each kind on probation
 *   entries in thin segments   stay where they are                  are brought together (policy/tidy.c)
 *
 * The cache is told that memory is free by policy/room.c, which reads it with the limit. Credit is what drops give: it ends as
 * soon as memory is seen to be free, in either state, because a drop is found late and says nothing of the memory of now. The
 * state itself waits until some bytes came in, so that usage which goes to and fro around the threshold changes it seldom.
 *
 * At the end of SHORT nothing of it is left, but for what was learnt of the values: which keys are hot or were evicted
 * (the index has that), and what values cost.
 *
 * Callers: the files of the cache, under the shard's lock. policy/probation.c has the picture of the queues.
 */
#ifndef DRP_CACHE_PROBATION_H
#define DRP_CACHE_PROBATION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "log/arena.h"

struct cache;
struct shard;
struct found;

/* Where a new entry goes that took cost_ns to compute (0: not told). */
enum arena_part probation_choose(struct shard *shard, uint64_t hash, uint64_t cost_ns, size_t bytes);
/* Is it far less dear than what is in the main log? */
bool probation_is_cheap(const struct shard *shard, uint64_t cost_ns, size_t bytes);

/* Segments were opened, of shard->opened_bytes: looks for signs that the kernel takes pages of this cache. The state may become
 * SHORT. Not while a segment is being emptied: what is found gone then could be the very entry that is on its way. */
void probation_look(struct cache *cache, struct shard *shard);

/* Goes through what has been on probation for long enough, in proportion to the bytes that are about to be appended. The state
 * may become FREE. */
void probation_judge(struct cache *cache, struct shard *shard, size_t appended_bytes);

/* An entry that the sweep came to: does it stay, and where? It takes that many bytes in the log. */
bool probation_passed(struct cache *cache, struct shard *shard, struct found *found, size_t bytes, enum arena_part *to);

#endif
