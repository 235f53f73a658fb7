"""Drives of models as trained, kept: a model that drove a list of scenarios drives it no second time.

Invariants: what is kept is a pure result of (weights, scenarios, simulator's revision, runtimes), so it may come from
this process, from a shelf that outlives it, or be made now, and nobody can tell. Scenarios are driven in blocks of
``BLOCK``, each a batch of its own: a longer list begins with the blocks of the shorter one, and several threads that
ask the same share the work. Drives of *artifacts* are never kept here, and nothing is compared.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, fields
from enum import StrEnum
from threading import Lock
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from nwmctl.domain.digest import Digest, digest_bytes
from nwmctl.driving import constants, episode, scenarios, traps
from nwmctl.driving.metrics import Outcomes, join
from nwmctl.driving.scenarios import ScenarioId
from nwmctl.toolchains.protocol import Session, Tensors

OpenSession = Callable[[], Session]
"""Loads an artifact or a model; who calls it closes what it returns."""
Share = Callable[[float], None]
"""Told the share (0..1) that is done."""

BLOCK = 100
"""Scenarios per batch. Part of the result: another batch size rounds a matrix product otherwise."""
_KEPT = 256


class Suite(StrEnum):
    """Which scenarios."""

    ROADS = "roads"
    TRAPS = "traps"


@dataclass(frozen=True, slots=True)
class ScenarioList:
    """The first ``count`` scenarios of a suite from a seed on; ``braking``: the hardest in m/s2 (positive) that is
    carried out of what the driver commands, None for all that the simulated car can do."""

    suite: Suite
    count: int
    seed: int
    braking: float | None = None

    def ids(self) -> tuple[ScenarioId, ...]:
        """Their identities, in order."""
        match self.suite:
            case Suite.ROADS:
                return scenarios.paired(self.count, self.seed)
            case Suite.TRAPS:
                return traps.paired(self.count, self.seed)


@dataclass(frozen=True, slots=True)
class DrivenModel:
    """A model as trained: ``weights`` names it, ``control`` is the output that drives."""

    weights: Digest
    control: str
    open: OpenSession


@dataclass(frozen=True, slots=True)
class Question:
    """What a kept block answers; ``scenarios`` is a digest of its identities."""

    weights: Digest
    control: str
    scenarios: Digest
    revision: int = constants.REVISION
    braking: float | None = None


class Shelf(Protocol):
    """Keeps blocks for other processes. Neither call may raise for want of a block."""

    def load(self, question: Question) -> bytes | None: ...

    def save(self, question: Question, data: bytes) -> None: ...


class ModelDrives:
    """How models as trained drove. Safe to use from several threads."""

    def __init__(self, shelf: Shelf | None = None) -> None:
        self._shelf = shelf
        self._known: dict[Question, Outcomes] = {}
        self._locks: dict[Question, Lock] = {}
        self._lock = Lock()

    def get(self, model: DrivenModel, listed: ScenarioList, told: Share = lambda share: None) -> Outcomes:
        """The model's outcomes, in the list's order. Errors of the model pass."""
        ids = listed.ids()
        blocks = [ids[i : i + BLOCK] for i in range(0, len(ids), BLOCK)]
        found: dict[int, Outcomes] = {}
        with ExitStack() as stack:
            driver = _Driver(model, stack, listed.braking)
            # First whatever nobody else is driving, then wait for the rest.
            for patient in (False, True):
                for index, block in enumerate(blocks):
                    if index not in found:
                        outcomes = self._block(driver, block, patient)
                        if outcomes is not None:
                            found[index] = outcomes
                            told(len(found) / len(blocks))
        return join([found[index] for index in range(len(blocks))])

    def _block(self, driver: _Driver, ids: tuple[ScenarioId, ...], patient: bool) -> Outcomes | None:
        names = "\n".join(identity.label for identity in ids)
        asked = digest_bytes(names.encode())
        question = Question(driver.model.weights, driver.model.control, asked, braking=driver.braking)
        with self._lock:
            lock = self._locks.setdefault(question, Lock())
        if not lock.acquire(blocking=patient):
            return None
        try:
            with self._lock:
                known = self._known.pop(question, None)
            if known is None:
                known = self._shelved(question, ids)
            if known is None:
                data = encode(episode.run(driver, ids, BLOCK))
                if self._shelf is not None:
                    self._shelf.save(question, data)
                known = decode(data, ids)
                assert known is not None
            with self._lock:
                while len(self._known) >= _KEPT:
                    self._known.pop(next(iter(self._known)))
                self._known[question] = known
            return known
        finally:
            lock.release()

    def _shelved(self, question: Question, ids: tuple[ScenarioId, ...]) -> Outcomes | None:
        data = self._shelf.load(question) if self._shelf is not None else None
        return decode(data, ids) if data is not None else None


MODEL_DRIVES = ModelDrives()
"""For callers without a shelf: kept for as long as the process lives."""


class _Driver:
    """A session that is opened when it is first needed."""

    def __init__(self, model: DrivenModel, stack: ExitStack, braking: float | None) -> None:
        self.model = model
        self.braking = braking
        self._stack = stack
        self._session: Session | None = None

    def __call__(self, seen: Mapping[str, NDArray[np.float32]]) -> NDArray[np.floating]:
        if self._session is None:
            self._session = self._stack.enter_context(self.model.open())
        return control_of(self._session.run(seen), self.model.control, self.braking)


def control_of(outputs: Tensors, name: str, braking: float | None = None) -> NDArray[np.floating]:
    """A model's control as the simulator takes it, braking no harder than ``braking`` m/s2. What is no number stays
    none, and what is no control is for the simulator to refuse."""
    control = np.asarray(outputs[name].astype(np.float64))
    if braking is not None and control.ndim and control.shape[-1] == 2:
        control[..., 1] = np.maximum(control[..., 1], -braking)
    return control


def first(outcomes: Outcomes, count: int) -> Outcomes:
    """The first outcomes of a list."""
    arrays = {f.name: getattr(outcomes, f.name)[:count] for f in fields(Outcomes)}
    return Outcomes(**arrays)


def encode(outcomes: Outcomes) -> bytes:
    """Outcomes without their identities. Paths to float32 (hundredths of a millimetre)."""
    arrays = {f.name: getattr(outcomes, f.name) for f in fields(Outcomes) if f.name != "ids"}
    arrays["path"] = arrays["path"].astype(np.float32)
    data = io.BytesIO()
    np.savez_compressed(data, **arrays)
    return data.getvalue()


def decode(data: bytes, ids: tuple[ScenarioId, ...]) -> Outcomes | None:
    """Kept outcomes; None where these bytes are not theirs (they are then made anew)."""
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as archive:
            arrays = {f.name: archive[f.name] for f in fields(Outcomes) if f.name != "ids"}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
    if any(len(values) != len(ids) for values in arrays.values()):
        return None
    arrays["path"] = arrays["path"].astype(np.float64)
    return Outcomes(ids=ids, **arrays)
