/* tracking.c - clients that keep values near them are told when those change. See tracking.h for the picture. */
#include "server/tracking.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

enum { BUCKETS = 1 << 14 };

/* One client has read one key. */
struct noted {
	struct noted *next;
	struct tracker *tracker;
	size_t key_bytes;
	char key[];
};

struct tracker {
	struct tracking *tracking;
	struct tracker *next, *previous;
	struct tracker_options options;
	char *prefix_bytes;
	unsigned char *mail; /* keys, each behind its length; NULL: none yet */
	size_t mail_bytes;
	unsigned mail_keys;
	bool forgets_all; /* one message for everything, instead of the mail */
	_Atomic bool has_mail;
};

struct tracking {
	struct keyspace *keyspace;
	struct budget *budget;
	pthread_mutex_t lock;
	_Atomic size_t clients;
	struct tracker *first;
	size_t keys, victim; /* victim: the bucket that gives way next */
	struct noted *buckets[BUCKETS];
};

static _Thread_local struct tracker *writer;

void tracker_set_writer(struct tracker *tracker)
{
	writer = tracker;
}

static struct noted **bucket_of(struct tracking *tracking, struct keyspace_key key)
{
	uint64_t hash = UINT64_C(0xcbf29ce484222325);

	for (size_t i = 0; i < key.count; i++)
		hash = (hash ^ (unsigned char)key.bytes[i]) * UINT64_C(0x100000001b3);
	return &tracking->buckets[(hash >> 32) % BUCKETS];
}

/* Under the lock. Mail that does not fit becomes one message for everything. */
static void mail(struct tracker *tracker, struct keyspace_key key)
{
	const uint32_t length = (uint32_t)key.count;
	struct tracking *tracking = tracker->tracking;

	if (!tracker->forgets_all && !tracker->mail && budget_take(tracking->budget, TRACKING_MAIL_BYTES)) {
		tracker->mail = malloc(TRACKING_MAIL_BYTES);
		if (!tracker->mail)
			budget_give(tracking->budget, TRACKING_MAIL_BYTES);
	}
	if (!tracker->mail || sizeof(length) + key.count > TRACKING_MAIL_BYTES - tracker->mail_bytes) {
		tracker->forgets_all = true;
	} else if (!tracker->forgets_all) {
		memcpy(tracker->mail + tracker->mail_bytes, &length, sizeof(length));
		memcpy(tracker->mail + tracker->mail_bytes + sizeof(length), key.bytes, key.count);
		tracker->mail_bytes += sizeof(length) + key.count;
		tracker->mail_keys++;
	}
	if (!atomic_exchange(&tracker->has_mail, true))
		tracker->options.wake(tracker->options.wakes);
}

/* Under the lock. */
static void forget(struct tracking *tracking, struct noted **link)
{
	struct noted *noted = *link;

	*link = noted->next;
	tracking->keys--;
	budget_give(tracking->budget, sizeof(*noted) + noted->key_bytes);
	free(noted);
}

static bool has_prefix(const struct tracker_options *options, struct keyspace_key key)
{
	for (unsigned i = 0; i < options->prefix_count; i++)
		if (options->prefixes[i].count <= key.count &&
		    memcmp(options->prefixes[i].bytes, key.bytes, options->prefixes[i].count) == 0)
			return true;
	return options->prefix_count == 0;
}

static void changed(void *context, struct keyspace_key key)
{
	struct tracking *tracking = context;

	if (atomic_load_explicit(&tracking->clients, memory_order_acquire) == 0)
		return;
	pthread_mutex_lock(&tracking->lock);
	for (struct noted **link = bucket_of(tracking, key); *link;) {
		struct noted *noted = *link;
		if (noted->key_bytes != key.count || memcmp(noted->key, key.bytes, key.count) != 0) {
			link = &noted->next;
			continue;
		}
		if (noted->tracker != writer || !writer->options.skips_own)
			mail(noted->tracker, key);
		forget(tracking, link);
	}
	for (struct tracker *tracker = tracking->first; tracker; tracker = tracker->next)
		if (tracker->options.broadcasts && has_prefix(&tracker->options, key) &&
		    !(tracker == writer && tracker->options.skips_own))
			mail(tracker, key);
	pthread_mutex_unlock(&tracking->lock);
}

/* Under the lock: what a client read, or all clients (NULL). */
static void forget_noted(struct tracking *tracking, const struct tracker *of)
{
	for (size_t i = 0; i < BUCKETS && tracking->keys > 0; i++)
		for (struct noted **link = &tracking->buckets[i]; *link;) {
			if (!of || (*link)->tracker == of)
				forget(tracking, link);
			else
				link = &(*link)->next;
		}
}

static void cleared(void *context)
{
	struct tracking *tracking = context;

	if (atomic_load_explicit(&tracking->clients, memory_order_acquire) == 0)
		return;
	pthread_mutex_lock(&tracking->lock);
	forget_noted(tracking, NULL);
	for (struct tracker *tracker = tracking->first; tracker; tracker = tracker->next) {
		tracker->forgets_all = true;
		if (!atomic_exchange(&tracker->has_mail, true))
			tracker->options.wake(tracker->options.wakes);
	}
	pthread_mutex_unlock(&tracking->lock);
}

struct tracking *tracking_create(struct keyspace *keyspace, struct budget *budget)
{
	struct tracking *tracking = calloc(1, sizeof(*tracking));

	if (!tracking)
		return NULL;
	if (pthread_mutex_init(&tracking->lock, NULL) != 0) {
		free(tracking);
		return NULL;
	}
	tracking->keyspace = keyspace;
	tracking->budget = budget;
	keyspace->changed = changed;
	keyspace->cleared = cleared;
	keyspace->watcher = tracking;
	return tracking;
}

