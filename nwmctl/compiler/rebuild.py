"""Build once more somewhere else, and compare byte for byte.

The second build runs in another folder with a name of another length, and its tools get another umask, locale and time
zone. What then differs came from where, when or in what order something ran, and not from the inputs. The machine, its
user, its kernel and its processors are the same, and so is the day: a compiler that writes those down is not found
here. Decides nothing about what a difference means.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from nwmctl.compiler.build import compile_build
from nwmctl.compiler.sections import section_at
from nwmctl.toolchains import surroundings
from nwmctl.toolchains.protocol import Compiled, CompileRequest, Toolchain

ELSEWHERE = Path("built-again") / "in-a-folder-of-another-depth-and-another-length"
HOW = "in another folder, with another umask, locale and time zone"
_BUFFER = 1 << 20


@dataclass(frozen=True, slots=True)
class Difference:
    """Where two builds part: ``part`` (payload, manifest, and those of the twin), the first byte that differs, in which
    section of the file it lies ('' if its format is not known), and both sizes."""

    part: str
    offset: int
    section: str
    first_size: int
    second_size: int

    def __str__(self) -> str:
        where = f" in {self.section}" if self.section else ""
        sizes = "" if self.first_size == self.second_size else f"; {self.first_size} and {self.second_size} bytes"
        return f"{self.part} differs from byte {self.offset} on{where}{sizes}"


def build_elsewhere(toolchain: Toolchain, request: CompileRequest) -> Compiled:
    """The same order again, below ``request.scratch`` and in other surroundings. Raises as ``compile_build`` does."""
    place = request.scratch / ELSEWHERE
    place.mkdir(parents=True)
    with surroundings.elsewhere():
        return compile_build(toolchain, replace(request, scratch=place))


def differences(first: Mapping[str, Path], second: Mapping[str, Path]) -> tuple[Difference, ...]:
    """Every part that differs, by name; a part that only one of them has counts as differing from its first byte."""
    found: list[Difference] = []
    for part in dict.fromkeys((*first, *second)):
        one, two = first.get(part), second.get(part)
        if one is None or two is None:
            found.append(Difference(part, 0, "", *(path.stat().st_size if path else 0 for path in (one, two))))
            continue
        offset = _first_difference(one, two)
        if offset >= 0:
            found.append(Difference(part, offset, section_at(one, offset), one.stat().st_size, two.stat().st_size))
    return tuple(found)


def _first_difference(one: Path, two: Path) -> int:
    """The first byte that differs, or that only one of them has; -1 where they are the same."""
    offset = 0
    with one.open("rb") as left, two.open("rb") as right:
        while True:
            a, b = left.read(_BUFFER), right.read(_BUFFER)
            if a != b:
                return offset + _common(a, b)
            if not a:
                return -1
            offset += len(a)


def _common(a: bytes, b: bytes) -> int:
    """How many bytes two different pieces have in common from their beginning."""
    low, high = 0, min(len(a), len(b)) + 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if a[:middle] == b[:middle] else (low, middle)
    return low
