/*
 * region.c - RawRegion: csrc/region/region.h as a Python object, the ground of droppable.Region. Its holds: region_hold.c.
 *
 * Lifetime, as in prim.c: users counts exported buffers, holds, and calls that run; closing and resizing win only by
 * moving it away from 0. A hold counts once while it is active, and once for each of its buffers.
 *
 *   CLOSED (-1) <--- close, dealloc --- 0 <---> 1, 2, ...
 *   RESIZING (-2) <---- resize ---------+
 */
#include "region_object.h"

#include <string.h>
#include <unistd.h>

#include "droppable.h"

enum {
	CLOSED = -1,
	RESIZING = -2,
	WITHOUT_GIL_BYTES = 32768, /* below, giving the GIL away costs more than it gives */
};

static const char *const on_drop_names[] = {"zero", "raise", "signal", NULL};
static const char *const backing_names[] = {"lazyfree", "droppable", "auto", NULL};
static const char *const fork_names[] = {"wipe", "share", NULL};
enum { BACKING_AUTO = 2 };

int raw_region_index_of(const char *what, const char *const *names, PyObject *given, int fallback)
{
	if (!given)
		return fallback;
	for (int i = 0; names[i]; i++)
		if (PyUnicode_Check(given) && PyUnicode_CompareWithASCIIString(given, names[i]) == 0)
			return i;
	PyErr_Format(PyExc_ValueError, "%s must be '%s'%s%s%s or '%s'; you gave %R", what, names[0], names[2] ? ", '" : "",
		     names[2] ? names[1] : "", names[2] ? "'" : "", names[2] ? names[2] : names[1], given);
	return -1;
}

int raw_region_read_bytes(const char *what, const char *name, PyObject *object, Py_ssize_t *out)
{
	if (!PyIndex_Check(object)) {
		PyErr_Format(PyExc_TypeError, "%s: %s must be a whole number of bytes; you gave %R", what, name, object);
		return -1;
	}
	*out = PyNumber_AsSsize_t(object, NULL);
	return *out == -1 && PyErr_Occurred() ? -1 : 0;
}

/*
 * A forked child has no thread that would go on with a resize of its parent's: the region is as it was before, or as it is after
 * (csrc/region/region_fork.c).
 */
static void forget_lost_resize(struct raw_region *self)
{
	Py_ssize_t users = atomic_load(&self->users);

	if (users == RESIZING && atomic_load(&self->resizer) != getpid())
		atomic_compare_exchange_strong(&self->users, &users, 0);
}

bool raw_region_enter(struct raw_region *self)
{
	Py_ssize_t users = atomic_load(&self->users);
	do {
		if (users == RESIZING) {
			forget_lost_resize(self);
			users = atomic_load(&self->users);
		}
		if (users == CLOSED) {
			core_raise(DRP_CLOSED, "Region");
			return false;
		}
		if (users == RESIZING) {
			PyErr_SetString(PyExc_BufferError, "Region: another thread is resizing it");
			return false;
		}
	} while (!atomic_compare_exchange_weak(&self->users, &users, users + 1));
	return true;
}

void raw_region_leave(struct raw_region *self)
{
	atomic_fetch_sub(&self->users, 1);
}

static bool is_deaf(struct raw_region *self)
{
	if (!raw_region_enter(self)) { /* closed by another thread since */
		PyErr_Clear();
		return false;
	}
	const bool deaf = region_is_deaf(self->region);
	raw_region_leave(self);
	return deaf;
}

