"""The search step through the real onnxruntime under several names, with known defects and known speeds."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from nwmctl.domain.artifact import Precision, Recipe
from nwmctl.domain.figure import Obtained
from nwmctl.domain.policy import Rule
from nwmctl.domain.search import CandidateState, Ranked
from nwmctl.domain.step import Outcome
from nwmctl.domain.work import CompileWork
from nwmctl.errors import DiskFullError, NoCandidateError, NothingPassedError, PlanError, UnsupportedRecipeError
from nwmctl.formats import documents
from nwmctl.formats.codec import to_plain
from nwmctl.steps import search_world
from nwmctl.steps.base import load_outcome
from nwmctl.steps.search_kept import EARLIER, Earlier, Memory, Place, recall, remember
from nwmctl.steps.ways import Artifact
from nwmctl.storage.content import ContentStore
from tests.fakes import some_digest
from tests.steps.search_bench import Bench, Drivers, Fake


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(ContentStore(tmp_path / "content"))


@pytest.fixture(scope="module")
def _searched(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Outcome, Drivers]:
    folder, drivers = tmp_path_factory.mktemp("searched") / "content", all_kinds()
    return folder, Bench(ContentStore(folder)).run(drivers), drivers


@dataclass(frozen=True)
class Searched:
    """A bench on which ``all_kinds`` has been searched."""

    bench: Bench
    outcome: Outcome
    drivers: Drivers


@pytest.fixture
def searched(_searched: tuple[Path, Outcome, Drivers], tmp_path: Path) -> Searched:
    """A copy, so that no test sees another's findings."""
    folder, outcome, drivers = _searched
    shutil.copytree(folder, tmp_path / "copy")
    return Searched(Bench(ContentStore(tmp_path / "copy")), outcome, drivers)


def all_kinds() -> Drivers:
    return Drivers(Fake("first", factor=2.0), Fake("fast"), Fake("wrong", "wrong"), Fake("broken", "broken"))


def test_the_fastest_that_passes_wins_and_the_report_says_why_the_others_did_not(searched: Searched) -> None:
    bench, outcome = searched.bench, searched.outcome
    assert [each.toolchain for each in bench.ranked(outcome).recipes] == ["fast", "first"]
    report = bench.report(outcome)
    states = {each.recipe.toolchain: each for each in report.candidates}
    assert {name: each.state for name, each in states.items()} == {
        "fast": CandidateState.WON,
        "first": CandidateState.PASSED,
        "wrong": CandidateState.REJECTED,
        "broken": CandidateState.FAILED,
    }
    assert "the fastest that passed, measured" in states["fast"].reason
    assert "times as much as fast fp32 number=0" in states["first"].reason
    assert "parity failed (measured)" in states["wrong"].reason
    assert states["wrong"].parity_share is not None
    assert states["wrong"].parity_share > 1
    assert states["broken"].reason == "the compiler failed: it says so"
    winner = states["fast"]
    assert winner.latency is not None
    assert (winner.obtained, winner.latency.obtained) == (Obtained.MEASURED, Obtained.MEASURED)
    assert report.model == bench.inputs["card"]
    assert any("broken fp32 number=0" in note for note in report.notes), "every decision is journalled"


def test_the_winner_is_never_compiled_twice(searched: Searched) -> None:
    bench, outcome = searched.bench, searched.outcome
    step = bench.compile(searched.drivers)
    inputs = {name: bench.inputs[name] for name in ("card", "weights", "calibration")}
    order = to_plain(CompileWork("host", None, ""))
    ranked = {**inputs, "recipes": outcome.outputs["recipes"]}
    kept = load_outcome(bench.store, step.key(order, ranked))
    assert kept is not None
    assert kept.summary["recipe"] == "fast fp32"
    second = to_plain(CompileWork("host", None, "", rank=1))
    assert load_outcome(bench.store, step.key(second, ranked)) is not None, "nor is what one falls back on"
    with pytest.raises(UnsupportedRecipeError, match="no recipe of rank 3"):
        step.key(to_plain(CompileWork("host", None, "", rank=2)), ranked)
    pinned = to_plain(CompileWork("host", Recipe("fast", Precision.FP32, {"number": 0}), ""))
    assert step.key(pinned, inputs) == step.key(order, ranked)


def test_a_search_that_is_asked_again_finds_everything(searched: Searched) -> None:
    drivers = all_kinds()
    begun = time.process_time()
    assert searched.bench.run(drivers) == searched.outcome
    assert time.process_time() - begun < 2.0
    assert [fake.compiled for fake in drivers.fakes.values()] == [[], [], [], []]
    assert [fake.opened for fake in drivers.fakes.values()] == [0, 0, 0, 0]


def test_a_killed_search_loses_one_candidate(bench: Bench, tmp_path: Path) -> None:
    marker = tmp_path / "in-the-middle"
    command = [sys.executable, "-m", "tests.steps.search_bench", str(tmp_path / "content"), str(marker)]
    process = subprocess.Popen(command, cwd=Path(__file__).parents[2], start_new_session=True)
    try:
        deadline = time.monotonic() + 60
        while not marker.exists() and time.monotonic() < deadline and process.poll() is None:
            time.sleep(0.05)
        assert marker.exists()
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    drivers = Drivers(Fake("first"), Fake("second"))
    outcome = bench.run(drivers)
    assert len(bench.ranked(outcome).recipes) == 2
    assert drivers.fakes["first"].compiled == [], "what was finished is found"
    assert len(drivers.fakes["second"].compiled) == 1


def test_a_full_disk_ends_the_search(bench: Bench) -> None:
    with pytest.raises(DiskFullError):
        bench.run(Drivers(Fake("first"), Fake("full", "full")))


