"""Benches over a real sshd: whose figures count as ``bench``, what executes there, and what they tell about time."""

from __future__ import annotations

import contextlib
import dataclasses
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from nwmctl.domain.artifact import Recipe
from nwmctl.domain.figure import Obtained
from nwmctl.domain.model import ModelContract, TensorSpec
from nwmctl.domain.platform import Build, Role
from nwmctl.errors import (
    HostUnreachableError,
    PlaceUnavailableError,
    RuntimeFailedError,
    ToolchainError,
)
from nwmctl.steps.ways import Artifact, ways_of
from nwmctl.toolchains.external import External
from nwmctl.toolchains.external_hosts import Hosts
from nwmctl.toolchains.protocol import BenchOrder, Compiled
from nwmctl.toolchains.registry import Registry
from nwmctl.validation.candidate import Candidate
from nwmctl.validation.subject import Pace, Unreachable, Way
from tests.sshd import Sshd
from tests.toolchains import far
from tests.toolchains.models import expected, inputs, worst
from tests.toolchains.site import FP32, Cable, Site, make_site


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory, sshd: Sshd, model: Path) -> tuple[Site, Compiled]:
    """One artifact, for all tests that only execute."""
    made = make_site(tmp_path_factory.mktemp("built"), sshd, model)
    return made, made.driver.compile(made.ask(made.folder / "s"))


# --- a bench ------------------------------------------------------------------------------------------------------


def artifact(site: Site, compiled: Compiled) -> Artifact:
    return Artifact(compiled.payload, compiled.manifest, site.driver)


def build_for(chip: str) -> Build:
    return Build("npu", chip, "npu", (Role.MAIN,), (Recipe("external", FP32, {"template": "tiny"}),))


def test_a_bench_is_a_way_only_for_its_own_chip(built: tuple[Site, Compiled]) -> None:
    site, compiled = built
    ways, _ = ways_of(build_for("tiny-npu"), artifact(site, compiled), None)
    assert [(way.obtained, way.pace, way.label) for way in ways] == [
        (Obtained.BENCH, Pace.ROWS, "a bench with tiny-npu")
    ]
    with ways[0].open() as session:
        assert worst(session.run(inputs(2)), expected(inputs(2))) < 1e-5
    ways, unreachable = ways_of(build_for("orin-x"), artifact(site, compiled), None)
    assert ways == ()
    assert "carries tiny-npu" in unreachable[-1].reason
    assert not unreachable[-1].passing


@pytest.mark.parametrize("said", ["tiny-npu-2\n", "", None])
def test_a_host_that_does_not_say_so_is_no_bench(built: tuple[Site, Compiled], said: str | None) -> None:
    site, compiled = built
    chip = site.folder / "chip"
    chip.unlink() if said is None else chip.write_text(said)
    try:
        reach = site.driver.bench(compiled.manifest, "tiny-npu")
        assert "is not known to carry tiny-npu" in reach.reason
        with pytest.raises(PlaceUnavailableError, match="is not known to carry tiny-npu"):
            site.driver.open_bench(compiled.payload, compiled.manifest, "tiny-npu")
    finally:
        chip.write_text("tiny-npu\n")


def test_a_bench_that_does_not_answer_may_answer_tomorrow(built: tuple[Site, Compiled], tmp_path: Path) -> None:
    site, compiled = built
    cable = Cable(site.sshd.port)
    cable.cut()
    far.hosts(tmp_path, site.sshd, cable.port)
    gone = dataclasses.replace(
        artifact(site, compiled), toolchain=External((site.declarations,), Hosts(tmp_path / "hosts.yml"))
    )
    ways, unreachable = ways_of(build_for("tiny-npu"), gone, None)
    assert ways == ()
    assert isinstance(unreachable[-1], Unreachable)
    assert unreachable[-1].passing


def test_the_benches_are_known_by_name_alone(built: tuple[Site, Compiled]) -> None:
    site, _ = built
    known = Registry((site.declarations,), site.folder / "hosts.yml")
    assert known.benches() == "builder with tiny-npu for tiny"
    assert Registry((site.declarations,)).benches() == ""


def test_a_session_there(built: tuple[Site, Compiled]) -> None:
    site, compiled = built
    with site.driver.open_bench(compiled.payload, compiled.manifest, "tiny-npu") as session:
        given = inputs(3, seed=3)
        assert worst(session.run(given), expected(given)) < 1e-5
        assert len(session.seconds) == 3
        assert all(0 < each < 5 for each in session.seconds)
        assert len(site.rooms) == 1
    assert site.rooms == []


@pytest.mark.parametrize(
    ("program", "words"),
    [
        ("exit 3", "failed with exit status 3"),
        ("echo '[E] no device'", r"exited 0 and yet said '\[E\] no device'"),
        pytest.param("true", "left no outputs that can be read", marks=pytest.mark.long),
        pytest.param("echo nonsense > out0.npy; cp out0.npy out1.npy", "left no outputs", marks=pytest.mark.long),
    ],
)
def test_a_runtime_there_that_fails(built: tuple[Site, Compiled], tmp_path: Path, program: str, words: str) -> None:
    site, compiled = built
    with with_runtime(site, program) as driver:
        with driver.open_bench(compiled.payload, compiled.manifest, "tiny-npu", timeout_s=30) as session:
            with pytest.raises(RuntimeFailedError, match=words):
                session.run(inputs(1))
    assert site.rooms == []


