/* command.c - the one table of commands, of all protocols. The most frequent ones of each come first. */
#include "server/command.h"

#include <string.h>
#include <strings.h>

#include "server/meta.h"
#include "server/text.h"

static const struct command commands[] = {
	{"get", DIALECT_TEXT, 2, 0, COMMAND_READS_LINE, text_get},
	{"set", DIALECT_TEXT, 5, 6, COMMAND_BEFORE_LOGIN, text_store},
	{"gets", DIALECT_TEXT, 2, 0, COMMAND_READS_LINE, text_get},
	{"delete", DIALECT_TEXT, 2, 4, 0, text_delete},
	{"add", DIALECT_TEXT, 5, 6, 0, text_store},
	{"replace", DIALECT_TEXT, 5, 6, 0, text_store},
	{"append", DIALECT_TEXT, 5, 6, 0, text_store},
	{"prepend", DIALECT_TEXT, 5, 6, 0, text_store},
	{"cas", DIALECT_TEXT, 6, 7, 0, text_store},
	{"incr", DIALECT_TEXT, 3, 4, 0, text_arithmetic},
	{"decr", DIALECT_TEXT, 3, 4, 0, text_arithmetic},
	{"touch", DIALECT_TEXT, 3, 4, 0, text_touch},
	{"gat", DIALECT_TEXT, 2, 0, COMMAND_READS_LINE, text_get},
	{"gats", DIALECT_TEXT, 2, 0, COMMAND_READS_LINE, text_get},
	{"flush_all", DIALECT_TEXT, 1, 3, 0, text_flush_all},
	{"version", DIALECT_TEXT, 1, 0, 0, text_version},
	{"verbosity", DIALECT_TEXT, 2, 0, 0, text_verbosity},
	{"stats", DIALECT_TEXT, 1, 0, 0, text_stats},
	{"cache_memlimit", DIALECT_TEXT, 2, 3, 0, text_memlimit},
	{"shutdown", DIALECT_TEXT, 1, 2, 0, text_shutdown},
	{"debugtime", DIALECT_TEXT, 1, 2, 0, text_debugtime},
	{"quit", DIALECT_TEXT, 1, 0, COMMAND_BEFORE_LOGIN, text_quit},

	{"mg", DIALECT_META, 2, 0, 0, meta_get},
	{"ms", DIALECT_META, 2, 0, 0, meta_set},
	{"md", DIALECT_META, 2, 0, 0, meta_delete},
	{"ma", DIALECT_META, 2, 0, 0, meta_arithmetic},
	{"mn", DIALECT_META, 1, 0, 0, meta_noop},
	{"me", DIALECT_META, 1, 0, 0, meta_debug},
};

enum { COMMANDS = sizeof(commands) / sizeof(commands[0]) };

const struct command *command_find(enum dialect dialect, const char *name, size_t count)
{
	for (int i = 0; i < COMMANDS; i++) {
		const struct command *command = &commands[i];
		if (!(command->dialect & dialect) || strlen(command->name) != count)
			continue;
		if ((dialect == DIALECT_RESP ? strncasecmp : strncmp)(command->name, name, count) == 0)
			return command;
	}
	return NULL;
}
