/*
 * region_object.h - RawRegion as the files of the binding that are about regions see it: its fields, and what all calls do.
 *
 * Callers: binding/region.c, binding/region_hold.c.
 */
#ifndef DRP_REGION_OBJECT_H
#define DRP_REGION_OBJECT_H

#include "module.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <sys/types.h>

#include "region/region.h"

/* users: region.c has the picture. */
struct raw_region {
	PyObject_HEAD
	struct region *region;
	struct region_options options;
	PyObject *name;
	_Atomic Py_ssize_t users;
	_Atomic pid_t resizer; /* the process whose thread is resizing it: a forked child has no such thread */
	_Atomic bool exposed;
};

static inline struct raw_region *as_raw(PyObject *self)
{
	return (struct raw_region *)self;
}

/* False with an exception: it is closed, or being resized. */
bool raw_region_enter(struct raw_region *self);
void raw_region_leave(struct raw_region *self);

/* Raises what belongs to status; frees gone. Returns NULL. */
PyObject *raw_region_raise(struct raw_region *self, int status, const char *what, struct region_gone *gone);

/* Which of the names was given; where none was, fallback. -1 with an error set, whatever type was given. */
int raw_region_index_of(const char *what, const char *const *names, PyObject *given, int fallback);
/* A number of bytes; one that is too large for any region becomes the largest there is. May run the number's own code. */
int raw_region_read_bytes(const char *what, const char *name, PyObject *object, Py_ssize_t *out);

/* A byte range of the region; what of it lies in no page is for the caller to refuse. */
struct byte_range {
	size_t start, length;
};
/* 0, or -1 with an exception. It is entered. */
int raw_region_check_range(struct raw_region *self, const char *what, Py_ssize_t start, Py_ssize_t stop, bool whole_pages,
			   struct byte_range *out);

/* region_hold.c: RawRegion.hold(), and the type of what it returns. */
PyObject *raw_region_hold(PyObject *self, PyObject *args);
int core_add_region_hold(PyObject *module);

#endif
