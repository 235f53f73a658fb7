"""judge: one artifact -> the signed answer of an outside judge, or why there is none.

Whom one asks is not pure; a signed answer is: it is a blob with a digest, validation takes it as an input, and the same
question (request, judge, its command or files) finds the answer of last time. What says "not now" (nobody there, no
time, a bad signature) counts for this run and is asked again by the next one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from nwmctl.domain.digest import Digest
from nwmctl.domain.evidence import CheckResult, Verdict
from nwmctl.domain.judge import Case, JudgeRequest, silent
from nwmctl.domain.policy import Rule
from nwmctl.domain.step import Outcome
from nwmctl.domain.work import JudgeWork, StepName, ValidateWork
from nwmctl.errors import NwmError
from nwmctl.formats import canonical
from nwmctl.formats.codec import Source, from_plain, to_plain
from nwmctl.steps.base import Progress, Step
from nwmctl.storage.content import ContentStore
from nwmctl.trust.judgements import weigh_envelope
from nwmctl.validation.judges.choose import outside_judge
from nwmctl.validation.judges.protocol import Material


@dataclass(frozen=True, slots=True)
class _Judge:
    store: ContentStore
    base: Path

    def __call__(self, work: JudgeWork, inputs: Mapping[str, Digest], progress: Progress) -> Outcome:
        case = Case(inputs["card"], inputs["manifest"], work.platform, work.build)
        request = request_of(work, case, inputs["payload"])
        progress(f"waiting for judge '{work.judge.name}'", -1.0)
        material = Material(*(self.store.path(inputs[name]) for name in ("card", "weights", "manifest", "payload")))
        try:
            envelope = outside_judge(work.source, self.base).ask(request, material)
        except NwmError as problem:
            why = f"{problem.what}: {problem.why}"
            kept = keep_results(
                self.store, [silent(work.judge.name, check, why, problem.next) for check in request.checks]
            )
            return Outcome({"silence": kept}, {"no_answer": problem.what}, fleeting=True)
        admission = weigh_envelope(envelope, work.judge, case, request.checks, work.rules)
        open_ = any(result.verdict is Verdict.NOT_RUN for result in admission.results)
        return Outcome(
            {"envelope": self.store.put_bytes(envelope)},
            _summary(admission.results, admission.refused),
            fleeting=bool(admission.refused) or open_,
        )


def request_of(work: JudgeWork, case: Case, payload: Digest) -> JudgeRequest:
    """The question that a work order asks."""
    margins = {str(check): dict(rule.margins) for check in work.judge.checks if (rule := work.rules.get(check))}
    return JudgeRequest(case, payload, work.judge.checks, work.seed, margins)


def _summary(results: tuple[CheckResult, ...], refused: str) -> dict[str, str | int | float | bool]:
    if refused:
        return {"refused": refused[:200]}
    counts = {verdict: sum(result.verdict is verdict for result in results) for verdict in Verdict}
    return {str(verdict): count for verdict, count in counts.items() if count}


def judge_step(store: ContentStore, base: Path) -> Step[JudgeWork]:
    """The step. Its fingerprint is the judge's: another command or another file is another answer."""

    def fingerprint(work: JudgeWork) -> str:
        return outside_judge(work.source, base).fingerprint()

    return Step(StepName.JUDGE, 1, True, JudgeWork, _Judge(store, base), fingerprint)


# --- for the validate step ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Others:
    """What judges besides the suite found. ``concerns`` are results that say something bad about the *artifact*."""

    results: tuple[CheckResult, ...]
    concerns: tuple[CheckResult, ...]
    envelopes: tuple[Digest, ...]


def other_results(
    store: ContentStore, work: ValidateWork, case: Case, inputs: Mapping[str, Digest], rules: Mapping[str, Rule]
) -> Others:
    """Weigh the envelopes among a validate step's inputs, and take over what was replayed and rebuilt."""
    results: list[CheckResult] = []
    concerns: list[CheckResult] = []
    envelopes: list[Digest] = []
    for name, digest in sorted(inputs.items()):
        kind, _, judge_name = name.partition(":")
        if kind in ("silence", "replayed", "rebuilt"):
            found = read_results(store, digest)
            results += found
            concerns += found if kind != "silence" else ()
        elif kind == "envelope":
            judge = next(judge for judge in work.judges if judge.name == judge_name)
            admission = weigh_envelope(store.read(digest), judge, case, judge.checks, rules)
            results += admission.results
            if not admission.refused:
                envelopes.append(digest)
                concerns += admission.results
    return Others(tuple(results), tuple(concerns), tuple(envelopes))


def keep_results(store: ContentStore, results: list[CheckResult]) -> Digest:
    """Check results as a blob."""
    return store.put_bytes(canonical.encode(to_plain(results)))


def read_results(store: ContentStore, digest: Digest) -> tuple[CheckResult, ...]:
    """The results of such a blob."""
    data = canonical.decode(store.read(digest), "check results")
    return from_plain(tuple[CheckResult, ...], data, Source("check results"))
