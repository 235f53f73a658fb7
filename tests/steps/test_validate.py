"""validate alone, on the small model through the real onnxruntime; and that builds which share an artifact share what
executing it has shown."""

from __future__ import annotations

import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from nwmctl.agent.runner import resolve
from nwmctl.app.compose import build_steps
from nwmctl.domain.digest import Digest
from nwmctl.domain.evidence import Check, CheckResult, Evidence, Verdict
from nwmctl.domain.figure import Obtained
from nwmctl.domain.platform import Catalogue, PlatformProfile
from nwmctl.domain.policy import Rule
from nwmctl.domain.step import Outcome
from nwmctl.domain.work import ValidateWork
from nwmctl.errors import ContentMissingError, PlanError
from nwmctl.formats import documents
from nwmctl.formats.codec import Source, from_plain, to_plain
from nwmctl.steps import shelf, validate
from nwmctl.steps.base import Step
from nwmctl.storage.content import ContentStore
from nwmctl.toolchains.registry import registry
from nwmctl.validation import drives
from tests.steps.conftest import Road, quiet

CHECK = "validate/release/virtual/host/host"


class Bench:
    """The validate step of a walked road, its work order and inputs; counts how often an artifact is executed."""

    def __init__(self, road: Road, monkeypatch: pytest.MonkeyPatch) -> None:
        with road.session() as session:
            planned = next(step for step in session.plan() if step.id == CHECK)
            self.step: Step[ValidateWork] = build_steps(session.parts)["validate"]  # type: ignore[assignment]
        self.inputs = resolve(planned, road.outcomes)
        self.work = from_plain(ValidateWork, planned.parameters, Source("plan"))
        self.store = ContentStore(road.place.workspace / "content")
        self.executed = 0
        execute = validate.execute

        def counted(*arguments: Any) -> Any:
            self.executed += 1
            return execute(*arguments)

        monkeypatch.setattr(validate, "execute", counted)

    def run(self, work: ValidateWork | None = None, **inputs: Digest) -> Outcome:
        return self.step.run(to_plain(work or self.work), {**self.inputs, **inputs}, quiet)

    def evidence(self, outcome: Outcome) -> Evidence:
        return documents.decode(Evidence, self.store.read(outcome.outputs["evidence"]), "evidence")

    def profile(self, **change: Any) -> Digest:
        """The profile with fields changed."""
        old = documents.decode(PlatformProfile, self.store.read(self.inputs["profile"]), "profile")
        return self.store.put_bytes(documents.encode(replace(old, **change)))

    def strict(self, check: Check, **margins: float) -> ValidateWork:
        """The work order with another margin for one check."""
        table = self.work.rules.platforms["virtual"]
        rule = Rule(table[check].weakest, True, {**table[check].margins, **margins})
        rules = replace(self.work.rules, platforms={"virtual": {**table, check: rule}})
        return replace(self.work, rules=rules)


@pytest.fixture
def bench(road: Road, monkeypatch: pytest.MonkeyPatch) -> Bench:
    return Bench(road, monkeypatch)


def test_evidence_says_how_everything_was_obtained(bench: Bench) -> None:
    evidence = bench.evidence(bench.run())
    results = {result.check: result for result in evidence.results}
    assert (evidence.platform, evidence.build) == ("virtual", "host/host")
    assert evidence.artifact == bench.inputs["manifest"]
    for check in (Check.CONTRACT, Check.PARITY, Check.NEGATIVE_CONTROL):
        assert (results[check].verdict, results[check].obtained) == (Verdict.PASSED, Obtained.MEASURED)
    assert results[Check.BUDGET].obtained is Obtained.ESTIMATED
    assert all(figure.obtained for result in evidence.results for figure in result.figures)


def test_the_same_artifact_is_executed_once(bench: Bench) -> None:
    first = bench.run()
    assert bench.run() == first
    again = bench.run(profile=bench.profile(description="another text"))
    assert again.outputs == first.outputs, "a changed text is a changed profile, and no changed finding"
    assert bench.executed == 0, "the road had executed it"


def test_another_budget_is_judged_anew_without_executing_again(bench: Bench) -> None:
    old = documents.decode(PlatformProfile, bench.store.read(bench.inputs["profile"]), "profile")
    tiny = replace(old.budget, memory=replace(old.budget.memory, value=0.001))
    outcome = bench.run(profile=bench.profile(budget=tiny))
    verdicts = {result.check: result.verdict for result in bench.evidence(outcome).results}
    assert verdicts[Check.BUDGET] is Verdict.FAILED
    assert "budget failed" in outcome.concern
    assert bench.executed == 0


@pytest.mark.parametrize("change", ["rules", "seed", "golden", "chip"])
def test_what_decides_an_execution_executes_again(bench: Bench, road: Road, change: str) -> None:
    if change == "rules":
        bench.run(bench.strict(Check.PARITY, **{"steer.max_abs": 0.004}))
    elif change == "seed":
        bench.run(replace(bench.work, seed=7))
    elif change == "golden":
        # The zip of the same arrays with a comment: other bytes, the same data.
        copy = road.place.folder / "golden.npz"
        copy.write_bytes(bench.store.read(bench.inputs["golden"]))
        with zipfile.ZipFile(copy, "a") as archive:
            archive.comment = b"another"
        bench.run(golden=bench.store.put_file(copy))
    else:
        old = documents.decode(PlatformProfile, bench.store.read(bench.inputs["profile"]), "profile")
        chips = (*old.chips, replace(old.chips[0], name="other"))
        [variant] = old.variants
        build = replace(variant.builds[0], chip="other")
        bench.run(profile=bench.profile(chips=chips, variants=(replace(variant, builds=(build,)),)))
    assert bench.executed == 1


