/*
 * cache_update.c - methods of _core.Cache that change what is there, depending on what is there.
 *
 *   incr()        get: value, place ---- value + delta ---- store if the entry at that place is there still     else again
 *   pop()         get: value, place ------------------------ delete the entry at that place                       else again
 *   transform()   lease, get: value ---- function(value) -- store if nothing was stored or deleted since        else again
 *
 * A place names one entry for good (csrc/log/place.h), but an entry that was moved has another one: then it is done again, which costs
 * nothing for a sum, and would for a function of the caller's. No lock is held while Python code runs.
 */
#include <math.h>
#include <string.h>

#include "arguments.h"
#include "cache/lease.h"
#include "cache_object.h"
#include "cache/update.h"
#include "key.h"
#include "module.h"
#include "value.h"

/* After so many changes in a row, most of them while nobody else had the turn, it is the function itself that changes its key. */
enum { TRANSFORM_TRIES = 100 };

static double seconds_of(struct cache *cache, const struct cache_about *about)
{
	const uint64_t remaining_ns = cache_remaining_ns(cache, about);
	return remaining_ns ? (double)remaining_ns / 1e9 : INFINITY;
}

static PyObject *cache_object_touch(CacheObject *self, PyObject *const *arguments, Py_ssize_t count, PyObject *keywords)
{
	static const char *const names[] = {"key", "ttl"};
	PyObject *slots[2] = {NULL};
	struct cache *cache = cache_object_core(self);
	uint64_t ttl_ns;
	struct key key;
	int status = DRP_INVALID;

	if (!cache || read_arguments("touch", arguments, count, keywords, names, 2, slots, 2) < 0 ||
	    read_ttl(slots[1], self->default_ttl_ns, &ttl_ns) < 0)
		return NULL;
	if (key_encode(self->core, &key, slots[0]) == 0)
		status = cache_touch(cache, key.data, key.bytes, ttl_ns);
	key_free(&key);
	switch (status) {
	case DRP_OK:
		Py_RETURN_TRUE;
	case DRP_MISS:
	case DRP_REFUSED:
		Py_RETURN_FALSE;
	case DRP_INVALID:
		return NULL;
	default:
		return core_raise(status, status == DRP_CLOSED ? "this cache" : "touching this entry");
	}
}

static PyObject *cache_object_expires_in(CacheObject *self, PyObject *key_object)
{
	struct cache *cache = cache_object_core(self);
	struct cache_about about;
	struct key key;
	int status = DRP_INVALID;

	if (!cache)
		return NULL;
	if (key_encode(self->core, &key, key_object) == 0)
		status = cache_look_at(cache, key.data, key.bytes, &about);
	key_free(&key);
	if (status == DRP_OK)
		return PyFloat_FromDouble(seconds_of(cache, &about));
	if (status == DRP_MISS)
		PyErr_SetObject(PyExc_KeyError, key_object);
	return status == DRP_CLOSED ? core_raise(status, "this cache") : NULL;
}

static PyObject *cache_object_find_timed(CacheObject *self, PyObject *key_object)
{
	struct cache_about about;
	PyObject *value = NULL;
	struct key key;

	int found = key_encode(self->core, &key, key_object) < 0 ? -1 : cache_object_find_about(self, &key, &about, &value);
	key_free(&key);
	if (found > 0)
		return Py_BuildValue("Nd", value, seconds_of(self->cache, &about));
	return found == 0 ? Py_NewRef(Py_None) : NULL;
}

/* A value of item's on its way: what cache_update() says, or, in a disabled cache, what a store does there. */
static int update(CacheObject *self, const struct key *key, const struct value *value, struct cache_update *how)
{
	PyThreadState *saved = value->bytes >= GIL_RELEASE_BYTES ? PyEval_SaveThread() : NULL;
	const int status = self->is_disabled ? cache_object_accept(self, self->cache, key)
					     : cache_update(self->cache, key->data, key->bytes, &value->item, how);

	if (saved)
		PyEval_RestoreThread(saved);
	return status;
}

/* Somebody else was first, or what was read is gone. */
static bool is_overtaken(int status)
{
	return status == DRP_EXISTS || status == DRP_MISS || status == DRP_STALE;
}

static void raise_unstored(CacheObject *self, const struct value *value, int status)
{
	if (status == DRP_TOO_LARGE)
		core_raise_too_large(value->bytes, self->max_bytes);
	else
		core_raise(status, status == DRP_CLOSED ? "this cache" : "storing this value");
}

