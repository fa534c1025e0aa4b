/*
 * random_block.c - makes a numpy.random.BitGenerator draw from a block of csrc/random/random_block.h.
 *
 * NumPy's generators take their numbers through a struct of C function pointers, which every BitGenerator shows in a
 * capsule. Its layout is part of NumPy's public C interface (numpy/random/bitgen.h) and is spelled out here, so that
 * neither building nor importing this needs NumPy.
 *
 *   droppable's BitGenerator (Python) -> numpy.random.BitGenerator .capsule -> struct bitgen -> random_block_uint64, ...
 *                                     -> a capsule that owns the block          .state ------> the block
 *
 * The Python object must hold both; a Generator holds the Python object.
 */
#include "module.h"

#include "droppable.h"
#include "random/random_block.h"

static const char bitgen_name[] = "BitGenerator"; /* NumPy's */
static const char block_name[] = "droppable.random_block";

struct bitgen {
	void *state;
	uint64_t (*next_uint64)(void *state);
	uint32_t (*next_uint32)(void *state);
	double (*next_double)(void *state);
	uint64_t (*next_raw)(void *state);
};

static void close_block(PyObject *capsule)
{
	random_block_close(PyCapsule_GetPointer(capsule, block_name));
}

static PyObject *install_block(PyObject *Py_UNUSED(module), PyObject *bitgen_capsule)
{
	struct bitgen *bitgen = PyCapsule_GetPointer(bitgen_capsule, bitgen_name);
	struct random_block *block;

	if (!bitgen)
		return NULL;
	int status = random_block_open(&block);
	if (status != DRP_OK)
		return core_raise(status, "random.BitGenerator");
	PyObject *owner = PyCapsule_New(block, block_name, close_block);
	if (!owner) {
		random_block_close(block);
		return NULL;
	}
	*bitgen = (struct bitgen){block, random_block_uint64, random_block_uint32, random_block_double,
				  random_block_uint64};
	return owner;
}

static PyMethodDef functions[] = {
	{"random_install_block", install_block, METH_O,
	 "random_install_block(capsule, /)\n--\n\nFills in NumPy's struct bitgen; returns the owner of the block."},
	{NULL, NULL, 0, NULL},
};

int core_add_random_block(PyObject *module)
{
	return PyModule_AddFunctions(module, functions);
}
