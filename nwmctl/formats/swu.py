"""SWUpdate's ``sw-description``, as JSON, to and from typed values; the layout of a ``.swu``.

A ``.swu`` holds ``sw-description``, its CMS signature, then the files, in that order. Everything stands under the
board's own name, so that another board finds nothing to install. There are two software sets, one per slot. Files are
written to a temporary name and renamed only after their hash was right (``atomic-install``); ``installed-directly``
is never written, because it leaves corrupt files in place. The version is made of the release sequence alone.
``parse_description`` accepts only what ``render_description`` writes. Opens no file.
"""

from __future__ import annotations

import posixpath
import re
from dataclasses import dataclass

from nwmctl.domain.digest import Digest
from nwmctl.domain.release import MAX_SEQUENCE
from nwmctl.errors import DescriptionError, NwmError
from nwmctl.formats import canonical
from nwmctl.formats.canonical import Plain
from nwmctl.formats.cpio import plain_name

DESCRIPTION_NAME = "sw-description"
SIGNATURE_NAME = "sw-description.sig"
MAX_DESCRIPTION = 4 << 20
MAX_SIGNATURE = 64 << 10
SET = "stable"
COPY_A, COPY_B = "copy1", "copy2"
"""Software sets of slot a and slot b, as in ``swupdate -e stable,copy1``."""

_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z")
_VERSION = re.compile(r"(0|[1-9][0-9]{0,4})\.(0|[1-9][0-9]{0,4})\Z")
# What SWUpdate itself looks for under "software": a board of such a name would be taken for something else.
_RESERVED = frozenset({"version", "description", "hardware-compatibility", "images", "files", "scripts", SET})


@dataclass(frozen=True, slots=True)
class InstalledFile:
    """A file of the bundle; it is installed under the same name in the slot's folder."""

    filename: str
    digest: Digest


@dataclass(frozen=True, slots=True)
class SwDescription:
    """Everything that SWUpdate is told. ``slot_a`` and ``slot_b`` are absolute folders in the vehicle."""

    release: str
    sequence: int
    board: str
    revisions: tuple[str, ...]
    slot_a: str
    slot_b: str
    files: tuple[InstalledFile, ...]

    def __post_init__(self) -> None:
        if not 1 <= self.sequence <= MAX_SEQUENCE:
            raise ValueError(f"sequence is {self.sequence}, it lies between 1 and {MAX_SEQUENCE}")
        words = [("release", self.release), ("board", self.board), *(("revision", text) for text in self.revisions)]
        for what, word in words:
            if not _WORD.match(word):
                raise ValueError(f"{what} is {word[:80]!r}, it must be a word of letters, digits and ._-")
        if self.board in _RESERVED:
            raise ValueError(f"board is '{self.board}', which means something else to SWUpdate")
        for slot in (self.slot_a, self.slot_b):
            normal = slot.isprintable() and posixpath.normpath(slot) == slot
            if not normal or not slot.startswith("/") or slot.startswith("//") or slot == "/":
                raise ValueError(f"slot is {slot[:80]!r}, it must be an absolute, normal path below /")
        if self.slot_a == self.slot_b:
            raise ValueError("both slots are the same folder")
        if not self.revisions or not self.files:
            raise ValueError("a bundle has at least one revision and one file")
        names = [file.filename for file in self.files]
        for name in names:
            if not plain_name(name) or name in (DESCRIPTION_NAME, SIGNATURE_NAME):
                raise ValueError(f"{name[:80]!r} cannot be a file's name in a bundle")
        if len(set(names)) != len(names):
            raise ValueError("a file's name occurs twice")


def version_text(sequence: int) -> str:
    """A sequence as SWUpdate's version.

    SWUpdate compares dotted numbers of which each keeps 16 bits only, so the sequence is written as two of them;
    its ``-N`` and ``--max-version`` then compare exactly as the integers do.
    """
    if not 1 <= sequence <= MAX_SEQUENCE:
        raise ValueError(f"sequence is {sequence}, it lies between 1 and {MAX_SEQUENCE}")
    return f"{sequence >> 16}.{sequence & 0xFFFF}"


