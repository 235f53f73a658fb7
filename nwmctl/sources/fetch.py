"""Fetching a model package: card and signature first, proven, then each file that the card lists.

Invariants: nothing is fetched on the word of a card that is not proven; the destination appears whole and proven, in
one rename, or not at all; a killed or interrupted fetch is continued from the bytes that arrived (they wait in a
hidden folder beside the destination); a package that fails verification leaves nothing.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from nwmctl.domain.clock import Sleep
from nwmctl.domain.model import (
    CARD_NAME,
    OPENSSF_NAME,
    SIGNATURE_NAME,
    FileEntry,
    ModelCard,
    ModelOrigin,
    ModelReference,
)
from nwmctl.errors import DestinationError, DigestMismatchError, NwmError, RemoteError, SourceUnavailableError
from nwmctl.sources.http import discard
from nwmctl.sources.openssf import judge_openssf
from nwmctl.sources.places import Place, open_place
from nwmctl.sources.verify import MAX_CARD, MAX_SIGNATURE, package_files, verify_card, verify_file
from nwmctl.storage.content import sync_folder

Progress = Callable[[str, int, int], None]
"""Called with a file's name, the bytes that have arrived and the bytes in all."""


@dataclass(frozen=True, slots=True)
class ModelPackage:
    """A proven model package in a folder. ``origin`` says who signed it, ``signature`` is the file's name."""

    folder: Path
    card: ModelCard
    origin: ModelOrigin
    signature: str

    @property
    def key(self) -> str:
        """The trusted key that signed it."""
        return self.origin.signer

    def file(self, role: str) -> Path:
        """The file of a role (``weights``, ``calibration``, ``golden``); the card's schema does not promise any."""
        return self.folder / self.card.files[role].path


def fetch_model(
    reference: ModelReference,
    trusted: Sequence[str],
    into: Path,
    *,
    base: Path,
    sleep: Sleep,
    progress: Progress | None = None,
) -> ModelPackage:
    """Bring the package that ``reference`` names to the folder ``into``, and prove it.

    ``trusted`` are public keys (``ed25519:<hex>``); relative URIs start at ``base``. If ``into`` exists it must be
    that very package. One caller at a time per ``into``. Raises what ``verify_card``, ``verify_file`` and
    ``open_place`` raise, SourceUnavailableError and DestinationError.
    """
    if into.exists():
        return open_package(into, reference, trusted)
    staging = into.parent / f".partial-{into.name}"
    with closing(open_place(reference.uri, base, sleep)) as place:
        try:
            package = _Staging(staging, place, progress or (lambda name, done, total: None))
            card, origin, name = package.card(reference, trusted)
            for entry in package_files(card):
                package.file(entry)
            package.finish(into, origin)
        except (RemoteError, DestinationError):
            raise  # what has arrived is continued the next time
        except NwmError:
            shutil.rmtree(staging, ignore_errors=True)
            raise
        except OSError as problem:
            raise _unwritable(into, problem) from problem
    return ModelPackage(into, card, origin, name)


def open_package(folder: Path, reference: ModelReference, trusted: Sequence[str]) -> ModelPackage:
    """A package that lies in a folder, proven as if it had just been fetched. Raises as ``fetch_model``."""
    try:
        card_bytes = _read(folder / CARD_NAME, MAX_CARD)
        name = SIGNATURE_NAME if (folder / SIGNATURE_NAME).exists() else OPENSSF_NAME
        signature = _read(folder / name, MAX_SIGNATURE)
    except OSError as problem:
        raise DestinationError(
            f"'{folder.name}' exists and is not a model package",
            why=problem.strerror or str(problem),
            next="remove that folder, or choose another one",
        ) from problem
    card, origin = verify_card(card_bytes, signature, reference.digest, trusted)
    for entry in package_files(card):
        verify_file(folder / entry.path, entry)
    judge_openssf(folder, origin)
    return ModelPackage(folder, card, origin, name)


class _Staging:
    """The hidden folder: ``package/`` holds proven files, ``parts/`` what is on its way, named by digest."""

    def __init__(self, root: Path, place: Place, progress: Progress) -> None:
        self._root = root
        self._package = root / "package"
        self._parts = root / "parts"
        self._place = place
        self._progress = progress
        self._package.mkdir(parents=True, exist_ok=True)
        self._parts.mkdir(exist_ok=True)

    def card(self, reference: ModelReference, trusted: Sequence[str]) -> tuple[ModelCard, ModelOrigin, str]:
        card = self._small(CARD_NAME, MAX_CARD)
        name, signature = self._signature()
        read, origin = verify_card(card, signature, reference.digest, trusted)
        if (self._package / CARD_NAME).exists() and (self._package / CARD_NAME).read_bytes() != card:
            # Left by an interrupted fetch of another model: its files must not slip into this package.
            shutil.rmtree(self._package)
            self._package.mkdir()
        for other in {SIGNATURE_NAME, OPENSSF_NAME} - {name}:
            discard(self._package / other)
        for kept in (CARD_NAME, name):
            os.replace(self._parts / kept, self._package / kept)
        return read, origin, name

    def file(self, entry: FileEntry) -> None:
        final = self._package / entry.path
        part = self._parts / entry.digest.hex
        if final.exists():
            # Proven before a kill; looked at again because the disk was out of our hands since.
            os.replace(final, part)
        held = part.stat().st_size if part.exists() else 0
        if held > entry.size:
            discard(part)
            held = 0
        if held < entry.size or not part.exists():
            self._fetch(entry, part)
        try:
            verify_file(part, entry)
        except DigestMismatchError:
            if held == 0:
                raise
            # The bytes that were here before may be of another version: once more, from the first byte on.
            discard(part)
            self._fetch(entry, part)
            verify_file(part, entry)
        self._progress(entry.path, entry.size, entry.size)
        final.parent.mkdir(parents=True, exist_ok=True)
        os.replace(part, final)
        discard(part)

    def finish(self, into: Path, origin: ModelOrigin) -> None:
        judge_openssf(self._package, origin)
        for path in sorted(self._package.rglob("*")):
            if path.is_file():
                _sync(path)
            else:
                sync_folder(path)
        sync_folder(self._package)
        os.rename(self._package, into)
        sync_folder(into.parent)
        shutil.rmtree(self._root, ignore_errors=True)

    def _fetch(self, entry: FileEntry, part: Path) -> None:
        def done(count: int) -> None:
            self._progress(entry.path, count, entry.size)

        self._place.fetch(entry.path, part, entry.size, exact=True, done=done)

    def _signature(self) -> tuple[str, bytes]:
        """The signature's name and bytes: our own, or an OpenSSF one where the place has no other."""
        try:
            return SIGNATURE_NAME, self._small(SIGNATURE_NAME, MAX_SIGNATURE)
        except SourceUnavailableError as missing:
            try:
                return OPENSSF_NAME, self._small(OPENSSF_NAME, MAX_SIGNATURE)
            except SourceUnavailableError:
                raise missing from None

    def _small(self, name: str, limit: int) -> bytes:
        part = self._parts / name
        discard(part)
        self._place.fetch(name, part, limit, exact=False, done=lambda count: None)
        return part.read_bytes()


def _read(path: Path, limit: int) -> bytes:
    with path.open("rb") as file:
        return file.read(limit + 1)


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _unwritable(into: Path, problem: OSError) -> DestinationError:
    return DestinationError(
        f"the model cannot be stored as '{into.name}'",
        why=problem.strerror or str(problem),
        next="check the workspace's permissions and free space, then run the command again",
    )
