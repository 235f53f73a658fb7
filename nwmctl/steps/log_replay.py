"""log_replay: one artifact x one drive log -> what the check found.

The log must be one that a judge of the policy has signed (its owner does that once; ``LOG.sig`` lies beside it): a
release may choose among trusted drives and not bring easy ones of its own. The artifact executes as in validation, its
host twin or itself; builds that share an artifact share the result. Not done under emulation: a log has thousands of
steps.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from nwmctl.domain.artifact import ArtifactManifest
from nwmctl.domain.digest import Digest
from nwmctl.domain.evidence import Check, CheckResult, Verdict
from nwmctl.domain.figure import Obtained
from nwmctl.domain.model import ModelCard
from nwmctl.domain.step import Outcome
from nwmctl.domain.work import LogReplayWork, StepName
from nwmctl.errors import DriveLogUntrustedError, NwmError
from nwmctl.formats import documents
from nwmctl.steps.base import Progress, Step
from nwmctl.steps.judge import keep_results
from nwmctl.steps.shelf import open_model, runtimes, trained
from nwmctl.storage.content import ContentStore
from nwmctl.toolchains.files import ABSENT, file_digest, versions
from nwmctl.toolchains.protocol import Place
from nwmctl.toolchains.registry import Registry
from nwmctl.trust.judgements import open_drive_log
from nwmctl.validation.candidate import Candidate
from nwmctl.validation.figures import not_run
from nwmctl.validation.judges.log_replay import check_log_replay, failed
from nwmctl.validation.subject import Pace, Way

VERSION = 1
_MAX_SIGNATURE = 1 << 16


@dataclass(frozen=True, slots=True)
class _LogReplay:
    store: ContentStore
    toolchains: Registry
    base: Path

    def __call__(self, work: LogReplayWork, inputs: Mapping[str, Digest], progress: Progress) -> Outcome:
        progress(f"replaying '{work.judge.name}'", -1.0)
        result = self._result(work, inputs)
        return Outcome(
            {"replayed": keep_results(self.store, [result])},
            {str(result.verdict): 1, "_what": result.summary[:300]},
            fleeting=result.verdict is Verdict.NOT_RUN,
        )

    def _result(self, work: LogReplayWork, inputs: Mapping[str, Digest]) -> CheckResult:
        log = self.base / work.source.log
        fault = _fault(work, log)
        if fault is not None:
            return fault
        card = documents.decode(ModelCard, self.store.read(inputs["card"]), "model card")
        model = trained(self.store, inputs)
        way = self._way(work, inputs)
        if isinstance(way, CheckResult):
            return way
        with Candidate(card.contract, way) as candidate:
            return check_log_replay(
                candidate,
                lambda: open_model(model.files, card.contract),
                log,
                work.rule,
                name=work.judge.name,
                strongest=work.judge.strongest,
            )

    def _way(self, work: LogReplayWork, inputs: Mapping[str, Digest]) -> Way | CheckResult:
        prefix = "" if work.here else "twin_"
        if f"{prefix}payload" not in inputs:
            summary = "this artifact cannot be executed here and has no host twin"
            return not_run(
                Check.LOG_REPLAY, summary, "have a judge replay it where its chip is (`nwmctl judge answer`)"
            )
        manifest = documents.decode(ArtifactManifest, self.store.read(inputs[f"{prefix}manifest"]), "artifact manifest")
        driver = self.toolchains.get(manifest.recipe.toolchain)
        reason = driver.places(manifest)[Place.HOST]
        if reason:
            return not_run(Check.LOG_REPLAY, reason, "see `nwmctl doctor` for what to install")
        payload = self.store.path(inputs[f"{prefix}payload"])
        label = f"{'this host' if work.here else 'host twin'} through {driver.name}"
        obtained = Obtained.MEASURED if work.here else Obtained.PROXY
        return Way(obtained, label, Pace.BATCH, lambda: driver.open(payload, manifest, Place.HOST))


def _fault(work: LogReplayWork, log: Path) -> CheckResult | None:
    """What keeps the log from being replayed: a log that is not there, or that nobody trusted has signed."""
    try:
        envelope = _signature(log).read_bytes()[:_MAX_SIGNATURE]
        found = file_digest(log)
    except OSError as problem:
        next = "put the log and its signature (LOG.sig) where the release names them"
        what = f"the drive log '{work.source.log}' or its signature cannot be read"
        return not_run(Check.LOG_REPLAY, f"{what}: {problem.strerror or problem}", next)
    try:
        signed = open_drive_log(envelope, work.judge)
        if signed.log != found or signed.name != work.judge.name:
            raise DriveLogUntrustedError(
                f"'{work.source.log}' is not the log that '{work.judge.name}' signed",
                why=f"it is {found}, the signature is about '{signed.name}', {signed.log}",
                next="restore the log, or have its owner sign it again",
            )
    except NwmError as problem:
        return failed(Obtained.ESTIMATED, f"{problem.what}: {problem.why}", problem.next)
    return None


def _signature(log: Path) -> Path:
    return log.with_name(log.name + ".sig")


def log_replay_step(store: ContentStore, toolchains: Registry, base: Path) -> Step[LogReplayWork]:
    """The step. Its fingerprint names the log, its signature and the runtimes here."""

    def fingerprint(work: LogReplayWork) -> str:
        log = base / work.source.log
        parts = [str(file_digest(path)) if path.is_file() else ABSENT for path in (log, _signature(log))]
        return ", ".join([*parts, runtimes(), versions("pyarrow")])

    return Step(StepName.LOG_REPLAY, VERSION, True, LogReplayWork, _LogReplay(store, toolchains, base), fingerprint)