PyObject *raw_region_raise(struct raw_region *self, int status, const char *what, struct region_gone *gone)
{
	if (status == DRP_FAULT) {
		PyObject *offsets = PyTuple_New((Py_ssize_t)gone->count);
		for (size_t i = 0; offsets && i < gone->count; i++) {
			PyObject *range = Py_BuildValue("(nn)", (Py_ssize_t)gone->ranges[i].start,
							(Py_ssize_t)gone->ranges[i].stop);
			if (!range)
				Py_CLEAR(offsets);
			else
				PyTuple_SET_ITEM(offsets, (Py_ssize_t)i, range);
		}
		if (offsets)
			core_raise_dropped(what, offsets);
		Py_XDECREF(offsets);
	} else if (status == DRP_EXISTS) {
		PyErr_Format(PyExc_BufferError, "%s: a writing() or pin() block holds these pages; let it end first", what);
	} else if (status == DRP_UNSUPPORTED && is_deaf(self)) {
		core_raise_unsupported(what, "nothing tells this region of drops any more, for its descriptor is closed: by a program "
				       "that closed all it did not know, or in a forked child that could get none; make another region");
	} else {
		core_raise(status, what);
	}
	region_gone_free(gone);
	return NULL;
}

static PyObject *raw_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
	static char *names[] = {"length", "on_drop", "backing", "fork", "name", NULL};
	PyObject *name = Py_None, *length_object, *on_drop = NULL, *backing = NULL, *fork_name = NULL;

	if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O|OOOO:Region", names, &length_object, &on_drop, &backing,
					 &fork_name, &name))
		return NULL;
	int on_drop_index = raw_region_index_of("on_drop", on_drop_names, on_drop, 0);
	int backing_index = on_drop_index < 0 ? -1 : raw_region_index_of("backing", backing_names, backing, 2);
	int fork_index = backing_index < 0 ? -1 : raw_region_index_of("fork", fork_names, fork_name, 0);
	if (fork_index < 0)
		return NULL;
	if (name != Py_None && !PyUnicode_Check(name))
		return PyErr_Format(PyExc_TypeError, "name must be a string or None, not %R", (PyObject *)Py_TYPE(name));
	if (!PyIndex_Check(length_object))
		return PyErr_Format(PyExc_TypeError, "length must be a number of bytes, as 1 << 20; you gave %R", length_object);
	Py_ssize_t length;
	if (raw_region_read_bytes("Region", "length", length_object, &length) < 0)
		return NULL;
	const size_t page = prim_page_size();
	if (length <= 0)
		return PyErr_Format(PyExc_ValueError, "Region: the length must be positive, not %zd", length);
	if (length == PY_SSIZE_T_MAX) /* no multiple of a page, so it stands for all that is larger */
		return PyErr_Format(PyExc_OverflowError, "Region: a length of %zd bytes or more is more than any address space", length);
	if ((size_t)length % page != 0)
		return PyErr_Format(PyExc_ValueError,
				    "Region: the kernel takes whole pages, so the length must be a multiple of %zu bytes (one "
				    "OS page), not %zd; the next is %zu", page, length, ((size_t)length / page + 1) * page);

	struct raw_region *self = as_raw(type->tp_alloc(type, 0));
	if (!self)
		return NULL;
	atomic_init(&self->users, CLOSED);
	self->name = Py_NewRef(name);
	self->options = (struct region_options){
		.on_drop = (enum region_on_drop)on_drop_index,
		.any_backing = backing_index == BACKING_AUTO,
		.backing = backing_index == PRIM_DROPPABLE ? PRIM_DROPPABLE : PRIM_LAZYFREE,
		.keep_on_fork = fork_index == 1,
		.name = name == Py_None ? "unnamed" : PyUnicode_AsUTF8(name),
	};
	if (!self->options.name) {
		Py_DECREF(self);
		return NULL;
	}
	int status = region_open((size_t)length, &self->options, &self->region);
	if (status != DRP_OK) {
		char what[160];
		snprintf(what, sizeof(what), "Region(on_drop='%s', backing='%s', fork='%s')", on_drop_names[on_drop_index],
			 backing_names[backing_index], fork_names[fork_index]);
		if (status == DRP_UNSUPPORTED && backing_index == PRIM_DROPPABLE && (on_drop_index == REGION_SIGNAL || fork_index == 1))
			core_raise_unsupported(what, "no kernel offers this for droppable memory; give backing='lazyfree'");
		else
			core_raise(status, what);
		Py_DECREF(self);
		return NULL;
	}
	atomic_store(&self->users, 0);
	return (PyObject *)self;
}

