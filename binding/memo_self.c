/*
 * memo_self.c - what stands for `self` in the key of a method, where it was said what of it identifies:
 *
 *   @cache(self_key="id")      a.m(x)  ->  (2 and the class's number, a.id, x)
 *   @cache(self_key=function)  a.m(x)  ->  (2 and the class's number, function(a), x)
 *   @cache(self_key=INSTANCE)  a.m(x)  ->  (1 and the number of a, x)
 *
 * The class that the method was defined in has the number 0: an heir may have another answer for the same id. Numbers:
 * memo_numbers.c. With normalize=True a function makes the key. It takes the place of the interpreter's binding, and gets
 * one object for `self`: the number, or (number, what identifies it).
 *
 * Callers: memo.c.
 */
#include "memo.h"

/* PyObject_GetAttr(), whose questions are answered: the name is a str. A class that is ready has this function. */
static inline PyObject *attribute(PyObject *instance, PyObject *name)
{
	const getattrofunc get = Py_TYPE(instance)->tp_getattro;

	return get ? get(instance, name) : PyObject_GetAttr(instance, name);
}

/* What of `self` stands in the key: the number, and a new reference in *identity, or NULL. 0, or -1 with an exception. */
static int identify(MemoObject *self, PyObject *instance, uint64_t *number, PyObject **identity)
{
	*number = 0;
	*identity = NULL;
	if (self->self_is == SELF_NUMBER)
		return memo_number_of(((CacheObject *)self->cache)->module, instance, number);
	PyObject *class = (PyObject *)Py_TYPE(instance);
	if (class != self->owner && memo_number_of(((CacheObject *)self->cache)->module, class, number) < 0)
		return -1;
	*identity = self->self_is == SELF_ATTRIBUTE ? PyObject_GetAttr(instance, self->identity)
						    : PyObject_CallOneArg(self->identity, instance);
	return *identity ? 0 : -1;
}

/* The arguments of a call as they stand in the key. */
struct identified {
	uint64_t number;
	PyObject *identity; /* or NULL: nothing but the number */
	PyObject *const *arguments;
	PyObject **own, *inline_arguments[1 + MEMO_INLINE_ARGUMENTS]; /* own: what release() frees, or NULL */
	size_t count;
};

static void release(struct identified *call)
{
	PyMem_Free(call->own);
	Py_XDECREF(call->identity);
}

/* Puts the identity in the place of the first argument. 0, or -1 with an exception. */
static int replace_first(struct identified *call, PyObject *const *arguments, size_t total)
{
	PyObject **copy = call->inline_arguments;

	if (total > Py_ARRAY_LENGTH(call->inline_arguments)) {
		copy = call->own = PyMem_New(PyObject *, total);
		if (!copy) {
			PyErr_NoMemory();
			return -1;
		}
	}
	copy[0] = call->identity;
	for (size_t i = 1; i < total; i++)
		copy[i] = arguments[i];
	call->arguments = copy;
	return 0;
}

/* 0, or -1 with an exception; release() either way. */
static int substitute(MemoObject *self, struct identified *call, PyObject *const *arguments, size_t count, PyObject *keywords)
{
	call->own = NULL;
	call->identity = NULL;
	if (count == 0 || count >= (size_t)1 << KEY_COUNT_BITS) {
		PyErr_SetString(PyExc_TypeError, count ? "too many arguments for a method with self_key="
						       : "a method with self_key= takes self by position, as its first argument");
		return -1;
	}
	if (identify(self, arguments[0], &call->number, &call->identity) < 0)
		return -1;
	call->count = count;
	if (self->binds) {
		PyObject *both = call->identity ? Py_BuildValue("KO", (unsigned long long)call->number, call->identity)
						: PyLong_FromUnsignedLongLong(call->number);
		Py_XSETREF(call->identity, both);
		if (!both)
			return -1;
	}
	if (call->identity)
		return replace_first(call, arguments, count + (keywords ? (size_t)PyTuple_GET_SIZE(keywords) : 0));
	call->arguments = arguments + 1;
	call->count = count - 1;
	return 0;
}

static int encode(MemoObject *self, struct key *key, PyObject *const *arguments, size_t count, PyObject *keywords,
		  uint64_t scope)
{
	struct identified call;
	int result = substitute(self, &call, arguments, count, keywords);

	if (result < 0) {
		key->data = key->inline_data; /* for key_free() */
	} else if (self->key) {
		PyObject *object = memo_make_key(self, call.arguments, call.count, keywords);
		key->data = key->inline_data;
		result = object ? key_encode_scoped(self->core, key, object, scope) : -1;
		Py_XDECREF(object);
	} else {
		result = key_encode_call(self->core, key, call.arguments, call.count, keywords, self->by_name,
					 scope, call.number, NULL);
	}
	release(&call);
	return result;
}

/* The same for an attribute: most calls, and shorter, for no argument is copied. */
static int encode_by_attribute(MemoObject *self, struct key *key, PyObject *const *arguments, size_t count,
			       PyObject *keywords, uint64_t scope)
{
	uint64_t number = 0;
	PyObject *identity;

	if (count - 1 >= ((size_t)1 << KEY_COUNT_BITS) - 1) /* none, or too many: one comparison tells both */
		return encode(self, key, arguments, count, keywords, scope);
	PyObject *class = (PyObject *)Py_TYPE(arguments[0]);
	if ((class != self->owner && memo_number_of(((CacheObject *)self->cache)->module, class, &number) < 0) ||
	    !(identity = attribute(arguments[0], self->identity))) {
		key->data = key->inline_data; /* for key_free() */
		return -1;
	}
	int result = key_encode_call(self->core, key, arguments, count, keywords, self->by_name, scope, number, identity);
	Py_DECREF(identity);
	return result;
}

memo_encode *memo_self_encoder(const MemoObject *self)
{
	if (self->self_is == SELF_VALUE)
		return NULL;
	return self->self_is == SELF_ATTRIBUTE && !self->key ? encode_by_attribute : encode;
}

PyObject *memo_self_key(MemoObject *self, PyObject *const *arguments, size_t count, PyObject *keywords)
{
	struct identified call;
	PyObject *object = NULL;

	if (substitute(self, &call, arguments, count, keywords) == 0)
		object = self->key ? memo_make_key(self, call.arguments, call.count, keywords)
				   : key_of_call(call.arguments, call.count, keywords, self->by_name, call.number, NULL);
	release(&call);
	return object;
}
