"""Outside judges: what they are asked, what they answer, and how much of the answer counts.

A judge is anybody who can say something about an artifact that nwmctl cannot: a maker's simulator, a
hardware-in-the-loop rig. It is asked with a ``JudgeRequest`` and answers with a ``JudgeEvidence`` that it has signed.
``admit`` lays the policy over an answer whose signature holds: whose word it is, about what, how strong it may be, and
whether its figures keep the margins. It is pure, so the signing process repeats it on bytes that it read itself. An
answer is never bent into shape: what is wrong with it becomes a failed result that says so.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from nwmctl.domain.digest import Digest
from nwmctl.domain.evidence import Check, CheckResult, Verdict
from nwmctl.domain.figure import Obtained, ResultFigure
from nwmctl.domain.policy import Rule, TrustedJudge

MAX_RESULTS = 100
MAX_FIGURES = 1_000
MAX_TEXT = 2_000
MAX_TIMEOUT_S = 7 * 24 * 3600.0
MAX_MEMORY_MB = 1 << 20
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z")
_ADDRESS = re.compile(r"[^@\s:/]+@[^@\s:/]+(:[0-9]{1,5})?\Z")
_LOWEST, _HIGHEST = -1e308, 1e308


@dataclass(frozen=True, slots=True)
class Case:
    """What is judged: one artifact (digest of its manifest) of one model (digest of its card) for one build.

    ``build`` is ``variant/build``, as in evidence.
    """

    model: Digest
    artifact: Digest
    platform: str
    build: str


@dataclass(frozen=True, slots=True)
class JudgeRequest:
    """The question. The same case under the same rules is the same bytes, so it is asked once.

    ``payload`` is the digest of the artifact's own bytes; ``margins`` the policy's upper limits by check and figure,
    which a judge may use to say "inconclusive" (they are compared again with whatever it answers).
    """

    case: Case
    payload: Digest
    checks: tuple[Check, ...]
    seed: int
    margins: dict[str, dict[str, float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.checks:
            raise ValueError("a judge is asked for at least one check")


@dataclass(frozen=True, slots=True)
class JudgeEvidence:
    """The answer. ``judge`` is the name under which the policy knows who signed; ``version`` what it judged with.

    ``used`` names what the results rest on (a scenario set, a log, a rig), best with digests.
    """

    judge: str
    version: str
    case: Case
    results: tuple[CheckResult, ...]
    used: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class DriveLog:
    """What the owner of a drive log signs once: which bytes they are and what they are worth.

    ``origin`` says in words where the drives come from; a log out of a simulator says so.
    """

    name: str
    log: Digest
    origin: str


@dataclass(frozen=True, slots=True)
class JudgeSource:
    """How a release reaches a judge that its policy trusts. Exactly one of ``file``, ``command`` and ``log`` is set.

    ``file``: signed evidence that was made elsewhere; the path may hold ``{model}``, ``{artifact}`` (the first 12
    digits of the digests), ``{platform}``, ``{variant}`` and ``{build}``. ``command``: a program that answers, here or,
    with ``ssh`` (``user@host`` or ``user@host:port``), there. ``log``: a Parquet drive log that nwmctl replays itself.
    ``checks`` and ``platforms`` narrow down what it is asked; empty: everything that the policy trusts it with,
    everywhere. ``timeout_s`` seconds and ``memory_mb`` MB bound one answer of a command.
    """

    name: str
    file: str = ""
    command: tuple[str, ...] = ()
    ssh: str = ""
    host_key: str = ""
    identity: str = ""
    log: str = ""
    checks: tuple[Check, ...] = ()
    platforms: tuple[str, ...] = ()
    timeout_s: float = 600.0
    memory_mb: int = 4096

    def __post_init__(self) -> None:
        if not _NAME.match(self.name):
            raise ValueError(f"a judge is called '{self.name}'; use letters, digits, '.', '_' and '-'")
        ways = [name for name in ("file", "command", "log") if getattr(self, name)]
        if len(ways) != 1:
            raise ValueError(
                f"judge '{self.name}' has {' and '.join(ways) or 'none'} of file, command and log; one it is"
            )
        if self.ssh and not self.command:
            raise ValueError(f"judge '{self.name}' has 'ssh' and no 'command' to run there")
        if self.ssh and not _ADDRESS.match(self.ssh):
            raise ValueError(f"ssh is '{self.ssh}'; write user@host or user@host:port")
        if bool(self.ssh) != bool(self.identity) or bool(self.ssh) != bool(self.host_key):
            raise ValueError(f"judge '{self.name}': 'ssh', 'host_key' and 'identity' go together")
        if self.log and self.checks not in ((), (Check.LOG_REPLAY,)):
            raise ValueError(f"a drive log answers '{Check.LOG_REPLAY}' and nothing else")
        if not 0 < self.timeout_s <= MAX_TIMEOUT_S:
            raise ValueError(f"timeout_s is {self.timeout_s:g}, it lies above 0 and up to {MAX_TIMEOUT_S:g}")
        if not 16 <= self.memory_mb <= MAX_MEMORY_MB:
            raise ValueError(f"memory_mb is {self.memory_mb}, it lies between 16 and {MAX_MEMORY_MB}")


@dataclass(frozen=True, slots=True)
class Admission:
    """What counts of an answer. ``refused`` is set where the answer itself is at fault, not the artifact."""

    results: tuple[CheckResult, ...]
    refused: str = ""


def admit(
    evidence: JudgeEvidence, judge: TrustedJudge, case: Case, asked: tuple[Check, ...], rules: Mapping[str, Rule]
) -> Admission:
    """What counts of an answer whose signature by ``judge`` holds. ``rules`` are the platform's, by check."""
    fault = _fault(evidence, judge, case)
    if fault:
        return refuse(judge.name, asked, *fault)
    results = [_weigh(result, judge.name, rules.get(result.check)) for result in evidence.results]
    answered = {result.check for result in results}
    for check in asked:
        if check not in answered:
            results.append(silent(judge.name, check, "its evidence does not mention this check", "ask it again"))
    return Admission(tuple(results))


