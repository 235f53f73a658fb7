"""Places for the command line; keys are made once, a whole deployment once."""

from __future__ import annotations

from pathlib import Path

import pytest

from nwmctl.app.clock import SystemClock
from nwmctl.trust.keys import KeyRole, init_keys
from tests.e2e.command import Place, tree


@pytest.fixture(scope="session")
def development_keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where ``XDG_DATA_HOME`` lets nwmctl look for development keys."""
    folder = tmp_path_factory.mktemp("xdg") / "nwmctl" / "development-keys"
    folder.parent.mkdir(parents=True)
    init_keys(folder, SystemClock(), list(KeyRole), development=True)
    return folder


@pytest.fixture
def place(tmp_path: Path, development_keys: Path) -> Place:
    """A good release and an empty workspace."""
    return Place.new(tmp_path / "place", development_keys)


@pytest.fixture(scope="session")
def _published(tmp_path_factory: pytest.TempPathFactory, development_keys: Path) -> Place:
    made = Place.new(tmp_path_factory.mktemp("published") / "place", development_keys)
    made.run("publish", made.project.release).ok()
    return made


@pytest.fixture(scope="session")
def _deployed(tmp_path_factory: pytest.TempPathFactory, _published: Place) -> Place:
    made = _published.copy(tmp_path_factory.mktemp("deployed") / "place")
    done = made.deploy("--json", "--junit", made.folder / "checks.xml").ok()
    (made.folder / "summary.json").write_text(done.out)
    return made


@pytest.fixture(scope="session")
def undisturbed(_deployed: Place) -> frozenset[str]:
    """The names of what an undisturbed deployment publishes; the files' digests are in their names."""
    return frozenset(tree(_deployed.workspace / "mirrors" / "local" / "targets"))


@pytest.fixture
def deployed(_deployed: Place, tmp_path: Path) -> Place:
    """A copy of a place where the release was deployed to the three vehicles."""
    return _deployed.copy(tmp_path / "deployed")


@pytest.fixture
def published(_published: Place, tmp_path: Path) -> Place:
    """A copy of a place where the release was published and no vehicle knows of it yet."""
    return _published.copy(tmp_path / "published")
