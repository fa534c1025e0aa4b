/* command.c - the one table of commands, of all protocols. The most frequent ones of each come first. */
#include "server/command.h"

#include <string.h>
#include <strings.h>

#include "server/direct.h"
#include "server/meta.h"
#include "server/resp.h"
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

	{"get", DIALECT_RESP, 2, 2, 0, resp_get},
	{"set", DIALECT_RESP, 3, 9, COMMAND_STORES_2, resp_set},
	{"mget", DIALECT_RESP, 2, 0, 0, resp_mget},
	{"mset", DIALECT_RESP, 3, 0, 0, resp_mset},
	{"setex", DIALECT_RESP, 4, 4, COMMAND_STORES_3, resp_setex},
	{"psetex", DIALECT_RESP, 4, 4, COMMAND_STORES_3, resp_setex},
	{"setnx", DIALECT_RESP, 3, 3, COMMAND_STORES_2, resp_setnx},
	{"getset", DIALECT_RESP, 3, 3, 0, resp_getset},
	{"getdel", DIALECT_RESP, 2, 2, 0, resp_getdel},
	{"getex", DIALECT_RESP, 2, 4, 0, resp_getex},
	{"del", DIALECT_RESP, 2, 0, 0, resp_delete},
	{"unlink", DIALECT_RESP, 2, 0, 0, resp_delete},
	{"exists", DIALECT_RESP, 2, 0, 0, resp_exists},
	{"touch", DIALECT_RESP, 2, 0, 0, resp_exists},
	{"type", DIALECT_RESP, 2, 2, 0, resp_type},
	{"append", DIALECT_RESP, 3, 3, 0, resp_append},
	{"strlen", DIALECT_RESP, 2, 2, 0, resp_strlen},
	{"incr", DIALECT_RESP, 2, 2, 0, resp_incr},
	{"decr", DIALECT_RESP, 2, 2, 0, resp_incr},
	{"incrby", DIALECT_RESP, 3, 3, 0, resp_incr},
	{"decrby", DIALECT_RESP, 3, 3, 0, resp_incr},
	{"expire", DIALECT_RESP, 3, 4, 0, resp_expire},
	{"pexpire", DIALECT_RESP, 3, 4, 0, resp_expire},
	{"expireat", DIALECT_RESP, 3, 4, 0, resp_expire},
	{"pexpireat", DIALECT_RESP, 3, 4, 0, resp_expire},
	{"persist", DIALECT_RESP, 2, 2, 0, resp_persist},
	{"ttl", DIALECT_RESP, 2, 2, 0, resp_ttl},
	{"pttl", DIALECT_RESP, 2, 2, 0, resp_ttl},
	{"expiretime", DIALECT_RESP, 2, 2, 0, resp_ttl},
	{"pexpiretime", DIALECT_RESP, 2, 2, 0, resp_ttl},
	{"multi", DIALECT_RESP, 1, 1, COMMAND_NOT_QUEUED, resp_multi},
	{"discard", DIALECT_RESP, 1, 1, COMMAND_NOT_QUEUED, resp_discard},
	{"ping", DIALECT_RESP, 1, 2, 0, resp_ping},
	{"echo", DIALECT_RESP, 2, 2, 0, resp_echo},
	{"hello", DIALECT_RESP, 1, 7, COMMAND_BEFORE_LOGIN, resp_hello},
	{"auth", DIALECT_RESP, 2, 3, COMMAND_BEFORE_LOGIN | COMMAND_NOT_QUEUED, resp_auth},
	{"client", DIALECT_RESP, 2, 0, 0, resp_client},
	{"select", DIALECT_RESP, 2, 2, 0, resp_select},
	{"info", DIALECT_RESP, 1, 0, 0, resp_info},
	{"dbsize", DIALECT_RESP, 1, 1, 0, resp_dbsize},
	{"flushdb", DIALECT_RESP, 1, 2, 0, resp_flush},
	{"flushall", DIALECT_RESP, 1, 2, 0, resp_flush},
	{"time", DIALECT_RESP, 1, 1, 0, resp_time},
	{"command", DIALECT_RESP, 1, 0, 0, resp_command},
	{"config", DIALECT_RESP, 2, 0, 0, resp_config},
	{"droppable.get", DIALECT_RESP, 2, 2, 0, direct_get},
	{"droppable.claim", DIALECT_RESP, 2, 3, 0, direct_claim},
	{"droppable.release", DIALECT_RESP, 3, 3, 0, direct_release},
	{"droppable.set", DIALECT_RESP, 6, 8, 0, direct_set},
	{"droppable.del", DIALECT_RESP, 2, 2, 0, direct_delete},
	{"droppable.has", DIALECT_RESP, 2, 2, 0, direct_has},
	{"droppable.incr", DIALECT_RESP, 4, 4, 0, direct_incr},
	{"droppable.touch", DIALECT_RESP, 3, 3, 0, direct_touch},
	{"droppable.ttl", DIALECT_RESP, 2, 2, 0, direct_ttl},
	{"droppable.hits", DIALECT_RESP, 2, 0, COMMAND_NOT_QUEUED, direct_hits},
	{"droppable.attach", DIALECT_RESP, 1, 1, 0, direct_attach},
	{"droppable.clear", DIALECT_RESP, 1, 1, 0, direct_clear},
	{"droppable.stats", DIALECT_RESP, 1, 1, 0, direct_stats},
	{"quit", DIALECT_RESP, 1, 1, COMMAND_BEFORE_LOGIN | COMMAND_NOT_QUEUED, resp_quit},
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
