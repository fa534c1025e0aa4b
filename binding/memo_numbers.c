/*
 * memo_numbers.c - numbers of instances and classes, each given once in the life of a process: what stands for `self` in the
 * key of a method. An address would be used again when its object is gone.
 *
 *   slots: [ - | object, reference, number | - | ... ]      by the object's address; linear probing
 *                           |
 *                  weak, with a callback that takes the slot out when the object goes
 *
 * The slot is compared by the reference too: it refers to nothing any more from the moment that its object begins to go.
 * The table is the module's, and found by all functions with a cache: an instance has one number and one weak reference.
 *
 * Threads: under a GIL no Python code runs between finding a slot and using it. Without one a mutex is held meanwhile.
 * A forked child goes on with its copy. Callers: memo_self.c, module.c.
 */
#include "memo.h"

#include "os/drp_assert.h"

struct slot {
	PyObject *object; /* borrowed: its address is what counts; NULL: empty */
	PyObject *reference;
	uint64_t number;
};

struct memo_numbers {
	struct slot *slots;
	size_t count, size; /* size: a power of two, or 0 */
	uint64_t last;
#ifdef Py_GIL_DISABLED
	PyMutex mutex;
#endif
};

enum { LEAST_SLOTS = 64 };

#ifdef Py_GIL_DISABLED
static void lock(struct memo_numbers *numbers) { PyMutex_Lock(&numbers->mutex); }
static void unlock(struct memo_numbers *numbers) { PyMutex_Unlock(&numbers->mutex); }
#else
static inline void lock(struct memo_numbers *numbers) { (void)numbers; }
static inline void unlock(struct memo_numbers *numbers) { (void)numbers; }
#endif

/* Objects lie at multiples of 16. Their addresses follow one another, so the product's upper bits are taken. */
static inline size_t home_of(const struct memo_numbers *numbers, const PyObject *object)
{
	const uint64_t product = (uint64_t)((uintptr_t)object >> 4) * 0x9E3779B97F4A7C15u;
	return (size_t)(product >> 32) & (numbers->size - 1);
}

/* The slot of this address, or the empty one where it would be. There is always an empty one. */
static inline struct slot *slot_of(const struct memo_numbers *numbers, const PyObject *object)
{
	size_t at = home_of(numbers, object);

	while (numbers->slots[at].object && numbers->slots[at].object != object)
		at = (at + 1) & (numbers->size - 1);
	return &numbers->slots[at];
}

static inline bool refers_to(const struct slot *slot, const PyObject *object)
{
	return slot->object == object && ((PyWeakReference *)slot->reference)->wr_object == object;
}

/* Half of the slots stay empty. 0, or -1: no memory. */
static int make_room(struct memo_numbers *numbers)
{
	struct memo_numbers larger = *numbers;

	if (2 * (numbers->count + 1) <= numbers->size)
		return 0;
	larger.size = numbers->size ? 2 * numbers->size : LEAST_SLOTS;
	larger.slots = PyMem_RawCalloc(larger.size, sizeof(*larger.slots));
	if (!larger.slots)
		return -1;
	for (size_t i = 0; i < numbers->size; i++)
		if (numbers->slots[i].object)
			*slot_of(&larger, numbers->slots[i].object) = numbers->slots[i];
	PyMem_RawFree(numbers->slots);
	numbers->slots = larger.slots;
	numbers->size = larger.size;
	return 0;
}

/* Empties a slot, and moves those behind it up that were only there because it was taken. */
static void take_out(struct memo_numbers *numbers, struct slot *slot)
{
	const size_t mask = numbers->size - 1;
	size_t hole = (size_t)(slot - numbers->slots);

	DRP_ASSERT(numbers->count > 0);
	numbers->count--;
	for (size_t at = (hole + 1) & mask; numbers->slots[at].object; at = (at + 1) & mask) {
		const size_t home = home_of(numbers, numbers->slots[at].object);
		if (((at - home) & mask) >= ((at - hole) & mask)) {
			numbers->slots[hole] = numbers->slots[at];
			hole = at;
		}
	}
	numbers->slots[hole] = (struct slot){0};
}

