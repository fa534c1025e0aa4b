/*
 * direct.c - commands of droppable.connect(). See direct.h.
 *
 * Who attaches gets a descriptor of /proc/self/mem that was opened read-only: it can read everything in this process, and write
 * nothing. It can do so until this process ends, also when the connection has ended long before.
 */
#include "server/direct.h"

#include "server/resp.h"

static enum step fail(struct session *session, const char *text)
{
	resp_error(session, text);
	return STEP_DONE;
}

enum step direct_attach(struct session *session, struct request *request)
{
	const struct service *service = session->service;

	(void)request;
	if (!session->is_local)
		return fail(session, "ERR descriptors are passed over a unix socket alone");
	if (service->passed_count == 0)
		return fail(session, service->settings.allows_attach
					     ? "ERR this system does not let the server pass a descriptor of its memory"
					     : "ERR the server was started with --no-attach");
	session->passes = true;
	resp_array(session, 2);
	resp_string(session, "layout", 6);
	resp_number(session, DIRECT_LAYOUT);
	return STEP_DONE;
}