static bool raw_try_close(struct raw_region *self)
{
	Py_ssize_t users = 0;
	forget_lost_resize(self);
	if (!atomic_compare_exchange_strong(&self->users, &users, CLOSED))
		return users == CLOSED;
	Py_BEGIN_ALLOW_THREADS /* a fifth of a second a GiB; nobody comes to the region any more */
	region_close(self->region);
	Py_END_ALLOW_THREADS
	return true;
}

static void raw_dealloc(PyObject *self)
{
	PyTypeObject *type = Py_TYPE(self);
	raw_try_close(as_raw(self)); /* buffers, holds and running calls own a reference: users is 0 */
	Py_XDECREF(as_raw(self)->name);
	type->tp_free(self);
	Py_DECREF(type);
}

static PyObject *raw_close(PyObject *self, PyObject *Py_UNUSED(ignored))
{
	if (!raw_try_close(as_raw(self))) {
		PyErr_SetString(PyExc_BufferError, "Region.close: memoryviews or arrays of it are alive, or a block or a call "
				"is using it; release them first");
		return NULL;
	}
	Py_RETURN_NONE;
}

static PyObject *raw_resize(PyObject *self, PyObject *argument)
{
	struct raw_region *raw = as_raw(self);
	struct region_gone gone = {0};
	Py_ssize_t users = 0, length;
	int status;

	if (raw_region_read_bytes("Region.resize", "length", argument, &length) < 0)
		return NULL;
	forget_lost_resize(raw);
	atomic_store(&raw->resizer, getpid()); /* before: who finds it RESIZING looks whose it is */
	if (!atomic_compare_exchange_strong(&raw->users, &users, RESIZING)) {
		if (users == CLOSED)
			return core_raise(DRP_CLOSED, "Region");
		PyErr_SetString(PyExc_BufferError, "Region.resize: memoryviews or arrays of it are alive, or a block or a call "
				"is using it; release them first");
		return NULL;
	}
	Py_BEGIN_ALLOW_THREADS
	status = length <= 0 ? DRP_INVALID : region_resize(raw->region, (size_t)length);
	Py_END_ALLOW_THREADS
	atomic_store(&raw->users, 0);
	if (status == DRP_INVALID)
		return PyErr_Format(PyExc_ValueError, "Region.resize: the length must be a positive multiple of %zu bytes, one "
				    "OS page, not %zd", prim_page_size(), length);
	if (status != DRP_OK)
		return raw_region_raise(raw, status, "Region.resize", &gone);
	Py_RETURN_NONE;
}

int raw_region_check_range(struct raw_region *self, const char *what, Py_ssize_t start, Py_ssize_t stop, bool whole_pages,
		       struct byte_range *out)
{
	const Py_ssize_t page = (Py_ssize_t)prim_page_size(), length = (Py_ssize_t)region_length(self->region);

	if (start < 0 || stop < start || stop > length) {
		PyErr_Format(PyExc_ValueError, "%s: bytes %zd to %zd do not lie in a region of %zd bytes", what, start, stop,
			     length);
		return -1;
	}
	if (whole_pages && (start % page != 0 || stop % page != 0)) {
		PyErr_Format(PyExc_ValueError, "%s: bytes %zd to %zd are no whole pages of %zd bytes", what, start, stop, page);
		return -1;
	}
	*out = (struct byte_range){(size_t)start, (size_t)(stop - start)};
	return 0;
}

/* Enters the region and parses (start, stop); on -1 nothing is entered. */
static int enter_range(PyObject *self, PyObject *args, const char *what, bool whole_pages, struct byte_range *out)
{
	PyObject *start_object, *stop_object;
	Py_ssize_t start, stop;

	if (!PyArg_ParseTuple(args, "OO", &start_object, &stop_object) || raw_region_read_bytes(what, "start", start_object, &start) < 0 ||
	    raw_region_read_bytes(what, "stop", stop_object, &stop) < 0 || !raw_region_enter(as_raw(self)))
		return -1;
	if (raw_region_check_range(as_raw(self), what, start, stop, whole_pages, out) == 0)
		return 0;
	raw_region_leave(as_raw(self));
	return -1;
}

