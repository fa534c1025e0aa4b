/*
 * memo_bound.c - droppable.BoundMemo: the method of one instance, which `instance.method` gives. As a bound method of
 * Python's own, but that what it has beside the call (`cache_key`, `invalidate`, `refresh`) knows `self` too. All other
 * attributes are those of the Memo. `instance.method(x)` makes none: the interpreter calls the Memo with the instance.
 *
 * Never changes, so that threads need no lock. Callers: Python.
 */
#include <string.h>

#include "memo.h"

#include <structmember.h>

typedef struct {
	PyObject_HEAD
	vectorcallfunc vectorcall;
	PyObject *memo, *instance;
	PyObject *weak_references;
} BoundObject;

/* function(memo, instance, ...) */
static PyObject *forward(BoundObject *self, memo_function *function, PyObject *const *arguments, size_t count,
			 PyObject *keywords)
{
	const size_t total = count + (keywords ? (size_t)PyTuple_GET_SIZE(keywords) : 0);
	PyObject *inline_stack[1 + MEMO_INLINE_ARGUMENTS], **stack = inline_stack;

	if (total > MEMO_INLINE_ARGUMENTS) {
		stack = PyMem_New(PyObject *, total + 1);
		if (!stack)
			return PyErr_NoMemory();
	}
	stack[0] = self->instance;
	if (total > 0)
		memcpy(stack + 1, arguments, total * sizeof(*stack));
	PyObject *result = function((MemoObject *)self->memo, stack, count + 1, keywords);
	if (stack != inline_stack)
		PyMem_Free(stack);
	return result;
}

static PyObject *bound_call(PyObject *self, PyObject *const *arguments, size_t flagged_count, PyObject *keywords)
{
	return forward((BoundObject *)self, memo_call_arguments, arguments, (size_t)PyVectorcall_NARGS(flagged_count), keywords);
}

static PyObject *bound_cache_key(BoundObject *self, PyObject *const *arguments, Py_ssize_t count, PyObject *keywords)
{
	return forward(self, memo_cache_key, arguments, (size_t)count, keywords);
}

static PyObject *bound_invalidate(BoundObject *self, PyObject *const *arguments, Py_ssize_t count, PyObject *keywords)
{
	return forward(self, memo_invalidate, arguments, (size_t)count, keywords);
}

static PyObject *bound_refresh(BoundObject *self, PyObject *const *arguments, Py_ssize_t count, PyObject *keywords)
{
	return forward(self, memo_refresh, arguments, (size_t)count, keywords);
}

static PyObject *make(PyTypeObject *type, PyObject *memo, PyObject *instance)
{
	BoundObject *self = (BoundObject *)type->tp_alloc(type, 0);
	if (!self)
		return NULL;
	self->vectorcall = bound_call;
	self->memo = Py_NewRef(memo);
	self->instance = Py_NewRef(instance);
	return (PyObject *)self;
}

PyObject *memo_bind(PyObject *memo, PyObject *instance)
{
	return make(((MemoObject *)memo)->core->bound_memo_type, memo, instance);
}

static PyObject *bound_new(PyTypeObject *type, PyObject *arguments, PyObject *keywords)
{
	struct core_state *core = core_of_type(type);
	PyObject *memo, *instance;

	if (keywords && PyDict_GET_SIZE(keywords) > 0) {
		PyErr_SetString(PyExc_TypeError, "BoundMemo() takes a Memo and an instance, by position");
		return NULL;
	}
	if (!core || !PyArg_ParseTuple(arguments, "O!O", core->memo_type, &memo, &instance))
		return NULL;
	return make(type, memo, instance);
}

static int bound_traverse(BoundObject *self, visitproc visit, void *arg)
{
	Py_VISIT(Py_TYPE(self));
	Py_VISIT(self->memo);
	Py_VISIT(self->instance);
	return 0;
}

/* No tp_clear: what it refers to breaks every circle that it is in, as for bound methods of Python's own. */
static void bound_dealloc(BoundObject *self)
{
	PyTypeObject *type = Py_TYPE(self);

	PyObject_GC_UnTrack(self);
	if (self->weak_references)
		PyObject_ClearWeakRefs((PyObject *)self);
	Py_DECREF(self->memo);
	Py_DECREF(self->instance);
	type->tp_free(self);
	Py_DECREF(type);
}

/*
 * What the type has first, as for every object; then what the Memo has. The function's module is no attribute of the type:
 * that would take the place of the type's own __module__, which pydoc sorts by.
 */
static PyObject *bound_getattro(PyObject *self, PyObject *name)
{
	if (PyUnicode_CompareWithASCIIString(name, "__module__") == 0)
		return PyObject_GetAttr(((BoundObject *)self)->memo, name);
	PyObject *found = PyObject_GenericGetAttr(self, name);
	if (found || !PyErr_ExceptionMatches(PyExc_AttributeError))
		return found;
	PyErr_Clear();
	return PyObject_GetAttr(((BoundObject *)self)->memo, name);
}

static PyObject *bound_of_memo(BoundObject *self, void *name)
{
	return PyObject_GetAttrString(self->memo, name);
}

