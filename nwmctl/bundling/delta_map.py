"""Draws the tensor map: what every byte of the new artifact is an element of, and where its counterpart lies.

Tensors meet by name, the rest by kind and length in order; one that grew or shrank meets as far as both reach. What
lies between tensors is bytes, whose counterpart is what lies behind the same tensor in the old file. Where nobody says
what the elements are, each stretch is tried as every kind on samples and the smallest wins. The map decides sizes only:
any map gives back the same new file.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from nwmctl.bundling.delta_layout import Tensor
from nwmctl.formats.delta import CHUNK, MAX_SEGMENTS, Kind, Segment

Guess = Callable[[int, int, int], Kind]
"""From offset in the old file, offset in the new file and length to the kind that codes smallest."""

_STRETCH: Final = 1 << 18
_MOST_MARGIN: Final = CHUNK // 4
_FILLING: Final = 64


@dataclass(frozen=True, slots=True)
class Mapped:
    """A segment and what it is a part of; ``name`` is empty between tensors."""

    name: str
    segment: Segment


def draw_map(
    old: Sequence[Tensor], new: Sequence[Tensor], old_size: int, new_size: int, guess: Guess
) -> tuple[Mapped, ...]:
    """The map of the whole new file, from the tensors of both files in order."""
    if not new and new_size:
        new = [Tensor("", 0, new_size, None)]
        old = [Tensor("", 0, old_size, None)]
    partners = _partners(old, new)
    parts: list[Mapped] = []
    at, behind = 0, 0
    for tensor, partner in zip(new, partners, strict=True):
        if tensor.offset > at:
            parts.append(_bytes(tensor.offset - at, behind, old_size))
        parts += _tensor(tensor, partner, old_size, guess)
        at = tensor.offset + tensor.length
        if partner is not None:
            behind = partner.offset + partner.length
    if new_size > at:
        parts.append(_bytes(new_size - at, behind, old_size))
    joined = _joined(parts)
    if len(joined) > MAX_SEGMENTS:
        return (_bytes(new_size, 0, old_size),)
    return joined


def _partners(old: Iterable[Tensor], new: Sequence[Tensor]) -> list[Tensor | None]:
    named = {(tensor.name, tensor.kind): tensor for tensor in old}
    found = [named.pop((tensor.name, tensor.kind), None) for tensor in new]
    alike = defaultdict(list)
    for tensor in named.values():
        alike[tensor.kind, tensor.length].append(tensor)
    for queue in alike.values():
        queue.reverse()
    for number, tensor in enumerate(new):
        if found[number] is None and alike[tensor.kind, tensor.length]:
            found[number] = alike[tensor.kind, tensor.length].pop()
    return found


def _tensor(tensor: Tensor, partner: Tensor | None, old_size: int, guess: Guess) -> list[Mapped]:
    both = 0 if partner is None else min(tensor.length, partner.length)
    kind = tensor.kind
    if kind is None:
        return _unknown(tensor, partner, both, old_size, guess)
    width = kind.width
    both -= both % width
    whole = tensor.length - tensor.length % width
    parts = []
    row = tensor.row if tensor.row * width <= min(both, whole) else 0
    if both and partner is not None:
        parts.append(Mapped(tensor.name, Segment(both, partner.offset, kind, row=row)))
    if whole > both:
        parts.append(Mapped(tensor.name, Segment(whole - both, None, kind)))
    if tensor.length > whole:
        parts.append(Mapped(tensor.name, Segment(tensor.length - whole, None, Kind.BYTES)))
    return parts


def _unknown(tensor: Tensor, partner: Tensor | None, both: int, old_size: int, guess: Guess) -> list[Mapped]:
    parts = []
    at = 0
    while partner is not None and at < both:
        size = min(_STRETCH, both - at)
        kind = guess(partner.offset + at, tensor.offset + at, size)
        odd = size % kind.width
        if size > odd:
            segment = Segment(size - odd, partner.offset + at, kind, _margin(size) if kind is Kind.BYTES else 0)
            parts.append(Mapped(tensor.name, segment))
        if odd:
            parts.append(Mapped(tensor.name, Segment(odd, partner.offset + at + size - odd, Kind.BYTES)))
        at += size
    if tensor.length > at:
        behind = 0 if partner is None else partner.offset + at
        parts.append(Mapped(tensor.name, _bytes(tensor.length - at, behind, old_size).segment))
    return parts


def _bytes(length: int, behind: int, old_size: int) -> Mapped:
    return Mapped("", Segment(length, min(behind, old_size), Kind.BYTES, _margin(length)))


def _margin(length: int) -> int:
    return min(length // 2, _MOST_MARGIN)


def _joined(parts: Sequence[Mapped]) -> tuple[Mapped, ...]:
    """Neighbours become one segment where kind and displacement agree; filling between two of a kind joins them."""
    joined: list[Mapped] = []
    for part in parts:
        if joined and _follows(joined[-1], part):
            last = joined[-1]
            length = last.segment.length + part.segment.length
            margin = _margin(length) if part.segment.kind is Kind.BYTES else 0
            segment = replace(last.segment, length=length, margin=margin)
            joined[-1] = Mapped(last.name, segment)
        else:
            joined.append(part)
    return tuple(joined)


def _follows(before: Mapped, after: Mapped) -> bool:
    one, two = before.segment, after.segment
    if before.name != after.name or one.kind is not two.kind or one.row != two.row:
        return False
    if one.old_offset is None or two.old_offset is None:
        return one.old_offset is two.old_offset
    return one.old_offset + one.length == two.old_offset
