"""Mutants: damaged copies of a file, what damages them, and a count of what became of them.

``mutants`` damages bytes as transport, disks and people do; ``json_mutants`` changes one value of a JSON text, so that
what lies behind a parser is reached. A ``Hunt`` shows them to a reader one by one. A mutant is refused with an error of
ours or, where ``means`` is given, read as the very same thing; it costs no more than ``MOST_S`` of CPU, and all of them
together no more than ``MOST_BYTES`` of memory beyond what the process had. Every hunt ends with one line that names its
seed; all such lines stand at the end of the run's output. ``NWMCTL_FUZZ_SEED`` repeats one.
"""

from __future__ import annotations

import json
import os
import random
import secrets
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

import pytest

from nwmctl.errors import NwmError

MOST_S = 2.0
MOST_BYTES = 64 << 20
_REFUSED = object()


class Way(StrEnum):
    """What was done to the bytes."""

    FLIPPED = "bits flipped"
    CUT = "cut off"
    LEFT_OUT = "a piece left out"
    DOUBLED = "a piece doubled"
    EXCHANGED = "two pieces exchanged"
    ZEROED = "a piece zeroed"
    OVERWRITTEN = "a piece overwritten"
    INSERTED = "bytes put in"
    VALUE = "a value changed"


_BYTES = [way for way in Way if way is not Way.VALUE]


def mutant(data: bytes, dice: random.Random) -> tuple[Way, bytes]:
    """One damaged copy; it may be ``data`` itself where a piece is exchanged with its like."""
    way = dice.choice(_BYTES)
    most = dice.choice((1, 4, 40, 400, len(data)))
    start = dice.randrange(len(data))
    end = min(len(data), start + dice.randint(1, most))
    piece = data[start:end]
    match way:
        case Way.FLIPPED:
            made = bytearray(data)
            for _ in range(dice.randint(1, 3)):
                made[dice.randrange(len(made))] ^= 1 << dice.randrange(8)
            return way, bytes(made)
        case Way.CUT:
            return way, data[:start]
        case Way.LEFT_OUT:
            return way, data[:start] + data[end:]
        case Way.DOUBLED:
            return way, data[:end] + piece + data[end:]
        case Way.EXCHANGED:
            cuts = sorted(dice.randrange(len(data) + 1) for _ in range(4))
            one, two, three, four = cuts
            return way, data[:one] + data[three:four] + data[two:three] + data[one:two] + data[four:]
        case Way.ZEROED:
            return way, data[:start] + bytes(len(piece)) + data[end:]
        case Way.OVERWRITTEN:
            other = dice.randrange(len(data))
            put = data[other : other + len(piece)] if dice.random() < 0.5 else dice.randbytes(min(len(piece), 400))
            return way, data[:start] + put + data[start + len(put) :]
        case _:
            return way, data[:start] + dice.randbytes(dice.choice((1, 4, 100))) + data[start:]


def mutants(data: bytes, seed: int, count: int) -> Iterator[tuple[Way, bytes]]:
    """``count`` damaged copies, none of which is ``data``."""
    dice = random.Random(seed)
    made = 0
    while made < count:
        way, bad = mutant(data, dice)
        if bad != data:
            made += 1
            yield way, bad


_ODD: list[Callable[[random.Random], object]] = [
    lambda dice: None,
    lambda dice: dice.choice((True, False)),
    lambda dice: dice.choice((-1, 0, 1, 2**31, 2**53 + 1, 2**63, 10**30, 1.5, float("inf"))),
    lambda dice: dice.choice(("", "x", "../../x", "\0", "é" * 50, "9" * 5000, "2026-02-30T25:61:61Z")),
    lambda dice: dice.choice(([], {}, [[]], {"": {}}, ["x"] * 300)),
]


def json_mutants(data: bytes, seed: int, count: int) -> Iterator[tuple[Way, bytes]]:
    """Copies of a JSON text in which a value or two is another, is gone, or stands in another's place or order."""
    dice = random.Random(seed)
    made = 0
    while made < count:
        whole = json.loads(data)
        for _ in range(dice.choice((1, 1, 1, 2))):
            _change(whole, dice)
        try:
            bad = json.dumps(whole).encode()
        except ValueError:  # a value stands within itself now
            continue
        if bad != data:
            made += 1
            yield Way.VALUE, bad


