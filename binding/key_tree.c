/*
 * key_tree.c - keys of any type, as a tree: sets in the order of their elements' bytes, other objects as what they are
 * taken apart into by src/droppable/_keys.py (by the rules of pickle, but as values: no marks for "the same object
 * again"). See key.h for the format.
 *
 *   Point(x=1, y={2, 3})  ->  o( copyreg.__newobj__, (Point,), d( ("x", 1), ("y", e(2, 3)) ) )
 *
 * The same object in two places would be encoded twice, and a chain of such objects, tuples and frozensets among them,
 * exponentially often. So what was encoded is remembered by object, and what is longer than KEY_LONGEST_BYTES becomes a digest at once: time is linear in
 * the objects, and a copy costs at most that many bytes.
 *
 * All containers are copied before their elements are looked at: the Python code of an element's class may change them.
 */
#include <stdlib.h>
#include <string.h>

#include "key.h"

enum {
	REMEMBERED_BYTES = 64, /* what is shorter is encoded again */
	IS_CYCLE = 2,
};

/* What is being encoded, innermost first: to find an object that contains itself. */
struct frame {
	PyObject *object;
	const struct frame *up;
};

struct tree {
	struct key *key;
	PyObject *remembered; /* address -> (object, its bytes), or NULL */
	int depth;
	bool digested;  /* some part is a digest: the key as a whole has no way back */
	bool in_parts;  /* the exception comes from taking an object apart, not from hash() */
};

/*
 * The module is looked up once: an import costs more than all the rest of a key, and another import would bring another
 * secret, with which long keys would not be found again.
 */
PyObject *key_helper(struct core_state *core, const char *name)
{
	PyObject **place = &core->keys, *known = __atomic_load_n(place, __ATOMIC_ACQUIRE);

	if (!known) {
		PyObject *found = PyImport_ImportModule("droppable._keys"), *nobody = NULL;
		if (!found)
			return NULL;
		if (!__atomic_compare_exchange_n(place, &nobody, found, false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE))
			Py_DECREF(found); /* another thread was faster */
		known = __atomic_load_n(place, __ATOMIC_ACQUIRE);
	}
	return PyObject_GetAttrString(known, name);
}

/* The digest of tag and data as 32 bytes at `to`. 0, or -1 with an exception. */
static int digest_of(struct core_state *core, char tag, PyObject *data, unsigned char *to)
{
	PyObject *function = key_helper(core, "digest");
	PyObject *result = function ? PyObject_CallFunction(function, "y#O", &tag, (Py_ssize_t)1, data) : NULL;
	Py_XDECREF(function);
	if (!result)
		return -1;
	memcpy(to, PyBytes_AS_STRING(result), KEY_DIGEST_BYTES);
	Py_DECREF(result);
	return 0;
}

int key_digest(struct key *key, size_t start)
{
	unsigned char digest[KEY_DIGEST_BYTES];
	PyObject *view = PyMemoryView_FromMemory((char *)key->data + start, (Py_ssize_t)(key->bytes - start), PyBUF_READ);
	int result = view ? digest_of(key->core, 'D', view, digest) : -1;

	Py_XDECREF(view);
	key->hashed_bytes += key->bytes - start;
	key->bytes = start;
	return result < 0 ? -1 : key_append(key, 'D', digest, sizeof(digest));
}

static int encode(struct tree *tree, PyObject *object, const struct frame *up, bool is_hashed);

static int append_element(struct tree *tree, PyObject *object, const struct frame *up, bool is_hashed)
{
	struct key *key = tree->key;
	const size_t at = key->bytes;
	uint32_t length;

	if (key_reserve(key, sizeof(length)) < 0)
		return -1;
	key->bytes += sizeof(length);
	int result = encode(tree, object, up, is_hashed);
	if (result == 0 && key->bytes - at - sizeof(length) > UINT32_MAX) {
		tree->digested = true;
		result = key_digest(key, at + sizeof(length));
	}
	length = (uint32_t)(key->bytes - at - sizeof(length));
	memcpy(key->data + at, &length, sizeof(length));
	return result;
}

/* items is a tuple or list that nobody else changes. */
static int append_elements(struct tree *tree, char tag, PyObject *items, const struct frame *up, bool is_hashed)
{
	const Py_ssize_t count = PySequence_Fast_GET_SIZE(items);
	int result = key_append_head(tree->key, tag, (size_t)count);

	for (Py_ssize_t i = 0; i < count && result == 0; i++)
		result = append_element(tree, PySequence_Fast_GET_ITEM(items, i), up, is_hashed);
	return result;
}

