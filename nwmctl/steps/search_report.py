"""A search's end as documents: the report for people, and the sentence why the winner won. Pure."""

from __future__ import annotations

from nwmctl.compiler.search import Found, Skipped
from nwmctl.compiler.search_rank import Speed, Tried
from nwmctl.compiler.space import recipe_key, said
from nwmctl.domain.digest import Digest
from nwmctl.domain.figure import Obtained
from nwmctl.domain.platform import Build
from nwmctl.domain.search import Candidate, CandidateState, SearchReport
from nwmctl.steps.search_cost import prediction_error
from nwmctl.toolchains.protocol import Effort

_DIGITS = 6


def report_of(found: Found, model: Digest, build: Build, effort: Effort, notes: tuple[str, ...]) -> SearchReport:
    """Everything that was tried: the ranking from the top, then what was rejected, failed, and left out."""
    ranked = {recipe_key(each.recipe): place for place, each in enumerate(found.order)}
    tried = sorted(
        found.tried,
        key=lambda each: (ranked.get(recipe_key(each.recipe), len(ranked)), each.failed, recipe_key(each.recipe)),
    )
    candidates = (*(_candidate(each, found) for each in tried), *(_skipped(each) for each in found.skipped))
    error = prediction_error(found.forecasts, found.tried)
    return SearchReport(
        model, build.chip, build.unit, effort.value, candidates, None if error is None else _rounded(error), notes
    )


def why(found: Found) -> str:
    """One sentence without figures, so that the same choice has the same bytes."""
    winner = found.winner
    assert winner is not None
    others = len(found.order) - 1
    if winner.passed is None:
        return "nothing here can judge it; validation will say what is missing"
    if winner.speed is None:
        return "nothing here tells how fast it is; the safest that passed comes first"
    way = "measured" if winner.speed.obtained in (Obtained.MEASURED, Obtained.BENCH) else "estimated"
    if not others:
        return f"the only one that passed, {way}"
    tie = recipe_key(winner.recipe) in found.ties
    return f"the fastest that passed, {way}" + (": as fast as another as far as can be told, and safer" if tie else "")


def _candidate(tried: Tried, found: Found) -> Candidate:
    name = recipe_key(tried.recipe)
    state, reason = _state(tried, found, name)
    forecast = found.forecasts.get(name)
    return Candidate(
        tried.recipe,
        state,
        reason,
        _ms(tried.speed),
        tried.speed.obtained if tried.speed and tried.speed.unit == "ms" else Obtained.NOT_RUN,
        _ms(forecast),
        tried.latency,
        tried.size,
        None if tried.parity_share is None else _rounded(tried.parity_share),
        tried.found_precision,
    )


def _state(tried: Tried, found: Found, name: str) -> tuple[CandidateState, str]:
    if tried.failed:
        return CandidateState.FAILED, tried.words
    if name in found.rejected:
        return CandidateState.REJECTED, f"{tried.words}; then {found.rejected[name]}"
    if tried.passed is False:
        return CandidateState.REJECTED, tried.words
    tie = f"; {found.ties[name]}" if name in found.ties else ""
    if found.winner is not None and recipe_key(found.winner.recipe) == name:
        return CandidateState.WON, f"{why(found)}{_took(tried)}; {tried.words}{tie}"
    return CandidateState.PASSED, f"{tried.words}{_took(tried)}{_slower(tried, found)}{tie}"


def _took(tried: Tried) -> str:
    return f"; {tried.speed.ms:.3g} {tried.speed.unit} ({tried.speed.obtained})" if tried.speed else ""


def _slower(tried: Tried, found: Found) -> str:
    """What it would have cost to take this one."""
    winner = found.winner
    if winner is None or winner.speed is None or tried.speed is None:
        return ""
    share = tried.speed.ms / winner.speed.ms
    more = "as much" if abs(share - 1) < 0.005 else f"{share:.2f} times as much"
    return f"; takes {more} as {said(winner.recipe)}"


def _skipped(skipped: Skipped) -> Candidate:
    share = None if skipped.simulated is None else _rounded(skipped.simulated)
    return Candidate(
        skipped.recipe,
        CandidateState.PRUNED,
        skipped.reason,
        predicted_ms=_ms(skipped.forecast),
        parity_share=share,
    )


def _ms(speed: Speed | None) -> float | None:
    """Milliseconds, where it is a time."""
    return _rounded(speed.ms) if speed is not None and speed.unit == "ms" else None


def _rounded(value: float) -> float:
    return float(f"{value:.{_DIGITS}g}")
