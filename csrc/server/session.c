/* session.c - one client's conversation: which protocol it speaks, and its commands one after the other. See session.h. */
#include "server/session.h"

#include "server/claims.h"
#include "server/incoming.h"
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
	incoming_end(&session->incoming);
	if (session->has_claims)
		claims_end(session->service->claims, session->resp->id);
	resp_destroy(session->resp, &session->service->budget);
	session->resp = NULL;
}

bool session_is_at_rest(const struct session *session)
{
	return session->skip_bytes == 0 && !session->incoming && session->resume_at == 0 && !(session->resp && session->resp->total > 0);
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

void *session_room(const struct session *session, size_t *room_bytes)
{
	return session->incoming ? incoming_room(session->incoming, room_bytes) : NULL;
}

void session_filled(struct session *session, size_t bytes)
{
	incoming_filled(session->incoming, bytes);
}

/* A command that waited for more of its bytes. False: there is no memory for them, and it is to be refused. */
static bool wait_for_more(struct session *session)
{
	const size_t need_bytes = session->need_bytes;

	session->need_bytes = 0;
	return incoming_need(session->incoming, need_bytes);
}

enum taken session_take(struct session *session, const unsigned char *bytes, size_t count, size_t *used)
{
	*used = 0;
	tracker_set_writer(session->resp ? session->resp->tracker : NULL);
	for (;;) {
		if (session->skip_bytes > 0 && !skip(session, count, used))
			return TAKEN;
		const unsigned char *command = bytes + *used;
		size_t there = count - *used;
		struct incoming *const incoming = session->incoming;
		if (incoming) {
			*used += incoming_take(incoming, command, there);
			if (!incoming_is_whole(incoming))
				return TAKEN;
			command = incoming->bytes;
			there = incoming->count;
		} else if (there == 0 || there < session->need_bytes) {
			return TAKEN;
		}
		session->need_bytes = 0;
		if (session->out->is_broken)
			return TAKEN_CLOSE;
		if (output_is_blocked(session->out))
			return TAKEN_BLOCKED;
		if (session->dialect == DIALECT_UNKNOWN)
			session->dialect = *command == '*' ? DIALECT_RESP : DIALECT_TEXT | DIALECT_META;

		size_t taken = 0;
		const enum step step = (session->dialect == DIALECT_RESP ? parse_resp_command : parse_line_command)(
			session, command, there, &taken);
		switch (step) {
		case STEP_DONE:
			session->refuses_value = false;
			COUNT(session->counts, commands);
			DRP_ASSERT(!incoming || taken == there);
			if (!incoming)
				*used += taken;
			incoming_end(&session->incoming);
			break;
		case STEP_MORE:
			if (!session->incoming)
				return TAKEN;
			if (!incoming) { /* its value goes to the cache from now on, and its head is there already */
				*used += session->incoming->head_bytes;
			} else if (!wait_for_more(session)) {
				if (session->refuses_value)
					return TAKEN_CLOSE; /* not even for what has to be thrown away */
				session->refuses_value = true;
			}
			break;
		case STEP_BLOCKED:
			return TAKEN_BLOCKED;
		case STEP_CLOSE:
			if (!incoming)
				*used += taken;
			return TAKEN_CLOSE;
		}
	}
}
