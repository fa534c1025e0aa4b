/*
 * probe.c - what this kernel really does (probe.h), and how much memory is left (prim_headroom), for
 * droppable.features() and for the memory figures of a cgroup.
 */
#include "module.h"

#include <string.h>

#include "os/prim.h"
#include "os/probe.h"

static const char *const probe_names[] = {
	[PROBE_LAZYFREE] = "lazyfree",         [PROBE_DROPPABLE] = "droppable",
	[PROBE_PAGE_OUT] = "page_out",         [PROBE_COLD] = "cold",
	[PROBE_WIPE_ON_FORK] = "wipe_on_fork", [PROBE_EXACT_CENSUS] = "exact_census",
	[PROBE_SIGNAL] = "signal",
};
_Static_assert(sizeof(probe_names) / sizeof(probe_names[0]) == PROBE_COUNT, "one name a probe");

static const char *const finding_names[] = {
	[PROBE_WORKS] = "works",
	[PROBE_UNPROVEN] = "unproven",
	[PROBE_CALL_FAILED] = "call_failed",
	[PROBE_LOST_AT_ONCE] = "lost_at_once",
	[PROBE_NEVER_DROPPED] = "never_dropped",
	[PROBE_NO_FAULT] = "no_fault",
};

static PyObject *kernel_probe(PyObject *Py_UNUSED(module), PyObject *name)
{
	struct probe_result result;
	int probe = 0;

	const char *wanted = PyUnicode_Check(name) ? PyUnicode_AsUTF8(name) : NULL;
	if (!wanted)
		return PyErr_Occurred() ? NULL : PyErr_Format(PyExc_TypeError, "probe: name must be a str");
	while (probe < PROBE_COUNT && strcmp(wanted, probe_names[probe]) != 0)
		probe++;
	if (probe == PROBE_COUNT)
		return PyErr_Format(PyExc_ValueError, "probe: there is none called %R", name);
	Py_BEGIN_ALLOW_THREADS
	result = probe_kernel((enum probe)probe);
	Py_END_ALLOW_THREADS
	return Py_BuildValue("Osi", result.available ? Py_True : Py_False, finding_names[result.finding], result.error);
}

/* In the order of enum prim_unread. */
static const char *const unread_names[] = {"", "membership", "outside", "group", "machine"};

static PyObject *headroom(PyObject *module, PyObject *Py_UNUSED(ignored))
{
	struct prim_headroom room;
	int status;

	Py_BEGIN_ALLOW_THREADS
	status = prim_headroom(&room);
	Py_END_ALLOW_THREADS
	if (status != 0)
		return core_raise(status, "headroom");
	PyObject *result = PyStructSequence_New(core_of_module(module)->headroom_type);
	if (!result)
		return NULL;
	PyStructSequence_SetItem(result, 0, room.limit_bytes == UINT64_MAX ? Py_NewRef(Py_None)
									   : PyLong_FromUnsignedLongLong(room.limit_bytes));
	PyStructSequence_SetItem(result, 1, PyLong_FromUnsignedLongLong(room.usage_bytes));
	PyStructSequence_SetItem(result, 2, PyLong_FromUnsignedLongLong(room.reclaimable_bytes));
	PyStructSequence_SetItem(result, 3, PyBool_FromLong(room.slows));
	PyStructSequence_SetItem(result, 4, PyBool_FromLong(room.is_free));
	PyStructSequence_SetItem(result, 5, PyUnicode_FromString(unread_names[room.unread]));
	PyStructSequence_SetItem(result, 6, PyLong_FromLong(room.unread_errno));
	if (PyErr_Occurred())
		Py_CLEAR(result);
	return result;
}

static PyStructSequence_Field headroom_fields[] = {
	{"limit_bytes", "the limit, or None where there is none"},
	{"usage_bytes", "what counts against it now"},
	{"reclaimable_bytes", "what of that sits on the file LRUs, where clean droppable memory is too"},
	{"slows", "whether that limit is memory.high, which slows down instead of killing"},
	{"is_free", "whether at every level much is free, or page cache that nobody misses"},
	{"unread", "what could not be read, so that there may be another limit: membership, outside, group, machine; or empty"},
	{"unread_errno", "why, or 0"},
	{NULL, NULL},
};

static PyStructSequence_Desc headroom_desc = {
	.name = "droppable.lowlevel.Headroom",
	.doc = "The tightest of what limits this process's memory: its cgroup, those above, and the machine.",
	.fields = headroom_fields,
	.n_in_sequence = 7,
};

static PyMethodDef functions[] = {
	{"probe", kernel_probe, METH_O, PyDoc_STR(
		"probe($module, name, /)\n--\n\n"
		"Tries what the kernel does, by errno and by content, once a process: (available, finding, errno or 0).\n\n"
		"name: lazyfree, droppable, page_out, cold, wipe_on_fork, exact_census or signal.\n"
		"finding: works, unproven, call_failed, lost_at_once, never_dropped or no_fault (csrc/os/probe.h).")},
	{"headroom", headroom, METH_NOARGS, PyDoc_STR(
		"headroom($module, /)\n--\n\n"
		"How much this process could allocate before reclaim finds nothing, read from the kernel's files now.")},
	{NULL, NULL, 0, NULL},
};

int core_add_probe(PyObject *module)
{
	PyTypeObject *type = PyStructSequence_NewType(&headroom_desc);

	core_of_module(module)->headroom_type = type;
	if (!type || PyModule_AddObjectRef(module, "Headroom", (PyObject *)type) < 0)
		return -1;
	return PyModule_AddFunctions(module, functions);
}
