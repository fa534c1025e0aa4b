/* options.c - what the command line says. See options.h. */
#include "server/options.h"

#include <errno.h>
#include <getopt.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

enum { THREADS_BY_DEFAULT = 4, THREADS_MOST = 64, CONNECTIONS_MOST = 1000000, WRONG = 2 };

enum which {
	OPTION_UNIX = 256, OPTION_LISTEN, OPTION_THREADS, OPTION_MAX_VALUE, OPTION_CONNECTIONS, OPTION_PASSWORD_FILE, OPTION_MODE,
	OPTION_READY, OPTION_IDLE, OPTION_STALL, OPTION_BUFFERS, OPTION_PUBLIC, OPTION_SHUTDOWN, OPTION_CLOCK, OPTION_NO_FLUSH,
	OPTION_NO_ATTACH, OPTION_VERSION, OPTION_HELP,
};

static const struct option names[] = {
	{"unix", required_argument, NULL, OPTION_UNIX},
	{"listen", required_argument, NULL, OPTION_LISTEN},
	{"threads", required_argument, NULL, OPTION_THREADS},
	{"max-value", required_argument, NULL, OPTION_MAX_VALUE},
	{"connections", required_argument, NULL, OPTION_CONNECTIONS},
	{"password-file", required_argument, NULL, OPTION_PASSWORD_FILE},
	{"mode", required_argument, NULL, OPTION_MODE},
	{"ready-fd", required_argument, NULL, OPTION_READY},
	{"idle-seconds", required_argument, NULL, OPTION_IDLE},
	{"stall-seconds", required_argument, NULL, OPTION_STALL},
	{"buffers", required_argument, NULL, OPTION_BUFFERS},
	{"public", no_argument, NULL, OPTION_PUBLIC},
	{"allow-shutdown", no_argument, NULL, OPTION_SHUTDOWN},
	{"allow-clock", no_argument, NULL, OPTION_CLOCK},
	{"no-flush", no_argument, NULL, OPTION_NO_FLUSH},
	{"no-attach", no_argument, NULL, OPTION_NO_ATTACH},
	{"version", no_argument, NULL, OPTION_VERSION},
	{"help", no_argument, NULL, OPTION_HELP},
	{NULL, 0, NULL, 0},
};

static const char help[] =
	"usage: droppable-server [options]\n"
	"\n"
	"A cache for all processes of this host, for clients of memcached and Redis, in memory that the kernel may take back.\n"
	"Prints where it listens, a line each, the unix socket first. Ends with status 0 at SIGTERM or SIGINT.\n"
	"\n"
	"  --unix PATH           listen at a unix socket (default: $XDG_RUNTIME_DIR/droppable/server.sock, or\n"
	"                        /tmp/droppable-UID/server.sock, if nothing else is asked for)\n"
	"  --mode MODE           of that socket (default: 0600)\n"
	"  --listen HOST:PORT    listen at TCP; may be given more than once\n"
	"  --public              HOST may be other than the loopback; needs --password-file\n"
	"  --password-file FILE  clients must show one of these: a password, or user:password, a line each\n"
	"  --threads N           that serve connections (default: one for each processor, at most 4)\n"
	"  --connections N       at most (default: 1024)\n"
	"  --max-value SIZE      of one value (default: 1M); sizes are bytes, or numbers with K, M or G\n"
	"  --buffers SIZE        of all connections together, at most (default: an eighth of\n"
	"                        the memory limit, at least 4M and at most 64M)\n"
	"  --idle-seconds N      close connections that say nothing for so long; 0: never (default: 0)\n"
	"  --stall-seconds N     close those that stop in the middle of a command or a reply (default: 60)\n"
	"  --ready-fd N          write a line to that descriptor, and close it, once connections are taken\n"
	"  --no-flush            refuse flush_all, FLUSHDB and FLUSHALL\n"
	"  --no-attach           clients may not read this process's memory (droppable.connect() goes on over the socket)\n"
	"  --allow-shutdown      clients may stop the server\n"
	"  --allow-clock         clients may move the clock forward: for tests\n"
	"  --version, --help\n";

static bool read_count(const char *text, unsigned long least, unsigned long most, unsigned *out)
{
	char *end;

	errno = 0;
	const unsigned long value = strtoul(text, &end, 10);
	if (errno != 0 || end == text || *end != '\0' || value < least || value > most || strchr(text, '-'))
		return false;
	*out = (unsigned)value;
	return true;
}

/* As droppable's other commands read sizes: 1024-based letters, with or without B or iB. */
static bool read_size(const char *text, size_t *out)
{
	static const char letters[] = "KMG";
	char *end;

	errno = 0;
	const double number = strtod(text, &end);
	double bytes = number;
	if (errno != 0 || end == text || strpbrk(text, "-+xXnN"))
		return false;
	const char *letter = *end ? strchr(letters, *end >= 'a' ? *end - 32 : *end) : NULL;
	if (letter && *letter) {
		for (int i = 0; i <= letter - letters; i++)
			bytes *= 1024;
		end++;
	}
	if (strcasecmp(end, "iB") == 0 || strcasecmp(end, "B") == 0)
		end += strlen(end);
	if (*end != '\0' || bytes < 1 || bytes > (double)(SIZE_MAX / 4))
		return false;
	*out = (size_t)bytes;
	return true;
}

