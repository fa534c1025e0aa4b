/*
 * reader.c - `_core.Reader`: values of a server, read from its memory. csrc/client/reader.h says how.
 *
 *   get(key, default) ---- found ----> the value; the key is noted, and told to report() with others, a batch at a time
 *                     '--- not ------> default: the caller asks the server
 *
 * Values come from whoever can connect to the server, so nothing of them is believed: text is checked, and nothing is unpickled.
 *
 * With a near cache (a _core.Cache of this process) a long value is copied once:
 *
 *   look up, but for the value ---- version ----> near: '@' owner '@' serial '@' place, key ---- found ----> that, in place
 *                                                   '--- not ----> copy the value, and keep it there under the version it had
 *
 * The version is that of the very entry (client/reader.h), so that what is near is never older than what is in the server. It goes,
 * as anything in that cache does, when nobody asks for it.
 *
 * What is noted is a hint for the server, which does not see our reads: it keeps what is in use. So each key is noted once a second
 * at most, and not at all while another thread is at it.
 *
 * Threads: the object is never changed once it is made, but for what the lock guards. It is closed with its last reference.
 * Forks: a child may go on with it.
 * Callers: src/droppable/_connect.py.
 */
#include "client/reader.h"

#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <unistd.h>

#include "cache_object.h"
#include "key.h"
#include "os/hash.h"
#include "os/prim.h"
#include "value.h"

enum { NOTED_MOST = 64, NOTED_KEY_BYTES = 256, RECENT = 1024 };
#define NOTED_NS UINT64_C(1000000000)

enum {
	NEAR_LEAST_BYTES = 16384, /* of values in the near cache: to copy shorter ones takes no longer than to look there */
	KIND_SHARED_ARRAY = VALUE_CODED + 4, /* src/droppable/_connect/values.py */
};

typedef struct {
	PyObject_HEAD
	struct core_state *core;
	struct reader reader;
	bool is_open;
	PyObject *decode, *report;
	PyObject *near; /* a _core.Cache, or NULL */
	_Atomic bool is_dead;
	_Atomic uint64_t hits, near_hits, misses;
	pthread_mutex_t lock; /* of what follows */
	uint64_t told_hits, told_ns;
	uint32_t recent[RECENT]; /* of hashes that were noted since told_ns, by their low bits */
	unsigned noted_count;
	struct noted {
		uint16_t bytes;
		unsigned char key[NOTED_KEY_BYTES];
	} noted[NOTED_MOST];
} ReaderObject;

/* The keys that were noted, for report(). Called with the lock, which it gives back. */
static int tell(ReaderObject *self)
{
	const uint64_t hits = atomic_load_explicit(&self->hits, memory_order_relaxed) - self->told_hits;
	PyObject *keys = PyList_New((Py_ssize_t)self->noted_count);

	for (unsigned i = 0; keys && i < self->noted_count; i++) {
		PyObject *key = PyBytes_FromStringAndSize((const char *)self->noted[i].key, self->noted[i].bytes);
		if (!key)
			Py_CLEAR(keys);
		else
			PyList_SET_ITEM(keys, i, key);
	}
	self->told_hits += hits;
	self->noted_count = 0;
	pthread_mutex_unlock(&self->lock);
	PyObject *done = keys ? PyObject_CallFunction(self->report, "KO", (unsigned long long)hits, keys) : NULL;
	Py_XDECREF(keys);
	Py_XDECREF(done);
	return done ? 0 : -1;
}

