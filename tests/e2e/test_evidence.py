"""What the checks found can be read afterwards: in words, in figures, by layer, by a machine."""

from __future__ import annotations

import json
from pathlib import Path

from nwmctl.errors import ExitCode
from tests.e2e.command import Place
from tests.project import MARKET


def test_each_check_is_told_in_words(published: Place) -> None:
    told = published.run("runs", "evidence").ok().out
    for check in ("contract", "parity", "negative control", "instruction set", "budget"):
        assert check in told
    assert "virtual/host/host" in told
    assert "steer.gain_error" not in told, "figures are for a build that was named"


def test_a_build_that_is_named_shows_its_figures_and_layers(published: Place) -> None:
    told = published.run("runs", "evidence", "--build", "virtual").ok().out
    assert "steer.gain_error" in told
    assert "Which layer eats the bandwidth" in told


def test_a_machine_gets_the_packs(published: Place) -> None:
    found = published.run("runs", "evidence", "--json").ok().json
    (build,) = found["builds"]
    assert build["place"] == "virtual/host/host"
    assert {result["check"] for result in build["evidence"]["results"]} >= {"contract", "parity", "budget"}
    assert {result["verdict"] for result in build["evidence"]["results"]} <= {"passed", "not_run"}


def test_the_way_back_has_evidence_of_its_own(published: Place) -> None:
    (build,) = published.run("runs", "evidence", "-b", "return/virtual", "--json").ok().json["builds"]
    assert build["place"] == "return/virtual/host/host"


def test_what_has_no_evidence_is_refused(published: Place) -> None:
    ran = published.run("runs", "evidence", "--build", "nt9", "--json")
    assert ran.code == ExitCode.INPUT
    assert ran.json["error"] == "ArtifactUnknownError"
    assert "nt9" in ran.json["what"]


def test_the_markets_are_named_with_the_evidence(published: Place, tmp_path: Path) -> None:
    assert "market CN: RXSWIN R157 TINY 2, approval CN-2026-0001" in published.run("runs", "evidence").ok().out
    assert published.run("runs", "evidence", "--json").ok().json["markets"] == [MARKET]
    published.run("evidence", published.project.release, "--out", tmp_path / "papers").ok()
    told = json.loads((tmp_path / "papers" / "markets.json").read_bytes())
    # The way back is the previous model: what it was approved as, this release does not say.
    assert told == {"status": "draft", "markets": [{**MARKET, "platforms": ["virtual"]}]}
