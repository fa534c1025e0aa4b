/*
 * memo.c - droppable.Memo: a function with a cache in front of it, so that a hit is one call in C. What it does at a miss,
 * and the decorator that makes it, are in src/droppable/_memo.py.
 *
 *   memo(a, b=c) -> the arguments as key bytes -> the core's get -> a hit: the value
 *                                                                  a miss: miss(key, a, b=c), key being an EncodedKey
 *
 * With key=, its result is the key. Without `looks_up` every call is a miss: a coroutine looks the key up by itself, when
 * it is awaited. What stands in `__dict__` (__wrapped__, __name__, ...) comes from functools.update_wrapper().
 *
 * Nothing changes after __new__, so that threads need no lock. Callers: Python.
 */
#include <stdbool.h>
#include <stddef.h>
#include <string.h>

#include "cache_object.h"
#include "key.h"
#include "module.h"

#include <structmember.h>

typedef struct {
	PyObject_HEAD
	vectorcallfunc vectorcall;
	PyObject *cache, *miss, *info;
	PyObject *key; /* NULL: all arguments are */
	PyObject *dict, *weak_references;
	struct core_state *core; /* of the cache's module, which the cache keeps */
	bool looks_up, by_name; /* by_name: the order of keyword arguments does not matter */
} MemoObject;

enum { ARGUMENTS_INLINE = 8 };

/* miss(key, ...): the arguments as they came, behind the key. */
static PyObject *call_miss(MemoObject *self, PyObject *encoded, PyObject *const *arguments, size_t count,
			   PyObject *keywords)
{
	const size_t total = count + (keywords ? (size_t)PyTuple_GET_SIZE(keywords) : 0);
	PyObject *inline_stack[1 + ARGUMENTS_INLINE], **stack = inline_stack;

	if (total > ARGUMENTS_INLINE) {
		stack = PyMem_New(PyObject *, total + 1);
		if (!stack)
			return PyErr_NoMemory();
	}
	stack[0] = encoded;
	if (total > 0)
		memcpy(stack + 1, arguments, total * sizeof(*stack));
	PyObject *result = PyObject_Vectorcall(self->miss, stack, count + 1, keywords);
	if (stack != inline_stack)
		PyMem_Free(stack);
	return result;
}

/* A new reference to the key as an object. */
static PyObject *key_object_of(MemoObject *self, PyObject *const *arguments, size_t count, PyObject *keywords)
{
	if (self->key)
		return PyObject_Vectorcall(self->key, arguments, count, keywords);
	return key_of_call(arguments, count, keywords, self->by_name);
}

static PyObject *memo_call(PyObject *object, PyObject *const *arguments, size_t flagged_count, PyObject *keywords)
{
	MemoObject *self = (MemoObject *)object;
	const size_t count = (size_t)PyVectorcall_NARGS(flagged_count);
	PyObject *result = NULL;
	struct key key;
	int found;

	if (self->key) {
		PyObject *key_object = key_object_of(self, arguments, count, keywords);
		if (!key_object)
			return NULL;
		found = key_encode(self->core, &key, key_object);
		Py_DECREF(key_object);
	} else {
		found = key_encode_call(self->core, &key, arguments, count, keywords, self->by_name, SCOPE_NONE);
	}
	if (found == 0 && self->looks_up)
		found = cache_object_find(self->cache, &key, &result);
	PyObject *encoded = found == 0 ? key_as_object(&key) : NULL;
	key_free(&key);
	if (encoded) {
		result = call_miss(self, encoded, arguments, count, keywords);
		Py_DECREF(encoded);
	}
	return result;
}

static PyObject *memo_new(PyTypeObject *type, PyObject *arguments, PyObject *keywords)
{
	static char *names[] = {"cache", "miss", "info", "key", "looks_up", "by_name", NULL};
	struct core_state *core = core_of_type(type);
	PyObject *cache, *miss, *info, *key;
	int looks_up, by_name;

	if (!core || !PyArg_ParseTupleAndKeywords(arguments, keywords, "O!OOOpp", names, core->cache_type, &cache, &miss,
						 &info, &key, &looks_up, &by_name))
		return NULL;
	MemoObject *self = (MemoObject *)type->tp_alloc(type, 0);
	if (!self)
		return NULL;
	self->vectorcall = memo_call;
	self->cache = Py_NewRef(cache);
	self->miss = Py_NewRef(miss);
	self->info = Py_NewRef(info);
	self->key = key == Py_None ? NULL : Py_NewRef(key);
	self->core = core;
	self->looks_up = looks_up;
	self->by_name = by_name;
	return (PyObject *)self;
}

