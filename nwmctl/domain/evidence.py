"""Evidence: what each check found about one artifact, and how it was obtained."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from nwmctl.domain.digest import Digest
from nwmctl.domain.figure import Obtained, ResultFigure


class Verdict(StrEnum):
    """What a check says. Only ``passed`` ever passes."""

    PASSED = "passed"
    FAILED = "failed"
    INCONCLUSIVE = "inconclusive"
    NOT_RUN = "not_run"


class Check(StrEnum):
    """The checks of this version, by name. Policies refer to these."""

    CONTRACT = "contract"
    PARITY = "parity"
    NEGATIVE_CONTROL = "negative_control"
    CONTROL_ENVELOPE = "control_envelope"
    CLOSED_LOOP = "closed_loop"
    NON_INFERIORITY = "non_inferiority"
    TRAP_SUITE = "trap_suite"
    LOG_REPLAY = "log_replay"
    INSTRUCTION_SET = "instruction_set"
    REBUILD = "rebuild"
    BUDGET = "budget"
    LATENCY = "latency"


@dataclass(frozen=True, slots=True)
class CheckResult:
    """One run of one check. A check may appear more than once, obtained in different ways.

    ``obtained`` is ``not_run`` exactly where the verdict is. ``next`` says what would settle an open verdict, and
    ``needs`` how many scenarios, where more of them would. ``judge`` names who judged; empty is nwmctl itself.
    """

    check: Check
    verdict: Verdict
    obtained: Obtained
    summary: str
    figures: tuple[ResultFigure, ...] = ()
    next: str = ""
    seeds: tuple[int, ...] = ()
    judge: str = ""
    needs: int | None = None

    def __post_init__(self) -> None:
        if (self.verdict is Verdict.NOT_RUN) != (self.obtained is Obtained.NOT_RUN):
            raise ValueError("a check is obtained 'not_run' exactly where its verdict is 'not_run'")
        if self.needs is not None and (self.verdict is not Verdict.INCONCLUSIVE or self.needs < 1):
            raise ValueError("only an inconclusive check needs more scenarios, and at least one")


@dataclass(frozen=True, slots=True)
class Evidence:
    """All results about one artifact (manifest digest) built from one model for one platform's build.

    ``envelopes`` are the digests of the signed answers of outside judges that results with a ``judge`` come from.
    """

    model: Digest
    artifact: Digest
    platform: str
    build: str
    results: tuple[CheckResult, ...]
    envelopes: tuple[Digest, ...] = ()
