"""How fast artifacts run on this machine, for a search: always beside one yardstick, interleaved with it.

The yardstick is the model as trained through onnxruntime. Two artifacts that were measured at different times, under
different loads, are compared by their ratios to it; what counts in the end is measured side by side. Measurements are
kept by payload and machine. Decides nothing.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nwmctl.compiler.search import Compared
from nwmctl.compiler.search_rank import Speed
from nwmctl.domain.digest import Digest
from nwmctl.domain.figure import Obtained
from nwmctl.domain.measurement import Latency
from nwmctl.errors import PlaceUnavailableError
from nwmctl.steps.search_judge import Bench
from nwmctl.steps.search_kept import Question, kept
from nwmctl.steps.shelf import runtimes
from nwmctl.steps.ways import Artifact, ways_of
from nwmctl.storage.content import ContentStore
from nwmctl.toolchains.measure import MeasureOrder, latency_of, measure_samples
from nwmctl.toolchains.protocol import BenchOrder, Place, Session
from nwmctl.validation.inputs import read_golden, take

ALONE_NOISE, TOGETHER_NOISE = 0.03, 0.01
"""The least by which two medians of one artifact differ, measured apart and side by side."""
_RUNS, _LARGE_RUNS = 200, 12
_BENCH_WARM_UP = 20
_YARDSTICK = "yardstick"


@dataclass(frozen=True, slots=True)
class _Asked:
    """What decides a measurement, besides the bytes that are measured."""

    runs: int
    machine: str
    names: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Timed:
    """Latencies that were taken interleaved, in the order in which they were asked for, and the yardstick's.

    ``ratios`` are the medians of each execution over the yardstick's in the same round; ``noise``: by how much that
    median may be off, as a share.
    """

    latencies: tuple[Latency, ...]
    yardstick: Latency
    ratios: tuple[float, ...] = ()
    noise: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Stopwatch:
    """Measures for one model on this machine."""

    store: ContentStore
    bench: Bench
    golden: Digest

    def alone(self, artifact: Artifact, payload: Digest) -> Compared:
        """One artifact beside the yardstick. Raises what opening and running it raises."""
        timed = self._timed("timed", {"0": (artifact, payload)}, self._runs)
        return self._compared(timed, 0, ALONE_NOISE)

    def together(self, artifacts: Mapping[str, tuple[Artifact, Digest]]) -> Mapping[str, Compared]:
        """Several side by side; the keys come back. Raises what opening and running them raises."""
        order = sorted(artifacts, key=lambda name: artifacts[name][1].hex)
        unique = {artifacts[name][1].hex: artifacts[name] for name in order}
        timed = self._timed("compared", {str(i): each for i, each in enumerate(unique.values())}, 3 * self._runs)
        places = {digest: index for index, digest in enumerate(unique)}
        return {name: self._compared(timed, places[artifacts[name][1].hex], TOGETHER_NOISE) for name in artifacts}

    def on_bench(self, artifact: Artifact, payload: Digest) -> Compared | None:
        """One artifact on a bench with the build's chip; None where none can be asked, or none tells the time.

        Raises RemoteError subclasses where the bench goes away meanwhile.
        """
        ways, _ = ways_of(self.bench.build, artifact, None)
        measure = next((way.measure for way in ways if way.obtained is Obtained.BENCH), None)
        if measure is None:
            return None
        order = BenchOrder(self._runs, _BENCH_WARM_UP, 1e3 / self.bench.card.contract.rate_hz)
        asked = _Asked(self._runs, self.bench.build.chip)
        question = Question("benched", asked, {"golden": self.golden, "payload": payload}, runtimes())
        golden = read_golden(self.bench.golden, self.bench.card.contract)
        row = take(golden.inputs, slice(0, 1))
        try:
            latency = kept(self.store, question, Latency, lambda: measure(row, order), lambda _: True)
        except PlaceUnavailableError:
            return None
        return Compared(Speed(latency.p50_ms, 1.0 + ALONE_NOISE, Obtained.BENCH), latency)

    @property
    def _runs(self) -> int:
        return _LARGE_RUNS if self.bench.large else _RUNS

    def _compared(self, timed: Timed, index: int, noise: float) -> Compared:
        """On the scale of the yardstick as it was when it was first measured."""
        reference = self._timed("timed", {}, self._runs).yardstick
        ms, factor = reference.p50_ms * timed.ratios[index], 1.0 + max(noise, timed.noise[index])
        return Compared(Speed(ms, factor, Obtained.MEASURED), timed.latencies[index])

    def _timed(self, kind: str, artifacts: Mapping[str, tuple[Artifact, Digest]], runs: int) -> Timed:
        digests = {f"payload:{name}": digest for name, (_, digest) in artifacts.items()}
        asked = _Asked(runs, machine(), tuple(artifacts))
        inputs = {"weights": self.bench.model.digest, "golden": self.golden, **digests}
        question = Question(kind, asked, inputs, runtimes())
        return kept(self.store, question, Timed, lambda: self._measure(artifacts, runs), lambda _: True)

    def _measure(self, artifacts: Mapping[str, tuple[Artifact, Digest]], runs: int) -> Timed:
        with ExitStack() as stack:
            subjects: dict[str, Session] = {_YARDSTICK: stack.enter_context(self.bench.reference())}
            for name, (artifact, _) in artifacts.items():
                subjects[name] = stack.enter_context(artifact.open(Place.HOST))
            golden = read_golden(self.bench.golden, self.bench.card.contract)
            rows = [take(golden.inputs, slice(row, row + 1)) for row in range(golden.rows)]
            order = MeasureOrder(runs, 1e3 / self.bench.card.contract.rate_hz, warm_up=2)
            load = os.getloadavg()[0]
            spent = measure_samples(subjects, rows, order)
        yardstick = spent.pop(_YARDSTICK)
        found = [_ratio(spent[name], yardstick) for name in artifacts]
        return Timed(
            tuple(latency_of(spent[name], order, load) for name in artifacts),
            latency_of(yardstick, order, load),
            tuple(ratio for ratio, _ in found),
            tuple(noise for _, noise in found),
        )


def _ratio(spent: NDArray[np.float64], yardstick: NDArray[np.float64]) -> tuple[float, float]:
    """The median ratio of two rows of executions that were taken in turn, and how far it may be off (the half-width of
    a notch around a median, as a share)."""
    ratios = spent / yardstick
    low, middle, high = (float(each) for each in np.quantile(ratios, (0.25, 0.5, 0.75)))
    noise = 1.57 * (high - low) / math.sqrt(len(ratios)) / middle
    return float(f"{middle:.6g}"), float(f"{noise:.3g}")


def machine() -> str:
    """What this machine's processor calls itself: a latency belongs to it."""
    try:
        text = Path("/proc/cpuinfo").read_text("utf-8")
    except OSError:
        return "unknown"
    lines = (line.partition(":") for line in text.splitlines())
    return next((value.strip() for name, _, value in lines if name.strip() in ("model name", "CPU part")), "unknown")
