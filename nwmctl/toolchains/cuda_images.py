"""Reads the GPU code out of an IREE payload, as the runtime in the vehicle will find it.

A payload holds one or more CUDA executables; each is a FlatBuffer (``ExecutableDef``, identified by ``CDA1``) behind a
header of 64 bytes. Of each the images (PTX text or machine code, handed to the GPU's driver byte for byte) and the
kernels that are launched from them are read. Nothing is believed: every offset is checked, and a payload in which no
executable is found, or one that cannot be followed, is refused. Pure.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from nwmctl.toolchains.inspection import uninspectable

_IDENTIFIER = b"CDA1"
_HEADER_BYTES = 64
_ROOT_IDENTIFIER = 4
_MOST = 1_000_000
_EXPORTS, _MODULES = 0, 1
_MODULE_IMAGE = 0
_ORDINAL, _NAME, _BLOCK, _SHARED, _CONSTANTS = 0, 1, 2, 3, 4


@dataclass(frozen=True, slots=True)
class Launch:
    """A kernel that the host program launches: its name, in which image, threads per block (x, y, z), bytes of shared
    memory that the launch asks for, and the number of 32-bit constants that it passes."""

    name: str
    image: int
    block: tuple[int, int, int]
    shared: int
    constants: int


@dataclass(frozen=True, slots=True)
class Executable:
    """One executable of a payload. ``starts`` are the places of its images in the payload, in bytes."""

    images: tuple[bytes, ...]
    starts: tuple[int, ...]
    launches: tuple[Launch, ...]


def read_executables(payload: bytes) -> tuple[Executable, ...]:
    """All CUDA executables of a payload, in its order. Raises InspectionFailedError."""
    found: list[Executable] = []
    at = payload.find(_IDENTIFIER)
    while at >= 0:
        begin = at + _HEADER_BYTES
        version, size = struct.unpack_from("<IQ", payload, at + 4) if begin <= len(payload) else (1, 0)
        tail = begin + _ROOT_IDENTIFIER
        # The identifier may turn up anywhere by chance; a header is followed by the same identifier in the buffer.
        if version == 0 and 0 < size <= len(payload) - begin and payload[tail : tail + 4] == _IDENTIFIER:
            try:
                found.append(_Buffer(payload, begin, begin + size).executable())
            except (struct.error, UnicodeDecodeError) as problem:
                raise _unreadable("an executable in it leads outside of itself") from problem
            at = payload.find(_IDENTIFIER, begin + size)
        else:
            at = payload.find(_IDENTIFIER, at + 1)
    if not found:
        raise _unreadable("there is no CUDA executable in it")
    return tuple(found)


class _Buffer:
    """A FlatBuffer inside of a payload; positions count from the payload's start."""

    def __init__(self, payload: bytes, begin: int, end: int) -> None:
        self._view, self._begin, self._end = memoryview(payload), begin, end

    def executable(self) -> Executable:
        """The executable that the buffer describes."""
        root = self._begin + self._number("<I", self._begin)
        images: list[bytes] = []
        starts: list[int] = []
        for module in self._tables(root, _MODULES):
            where = self._field(module, _MODULE_IMAGE)
            if where is None:
                raise _unreadable("a module in it has no code")
            start, size = self._bytes(where)
            images.append(bytes(self._view[start : start + size]))
            starts.append(start)
        launches = tuple(self._launch(table) for table in self._tables(root, _EXPORTS))
        if not images or any(launch.image >= len(images) for launch in launches):
            raise _unreadable("a kernel in it belongs to no code")
        return Executable(tuple(images), tuple(starts), launches)

    def _launch(self, table: int) -> Launch:
        name, block = self._field(table, _NAME), self._field(table, _BLOCK)
        if name is None or block is None:
            raise _unreadable("a kernel in it has no name or no size")
        start, size = self._bytes(name)
        x, y, z = (self._number("<I", block + 4 * axis) for axis in range(3))
        ordinal, shared, constants = (self._scalar(table, field) for field in (_ORDINAL, _SHARED, _CONSTANTS))
        return Launch(bytes(self._view[start : start + size]).decode("utf-8"), ordinal, (x, y, z), shared, constants)

    def _scalar(self, table: int, field: int) -> int:
        where = self._field(table, field)
        return 0 if where is None else self._number("<I", where)

    def _tables(self, table: int, field: int) -> list[int]:
        where = self._field(table, field)
        if where is None:
            return []
        vector = where + self._number("<I", where)
        count = self._number("<I", vector)
        if count > _MOST:
            raise _unreadable("an executable in it leads outside of itself")
        places = range(vector + 4, vector + 4 + 4 * count, 4)
        return [place + self._number("<I", place) for place in places]

    def _field(self, table: int, field: int) -> int | None:
        """The position of a table's field; None where it has its default."""
        layout = table - self._number("<i", table)
        entry = 4 + 2 * field
        if entry >= self._number("<H", layout):
            return None
        offset = self._number("<H", layout + entry)
        return table + offset if offset else None

    def _bytes(self, where: int) -> tuple[int, int]:
        start = where + self._number("<I", where) + 4
        size = self._number("<I", start - 4)
        if start + size > self._end:
            raise _unreadable("an executable in it leads outside of itself")
        return start, size

    def _number(self, form: str, at: int) -> int:
        if at < self._begin or at + struct.calcsize(form) > self._end:
            raise _unreadable("an executable in it leads outside of itself")
        number: int = struct.unpack_from(form, self._view, at)[0]
        return number


def _unreadable(why: str) -> Exception:
    return uninspectable("the GPU code of the payload", why)
