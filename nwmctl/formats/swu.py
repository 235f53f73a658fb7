"""SWUpdate's ``sw-description``, as JSON, to and from typed values; the layout of a ``.swu``.

A ``.swu`` holds ``sw-description``, its CMS signature, then the files, in that order. Everything stands under the
board's own name, so that another board finds nothing to install. There is one software set per hardware revision and
slot (``swupdate -e REVISION,copy1 -H BOARD:REVISION``), so a revision is offered its own payloads alone. Files are
written to a temporary name and renamed only after their hash was right (``atomic-install``); ``installed-directly``
is never written, because it leaves corrupt files in place. The version is made of the release sequence alone.

A file's digest is that of its plain bytes. SWUpdate hashes what lies in the archive, so ``sha256`` is a packed part's
own digest there, and the file's stands among the properties, where our reader finds it and SWUpdate passes over it.
``parse_description`` accepts only what ``render_description`` writes. Opens no file.
"""

from __future__ import annotations

import posixpath
import re
from collections import Counter
from dataclasses import dataclass

from nwmctl.domain.digest import Digest
from nwmctl.domain.packing import Base, Compression, Packing, Part
from nwmctl.domain.release import MAX_SEQUENCE
from nwmctl.errors import DescriptionError, NwmError
from nwmctl.formats import canonical
from nwmctl.formats.canonical import Plain
from nwmctl.formats.cpio import plain_name

DESCRIPTION_NAME = "sw-description"
SIGNATURE_NAME = "sw-description.sig"
MAX_DESCRIPTION = 4 << 20
MAX_SIGNATURE = 64 << 10
COPY_A, COPY_B = "copy1", "copy2"
"""The software sets' modes of slot a and slot b."""

_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z")
# The joining script is called through a shell with the slot's folder behind it.
_FOLDER = re.compile(r"(/[A-Za-z0-9._-]+)+\Z")
_VERSION = re.compile(r"(0|[1-9][0-9]{0,4})\.(0|[1-9][0-9]{0,4})\Z")
# What SWUpdate itself looks for under "software" or a board: such a board or revision would be taken for that.
_RESERVED = frozenset(
    {"version", "description", "hardware-compatibility", "images", "files", "scripts", "stable", "partitions", "ref"}
    | {"bootenv", "uboot", "vars", "embedded-script", "reboot", "requires", COPY_A, COPY_B}
)


@dataclass(frozen=True, slots=True)
class Script:
    """A shell script that SWUpdate runs after all files are there, with the slot's folder as its argument.

    ``digest`` is that of its bytes, ``template`` that of the template it was rendered from.
    """

    filename: str
    digest: Digest
    template: Digest


@dataclass(frozen=True, slots=True)
class InstalledFile:
    """A file of the bundle; it is installed under the same name in the slot's folder.

    ``digest`` is that of its plain bytes; without ``packing`` they lie in the archive as they are. ``revisions`` are
    those that get it, none meaning all. ``join`` makes one file of a split one's parts, or of a delta and its base.
    """

    filename: str
    digest: Digest
    packing: Packing | None = None
    revisions: tuple[str, ...] = ()
    join: Script | None = None

    @property
    def members(self) -> tuple[tuple[str, Digest], ...]:
        """The archive's members of this file, in order: name, and digest of the bytes there."""
        parts = ((part.name, part.digest) for part in self.packing.parts) if self.packing else ()
        own = tuple(parts) or ((self.filename, self.digest),)
        return (*own, (self.join.filename, self.join.digest)) if self.join else own


