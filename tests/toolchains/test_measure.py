"""Measuring: who executes when, what counts, and that a co-load is really there and really gone."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from nwmctl.domain.artifact import Port
from nwmctl.errors import CoLoadError, PlaceUnavailableError, RuntimeFailedError
from nwmctl.toolchains import onnxruntime
from nwmctl.toolchains.measure import MeasureOrder, co_load, latency_of, measure, measure_samples
from nwmctl.toolchains.protocol import Tensors
from tests.toolchains.models import inputs

ROWS = [{"x": np.full((1, 1), float(n), np.float32)} for n in range(3)]


class Told:
    """A session that takes as long as it is told to say, and notes who was asked and with what."""

    def __init__(self, name: str, asked: list[tuple[str, float]], seconds: tuple[float, ...] = (0.002,)) -> None:
        self.name, self.asked, self.told = name, asked, seconds

    def run(self, inputs: Mapping[str, NDArray[np.generic]]) -> Tensors:
        self.asked.append((self.name, float(inputs["x"][0, 0])))
        return {}

    @property
    def seconds(self) -> tuple[float, ...]:
        return self.told

    def close(self) -> None: ...

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class Beats:
    """A clock that only sleeping moves."""

    def __init__(self) -> None:
        self.now, self.slept = 0.0, list[float]()

    def now_us(self) -> int:
        return 0

    def monotonic(self) -> float:
        return self.now

    def __call__(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


def test_all_subjects_take_turns_and_the_first_of_each_turn_does_not_count() -> None:
    asked: list[tuple[str, float]] = []
    subjects = {"a": Told("a", asked), "b": Told("b", asked)}
    found = measure(subjects, ROWS, MeasureOrder(6, 1.0, warm_up=2, block=2))
    assert [name for name, _ in asked[:4]] == ["a", "a", "b", "b"]
    assert "".join(name for name, _ in asked[4:]) == "aaabbb" + "bbbaaa" + "aaabbb"
    assert {row for _, row in asked} == {0.0, 1.0, 2.0}
    assert found["a"].n == found["b"].n == 6
    assert found["a"].p50_ms == found["a"].most_ms == 2.0


def test_what_is_longer_than_the_period_is_a_miss() -> None:
    found = latency_of([0.001] * 97 + [0.01, 0.02, 0.03], MeasureOrder(100, 10.0), 0.5)
    assert (found.n, found.misses, found.deadline_ms, found.load) == (100, 2, 10.0, 0.5)
    assert found.p50_ms == pytest.approx(1.0)
    assert found.most_ms == pytest.approx(30.0)


@given(st.lists(st.floats(1e-6, 10.0), min_size=1, max_size=60))
def test_percentiles_rise_and_lie_within(seconds: list[float]) -> None:
    found = latency_of(seconds, MeasureOrder(1, 5.0), 0.0)
    assert min(seconds) * 999.99 <= found.p50_ms <= found.p99_ms <= found.p999_ms <= found.most_ms
    assert found.misses == sum(each * 1e3 > 5.0 for each in seconds)


def test_paced_executions_start_one_period_apart() -> None:
    beats, asked = Beats(), list[tuple[str, float]]()
    measure({"a": Told("a", asked)}, ROWS, MeasureOrder(3, 100.0, warm_up=0, block=3, pacing=True), (beats, beats))
    assert beats.slept == pytest.approx([0.1, 0.1, 0.1])
    with pytest.raises(ValueError, match="clock"):
        measure({"a": Told("a", asked)}, ROWS, MeasureOrder(3, 100.0, pacing=True))


@pytest.mark.parametrize(
    ("seconds", "kind"),
    [((), PlaceUnavailableError), ((0.1, 0.1), RuntimeFailedError), ((0.0,), RuntimeFailedError)],
)
def test_a_subject_that_tells_no_time_is_refused(seconds: tuple[float, ...], kind: type[Exception]) -> None:
    with pytest.raises(kind, match="'mute'"):
        measure({"mute": Told("mute", [], seconds)}, ROWS, MeasureOrder(3, 1.0))


@pytest.mark.parametrize("word", ["stream", "stream:0", "stream:x", "stream:100", "video", ""])
def test_an_unknown_co_load_is_refused_before_anything_runs(word: str) -> None:
    asked: list[tuple[str, float]] = []
    with pytest.raises(CoLoadError, match="unknown"):
        measure({"a": Told("a", asked)}, ROWS, MeasureOrder(3, 1.0, co_load=word))
    assert not asked


def streaming() -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0") if entry.name.isdigit() else []
        except OSError:
            continue
        if b"nwmctl.toolchains.streaming" in words and not any(word.endswith(b"supervise.py") for word in words):
            found.append(int(entry.name))
    return found


def test_a_co_load_runs_while_it_is_declared_and_not_after() -> None:
    before = set(streaming())
    with co_load("stream:2"):
        mine = set(streaming()) - before
        assert len(mine) >= 2
    assert not mine & set(streaming())
    with pytest.raises(ZeroDivisionError), co_load("stream:1"):
        raise ZeroDivisionError
    assert not (set(streaming()) - before)


def test_a_co_load_that_dies_spoils_the_measurement() -> None:
    before = set(streaming())

    def kill() -> None:
        with co_load("stream:1"):
            for pid in set(streaming()) - before:
                os.kill(pid, 9)
            time.sleep(1.0)  # its supervisor notices within a moment

    with pytest.raises(CoLoadError, match="ended by itself"):
        kill()


def test_a_real_runtime_tells_its_time(model: Path) -> None:
    ports = (Port("tokens", "float32", ("B", 16, 32)), Port("gain", "float32", ("B", 1)))
    outputs = (Port("features", "float32", ("B", 16, 32)), Port("level", "float32", ("B", 1)))
    with onnxruntime.open_model(model, ports, outputs) as session:
        assert session.seconds == ()
        found = measure_samples({"it": session}, [inputs(1)], MeasureOrder(7, 100.0))["it"]
        assert len(found) == 7
        assert (found > 0).all()
        assert (found < 1.0).all()
        session.run(inputs(5))
        assert len(session.seconds) == 1, "a batch is one execution"