static int read_range(struct raw_region *self, const struct byte_range *range, void *to, struct region_gone *gone)
{
	int status;

	if (range->length < WITHOUT_GIL_BYTES)
		return range->length ? region_read(self->region, range->start, to, range->length, gone) : DRP_OK;
	Py_BEGIN_ALLOW_THREADS
	status = region_read(self->region, range->start, to, range->length, gone);
	Py_END_ALLOW_THREADS
	return status;
}

static PyObject *raw_read(PyObject *self, PyObject *args)
{
	struct region_gone gone = {0};
	struct byte_range range;

	if (enter_range(self, args, "Region.read", false, &range) < 0)
		return NULL;
	PyObject *bytes = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)range.length);
	int status = bytes ? read_range(as_raw(self), &range, PyBytes_AS_STRING(bytes), &gone) : DRP_OK;
	raw_region_leave(as_raw(self));
	if (status != DRP_OK) {
		Py_CLEAR(bytes);
		raw_region_raise(as_raw(self), status, "Region.read", &gone);
	}
	return bytes;
}

/* Enters the region for the bytes of buffer at start. On -1 the buffer is released and nothing left to undo. */
static int enter_buffer(PyObject *self, PyObject *start_object, const char *what, bool whole_pages, Py_buffer *buffer,
			struct byte_range *out)
{
	Py_ssize_t start;

	if (raw_region_read_bytes(what, "start", start_object, &start) < 0)
		goto err_release;
	if (!raw_region_enter(as_raw(self)))
		goto err_release;
	if (start > PY_SSIZE_T_MAX - buffer->len)
		PyErr_Format(PyExc_ValueError, "%s: %zd bytes from byte %zd on do not lie in a region of %zd bytes", what, buffer->len,
			     start, (Py_ssize_t)region_length(as_raw(self)->region));
	else if (raw_region_check_range(as_raw(self), what, start, start + buffer->len, whole_pages, out) == 0)
		return 0;
	raw_region_leave(as_raw(self));
err_release:
	PyBuffer_Release(buffer);
	return -1;
}

static void leave_buffer(PyObject *self, Py_buffer *buffer)
{
	raw_region_leave(as_raw(self));
	PyBuffer_Release(buffer);
}

static PyObject *raw_read_into(PyObject *self, PyObject *args)
{
	struct region_gone gone = {0};
	struct byte_range range;
	PyObject *start;
	Py_buffer buffer;

	if (!PyArg_ParseTuple(args, "w*O:read_into", &buffer, &start) ||
	    enter_buffer(self, start, "Region.read_into", false, &buffer, &range) < 0)
		return NULL;
	int status = read_range(as_raw(self), &range, buffer.buf, &gone);
	leave_buffer(self, &buffer);
	if (status != DRP_OK)
		return raw_region_raise(as_raw(self), status, "Region.read_into", &gone);
	Py_RETURN_NONE;
}

static PyObject *raw_write(PyObject *self, PyObject *args)
{
	struct region *region;
	struct region_gone gone = {0};
	struct byte_range range;
	int status = DRP_OK;
	PyObject *start;
	Py_buffer buffer;

	if (!PyArg_ParseTuple(args, "Oy*:write", &start, &buffer) ||
	    enter_buffer(self, start, "Region.write", false, &buffer, &range) < 0)
		return NULL;
	region = as_raw(self)->region;
	if (range.length >= WITHOUT_GIL_BYTES) {
		Py_BEGIN_ALLOW_THREADS
		status = region_write(region, range.start, buffer.buf, range.length, &gone);
		Py_END_ALLOW_THREADS
	} else if (range.length > 0) {
		status = region_write(region, range.start, buffer.buf, range.length, &gone);
	}
	leave_buffer(self, &buffer);
	if (status != DRP_OK)
		return raw_region_raise(as_raw(self), status, "Region.write", &gone);
	Py_RETURN_NONE;
}

