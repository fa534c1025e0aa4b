/*
 * value.c - see value.h for the kinds.
 */
#include "value.h"

#include <string.h>

static void set_parts(struct value *value, size_t count)
{
	value->item.parts = value->parts;
	value->item.part_count = count;
	value->bytes = 0;
	for (size_t i = 0; i < count; i++)
		value->bytes += value->parts[i].bytes;
}

static void one_part(struct value *value, enum value_kind kind, const void *data, Py_ssize_t bytes)
{
	value->item.kind = (uint8_t)kind;
	value->parts[0] = (struct drp_part){data, (size_t)bytes};
	set_parts(value, 1);
}

static int encode_str(struct value *value, PyObject *object)
{
	Py_ssize_t length;

	if (PyUnicode_IS_ASCII(object)) {
		one_part(value, VALUE_ASCII, PyUnicode_DATA(object), PyUnicode_GET_LENGTH(object));
		return 0;
	}
	/* Not PyUnicode_AsUTF8AndSize(): it would keep the UTF-8 with the str, twice the memory of every cached text. */
	value->owner = PyUnicode_AsEncodedString(object, "utf-8", "surrogatepass");
	if (!value->owner)
		return -1;
	length = PyBytes_GET_SIZE(value->owner);
	one_part(value, VALUE_STR, PyBytes_AS_STRING(value->owner), length);
	return 0;
}

static int encode_buffer(struct value *value, PyObject *object)
{
	if (PyObject_GetBuffer(object, &value->buffers[0], PyBUF_SIMPLE) == 0) {
		value->buffer_count = 1;
		one_part(value, VALUE_BYTES, value->buffers[0].buf, value->buffers[0].len);
		return 0;
	}
	if (!PyErr_ExceptionMatches(PyExc_BufferError))
		return -1;
	PyErr_Clear(); /* a memoryview with gaps */
	value->owner = PyBytes_FromObject(object);
	if (!value->owner)
		return -1;
	one_part(value, VALUE_BYTES, PyBytes_AS_STRING(value->owner), PyBytes_GET_SIZE(value->owner));
	return 0;
}

/* coded: (kind, meta: bytes, parts: sequence of buffers) */
static int take_coded(struct value *value, PyObject *coded)
{
	PyObject *meta, *parts;
	unsigned char kind;

	value->owner = coded;
	if (!PyTuple_Check(coded) || !PyArg_ParseTuple(coded, "bSO!", &kind, &meta, &PyTuple_Type, &parts))
		return -1;
	size_t count = (size_t)PyTuple_GET_SIZE(parts);
	if (count > VALUE_INLINE_PARTS) {
		value->parts = PyMem_Calloc(count, sizeof(*value->parts));
		value->buffers = PyMem_Calloc(count, sizeof(*value->buffers));
		if (!value->parts || !value->buffers) {
			PyErr_NoMemory();
			return -1;
		}
	}
	for (size_t i = 0; i < count; i++) {
		Py_buffer *buffer = &value->buffers[i];
		/* ANY_CONTIGUOUS: an array in Fortran order is one stretch of memory too */
		if (PyObject_GetBuffer(PyTuple_GET_ITEM(parts, i), buffer, PyBUF_ANY_CONTIGUOUS) < 0)
			return -1;
		value->buffer_count++;
		value->parts[i] = (struct drp_part){buffer->buf, (size_t)buffer->len};
	}
	value->item.kind = (uint8_t)(VALUE_CODED + kind);
	value->item.meta = PyBytes_AS_STRING(meta);
	value->item.meta_bytes = (size_t)PyBytes_GET_SIZE(meta);
	value->item.own_pages = true;
	set_parts(value, count);
	return 0;
}

int value_encode(struct core_state *core, struct value *value, PyObject *object, PyObject *encode)
{
	/* Field by field: clearing half a kilobyte of inline buffers takes as long as looking a key up. */
	value->item = (struct cache_item){0};
	value->parts = value->inline_parts;
	value->buffers = value->inline_buffers;
	value->buffer_count = 0;
	value->owner = NULL;
	value->bytes = 0;
	if (PyBytes_CheckExact(object)) {
		one_part(value, VALUE_BYTES, PyBytes_AS_STRING(object), PyBytes_GET_SIZE(object));
		return 0;
	}
	if (PyUnicode_CheckExact(object))
		return encode_str(value, object);
	if (PyByteArray_CheckExact(object) || PyMemoryView_Check(object))
		return encode_buffer(value, object);
	PyObject *coded = encode ? PyObject_CallOneArg(encode, object) : Py_NewRef(Py_None);
	if (!coded)
		return -1;
	if (coded == Py_None) {
		Py_DECREF(coded);
		coded = core_pickle_dumps(core, object, "value");
		if (!coded)
			return -1;
	}
	if (PyBytes_CheckExact(coded)) {
		value->owner = coded;
		one_part(value, VALUE_PICKLE, PyBytes_AS_STRING(coded), PyBytes_GET_SIZE(coded));
		return 0;
	}
	return take_coded(value, coded);
}

void value_free(struct value *value)
{
	for (size_t i = 0; i < value->buffer_count; i++)
		PyBuffer_Release(&value->buffers[i]);
	if (value->parts != value->inline_parts)
		PyMem_Free(value->parts);
	if (value->buffers != value->inline_buffers)
		PyMem_Free(value->buffers);
	Py_XDECREF(value->owner);
}

