"""What executions take: several artifacts side by side, interleaved, so that none meets a quieter machine.

Every subject is a session with a process of its own; its own worker tells the time around the runtime's calls, so the
pipe between us is in no figure. Rounds go over all subjects, each time from another one on; in a round each subject
executes a few times, and the first of these does not count, because another subject has just emptied the caches. What
runs beside them on purpose (the co-load) is really started and really ended; how loaded the machine was before that is
told with the figures. Judges nothing.
"""

from __future__ import annotations

import contextlib
import os
import re
import select
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nwmctl.domain.clock import Clock, Sleep
from nwmctl.domain.figure import Obtained
from nwmctl.domain.measurement import NO_CO_LOAD, Latency
from nwmctl.errors import CoLoadError, PlaceUnavailableError, RuntimeFailedError
from nwmctl.toolchains.process import Command, Limits, MemoryLimit, own_path, python_module, start
from nwmctl.toolchains.protocol import Session

_STREAMS = re.compile(r"stream:([1-9]\d?)\Z")
_READY_S = 30.0


@dataclass(frozen=True, slots=True)
class MeasureOrder:
    """``runs`` executions of each subject count. ``deadline_ms`` is one period of the model's rate.

    ``warm_up`` executions of each come before; ``block`` of each follow one another in a round, beside the one that
    does not count. ``pacing``: executions start one period apart, as in the vehicle, and not one right after the other.
    ``co_load`` is ``none`` or ``stream:N``: N processes that stream memory.
    """

    runs: int
    deadline_ms: float
    warm_up: int = 5
    block: int = 4
    pacing: bool = False
    co_load: str = NO_CO_LOAD
    obtained: Obtained = Obtained.MEASURED

    def __post_init__(self) -> None:
        if self.runs < 1 or self.block < 1 or self.warm_up < 0 or self.deadline_ms <= 0:
            raise ValueError("runs, block and deadline are positive")


def measure(
    subjects: Mapping[str, Session],
    inputs: Sequence[Mapping[str, NDArray[np.generic]]],
    order: MeasureOrder,
    pace: tuple[Clock, Sleep] | None = None,
) -> dict[str, Latency]:
    """Latencies of all subjects at batch 1, over single rows of input in turn. ``pace`` is needed for pacing.

    Raises CoLoadError where the co-load cannot be had, PlaceUnavailableError for a subject that cannot tell what an
    execution takes, ValueError for pacing without a clock, and what ``Session.run`` raises.
    """
    return {name: latency_of(seconds, order, load) for name, (seconds, load) in _samples(subjects, inputs, order, pace)}


def measure_samples(
    subjects: Mapping[str, Session],
    inputs: Sequence[Mapping[str, NDArray[np.generic]]],
    order: MeasureOrder,
    pace: tuple[Clock, Sleep] | None = None,
) -> dict[str, NDArray[np.float64]]:
    """As ``measure``, but every single execution, in s and in the order of the rounds: sample n of all subjects met
    about the same machine."""
    return {name: np.array(seconds) for name, (seconds, _) in _samples(subjects, inputs, order, pace)}


def latency_of(seconds: Sequence[float] | NDArray[np.float64], order: MeasureOrder, load: float) -> Latency:
    """The figures of a subject's executions, given in s."""
    spent = np.asarray(seconds, np.float64) * 1e3
    p50, p99, p999 = (float(np.percentile(spent, share)) for share in (50.0, 99.0, 99.9))
    misses = int((spent > order.deadline_ms).sum())
    most = float(spent.max())
    return Latency(len(spent), p50, p99, p999, most, misses, order.deadline_ms, order.co_load, load, order.obtained)


