"""A `ChunkedArray` gives what NumPy gives for the whole array, whatever the index, whatever was dropped."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

numpy = pytest.importorskip("numpy", reason="NumPy is not installed")
numpy_strategies = pytest.importorskip("hypothesis.extra.numpy", reason="NumPy is not installed")

from droppable import ChunkedArray, testing  # noqa: E402

SHAPES = numpy_strategies.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=9)


def outcome(array: Any, index: Any) -> Any:
    try:
        return array[index]
    except IndexError:
        return IndexError


@settings(deadline=None, max_examples=300)
@given(st.data())
def test_every_index_gives_what_numpy_gives(data: st.DataObject) -> None:
    shape = data.draw(SHAPES)
    whole = (
        numpy.arange(math.prod(shape)).astype(data.draw(st.sampled_from(["i4", "f8", "M8[s]", "S3"]))).reshape(shape)
    )
    chunks = data.draw(st.tuples(*(st.sampled_from([1, 2, 3, 5, 20, None]) for _ in shape)))
    indices = st.one_of(
        numpy_strategies.basic_indices(shape, allow_newaxis=True, allow_ellipsis=True),
        numpy_strategies.integer_array_indices(shape) if shape and 0 not in shape else st.just(()),
        numpy_strategies.arrays(bool, shape),
        st.tuples(st.integers(-12, 12), st.sampled_from([slice(None, None, -2), [0, 0], None, ..., True])),
    )
    with ChunkedArray(shape, whole.dtype, chunks, lambda where: whole[where]) as array:
        for index in data.draw(st.lists(indices, min_size=1, max_size=4)):
            expected, found = outcome(whole, index), outcome(array, index)
            if expected is IndexError:
                assert found is IndexError, index
                continue
            assert type(found) is type(expected), index
            assert found.dtype == expected.dtype
            assert found.shape == expected.shape, index
            assert numpy.array_equal(found, expected), index
            if data.draw(st.booleans()):
                testing.drop(array, fraction=0.5)
        assert numpy.array_equal(numpy.asarray(array), whole)
