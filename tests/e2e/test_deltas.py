"""`nwmctl delta` on a published release: make, apply, plan, build; and a campaign that keeps its byte budget."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest

from tests.e2e.command import Place


def artifact(path: Path, step: float) -> Path:
    values = np.random.default_rng(3).normal(0, 0.02, 100_000)
    values += np.random.default_rng(4).normal(0, 1.0, values.shape) * step
    np.savez(path, weights=values.astype(np.float16))
    return path


def test_a_delta_is_made_and_applied(place: Place, tmp_path: Path) -> None:
    old, new = artifact(tmp_path / "old.npz", 0.0), artifact(tmp_path / "new.npz", 1e-5)
    made = place.run("delta", "encode", old, new, "-o", tmp_path / "delta", "--json").ok().json
    assert made["delta_size"] == (tmp_path / "delta").stat().st_size < 0.5 * new.stat().st_size
    done = place.run("delta", "apply", old, tmp_path / "delta", "-o", tmp_path / "back", "--json").ok().json
    assert (tmp_path / "back").read_bytes() == new.read_bytes()
    assert done["digest"] == f"sha256:{hashlib.sha256(new.read_bytes()).hexdigest()}"
    assert "of" in place.run("delta", "encode", old, new, "-o", tmp_path / "delta").ok().out


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("encode", "old.npz", "missing", "-o", "x"), 3, "missing"),
        (("encode", "old.npz", "new.npz", "-o", "no/such/folder/x"), 3, "no folder"),
        (("apply", "new.npz", "delta", "-o", "x"), 4, "was made against"),
        (("apply", "old.npz", "new.npz", "-o", "x"), 4, "not a delta"),
    ],
)
def test_bad_input_leaves_nothing(
    place: Place, tmp_path: Path, arguments: tuple[str, ...], code: int, words: str
) -> None:
    old, new = artifact(tmp_path / "old.npz", 0.0), artifact(tmp_path / "new.npz", 1e-5)
    place.run("delta", "encode", old, new, "-o", tmp_path / "delta").ok()
    before = sorted(tmp_path.iterdir())
    verb, *files = arguments
    refused = place.run("delta", verb, *(each if each == "-o" else tmp_path / each for each in files))
    assert refused.code == code, refused.err
    assert words in refused.err
    assert sorted(tmp_path.iterdir()) == before


def test_a_release_that_is_not_published_has_no_plan(place: Place) -> None:
    refused = place.run("delta", "plan", place.project.release)
    assert refused.code == 8
    assert "no published bundles" in refused.err


def test_a_plan_names_every_pair_and_its_reason(published: Place) -> None:
    release = published.project.release
    first = published.run("delta", "plan", release, "--json").ok().json
    pairs = first["plan"]["pairs"]
    assert pairs
    assert first["reported"] is False
    assert all(pair["reason"] and pair["bytes"] <= pair["full_bytes"] for pair in pairs)
    assert first["plan"]["proven"] is True
    none = published.run("delta", "plan", release, "--most", "0", "--json").ok().json
    assert none["plan"]["build"] == []
    assert sum(pair["bytes"] * pair["vehicles"] for pair in none["plan"]["pairs"]) == none["plan"]["all_full"]
    built = published.run("delta", "plan", release, "--build", "--least-saving", "0", "--json").ok().json
    chosen = [pair for pair in built["plan"]["pairs"] if pair["way"] == "delta"]
    assert all(pair["obtained"] == "measured" for pair in chosen)
    assert built["plan"]["build"] == []
    again = published.run("delta", "plan", release, "--least-saving", "0", "--json").ok().json
    assert again["plan"]["pairs"] == built["plan"]["pairs"]
    assert "in all" in published.run("delta", "plan", release).ok().out


def test_a_budget_of_the_release_is_in_the_plan(published: Place) -> None:
    release = published.project.release
    release.write_text(f"{release.read_text()}\nbytes: {{cellular_budget: 0}}\n")
    found = published.run("delta", "plan", release, "--json").ok().json
    shares = found["plan"]["shares"]
    assert {share["way"] for share in shares} <= {"deferred", "nothing"}
    assert found["plan"]["now"].get("cellular", 0) == 0
    assert "wait" in published.run("delta", "plan", release).ok().out