def refuse(judge: str, asked: tuple[Check, ...], what: str, why: str, next: str) -> Admission:
    """The answer itself is at fault: each check that it was to answer has failed, and says why."""
    summary = _printable(f"the evidence of judge '{judge}' does not count: {what}: {why}")
    # Nothing of the artifact ran, so nothing stronger than "estimated" can be said about how this was found.
    results = tuple(
        CheckResult(check, Verdict.FAILED, Obtained.ESTIMATED, summary, (), _printable(next), judge=judge)
        for check in asked
    )
    return Admission(results, summary)


def silent(judge: str, check: Check, why: str, next: str) -> CheckResult:
    """A check that the judge did not answer."""
    return CheckResult(
        check,
        Verdict.NOT_RUN,
        Obtained.NOT_RUN,
        _printable(f"judge '{judge}' did not judge: {why}"),
        (),
        _printable(next),
        judge=judge,
    )


def _fault(evidence: JudgeEvidence, judge: TrustedJudge, case: Case) -> tuple[str, str, str] | None:
    """What is wrong with an answer, as what, why and next; None where nothing is."""
    if evidence.judge != judge.name:
        return "it speaks for somebody else", f"it is '{evidence.judge}' and '{judge.name}' signed it", _ASK_RIGHT
    for what, said, needed in [
        ("model", str(evidence.case.model), str(case.model)),
        ("artifact", str(evidence.case.artifact), str(case.artifact)),
        ("platform", evidence.case.platform, case.platform),
        ("build", evidence.case.build, case.build),
    ]:
        if said != needed:
            return f"it is about another {what}", f"{said}, not {needed}", _ASK_RIGHT
    if not evidence.results:
        return "it holds no result", "an answer holds at least one", _ASK_RIGHT
    if len(evidence.results) > MAX_RESULTS or any(len(each.figures) > MAX_FIGURES for each in evidence.results):
        return "it is too long", f"at most {MAX_RESULTS} results with {MAX_FIGURES} figures each are read", _ASK_RIGHT
    for result in evidence.results:
        fault = _claim_fault(result, judge)
        if fault:
            return fault
    return None


