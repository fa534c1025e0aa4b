/*
 * memo.c - droppable.Memo: a function with a cache in front of it, so that a hit is one call in C. See memo.h. The decorator
 * that makes it is in src/droppable/_memo.py.
 *
 * What stands in `__dict__` (__wrapped__, __name__, ...) comes from functools.update_wrapper(). Callers: Python.
 */
#include "memo.h"

#include <string.h>

#include "cache/update.h"
#include "droppable.h"

#include <structmember.h>

enum { HEAVY_SELF_BYTES = 64 * 1024 };

/* Under a GIL nobody else counts between the two, and a locked instruction would cost as much as a fifth of a hit. */
static inline void count_one(_Atomic(unsigned long long) *count)
{
#ifdef Py_GIL_DISABLED
	atomic_fetch_add_explicit(count, 1, memory_order_relaxed);
#else
	atomic_store_explicit(count, atomic_load_explicit(count, memory_order_relaxed) + 1, memory_order_relaxed);
#endif
}

/* keeper.name(memo, first, ...), or without `first`, where that is NULL: the arguments as they came. */
static PyObject *call_keeper(MemoObject *self, PyObject *function, PyObject *first, PyObject *const *arguments, size_t count,
			     PyObject *keywords)
{
	const size_t total = count + (keywords ? (size_t)PyTuple_GET_SIZE(keywords) : 0);
	PyObject *inline_stack[2 + MEMO_INLINE_ARGUMENTS], **stack = inline_stack;

	if (total > MEMO_INLINE_ARGUMENTS) {
		stack = PyMem_New(PyObject *, total + 2);
		if (!stack)
			return PyErr_NoMemory();
	}
	stack[0] = (PyObject *)self;
	stack[1] = first;
	if (total > 0)
		memcpy(stack + 2, arguments, total * sizeof(*stack));
	PyObject *result = PyObject_Vectorcall(function, stack, count + 2, keywords);
	if (stack != inline_stack)
		PyMem_Free(stack);
	return result;
}

static PyObject *call_keeper_method(MemoObject *self, const char *name, PyObject *first, PyObject *const *arguments,
				    size_t count, PyObject *keywords)
{
	PyObject *function = PyObject_GetAttrString(self->keeper, name);
	PyObject *result = function ? call_keeper(self, function, first, arguments, count, keywords) : NULL;
	Py_XDECREF(function);
	return result;
}

/*
 * The arguments make no key, with a TypeError: the keeper raises one that names the argument and says what to do. It does
 * nothing where the exception is not the argument's fault, and the first one is raised then.
 */
static void explain(MemoObject *self, PyObject *const *arguments, size_t count, PyObject *keywords)
{
	PyObject *type, *error, *traceback;

	if (!PyErr_ExceptionMatches(PyExc_TypeError))
		return;
	PyErr_Fetch(&type, &error, &traceback);
	PyErr_NormalizeException(&type, &error, &traceback);
	if (traceback)
		PyException_SetTraceback(error, traceback);
	PyObject *nothing = call_keeper_method(self, "explain", error, arguments, count, keywords);
	if (!nothing) {
		Py_XDECREF(type);
		Py_XDECREF(error);
		Py_XDECREF(traceback);
		return;
	}
	Py_DECREF(nothing);
	PyErr_Restore(type, error, traceback);
}

/* The key was made from much: if most is self's, that is told, once. 0, or -1 with an exception. */
static int weigh_self(MemoObject *self, PyObject *const *arguments, size_t count)
{
	struct key key;

	if (count == 0 || self->key || self->self_is != SELF_VALUE)
		return 0;
	int result = key_encode(self->core, &key, arguments[0]);
	const size_t bytes = key.hashed_bytes;
	key_free(&key);
	if (result < 0 || bytes <= HEAVY_SELF_BYTES || !atomic_exchange(&self->watches_self, false))
		return result;
	PyObject *nothing = PyObject_CallMethod(self->keeper, "tell_heavy", "On", arguments[0], (Py_ssize_t)bytes);
	Py_XDECREF(nothing);
	return nothing ? 0 : -1;
}