/* Called under a shard's lock for small values: nothing here may run Python code or wait. */
static int reserve(struct cache_sink *base, uint8_t kind, size_t meta_bytes, size_t value_bytes, void **meta, void **value)
{
	struct value_sink *sink = (struct value_sink *)base;

	value_sink_clear(sink);
	sink->kind = kind;
	if (meta_bytes > sizeof(sink->inline_meta)) {
		unsigned char *larger = PyMem_Malloc(meta_bytes);
		if (!larger) {
			PyErr_NoMemory();
			return -1;
		}
		sink->meta = larger;
	}
	sink->meta_bytes = meta_bytes;
	*meta = sink->meta;
	if (!value)
		return 0; /* it will be pinned */
	if (kind == VALUE_ASCII) {
		sink->object = PyUnicode_New((Py_ssize_t)value_bytes, 127);
		if (!sink->object)
			return -1;
		*value = PyUnicode_DATA(sink->object);
	} else if (kind >= VALUE_CODED && sink->writable) {
		sink->object = PyByteArray_FromStringAndSize(NULL, (Py_ssize_t)value_bytes);
		if (!sink->object)
			return -1;
		*value = PyByteArray_AS_STRING(sink->object);
	} else {
		sink->object = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)value_bytes);
		if (!sink->object)
			return -1;
		*value = PyBytes_AS_STRING(sink->object);
	}
	return 0;
}

static void begin_copy(struct cache_sink *base, size_t bytes)
{
	if (bytes >= GIL_RELEASE_BYTES)
		((struct value_sink *)base)->saved = PyEval_SaveThread();
}

static void end_copy(struct cache_sink *base)
{
	struct value_sink *sink = (struct value_sink *)base;
	if (sink->saved)
		PyEval_RestoreThread(sink->saved);
	sink->saved = NULL;
}

void value_sink_init(struct value_sink *sink)
{
	/* Field by field, as value_encode(). */
	sink->base = (struct cache_sink){reserve, begin_copy, end_copy};
	sink->kind = 0;
	sink->meta = sink->inline_meta;
	sink->meta_bytes = 0;
	sink->object = NULL;
	sink->writable = false;
	sink->saved = NULL;
}

void value_sink_clear(struct value_sink *sink)
{
	if (sink->meta != sink->inline_meta)
		PyMem_Free(sink->meta);
	sink->meta = sink->inline_meta;
	Py_CLEAR(sink->object);
}

static PyObject *decode_coded(struct core_state *core, struct value_sink *sink, PyObject *memory, PyObject *decode)
{
	PyObject *result = NULL;

	if (sink->kind == VALUE_ARRAY && array_make(core, sink->meta, sink->meta_bytes, memory, false, &result) != 0)
		return result;
	PyObject *kind = PyLong_FromLong(sink->kind - VALUE_CODED);
	PyObject *meta = PyBytes_FromStringAndSize((const char *)sink->meta, (Py_ssize_t)sink->meta_bytes);
	if (kind && meta) {
		PyObject *arguments[] = {kind, meta, memory};
		result = PyObject_Vectorcall(decode, arguments, 3, NULL);
	}
	Py_XDECREF(kind);
	Py_XDECREF(meta);
	return result;
}

struct load {
	struct core_state *core;
	struct value_sink *sink;
	PyObject *decode;
};

static PyObject *load(const void *context)
{
	const struct load *of = context;
	PyObject *memory = of->sink->object;

	switch (of->sink->kind) {
	case VALUE_STR:
		return PyUnicode_DecodeUTF8(PyBytes_AS_STRING(memory), PyBytes_GET_SIZE(memory), "surrogatepass");
	case VALUE_PICKLE:
		return core_pickle_loads(of->core, PyBytes_AS_STRING(memory), PyBytes_GET_SIZE(memory));
	default:
		return decode_coded(of->core, of->sink, memory, of->decode);
	}
}

/*
 * An array that needs no code of Python is made at once. No signal handler runs meanwhile, so that an exception can only be of the
 * array or of memory: load() meets it again, and tells.
 */
static PyObject *make_plain_array(struct core_state *core, const struct value_sink *sink)
{
	PyObject *array = NULL;

	if (array_make(core, sink->meta, sink->meta_bytes, sink->object, true, &array) < 0)
		PyErr_Clear();
	return array;
}

static PyObject *load_twice(struct core_state *core, struct value_sink *sink, PyObject *decode, bool *failed_twice)
{
	const struct load of = {core, sink, decode};
	return core_try_twice(load, &of, failed_twice);
}

PyObject *value_finish(struct core_state *core, struct value_sink *sink, struct cache_pin *pin, PyObject *decode,
		       bool *failed_twice)
{
	PyObject *result = NULL;

	*failed_twice = false;
	if (pin->cache)
		Py_XSETREF(sink->object, pin_object(core, pin));
	if (sink->kind == VALUE_BYTES || sink->kind == VALUE_ASCII) {
		result = sink->object; /* VALUE_BYTES from a pin: the caller asked for the memory itself */
		sink->object = NULL;
		return result;
	}
	if (sink->object && sink->kind == VALUE_ARRAY)
		result = make_plain_array(core, sink);
	if (sink->object && !result)
		result = load_twice(core, sink, decode, failed_twice);
	if (!*failed_twice)
		value_sink_clear(sink);
	return result;
}