static PyObject *raw_refill(PyObject *self, PyObject *args)
{
	struct region_gone gone = {0};
	struct byte_range range;
	size_t filled_bytes = 0;
	int status = DRP_OK;
	PyObject *start;
	Py_buffer buffer;

	if (!PyArg_ParseTuple(args, "Oy*:refill", &start, &buffer) ||
	    enter_buffer(self, start, "Region.refill", true, &buffer, &range) < 0)
		return NULL;
	if (as_raw(self)->options.on_drop != REGION_SIGNAL) {
		leave_buffer(self, &buffer);
		PyErr_SetString(PyExc_ValueError, "Region.refill: only with on_drop='signal'; use write()");
		return NULL;
	}
	Py_BEGIN_ALLOW_THREADS
	if (range.length > 0)
		status = region_refill(as_raw(self)->region, range.start, buffer.buf, range.length, &filled_bytes);
	Py_END_ALLOW_THREADS
	leave_buffer(self, &buffer);
	if (status != DRP_OK)
		return raw_region_raise(as_raw(self), status, "Region.refill", &gone);
	return PyLong_FromSize_t(filled_bytes);
}

static PyObject *call_range(PyObject *self, PyObject *args, int (*call)(struct region *, size_t, size_t),
			    const char *what, bool whole_pages)
{
	struct region_gone gone = {0};
	struct byte_range range;
	int status = DRP_OK;

	if (enter_range(self, args, what, whole_pages, &range) < 0)
		return NULL;
	Py_BEGIN_ALLOW_THREADS
	if (range.length > 0)
		status = call(as_raw(self)->region, range.start, range.length);
	Py_END_ALLOW_THREADS
	raw_region_leave(as_raw(self));
	if (status != DRP_OK)
		return raw_region_raise(as_raw(self), status, what, &gone);
	Py_RETURN_NONE;
}

static PyObject *raw_settle(PyObject *self, PyObject *args)
{
	return call_range(self, args, region_settle, "Region.settle", false);
}

static PyObject *raw_purge(PyObject *self, PyObject *args)
{
	return call_range(self, args, region_purge, "Region.purge", true);
}

static PyObject *raw_page_out(PyObject *self, PyObject *args)
{
	return call_range(self, args, region_page_out, "Region.page_out", true);
}

/* (pages, resident, zero, absent, dropped, exact, ((start, stop), ...)) */
static PyObject *raw_census(PyObject *self, PyObject *args)
{
	struct region_census census = {.pages.exact = true};
	struct region_gone gone = {0};
	struct byte_range range;
	int status = DRP_OK;

	if (enter_range(self, args, "Region.census", true, &range) < 0)
		return NULL;
	Py_BEGIN_ALLOW_THREADS
	if (range.length > 0)
		status = region_census(as_raw(self)->region, range.start, range.length, &census, &gone);
	Py_END_ALLOW_THREADS
	raw_region_leave(as_raw(self));
	if (status != DRP_OK)
		return raw_region_raise(as_raw(self), status, "Region.census", &gone);
	PyObject *ranges = PyTuple_New((Py_ssize_t)gone.count);
	for (size_t i = 0; ranges && i < gone.count; i++) {
		PyObject *pair = Py_BuildValue("(nn)", (Py_ssize_t)gone.ranges[i].start, (Py_ssize_t)gone.ranges[i].stop);
		if (!pair)
			Py_CLEAR(ranges);
		else
			PyTuple_SET_ITEM(ranges, (Py_ssize_t)i, pair);
	}
	region_gone_free(&gone);
	if (!ranges)
		return NULL;
	return Py_BuildValue("(nnnnnNN)", (Py_ssize_t)census.pages.pages, (Py_ssize_t)census.pages.resident_pages,
			     (Py_ssize_t)census.pages.zero_pages, (Py_ssize_t)census.pages.absent_pages,
			     (Py_ssize_t)census.dropped_pages, PyBool_FromLong(census.pages.exact), ranges);
}