static int memo_traverse(MemoObject *self, visitproc visit, void *arg)
{
	Py_VISIT(Py_TYPE(self));
	Py_VISIT(self->cache);
	Py_VISIT(self->miss);
	Py_VISIT(self->info);
	Py_VISIT(self->key);
	Py_VISIT(self->dict);
	return 0;
}

/* None instead of NULL: what is still called while a cycle is taken apart raises TypeError. The cache clears itself. */
static int memo_clear(MemoObject *self)
{
	Py_CLEAR(self->dict);
	Py_SETREF(self->miss, Py_NewRef(Py_None));
	Py_SETREF(self->info, Py_NewRef(Py_None));
	if (self->key)
		Py_SETREF(self->key, Py_NewRef(Py_None));
	return 0;
}

static void memo_dealloc(MemoObject *self)
{
	PyTypeObject *type = Py_TYPE(self);

	PyObject_GC_UnTrack(self);
	if (self->weak_references)
		PyObject_ClearWeakRefs((PyObject *)self);
	(void)memo_clear(self);
	Py_DECREF(self->cache);
	Py_DECREF(self->miss);
	Py_DECREF(self->info);
	Py_XDECREF(self->key);
	type->tp_free(self);
	Py_DECREF(type);
}

/* A method, as of any function. */
static PyObject *memo_descr_get(PyObject *self, PyObject *instance, PyObject *owner)
{
	(void)owner;
	return !instance || instance == Py_None ? Py_NewRef(self) : PyMethod_New(self, instance);
}

static PyObject *memo_cache_info(MemoObject *self, PyObject *unused)
{
	(void)unused;
	return PyObject_CallOneArg(self->info, self->cache);
}

static PyObject *memo_cache_clear(MemoObject *self, PyObject *unused)
{
	(void)unused;
	return PyObject_CallMethod(self->cache, "clear", NULL);
}

static PyObject *memo_cache_key(MemoObject *self, PyObject *const *arguments, Py_ssize_t count, PyObject *keywords)
{
	return key_object_of(self, arguments, (size_t)count, keywords);
}

/* By name, as functions are: processes of a pool find it in their own module, with a cache of their own. */
static PyObject *memo_reduce(PyObject *self, PyObject *unused)
{
	(void)unused;
	return PyObject_GetAttrString(self, "__qualname__");
}

static PyMethodDef memo_methods[] = {
	{"cache_info", (PyCFunction)memo_cache_info, METH_NOARGS,
	 "cache_info($self, /)\n--\n\nHits, misses, bound in bytes, entries and drops: a CacheInfo."},
	{"cache_clear", (PyCFunction)memo_cache_clear, METH_NOARGS,
	 "cache_clear($self, /)\n--\n\nForgets all results. Counts go on."},
	{"cache_key", (PyCFunction)(void (*)(void))memo_cache_key, METH_FASTCALL | METH_KEYWORDS,
	 "cache_key($self, /, *args, **kwargs)\n--\n\nThe key in `cache` under which the result for these arguments is kept."},
	{"__reduce__", memo_reduce, METH_NOARGS, NULL},
	{"__class_getitem__", Py_GenericAlias, METH_O | METH_CLASS, NULL},
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

static PyGetSetDef memo_attributes[] = {
	{"__dict__", PyObject_GenericGetDict, PyObject_GenericSetDict, NULL, NULL},
	{NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot memo_slots[] = {
	{Py_tp_doc,
	 "A function with a cache in front of it; what `@droppable.cache` makes. Works on methods as on functions.\n\n"
	 "Results are looked up by the arguments, by type and value (`1`, `1.0` and `True` are three keys), keyword\n"
	 "arguments in any order, unless the function takes `**kwargs` and can see it. A method's `self` is one of them: by\n"
	 "value, as pickle sees it, so that the cache keeps no object alive and sees when it has changed.\n\n"
	 "Any thread may call it; one computes, the others wait. Calls from within the function to itself are fine."},
	{Py_tp_new, memo_new},
	{Py_tp_call, PyVectorcall_Call},
	{Py_tp_dealloc, memo_dealloc},
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
	if (!type)
		return -1;
	int result = PyModule_AddObjectRef(module, "Memo", type);
	Py_DECREF(type);
	return result;
}
