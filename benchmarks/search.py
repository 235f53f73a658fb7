"""What a whole search takes: ``python -m benchmarks.search [--models example large] [--effort full]``.

A cold search for every build of the three platforms and of this machine, one after the other in one process, in an
empty store; then the same once more, warm (the stored answer), and with the answers forgotten and only the findings
kept (what a killed search finds again). Beside wall-clock time stand CPU time and load, because a busy machine makes
only the former longer, and the largest sum of resident memory over the process and all its children, sampled ten times
a second. The example model is judged by the example policy; the generated transformer by margins of this file, which
are nobody's policy. Writes its section of ``RESULTS-compiler.md`` only with ``--write``.
"""

from __future__ import annotations

import argparse
import os
import resource
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from benchmarks.models import driving_transformer
from benchmarks.results import write_section
from nwmctl.app.project import load_platforms
from nwmctl.domain.amounts import Validation
from nwmctl.domain.digest import Digest
from nwmctl.domain.figure import Obtained
from nwmctl.domain.platform import Build, PlatformProfile
from nwmctl.domain.policy import ANY_PLATFORM, Policy, Rule
from nwmctl.domain.search import Candidate, CandidateState, SearchReport
from nwmctl.domain.step import Outcome
from nwmctl.domain.work import SearchWork
from nwmctl.errors import NwmError
from nwmctl.formats import documents
from nwmctl.formats.codec import to_plain
from nwmctl.steps.base import Step, load_outcome, save_outcome
from nwmctl.steps.compile import compile_step
from nwmctl.steps.search import search_step
from nwmctl.storage.content import ContentStore
from nwmctl.storage.resources import platforms_folder
from nwmctl.toolchains.registry import registry

PATH = Path(__file__).with_name("RESULTS-compiler.md")
EXAMPLE = Path(__file__).parents[1] / "examples" / "nwm-2.5"
SEED = 20_260_000
_FILES = {"card": "model-card.json", "weights": "model.onnx", "golden": "golden.npz", "calibration": "calibration.npz"}
_SAMPLE_S = 0.1
_LARGE_RULES = {
    "contract": Rule(Obtained.PROXY),
    "parity": Rule(Obtained.PROXY, True, {"control.relative": 0.04, "trajectory.relative": 0.04}),
}


class Wall:
    """Real time."""

    def now_us(self) -> int:
        """See ``Clock``."""
        return time.time_ns() // 1000

    def monotonic(self) -> float:
        """See ``Clock``."""
        return time.monotonic()


@dataclass
class Tree:
    """Watches the resident memory of this process and everything below it."""

    peak: int = 0
    _over: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *problem: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._over.wait(_SAMPLE_S):
            self.peak = max(self.peak, resident(os.getpid()))


def resident(root: int) -> int:
    """Bytes resident in a process and its descendants; pages that several share count for each."""
    parents: dict[int, int] = {}
    sizes: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        parents[int(entry.name)], sizes[int(entry.name)] = int(fields[1]), int(fields[21])
    family = {root}
    while True:
        more = {pid for pid, parent in parents.items() if parent in family} - family
        if not more:
            return sum(sizes.get(pid, 0) for pid in family) * resource.getpagesize()
        family |= more


@dataclass(frozen=True)
class Model:
    """A model package in a store, and the rules that it is judged by on each platform."""

    name: str
    inputs: dict[str, Digest]
    rules: dict[str, dict[str, Rule]]


@dataclass(frozen=True)
class Row:
    """One build's searches."""

    place: str
    seconds: float
    cpu_s: float
    again_s: float
    warm_s: float
    report: SearchReport | None
    problem: str = ""