def sequence_of(version: str) -> int:
    """The sequence behind a version text. Raises ValueError."""
    found = _VERSION.match(version)
    if not found:
        raise ValueError(f"version is {version[:40]!r}, it must be two numbers with a dot")
    high, low = int(found.group(1)), int(found.group(2))
    if low > 0xFFFF:
        raise ValueError(f"version is {version}, its second number has more than 16 bits")
    return (high << 16) | low


def render_description(description: SwDescription) -> bytes:
    """The bytes of ``sw-description``: canonical JSON, the same for the same value."""
    sets: dict[str, Plain] = {
        copy: {"files": [_file(file, slot) for file in description.files]}
        for copy, slot in ((COPY_A, description.slot_a), (COPY_B, description.slot_b))
    }
    revisions: list[Plain] = list(description.revisions)
    return canonical.encode(
        {
            "software": {
                "version": version_text(description.sequence),
                "description": description.release,
                description.board: {"hardware-compatibility": revisions, SET: sets},
            }
        }
    )


def _file(file: InstalledFile, slot: str) -> dict[str, Plain]:
    return {
        "filename": file.filename,
        "path": f"{slot}/{file.filename}",
        "properties": {"atomic-install": "true", "create-destination": "true"},
        "sha256": file.digest.hex,
        "type": "rawfile",
    }


def parse_description(data: bytes) -> SwDescription:
    """Read ``sw-description`` as ``render_description`` writes it. Raises DescriptionError."""
    if len(data) > MAX_DESCRIPTION:
        raise _refuse(f"it has {len(data)} bytes, at most {MAX_DESCRIPTION} are read")
    try:
        found = _read(canonical.decode(data, DESCRIPTION_NAME))
        same = render_description(found) == data
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, NwmError) as problem:
        raise _refuse(getattr(problem, "why", None) or str(problem) or type(problem).__name__) from problem
    # Reading takes only the parts it needs; writing them again proves that there was nothing else.
    if not same:
        raise _refuse("it holds something that nwmctl does not write")
    return found


def _read(plain: Plain) -> SwDescription:
    software = _table(_table(plain)["software"])
    (board,) = set(software) - {"version", "description"}
    node = _table(software[board])
    sets = _table(node[SET])
    slots = {copy: _files(sets[copy]) for copy in (COPY_A, COPY_B)}
    first = slots[COPY_A]
    return SwDescription(
        release=_text(software["description"]),
        sequence=sequence_of(_text(software["version"])),
        board=board,
        revisions=tuple(_text(revision) for revision in _list(node["hardware-compatibility"])),
        slot_a=posixpath.dirname(_text(first[0]["path"])),
        slot_b=posixpath.dirname(_text(slots[COPY_B][0]["path"])),
        files=tuple(
            InstalledFile(_text(file["filename"]), Digest.parse(f"sha256:{_text(file['sha256'])}")) for file in first
        ),
    )


def _files(plain: Plain) -> list[dict[str, Plain]]:
    return [_table(file) for file in _list(_table(plain)["files"])]


def _table(plain: Plain) -> dict[str, Plain]:
    if not isinstance(plain, dict):
        raise ValueError("a mapping is expected")
    return plain


def _list(plain: Plain) -> list[Plain]:
    if not isinstance(plain, list):
        raise ValueError("a list is expected")
    return plain


def _text(plain: Plain) -> str:
    if not isinstance(plain, str):
        raise ValueError("a text is expected")
    return plain


def _refuse(why: str) -> DescriptionError:
    return DescriptionError(
        f"{DESCRIPTION_NAME} is not one that nwmctl writes", why=why, next="build the bundle again with this nwmctl"
    )
