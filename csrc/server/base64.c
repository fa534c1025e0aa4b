/* base64.c - see base64.h. The alphabet of RFC 4648, with padding. */
#include "server/base64.h"

#include <string.h>

static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

size_t base64_decode(const char *text, size_t count, unsigned char *bytes, size_t most)
{
	size_t written = 0;

	if (count == 0 || count % 4 != 0)
		return 0;
	for (size_t i = 0; i < count; i += 4) {
		const size_t padding = i + 4 < count ? 0 : (size_t)(text[i + 3] == '=') + (text[i + 3] == '=' && text[i + 2] == '=');
		unsigned group = 0;
		for (size_t j = 0; j < 4; j++) {
			const char *found = j + padding < 4 ? memchr(alphabet, text[i + j], 64) : alphabet;
			if (!found)
				return 0;
			group = group << 6 | (unsigned)(found - alphabet);
		}
		for (size_t j = 0; j < 3 - padding; j++) {
			if (written == most)
				return 0;
			bytes[written++] = (unsigned char)(group >> (16 - 8 * j));
		}
	}
	return written;
}
