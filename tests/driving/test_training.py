"""A few steps of the whole training, from drives to a package that loads. Needs torch (the ``train`` extra)."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from nwmctl.domain.model import CARD_NAME, SIGNATURE_NAME
from tests.real import require_real


@pytest.mark.long
def test_training_goes_from_drives_to_a_signed_package(tmp_path: Path) -> None:
    require_real("torch", importlib.util.find_spec("torch") is not None, "pip install 'nwmctl[train]'")
    import torch

    from examples.training import recipe as r
    from examples.training.package import package
    from examples.training.sign import sign
    from examples.training.train import Training
    from nwmctl.domain.keys import KeyRole
    from nwmctl.formats import model_card
    from nwmctl.trust.keys import init_keys

    class Clock:
        def now_us(self) -> int:
            return 1_700_000_000_000_000

        def monotonic(self) -> float:
            return 0.0

    full = r.Recipe()
    small = r.Recipe(
        replace(full.expert_drives, count=24),
        replace(full.pretrain, steps=12),
        replace(full.finetune, steps=6),
        replace(full.extend, steps=2),
        ((replace(full.rounds[0][0], count=24), replace(full.rounds[0][1], steps=2)),),
        replace(
            full.reinforce, iterates=2, steps=2, validation=10,
            exploration=replace(full.reinforce.exploration, scenarios=12, plain=2, drives=2),
        ),
    )  # fmt: skip
    torch.set_num_threads(1)
    Training(tmp_path / "a", small, test_scenarios=10).run()
    card = package(tmp_path / "a", "5-reinforce", "0.1", "a few steps", tmp_path / "model")
    losses = [stage.metrics["loss"] for stage in card.lineage]
    steps = [stage.metrics["steps"] for stage in card.lineage]
    assert steps == [12, 6, 2, 2, 2 * card.lineage[-1].metrics["iterate"]]
    assert np.isfinite(losses).all()
    assert model_card.decode((tmp_path / "model" / CARD_NAME).read_bytes(), CARD_NAME) == card
    sign(
        tmp_path / "model",
        init_keys(tmp_path / "keys", Clock(), [KeyRole.MODEL], development=True).signer(KeyRole.MODEL),
    )
    assert (tmp_path / "model" / SIGNATURE_NAME).stat().st_size > 1_000

    Training(tmp_path / "b", small, test_scenarios=10).run()
    again = package(tmp_path / "b", "5-reinforce", "0.1", "a few steps", tmp_path / "again")
    assert again.files == card.files, "the same recipe must give the same bytes on one machine"
