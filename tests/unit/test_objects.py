"""Objects of other libraries: their memory comes back in place, read-only and pinned, or as one copy where it says so.

What "in place" means is checked by address: the memory of the object that a get returned lies between the ends of the
pin of its key.
"""

from __future__ import annotations

import gc
import pickle
import sys
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import droppable
from droppable import Cache
from droppable._reducers import reducers
from droppable.testing import drop

KEY = "object"
Memory = list[tuple[int, int]]
"""(address, length) of each stretch."""


@pytest.fixture
def pandas(numpy: Any) -> Any:
    return pytest.importorskip("pandas", reason="pandas is not installed")


@pytest.fixture
def arrow() -> Any:
    return pytest.importorskip("pyarrow", reason="pyarrow is not installed")


@pytest.fixture
def pillow() -> Any:
    return pytest.importorskip("PIL.Image", reason="Pillow is not installed")


@pytest.fixture
def torch() -> Any:
    return pytest.importorskip("torch", reason="torch is not installed (requirements/torch.txt)")


@pytest.fixture
def registered() -> Iterator[None]:
    """The registry as it was, after the test."""
    before = reducers._registered.copy()
    yield
    reducers._registered = before


def pin_of(cache: Cache, numpy: Any) -> tuple[int, int]:
    """Where the value of KEY lies: address and end."""
    raw = cache._raw(KEY)
    assert raw is not None
    memory = numpy.frombuffer(raw[1], "u1")
    return memory.ctypes.data, memory.ctypes.data + memory.nbytes


def check_in_place(
    cache: Cache, numpy: Any, value: Any, memory_of: Callable[[Any], Memory], same: Callable[..., Any]
) -> None:
    """Stores value, gets it, and follows its memory until the kernel takes it. `same(a, b)` raises if they differ."""
    cache[KEY] = value
    got = cache[KEY]
    same(got, value)
    memory = memory_of(got)
    assert memory
    start, end = pin_of(cache, numpy)
    can_pin = "lazyfree" in cache_backing(cache)
    for address, length in memory:
        assert (start <= address and address + length <= end) == can_pin, f"{address:#x} of {start:#x} to {end:#x}"
    if can_pin:
        assert cache.stats().pinned_bytes >= sum(length for _, length in memory)
        again = cache[KEY]
        assert memory_of(again) == memory
        del again
    drop(cache)
    cache.discard(KEY)
    for number in range(3):  # whoever takes the pages next would write to them
        cache[number] = value
    same(got, value)
    del got
    gc.collect()
    assert cache.stats().pinned_bytes == 0

    cache[KEY] = value
    drop(cache)
    dropped = cache.stats().misses_dropped
    assert cache.get(KEY) is None
    assert cache.stats().misses_dropped == dropped + 1


def cache_backing(cache: Cache) -> str:
    cache["probe"] = pickle.PickleBuffer(bytes(100_000))
    held = cache["probe"]
    backing = "lazyfree" if cache.stats().pinned_bytes else "droppable"
    del held, cache["probe"]
    return backing


def of_arrays(*arrays: Any) -> Memory:
    for array in arrays:
        assert not array.flags.writeable
    return [(array.ctypes.data, array.nbytes) for array in arrays]


def of_buffers(buffers: Any) -> Memory:
    """Of Arrow's buffers."""
    buffers = [buffer for buffer in buffers if buffer is not None]
    assert not any(buffer.is_mutable for buffer in buffers)
    return [(buffer.address, buffer.size) for buffer in buffers]


