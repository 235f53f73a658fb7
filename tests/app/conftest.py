"""A small release in a place of its own; keys made once."""

from __future__ import annotations

from pathlib import Path

import pytest

from nwmctl.trust.keys import KeyRole, init_keys
from tests.e2e.command import Place
from tests.trust.conftest import real_now


@pytest.fixture(scope="session")
def app_keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("app-xdg") / "nwmctl" / "development-keys"
    folder.parent.mkdir(parents=True)
    init_keys(folder, real_now(), list(KeyRole), development=True)
    return folder


@pytest.fixture
def place(tmp_path: Path, app_keys: Path) -> Place:
    return Place.new(tmp_path / "place", app_keys)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory, app_keys: Path) -> Place:
    """A place whose bundles were built, with a copy of them and a report; tests only look."""
    made = Place.new(tmp_path_factory.mktemp("built") / "place", app_keys)
    out, report = made.folder / "out", made.folder / "checks.xml"
    made.run("bundle", made.project.release, "--out", out, "--junit", report).ok()
    return made
