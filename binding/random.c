/*
 * random.c - droppable.random's functions in C: each draws straight into the object it returns, so that no copy of a
 * secret stays behind in freed memory.
 *
 * In the module they are called random_<name>; their own names are those of droppable.random, where users meet them.
 */
#include "module.h"

#include <errno.h>
#include <stdint.h>
#include <string.h>

#include "droppable.h"
#include "random/random.h"

enum {
	DEFAULT_TOKEN_BYTES = 32,      /* as in secrets */
	HELD_BYTES = 4096,             /* up to here the draw (10 us) keeps the GIL: giving it up costs as much */
	UNINTERRUPTED_BYTES = 4 << 20, /* between two looks for Ctrl-C: 10 ms */
	WORD_BITS = 64,
	UUID_BYTES = 16,
};

/* Draws, giving up the GIL for long requests; 0, or -1 with an exception set. */
static int draw(void *buffer, Py_ssize_t length)
{
	unsigned char *at = buffer;
	int status = DRP_OK;

	if (length <= HELD_BYTES)
		status = random_fill(at, (size_t)length);
	for (Py_ssize_t done = 0; length > HELD_BYTES && done < length && status == DRP_OK;) {
		Py_ssize_t part = length - done < UNINTERRUPTED_BYTES ? length - done : UNINTERRUPTED_BYTES;
		Py_BEGIN_ALLOW_THREADS
		status = random_fill(at + done, (size_t)part);
		Py_END_ALLOW_THREADS
		done += part;
		if (status == DRP_OK && PyErr_CheckSignals() < 0)
			return -1;
	}
	if (status == DRP_OK)
		return 0;
	core_raise(status, "random");
	return -1;
}

/* The only argument of a call, by position or by name, or NULL if it was left out; -1 with an exception otherwise. */
static int only_argument(const char *function, const char *name, PyObject *const *args, Py_ssize_t count,
			 PyObject *keywords, PyObject **out)
{
	Py_ssize_t named = keywords ? PyTuple_GET_SIZE(keywords) : 0;

	*out = NULL;
	if (count + named > 1) {
		PyErr_Format(PyExc_TypeError, "%s() takes at most 1 argument (%zd given)", function, count + named);
		return -1;
	}
	if (named == 1 && PyUnicode_CompareWithASCIIString(PyTuple_GET_ITEM(keywords, 0), name) != 0) {
		PyErr_Format(PyExc_TypeError, "%s() got an unexpected keyword argument %R", function,
			     PyTuple_GET_ITEM(keywords, 0));
		return -1;
	}
	if (count + named == 1)
		*out = args[0];
	return 0;
}

/* A number of bytes; missing_bytes stands for an argument left out or None, -1: it must be there. */
static int length_argument(const char *function, const char *name, PyObject *const *args, Py_ssize_t count,
			   PyObject *keywords, Py_ssize_t missing_bytes, Py_ssize_t *out)
{
	PyObject *argument;

	if (only_argument(function, name, args, count, keywords, &argument) < 0)
		return -1;
	if ((!argument || argument == Py_None) && missing_bytes >= 0) {
		*out = missing_bytes;
		return 0;
	}
	if (!argument) {
		PyErr_Format(PyExc_TypeError, "%s() missing 1 required argument: '%s'", function, name);
		return -1;
	}
	*out = PyNumber_AsSsize_t(argument, PyExc_OverflowError);
	if (*out == -1 && PyErr_Occurred())
		return -1;
	if (*out < 0) {
		PyErr_SetString(PyExc_ValueError, "negative argument not allowed");
		return -1;
	}
	return 0;
}

static PyObject *new_bytes(Py_ssize_t length)
{
	PyObject *bytes = PyBytes_FromStringAndSize(NULL, length);
	if (bytes && length > 0 && draw(PyBytes_AS_STRING(bytes), length) < 0)
		Py_CLEAR(bytes);
	return bytes;
}

static PyObject *token_bytes(PyObject *Py_UNUSED(self), PyObject *const *args, Py_ssize_t count, PyObject *keywords)
{
	Py_ssize_t length;
	if (length_argument("token_bytes", "nbytes", args, count, keywords, DEFAULT_TOKEN_BYTES, &length) < 0)
		return NULL;
	return new_bytes(length);
}

static PyObject *randbytes(PyObject *Py_UNUSED(self), PyObject *const *args, Py_ssize_t count, PyObject *keywords)
{
	Py_ssize_t length;
	if (length_argument("randbytes", "n", args, count, keywords, -1, &length) < 0)
		return NULL;
	return new_bytes(length);
}

