"""QEMU's log of translated and executed blocks (``in_asm,exec,nochain``), turned into counts of instructions.

QEMU writes every block of instructions when it translates it, and a line whenever it executes one. The log is fed in
pieces, cut anywhere. Disassemblers of QEMU do not know newer instructions, so products are told by their words. A log
that does not hold together is refused. Starts nothing; see ``counting``.
"""

from __future__ import annotations

import re
import struct
from collections import Counter
from dataclasses import dataclass, field

from nwmctl.toolchains.inspect_arm64 import DOTS, PATTERNS
from nwmctl.toolchains.inspection import uninspectable

_BLOCK = b"----------------\n"
_TRACE = re.compile(rb"Trace \d+: 0x[0-9a-f]+ \[[0-9a-f]+/([0-9a-f]+)/")
_STOPPED = re.compile(rb"Stopped execution of TB chain before 0x[0-9a-f]+ \[([0-9a-f]+)\]")
"""Follows a line of execution that did not come about: another thread had to be waited for."""
PAGE = 4096
_LEAST_BLOCK = 6
"""Instructions of a block that is long enough to be found in the artifact's code by its words."""
_MATRIX = DOTS | {"bfmmla", "bfdot", "bfmlalb", "bfmlalt"}
_BRANCHES = frozenset({"b", "bl", "blr", "br", "ret", "cbz", "cbnz", "tbz", "tbnz"})
_Block = tuple[tuple[int, bytes], ...]
"""Instructions of a translated block: word and mnemonic."""


@dataclass(slots=True)
class Split:
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

    def within(self, code: bytes, page: int) -> Split:
        """Executions inside and outside of code that was loaded as it is, at some page and ``page`` bytes from its
        beginning. Where it was not executed, all is outside."""
        base = self._base(code, page)
        split = Split()
        for (start, block), count in self.settled.items():
            if base < 0 or not 0 <= start - base < len(code):
                split.outside += count * len(block)
                continue
            for word, mnemonic in block:
                split.inside[_kind(word, mnemonic)] += count
        return split

    def _base(self, code: bytes, page: int) -> int:
        """Where the code was loaded, by its long blocks that occur in it once; -1 if it was never executed. Libraries
        have a few blocks of the same words: every block that would lie in the code must be there as it is."""
        votes: Counter[int] = Counter()
        for start, block in self.settled:
            if len(block) >= _LEAST_BLOCK:
                at = code.find(needle := _bytes(block))
                if at >= 0 and code.find(needle, at + 4) < 0 and (start - at) % PAGE == page:
                    votes[start - at] += 1
        return next((base for base, _ in votes.most_common() if self._holds(code, base)), -1)

    def _holds(self, code: bytes, base: int) -> bool:
        return all(
            _bytes(block) == code[start - base : start - base + 4 * len(block)]
            for start, block in self.settled
            if 0 <= start - base < len(code)
        )


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