PyObject *memo_make_key(MemoObject *self, PyObject *const *arguments, size_t count, PyObject *keywords)
{
	PyObject *key = PyObject_Vectorcall(self->key, arguments, count, keywords);

	/* If no frame of it was entered, it does not take what the function is called with. */
	if (!key && !self->binds && PyErr_ExceptionMatches(PyExc_TypeError)) {
		PyObject *type, *error, *traceback;
		PyErr_Fetch(&type, &error, &traceback);
		PyErr_NormalizeException(&type, &error, &traceback);
		PyObject *nothing = traceback ? NULL : PyObject_CallMethod(self->keeper, "note_key_call", "O", error);
		if (!nothing)
			PyErr_Clear(); /* the error itself matters more than its note */
		Py_XDECREF(nothing);
		PyErr_Restore(type, error, traceback);
	}
	return key;
}

/* The key is what a function makes of the arguments. */
static int encode_by_key(MemoObject *self, struct key *key, PyObject *const *arguments, size_t count, PyObject *keywords,
			 uint64_t scope)
{
	key->data = key->inline_data; /* for key_free() */
	PyObject *object = memo_make_key(self, arguments, count, keywords);
	int result = object ? key_encode_scoped(self->core, key, object, scope) : -1;
	if (object && result < 0 && !self->binds)
		explain(self, &object, 1, NULL);
	Py_XDECREF(object);
	return result;
}

/* As key_encode_call(), but for the scope; for a namespace's functions that are plain else. */
static int encode_plain(MemoObject *self, struct key *key, PyObject *const *arguments, size_t count, PyObject *keywords,
			uint64_t scope)
{
	return key_encode_call(self->core, key, arguments, count, keywords, self->by_name, scope, 0, NULL);
}

int memo_scope(MemoObject *self, uint64_t *scope)
{
	if (!self->asks_scope) {
		*scope = memo_own_scope(self);
		return 0;
	}
	PyObject *bytes = PyObject_CallMethod(self->keeper, "scope", NULL);
	int result = bytes ? key_read_scope(bytes, scope) : -1;
	Py_XDECREF(bytes);
	return result;
}

static inline int encode_otherwise(MemoObject *self, struct key *key, PyObject *const *arguments, size_t count,
				   PyObject *keywords)
{
	uint64_t scope;

	if (memo_scope(self, &scope) < 0) {
		key->data = key->inline_data; /* for key_free() */
		return -1;
	}
	return self->encode(self, key, arguments, count, keywords, scope);
}

/* There is no key, or a large one. 0, or -1 with an exception. */
__attribute__((noinline)) static int look_closer(MemoObject *self, int result, PyObject *const *arguments, size_t count,
						 PyObject *keywords)
{
	if (result == 0)
		return atomic_load(&self->watches_self) ? weigh_self(self, arguments, count) : 0;
	if (!self->key || self->binds)
		explain(self, arguments, count, keywords);
	return -1;
}

/* As key_encode_call(). */
__attribute__((always_inline)) static inline int encode(MemoObject *self, struct key *key, PyObject *const *arguments,
							size_t count, PyObject *keywords)
{
	int result = self->encode ? encode_otherwise(self, key, arguments, count, keywords)
				  : key_encode_call(self->core, key, arguments, count, keywords, self->by_name,
						    memo_own_scope(self), 0, NULL);
	if (result < 0 || key->hashed_bytes > HEAVY_SELF_BYTES)
		result = look_closer(self, result, arguments, count, keywords);
	return result;
}

/* Whether what was found is older than its time to live, and given out only until somebody has computed it anew. */
static bool is_stale(MemoObject *self, const struct cache_about *about)
{
	const uint64_t remaining_ns = cache_remaining_ns(((CacheObject *)self->cache)->cache, about);

	return remaining_ns > 0 && remaining_ns <= self->stale_ns;
}

/* As cache_object_find(), counted; 2: *result is stale. */
static inline int find(MemoObject *self, const struct key *key, PyObject **result)
{
	struct cache_about about;
	int found = cache_object_find(self->cache, key, self->copies, self->stale_ns > 0 ? &about : NULL, result);

	if (found >= 0)
		count_one(found > 0 ? &self->hits : &self->misses);
	return found > 0 && self->stale_ns > 0 && is_stale(self, &about) ? 2 : found;
}

/* keeper.renew(memo, (key, old), ...). Takes over the reference to old. */
__attribute__((noinline)) static PyObject *renew(MemoObject *self, const struct key *key, PyObject *old,
						 PyObject *const *arguments, size_t count, PyObject *keywords)
{
	PyObject *encoded = key_as_object(key);
	PyObject *both = encoded ? PyTuple_Pack(2, encoded, old) : NULL;
	PyObject *result = both ? call_keeper_method(self, "renew", both, arguments, count, keywords) : NULL;

	Py_XDECREF(both);
	Py_XDECREF(encoded);
	Py_DECREF(old);
	return result;
}

