"""Drives of models as trained: made once, shared, kept, and the same wherever they come from."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields

import numpy as np
import pytest
from numpy.typing import NDArray

from nwmctl.domain.digest import digest_bytes
from nwmctl.driving import episode
from nwmctl.driving.metrics import Outcomes
from nwmctl.errors import ToolchainError
from nwmctl.toolchains.protocol import Tensors
from nwmctl.validation import drives
from nwmctl.validation.drives import DrivenModel, ModelDrives, ScenarioList, Suite, decode, encode, first
from tests.validation import plant
from tests.validation.drivers import Shelf, roads


class Counted:
    """The plant, which counts how often it is opened and how many rows it is asked."""

    def __init__(self) -> None:
        self.opened = 0
        self.rows = 0

    def open(self) -> plant.FunctionSession:
        self.opened += 1
        return plant.FunctionSession(self.drive)

    def drive(self, seen: Mapping[str, NDArray[np.generic]]) -> Tensors:
        self.rows += len(seen["ego"])
        return plant.drive(seen)

    @property
    def model(self) -> DrivenModel:
        return DrivenModel(digest_bytes(b"plant"), "control", self.open)


def same(one: Outcomes, other: Outcomes) -> bool:
    return all(np.array_equal(getattr(one, f.name), getattr(other, f.name)) for f in fields(Outcomes))


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drives, "BLOCK", 10)


@pytest.mark.parametrize("suite", list(Suite))
def test_they_are_what_the_simulator_says(suite: Suite) -> None:
    listed = ScenarioList(suite, 12, 5)
    found = ModelDrives().get(Counted().model, listed)
    told = episode.run(lambda seen: plant.drive(seen)["control"].astype(np.float64), listed.ids(), 10)
    assert found.ids == told.ids == listed.ids()
    for field in fields(Outcomes):
        if field.name not in ("ids", "path"):
            assert np.array_equal(getattr(found, field.name), getattr(told, field.name))
    assert np.abs(found.path - told.path).max() < 1e-4, "paths are kept to hundredths of a millimetre"


def test_a_longer_list_drives_only_what_is_new() -> None:
    counted, kept = Counted(), ModelDrives()
    short = kept.get(counted.model, ScenarioList(Suite.ROADS, 10, 5))
    asked = counted.rows
    longer = kept.get(counted.model, ScenarioList(Suite.ROADS, 20, 5))
    assert same(first(longer, 10), short)
    assert counted.rows == pytest.approx(2 * asked, rel=0.2)
    kept.get(counted.model, ScenarioList(Suite.ROADS, 20, 5))
    assert counted.opened == 2


def test_a_shelf_outlives_the_process_and_a_damaged_block_is_driven_anew() -> None:
    counted, shelf = Counted(), Shelf()
    listed = ScenarioList(Suite.ROADS, 20, 5)
    made = ModelDrives(shelf).get(counted.model, listed)
    assert same(ModelDrives(shelf).get(counted.model, listed), made)
    assert (counted.opened, shelf.loaded) == (1, 2)
    question = next(iter(shelf.kept))
    for data in (b"", b"PK\x03\x04 no zip", shelf.kept[question][:-9], encode(first(made, 3))):
        shelf.kept[question] = data
        assert same(ModelDrives(shelf).get(counted.model, listed), made)


def test_other_weights_or_another_output_are_another_question() -> None:
    counted, shelf = Counted(), Shelf()
    listed = ScenarioList(Suite.ROADS, 5, 5)
    ModelDrives(shelf).get(counted.model, listed)
    ModelDrives(shelf).get(DrivenModel(digest_bytes(b"other"), "control", counted.open), listed)
    ModelDrives(shelf).get(counted.model, ScenarioList(Suite.ROADS, 5, 6))
    ModelDrives(shelf).get(counted.model, ScenarioList(Suite.TRAPS, 5, 5))
    assert len(shelf.kept) == 4


def test_several_threads_share_the_work() -> None:
    counted, kept = Counted(), ModelDrives()
    listed = ScenarioList(Suite.ROADS, 30, 5)
    with ThreadPoolExecutor(3) as pool:
        found = [future.result() for future in [pool.submit(kept.get, counted.model, listed) for _ in range(3)]]
    assert same(found[0], found[1])
    assert same(found[0], found[2])
    alone = Counted()
    ModelDrives().get(alone.model, listed)
    assert counted.rows == alone.rows


def test_progress_is_told_and_a_models_error_passes_and_is_not_kept() -> None:
    shares: list[float] = []
    kept = ModelDrives()
    kept.get(Counted().model, ScenarioList(Suite.ROADS, 20, 5), shares.append)
    assert shares == [0.5, 1.0]

    def broken() -> plant.FunctionSession:
        raise ToolchainError("it crashed", why="it did", next="reinstall it")

    listed = ScenarioList(Suite.ROADS, 5, 9)
    with pytest.raises(ToolchainError, match="it crashed"):
        kept.get(DrivenModel(digest_bytes(b"plant"), "control", broken), listed)
    assert len(kept.get(Counted().model, listed)) == 5


def test_outcomes_survive_their_encoding() -> None:
    made = roads(7, 2)
    read = decode(encode(made), made.ids)
    assert read is not None
    assert same(read, made)
    assert encode(read) == encode(made)
    assert decode(encode(made), made.ids[:3]) is None


def test_a_drive_brakes_no_harder_than_it_is_held_to() -> None:
    def hard(seen: Mapping[str, NDArray[np.generic]]) -> Tensors:
        control = plant.drive(seen)["control"].copy()
        control[..., 1] = -6.0
        return {"control": control}

    model = DrivenModel(digest_bytes(b"hard"), "control", lambda: plant.FunctionSession(hard))
    kept = ModelDrives()
    free, held, weak = (kept.get(model, ScenarioList(Suite.ROADS, 10, 5, most)) for most in (None, 6.0, 2.0))
    assert same(free, held), "it never commanded more"
    assert not same(free, weak), "another limit is another question"
    gone = [np.linalg.norm(found.path[:, -1] - found.path[:, 0], axis=1).mean() for found in (free, weak)]
    assert gone[1] > gone[0], "who brakes less comes further"


def test_what_is_no_control_is_left_to_the_simulator() -> None:
    for shape in ((3,), (3, 10, 1), (3, 10, 3)):
        outputs: Tensors = {"control": np.full(shape, -9.0, np.float32)}
        assert np.array_equal(drives.control_of(outputs, "control", 5.0), outputs["control"])
