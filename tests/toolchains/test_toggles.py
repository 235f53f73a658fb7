"""The graph with switches against what it stands for: the int8 graphs of the lowering, executed for real."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from nwmctl.domain.artifact import Port, Precision, Quantisation
from nwmctl.toolchains.lowering import GraphFiles, Integers, LoweringOrder, lower
from nwmctl.toolchains.process import Limits
from nwmctl.toolchains.sessions import open_worker
from nwmctl.toolchains.toggles import Toggles, build_toggles

PACKAGE = Path(__file__).parents[2] / "examples" / "nwm-2.5" / "model"
LIMITS = Limits(120.0)
# One row at a time: that is how a dynamically quantised graph is executed in a vehicle.
ROWS = 3


def inputs() -> dict[str, NDArray[np.generic]]:
    golden = np.load(PACKAGE / "golden.npz")
    return {name[3:]: golden[name][:ROWS] for name in golden.files if name.startswith("in/")}


class Graphs:
    """The example model as a graph with switches, and lowered for real."""

    def __init__(self, folder: Path, how: Quantisation, integers: Integers) -> None:
        self.folder, self.how, self.integers = folder, how, integers
        self.files = GraphFiles(PACKAGE / "model.onnx", None, PACKAGE / "calibration.npz")
        plain = lower(self.files, self._new("plain"), LoweringOrder(Precision.FP32, batch=None), LIMITS)
        static = self._lower((), "static")[0] if how is Quantisation.STATIC else None
        ports = (plain.inputs, plain.outputs)
        self.toggles: Toggles = build_toggles(plain.path, ports, static, (how, integers), self._new("made"), LIMITS)

    def _new(self, name: str) -> Path:
        folder = self.folder / name
        folder.mkdir(parents=True)
        return folder

    def _lower(self, keep: tuple[str, ...], name: str) -> tuple[Path, tuple[Port, ...], tuple[Port, ...]]:
        order = LoweringOrder(Precision.INT8, batch=None, quantisation=self.how, integers=self.integers, keep=keep)
        lowered = lower(self.files, self._new(name), order, LIMITS)
        return lowered.path, lowered.inputs, lowered.outputs

    def real(self, keep: tuple[str, ...], name: str) -> dict[str, NDArray[np.generic]]:
        with open_worker("onnxruntime", *self._lower(keep, name), 60.0) as session:
            rows = [session.run({k: v[row : row + 1] for k, v in inputs().items()}) for row in range(ROWS)]
        return {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}


def distance(one: dict[str, NDArray[np.generic]], other: dict[str, NDArray[np.generic]]) -> float:
    """The worst relative difference over all outputs, in the norm."""
    wide = {name: (one[name].astype(np.float64), other[name].astype(np.float64)) for name in one}
    return max(float(np.linalg.norm(a - b) / np.linalg.norm(a)) for a, b in wide.values())


@pytest.mark.parametrize("how", [Quantisation.STATIC, pytest.param(Quantisation.DYNAMIC, marks=pytest.mark.long)])
def test_switches_stand_for_the_artifacts_that_would_be_built(tmp_path: Path, how: Quantisation) -> None:
    # Narrow integers: with 8-bit weights this kind of machine may saturate, which no simulation shows.
    graphs = Graphs(tmp_path, how, Integers.NARROW)
    toggles, every = graphs.toggles, frozenset(graphs.toggles.groups)
    assert len(every) == 28
    keep = ("agent_in", "route_in")
    with toggles.open() as session:
        plain = session.run(inputs())
        golden = np.load(PACKAGE / "golden.npz")
        assert distance({name: golden[f"out/{name}"][:ROWS] for name in plain}, plain) < 1e-5
        session.quantise(every)
        whole = session.run(inputs())
        session.quantise(every - set(keep))
        part = session.run(inputs())
        session.quantise(frozenset({"blocks.1.mix"}))
        alone = session.run(inputs())
        session.quantise(frozenset())
        assert distance(session.run(inputs()), plain) == 0.0
        assert session.seconds == ()
    errors = [distance(plain, each) for each in (whole, part, alone)]
    assert min(errors) > 0
    assert errors[2] < min(errors[:2])
    for simulated, kept, name in ((whole, (), "whole"), (part, keep, "part")):
        real = graphs.real(kept, name)
        assert distance(real, simulated) < 0.01 * distance(real, plain), "the same error, not just as much of it"