__attribute__((always_inline)) static inline PyObject *call(MemoObject *self, PyObject *const *arguments, size_t count,
							    PyObject *keywords)
{
	PyObject *result = NULL;
	struct key key;

	int found = encode(self, &key, arguments, count, keywords);
	if (found == 0 && self->looks_up)
		found = find(self, &key, &result);
	if (found == 2)
		result = renew(self, &key, result, arguments, count, keywords);
	PyObject *encoded = found == 0 ? key_as_object(&key) : NULL;
	key_free(&key);
	if (encoded) {
		result = call_keeper(self, self->miss, encoded, arguments, count, keywords);
		Py_DECREF(encoded);
	}
	return result;
}

PyObject *memo_call_arguments(MemoObject *self, PyObject *const *arguments, size_t count, PyObject *keywords)
{
	return call(self, arguments, count, keywords);
}

static PyObject *memo_call(PyObject *self, PyObject *const *arguments, size_t flagged_count, PyObject *keywords)
{
	return call((MemoObject *)self, arguments, (size_t)PyVectorcall_NARGS(flagged_count), keywords);
}

/* Whether it is a _core.Cache, which look-ups here need; an exception is set where it is none. */
static bool is_of_this_process(struct core_state *core, PyObject *cache)
{
	if (PyObject_TypeCheck(cache, core->cache_type))
		return true;
	PyErr_Format(PyExc_TypeError, "a Memo that looks up needs a Cache; you gave one of type %s", Py_TYPE(cache)->tp_name);
	return false;
}

static PyObject *memo_new(PyTypeObject *type, PyObject *arguments, PyObject *keywords)
{
	static char *names[] = {"cache", "keeper", "key", "self_is", "identity", "looks_up", "by_name", "binds",
				"watches_self", "copies", "stale_seconds", "asks_scope", "scope", NULL};
	struct core_state *core = core_of_type(type);
	PyObject *cache, *keeper, *key, *identity, *scope_object;
	int self_is, looks_up, by_name, binds, watches_self, copies, asks_scope;
	double stale_seconds;
	uint64_t scope;

	if (!core || !PyArg_ParseTupleAndKeywords(arguments, keywords, "OOOiOpppppdpO", names, &cache, &keeper, &key, &self_is,
						 &identity, &looks_up, &by_name, &binds, &watches_self, &copies,
						 &stale_seconds, &asks_scope, &scope_object) ||
	    key_read_scope(scope_object, &scope) < 0 || ((looks_up || self_is != SELF_VALUE) && !is_of_this_process(core, cache)))
		return NULL;
	MemoObject *self = (MemoObject *)type->tp_alloc(type, 0);
	if (!self)
		return NULL;
	self->vectorcall = memo_call;
	self->cache = Py_NewRef(cache);
	self->keeper = Py_NewRef(keeper);
	self->miss = PyObject_GetAttrString(keeper, "miss");
	self->key = key == Py_None ? NULL : Py_NewRef(key);
	self->identity = identity == Py_None ? NULL : Py_NewRef(identity);
	self->core = core;
	self->self_is = (enum memo_self)self_is;
	self->looks_up = looks_up;
	self->by_name = by_name;
	self->binds = binds;
	self->copies = copies;
	self->stale_ns = stale_seconds < 9e9 ? (uint64_t)(stale_seconds * 1e9) : UINT64_MAX;
	self->encode = memo_self_encoder(self);
	if (!self->encode && self->key)
		self->encode = encode_by_key;
	self->asks_scope = asks_scope;
	if (!self->encode && asks_scope)
		self->encode = encode_plain;
	atomic_init(&self->hits, 0);
	atomic_init(&self->misses, 0);
	atomic_init(&self->scope, scope);
	atomic_init(&self->watches_self, watches_self);
	if (!self->miss)
		Py_CLEAR(self);
	return (PyObject *)self;
}

static int memo_traverse(MemoObject *self, visitproc visit, void *arg)
{
	Py_VISIT(Py_TYPE(self));
	Py_VISIT(self->cache);
	Py_VISIT(self->keeper);
	Py_VISIT(self->miss);
	Py_VISIT(self->key);
	Py_VISIT(self->identity);
	Py_VISIT(self->owner);
	Py_VISIT(self->dict);
	return 0;
}

