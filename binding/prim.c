/*
 * prim.c - the class Mapping: one mapping of prim.h as a Python object, for tests, experiments and the curious. The
 * caches do not use it; Region and the engine have their own way to prim.
 *
 * Lifetime. users counts the exported buffers and the calls that run without the GIL; CLOSED says that the range is
 * unmapped or about to be. close() wins only by moving users from 0 to CLOSED, so a range never goes while someone
 * touches it, with the GIL or without.
 *
 *   CLOSED (-1) <--- close, dealloc --- 0 <---> 1, 2, ...   buffers and running calls
 */
#include "module.h"

#include <stdatomic.h>
#include <string.h>

#include "droppable.h"
#include "os/prim.h"
#include "os/prim_end.h"

enum { CLOSED = -1 };

struct mapping {
	PyObject_HEAD
	char *address;
	size_t length;
	enum prim_backing backing;
	_Atomic Py_ssize_t users;
};

static const char *const backing_names[] = {
	[PRIM_LAZYFREE] = "lazyfree", [PRIM_DROPPABLE] = "droppable", [PRIM_PLAIN] = "plain"};
enum { BACKING_COUNT = sizeof(backing_names) / sizeof(backing_names[0]) };

static struct mapping *as_mapping(PyObject *self)
{
	return (struct mapping *)self;
}

static bool mapping_enter(struct mapping *mapping)
{
	Py_ssize_t users = atomic_load(&mapping->users);
	do {
		if (users == CLOSED) {
			core_raise(DRP_CLOSED, "Mapping");
			return false;
		}
	} while (!atomic_compare_exchange_weak(&mapping->users, &users, users + 1));
	return true;
}

static void mapping_leave(struct mapping *mapping)
{
	atomic_fetch_sub(&mapping->users, 1);
}

static int backing_of_name(const char *name, enum prim_backing *out)
{
	for (int i = 0; i < BACKING_COUNT; i++)
		if (strcmp(name, backing_names[i]) == 0) {
			*out = (enum prim_backing)i;
			return 0;
		}
	PyErr_Format(PyExc_ValueError, "backing must be 'lazyfree', 'droppable' or 'plain', not '%s'", name);
	return -1;
}

static PyObject *mapping_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
	static char *names[] = {"length", "backing", "keep_on_fork", "huge_pages", "dumpable", NULL};
	const char *backing_name = backing_names[PRIM_LAZYFREE];
	int keep_on_fork = 0, huge_pages = 0, dumpable = 0;
	enum prim_backing backing;
	Py_ssize_t length;
	void *address;

	if (!PyArg_ParseTupleAndKeywords(args, kwargs, "n|s$ppp:Mapping", names, &length, &backing_name, &keep_on_fork,
					 &huge_pages, &dumpable) ||
	    backing_of_name(backing_name, &backing) < 0)
		return NULL;
	if (length <= 0 || (size_t)length % prim_page_size() != 0)
		return PyErr_Format(PyExc_ValueError, "length must be a positive multiple of %zu bytes, one OS page, not %zd",
				    prim_page_size(), length);

	struct mapping *self = as_mapping(type->tp_alloc(type, 0));
	if (!self)
		return NULL;
	atomic_init(&self->users, CLOSED);
	unsigned flags = (keep_on_fork ? PRIM_KEEP_ON_FORK : 0u) | (huge_pages ? PRIM_HUGE_PAGES : 0u) |
			 (dumpable ? PRIM_DUMPABLE : 0u);
	int status = prim_map(backing, (size_t)length, flags, &address);
	if (status != DRP_OK) {
		core_raise(status, "Mapping");
		Py_DECREF(self);
		return NULL;
	}
	self->address = address;
	self->length = (size_t)length;
	self->backing = backing;
	atomic_store(&self->users, 0);
	return (PyObject *)self;
}

