"""Writes a signed bundle, and its unsigned parts for somebody who signs elsewhere.

Every file is hashed while it is copied and must be what the signed description says, so a bundle that exists is a
whole one: temporary name, fsync, rename. The bytes depend on the plan and the signature alone.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from nwmctl.bundling.bundle import BundlePlan
from nwmctl.domain.digest import Digest
from nwmctl.errors import BundleContentsError, BundleFileError
from nwmctl.formats.cpio import CHUNK, Member, pack
from nwmctl.formats.swu import DESCRIPTION_NAME, SIGNATURE_NAME
from nwmctl.storage.content import sync_folder

FindPayload = Callable[[Digest], Path]
"""Gives the file that holds a payload; may raise what it likes of ``NwmError``."""


@dataclass(frozen=True, slots=True)
class WrittenBundle:
    """A signed bundle on disk."""

    path: Path
    digest: Digest
    size: int


def write_parts(plan: BundlePlan, folder: Path) -> None:
    """Write the unsigned parts (``sw-description`` and the small files) into ``folder``. Raises BundleFileError."""
    for name, data in {DESCRIPTION_NAME: plan.description_bytes, **plan.documents}.items():
        _replace(folder / name, iter([data]))


def write_bundle(plan: BundlePlan, signature: bytes, payload: FindPayload, out: Path) -> WrittenBundle:
    """Write the ``.swu`` to ``out``, replacing an older one only when the new one is whole.

    ``signature`` is the CMS over ``plan.description_bytes``; it is not looked at here. Raises BundleFileError, and
    BundleContentsError where a payload is not what the plan says.
    """
    state = hashlib.sha256()
    size = 0

    def counted() -> Iterator[bytes]:
        nonlocal size
        for chunk in pack(_members(plan, signature, payload)):
            state.update(chunk)
            size += len(chunk)
            yield chunk

    _replace(out, counted())
    return WrittenBundle(out, Digest(state.hexdigest()), size)


def _members(plan: BundlePlan, signature: bytes, payload: FindPayload) -> Iterator[Member]:
    description = plan.description_bytes
    yield Member(DESCRIPTION_NAME, len(description), [description])
    yield Member(SIGNATURE_NAME, len(signature), [signature])
    sizes = {entry.filename: entry.size for entry in plan.manifest.payloads}
    for file in plan.description.files:
        data = plan.documents.get(file.filename)
        if data is not None:
            yield Member(file.filename, len(data), [data])
        else:
            chunks = _checked(payload(file.digest), file.filename, file.digest)
            yield Member(file.filename, sizes[file.filename], chunks)


def _checked(path: Path, name: str, digest: Digest) -> Iterator[bytes]:
    state = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while chunk := file.read(CHUNK):
                state.update(chunk)
                yield chunk
    except OSError as problem:
        raise _cannot(path, "read", problem) from problem
    if state.hexdigest() != digest.hex:
        raise BundleContentsError(
            f"the payload '{name}' is not the one that was planned",
            why=f"its bytes have sha256:{state.hexdigest()}, the plan says {digest}",
            next="compile the artifact again",
        )


def _replace(path: Path, chunks: Iterator[bytes]) -> None:
    partial = path.with_name(f".{path.name}.partial-{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb", buffering=CHUNK) as file:
            for chunk in chunks:
                file.write(chunk)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
        sync_folder(path.parent)
    except OSError as problem:
        raise _cannot(path, "written", problem) from problem
    finally:
        with suppress(OSError):
            partial.unlink()


def _cannot(path: Path, what: str, problem: OSError) -> BundleFileError:
    return BundleFileError(
        f"'{path.name}' cannot be {what}",
        why=str(problem.strerror or problem),
        next="check the folder's rights and free space, then run the command again",
    )
