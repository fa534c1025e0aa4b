/* main.c - the program droppable-server. The command `droppable serve` runs it too. */
#include "server/options.h"
#include "server/server.h"

int main(int argc, char **argv)
{
	struct options options;
	int status;

	if (!options_read(&options, argc, argv, &status))
		return status;
	return server_run(&options);
}