struct element {
	const unsigned char *data; /* of the key that it is; its length stands before it */
	uint32_t bytes;
};

static int compare_elements(const void *left, const void *right)
{
	const struct element *a = left, *b = right;
	int order = memcmp(a->data, b->data, a->bytes < b->bytes ? a->bytes : b->bytes);
	return order ? order : (a->bytes > b->bytes) - (a->bytes < b->bytes);
}

/* Puts the elements that were appended since `start` into the order of their bytes. */
static int sort_elements(struct key *key, size_t start, size_t count)
{
	const size_t bytes = key->bytes - start;
	unsigned char *copy = PyMem_Malloc(bytes);
	struct element *elements = PyMem_New(struct element, count);
	int result = -1;

	if (!copy || !elements) {
		PyErr_NoMemory();
		goto out;
	}
	memcpy(copy, key->data + start, bytes);
	const unsigned char *at = copy;
	for (size_t i = 0; i < count; i++) {
		memcpy(&elements[i].bytes, at, sizeof(elements[i].bytes));
		elements[i].data = at + sizeof(elements[i].bytes);
		at = elements[i].data + elements[i].bytes;
	}
	qsort(elements, count, sizeof(*elements), compare_elements);
	unsigned char *to = key->data + start;
	for (size_t i = 0; i < count; i++) {
		const size_t whole = sizeof(elements[i].bytes) + elements[i].bytes;
		memcpy(to, elements[i].data - sizeof(elements[i].bytes), whole);
		to += whole;
	}
	result = 0;
out:
	PyMem_Free(elements);
	PyMem_Free(copy);
	return result;
}

/* As append_elements(), in the order of their bytes. Takes over the reference to items, which may be NULL. */
static int append_sorted(struct tree *tree, char tag, PyObject *items, const struct frame *up, bool is_hashed)
{
	if (!items)
		return -1;
	const size_t start = tree->key->bytes + 1 + sizeof(uint32_t), count = (size_t)PySequence_Fast_GET_SIZE(items);
	int result = append_elements(tree, tag, items, up, is_hashed);
	if (result == 0 && count > 1)
		result = sort_elements(tree->key, start, count);
	Py_DECREF(items);
	return result;
}

static int append_list(struct tree *tree, PyObject *list, const struct frame *up)
{
	PyObject *items = PyList_AsTuple(list);
	int result = items ? append_elements(tree, 'l', items, up, false) : -1;
	Py_XDECREF(items);
	return result;
}

/* Classes and functions by name, everything else as its parts. */
static int append_parts(struct tree *tree, PyObject *object, const struct frame *up)
{
	Py_ssize_t length;
	PyObject *function = key_helper(tree->key->core, "take_apart");
	PyObject *parts = function ? PyObject_CallOneArg(function, object) : NULL;
	int result = -1;

	tree->in_parts = !parts;
	if (parts && PyTuple_CheckExact(parts)) {
		result = append_elements(tree, 'o', parts, up, false);
	} else if (parts) {
		const char *name = PyUnicode_AsUTF8AndSize(parts, &length);
		if (name)
			result = key_append(tree->key, 'g', name, (size_t)length);
	}
	Py_XDECREF(parts);
	Py_XDECREF(function);
	return result;
}

static int append_compound(struct tree *tree, PyObject *object, const struct frame *up)
{
	if (PyList_CheckExact(object))
		return append_list(tree, object, up);
	if (PyDict_CheckExact(object))
		return append_sorted(tree, 'd', PyDict_Items(object), up, false);
	if (Py_IS_TYPE(object, &PySet_Type))
		return append_sorted(tree, 'e', PySequence_List(object), up, false);
	return append_parts(tree, object, up);
}

/* Objects lie at even addresses. What a hashed tuple is made of was hashed too: another entry. */
static PyObject *name_of(PyObject *object, bool is_hashed)
{
	return PyLong_FromVoidPtr((char *)object + is_hashed);
}

