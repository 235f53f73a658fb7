"""The seam to compilers and runtimes: probe, compile, open.

A driver turns a model file and a recipe into a payload and a manifest that tells what was found in the payload. It
never judges. Compilers and runtimes run as processes of their own with limits, because they hang, crash, and print
errors while they exit 0. Adding a toolchain is one file that implements ``Toolchain`` plus one line in ``registry``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from nwmctl.domain.artifact import ArtifactManifest, Precision, Quantisation, Recipe
from nwmctl.domain.digest import Digest
from nwmctl.domain.measurement import NO_CO_LOAD, Latency
from nwmctl.domain.search import Effort as Effort
from nwmctl.toolchains.lowering import GraphFiles
from nwmctl.toolchains.process import Limits

Tensors = dict[str, NDArray[np.generic]]
"""Tensors by contract name, batch first."""


@dataclass(frozen=True, slots=True)
class Capability:
    """A number format that a toolchain builds for one unit. ``mixed``: its int8 recipes take ``keep``."""

    unit: str
    precision: Precision
    quantisations: tuple[Quantisation, ...] = ()
    mixed: bool = False


@dataclass(frozen=True, slots=True)
class Probe:
    """Whether a toolchain works on this machine. ``install`` says what to type if it does not."""

    name: str
    available: bool
    version: str
    detail: str
    install: str = ""
    capabilities: tuple[Capability, ...] = ()


@dataclass(frozen=True, slots=True)
class CompileRequest:
    """What to compile. ``model`` is an ONNX file with a symbolic batch; artifacts for vehicles are built at batch 1.

    ``unit`` is the part of the chip (gpu, cpu, npu, host); ``driver`` the GPU driver version of the fleet's baseline;
    ``scratch`` an empty folder of the caller's, which also cleans it up. Seconds, bytes of memory and bytes in
    ``scratch`` limit each process that the driver starts (``limits``).
    """

    model: Path
    model_digest: Digest
    recipe: Recipe
    unit: str
    driver: str
    scratch: Path
    timeout_s: float = 600.0
    memory_bytes: int = 8 << 30
    scratch_bytes: int = 32 << 30
    data: Path | None = None
    """The model's external data file, where its package has one."""
    calibration: Path | None = None

    @property
    def files(self) -> GraphFiles:
        """What the lowering reads."""
        return GraphFiles(self.model, self.data, self.calibration)

    @property
    def limits(self) -> Limits:
        """Of each process of a compiler."""
        return Limits(self.timeout_s, self.memory_bytes, scratch_bytes=self.scratch_bytes)


@dataclass(frozen=True, slots=True)
class Compiled:
    """A payload file in the scratch folder and its manifest. ``twin`` is the *host twin*: the same lowered graph
    compiled for this machine, so that its numerics can be seen here; None where a driver cannot build one."""

    payload: Path
    manifest: ArtifactManifest
    twin: Compiled | None = None


class Place(StrEnum):
    """Where an artifact executes."""

    HOST = "host"
    EMULATED = "emulated"


class Session(Protocol):
    """A loaded artifact in a process of its own. Use as a context manager; ``close`` ends the process."""

    def run(self, inputs: Mapping[str, NDArray[np.generic]]) -> Tensors:
        """Outputs by contract name. Raises ToolchainError if the process fails, hangs or crashes.

        Any batch size is accepted; a session of a batch-1 artifact runs the rows one after the other.
        """
        ...

    @property
    def seconds(self) -> tuple[float, ...]:
        """What the last ``run`` took inside the runtime, in s: one number per execution (per row where rows go one by
        one, else one for the batch). Empty where that cannot be told."""
        ...

    def close(self) -> None:
        """End the process. May be called twice."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class Toolchain(Protocol):
    """One driver."""

    @property
    def name(self) -> str:
        """As recipes name it."""
        ...

    def probe(self) -> Probe:
        """Whether it works here. Never raises, takes well under a second."""
        ...

    def fingerprint(self, recipe: Recipe) -> str:
        """Everything of this machine's toolchain that decides the payload's bytes (versions, template digest)."""
        ...

    def variations(self, unit: str, instruction_sets: tuple[str, ...], effort: Effort) -> tuple[Recipe, ...]:
        """Recipes worth trying for a unit of a chip with these instruction sets, the most promising first; none where
        this toolchain does not build for it. None says ``keep``: mixing precisions is the search's work."""
        ...

    def compile(self, request: CompileRequest) -> Compiled:
        """Build the payload, reproducibly. Raises ToolchainError subclasses."""
        ...

    def places(self, manifest: ArtifactManifest) -> Mapping[Place, str]:
        """Where this artifact can execute here; for each impossible place the reason, for a possible one ''."""
        ...

    def open(self, payload: Path, manifest: ArtifactManifest, place: Place, timeout_s: float = 60.0) -> Session:
        """Load a payload. Raises MissingError subclasses where the place is not available."""
        ...


@dataclass(frozen=True, slots=True)
class Reach:
    """Whether hardware elsewhere can be used now: ``reason`` is empty if so, else ``next`` says what helps. ``quick``:
    one row takes it well under a second."""

    reason: str
    next: str = ""
    quick: bool = False


@dataclass(frozen=True, slots=True)
class BenchOrder:
    """``runs`` executions after ``warm_up`` others, at batch 1, within ``timeout_s``. ``deadline_ms`` is one period of
    the model's rate; ``co_load`` is ``none`` or ``stream:N``."""

    runs: int
    warm_up: int
    deadline_ms: float
    co_load: str = NO_CO_LOAD
    timeout_s: float = 600.0


@runtime_checkable
class WithBench(Protocol):
    """What a driver offers besides ``Toolchain`` if it reaches hardware elsewhere, over SSH."""

    def bench(self, manifest: ArtifactManifest, chip: str) -> Reach:
        """Whether a bench that carries this chip, and says so itself when it is asked, can execute the artifact.

        Raises RemoteError subclasses where a known bench does not answer, HostKeyError where another one does.
        """
        ...

    def open_bench(self, payload: Path, manifest: ArtifactManifest, chip: str, timeout_s: float = 60.0) -> Session:
        """Load a payload there. Raises PlaceUnavailableError where ``bench`` gives a reason, and as ``bench``."""
        ...

    def measure_on_bench(
        self,
        payload: Path,
        manifest: ArtifactManifest,
        chip: str,
        inputs: Mapping[str, NDArray[np.generic]],
        order: BenchOrder,
    ) -> Latency:
        """What executions of one row of ``inputs`` take there, as programs there say. Raises as ``open_bench``, and
        PlaceUnavailableError where nothing there tells it."""
        ...