static PyObject *bound_signature(BoundObject *self, void *unused)
{
	(void)unused;
	return PyObject_CallMethod(((MemoObject *)self->memo)->keeper, "signature", NULL);
}

static PyObject *bound_compare(PyObject *left, PyObject *right, int operation)
{
	if ((operation != Py_EQ && operation != Py_NE) || !Py_IS_TYPE(right, Py_TYPE(left)))
		Py_RETURN_NOTIMPLEMENTED;
	const BoundObject *a = (BoundObject *)left, *b = (BoundObject *)right;
	return PyBool_FromLong((a->memo == b->memo && a->instance == b->instance) == (operation == Py_EQ));
}

static Py_hash_t bound_hash(BoundObject *self)
{
	const Py_hash_t hash = (Py_hash_t)(((uintptr_t)self->memo >> 4) ^ ((uintptr_t)self->instance >> 3));
	return hash == -1 ? -2 : hash;
}

static PyObject *bound_repr(BoundObject *self)
{
	PyObject *name = PyObject_GetAttrString(self->memo, "__qualname__");
	if (!name)
		return NULL;
	PyObject *text = PyUnicode_FromFormat("<droppable.Memo %U of %R>", name, self->instance);
	Py_DECREF(name);
	return text;
}

static PyObject *bound_descr_get(PyObject *self, PyObject *instance, PyObject *owner)
{
	(void)instance;
	(void)owner;
	return Py_NewRef(self); /* it is bound already */
}

static PyObject *bound_reduce(BoundObject *self, PyObject *unused)
{
	(void)unused;
	PyObject *name = PyObject_GetAttrString(self->memo, "__name__");
	PyObject *builtins = name ? PyImport_ImportModule("builtins") : NULL;
	PyObject *getattr = builtins ? PyObject_GetAttrString(builtins, "getattr") : NULL;
	PyObject *result = getattr ? Py_BuildValue("O(OO)", getattr, self->instance, name) : NULL;
	Py_XDECREF(getattr);
	Py_XDECREF(builtins);
	Py_XDECREF(name);
	return result;
}

#define FAST(function) (PyCFunction)(void (*)(void))(function), METH_FASTCALL | METH_KEYWORDS

static PyMethodDef bound_methods[] = {
	{"cache_key", FAST(bound_cache_key),
	 "cache_key($self, /, *args, **kwargs)\n--\n\nAs Memo.cache_key(), for this instance."},
	{"invalidate", FAST(bound_invalidate),
	 "invalidate($self, /, *args, **kwargs)\n--\n\nAs Memo.invalidate(), for this instance."},
	{"discard", FAST(bound_invalidate),
	 "discard($self, /, *args, **kwargs)\n--\n\nAs Memo.invalidate(), for this instance."},
	{"refresh", FAST(bound_refresh), "refresh($self, /, *args, **kwargs)\n--\n\nAs Memo.refresh(), for this instance."},
	{"__reduce__", (PyCFunction)bound_reduce, METH_NOARGS, NULL},
	{"__class_getitem__", Py_GenericAlias, METH_O | METH_CLASS, NULL},
	{NULL, NULL, 0, NULL},
};

static PyMemberDef bound_members[] = {
	{"__self__", T_OBJECT_EX, offsetof(BoundObject, instance), READONLY, "The instance."},
	{"__func__", T_OBJECT_EX, offsetof(BoundObject, memo), READONLY, "The Memo."},
	{"__vectorcalloffset__", T_PYSSIZET, offsetof(BoundObject, vectorcall), READONLY, NULL},
	{"__weaklistoffset__", T_PYSSIZET, offsetof(BoundObject, weak_references), READONLY, NULL},
	{NULL, 0, 0, 0, NULL},
};

static PyGetSetDef bound_attributes[] = {
	{"__doc__", (getter)bound_of_memo, NULL, NULL, "__doc__"},
	{"__signature__", (getter)bound_signature, NULL, NULL, NULL},
	{NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot bound_slots[] = {
	{Py_tp_new, bound_new},
	{Py_tp_call, PyVectorcall_Call},
	{Py_tp_dealloc, bound_dealloc},
	{Py_tp_traverse, bound_traverse},
	{Py_tp_getattro, bound_getattro},
	{Py_tp_richcompare, bound_compare},
	{Py_tp_hash, bound_hash},
	{Py_tp_repr, bound_repr},
	{Py_tp_descr_get, bound_descr_get},
	{Py_tp_methods, bound_methods},
	{Py_tp_members, bound_members},
	{Py_tp_getset, bound_attributes},
	{0, NULL},
};

static PyType_Spec bound_spec = {
	.name = "droppable.BoundMemo",
	.basicsize = sizeof(BoundObject),
	.flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_HAVE_VECTORCALL | Py_TPFLAGS_IMMUTABLETYPE,
	.slots = bound_slots,
};

int core_add_bound_memo(PyObject *module)
{
	PyObject *type = PyType_FromModuleAndSpec(module, &bound_spec, NULL);

	core_of_module(module)->bound_memo_type = (PyTypeObject *)type;
	return type ? PyModule_AddObjectRef(module, "BoundMemo", type) : -1;
}