def test_where_nothing_passes_each_candidate_is_named(bench: Bench) -> None:
    with pytest.raises(NothingPassedError) as refused:
        bench.run(Drivers(Fake("first", "wrong"), Fake("broken", "broken")))
    assert "first fp32 number=0: parity failed" in refused.value.why
    assert "broken fp32 number=0: the compiler failed: it says so" in refused.value.why
    assert refused.value.what == "none of 2 recipes for host of host passed"


def test_where_no_toolchain_builds_that_is_said(bench: Bench) -> None:
    with pytest.raises(NoCandidateError, match="no toolchain here builds for host of host") as refused:
        bench.run(Drivers())
    assert refused.value.why == "first: no such toolchain is installed here"


def test_a_backup_keeps_away_from_the_other_builds_toolchain(bench: Bench) -> None:
    other = Ranked("host", "host", (Recipe("fast", Precision.FP32, {"number": 0}),))
    drivers = Drivers(Fake("first", factor=2.0), Fake("fast"))
    outcome = bench.run(drivers, unlike=bench.store.put_bytes(documents.encode(other)))
    assert [each.toolchain for each in bench.ranked(outcome).recipes] == ["first"]
    assert drivers.fakes["fast"].compiled == []
    alone = bench.run(Drivers(Fake("fast")), replace(bench.work, avoid=("fast",)))
    assert any("shares it with another role" in note for note in bench.report(alone).notes)


@pytest.mark.long
def test_earlier_winners_start_the_next_search(bench: Bench) -> None:
    # Nothing is forecast on a machine whose peaks the profile hardly knows, so only a bound can save work: a winner of
    # the model before is tried first, and a quick search stops there sooner.
    many = Drivers(Fake("slow", factor=3.0, recipes=2), Fake("fast", recipes=2))
    many.fakes["fast"].recipes = many.fakes["fast"].recipes[::-1]
    first = bench.run(many)
    won = bench.ranked(first).recipes[0]
    next_ = Drivers(Fake("slow", factor=3.0, recipes=2), Fake("fast", recipes=2))
    again = bench.run(next_, weights=bench.another_model())
    order = [note for note in bench.report(again).notes if "contract passed" in note]
    assert order[0].startswith(f"{won.toolchain} fp32 number={won.options['number']}:")
    counts = [sum(len(fake.compiled) for fake in each.fakes.values()) for each in (many, next_)]
    assert counts[1] < counts[0], "what was measured for the model before tells which ones are hopeless"


def test_the_memory_of_winners_is_short_and_knows_each_model_once(tmp_path: Path) -> None:
    store, place = ContentStore(tmp_path), Place("chip", "gpu", "540")
    assert recall(store, place) == Memory()
    for number in range(EARLIER + 2):
        remember(store, place, Earlier(some_digest(str(number)), (Recipe("a", Precision.FP32),)))
    remember(store, place, Earlier(some_digest("3"), (Recipe("b", Precision.FP32),)))
    known = recall(store, place).searches
    assert len(known) == EARLIER
    assert known[0] == Earlier(some_digest("3"), (Recipe("b", Precision.FP32),))
    assert len({each.weights for each in known}) == EARLIER
    assert recall(store, replace(place, driver="550")) == Memory()


def test_when_the_time_is_spent_the_report_says_so(bench: Bench) -> None:
    cut = Drivers(Fake("later", recipes=3))
    report = bench.report(bench.run(cut, replace(bench.work, most_s=0.001)))
    assert len(cut.fakes["later"].compiled) == 1
    assert any("the time of 0.001 s was spent" in note for note in report.notes)


def test_other_margins_judge_anew_without_compiling(searched: Searched) -> None:
    bench, drivers = searched.bench, all_kinds()
    wide = dict.fromkeys(bench.work.rules["parity"].margins, 1e6)
    loose = replace(bench.work, rules={**bench.work.rules, "parity": Rule(Obtained.PROXY, True, wide)})
    outcome = bench.run(drivers, loose)
    assert sum(len(fake.compiled) for fake in drivers.fakes.values()) == 0
    assert "wrong" in [each.toolchain for each in bench.ranked(outcome).recipes]


def test_what_is_about_to_win_is_driven(searched: Searched, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = searched.bench
    asked: list[str] = []

    def refuse_the_fast(bench: object, main: Artifact, twin: object) -> str:
        asked.append(main.manifest.recipe.toolchain)
        return "closed_loop failed" if asked[-1] == "fast" else ""

    monkeypatch.setattr(search_world, "examine", refuse_the_fast)
    driven = {**bench.work.rules, "closed_loop": Rule(Obtained.PROXY, True, {"median_path_deviation_m": 0.4})}
    outcome = bench.run(all_kinds(), replace(bench.work, rules=driven))
    assert asked == ["fast", "first"]
    assert [each.toolchain for each in bench.ranked(outcome).recipes] == ["first"]
    rejected = next(each for each in bench.report(outcome).candidates if each.recipe.toolchain == "fast")
    assert rejected.state is CandidateState.REJECTED
    assert rejected.reason.endswith("then closed_loop failed")


def test_a_build_that_the_profile_lacks_is_refused(bench: Bench) -> None:
    with pytest.raises(PlanError, match="no build host/nosuch"):
        bench.run(all_kinds(), replace(bench.work, build="nosuch"))


def test_the_key_names_every_toolchain(bench: Bench) -> None:
    inputs, order = bench.inputs, to_plain(bench.work)
    one = bench.step(Drivers(Fake("first"))).key(order, inputs)
    assert bench.step(Drivers(Fake("first"))).key(order, inputs) == one
    assert bench.step(Drivers(Fake("first"), Fake("fast"))).key(order, inputs) != one