/* Draws the bytes into the last part of the text, so that encoding them from the front never overtakes itself. */
static PyObject *new_text(Py_ssize_t length, Py_ssize_t text_length, unsigned char **text, unsigned char **bytes)
{
	PyObject *string = PyUnicode_New(text_length, 127);
	if (!string)
		return NULL;
	*text = PyUnicode_1BYTE_DATA(string);
	*bytes = *text + text_length - length;
	if (length > 0 && draw(*bytes, length) < 0)
		Py_CLEAR(string);
	return string;
}

static PyObject *token_hex(PyObject *Py_UNUSED(self), PyObject *const *args, Py_ssize_t count, PyObject *keywords)
{
	static const char digits[] = "0123456789abcdef";
	unsigned char *text, *bytes;
	Py_ssize_t length;

	if (length_argument("token_hex", "nbytes", args, count, keywords, DEFAULT_TOKEN_BYTES, &length) < 0)
		return NULL;
	if (length > PY_SSIZE_T_MAX / 2)
		return PyErr_NoMemory();
	PyObject *string = new_text(length, 2 * length, &text, &bytes);
	for (Py_ssize_t i = 0; string && i < length; i++) {
		unsigned char byte = bytes[i];
		text[2 * i] = (unsigned char)digits[byte >> 4];
		text[2 * i + 1] = (unsigned char)digits[byte & 15];
	}
	return string;
}

static PyObject *token_urlsafe(PyObject *Py_UNUSED(self), PyObject *const *args, Py_ssize_t count, PyObject *keywords)
{
	static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
	unsigned char *text, *bytes;
	Py_ssize_t length;

	if (length_argument("token_urlsafe", "nbytes", args, count, keywords, DEFAULT_TOKEN_BYTES, &length) < 0)
		return NULL;
	if (length > PY_SSIZE_T_MAX / 2)
		return PyErr_NoMemory();
	PyObject *string = new_text(length, length / 3 * 4 + (length % 3 ? length % 3 + 1 : 0), &text, &bytes);
	for (Py_ssize_t i = 0; string && i < length; i += 3) {
		Py_ssize_t left = length - i < 3 ? length - i : 3;
		uint32_t group = (uint32_t)bytes[i] << 16;
		if (left > 1)
			group |= (uint32_t)bytes[i + 1] << 8;
		if (left > 2)
			group |= bytes[i + 2];
		for (Py_ssize_t letter = 0; letter <= left; letter++)
			*text++ = (unsigned char)letters[group >> (18 - 6 * letter) & 63];
	}
	return string;
}

/* An int from bytes, the lowest first. */
static PyObject *new_long(const unsigned char *bytes, size_t length)
{
#if PY_VERSION_HEX >= 0x030D0000
	return PyLong_FromUnsignedNativeBytes(bytes, length, Py_ASNATIVEBYTES_LITTLE_ENDIAN);
#else
	return _PyLong_FromByteArray(bytes, length, 1, 0);
#endif
}

static PyObject *new_bits(Py_ssize_t bits)
{
	if (bits <= WORD_BITS) {
		uint64_t word = 0;
		if (bits > 0 && draw(&word, sizeof(word)) < 0)
			return NULL;
		return PyLong_FromUnsignedLongLong(bits > 0 ? word >> (WORD_BITS - bits) : 0);
	}
	Py_ssize_t length = bits / 8 + (bits % 8 != 0);
	unsigned char *bytes = PyMem_Malloc((size_t)length);
	if (!bytes)
		return PyErr_NoMemory();
	PyObject *number = NULL;
	if (draw(bytes, length) == 0) {
		if (bits % 8)
			bytes[length - 1] >>= 8 - bits % 8;
		number = new_long(bytes, (size_t)length);
	}
	explicit_bzero(bytes, (size_t)length);
	PyMem_Free(bytes);
	return number;
}

static PyObject *randbits(PyObject *Py_UNUSED(self), PyObject *const *args, Py_ssize_t count, PyObject *keywords)
{
	PyObject *argument;

	if (only_argument("randbits", "k", args, count, keywords, &argument) < 0)
		return NULL;
	if (!argument) {
		PyErr_SetString(PyExc_TypeError, "randbits() missing 1 required argument: 'k'");
		return NULL;
	}
	Py_ssize_t bits = PyNumber_AsSsize_t(argument, PyExc_OverflowError);
	if (bits == -1 && PyErr_Occurred())
		return NULL;
	if (bits < 0) {
		PyErr_SetString(PyExc_ValueError, "number of bits must be non-negative");
		return NULL;
	}
	return new_bits(bits);
}