static PyObject *raw_page_states(PyObject *self, PyObject *args)
{
	struct region_gone gone = {0};
	struct byte_range range;
	int status = DRP_OK;

	if (enter_range(self, args, "Region.page_states", true, &range) < 0)
		return NULL;
	PyObject *states = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)(range.length / prim_page_size()));
	if (!states) {
		raw_region_leave(as_raw(self));
		return NULL;
	}
	unsigned char *bytes = (unsigned char *)PyBytes_AS_STRING(states);
	Py_BEGIN_ALLOW_THREADS
	if (range.length > 0)
		status = region_page_states(as_raw(self)->region, range.start, range.length, bytes);
	Py_END_ALLOW_THREADS
	raw_region_leave(as_raw(self));
	if (status != DRP_OK) {
		Py_DECREF(states);
		return raw_region_raise(as_raw(self), status, "Region.page_states", &gone);
	}
	return states;
}

static int raw_getbuffer(PyObject *self, Py_buffer *view, int flags)
{
	struct raw_region *raw = as_raw(self);

	view->obj = NULL;
	if (raw->options.on_drop == REGION_RAISE) {
		PyErr_SetString(PyExc_BufferError, "a bare view of a region with on_drop='raise' could not tell what was dropped; "
				"use reading(), writing() or pin()");
		return -1;
	}
	if (!raw_region_enter(raw))
		return -1;
	if (!atomic_load(&raw->exposed)) { /* twice does no harm; before it is done nobody gets the memory */
		prim_best_effort(region_expose(raw->region)); /* settling then costs more */
		atomic_store(&raw->exposed, true);
	}
	if (PyBuffer_FillInfo(view, self, region_memory(raw->region), (Py_ssize_t)region_length(raw->region), 0, flags) < 0) {
		raw_region_leave(raw);
		return -1;
	}
	return 0;
}

static void raw_releasebuffer(PyObject *self, Py_buffer *Py_UNUSED(view))
{
	raw_region_leave(as_raw(self));
}

static Py_ssize_t raw_length(PyObject *self)
{
	if (!raw_region_enter(as_raw(self)))
		return -1;
	Py_ssize_t length = (Py_ssize_t)region_length(as_raw(self)->region);
	raw_region_leave(as_raw(self));
	return length;
}

static PyObject *raw_get_address(PyObject *self, void *Py_UNUSED(closure))
{
	if (!raw_region_enter(as_raw(self)))
		return NULL;
	PyObject *address = PyLong_FromVoidPtr(region_memory(as_raw(self)->region));
	raw_region_leave(as_raw(self));
	return address;
}

static PyObject *raw_get_backing(PyObject *self, void *Py_UNUSED(closure))
{
	if (!raw_region_enter(as_raw(self)))
		return NULL;
	PyObject *name = PyUnicode_FromString(backing_names[region_backing(as_raw(self)->region)]);
	raw_region_leave(as_raw(self));
	return name;
}

static PyObject *raw_get_on_drop(PyObject *self, void *Py_UNUSED(closure))
{
	return PyUnicode_FromString(on_drop_names[as_raw(self)->options.on_drop]);
}

static PyObject *raw_get_fork(PyObject *self, void *Py_UNUSED(closure))
{
	return PyUnicode_FromString(fork_names[as_raw(self)->options.keep_on_fork]);
}

static PyObject *raw_get_name(PyObject *self, void *Py_UNUSED(closure))
{
	return Py_NewRef(as_raw(self)->name);
}

static PyObject *raw_get_closed(PyObject *self, void *Py_UNUSED(closure))
{
	return PyBool_FromLong(atomic_load(&as_raw(self)->users) == CLOSED);
}

