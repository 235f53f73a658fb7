"""How many instructions an Arm artifact executes for one decision, counted under QEMU's user emulation.

A count, never a time: it knows no caches, no latencies and no second issue port. QEMU writes every block of
instructions when it translates it and a line whenever it executes it, so that the count is exact. The log goes through
a pipe and is counted as it comes. What lies in the artifact's own code is told apart from the runtime by looking for
the artifact's code in the log, word by word. What is executed once when the artifact is loaded is counted by a second
run that ends after loading, and subtracted. Works for artifacts of the IREE driver; their numbers are ``emulation``'s.
"""

from __future__ import annotations

import os
import re
import select
import shutil
import struct
import tempfile
import threading
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from nwmctl.domain.artifact import ArtifactManifest
from nwmctl.errors import RuntimeFailedError
from nwmctl.toolchains.emulation import emulated_argv
from nwmctl.toolchains.inspect_arm64 import DOTS, PATTERNS, code_words
from nwmctl.toolchains.inspection import uninspectable
from nwmctl.toolchains.lowering import ENTRY
from nwmctl.toolchains.process import Command, Limits, MemoryLimit, run_tool
from nwmctl.toolchains.rows import FILE_BYTES, input_name
from nwmctl.toolchains.sessions import check_inputs

_LOG = "log"
_NO_FUNCTION = "nothing"
"""A function that no artifact has: asked for it, the runtime loads the artifact and ends."""
_BLOCK = b"----------------\n"
_TRACE = re.compile(rb"Trace \d+: 0x[0-9a-f]+ \[[0-9a-f]+/([0-9a-f]+)/")
_STOPPED = re.compile(rb"Stopped execution of TB chain before 0x[0-9a-f]+ \[([0-9a-f]+)\]")
"""Follows a line of execution that did not come about: another thread had to be waited for."""
_LEAST_BLOCK = 6
"""Instructions of a block that is long enough to be found in the artifact's code by its words."""
_MATRIX = DOTS | {"bfmmla", "bfdot", "bfmlalb", "bfmlalt"}
_BRANCHES = frozenset({"b", "bl", "blr", "br", "ret", "cbz", "cbnz", "tbz", "tbnz"})
_PIPE_BYTES = 1 << 20
_Block = tuple[tuple[int, bytes], ...]
"""Instructions of a translated block: word and mnemonic."""


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
    code = code_words(image_of(payload)).astype("<u4").tobytes()
    loading = _run(payload, manifest, row, _NO_FUNCTION, timeout_s).within(code)
    whole = _run(payload, manifest, row, ENTRY, timeout_s).within(code)
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


@dataclass(slots=True)
class _Split:
    """Executions by (name, kind) inside the artifact's code, and their sum outside."""

    inside: Counter[tuple[str, str]] = field(default_factory=Counter)
    outside: int = 0


class LogCount:
    """Counts the executions of blocks in QEMU's log (``in_asm,exec,nochain``), fed in pieces."""

    def __init__(self) -> None:
        self.settled: Counter[tuple[int, _Block]] = Counter()
        self._blocks: dict[int, _Block] = {}
        self._pending: Counter[bytes] = Counter()
        self._rest = b""

    def feed(self, data: bytes) -> None:
        """More of the log, cut anywhere."""
        data = self._rest + data
        end = data.rfind(b"\n" + _BLOCK)
        # A block is complete when the next one or a line of execution follows it.
        end = max(end, data.rfind(b"\nTrace ")) + 1
        self._rest = data[end:]
        self._take(data[:end])

    def finish(self) -> None:
        """The log has ended."""
        self._take(self._rest)
        self._rest = b""
        self._settle()

    def _take(self, text: bytes) -> None:
        first, *sections = text.split(_BLOCK)
        self._executed(first.split(b"\n"))
        for section in sections:
            head, _, lines = section.partition(b"\n\n")
            self._translated(head)
            self._executed(lines.split(b"\n"))

    def _translated(self, head: bytes) -> None:
        """One block: a title, then ``0xADDRESS:  WORD  MNEMONIC OPERANDS`` per instruction."""
        block: list[tuple[int, bytes]] = []
        start = -1
        for line in head.split(b"\n")[1:]:
            address, _, rest = line.partition(b":")
            parts = rest.split(None, 2)
            if not address.startswith(b"0x") or len(parts) < 2:
                raise uninspectable("the log of the emulator", f"a line of it is unknown: {line[:60]!r}")
            start = int(address, 16) if start < 0 else start
            block.append((int(parts[0], 16), parts[1]))
        if self._blocks.get(start, tuple(block)) != tuple(block):
            self._settle()  # the same address has become other code: what ran before was the old one
        self._blocks[start] = tuple(block)

    def _executed(self, lines: list[bytes]) -> None:
        self._pending.update(lines)

    def _settle(self) -> None:
        for line, count in self._pending.items():
            if not line:
                continue
            executed, stopped = _TRACE.match(line), _STOPPED.match(line)
            if not executed and not stopped:
                raise uninspectable("the log of the emulator", f"a line of it is unknown: {line[:60]!r}")
            sign, address = (1, executed[1]) if executed else (-1, stopped[1] if stopped else b"")
            start = int(address, 16)
            if start not in self._blocks:
                raise uninspectable("the log of the emulator", f"block {start:#x} was executed and never translated")
            self.settled[start, self._blocks[start]] += sign * count
        self._pending.clear()

    def within(self, code: bytes) -> _Split:
        """Executions inside and outside of code that was loaded somewhere as it is."""
        base = self._base(code)
        split = _Split()
        for (start, block), count in self.settled.items():
            offset = start - base
            if base < 0 or not 0 <= offset < len(code):
                split.outside += count * len(block)
                continue
            if _bytes(block) != code[offset : offset + 4 * len(block)]:
                raise uninspectable("the log of the emulator", "the artifact's code was changed in memory")
            for word, mnemonic in block:
                split.inside[_kind(word, mnemonic)] += count
        return split

    def _base(self, code: bytes) -> int:
        """Where the code was loaded, by its long blocks that occur in it once; -1 if it was never executed."""
        votes: Counter[int] = Counter()
        for start, block in self.settled:
            if len(block) >= _LEAST_BLOCK:
                at = code.find(needle := _bytes(block))
                if at >= 0 and code.find(needle, at + 4) < 0:
                    votes[start - at] += 1
        return votes.most_common(1)[0][0] if votes else -1


def _bytes(block: _Block) -> bytes:
    return struct.pack(f"<{len(block)}I", *(word for word, _ in block))


def _kind(word: int, mnemonic: bytes) -> tuple[str, str]:
    """An instruction's name and class. Old disassemblers do not know the products; their words are known here."""
    for pattern in PATTERNS:
        if word & pattern.mask == pattern.value and pattern.work:
            return pattern.name, "matrix products" if pattern.name in _MATRIX else "float products"
    name = mnemonic.decode("ascii", "replace")
    if name.startswith(("ld", "st", "prfm")):
        return name, "loads and stores"
    if name in _BRANCHES or name.startswith("b."):
        return name, "branches"
    return name, "other"


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
