"""A wheel of the runtime that is installed here, as its maker would ship it: the files that its own list names."""

from __future__ import annotations

import zipfile
from importlib.metadata import distribution
from pathlib import Path

from nwmctl.domain.digest import Digest
from nwmctl.toolchains.files import file_digest

RUNTIME = "onnxruntime"


def version() -> str:
    return distribution(RUNTIME).version


def write_wheel(place: Path, *, spoiled: bool = False) -> Digest:
    """The wheel; ``spoiled``: it says so as soon as it is imported."""
    found = distribution(RUNTIME)
    with zipfile.ZipFile(place, "w") as archive:
        for file in found.files or ():
            if ".." in file.parts or file.suffix == ".pyc":
                continue
            data = Path(str(found.locate_file(file))).read_bytes()
            if spoiled and str(file) == f"{RUNTIME}/__init__.py":
                data = b"raise ImportError('the carried one')\n"
            archive.writestr(str(file), data)
    return file_digest(place)
