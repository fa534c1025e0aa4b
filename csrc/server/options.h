/*
 * options.h - what the command line says.
 *
 * Callers: main.c.
 */
#ifndef DRP_SERVER_OPTIONS_H
#define DRP_SERVER_OPTIONS_H

#include <stdbool.h>
#include <sys/types.h>

#include "server/service.h"

enum { OPTIONS_LISTEN_MOST = 16 };

struct options {
	struct settings settings;
	const char *unix_path; /* NULL: none was given */
	const char *listen[OPTIONS_LISTEN_MOST];
	unsigned listen_count;
	mode_t mode;
	const char *password_file;
	bool is_public;
	int ready_descriptor;  /* -1: nobody waits for it */
};

/* True: the server is to run. False: *status is the program's; what there was to say was said. */
bool options_read(struct options *options, int argc, char **argv, int *status);

#endif