/* 1: the sum is stored, and in *sum; 0: again; -1 with an exception. */
static int add_once(CacheObject *self, PyObject *key_object, const struct key *key, PyObject *delta, PyObject *initial,
		    PyObject **sum)
{
	struct cache_update how = {.mode = SET_IF_ABSENT};
	struct cache_about about;
	PyObject *present = NULL;
	struct value value;
	int result = -1;

	const int found = cache_object_find_about(self, key, &about, &present);
	if (found < 0)
		return -1;
	if (found == 0 && initial == Py_None) {
		core_raise_absent(key_object, "incr(): nothing is stored for this key; initial= says where to begin");
		return -1;
	}
	if (found > 0 && !PyLong_CheckExact(present)) {
		PyErr_Format(PyExc_TypeError, "incr() counts in int, and the value of %R is of type %s: use transform()", key_object,
			     Py_TYPE(present)->tp_name);
		Py_DECREF(present);
		return -1;
	}
	if (found > 0)
		how = (struct cache_update){.mode = SET_IF_SAME, .place = about.place, .keep_expiry = true};
	*sum = PyNumber_Add(found > 0 ? present : initial, delta);
	Py_XDECREF(present);
	if (!*sum)
		return -1;
	if (cache_object_read_item(self, &value, *sum, NULL, NULL) == 0) {
		const int status = update(self, key, &value, &how);
		result = status == DRP_OK ? 1 : is_overtaken(status) ? 0 : -1;
		if (result < 0)
			raise_unstored(self, &value, status);
	}
	value_free(&value);
	if (result <= 0)
		Py_CLEAR(*sum);
	return result;
}

/* An int as it is, not of a subclass, whose methods would be called. A new reference. */
static PyObject *read_int(PyObject *object, const char *name)
{
	PyObject *index = PyBool_Check(object) ? NULL : PyNumber_Index(object);

	if (!index && (PyBool_Check(object) || PyErr_ExceptionMatches(PyExc_TypeError)))
		PyErr_Format(PyExc_TypeError, "%s must be an int; you gave %R", name, object);
	return index;
}

static PyObject *cache_object_incr(CacheObject *self, PyObject *const *arguments, Py_ssize_t count, PyObject *keywords)
{
	static const char *const names[] = {"key", "delta", "initial"};
	PyObject *slots[3] = {NULL}, *sum = NULL;
	struct key key;
	int done = -1;

	if (!cache_object_core(self) || read_arguments("incr", arguments, count, keywords, names, 1, slots, 3) < 0)
		return NULL;
	PyObject *delta = slots[1] ? read_int(slots[1], "delta") : PyLong_FromLong(1);
	PyObject *initial = slots[2] && slots[2] != Py_None ? read_int(slots[2], "initial") : Py_NewRef(Py_None);
	key.data = key.inline_data; /* for key_free() */
	if (delta && initial && key_encode(self->core, &key, slots[0]) == 0)
		do
			done = turn_await(&self->turn, key.data, key.bytes) < 0 ? -1 : add_once(self, slots[0], &key, delta, initial, &sum);
		while (done == 0);
	key_free(&key);
	Py_XDECREF(delta);
	Py_XDECREF(initial);
	return done > 0 ? sum : NULL;
}

struct transform {
	PyObject *key_object, *function, *fallback, *ttl; /* fallback, ttl: NULL or None, if not given */
	PyObject *lease;
	PyObject *result; /* what a hit would give */
};

/* Of a value that was stored at a place a moment ago, what a get gives: where it went already, the value itself. */
static PyObject *own_value(CacheObject *self, const struct key *key, PyObject *value, uint64_t place)
{
	struct cache_about about;
	PyObject *own;

	if (PyBytes_CheckExact(value) || PyUnicode_CheckExact(value) || PyLong_CheckExact(value) || value == Py_None)
		return Py_NewRef(value);
	const int found = cache_object_find_about(self, key, &about, &own);
	if (found > 0 && about.place == place)
		return own;
	if (found > 0)
		Py_DECREF(own);
	return found < 0 ? NULL : Py_NewRef(value);
}