/* These keys were found. 0, or -1 with an exception of report(). */
static int note(ReaderObject *self, const struct reader_wanted *found, size_t count)
{
	atomic_fetch_add_explicit(&self->hits, count, memory_order_relaxed);
	if (pthread_mutex_trylock(&self->lock) != 0)
		return 0;
	const uint64_t now_ns = prim_now_coarse_ns();
	const bool is_due = now_ns - self->told_ns >= NOTED_NS;
	for (size_t i = 0; i < count && self->noted_count < NOTED_MOST; i++) {
		const unsigned char *key = found[i].key;
		const size_t bytes = found[i].key_bytes;
		/* Any spread will do. */
		uint64_t first = 0, last = 0;
		memcpy(&first, key, bytes < sizeof(first) ? bytes : sizeof(first));
		memcpy(&last, key + bytes - (bytes < sizeof(last) ? bytes : sizeof(last)), bytes < sizeof(last) ? bytes : sizeof(last));
		const uint32_t mark = (uint32_t)(((first ^ (last << 1) ^ bytes) * UINT64_C(0x9e3779b97f4a7c15)) >> 32) | 1;
		uint32_t *recent = &self->recent[(mark >> 1) % RECENT];
		if (*recent == mark || bytes > NOTED_KEY_BYTES)
			continue;
		*recent = mark;
		self->noted[self->noted_count].bytes = (uint16_t)bytes;
		memcpy(self->noted[self->noted_count++].key, key, bytes);
	}
	if (is_due) {
		memset(self->recent, 0, sizeof(self->recent));
		self->told_ns = now_ns;
	}
	if (is_due || self->noted_count == NOTED_MOST)
		return tell(self);
	pthread_mutex_unlock(&self->lock);
	return 0;
}

static bool is_ascii(const unsigned char *at, size_t bytes)
{
	uint64_t word, all = 0;

	for (; bytes >= sizeof(word); at += sizeof(word), bytes -= sizeof(word)) {
		memcpy(&word, at, sizeof(word));
		all |= word;
	}
	for (; bytes > 0; bytes--)
		all |= *at++;
	return (all & UINT64_C(0x8080808080808080)) == 0;
}

/* What a look-up gave, as an object: 1 and *value; 0: not found; -1 with an exception. Clears the sink. */
static int finish(ReaderObject *self, int status, struct value_sink *sink, PyObject **value)
{
	struct cache_pin none = {0};
	bool failed_twice;

	if (status != DRP_OK) {
		value_sink_clear(sink);
		if (status == DRP_CLOSED)
			atomic_store_explicit(&self->is_dead, true, memory_order_relaxed);
		return status == DRP_REFUSED ? -1 : 0;
	}
	/* Whoever can connect may have stored it. Pickles, and arrays with one in their meta, are a cache's in a process alone. */
	if (sink->kind == VALUE_PICKLE || sink->kind == VALUE_ARRAY ||
	    (sink->kind == VALUE_ASCII &&
	     !is_ascii(PyUnicode_DATA(sink->object), (size_t)PyUnicode_GET_LENGTH(sink->object)))) {
		value_sink_clear(sink);
		return 0;
	}
	*value = value_finish(self->core, sink, &none, self->decode, &failed_twice);
	if (*value)
		return 1;
	if (!failed_twice) /* what has nothing to do with the value */
		return -1;
	value_sink_clear(sink); /* it would not load: the caller hears of it from the server's copy, or has it computed anew */
	PyErr_Clear();
	return 0;
}

/* Receives a value, or gives up where the near cache may have it. */
struct sink {
	struct value_sink of;
	int (*reserve)(struct cache_sink *, uint8_t, size_t, size_t, void **, void **);
	bool gives_up, is_for_near; /* of the value that was announced last */
};

static int reserve(struct cache_sink *base, uint8_t kind, size_t meta_bytes, size_t value_bytes, void **meta, void **value)
{
	struct sink *sink = (struct sink *)base;
	const bool may_be_near = kind == VALUE_BYTES || kind == VALUE_ASCII || kind == VALUE_STR || kind == KIND_SHARED_ARRAY;

	sink->is_for_near = may_be_near && value_bytes >= NEAR_LEAST_BYTES;
	return sink->gives_up && sink->is_for_near ? -1 : sink->reserve(base, kind, meta_bytes, value_bytes, meta, value);
}

enum { GAVE_UP = 2 };

/* As finish(); GAVE_UP: it is for the near cache, and gives_up. version may be NULL. */
static int copy(ReaderObject *self, const unsigned char *key, size_t bytes, bool gives_up, struct sink *sink,
		struct reader_version *version, PyObject **value)
{
	value_sink_init(&sink->of);
	sink->reserve = sink->of.base.reserve;
	sink->of.base.reserve = reserve;
	sink->gives_up = gives_up;
	sink->is_for_near = false;
	const int status = reader_get_version(&self->reader, key, bytes, &sink->of.base, version);
	if (status != DRP_REFUSED || !gives_up || !sink->is_for_near)
		return finish(self, status, &sink->of, value);
	value_sink_clear(&sink->of);
	return GAVE_UP;
}

