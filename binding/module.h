/*
 * module.h - what the files of the binding share. The binding is the only place that names Python.h; each file adds the
 * types and functions of one noun to the module `droppable._core`.
 */
#ifndef DRP_MODULE_H
#define DRP_MODULE_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

/* Sets the Python exception that belongs to a negative enum drp_status, with the caller's words; returns NULL. */
PyObject *core_raise(int status, const char *what);
/* Dropped, with the byte ranges that went: a tuple of (start, stop). Returns NULL. */
PyObject *core_raise_dropped(const char *what, PyObject *offsets);

/* pickle.c: bytes of an object, or TypeError that names what ("key", "value") could not be pickled and why. */
PyObject *core_pickle_dumps(PyObject *object, const char *what);
PyObject *core_pickle_loads(const char *data, Py_ssize_t bytes);

int core_add_array(PyObject *module);
int core_add_cache(PyObject *module);
int core_add_errors(PyObject *module);
int core_add_memo(PyObject *module);
int core_add_pickle(PyObject *module);
int core_add_pin(PyObject *module);
int core_add_prim(PyObject *module);
int core_add_probe(PyObject *module);
int core_add_random(PyObject *module);
int core_add_random_block(PyObject *module);
int core_add_region(PyObject *module);

#endif
