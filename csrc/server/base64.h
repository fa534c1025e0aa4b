/*
 * base64.h - keys of memcached's meta commands as text, where they hold bytes that a line cannot.
 *
 * Callers: meta.c.
 */
#ifndef DRP_SERVER_BASE64_H
#define DRP_SERVER_BASE64_H

#include <stddef.h>

/* How many bytes were written; 0: it is no base64, or is longer than most. */
size_t base64_decode(const char *text, size_t count, unsigned char *bytes, size_t most);

#endif
