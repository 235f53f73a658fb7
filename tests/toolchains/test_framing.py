"""The pipe's language: what goes in comes out, and nonsense is refused."""

from __future__ import annotations

import io
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from nwmctl.toolchains.framing import FrameError, pack, unpack

ARRAYS = hnp.arrays(
    st.sampled_from(["float32", "float16", "int64", "uint8", "bool"]),
    hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4),
)


def reading(data: bytes):  # type: ignore[no-untyped-def]
    stream = io.BytesIO(data)

    def exactly(count: int) -> bytes:
        part = stream.read(count)
        if len(part) != count:
            raise EOFError
        return part

    return exactly


@given(st.dictionaries(st.text(max_size=8), ARRAYS, max_size=3), st.text(max_size=20))
def test_a_frame_survives(tensors: dict[str, np.ndarray], error: str) -> None:  # type: ignore[type-arg]
    frame = unpack(reading(pack(tensors, error)))
    assert frame.error == error
    assert list(frame.tensors) == list(tensors)
    for name, values in tensors.items():
        assert frame.tensors[name].dtype == values.dtype
        np.testing.assert_array_equal(frame.tensors[name], values)


def test_arrays_that_are_not_contiguous_survive() -> None:
    values = np.arange(24, dtype=np.float32).reshape(4, 6).T[::2]
    np.testing.assert_array_equal(unpack(reading(pack({"a": values}))).tensors["a"], values)


@given(st.binary(max_size=200))
def test_garbage_is_refused(data: bytes) -> None:
    with pytest.raises((FrameError, EOFError)):
        unpack(reading(struct.pack("<Q", len(data)) + data))


@pytest.mark.parametrize(
    "header",
    [
        b'{"tensors":[{"name":"a","dtype":"object","shape":[1]}],"error":""}',
        b'{"tensors":[{"name":"a","dtype":"float32","shape":[-1]}],"error":""}',
        b'{"tensors":[{"name":"a","dtype":"float32","shape":[99999999999]}],"error":""}',
    ],
)
def test_a_header_that_promises_too_much_is_refused(header: bytes) -> None:
    with pytest.raises(FrameError):
        unpack(reading(struct.pack("<Q", len(header)) + header))


def test_objects_are_never_sent() -> None:
    with pytest.raises(FrameError):
        pack({"a": np.array([object()])})
