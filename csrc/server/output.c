/* output.c - replies on their way to one client. See output.h for the picture. */
#include "server/output.h"

#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

enum { FORMATTED_BYTES = 1024, GROWTH_BYTES = 64 * 1024 };

bool output_init(struct output *output, struct budget *budget, void (*flush)(struct output *output))
{
	*output = (struct output){.budget = budget, .flush = flush};
	return output_grow(output, OUTPUT_BYTES) != NULL;
}

void output_destroy(struct output *output)
{
	free(output->bytes);
	budget_give(output->budget, output->capacity);
	*output = (struct output){0};
}

unsigned char *output_grow(struct output *output, size_t bytes)
{
	if (bytes > SIZE_MAX / 4)
		goto err_broken;
	if (output->first > 0) {
		memmove(output->bytes, output->bytes + output->first, output->used - output->first);
		output->used -= output->first;
		output->first = 0;
		if (output->capacity - output->used >= bytes)
			return output->bytes + output->used;
	}
	/* Beyond OUTPUT_BYTES there is one large value, or the text of one command, that grows: so no more than is asked for. */
	size_t capacity = (output->used + bytes + GROWTH_BYTES - 1) / GROWTH_BYTES * GROWTH_BYTES;
	if (capacity < OUTPUT_BYTES)
		capacity = OUTPUT_BYTES;
	if (!budget_take(output->budget, capacity - output->capacity))
		goto err_broken;
	unsigned char *grown = realloc(output->bytes, capacity);
	if (!grown)
		goto err_budget;
	output->bytes = grown;
	output->capacity = capacity;
	return output->bytes + output->used;

err_budget:
	budget_give(output->budget, capacity - output->capacity);
err_broken:
	return NULL;
}

void output_shrink(struct output *output)
{
	if (output->used > 0 || output->capacity <= OUTPUT_BYTES)
		return;
	unsigned char *smaller = realloc(output->bytes, OUTPUT_BYTES);
	if (!smaller)
		return; /* it stays large, and counted */
	output->bytes = smaller;
	budget_give(output->budget, output->capacity - OUTPUT_BYTES);
	output->capacity = OUTPUT_BYTES;
}

void output_add(struct output *output, const void *bytes, size_t count)
{
	unsigned char *room = output_room(output, count);

	if (!room) {
		output->is_broken = true;
		return;
	}
	memcpy(room, bytes, count);
	output->used += count;
}

void output_format(struct output *output, const char *format, ...)
{
	char text[FORMATTED_BYTES];
	va_list arguments;

	va_start(arguments, format);
	const int length = vsnprintf(text, sizeof(text), format, arguments);
	va_end(arguments);
	DRP_ASSERT(length >= 0 && (size_t)length < sizeof(text));
	output_add(output, text, length < 0 ? 0 : (size_t)length < sizeof(text) ? (size_t)length : sizeof(text) - 1);
}
