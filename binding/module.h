/*
 * module.h - what the files of the binding share. The binding is the only place that names Python.h; each file adds the
 * types and functions of one noun to the module `droppable._core`.
 *
 * No Python object is in a C static: a second import, or a subinterpreter, makes a module of its own, and what the first one
 * made has to go on with what it knew. Each module has its state, and objects find it on the way that keeps it alive:
 *
 *   object -> its type -> the module -> struct core_state       core_of_type(), core_of_module()
 *
 * What is called often keeps a pointer to the state, beside a reference to the module. Exception classes belong to the
 * interpreter instead (errors.c), so that `except` matches whichever import raised.
 */
#ifndef DRP_MODULE_H
#define DRP_MODULE_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <stdbool.h>

#ifdef PYPY_VERSION
#error "droppable needs CPython: it stands on how CPython keeps modules, types and buffers"
#endif

struct array_dtypes;
struct memo_numbers;

/* All owned. Set while the module is executed and never changed after, but for what says otherwise. */
struct core_state {
	PyTypeObject *cache_type, *pin_type, *hold_type, *census_type, *headroom_type;
	PyTypeObject *encoded_key_type, *lease_type, *copy_type, *memo_type, *bound_memo_type;
	PyObject *pickle_dumps, *pickle_loads;
	PyObject *read_only_text;
	struct array_dtypes *dtypes; /* array.c */
	struct memo_numbers *numbers; /* memo_numbers.c */
	PyObject *uuid;              /* random.c; set at the first call, atomically */
	PyObject *keys;              /* droppable._keys; key_tree.c; set at the first call, atomically */
};

extern struct PyModuleDef core_module;

static inline struct core_state *core_of_module(PyObject *module)
{
	return PyModule_GetState(module);
}

/* For the types of this module and for what derives from them; NULL with an exception for others. */
struct core_state *core_of_type(PyTypeObject *type);

/* Sets the Python exception that belongs to a negative enum drp_status, with the caller's words; returns NULL. */
PyObject *core_raise(int status, const char *what);

/* Raises KeyError for key, with a note that says what the call could have been given. */
void core_raise_absent(PyObject *key, const char *note);
/* A note of the exception that is set, if that can be had. */
void core_add_note(const char *note);

/* ClosedError for an object whose __init__() was never called; returns NULL. */
PyObject *core_raise_unmade(const char *what);
/* Dropped, with the byte ranges that went: a tuple of (start, stop). Returns NULL. */
PyObject *core_raise_dropped(const char *what, PyObject *offsets);

/* UnsupportedError with a reason of the caller's. */
void core_raise_unsupported(const char *what, const char *why);
/* UnpicklableError: what is "key" or "value". cause: the exception that says why. */
void core_raise_unpicklable(const char *what, PyObject *object, PyObject *cause);
/* Whether the exception that is set is one. */
bool core_error_is_unpicklable(void);
/* Whether it is a DroppableError. */
bool core_error_is_ours(void);
/* ValueTooLargeError with both sizes. max_bytes: 0 where the cache has no such bound. */
void core_raise_too_large(size_t value_bytes, uint64_t max_bytes);

/* pickle.c: bytes of an object, or UnpicklableError that names what ("key", "value") could not be pickled and why. */
PyObject *core_pickle_dumps(struct core_state *core, PyObject *object, const char *what);
PyObject *core_pickle_loads(struct core_state *core, const char *data, Py_ssize_t bytes);
/* An exception that was taken from where it was set, to go on without it. */
struct core_error {
	PyObject *type, *value, *traceback;
};
void core_fetch_error(struct core_error *error);
void core_restore_error(struct core_error *error);
void core_drop_error(struct core_error *error);
/*
 * make(context), and once more if that raised an Exception that is no MemoryError. If it succeeds then, the first one had
 * nothing to do with the object (a signal handler's time limit, say) and is raised as it was. If both are of one type, it is
 * the object's: the first stays set, and *failed_twice is true. If they are of two types, a third attempt tells which of them
 * is not the object's, and that one is raised.
 */
PyObject *core_try_twice(PyObject *(*make)(const void *context), const void *context, bool *failed_twice);

int core_add_array(PyObject *module);
int core_add_cache(PyObject *module);
int core_add_copy(PyObject *module);
int core_add_errors(PyObject *module);
int core_add_exec(PyObject *module);
int core_add_key(PyObject *module);
int core_add_lease(PyObject *module);
int core_add_memo(PyObject *module);
int core_add_bound_memo(PyObject *module);
int core_add_numbers(PyObject *module);
int core_add_pickle(PyObject *module);
int core_add_pin(PyObject *module);
int core_add_prim(PyObject *module);
int core_add_probe(PyObject *module);
int core_add_random(PyObject *module);
int core_add_random_block(PyObject *module);
int core_add_reader(PyObject *module);
int core_add_region(PyObject *module);

/* array.c, for the garbage collector and for the end. dtypes may be NULL. */
int core_visit_dtypes(struct array_dtypes *dtypes, visitproc visit, void *arg);
void core_free_dtypes(struct array_dtypes *dtypes);
/* memo_numbers.c, the same. */
int core_visit_numbers(struct memo_numbers *numbers, visitproc visit, void *arg);
void core_free_numbers(struct memo_numbers *numbers);

#endif
