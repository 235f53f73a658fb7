"""Predicted against measured latencies on this machine: ``python -m benchmarks.cost``.

The cost model is fitted to the calibration set alone (``benchmarks.calibration_set``: small generated graphs),
then predicts every candidate of two models that it has not seen: the generated driving transformer and the example.
Built and executed by the product's own drivers, side by side in processes of their own: the CPU time of the one
thread that executes (``--clock wall``: the wall clock), and of all executions the bound of the fastest tenth, so that
others on the machine disturb little. Writes its section of RESULTS-compiler.md; exits 1 where a rank correlation stays
under the floor.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from unittest.mock import patch

import numpy as np
from numpy.typing import NDArray

from benchmarks.calibration_set import SET, CalibrationGraph, calibrate
from benchmarks.models import driving_transformer
from benchmarks.results import write_section
from nwmctl.compiler.build import compile_build
from nwmctl.compiler.cost import predict
from nwmctl.compiler.cost_fit import fit
from nwmctl.compiler.graph import GraphCount, count_graph
from nwmctl.domain.artifact import Option, Precision, Recipe
from nwmctl.domain.digest import digest_bytes
from nwmctl.domain.figure import Confidence, Figure, Obtained
from nwmctl.domain.platform import HOST_UNIT, Chip
from nwmctl.domain.prediction import CostFit, Prediction
from nwmctl.errors import NwmError
from nwmctl.toolchains import sessions
from nwmctl.toolchains.measure import MeasureOrder, measure_samples
from nwmctl.toolchains.process import python_module
from nwmctl.toolchains.processor import cache_bytes
from nwmctl.toolchains.protocol import Compiled, CompileRequest, Effort, Place
from nwmctl.toolchains.registry import registry

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).with_name("RESULTS-compiler.md")
FLOOR = 0.9
TOOLCHAINS = ("onnxruntime", "openvino", "iree")
_HELD_BYTES = 3 << 30
"""What the sessions that are open at once may hold."""
_RUNTIME_BYTES = 80 << 20
_UNDISTURBED = 0.1
_UNKNOWN = Figure(None, "", "nobody looked", Confidence.UNKNOWN)
HOST = Chip("host", "this machine", _UNKNOWN, _UNKNOWN)

Row = Mapping[str, NDArray[np.generic]]


@dataclass(frozen=True)
class Case:
    """A model to predict: its files, its count, and recorded inputs."""

    name: str
    model: Path
    calibration: Path
    inputs: tuple[Row, ...]
    count: GraphCount


@dataclass(frozen=True)
class Line:
    """One candidate of one model."""

    recipe: Recipe
    ms: float
    prediction: Prediction


def candidates() -> tuple[Recipe, ...]:
    """What the drivers would try on this machine, and more of the same kind."""
    found = [each for name in TOOLCHAINS for each in registry().get(name).variations(HOST_UNIT, ("host",), Effort.FULL)]
    more = [
        Recipe("onnxruntime", Precision.FP16),
        Recipe("onnxruntime", Precision.FP16, {"fp16_scope": "all"}),
        Recipe("iree", Precision.FP32, {"opt_level": "O2"}),
    ]
    return tuple({text(each): each for each in (*found, *more)}.values())


def mixed(recipes: Sequence[Recipe], groups: Sequence[str]) -> tuple[Recipe, ...]:
    """Mixed precision: every int8 recipe of integer products with every second group left in floats, and the first one
    with every fourth."""
    made = []
    for number, recipe in enumerate(each for each in recipes if _integers(each)):
        options: dict[str, Option] = {**recipe.options, "keep": ",".join(groups[::2])}
        made.append(Recipe(recipe.toolchain, recipe.precision, options))
        if not number:
            made.append(Recipe(recipe.toolchain, recipe.precision, {**options, "keep": ",".join(groups[::4])}))
    return tuple(made)


def _integers(recipe: Recipe) -> bool:
    # Merged products have merged groups, which are named otherwise than the count names them.
    products = recipe.options.get("quantisation") != "weights" and not recipe.options.get("merge")
    return recipe.precision is Precision.INT8 and products


def text(recipe: Recipe) -> str:
    """A recipe in one line; kept groups as their number."""
    said = []
    for name, value in sorted(recipe.options.items()):
        said.append(f"{len(str(value).split(','))} groups float" if name == "keep" else f"{name}={value}")
    return " ".join((recipe.toolchain, recipe.precision, *said))


class Bench:
    """Builds and measures; ``folder`` holds what it makes."""

    def __init__(self, folder: Path, rounds: int) -> None:
        self.folder, self.rounds, self._made = folder, rounds, 0

    def build(self, model: Path, calibration: Path, recipes: Sequence[Recipe]) -> dict[int, Compiled]:
        """Every recipe that can be built, two at a time."""

        def one(recipe: Recipe) -> Compiled | None:
            self._made += 1
            scratch = self.folder / f"build-{self._made}"
            scratch.mkdir()
            request = CompileRequest(model, digest_bytes(b""), recipe, HOST_UNIT, "", scratch, calibration=calibration)
            try:
                return compile_build(registry().get(recipe.toolchain), request)
            except NwmError as problem:
                print(f"  not built: {text(recipe)}: {problem.what}: {problem.why}"[:300], file=sys.stderr)
                return None

        with ThreadPoolExecutor(2) as pool:
            built = list(pool.map(one, recipes))
        return {index: each for index, each in enumerate(built) if each is not None}

    def measure(self, built: Mapping[int, Compiled], inputs: Sequence[Row]) -> dict[int, float]:
        """What an execution takes, ms. Where not all fit into memory together, the first of all is measured with every
        group, and the group's times are in proportion to it."""
        found: dict[int, float] = {}
        first, *others = sorted(built)
        held = max(each.manifest.size for each in built.values())
        for group in _pieces(others, max(1, _HELD_BYTES // (3 * held + _RUNTIME_BYTES) - 1)):
            together = [first, *group]
            with ExitStack() as stack:
                sessions = {}
                for index in together:
                    made = built[index]
                    driver = registry().get(made.manifest.recipe.toolchain)
                    sessions[str(index)] = stack.enter_context(driver.open(made.payload, made.manifest, Place.HOST))
                quick = measure_samples(sessions, inputs, MeasureOrder(2, 1e3, 2))
                longest = max(float(each.min()) for each in quick.values())
                runs = int(min(self.rounds, max(12, 10.0 / (longest * len(sessions)))))
                block = max(2, min(20, int(0.02 / longest)))
                taken = measure_samples(sessions, inputs, MeasureOrder(runs, 1e3, block=block))
            times = {int(name): 1e3 * float(np.quantile(seconds, _UNDISTURBED)) for name, seconds in taken.items()}
            scale = found.get(first, times[first]) / times[first]
            found |= {index: scale * ms for index, ms in times.items()}
        return found

    def calibration(self, graph: CalibrationGraph, recipes: Sequence[Recipe]) -> dict[int, float]:
        """What ``calibrate`` asks for."""
        print(f"  {graph.block.name}", file=sys.stderr)
        return self.measure(self.build(graph.model, graph.calibration, recipes), [graph.inputs])


def _pieces(indices: Sequence[int], size: int) -> Iterator[Sequence[int]]:
    for start in range(0, len(indices), size):
        yield indices[start : start + size]


def cases(folder: Path) -> Iterator[Case]:
    """Both models."""
    made = driving_transformer(folder / "transformer")
    example = ROOT / "examples" / "nwm-2.5" / "model"
    for name, model, data in (
        (f"generated driving transformer, {made.card.parameters / 1e6:.1f} M parameters", made.model, made.calibration),
        ("example model", example / "model.onnx", example / "calibration.npz"),
    ):
        with np.load(data) as archive:
            rows = {key.removeprefix("in/"): archive[key] for key in archive.files if key.startswith("in/")}
        inputs = tuple({key: values[index : index + 1] for key, values in rows.items()} for index in range(2))
        yield Case(name, model, data, inputs, count_graph(model))


def spearman(left: Sequence[float], right: Sequence[float]) -> float:
    """Rank correlation; equal values share the mean of their ranks."""
    ranks = [_ranks(np.asarray(each, np.float64)) for each in (left, right)]
    return float(np.corrcoef(ranks[0], ranks[1])[0, 1])


def _ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    low = np.searchsorted(np.sort(values), values, "left")
    high = np.searchsorted(np.sort(values), values, "right")
    return (low + high - 1) / 2.0


def table(case: Case, lines: Sequence[Line]) -> list[str]:
    """One model's candidates, the fastest first."""
    made = [
        f"\n**{case.name}**\n",
        "| candidate | measured ms | predicted ms | off by | bound by |",
        "|---|---|---|---|---|",
    ]
    for line in sorted(lines, key=lambda line: line.ms):
        predicted = line.prediction.ms or float("nan")
        off = f"{100 * (predicted / line.ms - 1):+.0f} %"
        made.append(f"| {text(line.recipe)} | {line.ms:.3g} | {predicted:.3g} | {off} | {line.prediction.bound} |")
    return made


def report(found: Mapping[str, Sequence[Line]], learned: CostFit, seconds: float) -> tuple[list[str], bool]:
    """Correlations, and whether all reach the floor."""
    rho = {name: _correlation(lines) for name, lines in found.items()}
    rho["both"] = _correlation([line for lines in found.values() for line in lines])
    factors = [
        np.exp(abs(np.log((line.prediction.ms or np.inf) / line.ms))) for lines in found.values() for line in lines
    ]
    made = ["| model | candidates | rank correlation | floor |", "|---|---|---|---|"]
    sizes = {name: len(lines) for name, lines in found.items()} | {"both": len(factors)}
    made += [f"| {name} | {sizes[name]} | {value:.3f} | {FLOOR} |" for name, value in rho.items()]
    made.append(
        f"\nPredictions of these models are off by a factor of {np.median(factors):.2f} in the median and "
        f"{np.max(factors):.2f} at worst. What the fit says of itself (each calibration graph predicted without it):"
    )
    for each in (each for each in learned.constants if each.options is None):
        error = each.error
        made.append(
            f"- {each.toolchain}: {error.points} points of {error.models} graphs, {1 + error.median:.2f} in the "
            f"median, {1 + error.worst:.2f} at worst"
        )
    made.append(f"\nThe calibration took {seconds:.0f} s, building included.")
    return made, all(value >= FLOOR for value in rho.values())


def _correlation(lines: Sequence[Line]) -> float:
    return spearman([line.ms for line in lines], [line.prediction.ms or np.inf for line in lines])


def _cpu_worker(module: str, *arguments: str) -> tuple[str, ...]:
    assert module == "nwmctl.toolchains.worker"
    return python_module("benchmarks.cpu_worker", *arguments)


def main() -> int:
    """Run, print, write."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--rounds", type=int, default=400, help="executions of a candidate at most")
    options.add_argument("--no-write", action="store_true", help="do not write the results")
    options.add_argument("--clock", choices=("cpu", "wall"), default="cpu", help="what an execution's time is")
    chosen = options.parse_args()
    if chosen.clock == "cpu":
        patch.object(sessions, "python_module", _cpu_worker).start()
    load = os.getloadavg()[0]
    recipes = candidates()
    with tempfile.TemporaryDirectory(prefix="nwmctl-cost-") as name:
        folder = Path(name)
        bench = Bench(folder, chosen.rounds)
        began = time.monotonic()
        measured = calibrate(recipes, HOST_UNIT, folder, bench.calibration, lambda: time.monotonic() - began, np.inf)
        seconds = time.monotonic() - began
        learned = fit(measured, HOST.name, Obtained.MEASURED, "the calibration set", cache_bytes())
        lines, found, agree = [], {}, dict[str, float]()
        for case in cases(folder):
            print(f"  {case.name}", file=sys.stderr)
            wanted = (*recipes, *mixed(recipes, case.count.groups))
            built = bench.build(case.model, case.calibration, wanted)
            first, second = (bench.measure(built, case.inputs) for _ in range(2))
            agree[case.name] = spearman(list(first.values()), [second[index] for index in first])
            times = {index: float(np.sqrt(ms * second[index])) for index, ms in first.items()}
            found[case.name] = [
                Line(wanted[index], ms, predict(case.count, HOST, HOST_UNIT, wanted[index], learned))
                for index, ms in times.items()
            ]
            lines += table(case, found[case.name])
    head, good = report(found, learned, seconds)
    head.append(
        "\nEvery candidate was measured twice, and the mean counts; rank correlation of the two measurements: "
        + ", ".join(f"{value:.3f} ({name})" for name, value in agree.items())
        + ". No prediction can be expected to agree better than that. Three choices of the model were made with sight"
        " of these two models; the last one, that an interpreter converts in kernels of its own, makes predictions of"
        " the calibration graphs better, too (onnxruntime 1.35 instead of 1.42 at worst)."
    )
    machine = (
        f"\n{chosen.clock.upper()} time of one thread, batch 1; {len(SET)} calibration graphs, none of them one "
        f"of these models. "
        f"{os.cpu_count()} cores ({platform.machine()}), Python {platform.python_version()}, onnxruntime "
        f"{version('onnxruntime')}, OpenVINO {version('openvino')}, IREE {version('iree-base-compiler')}, "
        f"{datetime.now(UTC):%Y-%m-%d}; load average at the start {load:.1f}."
    )
    page = "\n".join([*head, machine, *lines])
    print(page)
    if not chosen.no_write:
        write_section("The cost model", "python -m benchmarks.cost", page, RESULTS)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
