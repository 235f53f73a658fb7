"""The release train: bundles that were built apart are collected, checked against one release, and published.

A platform's job leaves a folder with its bundles and ``bundle-result.json``, written last. ``collect_train`` reads
such folders and refuses a set with a hole or a mismatch; ``publish`` gives the mirrors the timestamp, the one file
that makes a staged release exist. Makes no metadata and no signature: their bytes come in.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from nwmctl.domain.digest import Digest, digest_bytes
from nwmctl.domain.train import (
    BUNDLE_RESULT_NAME,
    BundleFile,
    BundleResult,
    TrainSpec,
    check_train,
    papers_name,
)
from nwmctl.errors import (
    DestinationError,
    MirrorReadBackError,
    PublishInterruptedError,
    RemoteError,
    SourceUnavailableError,
    TimestampOlderError,
    TrainMismatchError,
)
from nwmctl.formats import documents
from nwmctl.publishing.mirrors import MirrorSession, Prepared
from nwmctl.publishing.stage import StagedFile
from nwmctl.storage.content import sync_folder, write_atomically

_MAX_RESULT = 1 << 20
_MAX_TIMESTAMP = 1 << 20


@dataclass(frozen=True, slots=True)
class Train:
    """A complete train. ``paths`` are the bundles' files and their papers by file name, their digests checked."""

    spec: TrainSpec
    parts: Mapping[str, BundleResult]
    paths: Mapping[str, Path]

    @property
    def bundles(self) -> tuple[BundleFile, ...]:
        """All bundles, platform by platform."""
        return tuple(bundle for part in self.parts.values() for bundle in part.bundles)

    def staged(self, prefix: str) -> tuple[StagedFile, ...]:
        """The bundles as files to stage, below ``prefix`` (a folder name, or empty)."""
        return tuple(
            StagedFile(f"{prefix}/{b.filename}".lstrip("/"), self.paths[b.filename], b.digest, b.size)
            for b in self.bundles
        )


@dataclass(frozen=True, slots=True)
class PublishReport:
    """Which mirrors got the timestamp now, and which had it already."""

    published: tuple[str, ...]
    already: tuple[str, ...]


