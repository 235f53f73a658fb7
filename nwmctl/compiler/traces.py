"""Folders and names of the machine that an artifact was made on, found in its bytes.

A compiler that writes its working folder into what it makes gives other bytes elsewhere, and tells strangers about the
machine. Looked for are the folders of this very build, whatever lies under the usual roots of file systems, and the
machine's name. Weights are random bytes, so a short match proves nothing: a path counts only where it begins as one
(not in the middle of a word) and goes on for several printable characters; the chance that random bytes look like that
is about one in 10^14 at each place. The file is mapped, not read: a payload of gigabytes costs no memory.

Not seen: what is compressed or encrypted inside a payload, text in UTF-16, and folders outside of the usual roots that
are not this build's. Rebuilding in another folder finds some of that.
"""

from __future__ import annotations

import mmap
import os
import re
import sys
import sysconfig
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import nwmctl

_ROOTS = ("home", "tmp", "var/tmp", "usr", "Users", "builds")
_WORDS_TOO = ("root", "opt", "mnt", "media", "srv", "build", "private")
"""Roots whose names layers of a network may have as well (``/root/linear``): they count where the path exists here."""
_TAIL = rb"/[\x21-\x7e]{6,}"
_PLAIN_LENGTH = 12
"""From so many characters on a folder's own name needs no more to be told from chance."""
_SHOWN = 160
_WORD = re.compile(rb"[A-Za-z0-9+_.\-]")
_OPTION = re.compile(rb"-[A-Za-z]")


@dataclass(frozen=True, slots=True)
class Trace:
    """What was found, and at which byte it begins."""

    text: str
    offset: int


def folders_of_this_machine(*own: Path) -> tuple[str, ...]:
    """The folders whose mention in an artifact gives this machine away; ``own`` are those of the build."""
    known = (
        *own,
        *(path.resolve() for path in own),
        Path.home(),
        Path(tempfile.gettempdir()),
        Path(sys.prefix),
        Path(sysconfig.get_paths()["purelib"]),
        Path(nwmctl.__file__).parent.parent,
        Path.cwd(),
    )
    return tuple(dict.fromkeys(str(path) for path in known if len(path.parts) > 1))


def names_of_this_machine() -> tuple[str, ...]:
    """Its name, where that is no common word: it has a digit in it and is long enough."""
    name = os.uname().nodename
    return (name,) if len(name) >= 8 and any(character.isdigit() for character in name) else ()


def trace_in_file(path: Path, folders: Iterable[str], names: Iterable[str] = ()) -> Trace | None:
    """The first trace in a file; None where there is none."""
    if not path.stat().st_size:
        return None
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        return _first(data, folders, names)


def trace_in_bytes(data: bytes, folders: Iterable[str], names: Iterable[str] = ()) -> Trace | None:
    """The first trace in a document; None where there is none."""
    return _first(data, folders, names)


def _first(data: bytes | mmap.mmap, folders: Iterable[str], names: Iterable[str]) -> Trace | None:
    for match in _pattern(folders).finditer(data):
        start = match.start()
        text = _run(data, start)
        if match.lastgroup or (_begins(data[max(0, start - 2) : start]) and _is_no_layer(text)):
            return Trace(text, start)
    for name in names:
        start = data.find(name.encode())
        if start >= 0:
            return Trace(_run(data, start), start)
    return None


def _pattern(folders: Iterable[str]) -> re.Pattern[bytes]:
    """One pattern for all, which begins with one character: such a search runs at memory speed."""
    names = [(folder, re.escape(folder.lstrip("/").encode())) for folder in folders]
    own = [name for folder, name in names if len(folder) >= _PLAIN_LENGTH]
    short = [name for folder, name in names if len(folder) < _PLAIN_LENGTH]
    short += [root.encode() for root in (*_ROOTS, *_WORDS_TOO)]
    wanted = rb"(?:" + rb"|".join(short) + rb")" + _TAIL
    return re.compile(rb"/(?:" + (rb"(?P<own>" + rb"|".join(own) + rb")|" if own else b"") + wanted + rb")")


def _begins(before: bytes) -> bool:
    """Whether a path can begin after these two bytes: not in the middle of a word, which would be a relative path or
    coded binary data, but after an option's letter (``-I``)."""
    return not _WORD.fullmatch(before[-1:]) or bool(_OPTION.fullmatch(before))


def _is_no_layer(text: str) -> bool:
    _, root, second, *_ = text.split("/")
    return root not in _WORDS_TOO or (bool(second) and Path("/", root, second).exists())


def _run(data: bytes | mmap.mmap, start: int) -> str:
    """The printable characters from there on."""
    piece = data[start : start + _SHOWN]
    end = next((index for index, value in enumerate(piece) if not 0x20 < value < 0x7F or value in b"\"'"), len(piece))
    return piece[:end].decode("ascii")
