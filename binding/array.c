/*
 * array.c - NumPy arrays on the cache's own memory. Knows nothing of NumPy: it is told what to call.
 *
 *   meta   | order: 'C' or 'F' | dimensions: 1 byte | shape: 8 bytes each | dtype, as droppable._values pickled it
 *
 * A hot array should cost no Python code, so the dtypes that were unpickled once are remembered: there are few of them.
 * One that a caller can change is not handed out twice: each array gets what own(dtype) makes.
 * The table of a module only grows, up to its size, and what is in it stays as long as the module, so that it is read
 * without a lock by every thread; a dtype that finds it full is unpickled each time.
 */
#include <stdatomic.h>
#include <string.h>

#include "value.h"

enum { REMEMBERED_MOST = 64, HEAD_BYTES = 2 };

struct remembered {
	PyObject *make, *dtype;
	PyObject *own;               /* NULL: everybody may have dtype itself; else each array gets own(dtype) */
	_Atomic(PyObject *) pickled; /* written last: NULL until the others are there */
};

struct array_dtypes {
	struct remembered table[REMEMBERED_MOST];
	_Atomic unsigned claimed;
};

static const struct remembered *find(struct array_dtypes *dtypes, const unsigned char *pickled, size_t bytes)
{
	for (size_t i = 0; i < REMEMBERED_MOST; i++) {
		const struct remembered *at = &dtypes->table[i];
		PyObject *known = atomic_load_explicit(&at->pickled, memory_order_acquire);
		if (!known)
			break; /* the rest is empty, or about to be written: not found is never wrong */
		if ((size_t)PyBytes_GET_SIZE(known) == bytes && memcmp(PyBytes_AS_STRING(known), pickled, bytes) == 0)
			return at;
	}
	return NULL;
}

static PyObject *read_length(const unsigned char *at, size_t dimension)
{
	int64_t length;

	memcpy(&length, at + dimension * sizeof(length), sizeof(length));
	return PyLong_FromLongLong(length);
}

/* A tuple of lengths. A single one stands for itself: NumPy takes it so, in less time. */
static PyObject *read_shape(const unsigned char *at, Py_ssize_t dimensions)
{
	if (dimensions == 1)
		return read_length(at, 0);
	PyObject *shape = PyTuple_New(dimensions);
	for (Py_ssize_t i = 0; shape && i < dimensions; i++) {
		PyObject *number = read_length(at, (size_t)i);
		if (!number)
			Py_CLEAR(shape);
		else
			PyTuple_SET_ITEM(shape, i, number);
	}
	return shape;
}

int array_make(struct core_state *core, const void *meta, size_t meta_bytes, PyObject *memory, bool plain, PyObject **array)
{
	const unsigned char *at = meta;
	const size_t dimensions = meta_bytes < HEAD_BYTES ? 0 : at[1], head = HEAD_BYTES + dimensions * sizeof(int64_t);

	if (meta_bytes < head || at[0] != 'C')
		return 0;
	const struct remembered *known = find(core->dtypes, at + head, meta_bytes - head);
	if (!known || (plain && known->own))
		return 0;
	PyObject *dtype = known->own ? PyObject_CallOneArg(known->own, known->dtype) : Py_NewRef(known->dtype);
	PyObject *shape = dtype ? read_shape(at + HEAD_BYTES, (Py_ssize_t)dimensions) : NULL;
	/* NumPy takes half the time if it is not told what it would assume. */
	PyObject *arguments[] = {shape, dtype, memory};
	*array = shape ? PyObject_Vectorcall(known->make, arguments, 3, NULL) : NULL;
	Py_XDECREF(dtype);
	Py_XDECREF(shape);
	return *array ? 1 : -1;
}

static PyObject *remember_dtype(PyObject *module, PyObject *arguments)
{
	struct array_dtypes *dtypes = core_of_module(module)->dtypes;
	PyObject *pickled, *make, *dtype, *own;

	if (!PyArg_ParseTuple(arguments, "SOOO", &pickled, &make, &dtype, &own))
		return NULL;
	if (find(dtypes, (const unsigned char *)PyBytes_AS_STRING(pickled), (size_t)PyBytes_GET_SIZE(pickled)))
		Py_RETURN_NONE;
	if (atomic_load_explicit(&dtypes->claimed, memory_order_relaxed) < REMEMBERED_MOST) {
		const unsigned at = atomic_fetch_add_explicit(&dtypes->claimed, 1, memory_order_relaxed);
		if (at < REMEMBERED_MOST) {
			dtypes->table[at].make = Py_NewRef(make);
			dtypes->table[at].dtype = Py_NewRef(dtype);
			dtypes->table[at].own = own == Py_None ? NULL : Py_NewRef(own);
			atomic_store_explicit(&dtypes->table[at].pickled, Py_NewRef(pickled), memory_order_release);
		}
	}
	Py_RETURN_NONE;
}

static PyMethodDef functions[] = {
	{"remember_dtype", remember_dtype, METH_VARARGS,
	 "remember_dtype(pickled, make, dtype, own, /)\n--\n\n"
	 "From now on a C-ordered array whose meta ends in pickled is make(shape, dtype, memory), without decode(); with\n"
	 "own(dtype) in the place of dtype, unless own is None."},
	{NULL, NULL, 0, NULL},
};

int core_visit_dtypes(struct array_dtypes *dtypes, visitproc visit, void *arg)
{
	for (size_t i = 0; dtypes && i < REMEMBERED_MOST; i++) {
		if (!atomic_load_explicit(&dtypes->table[i].pickled, memory_order_acquire))
			break;
		Py_VISIT(dtypes->table[i].make);
		Py_VISIT(dtypes->table[i].dtype);
		Py_VISIT(dtypes->table[i].own);
	}
	return 0;
}

void core_free_dtypes(struct array_dtypes *dtypes)
{
	for (size_t i = 0; dtypes && i < REMEMBERED_MOST; i++) {
		Py_XDECREF(atomic_load_explicit(&dtypes->table[i].pickled, memory_order_acquire));
		Py_XDECREF(dtypes->table[i].make);
		Py_XDECREF(dtypes->table[i].dtype);
		Py_XDECREF(dtypes->table[i].own);
	}
	PyMem_Free(dtypes);
}

int core_add_array(PyObject *module)
{
	struct core_state *core = core_of_module(module);

	core->dtypes = PyMem_Calloc(1, sizeof(*core->dtypes));
	if (!core->dtypes) {
		PyErr_NoMemory();
		return -1;
	}
	return PyModule_AddFunctions(module, functions);
}
