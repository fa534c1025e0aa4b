/* prim_linux_self.c - a descriptor of this process's memory, for others to read. See prim_self.h for the order. */
#include "os/prim_self.h"

#include <fcntl.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "droppable.h"

static int kept_pagemap = -1; /* written before there is a second thread */

int prim_pagemap_take(void)
{
	return kept_pagemap >= 0 ? kept_pagemap : open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
}

void prim_pagemap_give(int descriptor)
{
	if (descriptor != kept_pagemap)
		close(descriptor);
}

int prim_self_open(int *memory)
{
	const int pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC); /* without it a census goes by mincore(), as ever */

	*memory = open("/proc/self/mem", O_RDONLY | O_CLOEXEC);
	if (*memory < 0 || prctl(PR_SET_DUMPABLE, 0) != 0)
		goto err_close;
	kept_pagemap = pagemap;
	return DRP_OK;

err_close:
	if (*memory >= 0)
		close(*memory);
	if (pagemap >= 0)
		close(pagemap);
	*memory = -1;
	return DRP_UNSUPPORTED;
}