/* The key under which the near cache has that version of the value. 0, or -1 with an exception; key_free() either way. */
static int near_key(ReaderObject *self, struct key *near, const unsigned char *key, size_t bytes, const struct reader_version *version)
{
	near->core = self->core;
	near->data = near->inline_data;
	near->size = sizeof(near->inline_data);
	near->bytes = near->start = near->hashed_bytes = 0;
	if (key_append(near, '@', &version->owner, sizeof(version->owner)) < 0 ||
	    key_append(near, '@', &version->serial, sizeof(version->serial)) < 0 ||
	    key_append(near, '@', &version->place, sizeof(version->place)) < 0)
		return -1;
	return key_append(near, (char)key[0], key + 1, bytes - 1);
}

/*
 * The near cache is a help and no more: that it was closed meanwhile, or that a value can never fit into it, is no error of a look-up.
 * 0, or -1 with an exception of something else, a signal handler say.
 */
static int pass_over_near(void)
{
	if (!core_error_is_ours())
		return -1;
	PyErr_Clear();
	return 0;
}

static int find_near(ReaderObject *self, const unsigned char *key, size_t bytes, const struct reader_version *version, PyObject **value)
{
	struct key near;
	const int made = near_key(self, &near, key, bytes, version);
	const int found = made < 0 ? -1 : cache_object_find(self->near, &near, false, NULL, value);

	key_free(&near);
	return found < 0 ? pass_over_near() : found;
}

/* Keeps it for the next time. 0, or -1 with an exception. */
static int keep_near(ReaderObject *self, const unsigned char *key, size_t bytes, const struct reader_version *version, PyObject *value)
{
	struct key near;
	PyObject *object = near_key(self, &near, key, bytes, version) < 0 ? NULL : key_as_object(&near);
	PyObject *stored = object ? PyObject_CallMethod(self->near, "set", "OO", object, value) : NULL;

	key_free(&near);
	Py_XDECREF(object);
	Py_XDECREF(stored);
	return stored ? 0 : pass_over_near();
}

/* As finish(). */
static int copy_near(ReaderObject *self, const unsigned char *key, size_t bytes, PyObject **value)
{
	struct reader_version version;
	struct sink sink;
	int found = copy(self, key, bytes, true, &sink, &version, value);

	if (found != GAVE_UP)
		return found;
	found = find_near(self, key, bytes, &version, value);
	atomic_fetch_add_explicit(&self->near_hits, found > 0, memory_order_relaxed);
	if (found != 0)
		return found;
	found = copy(self, key, bytes, false, &sink, &version, value);
	/* The value may have become another one meanwhile, of any length and kind. */
	if (found > 0 && sink.is_for_near && keep_near(self, key, bytes, &version, *value) < 0) {
		Py_CLEAR(*value);
		return -1;
	}
	return found;
}

/* 1 and *value; 0: not found; -1 with an exception. */
static int look_up(ReaderObject *self, const unsigned char *key, size_t bytes, PyObject **value)
{
	const struct reader_wanted wanted = {.key = key, .key_bytes = bytes};
	const bool has_near = self->near && !atomic_load_explicit(&((CacheObject *)self->near)->closed, memory_order_relaxed);
	struct sink sink;
	const int found = has_near ? copy_near(self, key, bytes, value) : copy(self, key, bytes, false, &sink, NULL, value);

	if (found == 0)
		atomic_fetch_add_explicit(&self->misses, 1, memory_order_relaxed);
	if (found > 0 && note(self, &wanted, 1) < 0) {
		Py_CLEAR(*value);
		return -1;
	}
	return found;
}

/* Whether the key, behind its scopes, is a digest, whose secret no other process has: an EncodedKey may hold one. */
static bool is_digest(const struct key *key)
{
	size_t at = 0;

	while (key->data[at] == '@')
		at += KEY_HEAD_BYTES;
	return key_is_digest(key->data + at);
}

