/*
 * direct.h - commands of droppable.connect(), whose clients read values from this process's memory without asking.
 *
 *   DROPPABLE.ATTACH                              [layout, length of the board, time], with descriptors of the memory and of the board.
 *                                                 The time, by the clock that expiry goes by, is another one in another time namespace
 *   DROPPABLE.GET key                             [kind, meta, value], or null
 *   DROPPABLE.CLAIM key                           as GET; or a claim's number, from 1 up: it is not there, and the client computes it;
 *                                                 0: another one does; -1: there was no room for a claim
 *   DROPPABLE.CLAIM key ANYWAY                    a claim, or -1, whatever is there and whoever computes it
 *   DROPPABLE.RELEASE key claim                   1: the client computes it no more; 0: it did not, under that number. Claim 0:
 *                                                 whichever it has
 *   DROPPABLE.SET key kind meta value ms          OK. ms: to live, 0: for ever
 *   DROPPABLE.SET key ... NX                      null: it is there
 *   DROPPABLE.SET key ... CLAIMED claim           null: the claim is not the client's any more, or the key was changed since it is
 *   DROPPABLE.DEL key                             1, or 0: it was not there
 *   DROPPABLE.HAS key                             1 or 0
 *   DROPPABLE.INCR key kind integer               the sum, of 64 bits. null: there is no value, or no memory for the sum, and then the
 *                                                 value is gone. An error: it is of another kind, or no integer's digits. It expires
 *                                                 when it would have
 *   DROPPABLE.TOUCH key ms                        1: it lives for so long from now on, 0: for ever. 0: it is not there
 *   DROPPABLE.TTL key                             milliseconds that it has left, from 1 up; -1: it never expires; -2: it is not there
 *   DROPPABLE.CLEAR                               OK
 *   DROPPABLE.HITS count key...                   nothing at all: so many hits there were, and these keys were among them
 *   DROPPABLE.STATS                               names and numbers
 *
 * They are commands of RESP, so that keys and values may be any bytes. Their values lie in a cache of their own, where no command
 * of memcached or Redis reaches them. kind and meta are the clients': how the value is to be read.
 *
 * Callers: command.c.
 */
#ifndef DRP_SERVER_DIRECT_H
#define DRP_SERVER_DIRECT_H

#include "server/request.h"

enum step direct_attach(struct session *session, struct request *request);
enum step direct_get(struct session *session, struct request *request);
enum step direct_claim(struct session *session, struct request *request);
enum step direct_release(struct session *session, struct request *request);
enum step direct_set(struct session *session, struct request *request);
enum step direct_delete(struct session *session, struct request *request);
enum step direct_has(struct session *session, struct request *request);
enum step direct_incr(struct session *session, struct request *request);
enum step direct_touch(struct session *session, struct request *request);
enum step direct_ttl(struct session *session, struct request *request);
enum step direct_clear(struct session *session, struct request *request);
enum step direct_hits(struct session *session, struct request *request);
enum step direct_stats(struct session *session, struct request *request);

#endif