def test_commands_are_judged_for_the_vehicle_models_without_executing_again(bench: Bench) -> None:
    table = bench.work.rules.platforms["virtual"]
    rule = Rule(Obtained.MEASURED, margins={"limited_share": 0.0, "infeasible_share": 0.05})
    rules = replace(bench.work.rules, platforms={"virtual": {**table, Check.CONTROL_ENVELOPE: rule}})
    work = replace(bench.work, rules=rules)

    def judged(**inputs: Digest) -> CheckResult:
        results = bench.evidence(bench.run(work, **inputs)).results
        return next(result for result in results if result.check is Check.CONTROL_ENVELOPE)

    first = judged()
    assert (first.verdict, first.obtained) == (Verdict.PASSED, Obtained.MEASURED)
    assert any(figure.name == "limited_share.virtual-car" for figure in first.figures)
    before = bench.executed
    old = documents.decode(Catalogue, bench.store.read(bench.inputs["catalogue"]), "catalogue")
    weak = tuple(
        replace(
            each, chassis=replace(each.chassis, max_deceleration=replace(each.chassis.max_deceleration, value=0.01))
        )
        for each in old.vehicles
    )
    second = judged(catalogue=bench.store.put_bytes(documents.encode(Catalogue(weak))))
    assert second.verdict is Verdict.FAILED
    assert "limited_share is" in second.summary
    assert bench.executed == before, "another chassis is judged anew, and the artifact is not executed for it"


def test_a_failed_check_becomes_a_concern_that_names_it(bench: Bench) -> None:
    outcome = bench.run(bench.strict(Check.PARITY, **{"steer.max_abs": 1e-12, "acceleration.max_abs": 1e-12}))
    assert "parity failed (measured)" in outcome.concern
    assert outcome.summary["failed"] == 1


def test_damaged_shared_results_are_executed_again(bench: Bench) -> None:
    first = bench.run()
    objects = bench.store.path(bench.inputs["golden"]).parents[1]
    shared = [path for path in objects.rglob("*") if path.is_file() and b'"results":[{"check"' in path.read_bytes()]
    shared = [path for path in shared if b"nwmctl.evidence" not in path.read_bytes()]
    assert shared
    for path in shared:
        path.unlink()
    bench.store = ContentStore(objects.parent)
    assert bench.run().outputs == first.outputs
    assert bench.executed == 1


def test_a_build_that_the_profile_lacks_is_refused(bench: Bench) -> None:
    with pytest.raises(PlanError, match="no build host/nosuch"):
        bench.run(replace(bench.work, build="nosuch"))


def test_the_key_names_the_runtimes(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    before = bench.step.key(to_plain(bench.work), bench.inputs)
    monkeypatch.setattr(shelf, "runtime_fingerprint", lambda: "another machine")
    assert bench.step.key(to_plain(bench.work), bench.inputs) != before


def test_an_artifact_that_is_gone_is_an_error_and_no_evidence(bench: Bench) -> None:
    bench.store.path(bench.inputs["payload"]).unlink()
    with pytest.raises(ContentMissingError):
        bench.run(replace(bench.work, seed=9))


def test_what_is_about_the_models_alone_executes_no_artifact_again(bench: Bench) -> None:
    bench.run(replace(bench.work, more_pairs=1))
    bench.run(replace(bench.work, amounts=replace(bench.work.amounts, pairs=500)))
    assert bench.executed == 0
    bench.run(replace(bench.work, more_scenarios=1))
    assert bench.executed == 1


def test_the_model_is_compared_with_the_released_one_by_drives_that_are_kept(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = bench.work.rules.platforms["virtual"]
    rule = Rule(Obtained.PROXY, True, {"crash_rate_increase": 1.0})
    rules = replace(bench.work.rules, platforms={"virtual": {**table, Check.NON_INFERIORITY: rule}})
    work = replace(bench.work, rules=rules, amounts=replace(bench.work.amounts, pairs=10))
    [first] = [r for r in bench.evidence(bench.run(work)).results if r.check is Check.NON_INFERIORITY]
    assert first.obtained is Obtained.PROXY
    assert next(figure.value for figure in first.figures if figure.name == "pairs") == 10
    # Another process, which has nothing but the store.
    monkeypatch.setattr(drives.episode, "run", _nobody_drives)
    again = validate.validate_step(bench.store, registry()).run(to_plain(work), bench.inputs, quiet)
    assert [r for r in bench.evidence(again).results if r.check is Check.NON_INFERIORITY] == [first]


def _nobody_drives(*arguments: Any) -> Any:
    raise AssertionError("these drives were kept")


def test_weights_outside_of_the_graph_are_checked_like_any_others(bench: Bench, tmp_path: Path) -> None:
    import onnx

    graph = onnx.load_model_from_string(bench.store.read(bench.inputs["weights"]))
    onnx.save_model(
        graph, str(tmp_path / "m.onnx"), save_as_external_data=True, location="far.bin", size_threshold=1024
    )
    outside = {
        "weights": bench.store.put_file(tmp_path / "m.onnx"),
        "weights_data": bench.store.put_file(tmp_path / "far.bin"),
    }
    assert shelf.trained(bench.store, {**bench.inputs, **outside}).digest not in (
        *outside.values(),
        bench.inputs["weights"],
    )
    released = {f"released_{name}": digest for name, digest in outside.items()}
    inside = {result.check: result for result in bench.evidence(bench.run()).results}
    found = {result.check: result for result in bench.evidence(bench.run(**outside, **released)).results}
    assert bench.executed == 1
    assert found[Check.PARITY].verdict is Verdict.PASSED
    assert found[Check.PARITY].figures == inside[Check.PARITY].figures
    assert found[Check.BUDGET].figures == inside[Check.BUDGET].figures