class TestNumPy:
    def test_a_dict_of_arrays(self, cache: Cache, numpy: Any) -> None:
        value = {
            "floats": numpy.arange(20_000.0),
            "table": numpy.arange(30_000, dtype="i4").reshape(100, 300),
            "fortran": numpy.asfortranarray(numpy.arange(10_000).reshape(100, 100)),
            "small": numpy.arange(5, dtype="u1"),
            "more": [numpy.ones(1000), (numpy.zeros((3, 5000)),)],
        }

        def memory_of(got: Any) -> Memory:
            more, (inner,) = got["more"]
            return of_arrays(*(got[key] for key in ("floats", "table", "fortran", "small")), more, inner)

        def same(a: Any, b: Any) -> None:
            assert a.keys() == b.keys()
            for key in ("floats", "table", "fortran", "small"):
                assert a[key].dtype == b[key].dtype
                assert (a[key] == b[key]).all()
            assert a["fortran"].flags.f_contiguous
            assert a["floats"].ctypes.data % 64 == a["small"].ctypes.data % 64
            assert (a["more"][0] == 1).all()
            assert not a["more"][1][0].any()

        check_in_place(cache, numpy, value, memory_of, same)

    def test_dates_and_times(self, cache: Cache, numpy: Any) -> None:
        """They have no buffer protocol, so NumPy itself would put them into the pickle."""
        dates = numpy.arange("2020-01-01", "2021-01-01", dtype="M8[h]")
        value = {
            "dates": dates,
            "table": dates.reshape(-1, 24),
            "fortran": numpy.asfortranarray(dates.reshape(-1, 24)),
            "times": dates - dates[0],
        }

        def memory_of(got: Any) -> Memory:
            return of_arrays(*got.values())

        def same(a: Any, b: Any) -> None:
            assert a.keys() == b.keys()
            for key, array in b.items():
                assert a[key].dtype == array.dtype
                assert (a[key] == array).all()

        check_in_place(cache, numpy, value, memory_of, same)

    def test_slices_that_are_no_stretch_of_memory(self, cache: Cache, numpy: Any) -> None:
        dates = numpy.arange("2020-01-01", "2021-01-01", dtype="M8[h]")
        value = {"dates": dates[::3], "columns": numpy.arange(30_000.0).reshape(100, 300)[:, ::2], "back": dates[::-1]}

        def memory_of(got: Any) -> Memory:
            return of_arrays(*got.values())

        def same(a: Any, b: Any) -> None:
            for key, array in b.items():
                assert a[key].dtype == array.dtype
                assert (a[key] == array).all()

        check_in_place(cache, numpy, value, memory_of, same)

    def test_arrays_that_are_hardly_any(self, cache: Cache, numpy: Any) -> None:
        one = numpy.datetime64("2020-01-01", "h")
        objects = numpy.array([1, "a", None] * 10, dtype=object)[::2]
        value = {"empty": numpy.array([one])[:0], "one": one, "scalar": numpy.array(one), "objects": objects}
        cache[KEY] = value
        got = cache[KEY]
        assert got["empty"].shape == (0,)
        assert got["empty"].dtype == one.dtype
        assert got["one"] == one
        assert got["scalar"].shape == ()
        assert got["scalar"] == one
        assert list(got["objects"]) == list(objects)


class TestArrays:
    """One array alone, which the binding puts together by itself from the second time on: binding/array.c."""

    SHAPES = ((), (0,), (3,), (2, 0, 4), (100, 300), (300, 100), (2,) * 10)
    DTYPES = ("f8", ">i2", "?", "c16", "M8[us]", "U7", "S3", "V5", "i4,f4", "(2,3)f4,u1")

    @pytest.mark.parametrize("order", "CF")
    @pytest.mark.parametrize("dtype", DTYPES)
    def test_every_shape_type_and_order(self, cache: Cache, numpy: Any, dtype: str, order: str) -> None:
        for shape in self.SHAPES:
            array = numpy.zeros(shape, dtype, order)
            array.ravel(order="K").view(numpy.uint8)[::7] = 1
            cache[KEY] = array
            for _ in range(3):
                got = cache[KEY]
                assert (got.shape, got.dtype) == (array.shape, array.dtype)
                assert got.strides == array.strides or array.size == 0
                assert got.tobytes() == array.tobytes()
                assert not got.flags.writeable

    def test_more_types_than_are_remembered(self, cache: Cache, numpy: Any) -> None:
        types = [numpy.dtype([(f"field_{number}", "u4"), ("more", "u1", (number + 1,))]) for number in range(100)]
        arrays = [numpy.frombuffer(bytes(range(256)) * dtype.itemsize, dtype) for dtype in types]
        for _ in range(2):
            for array in arrays:
                cache[KEY] = array
                for _ in range(2):
                    got = cache[KEY]
                    assert got.dtype == array.dtype
                    assert got.tobytes() == array.tobytes()


