"""Proves that the deltas of a bundle make the files that its description lists, before a signature says so.

Base and delta are copied while they are hashed, so that what is applied is what was looked at; then the vehicle's own
applier makes each file, in a process that holds no key, and the digest of what it made must be that of the file, which
is the artifact that the evidence is about. A base that nobody has cannot be proven from, and is refused.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import nwmctl
from nwmctl.domain.digest import Digest
from nwmctl.domain.signing import DeltaToProve
from nwmctl.errors import DeltaUnprovenError
from nwmctl.formats.bundle_names import delta_files
from nwmctl.formats.swu import InstalledFile, SwDescription

_BUFFER = 1 << 20
_SLOWEST = 4 << 20
"""Bytes per second that any machine applies."""
_LEAST_S = 120.0


def prove_deltas(description: SwDescription, given: Sequence[DeltaToProve]) -> int:
    """Return how many deltas a description has if each was proven by the files that were ``given`` for it.

    Raises DeltaUnprovenError.
    """
    files = {file.filename: file for file in delta_files(description)}
    names = [one.filename for one in given]
    if sorted(names) != sorted(files):
        missing, extra = sorted(files.keys() - set(names)), sorted(set(names) - files.keys())
        raise _refuse("the deltas of a bundle", f"nothing to prove them with: {missing}; not in the bundle: {extra}")
    for one in given:
        _prove(files[one.filename], one)
    return len(files)


def _prove(file: InstalledFile, one: DeltaToProve) -> None:
    what = f"the delta of '{file.filename}'"
    assert file.packing is not None, "delta_files has looked"
    assert file.packing.base is not None, "delta_files has looked"
    part = file.packing.parts[0]
    with tempfile.TemporaryDirectory(prefix="nwmctl-proof-") as folder:
        base, delta, made = (Path(folder) / name for name in ("base", "delta", "made"))
        for source, place, wanted, whose in (
            (one.base, base, file.packing.base.digest, "the file that it starts from"),
            (one.delta, delta, part.digest, "it"),
        ):
            found = _copied(Path(source), place, what)
            if found != wanted:
                raise _refuse(what, f"{whose} has {found}, the description says {wanted}")
        _apply(base, delta, made, what)
        digest, size = _digest(made)
        if digest != file.digest or size != part.plain_size:
            raise _refuse(what, f"it makes {digest} ({size} bytes), the description says {file.digest}")


def _apply(base: Path, delta: Path, made: Path, what: str) -> None:
    home = str(Path(nwmctl.__file__).parent.parent)
    path = os.pathsep.join(part for part in (home, os.environ.get("PYTHONPATH", "")) if part)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "nwmctl.vehicle.delta", str(base), str(delta), str(made)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_LEAST_S + base.stat().st_size / _SLOWEST,
            env={**os.environ, "PYTHONPATH": path},
        )
    except (OSError, subprocess.TimeoutExpired) as problem:
        raise _refuse(what, f"the applier gave no answer: {problem}") from problem
    if done.returncode or not made.is_file():
        said = done.stderr.decode(errors="replace").strip().splitlines()
        raise _refuse(what, f"the applier refuses it: {said[0][:300] if said else done.returncode}")


def _copied(source: Path, place: Path, what: str) -> Digest:
    state = hashlib.sha256()
    try:
        with source.open("rb") as file, place.open("xb") as out:
            while chunk := file.read(_BUFFER):
                state.update(chunk)
                out.write(chunk)
    except OSError as problem:
        raise _refuse(what, f"'{source.name[:16]}' cannot be read: {problem.strerror or problem}") from problem
    return Digest(state.hexdigest())


def _digest(path: Path) -> tuple[Digest, int]:
    with path.open("rb") as file:
        return Digest(hashlib.file_digest(file, "sha256").hexdigest()), path.stat().st_size


def _refuse(what: str, why: str) -> DeltaUnprovenError:
    return DeltaUnprovenError(
        f"{what} is not proven to make what was checked",
        why=why,
        next="run the release again from `deltas`; nothing was signed",
    )
