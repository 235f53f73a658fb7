"""Staging: every file of a release on every mirror, each one read back and compared.

Plan, then execute that plan. Invariants: a staged name is never overwritten with other content; nothing counts as
staged that was not read back with the right digest; doing it again sends only what is missing, so an interrupted
staging is resumed by repeating it. The timestamp is not staged: it is published, see ``train``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from nwmctl.domain.digest import Digest, digest_bytes
from nwmctl.errors import MirrorConflictError, MirrorReadBackError
from nwmctl.publishing.mirrors import MirrorSession

StageProgress = Callable[[str, str, int, int], None]
"""Called with mirror, file name, bytes done and bytes in all of that file."""


@dataclass(frozen=True, slots=True)
class StagedFile:
    """A file that a release needs on its mirrors, under ``name``. ``source`` is a local file or the bytes."""

    name: str
    source: Path | bytes
    digest: Digest
    size: int

    @classmethod
    def of_bytes(cls, name: str, data: bytes) -> StagedFile:
        """A file whose bytes are at hand (metadata)."""
        return cls(name, data, digest_bytes(data), len(data))


class StageAction(StrEnum):
    """What is done with one file on one mirror."""

    UPLOAD = "upload"
    VERIFY = "verify"
    """It stands there already; it is read back like an uploaded one."""


@dataclass(frozen=True, slots=True)
class StageStep:
    """One action, and why."""

    mirror: str
    file: StagedFile
    action: StageAction
    reason: str


@dataclass(frozen=True, slots=True)
class StagePlan:
    """What will be done, in order."""

    steps: tuple[StageStep, ...]

    @property
    def upload_bytes(self) -> int:
        """Bytes that will be sent."""
        return sum(step.file.size for step in self.steps if step.action is StageAction.UPLOAD)


@dataclass(frozen=True, slots=True)
class StageReport:
    """What was done: every file of the plan stands on its mirror, read back."""

    uploaded: tuple[StageStep, ...]
    verified: tuple[StageStep, ...]

    @property
    def sent_bytes(self) -> int:
        """Bytes that were sent."""
        return sum(step.file.size for step in self.uploaded)


def plan_stage(files: Iterable[StagedFile], mirrors: Sequence[MirrorSession]) -> StagePlan:
    """Look at every mirror and say what is missing there. Changes nothing.

    Raises MirrorConflictError where a name is asked for twice or stands on a mirror with another size.
    """
    wanted: dict[str, StagedFile] = {}
    for file in files:
        if wanted.setdefault(file.name, file).digest != file.digest:
            raise _conflict(file.name, "the release has two files of this name with different content")
    return StagePlan(tuple(_step(file, mirror) for mirror in mirrors for file in wanted.values()))


def execute_stage(
    plan: StagePlan, mirrors: Sequence[MirrorSession], progress: StageProgress | None = None
) -> StageReport:
    """Carry out a plan. Raises MirrorConflictError, MirrorReadBackError and what the mirrors raise."""
    sessions: Mapping[str, MirrorSession] = {mirror.name: mirror for mirror in mirrors}
    for step in plan.steps:
        mirror = sessions[step.mirror]
        if step.action is StageAction.UPLOAD:
            _upload(step.file, mirror, progress)
        _read_back(step, mirror)
    return StageReport(
        tuple(step for step in plan.steps if step.action is StageAction.UPLOAD),
        tuple(step for step in plan.steps if step.action is StageAction.VERIFY),
    )


def stage(
    files: Iterable[StagedFile], mirrors: Sequence[MirrorSession], progress: StageProgress | None = None
) -> StageReport:
    """Plan and execute in one call."""
    return execute_stage(plan_stage(files, mirrors), mirrors, progress)


def _step(file: StagedFile, mirror: MirrorSession) -> StageStep:
    size = mirror.size(file.name)
    if size is None:
        return StageStep(mirror.name, file, StageAction.UPLOAD, "missing on this mirror")
    if size != file.size:
        raise _conflict(file.name, f"mirror '{mirror.name}' has it with {size} bytes, the release with {file.size}")
    return StageStep(mirror.name, file, StageAction.VERIFY, "there already, will be read back")


def _upload(file: StagedFile, mirror: MirrorSession, progress: StageProgress | None) -> None:
    def done(count: int) -> None:
        if progress is not None:
            progress(mirror.name, file.name, count, file.size)

    match file.source:
        case bytes() as data:
            mirror.put_bytes(file.name, data)
        case path:
            mirror.put_file(file.name, path, file.digest, done)
    done(file.size)


def _read_back(step: StageStep, mirror: MirrorSession) -> None:
    found = mirror.read_back(step.file.name)
    if found == step.file.digest:
        return
    if step.action is StageAction.VERIFY:
        raise _conflict(step.file.name, f"mirror '{mirror.name}' has it with other content of the same size")
    raise MirrorReadBackError(
        f"mirror '{mirror.name}' does not return what was sent as '{step.file.name}'",
        why=f"it returns {found.short if found else 'nothing'}, sent was {step.file.digest.short}",
        next="check the mirror's disk, remove the file there and run the command again; nothing was published",
    )


def _conflict(name: str, reason: str) -> MirrorConflictError:
    return MirrorConflictError(
        f"'{name}' cannot be staged",
        why=f"{reason}; a staged name never changes its content",
        next="give the release a higher sequence; if the mirror's file is damaged, remove it there first",
    )
