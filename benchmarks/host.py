"""The chosen host artifact against each peer's default: ``python -m benchmarks.host [--runs N] [--quick]``.

Two models: a generated driving transformer, and the example model, where overhead rules. For each, every recipe that
the host drivers offer is compiled, and one mixed-precision recipe out of the sensitivities; each is judged by parity on
the package's golden rows; the fastest that pass are measured again, one is chosen, and it is compared with the peers in
another measurement. One thread each, a process each, interleaved. A ratio is that of the medians; its interval is the
95 % bootstrap over rounds. Writes a section of ``RESULTS-compiler.md``; exits 1 where a goal is missed, and says what
was missing.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import tempfile
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.host_goals import (
    PROCESSES,
    Goal,
    best,
    example_goals,
    generated_goals,
    interval,
    interval_of_processes,
)
from benchmarks.host_mixed import mixed_recipes
from benchmarks.host_peers import ORT, PEERS, absent, open_peer
from benchmarks.models import driving_transformer
from benchmarks.results import write_section
from nwmctl.domain.artifact import Option, Port, Precision, Recipe
from nwmctl.domain.digest import digest_bytes
from nwmctl.domain.evidence import Verdict
from nwmctl.domain.figure import Obtained
from nwmctl.domain.model import CARD_NAME, ModelCard
from nwmctl.domain.policy import Rule
from nwmctl.errors import NwmError
from nwmctl.formats import model_card
from nwmctl.steps.search_judge import worst_share
from nwmctl.toolchains.files import versions
from nwmctl.toolchains.measure import MeasureOrder, latency_of, measure_samples
from nwmctl.toolchains.processor import named, processor
from nwmctl.toolchains.protocol import Compiled, CompileRequest, Effort, Place, Session, Tensors
from nwmctl.toolchains.registry import toolchain
from nwmctl.validation.candidate import Candidate
from nwmctl.validation.inputs import Golden, read_golden, take
from nwmctl.validation.parity import check_parity
from nwmctl.validation.subject import Pace, Way

ROOT = Path(__file__).parents[1]
PAGE = Path(__file__).with_name("RESULTS-compiler.md")
DRIVERS = ("onnxruntime", "openvino")
GENERATED_MARGINS = {
    "steer.max_abs": 0.03, "acceleration.max_abs": 0.27, "indicator.max_abs": 0.06,
    "control.relative": 0.06, "trajectory.relative": 0.06,
}  # fmt: skip
"""3 % of each channel's range at the worst, 6 % of the whole on average, as the example's policy has it."""
EXAMPLE_MARGINS = {
    "steer.max_abs": 0.005, "acceleration.max_abs": 0.2, "control.relative": 0.06, "trajectory.max_abs": 0.3,
    "trajectory.relative": 0.006, "next_agents.relative": 0.003, "next_ego.relative": 0.004,
}  # fmt: skip
"""Those of the example's policy that golden rows can be judged by."""
_SAID = (
    "The generated model's weights were changed once while this was built (smaller embeddings), so that its decoder and"
    " head are the sensitive groups, as in trained networks; that favours mixed precision. All figures are measured on"
    " the machine named below; the peers run with one thread, too."
)
_FINALISTS = 3
"""Measured once more before one is chosen: the fastest of many is often only the luckiest."""


@dataclass(frozen=True)
class Subject:
    """A model and what counts as parity for it."""

    name: str
    folder: Path
    card: ModelCard
    golden: Golden
    margins: Mapping[str, float]

    @property
    def ports(self) -> tuple[tuple[Port, ...], tuple[Port, ...]]:
        """As the contract has them."""
        inputs, outputs = (
            tuple(Port(spec.name, spec.dtype, spec.shape) for spec in side)
            for side in (self.card.contract.inputs, self.card.contract.outputs)
        )
        return inputs, outputs

    @property
    def rows(self) -> list[Tensors]:
        """Golden rows, one by one."""
        return [take(self.golden.inputs, slice(row, row + 1)) for row in range(self.golden.rows)]