/* Unmaps if nobody uses the range; false if somebody does. Closing twice is fine. */
static bool mapping_try_close(struct mapping *self)
{
	Py_ssize_t users = 0;
	if (!atomic_compare_exchange_strong(&self->users, &users, CLOSED))
		return users == CLOSED;
	Py_BEGIN_ALLOW_THREADS /* long, where there is much */
	prim_end(self->address, self->length);
	Py_END_ALLOW_THREADS
	return true;
}

static void mapping_dealloc(PyObject *self)
{
	PyTypeObject *type = Py_TYPE(self);
	mapping_try_close(as_mapping(self)); /* every buffer and every running call holds a reference: users is 0 */
	type->tp_free(self);
	Py_DECREF(type);
}

static PyObject *mapping_close(PyObject *self, PyObject *Py_UNUSED(ignored))
{
	if (!mapping_try_close(as_mapping(self))) {
		PyErr_SetString(PyExc_BufferError, "Mapping.close: release its memoryviews first");
		return NULL;
	}
	Py_RETURN_NONE;
}

static PyObject *mapping_self(PyObject *self, PyObject *Py_UNUSED(ignored))
{
	if (!mapping_enter(as_mapping(self)))
		return NULL;
	mapping_leave(as_mapping(self));
	return Py_NewRef(self);
}

static PyObject *mapping_exit(PyObject *self, PyObject *Py_UNUSED(args))
{
	return mapping_close(self, NULL);
}

static int mapping_getbuffer(PyObject *self, Py_buffer *view, int flags)
{
	struct mapping *mapping = as_mapping(self);
	if (!mapping_enter(mapping)) {
		view->obj = NULL;
		return -1;
	}
	if (PyBuffer_FillInfo(view, self, mapping->address, (Py_ssize_t)mapping->length, 0, flags) < 0) {
		mapping_leave(mapping);
		return -1;
	}
	return 0;
}

static void mapping_releasebuffer(PyObject *self, Py_buffer *Py_UNUSED(view))
{
	mapping_leave(as_mapping(self));
}

/* A part of the mapping, parsed from (offset=0, length=None). */
struct part {
	char *address;
	size_t length;
};

static int part_check(const struct mapping *mapping, Py_ssize_t offset, PyObject *length_or_none, bool whole_pages,
		      struct part *out)
{
	const size_t page = prim_page_size();
	Py_ssize_t total = (Py_ssize_t)mapping->length, length = total - offset;

	if (length_or_none != Py_None) {
		length = PyNumber_AsSsize_t(length_or_none, PyExc_OverflowError);
		if (length == -1 && PyErr_Occurred())
			return -1;
	}
	if (offset < 0 || offset >= total || length <= 0 || length > total - offset) {
		PyErr_Format(PyExc_ValueError, "offset %zd and length %zd do not lie in a mapping of %zd bytes", offset,
			     length, total);
		return -1;
	}
	if (whole_pages && ((size_t)offset % page != 0 || (size_t)length % page != 0)) {
		PyErr_Format(PyExc_ValueError, "offset %zd and length %zd must be multiples of %zu bytes, one OS page",
			     offset, length, page);
		return -1;
	}
	*out = (struct part){mapping->address + offset, (size_t)length};
	return 0;
}

static int part_parse(PyObject *self, PyObject *args, PyObject *kwargs, bool whole_pages, struct part *out)
{
	static char *names[] = {"offset", "length", NULL};
	PyObject *length = Py_None;
	Py_ssize_t offset = 0;

	if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|nO", names, &offset, &length))
		return -1;
	return part_check(as_mapping(self), offset, length, whole_pages, out);
}

