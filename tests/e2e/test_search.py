"""Recipes by the command line: searched for, written down, pinned, and explained."""

from __future__ import annotations

import pytest
import yaml

from nwmctl.errors import ExitCode
from tests.e2e.command import Place, refused

BUILD = "virtual/host/host"


@pytest.mark.long
def test_a_search_is_written_down_pinned_and_explained(place: Place) -> None:
    recipes = place.project.release.with_name("recipes.yaml")
    asked = ("search", place.project.release, "--effort", "quick")
    (build,) = place.run(*asked, "--out", recipes, "--json").ok().json["builds"]
    assert (build["builds"], build["origin"], build["effort"]) == ([BUILD], "search", "quick")
    won = build["recipes"][0]
    assert (won["outcome"], won["obtained"]) == ("won", "measured")
    assert won["ms"] > 0
    tried = [line for line in build["recipes"] if line["outcome"] != "pruned"]
    assert 1 < len(tried) <= 4
    assert len({line["recipe"]["toolchain"] for line in tried}) > 1, "more than one toolchain is tried"

    pinned = yaml.safe_load(recipes.read_text())["builds"][BUILD]["recipes"]
    assert pinned[0] == won["recipe"]
    page = place.run(*asked).ok().out
    assert "✓ won" in page
    assert "found by a quick search" in page

    place.project.edit_release(lambda release: release.update(recipes=recipes.name))
    said = place.run(*asked)
    assert said.code == ExitCode.INPUT
    assert "are pinned" in said.err
    (why,) = place.run("compile", place.project.release, "--explain", "--json").ok().json["why"]
    assert why["origin"] == "pinned"
    assert next(line["recipe"] for line in why["recipes"] if line["outcome"] == "won") == pinned[0]


def test_a_pinned_file_that_is_wrong_is_refused(place: Place) -> None:
    place.project.release.with_name("recipes.yaml").write_text("schema: nwmctl.recipes/1\nbuilds: []\n")
    place.project.edit_release(lambda release: release.update(recipes="recipes.yaml"))
    refused(place.run("compile", place.project.release, "--json"), "SchemaError", ExitCode.INPUT, "recipes.yaml")
    assert not (place.workspace / "runs").exists()