/* None instead of NULL: what is still called while a cycle is taken apart raises TypeError. The cache clears itself. */
static int memo_clear(MemoObject *self)
{
	Py_CLEAR(self->dict);
	Py_CLEAR(self->owner);
	Py_XSETREF(self->keeper, Py_NewRef(Py_None));
	Py_XSETREF(self->miss, Py_NewRef(Py_None));
	if (self->key)
		Py_SETREF(self->key, Py_NewRef(Py_None));
	if (self->identity)
		Py_SETREF(self->identity, Py_NewRef(Py_None));
	return 0;
}

static void memo_dealloc(MemoObject *self)
{
	PyTypeObject *type = Py_TYPE(self);

	PyObject_GC_UnTrack(self);
	if (self->weak_references)
		PyObject_ClearWeakRefs((PyObject *)self);
	(void)memo_clear(self);
	Py_XDECREF(self->cache);
	Py_XDECREF(self->keeper);
	Py_XDECREF(self->miss);
	Py_XDECREF(self->key);
	Py_XDECREF(self->identity);
	type->tp_free(self);
	Py_DECREF(type);
}

/* A method, as of any function. */
static PyObject *memo_descr_get(PyObject *self, PyObject *instance, PyObject *owner)
{
	(void)owner;
	return !instance || instance == Py_None ? Py_NewRef(self) : memo_bind(self, instance);
}

/* Called once the class is made that the function was defined in. Of two such classes the first counts. */
static PyObject *memo_set_name(MemoObject *self, PyObject *const *arguments, Py_ssize_t count)
{
	if (count != 2) {
		PyErr_SetString(PyExc_TypeError, "__set_name__() takes a class and a name");
		return NULL;
	}
	if (!self->owner)
		self->owner = Py_NewRef(arguments[0]);
	Py_RETURN_NONE;
}

/* A new reference to the encoded key of a call, or NULL with an exception. */
static PyObject *encoded_key_of(MemoObject *self, PyObject *const *arguments, size_t count, PyObject *keywords)
{
	struct key key;
	PyObject *encoded = encode(self, &key, arguments, count, keywords) == 0 ? key_as_object(&key) : NULL;
	key_free(&key);
	return encoded;
}

PyObject *memo_cache_key(MemoObject *self, PyObject *const *arguments, size_t count, PyObject *keywords)
{
	if (self->asks_scope || memo_own_scope(self) != SCOPE_NONE)
		return encoded_key_of(self, arguments, count, keywords);
	if (self->self_is != SELF_VALUE)
		return memo_self_key(self, arguments, count, keywords);
	if (self->key)
		return memo_make_key(self, arguments, count, keywords);
	return key_of_call(arguments, count, keywords, self->by_name, 0, NULL);
}

PyObject *memo_invalidate(MemoObject *self, PyObject *const *arguments, size_t count, PyObject *keywords)
{
	PyObject *encoded = encoded_key_of(self, arguments, count, keywords);
	PyObject *was_there = encoded ? PyObject_CallMethod(self->cache, "discard", "O", encoded) : NULL;
	Py_XDECREF(encoded);
	return was_there;
}

PyObject *memo_refresh(MemoObject *self, PyObject *const *arguments, size_t count, PyObject *keywords)
{
	PyObject *encoded = encoded_key_of(self, arguments, count, keywords);
	PyObject *result = encoded ? call_keeper_method(self, "refresh", encoded, arguments, count, keywords) : NULL;
	Py_XDECREF(encoded);
	return result;
}

static PyObject *call_cache_key(MemoObject *self, PyObject *const *arguments, Py_ssize_t count, PyObject *keywords)
{
	return memo_cache_key(self, arguments, (size_t)count, keywords);
}

static PyObject *call_invalidate(MemoObject *self, PyObject *const *arguments, Py_ssize_t count, PyObject *keywords)
{
	return memo_invalidate(self, arguments, (size_t)count, keywords);
}

static PyObject *call_refresh(MemoObject *self, PyObject *const *arguments, Py_ssize_t count, PyObject *keywords)
{
	return memo_refresh(self, arguments, (size_t)count, keywords);
}

/* From now on its keys are others: what is under the old ones is found by nobody any more. */
static PyObject *memo_set_scope(MemoObject *self, PyObject *scope_object)
{
	uint64_t scope;

	if (key_read_scope(scope_object, &scope) < 0)
		return NULL;
	atomic_store(&self->scope, scope);
	Py_RETURN_NONE;
}

