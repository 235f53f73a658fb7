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
    CLOSED_LOOP = "closed_loop"
    INSTRUCTION_SET = "instruction_set"
    BUDGET = "budget"
    LATENCY = "latency"


@dataclass(frozen=True, slots=True)
class CheckResult:
    """One run of one check. A check may appear more than once, obtained in different ways.

    ``obtained`` is ``not_run`` exactly where the verdict is. ``next`` says what would settle an open verdict.
    """

    check: Check
    verdict: Verdict
    obtained: Obtained
    summary: str
    figures: tuple[ResultFigure, ...] = ()
    next: str = ""
    seeds: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if (self.verdict is Verdict.NOT_RUN) != (self.obtained is Obtained.NOT_RUN):
            raise ValueError("a check is obtained 'not_run' exactly where its verdict is 'not_run'")


@dataclass(frozen=True, slots=True)
class Evidence:
    """All results about one artifact (manifest digest) built from one model for one platform's build."""

    model: Digest
    artifact: Digest
    platform: str
    build: str
    results: tuple[CheckResult, ...]