/* Called with (module, address) and the weak reference, as its object goes. */
static PyObject *object_goes(PyObject *place, PyObject *reference)
{
	struct memo_numbers *numbers = core_of_module(PyTuple_GET_ITEM(place, 0))->numbers;
	const PyObject *object = PyLong_AsVoidPtr(PyTuple_GET_ITEM(place, 1));
	PyObject *mine = NULL;

	if (numbers && numbers->size > 0) {
		lock(numbers);
		struct slot *slot = slot_of(numbers, object);
		if (slot->object && slot->reference == reference) {
			mine = slot->reference;
			take_out(numbers, slot);
		}
		unlock(numbers);
	}
	Py_XDECREF(mine);
	Py_RETURN_NONE;
}

static PyMethodDef object_goes_def = {"object_goes", object_goes, METH_O, NULL};

/* A new weak reference that takes the object's slot out, or NULL with an exception. */
static PyObject *reference_to(PyObject *module, PyObject *object)
{
	PyObject *place = Py_BuildValue("ON", module, PyLong_FromVoidPtr(object));
	PyObject *callback = place ? PyCFunction_New(&object_goes_def, place) : NULL;
	PyObject *reference = callback ? PyWeakref_NewRef(object, callback) : NULL;

	Py_XDECREF(callback);
	Py_XDECREF(place);
	if (!reference && callback && PyErr_ExceptionMatches(PyExc_TypeError))
		PyErr_Format(PyExc_TypeError, "an instance of %.200s cannot be referenced weakly, so its results cannot go with it: "
			     "add '__weakref__' to its __slots__, or give self_key= the name of an attribute that identifies it",
			     Py_TYPE(object)->tp_name);
	return reference;
}

/* The first time: 0, or -1 with an exception. */
static int give(PyObject *module, struct memo_numbers *numbers, PyObject *object, uint64_t *number)
{
	PyObject *reference = reference_to(module, object), *other = reference;

	if (!reference)
		return -1;
	lock(numbers);
	int result = make_room(numbers);
	if (result == 0) {
		struct slot *slot = slot_of(numbers, object);
		if (!refers_to(slot, object)) { /* else somebody was faster: a collection ran Python code, or another thread */
			other = slot->reference;
			numbers->count += !slot->object;
			*slot = (struct slot){object, reference, ++numbers->last};
		}
		*number = slot->number;
	}
	unlock(numbers);
	Py_XDECREF(other);
	if (result < 0)
		PyErr_NoMemory();
	return result;
}

int memo_number_of(PyObject *module, PyObject *object, uint64_t *number)
{
	struct memo_numbers *numbers = core_of_module(module)->numbers;

	if (numbers->size > 0) {
		lock(numbers);
		const struct slot *slot = slot_of(numbers, object);
		const bool found = refers_to(slot, object);
		if (found)
			*number = slot->number;
		unlock(numbers);
		if (found)
			return 0;
	}
	return give(module, numbers, object, number);
}

int core_add_numbers(PyObject *module)
{
	struct memo_numbers *numbers = PyMem_RawCalloc(1, sizeof(*numbers));

	core_of_module(module)->numbers = numbers;
	if (!numbers) {
		PyErr_NoMemory();
		return -1;
	}
	return 0;
}

int core_visit_numbers(struct memo_numbers *numbers, visitproc visit, void *arg)
{
	if (numbers)
		for (size_t i = 0; i < numbers->size; i++)
			Py_VISIT(numbers->slots[i].reference);
	return 0;
}

/* References that go here run no callback: those are the callbacks' only holders. */
void core_free_numbers(struct memo_numbers *numbers)
{
	if (!numbers)
		return;
	for (size_t i = 0; i < numbers->size; i++)
		Py_XDECREF(numbers->slots[i].reference);
	PyMem_RawFree(numbers->slots);
	PyMem_RawFree(numbers);
}