def write_bundle_folder(folder: Path, result: BundleResult, bundles: Mapping[str, Path]) -> None:
    """Leave one platform's part: copies of its bundles and of their papers (by file name), then
    ``bundle-result.json``.

    Without the last file the folder is no part of any train. Raises DestinationError.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # An old result must not vouch for new bundles, should this be interrupted.
        (folder / BUNDLE_RESULT_NAME).unlink(missing_ok=True)
        for bundle in result.bundles:
            for name in (bundle.filename, *((papers_name(bundle.filename),) if bundle.papers else ())):
                hidden = folder / f".partial-{name}"
                shutil.copyfile(bundles[name], hidden)
                hidden.replace(folder / name)
        sync_folder(folder)
        write_atomically(folder / BUNDLE_RESULT_NAME, documents.encode(result))
    except OSError as problem:
        raise DestinationError(
            f"the bundles of {result.platform} cannot be written to '{folder.name}'",
            why=problem.strerror or str(problem),
            next="choose a folder that you may write to, with enough space",
        ) from problem


def collect_train(spec: TrainSpec, folders: Iterable[Path]) -> Train:
    """Read the parts from ``folders`` (each a part, or a folder of parts) and check that they are one whole train.

    Raises TrainIncompleteError, TrainMismatchError, SourceUnavailableError, SchemaError, NotCanonicalError.
    """
    found = [part for folder in folders for part in _parts(folder)]
    results = {folder: _read_result(folder / BUNDLE_RESULT_NAME) for folder in found}
    parts = check_train(spec, results.values())
    paths: dict[str, Path] = {}
    for folder, result in results.items():
        for bundle in result.bundles:
            if paths.setdefault(bundle.filename, folder / bundle.filename) == folder / bundle.filename:
                _check_file(result, bundle, folder / bundle.filename)
                papers = folder / papers_name(bundle.filename)
                _check_papers(result, bundle, papers)
                paths[papers.name] = papers
    return Train(spec, parts, paths)


def publish(mirrors: Sequence[MirrorSession], timestamp: bytes, name: str) -> PublishReport:
    """Give every mirror the timestamp under ``name``, the last of all files; safe to repeat.

    First the bytes are laid down hidden on all mirrors, then each mirror gets the name: a mirror that is full or gone
    is noticed before the release exists anywhere. Raises TimestampOlderError before anything is changed, and
    PublishInterruptedError if some mirrors have it and others do not.
    """
    digest = digest_bytes(timestamp)
    present = {mirror.name: mirror.read(name, _MAX_TIMESTAMP) for mirror in mirrors}
    for mirror in mirrors:
        _refuse_older(mirror.name, present[mirror.name], timestamp)
    waiting = [mirror for mirror in mirrors if present[mirror.name] != timestamp]
    prepared = [(mirror, mirror.prepare(name, timestamp)) for mirror in waiting]
    done: list[str] = []
    for mirror, ready in prepared:
        _settle(mirror, ready, digest, done, [other.name for other, _ in prepared])
        done.append(mirror.name)
    return PublishReport(tuple(done), tuple(m.name for m in mirrors if m not in waiting))


def _settle(mirror: MirrorSession, ready: Prepared, digest: Digest, done: list[str], wanted: list[str]) -> None:
    try:
        mirror.settle(ready)
        if mirror.read_back(ready.name) != digest:
            raise MirrorReadBackError(
                f"mirror '{mirror.name}' does not return the timestamp",
                why="its bytes differ from the ones that were sent",
                next="check the mirror's disk",
            )
    except (RemoteError, MirrorReadBackError) as problem:
        open_ = [name for name in wanted if name not in done]
        raise PublishInterruptedError(
            f"published on {', '.join(done) or 'no mirror'}, not on {', '.join(open_)}",
            why=f"{problem.what}: {problem.why}",
            next="repair that mirror and run the same command again; mirrors that have the timestamp keep it",
        ) from problem


def _refuse_older(mirror: str, present: bytes | None, timestamp: bytes) -> None:
    if present is None or present == timestamp:
        return
    old, new = _version(present), _version(timestamp)
    if old is not None and (new is None or old >= new):
        raise TimestampOlderError(
            f"mirror '{mirror}' has a timestamp that this one must not replace",
            why=f"it has version {old}, this one is {new}; vehicles refuse to go back",
            next="fetch the repository's newest metadata and publish on top of it",
        )


def _version(timestamp: bytes) -> int | None:
    """``signed.version`` of TUF metadata, None if these bytes are something else."""
    try:
        version = json.loads(timestamp)["signed"]["version"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return version if type(version) is int else None


def _parts(folder: Path) -> list[Path]:
    try:
        if (folder / BUNDLE_RESULT_NAME).exists():
            return [folder]
        return sorted(below for below in folder.iterdir() if (below / BUNDLE_RESULT_NAME).exists())
    except OSError as problem:
        raise _unreadable(folder, problem) from problem


def _read_result(path: Path) -> BundleResult:
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_RESULT)
    except OSError as problem:
        raise _unreadable(path, problem) from problem
    return documents.decode(BundleResult, data, f"{path.parent.name}/{path.name}")


def _check_file(result: BundleResult, bundle: BundleFile, path: Path) -> None:
    reason = ""
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(0)
            if size != bundle.size:
                reason = f"'{bundle.filename}' has {size} bytes, its result says {bundle.size}"
            elif hashlib.file_digest(file, "sha256").hexdigest() != bundle.digest.hex:
                reason = f"'{bundle.filename}' does not have the digest that its result says"
    except FileNotFoundError:
        reason = f"'{bundle.filename}' is missing beside its result"
    except OSError as problem:
        raise _unreadable(path, problem) from problem
    if reason:
        raise TrainMismatchError(
            f"the part for {result.platform} is damaged",
            why=reason,
            next=f"copy the folder again, or build {result.platform} again",
        )


def _check_papers(result: BundleResult, bundle: BundleFile, path: Path) -> None:
    """The papers beside a bundle are those that its result names."""
    reason = f"'{bundle.filename}' has no papers: it was built by an older nwmctl" if bundle.papers is None else ""
    if not reason:
        try:
            with path.open("rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
        except FileNotFoundError:
            reason = f"'{path.name}' is missing beside its result"
        except OSError as problem:
            raise _unreadable(path, problem) from problem
        else:
            same = bundle.papers is not None and found == bundle.papers.hex
            reason = "" if same else f"'{path.name}' does not have the digest that its result says"
    if reason:
        raise TrainMismatchError(
            f"the part for {result.platform} is damaged",
            why=reason,
            next=f"copy the folder again, or build {result.platform} again",
        )


def _unreadable(path: Path, problem: OSError) -> SourceUnavailableError:
    return SourceUnavailableError(
        f"'{path.name}' cannot be read",
        why=problem.strerror or str(problem),
        next="check what was given to --from: folders that `nwmctl bundle --out` has written",
    )