def _change(whole: Any, dice: random.Random) -> None:
    places = list(_places(whole))
    if not places:
        return
    holder, key = dice.choice(places)
    match dice.randrange(6):
        case 0 if isinstance(holder, dict):
            holder[dice.choice(("", "_type", "x", key * 2))] = holder.pop(key)
        case 1:
            del holder[key]
        case 2:
            other, name = dice.choice(places)
            holder[key], other[name] = other[name], holder[key]
        case 3 if isinstance(holder[key], str):
            holder[key] = mutant(holder[key].encode() or b"x", dice)[1].decode(errors="replace")
        case 4 if isinstance(holder[key], list):
            holder[key] = holder[key][::-1] + holder[key][:1]
        case _:
            holder[key] = dice.choice(_ODD)(dice)


def _places(whole: Any) -> Iterator[tuple[Any, Any]]:
    """Every value below ``whole``, as the table or list that holds it and its key there."""
    waiting = [whole]
    while waiting:
        here = waiting.pop()
        for key, value in list(here.items() if isinstance(here, dict) else enumerate(here)):
            yield here, key
            if isinstance(value, (dict, list)):
                waiting.append(value)


@dataclass
class Hunt:
    """What became of the mutants of one thing. ``read`` ends with an error of ours, or what it says is ``means``."""

    what: str
    seed: int
    ways: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    same: int = 0
    slowest_s: float = 0.0
    memory: int = 0

    def show(self, way: Way, read: Callable[[], object], means: object = _REFUSED) -> None:
        """One mutant."""
        number = self.ways.total()
        self.ways[way] += 1
        began = time.process_time()
        try:
            found = read()
        except NwmError as problem:
            self.refused[type(problem).__name__] += 1
        except Exception as problem:
            raise AssertionError(f"{self.what}, seed {self.seed}, mutant {number} ({way}): {problem!r}") from problem
        else:
            said = f"{self.what}, seed {self.seed}: mutant {number} ({way}) was accepted"
            assert means is not _REFUSED, said
            assert found == means, f"{said} and means something else: {found!r:.500}"
            self.same += 1
        took = time.process_time() - began
        self.slowest_s = max(self.slowest_s, took)
        assert took < MOST_S, f"{self.what}, seed {self.seed}: mutant {number} ({way}) took {took:.1f} s of CPU"

    @property
    def line(self) -> str:
        """For people."""
        ways = ", ".join(f"{count} {way}" for way, count in sorted(self.ways.items()))
        classes = ", ".join(f"{count} {name}" for name, count in self.refused.most_common())
        same = f"; {self.same} mean the same" if self.same else ""
        return (
            f"{self.what}, seed {self.seed}: {self.ways.total()} mutants ({ways}): {self.refused.total()} refused "
            f"({classes}){same}; the slowest took {self.slowest_s * 1e3:.0f} ms of CPU, memory rose by "
            f"{self.memory / (1 << 20):.1f} MiB"
        )


Hunting = Callable[..., Any]
"""``with hunting("bundles") as hunt``; ``seed`` may be given."""


@pytest.fixture
def hunting(record_property: Callable[[str, object], None]) -> Hunting:
    """Opens a hunt, and at its end holds its memory against the most and keeps its line."""

    @contextmanager
    def begin(what: str, seed: int | None = None) -> Iterator[Hunt]:
        chosen = os.environ.get("NWMCTL_FUZZ_SEED")
        hunt = Hunt(what, int(chosen) if chosen else secrets.randbelow(1 << 32) if seed is None else seed)
        before = _memory_from_now()
        yield hunt
        hunt.memory = _status("VmHWM") - before
        record_property("mutants", hunt.line)
        assert hunt.memory < MOST_BYTES, hunt.line

    return begin


def _memory_from_now() -> int:
    """Bytes in use; the kernel's note of the most is taken back to that."""
    Path("/proc/self/clear_refs").write_text("5")
    return _status("VmRSS")


def _status(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith(name))


def lines_of(reports: list[pytest.TestReport]) -> list[str]:
    """The lines of all hunts that these reports tell of."""
    return [str(value) for report in reports for name, value in report.user_properties if name == "mutants"]
