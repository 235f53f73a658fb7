"""How many instructions an Arm artifact executes for one decision, counted under QEMU's user emulation.

A count, never a time: it knows no caches, no latencies and no second issue port. QEMU writes every block of
instructions when it translates it and a line whenever it executes it, so that the count is exact. The log goes through
a pipe and is counted as it comes. What lies in the artifact's own code is told apart from the runtime by looking for
the artifact's code in the log, word by word. What is executed once when the artifact is loaded is counted by a second
run that ends after loading, and subtracted. Works for artifacts of the IREE driver; their numbers are ``emulation``'s.
"""

from __future__ import annotations

import os
import select
import shutil
import struct
import tempfile
import threading
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from nwmctl.domain.artifact import ArtifactManifest
from nwmctl.errors import RuntimeFailedError
from nwmctl.toolchains.counting_log import PAGE, LogCount
from nwmctl.toolchains.emulation import emulated_argv
from nwmctl.toolchains.inspect_arm64 import code_words
from nwmctl.toolchains.inspection import uninspectable
from nwmctl.toolchains.lowering import ENTRY
from nwmctl.toolchains.process import Command, Limits, MemoryLimit, run_tool
from nwmctl.toolchains.rows import FILE_BYTES, input_name
from nwmctl.toolchains.sessions import check_inputs

_LOG = "log"
_PIPE_BYTES = 1 << 20
_EXECUTABLE = 0x4
_NO_FUNCTION = "nothing"
"""A function that no artifact has: asked for it, the runtime loads the artifact and ends."""


@dataclass(frozen=True, slots=True)
class Executed:
    """Executed instructions of one decision at batch 1.

    ``kernels``: in the artifact's own code; ``runtime``: beside it (input and output included); ``loading``: in the
    artifact's code, once per load (weights laid out anew). ``kinds``: the kernels' by class; ``products``: those that
    multiply, by name.
    """

    kernels: int
    runtime: int
    loading: int
    kinds: dict[str, int]
    products: dict[str, int]


def count_executed(
    payload: Path, manifest: ArtifactManifest, row: Mapping[str, NDArray[np.generic]], timeout_s: float = 600.0
) -> Executed:
    """Execute one row and count. ``timeout_s`` holds for each of two runs.

    Raises PlaceUnavailableError where there is no emulation, TensorMismatchError, RuntimeFailedError,
    InspectionFailedError where the log does not hold together.
    """
    if check_inputs(manifest.inputs, row) != 1:
        raise RuntimeFailedError("one row is counted at a time", why="several were given", next="give one row")
    image = image_of(payload)
    code = code_words(image).astype("<u4").tobytes()
    page = _address(image) % PAGE
    loading = _run(payload, manifest, row, _NO_FUNCTION, timeout_s).within(code, page)
    whole = _run(payload, manifest, row, ENTRY, timeout_s).within(code, page)
    if not whole.inside:
        raise uninspectable("the log of the emulator", "the artifact's code is not in it as it lies in the payload")
    inside = Counter(whole.inside)
    inside.subtract(loading.inside)
    kinds: Counter[str] = Counter()
    products: Counter[str] = Counter()
    for (name, kind), count in inside.items():
        kinds[kind] += count
        if kind in ("matrix products", "float products"):
            products[name] += count
    return Executed(
        sum(inside.values()),
        whole.outside - loading.outside,
        sum(loading.inside.values()),
        dict(kinds.most_common()),
        dict(products.most_common()),
    )


def image_of(payload: Path) -> bytes:
    """The one image of AArch64 machine code in a payload. Raises InspectionFailedError."""
    data = payload.read_bytes()
    starts: list[int] = []
    at = data.find(b"\x7fELF\x02\x01")
    while at >= 0:
        starts.append(at)
        at = data.find(b"\x7fELF\x02\x01", at + 1)
    if len(starts) != 1:
        raise uninspectable("the payload", f"it holds {len(starts)} images of machine code, one is expected")
    try:
        (table,) = struct.unpack_from("<Q", data, starts[0] + 40)
        size, count = struct.unpack_from("<HH", data, starts[0] + 58)
    except struct.error as problem:
        raise uninspectable("the payload", "its image of machine code is cut off") from problem
    return data[starts[0] : starts[0] + table + size * count]


def _address(image: bytes) -> int:
    """Where the image wants its first section of code to lie."""
    (table,) = struct.unpack_from("<Q", image, 40)
    size, count = struct.unpack_from("<HH", image, 58)
    for index in range(count):
        _, kind, flags, address = struct.unpack_from("<IIQQ", image, table + index * size)
        if kind == 1 and flags & _EXECUTABLE:
            return int(address)
    raise uninspectable("the payload", "its image of machine code has no section of code")


# --- the emulated runs --------------------------------------------------------------------------------------------


class _Pipe:
    """The log as a named pipe in a folder, counted by a thread until the emulator has ended."""

    def __init__(self, folder: Path) -> None:
        self.count = LogCount()
        self._problem: Exception | None = None
        os.mkfifo(folder / _LOG)
        # Open for both, so that neither side waits for the other, and an emulator that never starts is no deadlock.
        self._handle = os.open(folder / _LOG, os.O_RDWR | os.O_NONBLOCK)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._drain, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        os.close(self._handle)
        if self._problem is not None:
            raise self._problem

    def _drain(self) -> None:
        while True:
            ready, _, _ = select.select([self._handle], [], [], 0.05)
            if not ready:
                if self._ended.is_set():
                    break
                continue
            with suppress(BlockingIOError):
                data = os.read(self._handle, _PIPE_BYTES)
                self._take(data)
        self._finish()

    def _take(self, data: bytes) -> None:
        if self._problem is None:
            try:
                self.count.feed(data)
            except Exception as problem:  # told in the thread that waits; the pipe must be drained all the same
                self._problem = problem

    def _finish(self) -> None:
        if self._problem is None:
            try:
                self.count.finish()
            except Exception as problem:  # as above
                self._problem = problem


def _run(
    payload: Path, manifest: ArtifactManifest, row: Mapping[str, NDArray[np.generic]], function: str, timeout_s: float
) -> LogCount:
    folder = Path(tempfile.mkdtemp(prefix="nwmctl-count-"))
    try:
        for index, port in enumerate(manifest.inputs):
            np.save(folder / input_name(index), row[port.name])
        argv = emulated_argv(payload, manifest, function, ("-d", "in_asm,exec,nochain", "-D", _LOG))
        limits = Limits(timeout_s, memory=MemoryLimit.DATA, file_bytes=FILE_BYTES)
        command = Command("the counting emulator", argv, folder, limits, error_pattern="", failure=RuntimeFailedError)
        with _Pipe(folder) as pipe:
            try:
                run_tool(command)
            except RuntimeFailedError as problem:
                if function != _NO_FUNCTION or "NOT_FOUND" not in problem.why:
                    raise
        return pipe.count
    finally:
        shutil.rmtree(folder, ignore_errors=True)