void tracking_destroy(struct tracking *tracking)
{
	DRP_ASSERT(!tracking->first && tracking->keys == 0);
	tracking->keyspace->watcher = NULL;
	pthread_mutex_destroy(&tracking->lock);
	free(tracking);
}

size_t tracking_clients(struct tracking *tracking)
{
	return atomic_load_explicit(&tracking->clients, memory_order_relaxed);
}

size_t tracking_keys(struct tracking *tracking)
{
	pthread_mutex_lock(&tracking->lock);
	const size_t keys = tracking->keys;
	pthread_mutex_unlock(&tracking->lock);
	return keys;
}

struct tracker *tracker_begin(struct tracking *tracking, const struct tracker_options *options)
{
	struct tracker *tracker = calloc(1, sizeof(*tracker));
	size_t bytes = 0;

	if (!tracker)
		return NULL;
	for (unsigned i = 0; i < options->prefix_count; i++)
		bytes += options->prefixes[i].count;
	tracker->prefix_bytes = malloc(bytes + 1);
	if (!tracker->prefix_bytes) {
		free(tracker);
		return NULL;
	}
	tracker->tracking = tracking;
	tracker->options = *options;
	char *at = tracker->prefix_bytes;
	for (unsigned i = 0; i < options->prefix_count; i++) {
		memcpy(at, options->prefixes[i].bytes, options->prefixes[i].count);
		tracker->options.prefixes[i].bytes = at;
		at += options->prefixes[i].count;
	}
	pthread_mutex_lock(&tracking->lock);
	tracker->next = tracking->first;
	if (tracking->first)
		tracking->first->previous = tracker;
	tracking->first = tracker;
	atomic_fetch_add_explicit(&tracking->clients, 1, memory_order_release);
	pthread_mutex_unlock(&tracking->lock);
	return tracker;
}

void tracker_end(struct tracker *tracker)
{
	struct tracking *tracking = tracker->tracking;

	pthread_mutex_lock(&tracking->lock);
	forget_noted(tracking, tracker);
	*(tracker->previous ? &tracker->previous->next : &tracking->first) = tracker->next;
	if (tracker->next)
		tracker->next->previous = tracker->previous;
	atomic_fetch_sub_explicit(&tracking->clients, 1, memory_order_release);
	pthread_mutex_unlock(&tracking->lock);
	if (tracker->mail)
		budget_give(tracking->budget, TRACKING_MAIL_BYTES);
	if (writer == tracker)
		writer = NULL;
	free(tracker->mail);
	free(tracker->prefix_bytes);
	free(tracker);
}

/* Under the lock. The next one in turn gives way: its client is told that the key changed. */
static void make_place(struct tracking *tracking)
{
	while (tracking->keys >= TRACKING_KEYS_MOST) {
		struct noted **link = &tracking->buckets[tracking->victim];
		if (!*link) {
			tracking->victim = (tracking->victim + 1) % BUCKETS;
			continue;
		}
		mail((*link)->tracker, (struct keyspace_key){(*link)->key, (*link)->key_bytes});
		forget(tracking, link);
	}
}

void tracker_note(struct tracker *tracker, struct keyspace_key key)
{
	if (!tracker || tracker->options.broadcasts)
		return;
	struct tracking *tracking = tracker->tracking;
	pthread_mutex_lock(&tracking->lock);
	struct noted **bucket = bucket_of(tracking, key);
	for (struct noted *noted = *bucket; noted; noted = noted->next)
		if (noted->tracker == tracker && noted->key_bytes == key.count && memcmp(noted->key, key.bytes, key.count) == 0)
			goto out;
	make_place(tracking);
	struct noted *noted = NULL;
	if (budget_take(tracking->budget, sizeof(*noted) + key.count)) {
		noted = malloc(sizeof(*noted) + key.count);
		if (!noted)
			budget_give(tracking->budget, sizeof(*noted) + key.count);
	}
	if (!noted) {
		mail(tracker, key); /* it cannot be told later, so it is told now, behind the reply */
		goto out;
	}
	noted->tracker = tracker;
	noted->key_bytes = key.count;
	memcpy(noted->key, key.bytes, key.count);
	noted->next = *bucket;
	*bucket = noted;
	tracking->keys++;
out:
	pthread_mutex_unlock(&tracking->lock);
}

bool tracker_has_mail(struct tracker *tracker)
{
	return atomic_load_explicit(&tracker->has_mail, memory_order_acquire);
}

void tracker_send_mail(struct tracker *tracker, struct output *out)
{
	struct tracking *tracking = tracker->tracking;

	pthread_mutex_lock(&tracking->lock);
	if (tracker->forgets_all) {
		output_text(out, ">2\r\n$10\r\ninvalidate\r\n_\r\n");
	} else if (tracker->mail_keys > 0) {
		output_format(out, ">2\r\n$10\r\ninvalidate\r\n*%u\r\n", tracker->mail_keys);
		for (size_t at = 0; at < tracker->mail_bytes;) {
			uint32_t length;
			memcpy(&length, tracker->mail + at, sizeof(length));
			output_format(out, "$%u\r\n", (unsigned)length);
			output_add(out, tracker->mail + at + sizeof(length), length);
			output_add(out, "\r\n", 2);
			at += sizeof(length) + length;
		}
	}
	if (tracker->mail) {
		free(tracker->mail);
		budget_give(tracking->budget, TRACKING_MAIL_BYTES);
		tracker->mail = NULL;
	}
	tracker->mail_bytes = tracker->mail_keys = 0;
	tracker->forgets_all = false;
	atomic_store(&tracker->has_mail, false);
	pthread_mutex_unlock(&tracking->lock);
}