@contextlib.contextmanager
def with_runtime(site: Site, program: str) -> Iterator[External]:
    """The same site, with another runtime on the host."""
    path = site.folder / "tinyrun"
    kept = path.read_text()
    path.write_text(f"#!/bin/sh\n{program}\n")
    try:
        yield site.driver
    finally:
        path.write_text(kept)


def test_a_runtime_there_that_hangs(built: tuple[Site, Compiled]) -> None:
    site, compiled = built
    with with_runtime(site, "sleep 600") as driver:
        with driver.open_bench(compiled.payload, compiled.manifest, "tiny-npu", timeout_s=1) as session:
            with pytest.raises(ToolchainError):
                session.run(inputs(1))


def test_a_bench_that_goes_away_is_no_failure_of_the_artifact(built: tuple[Site, Compiled], tmp_path: Path) -> None:
    site, compiled = built
    cable = Cable(site.sshd.port)
    shutil.copytree(site.folder / "rooms", tmp_path / "rooms")
    far.hosts(tmp_path, site.sshd, cable.port)
    driver = External((site.declarations,), Hosts(tmp_path / "hosts.yml"))
    manifest = compiled.manifest
    way = Way(Obtained.BENCH, "bench", Pace.ROWS, lambda: driver.open_bench(compiled.payload, manifest, "tiny-npu"))
    with Candidate(contract(), way) as candidate:
        assert worst(candidate.run(inputs(1)), expected(inputs(1))) < 1e-5
        cable.cut()
        with pytest.raises(HostUnreachableError):
            candidate.run(inputs(1, seed=5))


def contract() -> ModelContract:
    def spec(name: str, *shape: int | str) -> TensorSpec:
        return TensorSpec(name, "float32", ("B", *shape), (), "")

    return ModelContract(
        (spec("tokens", 16, 32), spec("gain", 1)), (spec("features", 16, 32), spec("level", 1)), 20.0, "level"
    )


# --- measuring ----------------------------------------------------------------------------------------------------


def measured(site: Site, compiled: Compiled, measure: str, order: BenchOrder) -> object:
    """What a declared measurement gives."""
    path = site.declarations / "tiny.yaml"
    kept = path.read_text()
    path.write_text(kept + measure)
    try:
        return site.driver.measure_on_bench(compiled.payload, compiled.manifest, "tiny-npu", inputs(1), order)
    finally:
        path.write_text(kept)


SAMPLES = """measure:
  command: {program: sh, arguments: [-c, "for i in 9 9 1 2 3 4; do echo took $i ms > /dev/stderr; done"]}
  samples: 'took (\\S+) ms'
  co_load: {program: sleep, arguments: ["600"]}
"""


def test_samples_of_a_program_there_become_a_latency(built: tuple[Site, Compiled]) -> None:
    from nwmctl.domain.measurement import Latency

    found = measured(*built, SAMPLES, BenchOrder(4, 2, 2.5, "stream:2"))
    assert isinstance(found, Latency)
    assert (found.n, found.p50_ms, found.most_ms, found.misses) == (4, 2.5, 4.0, 2), "the warm-up does not count"
    assert (found.obtained, found.co_load, found.deadline_ms) == (Obtained.BENCH, "stream:2", 2.5)
    assert found.load >= 0
    assert built[0].rooms == []


def test_without_a_measurement_the_runtime_tells_its_own_time(built: tuple[Site, Compiled]) -> None:
    from nwmctl.domain.measurement import Latency

    found = measured(*built, "", BenchOrder(2, 1, 1000.0))
    assert isinstance(found, Latency)
    assert (found.n, found.misses, found.obtained) == (2, 0, Obtained.BENCH)


FIGURES = """measure:
  command: {{program: echo, arguments: ["{said}"]}}
  figures: 'n=(?P<n>\\d+) (?P<p50_ms>\\S+) (?P<p99_ms>\\S+) (?P<p999_ms>\\S+) (?P<most_ms>\\S+) (?P<misses>\\d+)'
"""


@pytest.mark.parametrize(
    ("measure", "order", "words"),
    [
        (SAMPLES, BenchOrder(9, 2, 2.5), "told 6 of 9 executions"),
        (SAMPLES.split("  co_load")[0], BenchOrder(4, 2, 2.5, "stream:1"), "no 'co_load:'"),
        ("", BenchOrder(4, 2, 2.5, "stream:1"), "neither 'measure:' nor"),
        (FIGURES.format(said="n=9 5 4 6 7 0"), BenchOrder(9, 0, 2.5), "contradict one another"),
        (FIGURES.format(said="nothing"), BenchOrder(9, 0, 2.5), "match nothing"),
    ],
)
def test_what_is_not_told_is_not_made_up(
    built: tuple[Site, Compiled], measure: str, order: BenchOrder, words: str
) -> None:
    with pytest.raises(PlaceUnavailableError) as caught:
        measured(*built, measure, order)
    assert words in str(caught.value)


def test_figures_that_the_program_has_computed(built: tuple[Site, Compiled]) -> None:
    from nwmctl.domain.measurement import Latency

    found = measured(*built, FIGURES.format(said="n=900 4.5 5 6 7.25 1"), BenchOrder(900, 0, 7.0))
    assert isinstance(found, Latency)
    assert (found.n, found.p999_ms, found.most_ms, found.misses) == (900, 6.0, 7.25, 1)
