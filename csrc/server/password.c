/* password.c - who may use a server that asks. See password.h for the file's lines. */
#include "server/password.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { FILE_MOST_BYTES = 64 * 1024 };

struct passwords {
	size_t count; /* bytes of the file, from here on; ends in \n */
	char bytes[];
};

struct passwords *passwords_read(const char *path, char *why, size_t why_bytes)
{
	const int file = open(path, O_RDONLY | O_CLOEXEC);
	struct passwords *passwords = NULL;
	ssize_t got;

	if (file < 0) {
		snprintf(why, why_bytes, "the password file %s cannot be read: %s", path, strerror(errno));
		return NULL;
	}
	passwords = malloc(sizeof(*passwords) + FILE_MOST_BYTES + 2);
	if (!passwords) {
		snprintf(why, why_bytes, "there is no memory for the password file");
		goto out;
	}
	passwords->count = 0;
	while ((got = read(file, passwords->bytes + passwords->count, FILE_MOST_BYTES + 1 - passwords->count)) > 0)
		passwords->count += (size_t)got;
	if (got < 0 || passwords->count > FILE_MOST_BYTES) {
		snprintf(why, why_bytes, "the password file %s %s", path,
			 got < 0 ? strerror(errno) : "is longer than 64 KB");
		goto err_free;
	}
	if (passwords->count == 0 || passwords->bytes[0] == '\n') {
		snprintf(why, why_bytes, "the first line of the password file %s must be a password, or user:password", path);
		goto err_free;
	}
	if (passwords->bytes[passwords->count - 1] != '\n')
		passwords->bytes[passwords->count++] = '\n';
	goto out;

err_free:
	free(passwords);
	passwords = NULL;
out:
	close(file);
	return passwords;
}

void passwords_free(struct passwords *passwords)
{
	free(passwords);
}

/* Looks at all of the shown one, whatever it finds. */
static bool is_equal(const char *kept, size_t kept_bytes, const char *shown, size_t shown_bytes)
{
	unsigned char differs = kept_bytes != shown_bytes;

	for (size_t i = 0; i < shown_bytes; i++)
		differs |= (unsigned char)(shown[i] ^ (kept_bytes > 0 ? kept[i % kept_bytes] : 0));
	return differs == 0;
}

bool passwords_hold(const struct passwords *passwords, const char *name, size_t name_bytes, const char *password,
		    size_t password_bytes)
{
	const char *at = passwords->bytes, *const end = at + passwords->count;
	bool holds = false;

	while (at < end) {
		const char *line_end = memchr(at, '\n', (size_t)(end - at));
		size_t length = (size_t)(line_end - at);
		if (length > 0 && at[length - 1] == '\r')
			length--;
		const char *colon = memchr(at, ':', length);
		if (colon) {
			const size_t kept_name = (size_t)(colon - at);
			const bool is_name = is_equal(at, kept_name, name, name_bytes);
			const bool is_word = is_equal(colon + 1, length - kept_name - 1, password, password_bytes);
			holds |= is_name & is_word;
		} else if (length > 0) {
			holds |= is_equal(at, length, password, password_bytes);
		}
		at = line_end + 1;
	}
	return holds;
}
