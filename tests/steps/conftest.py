"""Stores, keys, and one whole small deployment whose steps tests look at and run again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from nwmctl.agent.runner import resolve
from nwmctl.app.compose import build_steps
from nwmctl.app.session import Session, open_session
from nwmctl.app.settings import load_settings
from nwmctl.domain.digest import Digest
from nwmctl.domain.step import Outcome, PlannedStep
from nwmctl.storage.content import ContentStore
from nwmctl.trust.keys import KeyRing, KeyRole, init_keys
from tests.e2e.command import Place
from tests.fakes import FakeClock
from tests.trust.conftest import real_now


def quiet(text: str, share: float) -> None:
    """Progress that nobody watches."""


@pytest.fixture
def store(tmp_path: Path) -> ContentStore:
    return ContentStore(tmp_path / "content")


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture(scope="session")
def keys(tmp_path_factory: pytest.TempPathFactory) -> KeyRing:
    folder = tmp_path_factory.mktemp("steps-xdg") / "nwmctl" / "development-keys"
    folder.parent.mkdir(parents=True)
    return init_keys(folder, real_now(), list(KeyRole), development=True)


@dataclass
class Road:
    """A place, and what each step of its plan has left so far."""

    place: Place
    outcomes: dict[str, Outcome] = field(default_factory=dict)

    @contextmanager
    def session(self) -> Iterator[Session]:
        place = self.place
        settings = load_settings(place.workspace, place.keys, environment=place.environ)
        with open_session(settings, place.project.release, "a test") as session:
            yield session

    def run(self, session: Session, step: PlannedStep) -> Outcome:
        """Run one step's code now, whatever the store has."""
        code = build_steps(session.parts)[step.step]
        return code.run(step.parameters, resolve(step, self.outcomes), quiet)

    def key(self, session: Session, step: PlannedStep) -> Digest:
        return build_steps(session.parts)[step.step].key(step.parameters, resolve(step, self.outcomes))

    def copy(self, folder: Path) -> Road:
        return Road(self.place.copy(folder), dict(self.outcomes))


@pytest.fixture(scope="session")
def _road(tmp_path_factory: pytest.TempPathFactory, keys: KeyRing) -> Road:
    made = Road(Place.new(tmp_path_factory.mktemp("road") / "place", keys.folder))
    with made.session() as session:
        for step in session.plan():
            made.outcomes[step.id] = made.run(session, step)
    return made


@pytest.fixture
def road(_road: Road, tmp_path: Path) -> Road:
    """A copy of a road that was walked to its end."""
    return _road.copy(tmp_path / "road")


@pytest.fixture(scope="session")
def walked(_road: Road) -> Road:
    """The road itself, for tests that only look."""
    return _road
