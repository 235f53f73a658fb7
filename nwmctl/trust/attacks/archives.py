"""Takes a bundle apart and puts it together wrongly. Reads and writes the archive by itself, since the product's own
reader and writer refuse what is needed here. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from nwmctl.formats.swu import DESCRIPTION_NAME, SIGNATURE_NAME

_FIELDS, _HEADER = 13, 110
_TRAILER = "TRAILER!!!"
REGULAR, LINK = 0o100644, 0o120777


@dataclass(frozen=True, slots=True)
class Part:
    """An entry of the archive."""

    name: str
    data: bytes
    mode: int = REGULAR


def take_apart(bundle: bytes) -> list[Part]:
    """The entries of a well-formed bundle, in order."""
    parts: list[Part] = []
    at = 0
    while True:
        fields = [int(bundle[at + 6 + 8 * n : at + 14 + 8 * n], 16) for n in range(_FIELDS)]
        size, name_size = fields[6], fields[11]
        name = bundle[at + _HEADER : at + _HEADER + name_size - 1].decode("ascii")
        if name == _TRAILER:
            return parts
        start = _up(at + _HEADER + name_size)
        parts.append(Part(name, bundle[start : start + size], fields[1]))
        at = _up(start + size)


def put_together(parts: Sequence[Part]) -> bytes:
    """An archive of ``parts``, whatever they are."""
    data = _entries(parts) + _head(Part(_TRAILER, b"", 0), 0, 0)
    return data + bytes(-len(data) % 512)


def _entries(parts: Sequence[Part]) -> bytes:
    return b"".join(
        _head(part, len(part.data), number) + part.data + bytes(-len(part.data) % 4)
        for number, part in enumerate(parts, start=1)
    )


def changed(bundle: bytes, change: Callable[[Part], Part]) -> bytes:
    """The bundle with each entry changed."""
    return put_together([change(part) for part in take_apart(bundle)])


def flip(data: bytes) -> bytes:
    """``data`` with one bit of its last byte changed."""
    return data[:-1] + bytes([data[-1] ^ 1])


def last_payload(bundle: bytes) -> str:
    """The name of the last file, which is a payload."""
    return take_apart(bundle)[-1].name


def with_flipped_payload(bundle: bytes) -> bytes:
    """One bit of the last payload changed; description and signature are the signed ones."""
    name = last_payload(bundle)
    return changed(bundle, lambda part: replace(part, data=flip(part.data)) if part.name == name else part)


def with_description(bundle: bytes, description: bytes, signature: bytes | None = None) -> bytes:
    """Another description, and another signature if there is one."""
    new = {DESCRIPTION_NAME: description} | ({SIGNATURE_NAME: signature} if signature is not None else {})
    return changed(bundle, lambda part: replace(part, data=new.get(part.name, part.data)))


def description_of(bundle: bytes) -> bytes:
    """The bytes that were signed."""
    return take_apart(bundle)[0].data


def with_entry(bundle: bytes, entry: Part, before: str | None = None) -> bytes:
    """One more entry: in front of the file ``before``, or at the end."""
    parts: list[Part] = []
    for part in take_apart(bundle):
        parts += [entry, part] if part.name == before else [part]
    return put_together(parts if before is not None else [*parts, entry])


def endless_head(bundle: bytes) -> bytes:
    """A bundle up to its last payload, whose header promises nearly 4 GiB."""
    *parts, last = take_apart(bundle)
    return _entries(parts) + _head(last, 0xF0000000, len(parts) + 1) + last.data


def _head(part: Part, size: int, number: int) -> bytes:
    name = part.name.encode("ascii") + b"\0"
    fields = (number, part.mode, 0, 0, 1, 0, size, 0, 0, 0, 0, len(name), 0)
    head = b"070701" + b"".join(b"%08X" % field for field in fields) + name
    return head + bytes(-len(head) % 4)


def _up(at: int) -> int:
    return at + -at % 4