class TestPandas:
    def frame(self, numpy: Any, pandas: Any, rows: int = 10_000) -> Any:
        return pandas.DataFrame(
            {
                "float": numpy.arange(rows) / 3,
                "int": numpy.arange(rows),
                "int8": numpy.arange(rows).astype("i1"),
                "bool": numpy.arange(rows) % 7 == 0,
                "when": pandas.date_range("2020", periods=rows, freq="s"),
                "where": pandas.date_range("2020", periods=rows, freq="s", tz="Europe/Berlin"),
                "long": pandas.to_timedelta(numpy.arange(rows), unit="s"),
                "kind": pandas.Categorical.from_codes(numpy.arange(rows) % 3, ["a", "b", "c"]),
                "maybe": pandas.array([1, None] * (rows // 2), dtype="Int64"),
            }
        )

    def arrays(self, frame: Any) -> list[Any]:
        columns = [frame[name].to_numpy() for name in ("float", "int", "int8", "bool", "when", "long")]
        return [*columns, frame["kind"].array.codes, frame["maybe"].array._data, frame["maybe"].array._mask]

    def test_a_data_frame(self, cache: Cache, numpy: Any, pandas: Any) -> None:
        def memory_of(got: Any) -> Memory:
            return of_arrays(*self.arrays(got))

        frame = self.frame(numpy, pandas)
        check_in_place(cache, numpy, frame, memory_of, pandas.testing.assert_frame_equal)

    def test_a_frame_cannot_be_changed_and_its_copy_can(self, cache: Cache, numpy: Any, pandas: Any) -> None:
        frame = self.frame(numpy, pandas)
        cache[KEY] = frame
        got = cache[KEY]
        for column in ("float", "int8", "bool"):
            with pytest.raises(ValueError, match="read-only"):
                got[column].to_numpy()[0] = 1
        own = got.copy()
        own.loc[0, "float"] = 5.0
        own["new"] = 1
        got["new"] = 2  # a column more is an array more, and the cache has none of it
        assert own["float"][0] == 5.0
        pandas.testing.assert_frame_equal(cache[KEY], frame)

    def test_a_part_keeps_it_alive(self, cache: Cache, numpy: Any, pandas: Any) -> None:
        frame = self.frame(numpy, pandas)
        cache[KEY] = frame
        part = cache[KEY]["float"][5:5000:7]
        gc.collect()
        drop(cache)
        cache.clear()
        pandas.testing.assert_series_equal(part, frame["float"][5:5000:7])
        del part
        gc.collect()
        assert cache.stats().pinned_bytes == 0

    def test_text_lies_in_arrows_buffers(self, cache: Cache, numpy: Any, pandas: Any, arrow: Any) -> None:
        texts = pandas.array([f"text {number}" for number in range(10_000)], dtype="string[pyarrow]")
        frame = pandas.DataFrame({"text": texts})

        def memory_of(got: Any) -> Memory:
            chunks = got["text"].array.__arrow_array__().chunks
            return of_buffers(buffer for chunk in chunks for buffer in chunk.buffers())

        check_in_place(cache, numpy, frame, memory_of, pandas.testing.assert_frame_equal)

    def test_python_objects_are_unpickled(self, cache: Cache, numpy: Any, pandas: Any) -> None:
        frame = pandas.DataFrame({"any": pandas.Series([1, "a", (2, 3)] * 1000, dtype=object)})
        frame.attrs["source"] = "a test"
        cache[KEY] = frame
        pandas.testing.assert_frame_equal(cache[KEY], frame)
        assert cache[KEY].attrs == {"source": "a test"}

    def test_other_objects_of_pandas(self, cache: Cache, numpy: Any, pandas: Any) -> None:
        frame = self.frame(numpy, pandas)
        wide = frame.set_index(["kind", "int"])
        for value in (wide, frame.iloc[::7], frame[["when", "bool"]], frame[:0], pandas.DataFrame()):
            cache[KEY] = value
            pandas.testing.assert_frame_equal(cache[KEY], value)
        cache[KEY] = frame["where"]
        pandas.testing.assert_series_equal(cache[KEY], frame["where"])
        cache[KEY] = wide.index
        pandas.testing.assert_index_equal(cache[KEY], wide.index)


class TestArrow:
    def table(self, arrow: Any, rows: int = 10_000) -> Any:
        return arrow.table(
            {
                "int": arrow.array(range(rows), arrow.int64()),
                "maybe": arrow.array([1.5, None] * (rows // 2)),
                "text": [f"text {number}" for number in range(rows)],
                "list": arrow.array([[1, 2], []] * (rows // 2), arrow.list_(arrow.int16())),
                "struct": arrow.array([{"a": 1, "b": "x"}] * rows),
                "kind": arrow.array(["a", "b"] * (rows // 2)).dictionary_encode(),
                "when": arrow.array(range(rows), arrow.timestamp("us", "UTC")),
            },
            metadata={"source": "a test"},
        )

    @staticmethod
    def same(a: Any, b: Any) -> None:
        a.validate(full=True)
        assert a.equals(b)
        assert getattr(a, "schema", None) == getattr(b, "schema", None)

    def test_a_table(self, cache: Cache, numpy: Any, arrow: Any) -> None:
        def memory_of(got: Any) -> Memory:
            return of_buffers(buffer for column in got.columns for chunk in column.chunks for buffer in chunk.buffers())

        check_in_place(cache, numpy, self.table(arrow), memory_of, self.same)

    def test_a_record_batch(self, cache: Cache, numpy: Any, arrow: Any) -> None:
        def memory_of(got: Any) -> Memory:
            return of_buffers(buffer for column in got.columns for buffer in column.buffers())

        check_in_place(cache, numpy, self.table(arrow).to_batches()[0], memory_of, self.same)

    def test_an_array_and_a_buffer(self, cache: Cache, numpy: Any, arrow: Any) -> None:
        array = arrow.array(range(10_000), arrow.int32())
        check_in_place(cache, numpy, array, lambda got: of_buffers(got.buffers()), self.same)
        buffer = arrow.py_buffer(b"b" * 50_000)
        cache[KEY] = [buffer]
        assert cache[KEY][0].equals(buffer)
        assert not cache[KEY][0].is_mutable

    def test_a_column_keeps_it_alive(self, cache: Cache, arrow: Any) -> None:
        table = self.table(arrow)
        cache[KEY] = table
        column = cache[KEY]["text"].slice(100, 200)
        drop(cache)
        cache.clear()
        assert column.equals(table["text"].slice(100, 200))
        del column
        gc.collect()
        assert cache.stats().pinned_bytes == 0

    def test_to_numpy_stays_in_place(self, cache: Cache, numpy: Any, arrow: Any) -> None:
        cache[KEY] = self.table(arrow)
        numbers = cache[KEY]["int"].chunk(0).to_numpy(zero_copy_only=True)
        assert not numbers.flags.writeable
        drop(cache)
        assert (numbers == numpy.arange(10_000)).all()


IN_PLACE = ("L", "P", "RGBA", "RGBX", "CMYK", "I;16")
COPIED = ("1", "LA", "PA", "RGB", "YCbCr", "LAB", "HSV", "I", "F", "La", "RGBa")


class TestPillow:
    def image(self, pillow: Any, mode: str) -> Any:
        size = (301, 203)
        pixels = pillow.new(mode, size).tobytes()
        image = pillow.frombytes(mode, size, bytes(number * 7 % 251 for number in range(len(pixels))))
        if mode in ("P", "PA"):
            image.putpalette([number % 256 for number in range(768)])
        image.info["comment"] = "a test"
        return image

    @staticmethod
    def same(a: Any, b: Any) -> None:
        assert (a.mode, a.size, a.info, a.format) == (b.mode, b.size, b.info, b.format)
        assert a.tobytes() == b.tobytes()
        assert a.getpalette("RGBA") == b.getpalette("RGBA")

    @pytest.mark.parametrize("mode", IN_PLACE)
    def test_modes_that_lie_in_the_caches_memory(self, backing: str, cache: Cache, pillow: Any, mode: str) -> None:
        image = self.image(pillow, mode)
        cache[KEY] = image
        got = cache[KEY]
        self.same(got, image)
        assert got.readonly
        if backing == "lazyfree":
            assert cache.stats().pinned_bytes >= len(image.tobytes())
        drop(cache)
        cache.clear()
        for number in range(3):
            cache[number] = image.rotate(180)
        self.same(got, image)
        del got
        gc.collect()
        assert cache.stats().pinned_bytes == 0

    @pytest.mark.parametrize("mode", COPIED)
    def test_modes_that_pillow_copies(self, cache: Cache, pillow: Any, mode: str) -> None:
        image = self.image(pillow, mode)
        cache[KEY] = image
        got = cache[KEY]
        self.same(got, image)
        gc.collect()
        assert cache.stats().pinned_bytes == 0
        got.putpixel((0, 0), image.getpixel((1, 1)))
        self.same(cache[KEY], image)

    def test_who_writes_gets_a_copy_first(self, cache: Cache, pillow: Any) -> None:
        from PIL import ImageDraw

        image = self.image(pillow, "RGBA")
        cache[KEY] = image
        changes = (
            lambda got: got.putpixel((1, 1), (9, 9, 9, 9)),
            lambda got: got.paste((1, 2, 3, 4), (0, 0, 50, 50)),
            lambda got: got.putalpha(3),
            lambda got: ImageDraw.Draw(got).rectangle((0, 0, 50, 50), fill=(1, 2, 3, 4)),
            lambda got: got.thumbnail((50, 50)),
            lambda got: got.alpha_composite(image),
        )
        for change in changes:
            got = cache[KEY]
            change(got)
            assert got.tobytes() != image.tobytes()
            self.same(cache[KEY], image)
        with pytest.raises(Exception, match="readonly"):
            cache[KEY].load()[0, 0] = (1, 2, 3, 4)

    def test_images_from_files(self, cache: Cache, pillow: Any) -> None:
        import io

        for form, mode in (("PNG", "RGBA"), ("JPEG", "L"), ("GIF", "P"), ("BMP", "RGB")):
            file = io.BytesIO()
            self.image(pillow, mode).save(file, form)
            opened = pillow.open(file)
            cache[KEY] = {"image": opened}
            got = cache[KEY]["image"]
            assert type(got) is pillow.Image
            assert got.format == form
            self.same(got, opened)

    def test_empty_and_transparent(self, cache: Cache, pillow: Any) -> None:
        empty = pillow.new("L", (0, 5))
        transparent = pillow.new("P", (100, 100))
        transparent.putpalette([number % 251 for number in range(1024)], "RGBA")
        for image in (empty, transparent):
            cache[KEY] = image
            self.same(cache[KEY], image)


class TestTorch:
    DTYPES = "float32 float64 float16 bfloat16 int8 uint8 int16 int64 bool complex64".split()  # noqa: SIM905

    @staticmethod
    def same(a: Any, b: Any) -> None:
        assert (type(a), a.dtype, a.shape, a.requires_grad) == (type(b), b.dtype, b.shape, b.requires_grad)
        assert a.equal(b)

    @pytest.mark.parametrize("dtype", DTYPES)
    def test_tensors_of_every_dtype(self, cache: Cache, torch: Any, dtype: str) -> None:
        for shape in ((), (0,), (1,), (3, 4), (2, 0, 3), (100, 200), (2, 3, 8, 8)):
            tensor = torch.randint(0, 2, shape).to(getattr(torch, dtype))
            cache[KEY] = {"tensor": tensor}
            self.same(cache[KEY]["tensor"], tensor)

    def test_a_tensor_is_a_copy_that_may_be_changed(self, cache: Cache, torch: Any) -> None:
        tensor = torch.arange(100_000.0)
        cache[KEY] = tensor
        got = cache[KEY]
        gc.collect()
        assert cache.stats().pinned_bytes == 0
        got += 1
        self.same(got, tensor + 1)
        self.same(cache[KEY], tensor)
        drop(cache)
        assert cache.get(KEY) is None

    def test_the_pickle_does_not_hold_it(self, torch: Any) -> None:
        """Out of band, so that storing makes no copy of its own."""
        from droppable import _values

        coded = _values.encode([torch.zeros(100_000)])
        assert isinstance(coded, tuple)
        assert sum(len(memoryview(part)) for part in coded[2][1:]) < 1000

    def test_layouts(self, cache: Cache, torch: Any) -> None:
        base = torch.randn(100, 100)
        dense = [base.T, base[5], base[10:20], torch.randn(4, 3, 32, 32).to(memory_format=torch.channels_last)]
        for tensor in dense:
            cache[KEY] = tensor
            self.same(cache[KEY], tensor)
            assert cache[KEY].stride() == tensor.stride()
        for tensor in (base[::2], base[:, :3], base.expand(3, 100, 100), base[::2].T):
            cache[KEY] = tensor
            self.same(cache[KEY], tensor)

    def test_modules_parameters_and_gradients(self, cache: Cache, torch: Any) -> None:
        module = torch.nn.Linear(300, 300)
        cache[KEY] = module
        for name, tensor in module.named_parameters():
            self.same(cache[KEY].get_parameter(name), tensor)
        cache[KEY] = module.state_dict()
        assert cache[KEY].keys() == module.state_dict().keys()
        leaf = torch.randn(5, requires_grad=True)
        cache[KEY] = [leaf, leaf]
        first, second = cache[KEY]
        assert first is second
        self.same(first, leaf)

    def test_tensors_that_torch_takes_apart_itself(self, cache: Cache, torch: Any) -> None:
        noted = torch.zeros(3)
        noted.note = "mine"
        for tensor in (noted, torch.randn(3, dtype=torch.complex64).conj(), torch.eye(3).to_sparse()):
            cache[KEY] = tensor
            got = cache[KEY]
            assert (got.layout, got.is_conj(), vars(got)) == (tensor.layout, tensor.is_conj(), vars(tensor))
            assert got.to_dense().equal(tensor.to_dense())


class Grid:
    def __init__(self, cells: Any) -> None:
        self.cells = cells


class SmallGrid(Grid):
    pass


def make_grid(cells: Any) -> Grid:
    return Grid(cells)


@pytest.mark.usefixtures("registered")
class TestRegistry:
    def test_a_reducer_of_ones_own(self, backing: str, cache: Cache) -> None:
        droppable.register_reducer(Grid, lambda grid: (make_grid, (pickle.PickleBuffer(grid.cells),)))
        cache[KEY] = {"grid": Grid(bytearray(b"c" * 100_000))}
        grid = cache[KEY]["grid"]
        assert bytes(grid.cells) == b"c" * 100_000
        assert memoryview(grid.cells).readonly
        if backing == "lazyfree":
            assert cache.stats().pinned_bytes >= 100_000
        del grid
        assert cache.stats().pinned_bytes == 0
        assert pickle.loads(pickle.dumps(Grid(5))).cells == 5

    def test_it_is_for_that_type_alone(self, cache: Cache) -> None:
        droppable.register_reducer(Grid, lambda grid: (make_grid, ("reduced",)))
        cache[KEY] = Grid(5), SmallGrid(6)
        assert [grid.cells for grid in cache[KEY]] == ["reduced", 6]
        droppable.register_reducer(Grid, lambda grid: (make_grid, ("once more",)))
        cache[KEY] = Grid(5)
        assert cache[KEY].cells == "once more"

    def test_an_error_in_it_is_told_as_of_the_value(self, cache: Cache) -> None:
        def reduce(grid: Grid) -> tuple[Any, ...]:
            raise LookupError("no such cell")

        droppable.register_reducer(Grid, reduce)
        with pytest.raises(TypeError, match="your value of type Grid cannot be pickled: no such cell"):
            cache[KEY] = Grid(5)

    def test_bad_input(self) -> None:
        with pytest.raises(TypeError, match="a type and a function are needed; you gave 5 and"):
            droppable.register_reducer(5, make_grid)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match=r"a type and a function are needed; you gave .*Grid.* and 5"):
            droppable.register_reducer(Grid, 5)  # type: ignore[arg-type]

    def test_what_copyreg_knows_stays_known(self, cache: Cache, monkeypatch: pytest.MonkeyPatch, numpy: Any) -> None:
        import copyreg

        monkeypatch.setitem(copyreg.dispatch_table, Grid, lambda grid: (make_grid, ("copyreg",)))
        monkeypatch.setitem(copyreg.dispatch_table, numpy.ndarray, lambda array: (make_grid, ("array",)))
        cache[KEY] = [Grid(5), numpy.zeros(3)]
        assert [grid.cells for grid in cache[KEY]] == ["copyreg", "array"]

    def test_no_library_is_imported_for_its_reducers(self, run_python: Callable[..., str]) -> None:
        code = """
            import sys, droppable
            cache = droppable.Cache()
            cache["k"] = {"a": [1, 2]}
            assert cache["k"] == {"a": [1, 2]}
            assert droppable._reducers.reducers.table() is None
            print([name for name in ("numpy", "torch", "PIL", "pandas", "pyarrow") if name in sys.modules])
        """
        assert run_python(code) == "[]\n"

    def test_a_library_that_comes_later_is_seen(self, run_python: Callable[..., str], pillow: Any) -> None:
        code = """
            import io, droppable
            cache = droppable.Cache()
            cache["k"] = {"a": 1}
            from PIL import Image
            cache["image"] = [Image.new("L", (300, 300))]
            assert cache["image"][0].readonly
            file = io.BytesIO()
            Image.new("L", (300, 300)).save(file, "PNG")
            cache["opened"] = [Image.open(file)]
            assert cache["opened"][0].readonly
            print("seen")
        """
        assert run_python(code) == "seen\n"


class Look:
    """Unpickling one notes what its cache has pinned at that moment."""

    cache: Cache
    pinned_bytes: int

    def __reduce__(self) -> Any:
        return look, ()


def look() -> Look:
    Look.pinned_bytes = Look.cache.stats().pinned_bytes
    return Look()


def test_a_large_pickle_is_read_where_it_lies(backing: str, cache: Cache) -> None:
    Look.cache = cache
    for size, is_in_place in ((10_000, False), (100_000, backing == "lazyfree")):
        cache[KEY] = [b"x" * size, Look()]
        assert cache[KEY][0] == b"x" * size
        assert (Look.pinned_bytes > 0) == is_in_place
        assert cache.stats().pinned_bytes == 0
    drop(cache)
    assert cache.get(KEY) is None
    del Look.cache


def test_the_value_is_let_go_after_it_was_stored(cache: Cache, pillow: Any, numpy: Any) -> None:
    image = pillow.new("RGBA", (100, 100))
    dates = numpy.arange("2020-01-01", "2021-01-01", dtype="M8[h]")
    for value in (image, dates):
        count = sys.getrefcount(value)
        cache[KEY] = [value]
        gc.collect()
        assert sys.getrefcount(value) == count
    gone = weakref.ref(image)
    del image, value
    gc.collect()
    assert gone() is None
