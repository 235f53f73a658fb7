"""The host benchmark's own arithmetic, and the model that it generates: a package like any other."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks import host_goals
from benchmarks.host_goals import example_goals, generated_goals, interval, interval_of_processes
from benchmarks.model_graph import Size
from benchmarks.models import contract, driving_transformer
from examples.training.sign import sign
from nwmctl.app.clock import SystemClock
from nwmctl.domain.keys import KeyRole
from nwmctl.domain.model import CARD_NAME, SIGNATURE_NAME
from nwmctl.sources.verify import verify_card, verify_file
from nwmctl.trust.keys import init_keys, load_keyring
from nwmctl.validation.inputs import read_golden

TIE = (0.97, 1.0, 1.03)


def steady(ms: float, count: int = 40) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    return np.full(count, ms / 1e3) * np.linspace(0.99, 1.01, count)


def test_a_ratio_of_what_met_the_same_load_has_a_narrow_interval() -> None:
    load = np.random.default_rng(1).uniform(1.0, 4.0, 60)
    low, middle, high = interval(2e-3 * load, 1e-3 * load)
    assert low == pytest.approx(2.0)
    assert middle == pytest.approx(2.0)
    assert high == pytest.approx(2.0)
    low, middle, high = interval(np.random.default_rng(2).permutation(2e-3 * load), 1e-3 * load)
    assert low < middle < high


def test_goals_are_reached_by_figures_and_not_by_names(monkeypatch: pytest.MonkeyPatch) -> None:
    samples = {"chosen": steady(40), "fp32": steady(99), "int8": steady(39), "mixed": steady(41)}
    theirs = {"reference": steady(100), "other": steady(110)}
    names = ("chosen", "fp32", "int8", "mixed")
    good = generated_goals(names, {**samples, **theirs}, theirs, "reference", 0.45, TIE)
    assert [goal.reached for goal in good] == [True, True, True, True]
    assert "(reference)" in good[0].words
    monkeypatch.setattr(host_goals, "processor", lambda: frozenset({"avx2"}))
    slow = {**samples, "chosen": steady(60), "fp32": steady(130), "mixed": steady(50)}
    bad = generated_goals(names, {**slow, **theirs}, theirs, "reference", 0.6, (0.7, 0.77, 0.8))
    assert [goal.reached for goal in bad] == [True, False, False, False]
    assert "AVX-VNNI" in bad[1].words
    assert bad[2].words.endswith("slower")
    assert not generated_goals((*names[:3], None), {**samples, **theirs}, theirs, "reference", None, TIE)[3].reached
    assert "goal 50 %" in bad[3].words


def test_processes_of_one_code_differ_and_the_interval_knows_it() -> None:
    luck = np.array([[1.0], [1.06], [0.98], [1.03]])
    rounds = np.random.default_rng(4).normal(1.0, 0.01, (4, 50))
    low, _, high = interval_of_processes(luck * rounds, luck[::-1] * rounds)
    assert low < 1.0 < high
    low, middle, _ = interval_of_processes(2.0 * luck * rounds, luck * rounds)
    assert middle == pytest.approx(2.0)
    assert low > 1.8


def test_equal_code_is_not_slower_than_itself() -> None:
    noise = np.random.default_rng(3).normal(1.0, 0.05, (2, 80))
    [goal] = example_goals("ours", {"ours": 1e-3 * noise[0]}, {"theirs": 1e-3 * noise[1]})
    assert goal.reached
    assert "within the noise" in goal.words
    [goal] = example_goals("ours", {"ours": 1.2e-3 * noise[0]}, {"theirs": 1e-3 * noise[1]})
    assert not goal.reached


@pytest.mark.parametrize("external", [False, True])
def test_the_generated_model_is_a_package_that_a_release_can_name(tmp_path: Path, external: bool) -> None:
    made = driving_transformer(tmp_path / "m", width=128, layers=1, tokens=112, rows=(2, 2), external=external)
    init_keys(tmp_path / "keys", SystemClock(), [KeyRole.MODEL], development=True)
    signer = load_keyring(tmp_path / "keys").signer(KeyRole.MODEL)
    sign(made.folder, signer)
    data, envelope = ((made.folder / name).read_bytes() for name in (CARD_NAME, SIGNATURE_NAME))
    card, _ = verify_card(data, envelope, made.digest, [signer.public])
    for entry in card.files.values():
        verify_file(made.folder / entry.path, entry)
    golden = read_golden(made.golden, card.contract)
    assert golden.rows == 2
    for index, channel in enumerate(contract().outputs[0].channels):
        values = golden.outputs["control"][..., index]
        assert channel.low is not None
        assert channel.high is not None
        assert values.min() >= channel.low
        assert values.max() <= channel.high
        assert values.std(axis=0).max() > 0.0, "it answers to what it sees"
    assert (made.data is not None) is external


def test_the_same_seed_gives_the_same_model(tmp_path: Path) -> None:
    one, other, third = (
        driving_transformer(tmp_path / name, width=64, layers=1, tokens=112, seed=seed, rows=(1, 1))
        for name, seed in (("a", 1), ("b", 1), ("c", 2))
    )
    assert one.model.read_bytes() == other.model.read_bytes()
    assert one.digest == other.digest
    assert one.digest != third.digest


@pytest.mark.parametrize("size", [Size(100, 1, 112), Size(128, 1, 113)])
def test_sizes_that_cannot_be_are_refused(size: Size) -> None:
    with pytest.raises(ValueError, match="must be"):
        _ = size.heads, size.patch