static bool wrong(int *status, const char *text, const char *name, const char *given)
{
	fprintf(stderr, "droppable-server: --%s must be %s; you gave '%s'\n", name, text, given);
	*status = WRONG;
	return false;
}

static bool read_mode(const char *text, mode_t *mode)
{
	char *end;
	const unsigned long value = strtoul(text, &end, 8);

	*mode = (mode_t)value;
	return end != text && *end == '\0' && value <= 0777;
}

static bool read_one(struct options *options, int which, const char *name, int *status)
{
	struct settings *settings = &options->settings;
	unsigned number;

	switch (which) {
	case OPTION_UNIX:
		options->unix_path = optarg;
		return true;
	case OPTION_LISTEN:
		if (options->listen_count == OPTIONS_LISTEN_MOST)
			return wrong(status, "given 16 times at most", name, optarg);
		options->listen[options->listen_count++] = optarg;
		return true;
	case OPTION_THREADS:
		return read_count(optarg, 1, THREADS_MOST, &settings->threads) || wrong(status, "1 to 64", name, optarg);
	case OPTION_MAX_VALUE:
		return (read_size(optarg, &settings->max_value_bytes) && settings->max_value_bytes >= 1024 &&
			settings->max_value_bytes <= INT_MAX / 8) ||
		       wrong(status, "a size from 1K to 255M, as 1M", name, optarg);
	case OPTION_CONNECTIONS:
		return read_count(optarg, 1, CONNECTIONS_MOST, &settings->most_connections) ||
		       wrong(status, "1 to 1000000", name, optarg);
	case OPTION_PASSWORD_FILE:
		options->password_file = optarg;
		return true;
	case OPTION_MODE:
		return read_mode(optarg, &options->mode) || wrong(status, "a mode in octal digits, as 0660", name, optarg);
	case OPTION_READY:
		if (!read_count(optarg, 0, INT_MAX, &number))
			return wrong(status, "the number of an open descriptor", name, optarg);
		options->ready_descriptor = (int)number;
		return true;
	case OPTION_IDLE:
		return read_count(optarg, 0, INT_MAX, &settings->idle_seconds) || wrong(status, "seconds", name, optarg);
	case OPTION_STALL:
		return read_count(optarg, 0, INT_MAX, &settings->stall_seconds) || wrong(status, "seconds", name, optarg);
	case OPTION_BUFFERS:
		return read_size(optarg, &settings->buffers_bytes) || wrong(status, "a size, as 64M", name, optarg);
	case OPTION_PUBLIC:
		options->is_public = true;
		return true;
	case OPTION_SHUTDOWN:
		settings->allows_shutdown = true;
		return true;
	case OPTION_CLOCK:
		settings->allows_clock = true;
		return true;
	case OPTION_NO_FLUSH:
		settings->allows_flush = false;
		return true;
	case OPTION_NO_ATTACH:
		settings->allows_attach = false;
		return true;
	case OPTION_VERSION:
		printf("droppable-server %s\n", SERVICE_VERSION);
		*status = 0;
		return false;
	case OPTION_HELP:
		fputs(help, stdout);
		*status = 0;
		return false;
	default: /* getopt has said what is wrong */
		fputs("droppable-server --help lists the options\n", stderr);
		*status = WRONG;
		return false;
	}
}

bool options_read(struct options *options, int argc, char **argv, int *status)
{
	const long processors = sysconf(_SC_NPROCESSORS_ONLN);
	int index = 0, which;

	*options = (struct options){
		.mode = 0600, .ready_descriptor = -1,
		.settings = {
			.max_value_bytes = 1 << 20, .most_connections = 1024, .stall_seconds = 60,
			.threads = processors < 1 ? 1 : processors < THREADS_BY_DEFAULT ? (unsigned)processors : THREADS_BY_DEFAULT,
			.allows_flush = true, .allows_attach = true,
		},
	};
	while ((which = getopt_long(argc, argv, "", names, &index)) != -1)
		if (!read_one(options, which, which == '?' ? "" : names[index].name, status))
			return false;
	if (optind < argc) {
		fprintf(stderr, "droppable-server: there is no argument '%s'; --help lists the options\n", argv[optind]);
		*status = WRONG;
		return false;
	}
	if (options->is_public && !options->password_file) {
		fputs("droppable-server: --public needs --password-file FILE: whoever can connect can read and fill the cache\n",
		      stderr);
		*status = WRONG;
		return false;
	}
	options->settings.max_request_bytes = 4 * options->settings.max_value_bytes + (64 << 10);
	return true;
}