@dataclass(frozen=True)
class Built:
    """One of ours: the artifact and its worst parity figure as a share of its margin."""

    recipe: Recipe
    compiled: Compiled
    share: float
    passed: bool

    @property
    def name(self) -> str:
        """For the table."""
        options = " ".join(_shown(name, value) for name, value in self.recipe.options.items())
        return f"{self.recipe.toolchain} {self.recipe.precision} {options}".rstrip()

    def open(self) -> Session:
        """Load it."""
        driver = toolchain(self.recipe.toolchain)
        return driver.open(self.compiled.payload, self.compiled.manifest, Place.HOST, 120.0)


def _shown(name: str, value: Option) -> str:
    return f"{len(str(value).split(','))} groups float" if name == "keep" else str(value)


def build(subject: Subject, recipe: Recipe, scratch: Path) -> Built:
    """Compile and judge. Raises what the driver raises."""
    scratch.mkdir(parents=True)
    model = subject.folder / "model.onnx"
    request = CompileRequest(
        model, digest_bytes(model.read_bytes()), recipe, "host", "", scratch,
        calibration=subject.folder / "calibration.npz",
    )  # fmt: skip
    compiled = toolchain(recipe.toolchain).compile(request)
    built = Built(recipe, compiled, 0.0, False)
    way = Way(Obtained.MEASURED, "this host", Pace.ROWS, built.open)
    with Candidate(subject.card.contract, way) as candidate:
        candidate.ask_alone()
        result = check_parity(candidate, subject.golden, Rule(Obtained.MEASURED, margins=dict(subject.margins)))
    share = worst_share(result)
    assert share is not None, result.summary
    return Built(recipe, compiled, share, result.verdict is Verdict.PASSED)


def ours(subject: Subject, scratch: Path) -> list[Built]:
    """Everything that the host drivers offer, and one mixture."""
    found: list[Built] = []
    for name in DRIVERS:
        for recipe in toolchain(name).variations("host", ("host",), Effort.FULL):
            try:
                found.append(build(subject, recipe, scratch / f"{len(found)}"))
                print(f"  {found[-1].name}: parity takes {found[-1].share:.0%} of its margins", flush=True)
            except NwmError as problem:
                print(f"  {name} {recipe.precision} {recipe.options}: {problem.what}: {problem.why}", flush=True)
    return found


def with_mixture(subject: Subject, found: list[Built], spent: Mapping[str, float], scratch: Path) -> Built | None:
    """The fastest full int8 with some groups left float: the first mixture that passes and halves its worst parity
    figure, else the last one that was tried."""
    base = fastest([each for each in found if full_int8(each)], spent)
    built = None
    recipes = mixed_recipes(
        subject.folder, base.recipe, subject.card.contract, subject.golden, subject.margins, scratch / "switches"
    )
    for number, recipe in enumerate(recipes):
        built = build(subject, recipe, scratch / f"mixed{number}")
        kept = recipe.options["keep"]
        print(f"  {built.name}: parity takes {built.share:.0%} of its margins ({kept})", flush=True)
        if built.passed and built.share <= 0.5 * base.share:
            break
    return built


def full_int8(built: Built) -> bool:
    """Every group quantised, activations too."""
    options = built.recipe.options
    return built.compiled.manifest.found_precision is Precision.INT8 and "keep" not in options


def fastest(candidates: list[Built], spent: Mapping[str, float]) -> Built:
    """By the medians in ``spent``."""
    return min(candidates, key=lambda each: spent[each.name])


def timed(sessions: Mapping[str, Session], subject: Subject, runs: int) -> dict[str, NDArray[np.float64]]:
    """Samples in s, index by index of about the same moment."""
    order = MeasureOrder(runs, 1e3 / subject.card.contract.rate_hz, warm_up=4)
    return measure_samples(sessions, subject.rows, order)


