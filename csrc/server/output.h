/*
 * output.h - replies on their way to one client.
 *
 *   bytes  [ sent | replies that are finished | room | ............ ]
 *          0      first                      used   output_room()   capacity
 *
 * A worker has one of these for all of its connections: it is empty again before the next connection's turn, for what a
 * slow reader does not take moves to memory of that connection (connection.c). flush() hands finished replies to the
 * client. It is never called while a reply is half written, and never under a lock.
 *
 * Callers: the commands write; the connection flushes.
 */
#ifndef DRP_SERVER_OUTPUT_H
#define DRP_SERVER_OUTPUT_H

#include <stdbool.h>
#include <stddef.h>
#include <string.h>

#include "server/budget.h"

enum {
	OUTPUT_BYTES = 256 * 1024,
	OUTPUT_FULL_BYTES = 64 * 1024, /* with so much in it, it is handed on before more is written */
};

struct output {
	unsigned char *bytes;
	size_t first, used, capacity;
	struct budget *budget;
	void (*flush)(struct output *output); /* moves first on; both to 0 where nothing is left */
	bool is_broken;                       /* there was no memory for a reply, so the client must not read on */
};

/* False: there is no memory. */
bool output_init(struct output *output, struct budget *budget, void (*flush)(struct output *output));
void output_destroy(struct output *output);
/* Gives back what one large value took. */
void output_shrink(struct output *output);

/* Room for so many bytes behind what is there, or NULL; it counts once output_use() says so. Never flushes. */
unsigned char *output_grow(struct output *output, size_t bytes);
static inline unsigned char *output_room(struct output *output, size_t bytes)
{
	if (output->capacity - output->used >= bytes)
		return output->bytes + output->used;
	return output_grow(output, bytes);
}
static inline void output_use(struct output *output, size_t bytes)
{
	DRP_ASSERT(output->capacity - output->used >= bytes);
	output->used += bytes;
}

void output_add(struct output *output, const void *bytes, size_t count);
static inline void output_text(struct output *output, const char *text)
{
	output_add(output, text, strlen(text));
}
void output_format(struct output *output, const char *format, ...) __attribute__((format(printf, 2, 3)));

static inline size_t output_waiting(const struct output *output)
{
	return output->used - output->first;
}

/* True: the client does not take its replies as fast as it asks; nothing more is to be written for it now. */
static inline bool output_is_blocked(struct output *output)
{
	if (output_waiting(output) >= OUTPUT_FULL_BYTES)
		output->flush(output);
	return output_waiting(output) >= OUTPUT_FULL_BYTES;
}

#endif