def _samples(
    subjects: Mapping[str, Session],
    inputs: Sequence[Mapping[str, NDArray[np.generic]]],
    order: MeasureOrder,
    pace: tuple[Clock, Sleep] | None,
) -> list[tuple[str, tuple[list[float], float]]]:
    if order.pacing and pace is None:
        raise ValueError("pacing needs a clock and a way to sleep")
    wait = _Metronome(order.deadline_ms * 1e-3, *pace).wait if order.pacing and pace else _at_once
    load = os.getloadavg()[0]
    names, spent = list(subjects), {name: list[float]() for name in subjects}
    with co_load(order.co_load):
        for name in names:
            for turn in range(order.warm_up):
                _once(name, subjects[name], inputs[turn % len(inputs)])
        for turn in range(-(-order.runs // order.block)):
            count = min(order.block, order.runs - turn * order.block)
            for index in range(len(names)):
                name = names[(turn + index) % len(names)]
                for step in range(count + 1):
                    wait()
                    took = _once(name, subjects[name], inputs[(turn * order.block + step) % len(inputs)])
                    if step:
                        spent[name].append(took)
    return [(name, (seconds, load)) for name, seconds in spent.items()]


def _once(name: str, session: Session, row: Mapping[str, NDArray[np.generic]]) -> float:
    session.run(row)
    seconds = session.seconds
    if not seconds:
        raise PlaceUnavailableError(
            f"it cannot be told what an execution of '{name}' takes",
            why="what executes it (an emulator, a program of its own per row) says nothing about its time",
            next="measure where the artifact's runtime executes it",
        )
    if len(seconds) != 1 or seconds[0] <= 0.0:
        raise RuntimeFailedError(
            f"'{name}' tells no time for one execution",
            why=f"it answered one row and told {len(seconds)} times: {', '.join(f'{each:g}' for each in seconds[:4])}",
            next="give one row of input, and check the runtime's session",
        )
    return seconds[0]


class _Metronome:
    """Waits for the next beat. A beat that was missed is not made up for: the next one starts from now."""

    def __init__(self, period: float, clock: Clock, sleep: Sleep) -> None:
        self._period, self._clock, self._sleep = period, clock, sleep
        self._next = clock.monotonic()

    def wait(self) -> None:
        left = self._next - self._clock.monotonic()
        if left > 0.0:
            self._sleep(left)
        self._next = max(self._next, self._clock.monotonic()) + self._period


def _at_once() -> None:
    return


def streams_of(word: str) -> int:
    """How many streaming processes a co-load means. Raises CoLoadError for another word."""
    found = _STREAMS.match(word)
    if word != NO_CO_LOAD and found is None:
        raise CoLoadError(
            f"the co-load '{word}' is unknown",
            why=f"known are '{NO_CO_LOAD}' and 'stream:N', N processes (1 to 99) that stream memory",
            next="write one of these",
        )
    return int(found.group(1)) if found else 0


@contextlib.contextmanager
def co_load(word: str, ready_s: float = _READY_S) -> Iterator[None]:
    """What is declared to run beside, while the block is executed. Raises CoLoadError where it does not start, or has
    ended before the block did."""
    with contextlib.ExitStack() as stack:
        alive = [stack.enter_context(_stream(ready_s)) for _ in range(streams_of(word))]
        yield
        if not all(lives() for lives in alive):
            raise CoLoadError(
                f"the co-load '{word}' ended by itself",
                why="a process that streams memory is gone, so the figures are not those of this co-load",
                next="free memory on this machine and measure again",
            )


@contextlib.contextmanager
def _stream(ready_s: float) -> Iterator[Callable[[], bool]]:
    with tempfile.TemporaryDirectory(prefix="nwmctl-stream-") as folder:
        command = Command(
            "the co-load",
            python_module("nwmctl.toolchains.streaming"),
            Path(folder),
            Limits(memory=MemoryLimit.DATA, memory_bytes=2 << 30),
            own_path(),
        )
        running = start(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        try:
            said = running.process.stdout
            assert said is not None
            with said:
                ready, _, _ = select.select([said], [], [], ready_s)
                if not ready or not said.readline():
                    raise CoLoadError(
                        "the co-load does not start",
                        why=f"a process that streams memory said nothing within {ready_s:g} s, or ended",
                        next="free memory on this machine and measure again",
                    )
            yield lambda: running.process.poll() is None
        finally:
            running.end()
