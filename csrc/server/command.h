/*
 * command.h - the one table of commands, of all protocols.
 *
 * Callers: the parsers look names up in it.
 */
#ifndef DRP_SERVER_COMMAND_H
#define DRP_SERVER_COMMAND_H

#include "server/request.h"
#include "server/session.h"

enum command_traits {
	COMMAND_READS_LINE = 1,    /* the handler takes the words from the line by itself, however many there are */
	COMMAND_BEFORE_LOGIN = 2,  /* also for those who have not shown their password */
	COMMAND_NOT_QUEUED = 4,    /* run at once, also between MULTI and EXEC */
	COMMAND_STORES_2 = 8, COMMAND_STORES_3 = 16, /* of RESP: words[2], or words[3], is stored once under the key words[1], if anything is */
};

struct command {
	const char *name;
	enum dialect dialect;
	unsigned char least_words, most_words; /* with the name; 0: any number */
	unsigned char traits;
	enum step (*run)(struct session *session, struct request *request);
};

/* The command of that name, or NULL. Names of RESP are found in capitals and in small letters. */
const struct command *command_find(enum dialect dialect, const char *name, size_t count);

#endif