/* A key as bytes that are the same in every process. 0, or -1 with an exception; key_free() either way. */
static int encode(struct core_state *core, struct key *key, PyObject *object)
{
	if (key_encode(core, key, object) < 0)
		return -1;
	if (key->hashed_bytes == 0 && !is_digest(key))
		return 0;
	PyErr_Format(PyExc_ValueError,
		     "a key that processes share has at most %d bytes; yours has more: shorten it, or use a digest of your own",
		     KEY_LONGEST_BYTES);
	return -1;
}

static int get(ReaderObject *self, PyObject *object, PyObject **value)
{
	unsigned char bytes[KEY_INLINE_BYTES];
	const size_t count = key_encode_short(object, SCOPE_NONE, bytes, sizeof(bytes));
	struct key key;

	if (count > 0)
		return look_up(self, bytes, count, value);
	const int encoded = encode(self->core, &key, object);
	const int found = encoded < 0 ? -1 : look_up(self, key.data, key.bytes, value);
	key_free(&key);
	return found;
}

static PyObject *reader_object_get(ReaderObject *self, PyObject *const *arguments, Py_ssize_t count)
{
	PyObject *value = NULL;

	if (count != 2) {
		PyErr_SetString(PyExc_TypeError, "get() takes a key and a default");
		return NULL;
	}
	const int found = get(self, arguments[0], &value);
	return found > 0 ? value : found == 0 ? Py_NewRef(arguments[1]) : NULL;
}

/* Puts a key into the dict with its value, or else into the list. 0, or -1 with an exception. Takes the value over. */
static int sort_out(PyObject *key, int there, PyObject *value, PyObject *found, PyObject *missing)
{
	const int failed = there < 0 ? -1 : there ? PyDict_SetItem(found, key, value) : PyList_Append(missing, key);

	Py_XDECREF(value);
	return failed;
}

/* Keys that are looked up together, where keys of their types need no Python code to be encoded. */
struct batch {
	struct value_sink sinks[READER_MANY_MOST];
	struct reader_wanted wanted[READER_MANY_MOST];
	PyObject *keys[READER_MANY_MOST];
	unsigned char bytes[READER_MANY_MOST * 48];
	size_t count, bytes_used;
};

static bool add(struct batch *batch, PyObject *key)
{
	unsigned char *bytes = batch->bytes + batch->bytes_used;
	const size_t count = key_encode_short(key, SCOPE_NONE, bytes, sizeof(batch->bytes) - batch->bytes_used);

	if (count == 0)
		return false;
	struct value_sink *sink = &batch->sinks[batch->count];
	value_sink_init(sink);
	batch->wanted[batch->count] = (struct reader_wanted){.key = bytes, .key_bytes = count, .sink = &sink->base};
	batch->keys[batch->count++] = key;
	batch->bytes_used += count;
	return true;
}

/* 0, or -1 with an exception. */
static int look_up_batch(ReaderObject *self, struct batch *batch, PyObject *found, PyObject *missing)
{
	struct reader_wanted *wanted = batch->wanted;
	size_t hits = 0, misses = 0;

	reader_get_many(&self->reader, wanted, batch->count);
	int failed = PyErr_Occurred() ? -1 : 0; /* there was no memory for a value */
	for (size_t i = 0; i < batch->count; i++) {
		PyObject *value = NULL;
		int there;
		if (failed < 0) {
			value_sink_clear(&batch->sinks[i]);
		} else if (wanted[i].status == READER_ALONE) {
			value_sink_clear(&batch->sinks[i]);
			there = look_up(self, wanted[i].key, wanted[i].key_bytes, &value);
			failed = sort_out(batch->keys[i], there, value, found, missing);
		} else {
			there = finish(self, wanted[i].status, &batch->sinks[i], &value);
			failed = sort_out(batch->keys[i], there, value, found, missing);
			misses += there == 0;
			if (there > 0)
				wanted[hits++] = wanted[i];
		}
	}
	atomic_fetch_add_explicit(&self->misses, misses, memory_order_relaxed);
	return failed < 0 ? -1 : note(self, wanted, hits);
}