/* 1: it is stored; 0: again; -1 with an exception. */
static int transform_once(CacheObject *self, const struct key *key, struct transform *transform)
{
	struct cache_update how = {.mode = SET_IF_ABSENT, .is_strict = true};
	PyObject *old = NULL;
	struct value value;
	int result = -1;

	PyObject *encoded = key_as_object(key);
	transform->lease = encoded ? cache_object_lease(self, encoded) : NULL;
	Py_XDECREF(encoded);
	if (!transform->lease)
		return -1;
	how.lease = lease_of(transform->lease);
	const int found = cache_object_find_about(self, key, NULL, &old);
	if (found == 0 && !transform->fallback)
		core_raise_absent(transform->key_object,
				  "transform(): nothing is stored for this key; default= says what to begin with");
	if (found < 0 || (found == 0 && !transform->fallback))
		return -1;
	if (found > 0) { /* what was dropped since was not there to be changed, nor is its expiry to be kept */
		how.mode = SET_IF_PRESENT;
		how.keep_expiry = !transform->ttl || transform->ttl == Py_None;
	}
	PyObject *new = PyObject_CallOneArg(transform->function, found > 0 ? old : transform->fallback);
	Py_XDECREF(old);
	if (!new)
		return -1;
	if (cache_object_read_item(self, &value, new, transform->ttl, NULL) == 0) {
		const int status = update(self, key, &value, &how);
		result = status == DRP_OK ? 1 : is_overtaken(status) ? 0 : -1;
		if (result < 0)
			raise_unstored(self, &value, status);
	}
	if (result > 0)
		transform->result = own_value(self, key, new, how.new_place);
	value_free(&value);
	Py_DECREF(new);
	return result > 0 && !transform->result ? -1 : result;
}

static PyObject *cache_object_transform(CacheObject *self, PyObject *const *arguments, Py_ssize_t count, PyObject *keywords)
{
	static const char *const names[] = {"key", "function", "default", "ttl"};
	PyObject *slots[4] = {NULL};
	struct key key;
	int done = -1;

	if (!cache_object_core(self) || read_arguments("transform", arguments, count, keywords, names, 2, slots, 4) < 0)
		return NULL;
	if (!PyCallable_Check(slots[1]))
		return PyErr_Format(PyExc_TypeError, "function must be callable with the old value; you gave %R", slots[1]);
	struct transform of = {slots[0], slots[1], slots[2], slots[3], NULL, NULL};
	unsigned overtaken = 0;
	uint64_t turn = 0;
	if (key_encode(self->core, &key, slots[0]) == 0)
		do {
			done = turn_next_try(&self->turn, key.data, key.bytes, overtaken, &turn);
			if (done == 0)
				done = transform_once(self, &key, &of);
			Py_CLEAR(of.lease); /* ends it */
		} while (done == 0 && ++overtaken < TRANSFORM_TRIES);
	turn_give_back(&self->turn, turn);
	key_free(&key);
	if (done == 0)
		PyErr_Format(PyExc_RuntimeError, "transform: %R was changed each of the %d times that function ran: does it change it itself?",
			     slots[0], TRANSFORM_TRIES);
	return done > 0 ? of.result : NULL;
}

/* For a change that Python code makes, of a cache with a lower tier. */
static PyObject *cache_object_next_try(CacheObject *self, PyObject *const *arguments, Py_ssize_t count)
{
	uint64_t overtaken, turn;
	struct key key;

	if (count != 3)
		return PyErr_Format(PyExc_TypeError, "_next_try() takes a key, how often it was overtaken, and its turn");
	if (read_unsigned(arguments[1], "overtaken", UINT_MAX, &overtaken) < 0 || read_unsigned(arguments[2], "turn", UINT64_MAX, &turn) < 0)
		return NULL;
	const bool ready = key_encode(self->core, &key, arguments[0]) == 0 &&
			   turn_next_try(&self->turn, key.data, key.bytes, (unsigned)overtaken, &turn) == 0;
	key_free(&key);
	return ready ? PyLong_FromUnsignedLongLong(turn) : NULL;
}

static PyObject *cache_object_end_turn(CacheObject *self, PyObject *turn_object)
{
	uint64_t turn;

	if (read_unsigned(turn_object, "turn", UINT64_MAX, &turn) < 0)
		return NULL;
	turn_give_back(&self->turn, turn);
	Py_RETURN_NONE;
}

/* The key is encoded once: one that is another each time would never be both found and deleted. */
static PyObject *cache_object_pop(CacheObject *self, PyObject *const *arguments, Py_ssize_t count, PyObject *keywords)
{
	static const char *const names[] = {"key", "default"};
	PyObject *slots[2] = {NULL}, *result;
	int found = -1, gone = 0;
	struct cache_about about;
	struct key key;

	if (read_arguments("pop", arguments, count, keywords, names, 1, slots, 2) < 0)
		return NULL;
	if (key_encode(self->core, &key, slots[0]) == 0)
		while ((found = cache_object_find_about(self, &key, &about, &result)) > 0 &&
		       (gone = cache_object_forgotten(cache_delete(self->cache, key.data, key.bytes, about.place))) == 0)
			Py_DECREF(result); /* replaced, moved or taken meanwhile: look again */
	if (found == 0) /* computations of it are out of date; what somebody stored a moment ago stays */
		gone = cache_object_forgotten(cache_revoke(self->cache, key.data, key.bytes));
	key_free(&key);
	if (found > 0 && gone < 0)
		Py_DECREF(result);
	if (found != 0 || gone < 0)
		return found > 0 && gone > 0 ? result : NULL;
	if (!slots[1])
		PyErr_SetObject(PyExc_KeyError, slots[0]);
	return Py_XNewRef(slots[1]);
}