/* 1 and what was encoded before is appended; 0: it was not; -1 with an exception. */
static int append_remembered(struct tree *tree, PyObject *object, bool is_hashed)
{
	if (!tree->remembered)
		return 0;
	PyObject *address = name_of(object, is_hashed);
	PyObject *known = address ? PyDict_GetItemWithError(tree->remembered, address) : NULL;
	Py_XDECREF(address);
	if (!known)
		return PyErr_Occurred() ? -1 : 0;
	const char *data = PyBytes_AS_STRING(PyTuple_GET_ITEM(known, 1));
	return key_append(tree->key, data[0], data + 1, (size_t)PyBytes_GET_SIZE(PyTuple_GET_ITEM(known, 1)) - 1) < 0 ? -1 : 1;
}

/* Holds the object, so that no other one comes to lie at its address meanwhile. */
static int remember(struct tree *tree, PyObject *object, bool is_hashed, size_t start)
{
	if (!tree->remembered)
		tree->remembered = PyDict_New();
	PyObject *address = tree->remembered ? name_of(object, is_hashed) : NULL;
	PyObject *known = address ? Py_BuildValue("(Oy#)", object, (const char *)tree->key->data + start,
						  (Py_ssize_t)(tree->key->bytes - start)) : NULL;
	int result = known ? PyDict_SetItem(tree->remembered, address, known) : -1;
	Py_XDECREF(address);
	Py_XDECREF(known);
	return result;
}

/* What was appended since start becomes a digest if it is long, and is remembered. The key itself needs neither. */
static int finish_part(struct tree *tree, PyObject *object, bool is_hashed, size_t start)
{
	const size_t bytes = tree->key->bytes - start;
	int result = 0;

	if (tree->depth == 1)
		return 0;
	if (bytes > KEY_LONGEST_BYTES) {
		tree->digested = true;
		result = key_digest(tree->key, start);
	}
	return result == 0 && bytes >= REMEMBERED_BYTES ? remember(tree, object, is_hashed, start) : result;
}

/* An object that may contain others, and itself. */
static int append_shared(struct tree *tree, PyObject *object, const struct frame *up)
{
	const struct frame frame = {object, up};
	const size_t start = tree->key->bytes;

	for (const struct frame *at = up; at; at = at->up)
		if (at->object == object)
			return IS_CYCLE;
	int result = append_remembered(tree, object, false);
	if (result != 0)
		return result < 0 ? -1 : 0;
	result = append_compound(tree, object, &frame);
	return result == 0 ? finish_part(tree, object, false, start) : result;
}

/* A tuple or frozenset: it contains itself only through an object that is found by append_shared(). */
static int append_group(struct tree *tree, PyObject *object, const struct frame *up, bool is_hashed)
{
	const size_t start = tree->key->bytes;
	int result = append_remembered(tree, object, is_hashed);

	if (result != 0)
		return result < 0 ? -1 : 0;
	if (PyTuple_CheckExact(object))
		result = append_elements(tree, 't', object, up, is_hashed);
	else
		result = append_sorted(tree, 'S', PySequence_List(object), up, is_hashed);
	return result == 0 ? finish_part(tree, object, is_hashed, start) : result;
}

/* The bytes of a bytearray or of a large bytes or str: a long one is not copied, its digest is made of it where it lies. */
static int append_buffer(struct tree *tree, char tag, PyObject *object)
{
	Py_buffer view;

	if (PyObject_GetBuffer(object, &view, PyBUF_SIMPLE) < 0)
		return -1;
	int result;
	if (view.len <= KEY_LONGEST_BYTES) {
		result = key_append(tree->key, tag, view.buf, (size_t)view.len);
	} else {
		unsigned char digest[KEY_DIGEST_BYTES];
		tree->digested = true;
		tree->key->hashed_bytes += (size_t)view.len;
		result = digest_of(tree->key->core, tag, object, digest);
		if (result == 0)
			result = key_append(tree->key, 'D', digest, sizeof(digest));
	}
	PyBuffer_Release(&view);
	return result;
}

/* How pickle is handed memory (protocol 5): as the bytes that are in it. */
static int append_pickle_buffer(struct tree *tree, PyObject *object)
{
	Py_buffer view; /* of our own: whoever has the PickleBuffer may release it while its bytes are looked at */
	if (PyObject_GetBuffer(object, &view, PyBUF_FULL_RO) < 0)
		return -1;
	int result = -1;
	if (!PyBuffer_IsContiguous(&view, 'A')) {
		PyErr_SetString(PyExc_BufferError, "a PickleBuffer of memory in pieces");
		tree->in_parts = true;
	} else {
		PyObject *memory = PyMemoryView_FromMemory(view.buf, view.len, PyBUF_READ);
		result = memory ? append_buffer(tree, 'b', memory) : -1;
		Py_XDECREF(memory);
	}
	PyBuffer_Release(&view);
	return result;
}

