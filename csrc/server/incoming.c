/* incoming.c - a command whose value goes from the socket straight into the cache's pages. See incoming.h for the picture. */
#include "server/incoming.h"

#include <stdlib.h>
#include <string.h>

enum { END_BYTES = 2 /* \r\n behind the value */, SPARE_BYTES = 64 };

enum incoming_begun incoming_begin(struct keyspace *keyspace, struct budget *budget, struct keyspace_key key, const void *head,
				   size_t head_bytes, size_t value_bytes, struct incoming **out)
{
	enum incoming_begun begun = INCOMING_REFUSED;

	if (value_bytes < INCOMING_LEAST_BYTES || head_bytes > INCOMING_HEAD_BYTES)
		return INCOMING_ELSEWHERE;
	if (!budget_take(budget, value_bytes))
		return INCOMING_REFUSED;
	struct incoming *incoming = calloc(1, sizeof(*incoming));
	if (!incoming)
		goto err_budget;
	incoming->budget = budget;
	incoming->value_bytes = value_bytes;
	if (!incoming_need(incoming, head_bytes + END_BYTES))
		goto err_free;
	switch (keyspace_begin(keyspace, key, value_bytes, &incoming->fill)) {
	case KEYSPACE_DONE:
		break;
	case KEYSPACE_NOT_STORED:
		begun = INCOMING_ELSEWHERE;
		goto err_bytes;
	default:
		goto err_bytes;
	}
	memcpy(incoming->bytes, head, head_bytes);
	incoming->head_bytes = incoming->count = head_bytes;
	*out = incoming;
	return INCOMING_BEGUN;

err_bytes:
	free(incoming->bytes);
	budget_give(budget, incoming->capacity);
err_free:
	free(incoming);
err_budget:
	budget_give(budget, value_bytes);
	return begun;
}

void incoming_end(struct incoming **of)
{
	struct incoming *incoming = *of;

	if (!incoming)
		return;
	cache_set_abort(&incoming->fill);
	budget_give(incoming->budget, incoming->value_bytes + incoming->capacity);
	free(incoming->bytes);
	free(incoming);
	*of = NULL;
}

void *incoming_room(const struct incoming *incoming, size_t *room_bytes)
{
	*room_bytes = incoming->value_bytes - incoming->filled_bytes;
	return *room_bytes > 0 ? (unsigned char *)incoming->fill.value + incoming->filled_bytes : NULL;
}

void incoming_filled(struct incoming *incoming, size_t bytes)
{
	DRP_ASSERT(bytes <= incoming->value_bytes - incoming->filled_bytes);
	incoming->filled_bytes += bytes;
}

static size_t least(size_t one, size_t other)
{
	return one < other ? one : other;
}

size_t incoming_take(struct incoming *incoming, const unsigned char *bytes, size_t count)
{
	size_t room_bytes;
	void *room = incoming_room(incoming, &room_bytes);
	const size_t of_value = least(room_bytes, count);
	const size_t behind = least(incoming->need_bytes - incoming->count, count - of_value);

	if (of_value > 0)
		memcpy(room, bytes, of_value);
	incoming->filled_bytes += of_value;
	memcpy(incoming->bytes + incoming->count, bytes + of_value, behind);
	incoming->count += behind;
	return of_value + behind;
}

bool incoming_is_whole(const struct incoming *incoming)
{
	return incoming->filled_bytes == incoming->value_bytes && incoming->count == incoming->need_bytes;
}

bool incoming_need(struct incoming *incoming, size_t need_bytes)
{
	if (need_bytes > incoming->capacity) {
		const size_t capacity = need_bytes + SPARE_BYTES, more = capacity - incoming->capacity;
		if (!budget_take(incoming->budget, more))
			return false;
		unsigned char *grown = realloc(incoming->bytes, capacity);
		if (!grown) {
			budget_give(incoming->budget, more);
			return false;
		}
		incoming->bytes = grown;
		incoming->capacity = capacity;
	}
	incoming->need_bytes = need_bytes;
	return true;
}
