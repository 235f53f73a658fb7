"""Evidence and a bench: what is out of reach only now is not kept, and which benches there are is part of the key."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from nwmctl.domain.evidence import Check, Verdict
from nwmctl.domain.figure import Obtained
from nwmctl.formats.codec import to_plain
from nwmctl.steps import validate
from nwmctl.toolchains.registry import Registry
from nwmctl.validation.subject import Unreachable
from tests.steps.conftest import Road
from tests.steps.test_validate import Bench
from tests.toolchains import vendor

AWAY = Unreachable("a bench with chip-x", "it does not answer", "switch it on", passing=True)


@pytest.fixture
def bench(road: Road, monkeypatch: pytest.MonkeyPatch) -> Bench:
    return Bench(road, monkeypatch)


def test_evidence_without_a_bench_that_was_away_is_not_kept(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    ways_of, away = validate.ways_of, [AWAY]

    def without_a_bench(*arguments: Any) -> Any:
        ways, unreachable = ways_of(*arguments)
        return ways, (*unreachable, *away)

    monkeypatch.setattr(validate, "ways_of", without_a_bench)
    work = replace(bench.work, seed=41)
    first = bench.run(work)
    assert first.fleeting
    [missing] = [r for r in bench.evidence(first).results if r.check is Check.PARITY and r.verdict is Verdict.NOT_RUN]
    assert "it does not answer" in missing.summary
    bench.run(work)
    assert bench.executed == 2, "the next run asks again"
    away.clear()
    assert not bench.run(work).fleeting
    bench.run(work)
    assert bench.executed == 3


def test_figures_of_a_bench_are_found_only_while_it_is_there(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    ways_of = validate.ways_of
    work = replace(bench.work, seed=42)
    bench.run(work)

    def on_a_bench(*arguments: Any) -> Any:
        ways, unreachable = ways_of(*arguments)
        return tuple(replace(way, obtained=Obtained.BENCH, label="a bench with chip-x") for way in ways), unreachable

    monkeypatch.setattr(validate, "ways_of", on_a_bench)
    [parity] = [r for r in bench.evidence(bench.run(work)).results if r.check is Check.PARITY]
    assert parity.obtained is Obtained.BENCH
    assert bench.executed == 2


def test_a_bench_that_is_added_is_another_key(bench: Bench, tmp_path: Path) -> None:
    declarations = vendor.install(tmp_path, far=True)
    hosts = tmp_path / "hosts.yml"
    host = "address: 10.0.0.1\n    user: rig\n    host_key: ssh-ed25519 AAAA\n    identity: key\n"
    hosts.write_text(f"hosts:\n  builder:\n    {host}")
    order = to_plain(bench.work)

    def key(registry: Registry) -> object:
        return validate.validate_step(bench.store, registry).key(order, bench.inputs)

    with_it = key(Registry((declarations,), hosts))
    assert with_it != key(Registry((declarations,)))
    hosts.write_text(hosts.read_text().replace("10.0.0.1", "10.0.0.2"))
    assert key(Registry((declarations,), hosts)) == with_it, "it has moved, and is the same bench"