static PyObject *memo_get_scope(MemoObject *self, PyObject *unused)
{
	const uint64_t scope = memo_own_scope(self);

	(void)unused;
	if (scope == SCOPE_NONE)
		Py_RETURN_NONE;
	return PyBytes_FromStringAndSize((const char *)&scope, sizeof(scope));
}

/* (value, whether it is stale) under an encoded key, counted as a hit; None, counted as a miss. For coroutine functions. */
static PyObject *memo_look_up(MemoObject *self, PyObject *encoded)
{
	PyObject *value = NULL;
	struct key key;

	if (!is_of_this_process(self->core, self->cache))
		return NULL;
	int found = key_encode(self->core, &key, encoded);
	if (found == 0)
		found = find(self, &key, &value);
	key_free(&key);
	if (found < 0)
		return NULL;
	return found > 0 ? Py_BuildValue("NO", value, found == 2 ? Py_True : Py_False) : Py_NewRef(Py_None);
}

/* Whether a result is there under an encoded key that is not stale. Nothing is counted. */
static PyObject *memo_has_fresh(MemoObject *self, PyObject *encoded)
{
	struct cache *cache = is_of_this_process(self->core, self->cache) ? cache_object_core((CacheObject *)self->cache) : NULL;
	struct cache_about about;
	struct key key;

	if (!cache)
		return NULL;
	int status = key_encode(self->core, &key, encoded) < 0 ? DRP_INVALID
							      : cache_look_at(cache, key.data, key.bytes, &about);
	key_free(&key);
	if (status == DRP_CLOSED)
		return core_raise(DRP_CLOSED, "this cache");
	return PyErr_Occurred() ? NULL : PyBool_FromLong(status == DRP_OK && !is_stale(self, &about));
}

/* A keeper that looks up by itself has found something, or not. */
static PyObject *memo_count(MemoObject *self, PyObject *is_hit)
{
	count_one(Py_IsTrue(is_hit) ? &self->hits : &self->misses);
	Py_RETURN_NONE;
}

static PyObject *memo_counts(MemoObject *self, PyObject *unused)
{
	(void)unused;
	return Py_BuildValue("KK", atomic_load(&self->hits), atomic_load(&self->misses));
}

static PyObject *memo_cache_info(MemoObject *self, PyObject *unused)
{
	(void)unused;
	return PyObject_CallMethod(self->keeper, "info", "O", self);
}

static PyObject *memo_cache_parameters(MemoObject *self, PyObject *unused)
{
	(void)unused;
	return PyObject_CallMethod(self->keeper, "parameters", NULL);
}

static PyObject *memo_cache_clear(MemoObject *self, PyObject *unused)
{
	(void)unused;
	PyObject *nothing = PyObject_CallMethod(self->keeper, "clear", "O", self);
	if (nothing) {
		atomic_store(&self->hits, 0);
		atomic_store(&self->misses, 0);
	}
	return nothing;
}

/* By name, as functions are: processes of a pool find it in their own module, with a cache of their own. */
static PyObject *memo_reduce(PyObject *self, PyObject *unused)
{
	(void)unused;
	return PyObject_GetAttrString(self, "__qualname__");
}

#define FAST(function) (PyCFunction)(void (*)(void))(function)