def choose(subject: Subject, runs: int, scratch: Path) -> tuple[list[Built], Built, dict[str, float]]:
    """All of ours with their medians of the first measurement, and the fastest that passes."""
    found = ours(subject, scratch)
    with ExitStack() as stack:
        opened = {each.name: stack.enter_context(each.open()) for each in found}
        spent = {name: float(np.median(each)) for name, each in timed(opened, subject, runs).items()}
    mixture = with_mixture(subject, found, spent, scratch)
    if mixture is not None:
        base = fastest([each for each in found if full_int8(each)], spent)
        with base.open() as one, mixture.open() as other:
            both = timed({base.name: one, mixture.name: other}, subject, runs)
        ratio = float(np.median(both[mixture.name]) / np.median(both[base.name]))
        spent[mixture.name] = spent[base.name] * ratio
        found.append(mixture)
    final = sorted((each for each in found if each.passed), key=lambda each: spent[each.name])[:_FINALISTS]
    with ExitStack() as stack:
        opened = {each.name: stack.enter_context(each.open()) for each in final}
        again = {name: float(np.median(each)) for name, each in timed(opened, subject, runs).items()}
    return found, fastest(final, again), spent


def compare(subject: Subject, runs: int, scratch: Path, peers: tuple[str, ...]) -> tuple[str, list[Goal]]:
    """Choose, measure beside the peers, judge."""
    print(subject.name, flush=True)
    found, chosen, spent = choose(subject, max(12, runs // 3), scratch)
    fp32 = fastest([each for each in found if each.recipe.precision is Precision.FP32], spent)
    int8 = fastest([each for each in found if full_int8(each)], spent)
    mixed = next((each for each in found if "keep" in each.recipe.options), None)
    measured = {each.name: each for each in (chosen, fp32, int8, mixed) if each is not None}
    left_out = {name: absent(name) for name in peers if absent(name)}
    load = os.getloadavg()[0]
    with ExitStack() as stack:
        opened: dict[str, Session] = {name: stack.enter_context(each.open()) for name, each in measured.items()}
        for name in peers:
            if name in left_out:
                continue
            try:
                opened[name] = stack.enter_context(_peer(subject, name, scratch))
                opened[name].run(subject.rows[0])
            except NwmError as problem:
                opened.pop(name, None)
                left_out[name] = f"{problem.what}: {problem.why[:160]}"
        samples = timed(opened, subject, runs)
    theirs = {name: each for name, each in samples.items() if name not in measured}
    peer = best(theirs)
    goals = (
        example_goals(chosen.name, samples, theirs)
        if subject.name.startswith("example")
        else generated_goals(
            (chosen.name, fp32.name, int8.name, mixed.name if mixed else None),
            samples,
            theirs,
            ORT,
            mixed.share / int8.share if mixed else None,
            equal(subject, fp32.open, lambda: _peer(subject, peer, scratch), runs // 2),
        )
    )
    lines = [
        f"### {subject.name}",
        f"{subject.card.parameters / 1e6:.2f} M parameters, batch 1, {runs} executions each after 4, load average"
        f" {load:.1f} at the start. Chosen: **{chosen.name}**. Parity margins: "
        + ", ".join(f"{name} {value:g}" for name, value in subject.margins.items()) + ".",
        "",
        "| subject | p50 ms | p99 | most | x chosen (95 %) | precision found | worst parity figure / its margin |",
        "|---|---|---|---|---|---|---|",
    ]  # fmt: skip
    order = MeasureOrder(runs, 1e3 / subject.card.contract.rate_hz)
    for name, each in sorted(samples.items(), key=lambda item: float(np.median(item[1]))):
        told = latency_of(each, order, load)
        low, middle, high = interval(each, samples[chosen.name])
        own = measured.get(name)
        precision = own.compiled.manifest.found_precision if own else "its own default"
        share = f"{own.share:.2f}{'' if own.passed else ' (fails)'}" if own else "-"
        lines.append(
            f"| {name} | {told.p50_ms:.3g} | {told.p99_ms:.3g} | {told.most_ms:.3g}"
            f" | {middle:.2f} ({low:.2f} to {high:.2f}) | {precision} | {share} |"
        )
    lines += [
        f"| {each.name} | {spent[each.name] * 1e3:.3g} (first measurement) | | | |"
        f" {each.compiled.manifest.found_precision} | {each.share:.2f}{'' if each.passed else ' (fails)'} |"
        for each in found
        if each.name not in samples
    ]
    lines += [f"| {name} | not run: {why} | | | | | |" for name, why in left_out.items()]
    lines += ["", *(f"- {'reached' if goal.reached else '**missed**'}: {goal.words}" for goal in goals), ""]
    return "\n".join(lines), goals


def equal(
    subject: Subject, mine: Callable[[], Session], other: Callable[[], Session], runs: int
) -> tuple[float, float, float]:
    """How many times longer ``other`` takes, from several processes of each."""
    names = [f"{who} {number}" for number in range(PROCESSES) for who in ("mine", "other")]
    with ExitStack() as stack:
        opened = {name: stack.enter_context((mine if name.startswith("mine") else other)()) for name in names}
        samples = timed(opened, subject, runs)
    both = (np.stack([samples[name] for name in names if name.startswith(who)]) for who in ("other", "mine"))
    return interval_of_processes(*both)


def _peer(subject: Subject, name: str, scratch: Path) -> Session:
    if name == "IREE O3":
        recipe = Recipe("iree", Precision.FP32, {"opt_level": "O3"})
        return build(subject, recipe, Path(tempfile.mkdtemp(dir=scratch)) / "iree").open()
    return open_peer(name, subject.folder / "model.onnx", *subject.ports)


def subjects(folder: Path, small: bool) -> list[Subject]:
    """Both models; ``small``: a tiny one in place of the generated one."""
    place = folder / "generated"
    made = driving_transformer(place, width=128, layers=2, tokens=112) if small else driving_transformer(place)
    example = ROOT / "examples/nwm-2.5/model"
    card = model_card.decode((example / CARD_NAME).read_bytes(), CARD_NAME)
    return [
        Subject(
            "generated driving transformer", made.folder, made.card, read_golden(made.golden, made.card.contract),
            GENERATED_MARGINS,
        ),
        Subject(
            "example model nwm-2.5", example, card, read_golden(example / "golden.npz", card.contract), EXAMPLE_MARGINS
        ),
    ]  # fmt: skip


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=120, help="executions of each for the generated model")
    parser.add_argument(
        "--quick", action="store_true", help="without torch.compile (minutes) and IREE; nothing written"
    )
    parser.add_argument("--small", action="store_true", help="a tiny generated model: does everything work?")
    given = parser.parse_args()
    peers = PEERS[:3] if given.quick or given.small else (*PEERS, "IREE O3")
    texts, goals = [], list[Goal]()
    with tempfile.TemporaryDirectory(prefix="nwmctl-host-") as name:
        for subject in subjects(Path(name), given.small):
            runs = given.runs if subject.card.parameters > 5_000_000 else 20 * given.runs
            text, met = compare(subject, runs, Path(name) / subject.name.split()[0] / "built", peers)
            print(text, flush=True)
            texts.append(text)
            goals += met
    about = (
        f"{_SAID}\n\n"
        f"{os.cpu_count()} cores ({platform.machine()}, {named(processor())}), Python {platform.python_version()}, "
        f"{versions('onnxruntime', 'openvino', 'torch', 'iree-base-compiler')}, {datetime.now(UTC).date()}."
    )
    if not given.quick and not given.small:
        write_section(
            "The host artifact beside its peers", "python -m benchmarks.host", "\n".join([*texts, about]), PAGE
        )
    return 0 if all(goal.reached for goal in goals) else 1


if __name__ == "__main__":
    sys.exit(main())