/* Below a limit of more than 64 bits: draws of its length until one is below; less than two on average. */
static PyObject *below_wide(PyObject *limit)
{
	PyObject *length = PyObject_CallMethod(limit, "bit_length", NULL);
	if (!length)
		return NULL;
	Py_ssize_t bits = PyNumber_AsSsize_t(length, PyExc_OverflowError);
	Py_DECREF(length);
	if (bits == -1 && PyErr_Occurred())
		return NULL;
	for (;;) {
		PyObject *number = new_bits(bits);
		if (!number)
			return NULL;
		int below = PyObject_RichCompareBool(number, limit, Py_LT);
		if (below > 0)
			return number;
		Py_DECREF(number);
		if (below < 0)
			return NULL;
	}
}

/*
 * Unbiased by rejection: a word is used only if the whole run of `limit` words that it lies in fits below 2^64, so each
 * remainder stands for equally many words. A draw is rejected with a chance of less than limit / 2^64.
 */
static PyObject *below_word(uint64_t limit)
{
	for (;;) {
		uint64_t word;
		if (draw(&word, sizeof(word)) < 0)
			return NULL;
		uint64_t remainder = word % limit;
		if (word - remainder <= UINT64_MAX - (limit - 1))
			return PyLong_FromUnsignedLongLong(remainder);
	}
}

static PyObject *randbelow(PyObject *Py_UNUSED(self), PyObject *const *args, Py_ssize_t count, PyObject *keywords)
{
	PyObject *argument, *limit, *number = NULL;
	int overflow;

	if (only_argument("randbelow", "exclusive_upper_bound", args, count, keywords, &argument) < 0)
		return NULL;
	if (!argument) {
		PyErr_SetString(PyExc_TypeError, "randbelow() missing 1 required argument: 'exclusive_upper_bound'");
		return NULL;
	}
	limit = PyNumber_Index(argument);
	if (!limit)
		return NULL;
	long long value = PyLong_AsLongLongAndOverflow(limit, &overflow);
	if (overflow < 0 || (overflow == 0 && value <= 0)) {
		if (!PyErr_Occurred())
			PyErr_SetString(PyExc_ValueError, "Upper bound must be positive.");
	} else if (overflow == 0) {
		number = below_word((uint64_t)value);
	} else {
		number = below_wide(limit);
	}
	Py_DECREF(limit);
	return number;
}

/* A multiple of 2^-53 in [0, 1), as random.random(). */
static PyObject *random_number(PyObject *Py_UNUSED(self), PyObject *Py_UNUSED(none))
{
	uint64_t word;
	if (draw(&word, sizeof(word)) < 0)
		return NULL;
	return PyFloat_FromDouble((double)(word >> 11) * 0x1p-53);
}

static PyObject *fill(PyObject *Py_UNUSED(self), PyObject *target)
{
	Py_buffer view;

	if (PyObject_GetBuffer(target, &view, PyBUF_WRITABLE) < 0)
		return NULL;
	int failed = view.len > 0 ? draw(view.buf, view.len) : 0;
	PyBuffer_Release(&view);
	if (failed)
		return NULL;
	Py_RETURN_NONE;
}

/*
 * What uuid4() needs of the module uuid, looked up at the first call, for importing it costs a millisecond: a tuple of the
 * class, the descriptors of its slots `int` and `is_safe` (UUID.__setattr__ refuses), and SafeUUID.unknown, the default.
 */
enum { UUID_TYPE, UUID_INT, UUID_IS_SAFE, UUID_UNKNOWN };

static PyObject *find_uuid(void)
{
	PyObject *type = NULL, *safe = NULL, *unknown = NULL, *int_slot = NULL, *is_safe_slot = NULL, *found = NULL;
	PyObject *module = PyImport_ImportModule("uuid");

	if (!module)
		return NULL;
	type = PyObject_GetAttrString(module, "UUID");
	safe = PyObject_GetAttrString(module, "SafeUUID");
	Py_DECREF(module);
	if (!type || !safe)
		goto out;
	unknown = PyObject_GetAttrString(safe, "unknown");
	int_slot = PyObject_GetAttrString(type, "int");
	is_safe_slot = PyObject_GetAttrString(type, "is_safe");
	if (!unknown || !int_slot || !is_safe_slot)
		goto out;
	if (!PyType_Check(type) || !Py_IS_TYPE(int_slot, &PyMemberDescr_Type) ||
	    !Py_IS_TYPE(is_safe_slot, &PyMemberDescr_Type))
		PyErr_SetString(PyExc_TypeError, "uuid4(): this Python's uuid.UUID does not keep its value in slots");
	else
		found = PyTuple_Pack(4, type, int_slot, is_safe_slot, unknown);
out:
	Py_XDECREF(type);
	Py_XDECREF(safe);
	Py_XDECREF(unknown);
	Py_XDECREF(int_slot);
	Py_XDECREF(is_safe_slot);
	return found;
}