/* Looks so many keys up: together, or one by one those of types that are not for a batch. 0, or -1 with an exception. */
static int look_up_many(ReaderObject *self, struct batch *batch, PyObject *const *keys, size_t count, PyObject *found, PyObject *missing)
{
	batch->count = batch->bytes_used = 0;
	for (size_t i = 0; i < count; i++) {
		PyObject *value = NULL;
		if (add(batch, keys[i]))
			continue;
		const int there = get(self, keys[i], &value);
		if (sort_out(keys[i], there, value, found, missing) < 0)
			return -1;
	}
	return look_up_batch(self, batch, found, missing);
}

static PyObject *reader_object_get_many(ReaderObject *self, PyObject *keys)
{
	/* A tuple, for Python code of keys and values could change a list. */
	PyObject *sequence = PySequence_Tuple(keys), *found = PyDict_New(), *missing = PyList_New(0), *result = NULL;
	struct batch *batch = PyMem_Malloc(sizeof(*batch));

	if (!batch)
		PyErr_NoMemory();
	if (!sequence || !found || !missing || !batch)
		goto out;
	const size_t count = (size_t)PyTuple_GET_SIZE(sequence);
	for (size_t i = 0; i < count; i += READER_MANY_MOST) {
		const size_t some = count - i < READER_MANY_MOST ? count - i : READER_MANY_MOST;
		if (look_up_many(self, batch, &PyTuple_GET_ITEM(sequence, (Py_ssize_t)i), some, found, missing) < 0)
			goto out;
	}
	result = PyTuple_Pack(2, found, missing);
out:
	PyMem_Free(batch);
	Py_XDECREF(sequence);
	Py_XDECREF(found);
	Py_XDECREF(missing);
	return result;
}

static PyObject *reader_object_flush(ReaderObject *self, PyObject *unused)
{
	(void)unused;
	if (pthread_mutex_trylock(&self->lock) != 0)
		Py_RETURN_NONE;
	if (tell(self) < 0)
		return NULL;
	Py_RETURN_NONE;
}

static void close_both(int memory, int board)
{
	close(memory);
	close(board);
}

static PyObject *reader_object_new(PyTypeObject *type, PyObject *arguments, PyObject *keywords)
{
	int memory, board;
	unsigned long long board_bytes;
	PyObject *decode, *report, *near = Py_None;

	(void)keywords;
	if (!PyArg_ParseTuple(arguments, "iiKOO|O", &memory, &board, &board_bytes, &decode, &report, &near))
		return NULL;
	if (near != Py_None && !PyObject_TypeCheck(near, core_of_type(type)->cache_type)) {
		close_both(memory, board);
		return PyErr_Format(PyExc_TypeError, "near must be a Cache or None; you gave one of type %s", Py_TYPE(near)->tp_name);
	}
	ReaderObject *self = (ReaderObject *)type->tp_alloc(type, 0);
	if (!self) {
		close_both(memory, board);
		return NULL;
	}
	self->core = core_of_type(type);
	pthread_mutex_init(&self->lock, NULL);
	const int status = board_bytes > SIZE_MAX ? DRP_UNSUPPORTED : reader_open(&self->reader, memory, board, (size_t)board_bytes);
	if (status != DRP_OK) {
		close_both(memory, board);
		Py_DECREF(self);
		return core_raise(status, "the server's board");
	}
	self->is_open = true;
	self->decode = Py_NewRef(decode);
	self->report = Py_NewRef(report);
	self->near = near == Py_None ? NULL : Py_NewRef(near);
	self->told_ns = prim_now_coarse_ns();
	return (PyObject *)self;
}

static int reader_object_traverse(ReaderObject *self, visitproc visit, void *arg)
{
	Py_VISIT(Py_TYPE(self));
	Py_VISIT(self->decode);
	Py_VISIT(self->report);
	Py_VISIT(self->near);
	return 0;
}

static int reader_object_clear(ReaderObject *self)
{
	Py_CLEAR(self->decode);
	Py_CLEAR(self->report);
	Py_CLEAR(self->near);
	return 0;
}

static void reader_object_dealloc(ReaderObject *self)
{
	PyTypeObject *type = Py_TYPE(self);

	PyObject_GC_UnTrack(self);
	reader_object_clear(self);
	if (self->is_open)
		reader_close(&self->reader);
	pthread_mutex_destroy(&self->lock);
	type->tp_free(self);
	Py_DECREF(type);
}

