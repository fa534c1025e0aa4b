/* reply.c - a value on its way out. See reply.h for the picture. */
#include "server/reply.h"

char *put_number(char *at, uint64_t number)
{
	char reversed[20];
	int count = 0;

	do {
		reversed[count++] = (char)('0' + number % 10);
		number /= 10;
	} while (number > 0);
	while (count > 0)
		*at++ = reversed[--count];
	return at;
}

static void *place(struct keyspace_sink *sink, size_t value_bytes)
{
	struct reply *reply = (struct reply *)sink;

	reply->guessed_bytes = reply->header_bytes + digits_of(value_bytes);
	reply->room = output_room(reply->out, REPLY_HEADER_MOST + value_bytes);
	return reply->room ? reply->room + reply->guessed_bytes : NULL;
}

enum keyspace_answer reply_get(struct reply *reply, struct session *session, struct keyspace_key key, size_t header_bytes,
			    struct keyspace_item *item)
{
	*reply = (struct reply){.sink = {.place = place}, .out = session->out, .header_bytes = header_bytes};
	if (!output_room(session->out, REPLY_ROOM_BYTES))
		return KEYSPACE_NO_MEMORY;
	return keyspace_get(&session->service->keyspace, key, &reply->sink, item);
}

void reply_finish(struct reply *reply, const char *header, size_t header_bytes, size_t value_bytes, const char *end,
		  size_t end_bytes)
{
	unsigned char *room = reply->room;

	DRP_ASSERT(header_bytes + end_bytes <= REPLY_HEADER_MOST);
	if (header_bytes != reply->guessed_bytes)
		memmove(room + header_bytes, room + reply->guessed_bytes, value_bytes);
	memcpy(room, header, header_bytes);
	memcpy(room + header_bytes + value_bytes, end, end_bytes);
	output_use(reply->out, header_bytes + value_bytes + end_bytes);
}