/* Borrowed from the module's state. Two threads may look at once; the first one's tuple stays. */
static PyObject *known_uuid(PyObject *module)
{
	PyObject **place = &core_of_module(module)->uuid, *known = __atomic_load_n(place, __ATOMIC_ACQUIRE);

	if (known)
		return known;
	PyObject *found = find_uuid();
	if (!found || __atomic_compare_exchange_n(place, &known, found, false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE))
		return found;
	Py_DECREF(found);
	return known;
}

/* What UUID(int=..., version=4) does, without its checks: RFC 9562, version 4 in byte 6, variant 10 in byte 8. */
static PyObject *uuid4(PyObject *module, PyObject *Py_UNUSED(none))
{
	unsigned char bytes[UUID_BYTES]; /* the lowest first */
	PyObject *known = known_uuid(module);

	if (!known || draw(bytes, sizeof(bytes)) < 0)
		return NULL;
	PyTypeObject *type = (PyTypeObject *)PyTuple_GET_ITEM(known, UUID_TYPE);
	PyObject *int_slot = PyTuple_GET_ITEM(known, UUID_INT), *is_safe_slot = PyTuple_GET_ITEM(known, UUID_IS_SAFE);
	bytes[UUID_BYTES - 1 - 6] = (bytes[UUID_BYTES - 1 - 6] & 0x0f) | 0x40;
	bytes[UUID_BYTES - 1 - 8] = (bytes[UUID_BYTES - 1 - 8] & 0x3f) | 0x80;
	PyObject *number = new_long(bytes, sizeof(bytes));
	if (!number)
		return NULL;
	PyObject *self = type->tp_alloc(type, 0);
	if (self && (Py_TYPE(int_slot)->tp_descr_set(int_slot, self, number) < 0 ||
		     Py_TYPE(is_safe_slot)->tp_descr_set(is_safe_slot, self, PyTuple_GET_ITEM(known, UUID_UNKNOWN)) < 0))
		Py_CLEAR(self);
	Py_DECREF(number);
	return self;
}

static PyObject *describe(PyObject *Py_UNUSED(self), PyObject *Py_UNUSED(none))
{
	struct random_info info;

	random_describe(&info);
	return Py_BuildValue("OOsII", info.vdso ? Py_True : Py_False, info.vdso_in_bulk ? Py_True : Py_False,
			     info.reason, info.state_bytes, info.state_count);
}

#define FAST(function) (PyCFunction)(void (*)(void)) function, METH_FASTCALL | METH_KEYWORDS

static PyMethodDef functions[] = {
	{"token_bytes", FAST(token_bytes),
	 "token_bytes(nbytes=None)\n--\n\nnbytes random bytes; 32 if left out or None."},
	{"token_hex", FAST(token_hex),
	 "token_hex(nbytes=None)\n--\n\nnbytes random bytes as 2 * nbytes hexadecimal digits; 32 bytes if left out or None."},
	{"token_urlsafe", FAST(token_urlsafe),
	 "token_urlsafe(nbytes=None)\n--\n\nnbytes random bytes as URL-safe Base64 without padding; 32 bytes if left out "
	 "or None."},
	{"randbytes", FAST(randbytes), "randbytes(n)\n--\n\nn random bytes."},
	{"randbits", FAST(randbits), "randbits(k)\n--\n\nAn int of k random bits."},
	{"randbelow", FAST(randbelow),
	 "randbelow(exclusive_upper_bound)\n--\n\nAn int from 0 up to the bound, all equally likely."},
	{"random", random_number, METH_NOARGS,
	 "random()\n--\n\nA float in [0, 1): one of the 2**53 multiples of 2**-53, all equally likely."},
	{"fill", fill, METH_O,
	 "fill(buffer, /)\n--\n\nFills a writable contiguous buffer (bytearray, memoryview, array) with random bytes."},
	{"uuid4", uuid4, METH_NOARGS, "uuid4()\n--\n\nA random uuid.UUID (version 4), all but 6 of its bits random."},
	{"describe", describe, METH_NOARGS, NULL},
	{NULL, NULL, 0, NULL},
};

int core_add_random(PyObject *module)
{
	PyObject *owner = PyUnicode_InternFromString("droppable.random");
	if (!owner)
		return -1;
	for (PyMethodDef *definition = functions; definition->ml_name; definition++) {
		char name[64];
		PyOS_snprintf(name, sizeof(name), "random_%s", definition->ml_name);
		PyObject *function = PyCFunction_NewEx(definition, module, owner);
		int failed = !function || PyModule_AddObjectRef(module, name, function) < 0;
		Py_XDECREF(function);
		if (failed) {
			Py_DECREF(owner);
			return -1;
		}
	}
	Py_DECREF(owner);
	return 0;
}
