"""How fast artifacts run on this machine, for a search: always beside one yardstick, interleaved with it.

The yardstick is the model as trained through onnxruntime. Two artifacts that were measured at different times, under
different loads, are compared by their ratios to it; what counts in the end is measured side by side. Measurements are
kept by payload and machine. Decides nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from nwmctl.compiler.search import Compared
from nwmctl.compiler.search_rank import Speed
from nwmctl.domain.clock import Clock
from nwmctl.domain.digest import Digest
from nwmctl.domain.figure import Obtained
from nwmctl.domain.measurement import Latency
from nwmctl.errors import PlaceUnavailableError
from nwmctl.steps.search_judge import Bench
from nwmctl.steps.search_kept import Question, kept
from nwmctl.steps.shelf import runtimes
from nwmctl.steps.ways import Artifact, ways_of
from nwmctl.storage.content import ContentStore
from nwmctl.toolchains.protocol import BenchOrder, Place, Session
from nwmctl.validation.inputs import read_golden, take

ALONE_NOISE, TOGETHER_NOISE = 1.08, 1.02
"""By how much two medians of one artifact differ, measured apart and side by side."""
_RUNS, _LARGE_RUNS = 200, 24
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
    """Latencies that were taken interleaved, in the order in which they were asked for, and the yardstick's."""

    latencies: tuple[Latency, ...]
    yardstick: Latency


@dataclass(frozen=True, slots=True)
class Stopwatch:
    """Measures for one model on this machine."""

    store: ContentStore
    bench: Bench
    golden: Digest
    clock: Clock

    def alone(self, artifact: Artifact, payload: Digest) -> Compared:
        """One artifact beside the yardstick. Raises what opening and running it raises."""
        timed = self._timed("timed", {"0": (artifact, payload)}, self._runs)
        return self._compared(timed, 0, ALONE_NOISE)

    def together(self, artifacts: Mapping[str, tuple[Artifact, Digest]]) -> Mapping[str, Compared]:
        """Several side by side; the keys come back. Raises what opening and running them raises."""
        order = sorted(artifacts, key=lambda name: artifacts[name][1].hex)
        unique = {artifacts[name][1].hex: artifacts[name] for name in order}
        timed = self._timed("compared", {str(i): each for i, each in enumerate(unique.values())}, 2 * self._runs)
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
        return Compared(Speed(latency.p50_ms, ALONE_NOISE, Obtained.BENCH), latency)

    @property
    def _runs(self) -> int:
        return _LARGE_RUNS if self.bench.large else _RUNS

    def _compared(self, timed: Timed, index: int, noise: float) -> Compared:
        """On the scale of the yardstick as it was when it was first measured."""
        latency = timed.latencies[index]
        reference = self._timed("timed", {}, self._runs).yardstick
        return Compared(
            Speed(reference.p50_ms * latency.p50_ms / timed.yardstick.p50_ms, noise, Obtained.MEASURED), latency
        )

    def _timed(self, kind: str, artifacts: Mapping[str, tuple[Artifact, Digest]], runs: int) -> Timed:
        digests = {f"payload:{name}": digest for name, (_, digest) in artifacts.items()}
        asked = _Asked(runs, machine(), tuple(artifacts))
        inputs = {"weights": self.bench.weights_digest, "golden": self.golden, **digests}
        question = Question(kind, asked, inputs, runtimes())
        return kept(self.store, question, Timed, lambda: self._measure(artifacts, runs), lambda _: True)

    def _measure(self, artifacts: Mapping[str, tuple[Artifact, Digest]], runs: int) -> Timed:
        with ExitStack() as stack:
            subjects: dict[str, Session] = {_YARDSTICK: stack.enter_context(self.bench.reference())}
            for name, (artifact, _) in artifacts.items():
                subjects[name] = stack.enter_context(artifact.open(Place.HOST))
            golden = read_golden(self.bench.golden, self.bench.card.contract)
            rows = [take(golden.inputs, slice(row, row + 1)) for row in range(golden.rows)]
            found = measure(subjects, rows, runs, self.bench.card.contract.rate_hz, self.clock)
        return Timed(tuple(found[name] for name in artifacts), found[_YARDSTICK])


def machine() -> str:
    """What this machine's processor calls itself: a latency belongs to it."""
    try:
        text = Path("/proc/cpuinfo").read_text("utf-8")
    except OSError:
        return "unknown"
    lines = (line.partition(":") for line in text.splitlines())
    return next((value.strip() for name, _, value in lines if name.strip() in ("model name", "CPU part")), "unknown")


def measure(
    subjects: Mapping[str, Session], rows: list[dict], runs: int, rate_hz: float, clock: Clock
) -> dict[str, Latency]:
    """TEMPORARY."""
    import os

    import numpy as np

    spent: dict[str, list[float]] = {name: [] for name in subjects}
    for turn in range(-3, runs):
        for name, session in subjects.items():
            begun = clock.monotonic()
            session.run(rows[turn % len(rows)])
            took = session.seconds[0] if session.seconds else clock.monotonic() - begun
            if turn >= 0:
                spent[name].append(1e3 * took)
    made = {}
    for name, values in spent.items():
        p50, p99, p999 = (float(x) for x in np.percentile(values, (50, 99, 99.9)))
        d = 1e3 / rate_hz
        made[name] = Latency(
            len(values),
            p50,
            p99,
            p999,
            max(values),
            sum(v > d for v in values),
            d,
            "none",
            os.getloadavg()[0],
            Obtained.MEASURED,
        )
    return made
