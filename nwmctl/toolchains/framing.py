"""Tensors over a pipe: the small binary language between a session and its worker. No pickle.

A frame is an 8-byte length, a JSON header of that length, and the tensors' bytes in the header's order, little-endian
and C-contiguous. A header holds either tensors, with the seconds that their making took, or an error's text. Reading
never trusts a length beyond the limit that the reader sets (``MAX_BYTES`` at most).
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nwmctl.toolchains.protocol import Tensors

MAX_BYTES = 1 << 30
_HEADER_BYTES = 1 << 20
"""Names, dtypes and shapes of a few tensors, or an error's text: nothing that needs more."""
_LENGTH = struct.Struct("<Q")
_DTYPES = ("float32", "float64", "float16", "int8", "uint8", "int16", "int32", "int64", "bool")


class FrameError(Exception):
    """The other side does not speak this language; translated at the session's seam."""


@dataclass(frozen=True, slots=True)
class Frame:
    """What one side says: tensors and what each execution took, in s; or the text of an error."""

    tensors: Tensors
    error: str = ""
    seconds: tuple[float, ...] = ()


def pack(tensors: Mapping[str, NDArray[np.generic]], error: str = "", seconds: Sequence[float] = ()) -> bytes:
    """The bytes of a frame. Raises FrameError for an element type that has no place in it."""
    entries, parts = [], []
    for name, values in tensors.items():
        if values.dtype.name not in _DTYPES:
            raise FrameError(f"tensors of {values.dtype.name} cannot be sent")
        entries.append({"name": name, "dtype": values.dtype.name, "shape": list(values.shape)})
        parts.append(np.ascontiguousarray(values, values.dtype.newbyteorder("<")).tobytes())
    header = json.dumps({"tensors": entries, "error": error, "seconds": list(seconds)}).encode()
    return b"".join([_LENGTH.pack(len(header)), header, *parts])


def unpack(read: Callable[[int], bytes], limit: int = MAX_BYTES) -> Frame:
    """Read one frame; ``read(n)`` returns exactly n bytes or raises. Tensors take at most ``limit`` bytes. Raises
    FrameError."""
    (length,) = _LENGTH.unpack(read(_LENGTH.size))
    if length > _HEADER_BYTES:
        raise FrameError(f"a header of {length} bytes")
    try:
        header = json.loads(read(length))
        entries = [(str(e["name"]), str(e["dtype"]), tuple(int(n) for n in e["shape"])) for e in header["tensors"]]
        error = str(header["error"])
        seconds = tuple(float(value) for value in header["seconds"])
    except (ValueError, KeyError, TypeError, RecursionError) as problem:
        raise FrameError(f"a header that does not parse: {problem}") from problem
    if not all(math.isfinite(value) and value >= 0.0 for value in seconds):
        raise FrameError("executions that took no number of seconds")
    tensors: Tensors = {}
    room = min(limit, MAX_BYTES)
    for name, dtype, shape in entries:
        if dtype not in _DTYPES or any(n < 0 for n in shape):
            raise FrameError(f"a tensor of {dtype}{list(shape)}")
        kind = np.dtype(dtype).newbyteorder("<")
        size = math.prod(shape) * kind.itemsize
        room -= size
        if room < 0:
            raise FrameError(f"more than {min(limit, MAX_BYTES)} bytes of tensors")
        tensors[name] = np.frombuffer(read(size), kind).reshape(shape).astype(dtype)
    return Frame(tensors, error, seconds)