/* The calls that reach the kernel may take long on a large range: they run without the GIL. */
static PyObject *advise(PyObject *self, PyObject *args, PyObject *kwargs, int (*call)(void *, size_t), const char *what)
{
	struct part part;
	int status;

	if (part_parse(self, args, kwargs, true, &part) < 0 || !mapping_enter(as_mapping(self)))
		return NULL;
	Py_BEGIN_ALLOW_THREADS
	status = call(part.address, part.length);
	Py_END_ALLOW_THREADS
	mapping_leave(as_mapping(self));
	if (status != DRP_OK)
		return core_raise(status, what);
	Py_RETURN_NONE;
}

static PyObject *mapping_mark(PyObject *self, PyObject *args, PyObject *kwargs)
{
	return advise(self, args, kwargs, prim_mark, "Mapping.mark");
}

static PyObject *mapping_purge(PyObject *self, PyObject *args, PyObject *kwargs)
{
	return advise(self, args, kwargs, prim_purge, "Mapping.purge");
}

static PyObject *mapping_page_out(PyObject *self, PyObject *args, PyObject *kwargs)
{
	return advise(self, args, kwargs, prim_page_out, "Mapping.page_out");
}

static PyObject *mapping_cold(PyObject *self, PyObject *args, PyObject *kwargs)
{
	return advise(self, args, kwargs, prim_cold, "Mapping.cold");
}

static PyObject *mapping_pin(PyObject *self, PyObject *args, PyObject *kwargs)
{
	struct part part;

	if (part_parse(self, args, kwargs, false, &part) < 0 || !mapping_enter(as_mapping(self)))
		return NULL;
	Py_BEGIN_ALLOW_THREADS
	prim_pin(part.address, part.length);
	Py_END_ALLOW_THREADS
	mapping_leave(as_mapping(self));
	Py_RETURN_NONE;
}

static PyObject *mapping_fork_content(PyObject *self, PyObject *args, PyObject *kwargs)
{
	static char *names[] = {"keep", "offset", "length", NULL};
	PyObject *length = Py_None;
	Py_ssize_t offset = 0;
	struct part part;
	int keep;

	if (!PyArg_ParseTupleAndKeywords(args, kwargs, "p|nO:fork_content", names, &keep, &offset, &length) ||
	    part_check(as_mapping(self), offset, length, true, &part) < 0 || !mapping_enter(as_mapping(self)))
		return NULL;
	int status = prim_fork_content(part.address, part.length, keep);
	mapping_leave(as_mapping(self));
	if (status != DRP_OK)
		return core_raise(status, "Mapping.fork_content");
	Py_RETURN_NONE;
}

static int look(PyObject *self, const struct part *part, unsigned char *states, struct prim_census *census)
{
	int status;

	if (!mapping_enter(as_mapping(self)))
		return -1;
	Py_BEGIN_ALLOW_THREADS
	status = prim_census(part->address, part->length, states, census);
	Py_END_ALLOW_THREADS
	mapping_leave(as_mapping(self));
	if (status == DRP_OK)
		return 0;
	core_raise(status, "Mapping.census");
	return -1;
}

static PyObject *mapping_census(PyObject *self, PyObject *args, PyObject *kwargs)
{
	struct prim_census census;
	struct part part;

	if (part_parse(self, args, kwargs, true, &part) < 0 || look(self, &part, NULL, &census) < 0)
		return NULL;
	struct core_state *core = core_of_type(Py_TYPE(self));
	PyObject *result = core ? PyStructSequence_New(core->census_type) : NULL;
	if (!result)
		return NULL;
	PyStructSequence_SetItem(result, 0, PyLong_FromSize_t(census.pages));
	PyStructSequence_SetItem(result, 1, PyLong_FromSize_t(census.resident_pages));
	PyStructSequence_SetItem(result, 2, PyLong_FromSize_t(census.zero_pages));
	PyStructSequence_SetItem(result, 3, PyLong_FromSize_t(census.absent_pages));
	PyStructSequence_SetItem(result, 4, PyBool_FromLong(census.exact));
	if (PyErr_Occurred())
		Py_CLEAR(result);
	return result;
}

