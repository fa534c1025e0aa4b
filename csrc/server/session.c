/* session.c - one client's conversation: which protocol it speaks, and its commands one after the other. See session.h. */
#include "server/session.h"

#include "server/parser.h"
#include "server/resp.h"
#include "server/tracking.h"

void session_init(struct session *session, struct service *service, struct counts *counts)
{
	*session = (struct session){
		.service = service, .counts = counts, .is_authenticated = service->passwords == NULL,
		.flags_digits = 1, .version_digits = 1, .meta_header_bytes = 5,
	};
}

void session_destroy(struct session *session)
{
	resp_destroy(session->resp, &session->service->budget);
	session->resp = NULL;
}

bool session_is_at_rest(const struct session *session)
{
	return session->skip_bytes == 0 && session->resume_at == 0 && !(session->resp && session->resp->total > 0);
}

bool session_has_mail(const struct session *session)
{
	return session->resp && session->resp->tracker && tracker_has_mail(session->resp->tracker);
}

void session_send_mail(struct session *session)
{
	if (session_has_mail(session) && session->resume_at == 0)
		tracker_send_mail(session->resp->tracker, session->out);
}

/* What does not belong to any command. True: it is all skipped. */
static bool skip(struct session *session, size_t count, size_t *used)
{
	const uint64_t there = count - *used;
	const uint64_t skipped = session->skip_bytes < there ? session->skip_bytes : there;

	session->skip_bytes -= skipped;
	*used += (size_t)skipped;
	return session->skip_bytes == 0;
}

enum taken session_take(struct session *session, const unsigned char *bytes, size_t count, size_t *used)
{
	*used = 0;
	tracker_set_writer(session->resp ? session->resp->tracker : NULL);
	for (;;) {
		if (session->skip_bytes > 0 && !skip(session, count, used))
			return TAKEN;
		if (*used == count || count - *used < session->need_bytes)
			return TAKEN;
		session->need_bytes = 0;
		if (session->out->is_broken)
			return TAKEN_CLOSE;
		if (output_is_blocked(session->out))
			return TAKEN_BLOCKED;
		if (session->dialect == DIALECT_UNKNOWN)
			session->dialect = bytes[*used] == '*' ? DIALECT_RESP : DIALECT_TEXT | DIALECT_META;

		size_t taken = 0;
		const enum step step = (session->dialect == DIALECT_RESP ? parse_resp_command : parse_line_command)(
			session, bytes + *used, count - *used, &taken);
		switch (step) {
		case STEP_DONE:
			session->refuses_value = false;
			COUNT(session->counts, commands);
			*used += taken;
			break;
		case STEP_MORE:
			return TAKEN;
		case STEP_BLOCKED:
			return TAKEN_BLOCKED;
		case STEP_CLOSE:
			*used += taken;
			return TAKEN_CLOSE;
		}
	}
}
