"""Writes a signed bundle, and its unsigned parts for somebody who signs elsewhere.

Every file is read once, to where it is written from: its own digest, which must be what the signed description says,
and that of the whole bundle are computed there. A bundle that exists is a whole one: temporary name, fsync, rename.
The bytes depend on the plan and the signature alone.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from nwmctl.bundling.bundle import BundlePlan
from nwmctl.bundling.flow import Hasher, hashers
from nwmctl.bundling.outlet import Outlet
from nwmctl.domain.digest import Digest
from nwmctl.errors import BundleContentsError, BundleFileError
from nwmctl.formats.cpio import Chunk, Member, pack
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
        with _replacing(folder / name) as file:
            file.put(data)


def write_bundle(
    plan: BundlePlan, signature: bytes, payload: FindPayload, out: Path, *, proven: bool = False
) -> WrittenBundle:
    """Write the ``.swu`` to ``out``, replacing an older one only when the new one is whole.

    ``signature`` is the CMS over ``plan.description_bytes``; it is not looked at here. ``payload`` is asked for the
    parts of packed payloads, and for those that are not packed. ``proven``: what it hands over was hashed in this
    process and cannot have changed (the content store's files), so it is not hashed once more on its own; staging
    reads every bundle whole before anything else happens to it. Raises BundleFileError, ArchiveSizeError for a file
    too large for an archive, and BundleContentsError where a file is not what the plan says.
    """
    with hashers(1) as new, _replacing(out) as file:
        for chunk in pack(_members(plan, signature, payload, file, None if proven else new)):
            file.put(chunk)
    return WrittenBundle(out, file.digest, file.size)


def _members(
    plan: BundlePlan, signature: bytes, payload: FindPayload, out: Outlet, new: Callable[[int], Hasher] | None
) -> Iterator[Member]:
    description = plan.description_bytes
    yield Member(DESCRIPTION_NAME, len(description), [description])
    yield Member(SIGNATURE_NAME, len(signature), [signature])
    packed = {part.name for file in plan.description.files if file.packing for part in file.packing.parts}
    for name, digest in plan.description.members:
        data = plan.documents.get(name)
        if data is not None:
            yield Member(name, len(data), [data])
            continue
        path = payload(digest)
        try:
            with path.open("rb", buffering=0) as file:
                size = os.fstat(file.fileno()).st_size
                states = [new(0)] if new else []
                yield Member(
                    name, size, _checked(out.read(file, size, states, once=name in packed), name, digest, states)
                )
        except OSError as problem:
            raise _cannot(path, "read", problem) from problem


def _checked(chunks: Iterator[Chunk], name: str, digest: Digest, states: list[Hasher]) -> Iterator[Chunk]:
    yield from chunks
    for state in states:
        if state.digest != digest:
            raise BundleContentsError(
                f"the payload '{name}' is not the one that was planned",
                why=f"its bytes have {state.digest}, the plan says {digest}",
                next="compile the artifact again",
            )


@contextmanager
def _replacing(path: Path) -> Iterator[Outlet]:
    """A new file that takes the place of ``path`` at the end, if all went well."""
    partial = path.with_name(f".{path.name}.partial-{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with Outlet(partial, Hasher(), past_cache=True) as file:
            yield file
            file.finish()
            file.sync()
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