static PyObject *mapping_page_states(PyObject *self, PyObject *args, PyObject *kwargs)
{
	struct prim_census census;
	struct part part;

	if (part_parse(self, args, kwargs, true, &part) < 0)
		return NULL;
	PyObject *states = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)(part.length / prim_page_size()));
	if (states && look(self, &part, (unsigned char *)PyBytes_AS_STRING(states), &census) < 0)
		Py_CLEAR(states);
	return states;
}

static PyObject *mapping_get_address(PyObject *self, void *Py_UNUSED(closure))
{
	return PyLong_FromVoidPtr(as_mapping(self)->address);
}

static PyObject *mapping_get_backing(PyObject *self, void *Py_UNUSED(closure))
{
	return PyUnicode_FromString(backing_names[as_mapping(self)->backing]);
}

static PyObject *mapping_get_closed(PyObject *self, void *Py_UNUSED(closure))
{
	return PyBool_FromLong(atomic_load(&as_mapping(self)->users) == CLOSED);
}

static Py_ssize_t mapping_length(PyObject *self)
{
	return (Py_ssize_t)as_mapping(self)->length;
}

static PyObject *page_size_bytes(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(ignored))
{
	return PyLong_FromSize_t(prim_page_size());
}

#define PART_METHOD(name, doc) {#name, (PyCFunction)(void (*)(void))mapping_##name, METH_VARARGS | METH_KEYWORDS, doc}

static PyMethodDef mapping_methods[] = {
	PART_METHOD(mark, PyDoc_STR(
		"mark($self, /, offset=0, length=None)\n--\n\n"
		"Makes whole pages clean: reclaim may take them, least recently used first, until the next write.\n\n"
		"Raises UnsupportedError before Linux 4.12 and in sandboxes without MADV_FREE.")),
	PART_METHOD(purge, PyDoc_STR(
		"purge($self, /, offset=0, length=None)\n--\n\nGives whole pages back now; they read as zeros.")),
	PART_METHOD(page_out, PyDoc_STR(
		"page_out($self, /, offset=0, length=None)\n--\n\n"
		"Asks the kernel to drop whole pages now, without pressure or privilege.\n\n"
		"Best effort: a page that is referenced at that moment is skipped, a dirty lazyfree page stays or goes to\n"
		"swap. Raises UnsupportedError before Linux 5.4.")),
	PART_METHOD(cold, PyDoc_STR(
		"cold($self, /, offset=0, length=None)\n--\n\n"
		"Moves whole pages to where reclaim takes first. Raises UnsupportedError before Linux 5.4.")),
	PART_METHOD(pin, PyDoc_STR(
		"pin($self, /, offset=0, length=None)\n--\n\n"
		"Dirties every page that the bytes touch, without changing them: lazyfree pages stay until the next mark().\n\n"
		"A page that was dropped before comes back as zeros. No lasting effect on 'droppable'.")),
	PART_METHOD(fork_content, PyDoc_STR(
		"fork_content($self, /, keep, offset=0, length=None)\n--\n\n"
		"Keeps (copy-on-write) or wipes the content of whole pages in children forked from now on.\n\n"
		"Raises UnsupportedError for keep=True on 'droppable'.")),
	PART_METHOD(census, PyDoc_STR(
		"census($self, /, offset=0, length=None)\n--\n\nCounts whole pages by state; true only for the moment.")),
	PART_METHOD(page_states, PyDoc_STR(
		"page_states($self, /, offset=0, length=None)\n--\n\n"
		"One byte a page: 0 absent, 1 resident with content of its own, 2 the shared zero page (dropped or never\n"
		"written, then read). True only for the moment; without PAGEMAP_SCAN (Linux 6.7) 2 is told as 1.")),
	{"close", mapping_close, METH_NOARGS, PyDoc_STR(
		"close($self, /)\n--\n\nUnmaps the memory; twice is fine. Raises BufferError while memoryviews of it live.")},
	{"__enter__", mapping_self, METH_NOARGS, NULL},
	{"__exit__", mapping_exit, METH_VARARGS, NULL},
	{NULL, NULL, 0, NULL},
};