@dataclass(frozen=True, slots=True)
class SwDescription:
    """Everything that SWUpdate is told. ``slot_a`` and ``slot_b`` are absolute folders in the vehicle.

    Files that all revisions get come first, the others after them, by name.
    """

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
            if what != "release" and word in _RESERVED:
                raise ValueError(f"{what} is '{word}', which means something else to SWUpdate")
        for slot in (self.slot_a, self.slot_b):
            if not _FOLDER.match(slot) or posixpath.normpath(slot) != slot:
                raise ValueError(f"slot is {slot[:80]!r}, it must be a normal path of letters, digits and ._- below /")
        if self.slot_a == self.slot_b:
            raise ValueError("both slots are the same folder")
        if not self.revisions or not self.files:
            raise ValueError("a bundle has at least one revision and one file")
        if len(set(self.revisions)) != len(self.revisions):
            raise ValueError("a revision occurs twice")
        _check_files(self.files, self.revisions)

    @property
    def members(self) -> tuple[tuple[str, Digest], ...]:
        """What lies in the archive behind the signature, in order: name, and digest of the bytes there."""
        return tuple(member for file in self.files for member in file.members)

    def files_of(self, revision: str) -> tuple[InstalledFile, ...]:
        """What a revision gets."""
        return tuple(file for file in self.files if not file.revisions or revision in file.revisions)


def _check_files(files: tuple[InstalledFile, ...], revisions: tuple[str, ...]) -> None:
    for file in files:
        if file.revisions and not _some_in_order(file.revisions, revisions):
            raise ValueError(f"'{file.filename[:80]}' must name some of the revisions in their order, or none for all")
        packing = file.packing
        if packing and tuple(part.name for part in packing.parts) != packing.names(file.filename):
            raise ValueError(f"a part of '{file.filename[:80]}' has another name than its own")
        if packing and packing.base and not plain_name(packing.base.name):
            raise ValueError(f"the delta of '{file.filename[:80]}' starts from a file that cannot be one's name")
        if (packing is not None and packing.scripted) != (file.join is not None):
            raise ValueError(f"'{file.filename[:80]}' needs a script exactly if it is split or a delta")
    restricted = [file.filename for file in files if file.revisions]
    if [file.filename for file in files[len(files) - len(restricted) :]] != sorted(restricted):
        raise ValueError("files for some revisions come behind those for all, by name")
    members = [name for file in files for name, _ in file.members]
    names = Counter(members) + Counter(file.filename for file in files if file.packing and file.packing.scripted)
    for name, count in names.items():
        if not plain_name(name) or name in (DESCRIPTION_NAME, SIGNATURE_NAME):
            raise ValueError(f"{name[:80]!r} cannot be a file's name in a bundle")
        if count > 1:
            raise ValueError("a file's name occurs twice")


def _some_in_order(some: tuple[str, ...], revisions: tuple[str, ...]) -> bool:
    return some != revisions and some == tuple(revision for revision in revisions if revision in some)


def selection(revision: str, copy: str) -> str:
    """What a vehicle's SWUpdate has to be started with behind ``-e``."""
    return f"{revision},{copy}"


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
    revisions: list[Plain] = list(description.revisions)
    board: dict[str, Plain] = {"hardware-compatibility": revisions}
    for revision in description.revisions:
        files = description.files_of(revision)
        board[revision] = {
            COPY_A: _set(revision, description.slot_a, files),
            COPY_B: _set(revision, description.slot_b, files),
        }
    return canonical.encode(
        {
            "software": {
                "version": version_text(description.sequence),
                "description": description.release,
                description.board: board,
            }
        }
    )


def _set(revision: str, slot: str, files: tuple[InstalledFile, ...]) -> Plain:
    plain: dict[str, Plain] = {
        "hardware-compatibility": [revision],
        "files": [entry for file in files for entry in _entries(file, slot)],
    }
    scripts: list[Plain] = [_script(file.filename, file.join, slot) for file in files if file.join]
    return {**plain, "scripts": scripts} if scripts else plain


def _entries(file: InstalledFile, slot: str) -> list[Plain]:
    if file.packing is None:
        return [_entry(file.filename, file.digest, slot, {})]
    entries: list[Plain] = []
    for part in file.packing.parts:
        properties: dict[str, Plain] = {
            "nwm-file": file.filename,
            "nwm-plain-sha256": file.digest.hex,
            "nwm-plain-size": str(part.plain_size),
            "nwm-size": str(part.size),
        }
        if file.packing.base:
            properties |= {"nwm-base": file.packing.base.name, "nwm-base-sha256": file.packing.base.digest.hex}
        entry = _entry(part.name, part.digest, slot, properties)
        if file.packing.compression is not Compression.NONE:
            entry["compressed"] = str(file.packing.compression)
        if part.iv:
            entry |= {"encrypted": True, "ivt": part.iv}
        entries.append(entry)
    return entries


