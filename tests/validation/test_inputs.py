"""Golden data are measured before they are read; generated inputs stay within the contract."""

from __future__ import annotations

import io
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nwmctl.errors import GoldenDataError
from nwmctl.validation.inputs import extreme_inputs, random_inputs, read_golden
from tests.validation import plant


@pytest.fixture(scope="module")
def golden(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return plant.write_golden(tmp_path_factory.mktemp("golden") / "golden.npz", rows=12)


def entries(golden: Path) -> dict[str, np.ndarray]:
    with np.load(golden) as held:
        return {key: held[key] for key in held.files}


def saved(folder: Path, named: dict[str, np.ndarray]) -> Path:
    path = folder / "changed.npz"
    np.savez(path, **named)  # type: ignore[arg-type]
    return path


def test_golden_data_come_back_as_they_were(golden: Path) -> None:
    read = read_golden(golden, plant.CONTRACT)
    assert read.rows == 12
    assert read.head(3).rows == 3
    for name, values in entries(golden).items():
        kind, tensor = name.split("/")
        np.testing.assert_array_equal((read.inputs if kind == "in" else read.outputs)[tensor], values)


def test_fortran_order_is_understood(golden: Path, tmp_path: Path) -> None:
    held = entries(golden)
    turned = {key: np.asfortranarray(values) for key, values in held.items()}
    read = read_golden(saved(tmp_path, turned), plant.CONTRACT)
    np.testing.assert_array_equal(read.inputs["route"], held["in/route"])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda held: held.pop("in/ego"), "missing: ['in/ego']"),
        (lambda held: held.update({"in/more": held["in/ego"]}), "too many: ['in/more']"),
        (lambda held: held.update({"in/ego": held["in/ego"][:3]}), "tensors have [3, 12] rows"),
        (lambda held: held.update({"in/ego": held["in/ego"][:, :2]}), "in/ego is float32[12, 2, 6]"),
        (lambda held: held.update({"in/ego": held["in/ego"].astype(np.float64)}), "in/ego is float64"),
        (lambda held: held.update({"out/control": np.full_like(held["out/control"], np.nan)}), "out/control has some"),
        (lambda held: held.update({key: v[:0] for key, v in held.items()}), "tensors have [0] rows"),
    ],
)
def test_other_tensors_than_the_contracts_are_refused(golden: Path, tmp_path: Path, change, said: str) -> None:  # type: ignore[no-untyped-def]
    held = entries(golden)
    change(held)
    with pytest.raises(GoldenDataError) as refusal:
        read_golden(saved(tmp_path, held), plant.CONTRACT)
    assert said in str(refusal.value)


def test_a_pickle_is_never_opened(golden: Path, tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[object, ...]:
            return (pytest.fail, ("unpickled",))

    held = entries(golden)
    path = saved(tmp_path, held)
    body = io.BytesIO()
    np.lib.format.write_array_header_1_0(body, {"descr": "|O", "fortran_order": False, "shape": (12, 4, 6)})
    with zipfile.ZipFile(tmp_path / "trap.npz", "w") as trap, zipfile.ZipFile(path) as good:
        for info in good.infolist():
            data = body.getvalue() + pickle.dumps(Trap()) if info.filename == "in/ego.npy" else good.read(info)
            trap.writestr(info.filename, data)
    with pytest.raises(GoldenDataError):
        read_golden(tmp_path / "trap.npz", plant.CONTRACT)


def test_a_file_that_unpacks_to_too_much_is_refused_unread(golden: Path) -> None:
    with pytest.raises(GoldenDataError, match="too large"):
        read_golden(golden, plant.CONTRACT, limit=1000)


def test_a_header_that_claims_more_than_there_is_is_refused(golden: Path, tmp_path: Path) -> None:
    body = io.BytesIO()
    np.lib.format.write_array_header_1_0(body, {"descr": "<f4", "fortran_order": False, "shape": (10**12, 4, 6)})
    with zipfile.ZipFile(tmp_path / "big.npz", "w") as big, zipfile.ZipFile(golden) as good:
        for info in good.infolist():
            big.writestr(info.filename, body.getvalue() if info.filename == "in/ego.npy" else good.read(info))
    with pytest.raises(GoldenDataError, match="damaged"):
        read_golden(tmp_path / "big.npz", plant.CONTRACT)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damaged_bytes_are_refused_or_read_never_anything_else(
    golden: Path, tmp_path: Path, data: st.DataObject
) -> None:
    raw = bytearray(golden.read_bytes())
    for _ in range(data.draw(st.integers(1, 6))):
        place = data.draw(st.integers(0, len(raw) - 1))
        raw[place] = data.draw(st.integers(0, 255))
    path = tmp_path / "fuzzed.npz"
    path.write_bytes(raw[: data.draw(st.integers(0, len(raw)))] if data.draw(st.booleans()) else raw)
    try:
        read = read_golden(path, plant.CONTRACT)
    except GoldenDataError:
        return
    assert read.rows == 12


def test_generated_inputs_stay_within_the_channels_limits(golden: Path) -> None:
    held = read_golden(golden, plant.CONTRACT)
    for made in (random_inputs(plant.CONTRACT, held, 40, seed=1), extreme_inputs(plant.CONTRACT, held)):
        for spec in plant.CONTRACT.inputs:
            values = made[spec.name]
            assert values.dtype == np.float32
            assert values.shape[1:] == spec.shape[1:]
            for index, channel in enumerate(spec.channels):
                seen = held.inputs[spec.name][..., index]
                low = seen.min() if channel.low is None else channel.low
                high = seen.max() if channel.high is None else channel.high
                assert values[..., index].min() >= np.float32(low)
                assert values[..., index].max() <= np.float32(high)


def test_extremes_reach_both_ends_of_every_channel_and_seeds_matter(golden: Path) -> None:
    held = read_golden(golden, plant.CONTRACT)
    made = extreme_inputs(plant.CONTRACT, held)
    assert made["ego"][..., 0].max() == 45.0
    assert made["agents"][..., 1].min() == -120.0
    one, same, other = (random_inputs(plant.CONTRACT, held, 8, seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one["route"], same["route"])
    assert not np.array_equal(one["route"], other["route"])