PyMethodDef cache_update_methods[] = {
	{"touch", CORE_FAST(cache_object_touch),
	 "touch($self, key, ttl)\n--\n\n"
	 "Gives an entry a new time to live, from now on. True if it was there; False if it was not, or if there is no\n"
	 "memory for it: then it stays as it was.\n\n"
	 "The value is not copied, whatever its size, and computations of the key go on: nothing about the value changed.\n\n"
	 "Args:\n"
	 "    key: as for get().\n"
	 "    ttl: seconds, a timedelta, or NEVER; None: the cache's default.\n\n"
	 "Raises:\n    TypeError, ValueError: ttl is no time of more than 0.\n    ClosedError."},
	{"expires_in", (PyCFunction)cache_object_expires_in, METH_O,
	 "expires_in($self, key, /)\n--\n\n"
	 "Seconds until the entry expires; NEVER, if it does not. Of a large value one byte of each page is looked at.\n\n"
	 "Raises:\n    KeyError: there is no such value now.\n    ClosedError."},
	{"incr", CORE_FAST(cache_object_incr),
	 "incr($self, key, delta=1, initial=None)\n--\n\n"
	 "Adds delta to an int and returns the sum. The entry expires when it would have.\n\n"
	 "Several threads may count at once, and none is lost. A process that forked counts for itself. A count is a cached\n"
	 "value: it can be dropped, and starts again.\n\n"
	 "Args:\n"
	 "    key: as for get().\n"
	 "    delta: an int of any size, also a negative one.\n"
	 "    initial: what to begin with where there is no such value: initial + delta is stored, with the cache's ttl.\n\n"
	 "Raises:\n"
	 "    KeyError: there is no such value now, and no initial.\n"
	 "    TypeError: the value is no int (a bool is none), or delta or initial is none.\n"
	 "    RefusedError: there is no memory for the new value; the old one stays.\n    ClosedError."},
	{"transform", CORE_FAST(cache_object_transform),
	 "transform($self, key, function, default=..., ttl=None)\n--\n\n"
	 "Puts function(value) in the place of a value, and returns it as a get would.\n\n"
	 "function runs without a lock. If somebody set or deleted the key meanwhile, in any thread, it runs again with what\n"
	 "is there then: it should have no effect but its result, and must not change the key itself. If it raises,\n"
	 "nothing changes. In a child forked meanwhile it runs again, too. After ten runs in vain, other threads' transform() and\n"
	 "incr() of the key wait for this one, for up to five seconds.\n\n"
	 "Args:\n"
	 "    key: as for get().\n"
	 "    function: called with the value, as get() gives it.\n"
	 "    default: what function gets where there is no such value now.\n"
	 "    ttl: seconds, a timedelta, or NEVER; None: the entry expires when it would have, and a new one by the cache's ttl.\n\n"
	 "Raises:\n"
	 "    KeyError: there is no such value now, and no default.\n"
	 "    RefusedError, ValueTooLargeError, TypeError: the result cannot be stored; the old value stays.\n"
	 "    RuntimeError: the key was changed each of a hundred times: by function itself, or by set() and delete().\n"
	 "    ClosedError; whatever function raises."},
	{"pop", CORE_FAST(cache_object_pop),
	 "pop($self, key, /, default=...)\n--\n\n"
	 "Takes the value of key out of the cache and returns it; default, or KeyError, when it is not there."},
	{"_next_try", (PyCFunction)(void (*)(void))cache_object_next_try, METH_FASTCALL,
	 "_next_try($self, key, overtaken, turn, /)\n--\n\n"
	 "Before a try to change a key, so many of which others overtook: waits while it is another change's turn. Gives this\n"
	 "one's turn, or 0."},
	{"_end_turn", (PyCFunction)cache_object_end_turn, METH_O,
	 "_end_turn($self, turn, /)\n--\n\nGives back what _next_try() gave."},
	{"_find", (PyCFunction)cache_object_find_timed, METH_O,
	 "_find($self, key, /)\n--\n\n(value, seconds until it expires), or None at a miss."},
	{NULL, NULL, 0, NULL},
};
