/*
 * module.c - the extension module droppable._core: calls each file of the binding to add its part.
 *
 * droppable.lowlevel is the only Python module that imports it.
 */
#include "module.h"

static int core_exec(PyObject *module)
{
	if (core_add_errors(module) < 0)
		return -1;
	if (core_add_pickle(module) < 0 || core_add_pin(module) < 0 || core_add_array(module) < 0)
		return -1;
	if (core_add_cache(module) < 0 || core_add_memo(module) < 0)
		return -1;
	if (core_add_prim(module) < 0)
		return -1;
	if (core_add_probe(module) < 0)
		return -1;
	if (core_add_random(module) < 0 || core_add_random_block(module) < 0)
		return -1;
	if (core_add_region(module) < 0)
		return -1;
	return 0;
}

static PyModuleDef_Slot core_slots[] = {
	{Py_mod_exec, core_exec},
#ifdef Py_mod_multiple_interpreters
	{Py_mod_multiple_interpreters, Py_MOD_MULTIPLE_INTERPRETERS_NOT_SUPPORTED},
#endif
#ifdef Py_mod_gil
	{Py_mod_gil, Py_MOD_GIL_NOT_USED},
#endif
	{0, NULL},
};

static struct PyModuleDef core_module = {
	PyModuleDef_HEAD_INIT,
	.m_name = "droppable._core",
	.m_doc = "The binding to the C core. Use droppable or droppable.lowlevel instead.",
	.m_slots = core_slots,
};

PyMODINIT_FUNC PyInit__core(void)
{
	return PyModuleDef_Init(&core_module);
}
