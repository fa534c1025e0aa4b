/*
 * listener.h - sockets that connections come in by: a unix socket, TCP, or those that systemd opened.
 *
 * Callers: server.c.
 */
#ifndef DRP_SERVER_LISTENER_H
#define DRP_SERVER_LISTENER_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

enum { LISTENER_NAME_BYTES = 300, LISTENER_WHY_BYTES = 512 };

struct listener {
	int descriptor;
	bool is_unix, is_ours; /* ours: a file that is removed at the end */
	dev_t device;
	ino_t inode; /* of that file */
	char name[LISTENER_NAME_BYTES]; /* a path, or host:port as it came to be */
};

/* Each: false, and why says so in a sentence without an end. */
bool listener_open_unix(struct listener *listener, const char *path, mode_t mode, char *why);
bool listener_open_tcp(struct listener *listener, const char *address, bool may_be_public, char *why);
/* One that was opened by who started us. */
bool listener_adopt(struct listener *listener, int descriptor, char *why);
void listener_close(struct listener *listener);

/* Where the unix socket is if nobody says: below XDG_RUNTIME_DIR, or in /tmp/droppable-UID/; makes its folder. */
bool listener_default_path(char path[LISTENER_NAME_BYTES], char *why);

#endif