static int append_nested(struct tree *tree, PyObject *object, const struct frame *up, bool is_hashed)
{
	if (PyTuple_CheckExact(object) || Py_IS_TYPE(object, &PyFrozenSet_Type))
		return append_group(tree, object, up, is_hashed);
	if (is_hashed && PyObject_Hash(object) == -1) { /* what a dict would refuse; TypeError: unhashable type */
		if (PyErr_ExceptionMatches(PyExc_TypeError))
			core_add_note("a key of a cache has to be hashable, as a key of a dict: a tuple in place of a list, say");
		return -1;
	}
	if (PyByteArray_CheckExact(object))
		return append_buffer(tree, 'a', object);
	if (PyPickleBuffer_Check(object))
		return append_pickle_buffer(tree, object);
	return append_shared(tree, object, up);
}

/* is_hashed: it is (an element of) the key itself, not what some object is made of. 0, -1 with an exception, IS_CYCLE. */
static int encode(struct tree *tree, PyObject *object, const struct frame *up, bool is_hashed)
{
	if (PyBytes_CheckExact(object) && PyBytes_GET_SIZE(object) > KEY_LONGEST_BYTES)
		return append_buffer(tree, 'b', object);
	int result = key_append_leaf(tree->key, object);
	if (result != 1)
		return result;
	if (tree->depth == KEY_DEEPEST) {
		PyErr_SetString(PyExc_RecursionError, "a key is nested too deep: more than 2000 levels");
		return -1;
	}
	if (Py_EnterRecursiveCall(" in a droppable key"))
		return -1;
	tree->depth++;
	result = append_nested(tree, object, up, is_hashed);
	tree->depth--;
	Py_LeaveRecursiveCall();
	return result;
}

static int encode_once(struct key *key, PyObject *object, bool *in_parts)
{
	struct tree tree = {.key = key};

	key->bytes = key->start;
	int result = encode(&tree, object, NULL, true);
	Py_XDECREF(tree.remembered);
	if (result == IS_CYCLE) {
		PyObject *bytes = PyObject_Hash(object) == -1 ? NULL : core_pickle_dumps(key->core, object, "key");
		key->bytes = key->start;
		result = bytes ? key_append(key, 'p', PyBytes_AS_STRING(bytes), (size_t)PyBytes_GET_SIZE(bytes)) : -1;
		Py_XDECREF(bytes);
	} else if (result == 0 && tree.digested) {
		result = key_digest(key, key->start);
	}
	*in_parts = result < 0 && tree.in_parts;
	return result;
}

/* Whether the exception that is set may be the object's, of which no key can be made. */
static bool is_in_vain(bool in_parts)
{
	return in_parts && PyErr_ExceptionMatches(PyExc_Exception) && !PyErr_ExceptionMatches(PyExc_MemoryError) &&
	       !PyErr_ExceptionMatches(PyExc_RecursionError);
}

int key_encode_tree(struct key *key, PyObject *object)
{
	struct core_error first = {0}, second = {0}, third = {0};
	bool in_parts;

	int result = encode_once(key, object, &in_parts);
	if (result == 0 || !is_in_vain(in_parts))
		return result;
	/*
	 * Was it the object, or did a signal handler raise (a task's time limit, say) while it was taken apart? It is the object
	 * if it fails twice with the same type. Else the exception that is not the object's keeps its type: core_try_twice().
	 */
	core_fetch_error(&first);
	result = encode_once(key, object, &in_parts);
	if (result < 0 && is_in_vain(in_parts))
		core_fetch_error(&second);
	else if (result < 0)
		goto out; /* that one counts */
	if (second.type && second.type == first.type) {
		PyErr_NormalizeException(&first.type, &first.value, &first.traceback);
		if (first.traceback)
			PyException_SetTraceback(first.value, first.traceback);
		core_raise_unpicklable("key", object, first.value);
		goto out;
	}
	if (second.type) {
		result = encode_once(key, object, &in_parts);
		if (result < 0 && is_in_vain(in_parts))
			core_fetch_error(&third);
		else if (result < 0)
			goto out;
	}
	core_restore_error(third.type && third.type == first.type ? &second : &first);
out:
	core_drop_error(&first);
	core_drop_error(&second);
	core_drop_error(&third);
	return -1;
}