static PyMethodDef raw_methods[] = {
	{"read", raw_read, METH_VARARGS, PyDoc_STR("read($self, start, stop, /)\n--\n\nCopies bytes out.")},
	{"read_into", raw_read_into, METH_VARARGS, PyDoc_STR(
		"read_into($self, buffer, start, /)\n--\n\nCopies as many bytes as the buffer has.")},
	{"write", raw_write, METH_VARARGS, PyDoc_STR("write($self, start, data, /)\n--\n\nCopies bytes in.")},
	{"refill", raw_refill, METH_VARARGS, PyDoc_STR(
		"refill($self, start, data, /)\n--\n\nMakes absent pages live; the bytes that were filled.")},
	{"settle", raw_settle, METH_VARARGS, PyDoc_STR(
		"settle($self, start, stop, /)\n--\n\nLets the kernel take what was written.")},
	{"purge", raw_purge, METH_VARARGS, PyDoc_STR("purge($self, start, stop, /)\n--\n\nGives content up.")},
	{"page_out", raw_page_out, METH_VARARGS, PyDoc_STR(
		"page_out($self, start, stop, /)\n--\n\nAsks the kernel to drop whole pages now.")},
	{"census_counts", raw_census, METH_VARARGS, PyDoc_STR(
		"census_counts($self, start, stop, /)\n--\n\nPages, and the ranges that were dropped.")},
	{"page_states", raw_page_states, METH_VARARGS, PyDoc_STR(
		"page_states($self, start, stop, /)\n--\n\nOne byte a whole page.")},
	{"hold", raw_region_hold, METH_VARARGS, PyDoc_STR(
		"hold($self, kind, start, stop, /)\n--\n\nA RegionHold of kind 'read', 'write' or 'pin'.")},
	{"resize", raw_resize, METH_O, PyDoc_STR("resize($self, length, /)\n--\n\nGrows or shrinks.")},
	{"close", raw_close, METH_NOARGS, PyDoc_STR("close($self, /)\n--\n\nUnmaps; twice is fine.")},
	{NULL, NULL, 0, NULL},
};

static PyGetSetDef raw_getset[] = {
	{"address", raw_get_address, NULL, PyDoc_STR("Where it starts, as in /proc/self/smaps; resize() may change it."),
	 NULL},
	{"backing", raw_get_backing, NULL, PyDoc_STR("'lazyfree' or 'droppable': what \"auto\" came to."), NULL},
	{"on_drop", raw_get_on_drop, NULL, PyDoc_STR("'zero', 'raise' or 'signal'."), NULL},
	{"fork", raw_get_fork, NULL, PyDoc_STR("'wipe' or 'share'."), NULL},
	{"name", raw_get_name, NULL, PyDoc_STR("The name that messages use, or None."), NULL},
	{"closed", raw_get_closed, NULL, PyDoc_STR("Whether close() was called."), NULL},
	{NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot raw_slots[] = {
	{Py_tp_doc, PyDoc_STR("RawRegion(length, on_drop='zero', backing='auto', fork='wipe', name=None)\n--\n\n"
			      "The C core's region; droppable.Region is made of it and says what all of it means.")},
	{Py_tp_new, raw_new},
	{Py_tp_dealloc, raw_dealloc},
	{Py_tp_methods, raw_methods},
	{Py_tp_getset, raw_getset},
	{Py_mp_length, raw_length},
	{Py_bf_getbuffer, raw_getbuffer},
	{Py_bf_releasebuffer, raw_releasebuffer},
	{0, NULL},
};

static PyType_Spec raw_spec = {
	.name = "droppable.lowlevel.RawRegion",
	.basicsize = sizeof(struct raw_region),
	.flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_IMMUTABLETYPE,
	.slots = raw_slots,
};

int core_add_region(PyObject *module)
{
	if (core_add_region_hold(module) < 0)
		return -1;
	PyObject *type = PyType_FromModuleAndSpec(module, &raw_spec, NULL);
	if (!type || PyModule_AddObjectRef(module, "RawRegion", type) < 0)
		return -1;
	Py_DECREF(type);
	return 0;
}
