/*
 * password.h - who may use a server that asks: names and passwords from a file, read once at the start.
 *
 *   user:password       a line each; a line without a colon is a password for any name, and for none
 *
 * Callers: main.c reads it; the commands that log in ask it.
 */
#ifndef DRP_SERVER_PASSWORD_H
#define DRP_SERVER_PASSWORD_H

#include <stdbool.h>
#include <stddef.h>

struct passwords;

/* Reads the file. NULL: it cannot be read, or holds none; why says so, in a sentence without an end. */
struct passwords *passwords_read(const char *path, char *why, size_t why_bytes);
void passwords_free(struct passwords *passwords);

/* In a time that does not tell how much of it was right. */
bool passwords_hold(const struct passwords *passwords, const char *name, size_t name_bytes, const char *password,
		    size_t password_bytes);

#endif