static PyMethodDef memo_methods[] = {
	{"cache_info", (PyCFunction)memo_cache_info, METH_NOARGS,
	 "cache_info($self, /)\n--\n\n"
	 "Hits, misses, bound in bytes and entries: a CacheInfo. Hits and misses are this function's alone, and each call is\n"
	 "one of the two."},
	{"cache_clear", (PyCFunction)memo_cache_clear, METH_NOARGS,
	 "cache_clear($self, /)\n--\n\n"
	 "Forgets all results of this function and counts from 0 again. What is computed meanwhile is returned, not kept."},
	{"cache_parameters", (PyCFunction)memo_cache_parameters, METH_NOARGS,
	 "cache_parameters($self, /)\n--\n\nWhat the decorator was given, as a new dict: maxsize, typed and so on."},
	{"cache_key", FAST(call_cache_key), METH_FASTCALL | METH_KEYWORDS,
	 "cache_key($self, /, *args, **kwargs)\n--\n\nThe key in `cache` under which the result for these arguments is kept."},
	{"invalidate", FAST(call_invalidate), METH_FASTCALL | METH_KEYWORDS,
	 "invalidate($self, /, *args, **kwargs)\n--\n\n"
	 "Forgets the result for these arguments: True if there was one. What is computed for them meanwhile is returned to\n"
	 "those who wait for it, and not kept; later callers compute anew."},
	{"discard", FAST(call_invalidate), METH_FASTCALL | METH_KEYWORDS,
	 "discard($self, /, *args, **kwargs)\n--\n\nAs invalidate()."},
	{"refresh", FAST(call_refresh), METH_FASTCALL | METH_KEYWORDS,
	 "refresh($self, /, *args, **kwargs)\n--\n\n"
	 "Computes the result for these arguments now, stores it in place of what was there, and returns it: a coroutine, for\n"
	 "a coroutine function. Until then others get the old one. An exception reaches the caller and changes nothing."},
	{"__set_name__", FAST(memo_set_name), METH_FASTCALL, NULL},
	{"__reduce__", memo_reduce, METH_NOARGS, NULL},
	{"__class_getitem__", Py_GenericAlias, METH_O | METH_CLASS, NULL},
	{"_look_up", (PyCFunction)memo_look_up, METH_O, NULL},
	{"_has_fresh", (PyCFunction)memo_has_fresh, METH_O, NULL},
	{"_count", (PyCFunction)memo_count, METH_O, NULL},
	{"_counts", (PyCFunction)memo_counts, METH_NOARGS, NULL},
	{"_scope", (PyCFunction)memo_get_scope, METH_NOARGS, NULL},
	{"_set_scope", (PyCFunction)memo_set_scope, METH_O, NULL},
	{NULL, NULL, 0, NULL},
};

static PyMemberDef memo_members[] = {
	{"cache", T_OBJECT_EX, offsetof(MemoObject, cache), READONLY,
	 "The cache behind it, for what this object does not offer itself."},
	{"__vectorcalloffset__", T_PYSSIZET, offsetof(MemoObject, vectorcall), READONLY, NULL},
	{"__dictoffset__", T_PYSSIZET, offsetof(MemoObject, dict), READONLY, NULL},
	{"__weaklistoffset__", T_PYSSIZET, offsetof(MemoObject, weak_references), READONLY, NULL},
	{NULL, 0, 0, 0, NULL},
};

static PyObject *memo_repr(PyObject *self)
{
	PyObject *module = PyObject_GetAttrString(self, "__module__");
	PyObject *name = module ? PyObject_GetAttrString(self, "__qualname__") : NULL;
	PyObject *text = name ? PyUnicode_FromFormat("<droppable.Memo of %S.%S>", module, name) : NULL;
	Py_XDECREF(name);
	Py_XDECREF(module);
	return text;
}

static PyGetSetDef memo_attributes[] = {
	{"__dict__", PyObject_GenericGetDict, PyObject_GenericSetDict, NULL, NULL},
	{NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot memo_slots[] = {
	{Py_tp_doc,
	 "A function with a cache in front of it; what `@droppable.cache` makes. Works on methods as on functions.\n\n"
	 "Results are looked up by the arguments, by type and value (`1`, `1.0` and `True` are three keys), keyword\n"
	 "arguments in any order, unless the function takes `**kwargs` and can see it. A method's `self` is one of them: by\n"
	 "value, as pickle sees it, so that the cache keeps no object alive and sees when it has changed; or by what\n"
	 "`self_key=` says.\n\n"
	 "Any thread may call it; one computes, the others wait. Calls from within the function to itself are fine."},
	{Py_tp_new, memo_new},
	{Py_tp_call, PyVectorcall_Call},
	{Py_tp_dealloc, memo_dealloc},
	{Py_tp_repr, memo_repr},
	{Py_tp_traverse, memo_traverse},
	{Py_tp_clear, memo_clear},
	{Py_tp_descr_get, memo_descr_get},
	{Py_tp_methods, memo_methods},
	{Py_tp_members, memo_members},
	{Py_tp_getset, memo_attributes},
	{0, NULL},
};

static PyType_Spec memo_spec = {
	.name = "droppable.Memo",
	.basicsize = sizeof(MemoObject),
	.flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_HAVE_VECTORCALL | Py_TPFLAGS_METHOD_DESCRIPTOR |
		 Py_TPFLAGS_IMMUTABLETYPE,
	.slots = memo_slots,
};

int core_add_memo(PyObject *module)
{
	PyObject *type = PyType_FromModuleAndSpec(module, &memo_spec, NULL);

	core_of_module(module)->memo_type = (PyTypeObject *)type;
	if (!type || PyModule_AddObjectRef(module, "Memo", type) < 0)
		return -1;
	return core_add_numbers(module) < 0 ? -1 : core_add_bound_memo(module);
}