static PyGetSetDef mapping_getset[] = {
	{"address", mapping_get_address, NULL, PyDoc_STR("Where it starts, as in /proc/self/smaps."), NULL},
	{"backing", mapping_get_backing, NULL, PyDoc_STR("'lazyfree', 'droppable' or 'plain'."), NULL},
	{"closed", mapping_get_closed, NULL, PyDoc_STR("Whether close() has been called."), NULL},
	{NULL, NULL, NULL, NULL, NULL},
};

PyDoc_STRVAR(mapping_doc,
	"Mapping(length, backing='lazyfree', *, keep_on_fork=False, huge_pages=False, dumpable=False)\n--\n\n"
	"One anonymous mapping of zero bytes that the kernel may take back, as a writable buffer.\n\n"
	"length: bytes, a positive multiple of page_size_bytes(); nothing is reserved for it.\n"
	"backing: 'lazyfree' (droppable between mark() and the next write), 'droppable' (MAP_DROPPABLE, Linux 6.11,\n"
	"64-bit kernels) or 'plain' (never marked for you: for comparisons).\n"
	"keep_on_fork: children see the content; not with 'droppable'. 'plain' memory is always kept.\n"
	"huge_pages: allow them; a huge page is dropped whole. dumpable: leave it in core dumps.\n\n"
	"Raises UnsupportedError where the kernel has no such backing, MemoryError where address space is exhausted.\n"
	"All methods may be called from any thread and after a fork; the content is whatever was written last, or\n"
	"zeros, page by page.");

static PyType_Slot mapping_slots[] = {
	{Py_tp_doc, (void *)mapping_doc},
	{Py_tp_new, mapping_new},
	{Py_tp_dealloc, mapping_dealloc},
	{Py_tp_methods, mapping_methods},
	{Py_tp_getset, mapping_getset},
	{Py_sq_length, mapping_length},
	{Py_bf_getbuffer, mapping_getbuffer},
	{Py_bf_releasebuffer, mapping_releasebuffer},
	{0, NULL},
};

static PyType_Spec mapping_spec = {
	.name = "droppable.lowlevel.Mapping",
	.basicsize = sizeof(struct mapping),
	.flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
	.slots = mapping_slots,
};

static PyStructSequence_Field census_fields[] = {
	{"pages", "pages looked at"},
	{"resident_pages", "present, with content of their own"},
	{"zero_pages", "mapped to the shared zero page: dropped or never written, then read"},
	{"absent_pages", "not mapped, or swapped"},
	{"exact", "False where only mincore() was there: zero pages are then counted as resident"},
	{NULL, NULL},
};

static PyStructSequence_Desc census_desc = {
	.name = "droppable.lowlevel.Census",
	.doc = "Pages of a Mapping by state, at one moment.",
	.fields = census_fields,
	.n_in_sequence = 5,
};

static PyMethodDef functions[] = {
	{"page_size_bytes", page_size_bytes, METH_NOARGS, PyDoc_STR(
		"page_size_bytes($module, /)\n--\n\nBytes of one OS page.")},
	{NULL, NULL, 0, NULL},
};

int core_add_prim(PyObject *module)
{
	PyTypeObject *census_type = PyStructSequence_NewType(&census_desc);

	core_of_module(module)->census_type = census_type;
	if (!census_type || PyModule_AddObjectRef(module, "Census", (PyObject *)census_type) < 0)
		return -1;
	PyObject *type = PyType_FromModuleAndSpec(module, &mapping_spec, NULL);
	if (!type || PyModule_AddObjectRef(module, "Mapping", type) < 0)
		return -1;
	Py_DECREF(type);
	return PyModule_AddFunctions(module, functions);
}
