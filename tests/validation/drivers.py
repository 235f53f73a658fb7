"""Outcomes and models made up for tests of the statistics around drives."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nwmctl.domain.digest import Digest, digest_bytes
from nwmctl.domain.policy import Rule
from nwmctl.driving import constants as k
from nwmctl.driving.metrics import Outcomes
from nwmctl.driving.scenarios import ScenarioId, paired
from nwmctl.toolchains.protocol import Tensors
from nwmctl.validation.drives import ModelDrives, Question, encode
from nwmctl.validation.subject import Released, Subject
from tests.validation import plant


def outcomes(ids: Sequence[ScenarioId], crashed: Sequence[bool] | NDArray[np.bool_] = (), **more: object) -> Outcomes:
    """Drives on which nothing happened, but for what is named."""
    count = len(ids)
    base = Outcomes(
        ids=tuple(ids),
        crashed=np.array(crashed, dtype=bool) if len(crashed) else np.zeros(count, dtype=bool),
        off_road=np.zeros(count, dtype=bool),
        progress=np.full(count, 0.6),
        jerk=np.full(count, 1.0),
        closest=np.full(count, 9.0),
        steps=np.full(count, k.EPISODE_STEPS),
        faults=np.zeros(count, dtype=np.int64),
        path=np.zeros((count, k.EPISODE_STEPS + 1, 2)),
        lateral=np.zeros(count),
        heading_error=np.zeros(count),
    )
    return replace(base, **more)  # type: ignore[arg-type]


def roads(count: int, crashes: int = 0, seed: int = 1) -> Outcomes:
    """The first ``crashes`` of ``count`` road scenarios end in a crash."""
    return outcomes(paired(count, seed), np.arange(count) < crashes)


class Shelf:
    """A shelf in memory that counts."""

    def __init__(self) -> None:
        self.kept: dict[Question, bytes] = {}
        self.loaded = 0

    def load(self, question: Question) -> bytes | None:
        data = self.kept.get(question)
        self.loaded += data is not None
        return data

    def save(self, question: Question, data: bytes) -> None:
        self.kept[question] = data


class Told(ModelDrives):
    """Drives that are told, not driven: weights -> what became of a list of scenarios."""

    def __init__(self, became: Mapping[Digest, Callable[[tuple[ScenarioId, ...]], Outcomes]]) -> None:
        super().__init__()
        self.became = became
        self.asked: list[int] = []

    def get(self, model, listed, told=lambda share: None) -> Outcomes:  # type: ignore[no-untyped-def, override]
        self.asked.append(listed.count)
        told(1.0)
        made = self.became[model.weights](listed.ids())
        assert encode(made)
        return made


OLD = digest_bytes(b"released")


def released(folder: Path, drives: ModelDrives) -> Subject:
    """The plant beside a released model of other weights."""
    subject = plant.subject(folder, plant.half_precision)
    return replace(subject, drives=drives, released=Released(plant.CONTRACT, OLD, _nobody))


def _nobody() -> plant.FunctionSession:
    def refuse(seen: Mapping[str, NDArray[np.generic]]) -> Tensors:
        raise AssertionError("nobody drives here")

    return plant.FunctionSession(refuse)


def rule(**margins: float) -> Rule:
    """A rule with margins; ``merge__x`` stands for ``merge.x``."""
    from nwmctl.domain.figure import Obtained

    return Rule(Obtained.PROXY, margins={name.replace("__", "."): limit for name, limit in margins.items()})