_ASK_RIGHT = "have it judge this very artifact (`nwmctl judge request` writes the question) and sign its answer"


def _claim_fault(result: CheckResult, judge: TrustedJudge) -> tuple[str, str, str] | None:
    if result.check not in judge.checks:
        return (
            f"it answers '{result.check}'",
            f"the policy trusts this judge with {', '.join(judge.checks)}",
            "have it answer only what it is trusted with, or have the safety role trust it with more",
        )
    if result.judge not in ("", judge.name):
        return f"a result says that '{result.judge}' judged", "a judge speaks for itself alone", _ASK_RIGHT
    words = {result.obtained, *(figure.obtained for figure in result.figures)}
    strongest = max(words, key=lambda word: word.strength)
    if not judge.strongest.satisfies(strongest):
        return (
            f"it claims '{strongest}' for '{result.check}'",
            f"the policy believes this judge up to '{judge.strongest}'",
            "have it say how its figures were really obtained, or have the safety role believe it more",
        )
    if any(not _inside_itself(figure) for figure in result.figures):
        return f"a figure of '{result.check}' lies outside its own interval", "low <= value <= high holds", _ASK_RIGHT
    return None


def _inside_itself(figure: ResultFigure) -> bool:
    low = _LOWEST if figure.low is None else figure.low
    high = _HIGHEST if figure.high is None else figure.high
    return low <= figure.value <= high


def _weigh(result: CheckResult, judge: str, rule: Rule | None) -> CheckResult:
    """The result under the judge's name. What it calls passed is compared with the margins, intervals whole."""
    margins = rule.margins if rule else {}
    figures = tuple(
        replace(each, name=_printable(each.name), unit=_printable(each.unit), limit=margins.get(each.name))
        for each in result.figures
    )
    result = replace(
        result, judge=judge, summary=_printable(result.summary), next=_printable(result.next), figures=figures
    )
    if result.verdict is not Verdict.PASSED:
        return result
    failed, open_ = [], []
    for name, limit in margins.items():
        own = [figure for figure in figures if figure.name == name]
        if not own:
            open_.append(f"it names no {name}, which the policy limits to {limit:g}")
        for figure in own:
            least, most = _reach(figure)
            said = f"{_shown(figure)}, the policy allows {limit:g}"
            if least > limit:
                failed.append(said)
            elif most > limit:
                open_.append(said)
    if failed:
        summary = f"judge '{judge}' calls this passed and the policy does not: {'; '.join(failed)}"
        return replace(result, verdict=Verdict.FAILED, summary=_printable(summary), next="repair the artifact")
    if open_:
        summary = f"judge '{judge}' calls this passed, and it settles nothing: {'; '.join(open_)}"
        next = result.next or "have it judge more of the same, so that whole intervals lie inside the margins"
        return replace(result, verdict=Verdict.INCONCLUSIVE, summary=_printable(summary), next=next)
    return result


def _reach(figure: ResultFigure) -> tuple[float, float]:
    """Smallest and largest absolute value that the figure may have. Without an interval it is the value alone."""
    if figure.low is None and figure.high is None:
        return abs(figure.value), abs(figure.value)
    low = _LOWEST if figure.low is None else figure.low
    high = _HIGHEST if figure.high is None else figure.high
    least = 0.0 if low <= 0.0 <= high else min(abs(low), abs(high))
    return least, max(abs(low), abs(high))


def _shown(figure: ResultFigure) -> str:
    unit = f" {figure.unit}" if figure.unit else ""
    if figure.low is None and figure.high is None:
        return f"{figure.name} is {figure.value:g}{unit}"
    low = "-" if figure.low is None else f"{figure.low:g}"
    high = "-" if figure.high is None else f"{figure.high:g}"
    return f"{figure.name} is {figure.value:g}{unit} [{low}, {high}]"


def _printable(text: str) -> str:
    """Text from outside for evidence and terminals: no controls, nothing that is not UTF-8, not endless."""
    kept = "".join(letter if letter.isprintable() else " " for letter in text[: 2 * MAX_TEXT])
    return kept if len(kept) <= MAX_TEXT else f"{kept[: MAX_TEXT - 1]}…"
