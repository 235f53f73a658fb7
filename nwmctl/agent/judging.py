"""The part of a plan that asks judges besides nwmctl's own checks. Pure.

Each judge that a release names is one step per build (a drive log: per artifact, by its key). Where the policy does not
trust a judge the project has refused the release before; here such a judge is simply not asked.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from nwmctl.domain.digest import Digest
from nwmctl.domain.evidence import Check
from nwmctl.domain.judge import JudgeSource
from nwmctl.domain.platform import HOST_UNIT, Build
from nwmctl.domain.policy import Rule, TrustedJudge
from nwmctl.domain.step import OutputRef, PlannedStep
from nwmctl.domain.work import JudgeWork, LogReplayWork, StepName
from nwmctl.formats.codec import to_plain

_ASKED = ("card", "weights", "payload", "manifest")
_ANSWER = "envelope:"
_TWIN = ("twin_payload", "twin_manifest")
Inputs = dict[str, Digest | OutputRef]


@dataclass(frozen=True, slots=True)
class Asked:
    """A judge that is asked about one build. ``outside``: it signs its answer itself."""

    judge: TrustedJudge
    step: PlannedStep
    outside: bool


def ask_judges(
    sources: Sequence[JudgeSource],
    trusted: Sequence[TrustedJudge],
    where: str,
    build: Build,
    rules: Mapping[str, Rule],
    seed: int,
    artifact: Mapping[str, Digest | OutputRef],
) -> list[Asked]:
    """The steps for one build. ``where`` is ``kind/platform/variant/build``; ``rules`` are the platform's, by check."""
    _, platform, place = where.split("/", 2)
    known = {judge.name: judge for judge in trusted}
    found = []
    for source in sources:
        judge = narrowed(known[source.name], source) if source.name in known else None
        if judge is None or not asked_on(source, platform):
            continue
        inputs = {name: artifact[name] for name in _ASKED}
        if source.log:
            rule, here = rules.get(Check.LOG_REPLAY), build.unit == HOST_UNIT
            order: object = LogReplayWork(source, judge, rule, here)
            inputs |= {name: artifact[name] for name in (*_TWIN, "weights_data")}
            reason = "recorded drives are another judge than the simulator"
        else:
            order = JudgeWork(source, judge, platform, place, dict(rules), seed)
            reason = f"the policy trusts '{judge.name}' with {', '.join(judge.checks)}"
        name = StepName.LOG_REPLAY if source.log else StepName.JUDGE
        step = PlannedStep(f"{name}/{where}/{judge.name}", name, to_plain(order), inputs, reason, platform=platform)
        found.append(Asked(judge, step, not source.log))
    return found


def asked_on(source: JudgeSource, platform: str) -> bool:
    """Whether the release asks this judge about a platform."""
    return not source.platforms or platform in source.platforms


def narrowed(judge: TrustedJudge, source: JudgeSource) -> TrustedJudge | None:
    """The judge, trusted with no more than the release asks it; None where nothing is left."""
    asked = (Check.LOG_REPLAY,) if source.log else source.checks or judge.checks
    checks = tuple(check for check in judge.checks if check in asked)
    return replace(judge, checks=checks) if checks else None


def validation_inputs(asked: Sequence[Asked]) -> Inputs:
    """What a validate step takes over: an answer or why there is none, and what logs showed."""
    inputs: Inputs = {}
    for each in asked:
        outputs = ("envelope", "silence") if each.outside else ("replayed",)
        inputs |= {f"{output}:{each.judge.name}": OutputRef(each.step.id, output) for output in outputs}
    return inputs


def envelope_inputs(checks: Sequence[PlannedStep], where: str, place: str) -> Inputs:
    """What a sign step hands to the signing process, which weighs every answer about a build again: what the build's
    validate step (``where``: kind/platform/variant/build) takes over. ``place`` is variant/build."""
    step = next(step for step in checks if step.id == f"{StepName.VALIDATE}/{where}")
    answers = {name: source for name, source in step.inputs.items() if name.startswith(_ANSWER)}
    return {f"{_ANSWER}{place}/{name.removeprefix(_ANSWER)}": source for name, source in answers.items()}