def _entry(name: str, digest: Digest, slot: str, properties: dict[str, Plain]) -> dict[str, Plain]:
    return {
        "filename": name,
        "path": f"{slot}/{name}",
        "properties": {"atomic-install": "true", "create-destination": "true", **properties},
        "sha256": digest.hex,
        "type": "rawfile",
    }


def _script(file: str, script: Script, slot: str) -> Plain:
    return {
        "filename": script.filename,
        "data": slot,
        "properties": {"nwm-file": file, "nwm-template": script.template.hex},
        "sha256": script.digest.hex,
        "type": "postinstall",
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
    revisions = tuple(_text(revision) for revision in _list(node["hardware-compatibility"]))
    sets = {revision: _read_set(_table(node[revision])[COPY_A]) for revision in revisions}
    files: dict[str, InstalledFile] = {}
    for revision in revisions:
        for file in sets[revision]:
            files.setdefault(file.filename, file)
    common: list[InstalledFile] = []
    restricted: list[InstalledFile] = []
    for name, file in files.items():
        has = tuple(revision for revision in revisions if file in sets[revision])
        entry = InstalledFile(name, file.digest, file.packing, () if has == revisions else has, file.join)
        (restricted if entry.revisions else common).append(entry)
    return SwDescription(
        release=_text(software["description"]),
        sequence=sequence_of(_text(software["version"])),
        board=board,
        revisions=revisions,
        slot_a=_slot(_table(node[revisions[0]])[COPY_A]),
        slot_b=_slot(_table(node[revisions[0]])[COPY_B]),
        files=(*common, *sorted(restricted, key=lambda file: file.filename)),
    )


def _slot(plain: Plain) -> str:
    return posixpath.dirname(_text(_table(_list(_table(plain)["files"])[0])["path"]))


def _read_set(plain: Plain) -> list[InstalledFile]:
    """The files of one set; the entries of one file stand next to each other."""
    table = _table(plain)
    scripts = {_property(script, "nwm-file"): script for script in map(_table, _list(table.get("scripts", [])))}
    groups: dict[str, list[dict[str, Plain]]] = {}
    for entry in map(_table, _list(table["files"])):
        properties = _table(entry["properties"])
        groups.setdefault(_text(properties.get("nwm-file", entry["filename"])), []).append(entry)
    files = []
    for name, entries in groups.items():
        first = entries[0]
        if "nwm-file" not in _table(first["properties"]):
            files.append(InstalledFile(name, _digest(first["sha256"])))
            continue
        base = None
        if "nwm-base" in _table(first["properties"]):
            base = Base(_property(first, "nwm-base"), _digest(_property(first, "nwm-base-sha256")))
        packing = Packing(Compression(_text(first.get("compressed", "none"))), tuple(map(_part, entries)), base)
        join = _read_script(scripts[name]) if name in scripts else None
        files.append(InstalledFile(name, _digest(_property(first, "nwm-plain-sha256")), packing, (), join))
    return files


def _part(entry: dict[str, Plain]) -> Part:
    return Part(
        _text(entry["filename"]),
        _digest(entry["sha256"]),
        int(_property(entry, "nwm-size")),
        int(_property(entry, "nwm-plain-size")),
        _text(entry.get("ivt", "")),
    )


def _read_script(entry: dict[str, Plain]) -> Script:
    return Script(_text(entry["filename"]), _digest(entry["sha256"]), _digest(_property(entry, "nwm-template")))


def _property(entry: dict[str, Plain], name: str) -> str:
    return _text(_table(entry["properties"])[name])


def _digest(plain: Plain) -> Digest:
    return Digest.parse(f"sha256:{_text(plain)}")


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
