"""Pinned recipes: written, read back, put in the profiles' place, and refused where they name nothing."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import yaml

from nwmctl.app.project import load_project
from nwmctl.app.recipes import pin, render, write_recipes
from nwmctl.domain.artifact import Precision, Recipe
from nwmctl.domain.digest import digest_bytes
from nwmctl.domain.search import Ranked, RecipeFile
from nwmctl.errors import FileUnreadableError, OutputUnwritableError, SchemaError
from nwmctl.formats import documents
from nwmctl.storage.resources import example_release, platforms_folder

FP32 = Recipe("iree", Precision.FP32, {"arch": "sm_87"})
MIXED = Recipe("iree", Precision.INT8, {"cpu": "generic", "quantisation": "static", "keep": "blocks.0,head.out"})
MODEL = digest_bytes(b"card")
FILE = RecipeFile(
    MODEL,
    {
        "nt2.0/quad-orin/gpu": Ranked("orin-x", "gpu", (FP32,), "the fastest that passed, estimated"),
        "nt2.5/nx9031-single/cpu": Ranked("nx9031", "cpu", (MIXED, FP32)),
    },
)


@pytest.fixture
def release(tmp_path: Path) -> Path:
    source = example_release().parent
    for folder in (source, source.parent / "nwm-2.0"):
        shutil.copytree(folder, tmp_path / folder.name)
    return tmp_path / source.name / "release.yaml"


def name_it(release: Path, name: str) -> None:
    release.write_text(release.read_text("utf-8") + f"\nrecipes: {name}\n", "utf-8")


def test_what_is_written_reads_back(tmp_path: Path) -> None:
    write_recipes(tmp_path / "recipes.yaml", FILE)
    data = (tmp_path / "recipes.yaml").read_bytes()
    assert documents.decode_yaml(RecipeFile, data, "recipes.yaml") == FILE
    assert data.startswith(b"#")
    assert b"recipes: recipes.yaml" in data


def test_pinned_recipes_stand_in_place_of_the_profiles(release: Path) -> None:
    write_recipes(release.with_name("recipes.yaml"), FILE)
    before = load_project(release, platforms_folder())
    name_it(release, "recipes.yaml")
    after = load_project(release, platforms_folder())
    assert after.pinned == set(FILE.builds)
    assert after.digest != before.digest
    builds = {
        f"{name}/{variant.name}/{build.name}": build
        for name, profile in after.profiles.items()
        for variant in profile.variants
        for build in variant.builds
    }
    assert builds["nt2.0/quad-orin/gpu"].recipes == (FP32,)
    assert builds["nt2.5/nx9031-single/cpu"].recipes == (MIXED, FP32)
    same = {name: build for name, build in builds.items() if name not in FILE.builds}
    for name, build in same.items():
        platform, variant_name, build_name = name.split("/")
        variant = before.profiles[platform].variant(variant_name)
        assert variant is not None
        assert build == next(each for each in variant.builds if each.name == build_name)


@pytest.mark.parametrize(
    ("place", "chip", "unit"),
    [
        ("nt2.0/quad-orin/npu", "orin-x", "gpu"),
        ("nt2.0/other/gpu", "orin-x", "gpu"),
        ("nt2.0/quad-orin/gpu", "nx9031", "gpu"),
        ("nt2.0/quad-orin/gpu", "orin-x", "cpu"),
        ("nt2.0", "orin-x", "gpu"),
    ],
)
def test_a_build_that_is_not_there_is_refused_with_its_line(release: Path, place: str, chip: str, unit: str) -> None:
    wrong = RecipeFile(MODEL, {place: Ranked(chip, unit, (FP32,))})
    project = load_project(release, platforms_folder())
    with pytest.raises(SchemaError, match=r"recipes.yaml:\d+: .*there is no build") as refused:
        pin(render(wrong, "recipes.yaml"), "recipes.yaml", project.release, project.profiles)
    assert "nt2.0/quad-orin/gpu (orin-x, gpu)" in refused.value.why


def test_builds_of_platforms_that_the_release_does_not_go_to_are_left_alone(release: Path) -> None:
    project = load_project(release, platforms_folder())
    other = RecipeFile(MODEL, {"nt9/single/gpu": Ranked("chip", "gpu", (FP32,))})
    pinned = pin(render(other, "r.yaml"), "r.yaml", project.release, project.profiles)
    assert pinned.profiles == project.profiles
    assert not pinned.places


def test_an_empty_list_of_recipes_is_refused(release: Path) -> None:
    plain = yaml.safe_load(render(FILE, "r.yaml"))
    plain["builds"]["nt2.0/quad-orin/gpu"]["recipes"] = []
    project = load_project(release, platforms_folder())
    with pytest.raises(SchemaError, match="at least one recipe"):
        pin(yaml.safe_dump(plain).encode(), "r.yaml", project.release, project.profiles)


def test_a_file_that_is_not_there_is_refused(release: Path) -> None:
    name_it(release, "nowhere.yaml")
    with pytest.raises(FileUnreadableError, match=r"recipe file .*nowhere.yaml"):
        load_project(release, platforms_folder())


def test_a_place_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OutputUnwritableError):
        write_recipes(tmp_path / "no" / "folder.yaml", FILE)
