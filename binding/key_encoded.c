/*
 * key_encoded.c - lowlevel.EncodedKey: a key that was encoded already, as a bytes object. Every method of a cache takes one
 * instead of the key. So a key is encoded once, before anybody's function runs, and what that function changes in the
 * objects that the key was made of does not matter for where its result is stored.
 *
 * Only the encoding makes them, so their bytes are always those of a key. See key.h for the format.
 */
#include "key.h"

PyObject *key_as_object(const struct key *key)
{
	PyTypeObject *type = key->core->encoded_key_type;
	PyObject *arguments = Py_BuildValue("(y#)", (const char *)key->data, (Py_ssize_t)key->bytes);
	PyObject *object = arguments ? PyBytes_Type.tp_new(type, arguments, NULL) : NULL;
	Py_XDECREF(arguments);
	return object;
}

int key_append_encoded(struct key *key, PyObject *encoded)
{
	const char *data = PyBytes_AS_STRING(encoded);

	key->bytes = key->start;
	return key_append(key, data[0], data + 1, (size_t)PyBytes_GET_SIZE(encoded) - 1);
}

static PyObject *encoded_new(PyTypeObject *type, PyObject *arguments, PyObject *keywords)
{
	static char *names[] = {"", "scope", NULL};
	struct core_state *core = core_of_type(type);
	PyObject *object, *scope_object = NULL, *result = NULL;
	uint64_t scope;
	struct key key;

	if (!core || !PyArg_ParseTupleAndKeywords(arguments, keywords, "O|O", names, &object, &scope_object) ||
	    key_read_scope(scope_object, &scope) < 0)
		return NULL;
	if (scope == SCOPE_NONE && Py_IS_TYPE(object, core->encoded_key_type))
		return Py_NewRef(object);
	if (key_encode_scoped(core, &key, object, scope) == 0)
		result = key_as_object(&key);
	key_free(&key);
	return result;
}

static PyObject *encoded_reduce(PyObject *self, PyObject *unused)
{
	(void)unused;
	return PyErr_Format(PyExc_TypeError, "%s cannot be pickled: digests differ from process to process; give the key itself",
			    Py_TYPE(self)->tp_name);
}

static PyMethodDef encoded_methods[] = {
	{"__reduce__", encoded_reduce, METH_NOARGS, NULL},
	{NULL, NULL, 0, NULL},
};

static PyType_Slot encoded_slots[] = {
	{Py_tp_doc,
	 "EncodedKey(key, /, scope=None)\n--\n\n"
	 "The key as bytes. Every method of a cache takes it instead of the key, unchanged. With a scope (of `new_scope`) it is\n"
	 "another key than without, and than with any other scope; a cache's iteration goes without those.\n\n"
	 "Raises:\n    TypeError: the key cannot be hashed or pickled, or scope is not bytes.\n"
	 "    ValueError: scope is not 8 bytes."},
	{Py_tp_new, encoded_new},
	{Py_tp_methods, encoded_methods},
	{0, NULL},
};

static PyType_Spec encoded_spec = {
	.name = "droppable.lowlevel.EncodedKey",
	.flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
	.slots = encoded_slots,
};

static PyObject *encode_key(PyObject *module, PyObject *object)
{
	struct key key;
	PyObject *bytes = NULL;

	if (key_encode(core_of_module(module), &key, object) == 0)
		bytes = PyBytes_FromStringAndSize((const char *)key.data, (Py_ssize_t)key.bytes);
	key_free(&key);
	return bytes;
}

static PyMethodDef functions[] = {
	{"encode_key", encode_key, METH_O,
	 "encode_key(key, /)\n--\n\nThe bytes by which a cache compares this key: its type and its value."},
	{"new_scope", key_new_scope, METH_NOARGS,
	 "new_scope()\n--\n\n8 bytes that were no scope in this process before. Any thread; a forked child has others."},
	{NULL, NULL, 0, NULL},
};

int core_add_key(PyObject *module)
{
	if (PyModule_AddFunctions(module, functions) < 0)
		return -1;
	PyObject *type = PyType_FromModuleAndSpec(module, &encoded_spec, (PyObject *)&PyBytes_Type);

	core_of_module(module)->encoded_key_type = (PyTypeObject *)type;
	return type ? PyModule_AddObjectRef(module, "EncodedKey", type) : -1;
}