def main() -> None:
    """Run and print; with ``--write`` put it into the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="+", choices=("example", "large"), default=["example", "large"])
    parser.add_argument("--effort", choices=("quick", "full"), default="full")
    parser.add_argument("--builds", nargs="+", default=[], help="only these, as platform/variant/build")
    parser.add_argument("--write", action="store_true")
    chosen = parser.parse_args()
    parts = [_model_section(name, chosen.effort, set(chosen.builds)) for name in chosen.models]
    text = "\n\n".join(parts)
    print(text)
    if chosen.write:
        write_section("Search", "python -m benchmarks.search --write", text, PATH)


def _model_section(name: str, effort: str, builds: set[str]) -> str:
    with tempfile.TemporaryDirectory(prefix="nwmctl-search-") as folder, Tree() as tree:
        store = ContentStore(Path(folder) / "content")
        model = _model(name, store, Path(folder))
        load, begun = os.getloadavg()[0], time.monotonic()
        rows = [_row(store, model, profile, place, build, effort)
                for profile, place, build in _sites() if not builds or place in builds]  # fmt: skip
        took = time.monotonic() - begun
    cold, cpu = sum(row.seconds for row in rows), sum(row.cpu_s for row in rows)
    head = (
        f"### {model.name}, {effort}\n\n"
        f"Cold: {cold:.0f} s of wall-clock time, {cpu:.0f} s of CPU time, for {len(rows)} builds ({took:.0f} s with "
        f"the warm ones); load {load:.1f} at the beginning, {os.cpu_count()} cores; peak of the process tree "
        f"{tree.peak / 2**30:.2f} GiB. Warm, the slowest: {max(row.warm_s for row in rows):.2f} s; out of kept "
        f"findings alone: {max(row.again_s for row in rows):.2f} s."
    )
    return "\n\n".join([head, _table(rows), *_mixtures(rows)])


def _model(name: str, store: ContentStore, folder: Path) -> Model:
    if name == "large":
        package = driving_transformer(folder / "model").folder
        return Model("generated transformer of 16M parameters", _put(store, package), {})
    policy = documents.decode_yaml(Policy, (EXAMPLE / "policy.yaml").read_bytes(), "policy.yaml").virtual.platforms
    rules = {platform: {**policy.get(ANY_PLATFORM, {}), **table} for platform, table in policy.items()}
    return Model("nwm-2.5", _put(store, EXAMPLE / "model"), rules)


def _put(store: ContentStore, package: Path) -> dict[str, Digest]:
    return {role: store.put_file(package / file) for role, file in _FILES.items()}


def _sites() -> list[tuple[PlatformProfile, str, Build]]:
    profiles = load_platforms(platforms_folder()).profiles.values()
    return [
        (profile, f"{profile.name}/{variant.name}/{build.name}", build)
        for profile in profiles
        for variant in profile.variants
        for build in variant.builds
    ]


def _row(store: ContentStore, model: Model, profile: PlatformProfile, place: str, build: Build, effort: str) -> Row:
    toolchains = registry()
    step = search_step(store, toolchains, compile_step(store, toolchains, 600.0), Wall())
    _, variant, _ = place.split("/")
    rules = model.rules.get(profile.name, model.rules.get(ANY_PLATFORM, _LARGE_RULES))
    driver = profile.runtime_driver if build.unit == "gpu" else ""
    work = SearchWork(effort, profile.name, variant, build.name, driver, rules, Validation().amounts(), SEED)
    inputs = {**model.inputs, "profile": store.put_bytes(documents.encode(profile))}
    print(f"{place} ...", flush=True)
    begun, cpu = time.monotonic(), _cpu_s()
    try:
        outcome = step.run(to_plain(work), inputs, lambda text, share: None)
    except NwmError as problem:
        return Row(place, time.monotonic() - begun, _cpu_s() - cpu, 0.0, 0.0, None, f"{problem.what}: {problem.why}")
    seconds, cpu = time.monotonic() - begun, _cpu_s() - cpu
    report = documents.decode(SearchReport, store.read(outcome.outputs["report"]), "report")
    print(f"{place}: {seconds:.0f} s, {outcome.summary}", flush=True)
    again = _timed(lambda: step.run(to_plain(work), inputs, lambda text, share: None))
    save_outcome(store, step.key(to_plain(work), inputs), outcome)
    return Row(place, seconds, cpu, again, _timed(lambda: _warm(step, store, work, inputs)), report)


def _warm(step: Step[SearchWork], store: ContentStore, work: SearchWork, inputs: dict[str, Digest]) -> Outcome:
    """As the runner asks: the key, then the store."""
    kept = load_outcome(store, step.key(to_plain(work), inputs))
    assert kept is not None
    return kept


def _timed(run: object) -> float:
    assert callable(run)
    begun = time.monotonic()
    run()
    return time.monotonic() - begun


def _cpu_s() -> float:
    return sum(
        usage.ru_utime + usage.ru_stime
        for usage in (resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN))
    )


# --- what is printed ----------------------------------------------------------------------------------------------


def _table(rows: list[Row]) -> str:
    lines = [
        "| build | cold s | CPU s | tried | passed | failed | left out | winner | ms | parity, share of margins |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        if row.report is None:
            lines.append(f"| {row.place} | {row.seconds:.0f} | {row.cpu_s:.0f} | {row.problem[:200]} |")
            continue
        states = [each.state for each in row.report.candidates]
        won = row.report.candidates[0]
        counts = [
            len(states) - states.count(CandidateState.PRUNED),
            states.count(CandidateState.PASSED) + 1,
            states.count(CandidateState.FAILED),
            states.count(CandidateState.PRUNED),
        ]
        ms = f"{won.ms:.3g} ({won.obtained})" if won.ms is not None else "by bytes"
        share = f"{won.parity_share:.2f}" if won.parity_share is not None else "-"
        cells = [row.place, f"{row.seconds:.0f}", f"{row.cpu_s:.0f}", *map(str, counts), _said(won), ms, share]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _said(candidate: Candidate) -> str:
    recipe = candidate.recipe
    options = ", ".join(f"{name}={str(value)[:40]}" for name, value in sorted(recipe.options.items()))
    return f"{recipe.toolchain} {recipe.precision} {options}".strip()


def _mixtures(rows: list[Row]) -> list[str]:
    """Every mixture beside the int8 recipe that it was made of."""
    lines = []
    for row in rows:
        for each in row.report.candidates if row.report else ():
            kept = str(each.recipe.options.get("keep", ""))
            options = {name: value for name, value in each.recipe.options.items() if name != "keep"}
            whole = next((o for o in row.report.candidates if row.report and o.recipe.options == options
                          and o.recipe.toolchain == each.recipe.toolchain), None) if row.report else None  # fmt: skip
            if not kept or whole is None or each.parity_share is None or whole.parity_share is None:
                continue
            speed = f"{whole.ms / each.ms:.0%}" if whole.ms and each.ms else "not told"
            lines.append(
                f"| {row.place} | {each.recipe.toolchain} {options.get('quantisation', '')} | {kept} | {each.state} | "
                f"{speed} | {each.parity_share:.2f} | {whole.parity_share:.2f} |"
            )
    head = "| build | form | kept float | state | speed of whole int8 | its error, share of margins | whole int8's |"
    return ["\n".join([head, "|---|---|---|---|---|---|---|", *lines])] if lines else []


if __name__ == "__main__":
    main()
