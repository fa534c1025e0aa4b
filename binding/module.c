/*
 * module.c - the extension module droppable._core: calls each file of the binding to add its part, and keeps their state.
 *
 * droppable.lowlevel is the only Python module that imports it.
 */
#include "module.h"

struct core_state *core_of_type(PyTypeObject *type)
{
	PyObject *module = PyType_GetModuleByDef(type, &core_module);
	return module ? core_of_module(module) : NULL;
}

static int core_exec(PyObject *module)
{
	if (core_add_errors(module) < 0)
		return -1;
	if (core_add_pickle(module) < 0 || core_add_pin(module) < 0 || core_add_array(module) < 0)
		return -1;
	if (core_add_key(module) < 0 || core_add_cache(module) < 0 || core_add_copy(module) < 0 ||
	    core_add_lease(module) < 0 || core_add_memo(module) < 0)
		return -1;
	if (core_add_prim(module) < 0 || core_add_exec(module) < 0)
		return -1;
	if (core_add_probe(module) < 0)
		return -1;
	if (core_add_random(module) < 0 || core_add_random_block(module) < 0)
		return -1;
	if (core_add_reader(module) < 0 || core_add_region(module) < 0)
		return -1;
	return 0;
}

static int core_traverse(PyObject *module, visitproc visit, void *arg)
{
	struct core_state *core = core_of_module(module);

	Py_VISIT(core->cache_type);
	Py_VISIT(core->pin_type);
	Py_VISIT(core->hold_type);
	Py_VISIT(core->census_type);
	Py_VISIT(core->headroom_type);
	Py_VISIT(core->encoded_key_type);
	Py_VISIT(core->lease_type);
	Py_VISIT(core->copy_type);
	Py_VISIT(core->memo_type);
	Py_VISIT(core->bound_memo_type);
	Py_VISIT(core->pickle_dumps);
	Py_VISIT(core->pickle_loads);
	Py_VISIT(core->uuid);
	Py_VISIT(core->keys);
	const int result = core_visit_numbers(core->numbers, visit, arg);
	return result ? result : core_visit_dtypes(core->dtypes, visit, arg);
}

/*
 * There is no m_clear: an object of ours may be called once more while the garbage that it is part of is taken apart, and
 * needs the state until it goes itself. Types let go of their module when they are cleared, which opens every cycle.
 */
static void core_free(void *module)
{
	struct core_state *core = core_of_module(module);

	if (!core)
		return; /* it was never executed */
	Py_CLEAR(core->cache_type);
	Py_CLEAR(core->pin_type);
	Py_CLEAR(core->hold_type);
	Py_CLEAR(core->census_type);
	Py_CLEAR(core->headroom_type);
	Py_CLEAR(core->encoded_key_type);
	Py_CLEAR(core->lease_type);
	Py_CLEAR(core->copy_type);
	Py_CLEAR(core->memo_type);
	Py_CLEAR(core->bound_memo_type);
	Py_CLEAR(core->pickle_dumps);
	Py_CLEAR(core->pickle_loads);
	Py_CLEAR(core->read_only_text);
	Py_CLEAR(core->uuid);
	Py_CLEAR(core->keys);
	core_free_dtypes(core->dtypes);
	core->dtypes = NULL;
	core_free_numbers(core->numbers);
	core->numbers = NULL;
}

static PyModuleDef_Slot core_slots[] = {
	{Py_mod_exec, core_exec},
#ifdef Py_mod_multiple_interpreters
	/* Those that share the main one's GIL. CPython refuses the import in others: where there is a GIL, the core lays a
	 * cache out for calls that seldom meet. */
	{Py_mod_multiple_interpreters, Py_MOD_MULTIPLE_INTERPRETERS_SUPPORTED},
#endif
#ifdef Py_mod_gil
	{Py_mod_gil, Py_MOD_GIL_NOT_USED},
#endif
	{0, NULL},
};

struct PyModuleDef core_module = {
	PyModuleDef_HEAD_INIT,
	.m_name = "droppable._core",
	.m_doc = "The binding to the C core. Use droppable or droppable.lowlevel instead.",
	.m_size = sizeof(struct core_state),
	.m_slots = core_slots,
	.m_traverse = core_traverse,
	.m_free = core_free,
};

PyMODINIT_FUNC PyInit__core(void)
{
	return PyModuleDef_Init(&core_module);
}