static PyObject *reader_object_hits(ReaderObject *self, void *unused)
{
	(void)unused;
	return PyLong_FromUnsignedLongLong(atomic_load_explicit(&self->hits, memory_order_relaxed));
}

static PyObject *reader_object_near_hits(ReaderObject *self, void *unused)
{
	(void)unused;
	return PyLong_FromUnsignedLongLong(atomic_load_explicit(&self->near_hits, memory_order_relaxed));
}

static PyObject *reader_object_misses(ReaderObject *self, void *unused)
{
	(void)unused;
	return PyLong_FromUnsignedLongLong(atomic_load_explicit(&self->misses, memory_order_relaxed));
}

static PyObject *reader_object_is_dead(ReaderObject *self, void *unused)
{
	(void)unused;
	return PyBool_FromLong(atomic_load_explicit(&self->is_dead, memory_order_relaxed));
}

static PyMethodDef reader_methods[] = {
	{"get", (PyCFunction)(void (*)(void))reader_object_get, METH_FASTCALL,
	 "get($self, key, default, /)\n--\n\nThe value; default where it is not found in the server's memory, or in doubt."},
	{"get_many", (PyCFunction)reader_object_get_many, METH_O,
	 "get_many($self, keys, /)\n--\n\nA dict of what is found, and a list of the keys that are not."},
	{"flush", (PyCFunction)reader_object_flush, METH_NOARGS,
	 "flush($self, /)\n--\n\nCalls report() with what was noted since the last time."},
	{NULL, NULL, 0, NULL},
};

static PyGetSetDef reader_attributes[] = {
	{"hits", (getter)reader_object_hits, NULL, "Values that get() and get_many() found.", NULL},
	{"near_hits", (getter)reader_object_near_hits, NULL, "Those of them that the near cache had.", NULL},
	{"misses", (getter)reader_object_misses, NULL, "Those that they did not.", NULL},
	{"is_dead", (getter)reader_object_is_dead, NULL, "Whether the server was found to have ended.", NULL},
	{NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot reader_slots[] = {
	{Py_tp_doc, "Reader(memory, board, board_bytes, decode, report, near=None, /)\n--\n\n"
		    "Values of a server's cache, read from its memory. Takes both descriptors over, also where it raises: a caller\n"
		    "that is interrupted right behind this cannot tell whether they are its own still.\n"
		    "decode(kind, meta, memory) makes what is neither bytes nor str; report(hits, keys) hears of hits, in batches.\n"
		    "near is a Cache that keeps the long ones."},
	{Py_tp_new, reader_object_new},
	{Py_tp_dealloc, reader_object_dealloc},
	{Py_tp_traverse, reader_object_traverse},
	{Py_tp_clear, reader_object_clear},
	{Py_tp_methods, reader_methods},
	{Py_tp_getset, reader_attributes},
	{0, NULL},
};

static PyType_Spec reader_spec = {
	.name = "droppable._core.Reader",
	.basicsize = sizeof(ReaderObject),
	.flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE,
	.slots = reader_slots,
};

static PyObject *shared_key(PyObject *module, PyObject *object)
{
	struct key key;
	PyObject *bytes = NULL;

	if (encode(core_of_module(module), &key, object) == 0)
		bytes = PyBytes_FromStringAndSize((const char *)key.data, (Py_ssize_t)key.bytes);
	key_free(&key);
	return bytes;
}

static PyMethodDef functions[] = {
	{"shared_key", shared_key, METH_O,
	 "shared_key(key, /)\n--\n\nThe key as bytes that are the same in every process. ValueError for one that is too long for that."},
	{NULL, NULL, 0, NULL},
};

int core_add_reader(PyObject *module)
{
	PyObject *type = PyType_FromModuleAndSpec(module, &reader_spec, NULL);

	if (!type)
		return -1;
	const int added = PyModule_AddType(module, (PyTypeObject *)type);
	Py_DECREF(type);
	return added < 0 ? -1 : PyModule_AddFunctions(module, functions);
}
