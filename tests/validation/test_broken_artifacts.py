"""Every broken artifact is caught by the check that should catch it, and the clean one passes all of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from nwmctl.domain.digest import digest_bytes
from nwmctl.domain.evidence import Check, CheckResult, Evidence, Verdict
from nwmctl.domain.figure import Obtained
from nwmctl.domain.policy import judge
from nwmctl.errors import ToolchainError
from nwmctl.formats import documents
from nwmctl.toolchains.protocol import Tensors
from nwmctl.validation.suite import Pace, Settings, validate_artifact
from tests.validation import plant

SETTINGS = Settings(plant.RULES, seed=3, scenarios=30, row_scenarios=30, random_inputs=16)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("plant")


def validate(folder: Path, build: Callable[[], plant.Drive], **ways: object) -> dict[Check, CheckResult]:
    results = validate_artifact(plant.subject(folder, build, **ways), SETTINGS, lambda what, share: None)  # type: ignore[arg-type]
    return {result.check: result for result in results}


def raising(problem: Exception) -> Callable[[], plant.Drive]:
    def build() -> plant.Drive:
        def broken(seen: Mapping[str, NDArray[np.generic]]) -> Tensors:
            raise problem

        return broken

    return build


def without(name: str) -> plant.Drive:
    return lambda seen: {key: values for key, values in plant.drive(seen).items() if key != name}


def wrong_shape(seen: Mapping[str, NDArray[np.generic]]) -> Tensors:
    out = plant.drive(seen)
    return {**out, "control": out["control"][:, :5]}


def constant(seen: Mapping[str, NDArray[np.generic]]) -> Tensors:
    out = plant.drive(seen)
    return {name: np.full_like(values, 0.1) for name, values in out.items()}


def too_strong(seen: Mapping[str, NDArray[np.generic]]) -> Tensors:
    out = plant.drive(seen)
    return {**out, "control": (out["control"] * 1.2).astype(np.float32)}


CRASH = ToolchainError("the runtime ended with signal 11", why="segmentation fault", next="read its log")

BROKEN: dict[str, tuple[Callable[[], plant.Drive], set[Check]]] = {
    "nan on rare input": (plant.nan_on_rare_input, {Check.CONTRACT}),
    "wrong shape": (lambda: wrong_shape, {Check.CONTRACT, Check.PARITY, Check.NEGATIVE_CONTROL, Check.CLOSED_LOOP}),
    "output missing": (lambda: without("outlook"), {Check.CONTRACT}),
    "steer sign swapped": (plant.scaled(-1.0, 1.0), {Check.PARITY, Check.CLOSED_LOOP}),
    "steer gain 0.8": (plant.scaled(0.8, 1.0), {Check.PARITY}),
    "brake gain 0.7": (
        plant.on_control(lambda c: np.where((c < 0) & (np.arange(2) == 1), c * 0.7, c).astype(np.float32)),
        {Check.PARITY},
    ),
    "steer bias 0.01 rad": (plant.on_control(lambda c: c + np.array([0.01, 0.0], np.float32)), {Check.PARITY}),
    "constant output": (lambda: constant, {Check.NEGATIVE_CONTROL, Check.PARITY, Check.CLOSED_LOOP}),
    "one step late": (plant.delayed, {Check.PARITY, Check.NEGATIVE_CONTROL, Check.CLOSED_LOOP}),
    "km/h fed as m/s": (plant.kilometres_per_hour, {Check.PARITY, Check.CLOSED_LOOP}),
    "beyond the limits": (lambda: too_strong, {Check.CONTRACT, Check.PARITY}),
    "crashes": (raising(CRASH), {Check.CONTRACT, Check.PARITY, Check.NEGATIVE_CONTROL, Check.CLOSED_LOOP}),
    "raises something foreign": (raising(KeyError("x")), {Check.CONTRACT, Check.PARITY, Check.CLOSED_LOOP}),
}


@pytest.mark.parametrize("name", BROKEN)
def test_is_caught(name: str, folder: Path) -> None:
    build, by = BROKEN[name]
    found = validate(folder, build)
    failed = {check for check, result in found.items() if result.verdict is Verdict.FAILED}
    assert by <= failed, {str(check): result.summary for check, result in found.items()}
    assert all(found[check].summary and found[check].figures is not None for check in failed)


def test_the_clean_half_precision_artifact_passes(folder: Path) -> None:
    found = validate(folder, plant.half_precision)
    not_passed = {str(c): r.summary for c, r in found.items() if r.verdict is not Verdict.PASSED}
    assert set(not_passed) == {"latency", "trap_suite", "non_inferiority"}, "which the plant's policy does not ask for"
    assert found[Check.LATENCY].verdict is Verdict.NOT_RUN
    assert "no chip within reach" in found[Check.LATENCY].summary
    assert "bench that carries chip" in found[Check.LATENCY].next


def test_the_clean_artifact_satisfies_the_policy_and_a_broken_one_does_not(folder: Path) -> None:
    def pack(build: Callable[[], plant.Drive]) -> Evidence:
        results = tuple(validate(folder, build).values())
        return Evidence(digest_bytes(b"m"), digest_bytes(b"a"), "nt2.0", "main", results)

    assert judge(plant.RULES, [pack(plant.half_precision)]) == ()
    assert Check.PARITY in {s.check for s in judge(plant.RULES, [pack(plant.scaled(0.8, 1.0))])}


def test_evidence_has_the_same_bytes_twice_and_row_by_row(folder: Path) -> None:
    def pack() -> bytes:
        results = tuple(validate(folder, plant.half_precision, pace=Pace.ROWS).values())
        return documents.encode(Evidence(digest_bytes(b"m"), digest_bytes(b"a"), "nt2.0", "main", results))

    assert pack() == pack()


def test_an_emulated_way_gets_a_few_rows_and_no_closed_loop(folder: Path) -> None:
    found = validate(folder, plant.half_precision, obtained=Obtained.EMULATED, pace=Pace.CRAWL)
    assert found[Check.PARITY].obtained is Obtained.EMULATED
    assert found[Check.PARITY].verdict is Verdict.PASSED
    assert f"{SETTINGS.crawl_rows} golden rows" in found[Check.PARITY].summary
    assert found[Check.CLOSED_LOOP].verdict is Verdict.NOT_RUN
    assert "too slow" in found[Check.CLOSED_LOOP].summary


def test_a_crashed_artifact_is_asked_once_and_its_reason_is_everywhere(folder: Path) -> None:
    calls = 0

    def build() -> plant.Drive:
        def broken(seen: Mapping[str, NDArray[np.generic]]) -> Tensors:
            nonlocal calls
            calls += 1
            raise CRASH

        return broken

    found = validate(folder, build)
    assert calls == 1
    for check in (Check.CONTRACT, Check.PARITY, Check.NEGATIVE_CONTROL, Check.CLOSED_LOOP):
        assert "signal 11" in found[check].summary
        assert "segmentation fault" in found[check].summary
