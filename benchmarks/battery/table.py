"""From finished trials to the tables that a person reads. Counts and exact intervals only; runs nothing."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence

from benchmarks.battery.clean import CLEAN, GREY
from benchmarks.battery.trial import BROKEN, TWIN, Said, Trial
from nwmctl.domain.evidence import Check, Verdict
from nwmctl.validation.statistics import share_interval

_ORDER = [str(check) for check in Check]
_CLEAN = (*CLEAN, TWIN)


def outcome(said: Iterable[Said]) -> Verdict:
    """Failed beats inconclusive beats passed."""
    verdicts = {entry.verdict for entry in said}
    worst = (Verdict.FAILED, Verdict.INCONCLUSIVE)
    return next((verdict for verdict in worst if verdict in verdicts), Verdict.PASSED)


def share(hits: int, trials: int) -> str:
    """A share with its exact 95 % interval (Clopper-Pearson)."""
    if not trials:
        return "no trials"
    found = share_interval(hits, trials)
    return f"{hits} of {trials}: {found.value:.2%} [{found.low:.2%}, {found.high:.2%}]"


def headline(trials: Sequence[Trial]) -> list[str]:
    """The sentences that the battery is about."""
    broken = [trial for trial in trials if trial.kind in BROKEN]
    clean = [trial for trial in trials if trial.kind in _CLEAN]
    ordered = sum(bool(trial.first) for trial in clean)
    return [
        f"- **Detection** (a broken artifact fails at least one check): {_count(broken, Verdict.FAILED)}.",
        f"- Broken and only inconclusive (refused as well, but not convicted): {_count(broken, Verdict.INCONCLUSIVE)}.",
        f"- Broken and passed, that is **missed**: {_count(broken, Verdict.PASSED)}.",
        f"- **False alarms** (a clean artifact fails a check): {_count(clean, Verdict.FAILED)}.",
        f"- Clean and inconclusive to the end (not signed): {_count(clean, Verdict.INCONCLUSIVE)}.",
        f"- Clean, inconclusive at first and given the scenarios that the check asked for: {ordered}.",
        f"- Clean and passed: {_count(clean, Verdict.PASSED)}.",
    ]


def _count(trials: Sequence[Trial], verdict: Verdict) -> str:
    return share(sum(outcome(trial.said) is verdict for trial in trials), len(trials))


def tables(trials: Sequence[Trial]) -> list[str]:
    """Broken kinds, clean kinds, and the grey ones that count on neither side."""
    ran = {entry.check for trial in trials for entry in trial.said}
    checks = [check for check in _ORDER if check in ran]
    lines = ["### Broken artifacts", "", *_broken(trials, checks), "", "### Clean artifacts", "", *_clean(trials)]
    grey = [trial for trial in trials if trial.kind in GREY]
    if grey:
        lines += ["", "### Neither", "", *_grey(grey)]
    return lines


def _broken(trials: Sequence[Trial], checks: list[str]) -> list[str]:
    names = [check.replace("_", " ") for check in checks]
    lines = [
        f"| kind | trials | failed | inconclusive | missed | first to fail | {' | '.join(names)} |",
        "|" + "---|" * (6 + len(checks)),
    ]
    for kind, own in _by_kind(trials, BROKEN).items():
        counts = Counter(outcome(trial.said) for trial in own)
        first = Counter(_first(trial) for trial in own if outcome(trial.said) is not Verdict.PASSED)
        said = ", ".join(f"{check.replace('_', ' ')} {count}" for check, count in first.most_common())
        alone = [_alone(own, check) for check in checks]
        lines.append(
            f"| {kind} | {len(own)} | {counts[Verdict.FAILED]} | {counts[Verdict.INCONCLUSIVE]} "
            f"| {counts[Verdict.PASSED]} | {said} | {' | '.join(alone)} |"
        )
    everything = [trial for own in _by_kind(trials, BROKEN).values() for trial in own]
    alone = [_alone(everything, check) for check in checks]
    lines.append(f"| **all, whole matrix** | {sum(t.whole for t in everything)} |  |  |  |  | {' | '.join(alone)} |")
    return lines


def _first(trial: Trial) -> str:
    """The first check that failed, in the order in which they ran; else the first that was inconclusive."""
    for verdict in (Verdict.FAILED, Verdict.INCONCLUSIVE):
        for entry in trial.said:
            if entry.verdict == verdict:
                return entry.check
    return ""


def _alone(trials: Iterable[Trial], check: str) -> str:
    """In how many of the trials with the whole matrix this check alone fails (and in how many it is unsure)."""
    said = [entry for trial in trials if trial.whole for entry in trial.said if entry.check == check]
    if not said:
        return ""
    verdicts = Counter(entry.verdict for entry in said)
    unsure = f" (+{verdicts[Verdict.INCONCLUSIVE]}?)" if verdicts[Verdict.INCONCLUSIVE] else ""
    return f"{verdicts[Verdict.FAILED]}/{len(said)}{unsure}"


def _clean(trials: Sequence[Trial]) -> list[str]:
    lines = [
        "| kind | trials | passed | failed | inconclusive | got more scenarios | by | most of a margin used |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for kind, own in _by_kind(trials, _CLEAN).items():
        counts = Counter(outcome(trial.said) for trial in own)
        by = Counter(_first(trial) for trial in own if outcome(trial.said) is not Verdict.PASSED)
        said = ", ".join(f"{check.replace('_', ' ')} {count}" for check, count in by.most_common())
        lines.append(
            f"| {kind} | {len(own)} | {counts[Verdict.PASSED]} | {counts[Verdict.FAILED]} "
            f"| {counts[Verdict.INCONCLUSIVE]} | {sum(bool(t.first) for t in own)} | {said} | {_most_used(own)} |"
        )
    return lines


def _most_used(trials: Iterable[Trial]) -> str:
    """The figure that came nearest to its margin, and how much of the margin it took; for each check."""
    worst: dict[str, Said] = {}
    for entry in (entry for trial in trials for entry in trial.said if entry.by):
        if entry.used > worst.get(entry.check, entry).used or entry.check not in worst:
            worst[entry.check] = entry
    return ", ".join(f"{entry.by} {entry.used:.0%}" for entry in worst.values())


def _grey(trials: Sequence[Trial]) -> list[str]:
    lines = ["| kind | trials | passed | failed | inconclusive |", "|---|---|---|---|---|"]
    for kind, own in _by_kind(trials, GREY).items():
        counts = Counter(outcome(trial.said) for trial in own)
        shown = (counts[Verdict.PASSED], counts[Verdict.FAILED], counts[Verdict.INCONCLUSIVE])
        lines.append(f"| {kind} | {len(own)} | {' | '.join(map(str, shown))} |")
    return lines


def remarks(trials: Sequence[Trial], wanted: Callable[[Trial], bool]) -> list[str]:
    """One line for each trial that somebody should look at."""
    return [
        f"- {trial.kind}, seed {trial.seed} ({trial.detail}): "
        + ("; ".join(f"{s.check} {s.verdict}: {s.summary}" for s in trial.said if s.summary) or "passed every check")
        for trial in trials
        if wanted(trial)
    ]


def surprising(trial: Trial) -> bool:
    """A broken artifact that did not fail, a clean one that did not pass."""
    if trial.kind in GREY:
        return False
    return outcome(trial.said) is not (Verdict.FAILED if trial.kind in BROKEN else Verdict.PASSED)


def _by_kind(trials: Sequence[Trial], kinds: Iterable[str]) -> dict[str, list[Trial]]:
    found: defaultdict[str, list[Trial]] = defaultdict(list)
    for trial in trials:
        found[trial.kind].append(trial)
    return {kind: found[kind] for kind in kinds if kind in found}
