"""The two released packages: they load, match their golden data, keep their limits, and drive."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from nwmctl.domain.digest import digest_bytes
from nwmctl.domain.model import CARD_NAME, ModelCard
from nwmctl.driving import constants as k
from nwmctl.driving import episode, metrics
from nwmctl.driving.families import generate_all
from nwmctl.driving.observe import observe
from nwmctl.driving.scenarios import paired
from nwmctl.driving.world import World
from nwmctl.formats import model_card

EXAMPLES = Path(__file__).parents[2] / "examples"
NAMES = ("nwm-2.0", "nwm-2.5")
INPUTS = ("ego", "agents", "route")
Arrays = dict[str, npt.NDArray[np.float32]]


@cache
def card_of(name: str) -> ModelCard:
    return model_card.decode((EXAMPLES / name / "model" / CARD_NAME).read_bytes(), CARD_NAME)


@cache
def session_of(name: str) -> Any:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    path = EXAMPLES / name / "model" / card_of(name).files["weights"].path
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def outputs(name: str, seen: Mapping[str, npt.NDArray[np.float32]]) -> Arrays:
    names = [spec.name for spec in card_of(name).contract.outputs]
    return dict(zip(names, session_of(name).run(names, {i: seen[i] for i in INPUTS}), strict=True))


def policy(name: str) -> episode.Policy:
    return lambda seen: np.asarray(session_of(name).run(["control"], {i: seen[i] for i in INPUTS})[0])


def golden(name: str, side: str) -> Arrays:
    with np.load(EXAMPLES / name / "model" / card_of(name).files["golden"].path) as found:
        return {key.removeprefix(f"{side}/"): found[key] for key in found.files if key.startswith(f"{side}/")}


def rollout(control: npt.NDArray[np.float64], speed: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The bicycle, written down a second time: pose after each of ten commands [B,10,3]."""
    x, y, heading = np.zeros_like(speed), np.zeros_like(speed), np.zeros_like(speed)
    poses = []
    for step in range(control.shape[1]):
        speed = np.maximum(speed + control[:, step, 1] * k.CONTROL_DT, 0.0)
        slip = np.arctan(0.5 * np.tan(control[:, step, 0]))
        heading = heading + speed * np.sin(slip) / (k.WHEELBASE / 2) * k.CONTROL_DT
        x = x + speed * np.cos(heading + slip) * k.CONTROL_DT
        y = y + speed * np.sin(heading + slip) * k.CONTROL_DT
        poses.append(np.stack([x, y, heading], axis=-1))
    return np.stack(poses, axis=1)


@pytest.mark.parametrize("name", NAMES)
def test_the_files_are_what_the_card_lists(name: str) -> None:
    card = card_of(name)
    assert set(card.files) == {"weights", "calibration", "golden"}
    for entry in card.files.values():
        data = (EXAMPLES / name / "model" / entry.path).read_bytes()
        assert (len(data), digest_bytes(data)) == (entry.size, entry.digest)


@pytest.mark.parametrize("name", NAMES)
def test_the_graph_has_the_contract_that_the_card_states(name: str) -> None:
    session, contract = session_of(name), card_of(name).contract
    assert contract.rate_hz == pytest.approx(1 / k.CONTROL_DT)
    for stated, real in ((contract.inputs, session.get_inputs()), (contract.outputs, session.get_outputs())):
        assert [(spec.name, list(spec.shape)) for spec in stated] == [(t.name, list(t.shape)) for t in real]
        assert {t.type for t in real} == {"tensor(float)"}
        assert all(len(spec.channels) == spec.shape[-1] for spec in stated)


@pytest.mark.parametrize("name", NAMES)
def test_golden_data_is_reproduced(name: str) -> None:
    expected, found = golden(name, "out"), outputs(name, golden(name, "in"))
    assert len(expected["control"]) == 16
    for tensor, values in expected.items():
        assert found[tensor] == pytest.approx(values, abs=2e-4), tensor
    assert np.ptp(expected["control"][:, 0, 1]) > 1.0, "golden data must hold braking and accelerating"


@pytest.mark.parametrize("name", NAMES)
def test_calibration_holds_real_observations(name: str) -> None:
    with np.load(EXAMPLES / name / "model" / card_of(name).files["calibration"].path) as found:
        shapes = {key: found[key].shape for key in found.files}
        presence = found["in/agents"][..., 0]
    assert shapes == {"in/ego": (64, 4, 6), "in/agents": (64, 8, 4, 6), "in/route": (64, 15, 2)}
    assert set(np.unique(presence)) == {0.0, 1.0}


@pytest.mark.parametrize("name", NAMES)
def test_control_keeps_its_limits_and_the_trajectory_is_its_rollout(name: str) -> None:
    stream = np.random.default_rng(3)
    seen = {key: values.copy() for key, values in golden(name, "in").items()}
    wild = {key: (values * stream.normal(0.0, 6.0, values.shape)).astype(np.float32) for key, values in seen.items()}
    for given in (seen, wild):
        found = outputs(name, given)
        steer, accel = found["control"][..., 0], found["control"][..., 1]
        assert np.abs(steer).max() <= k.STEER_LIMIT
        assert accel.min() >= k.ACCEL_MIN
        assert accel.max() <= k.ACCEL_MAX
        speed = given["ego"][:, -1, 0].astype(np.float64)
        expected = rollout(found["control"].astype(np.float64), speed)
        assert found["trajectory"] == pytest.approx(expected, rel=1e-4, abs=2e-3)


def test_the_newer_model_predicts_better_than_constant_velocity() -> None:
    """On drives that no training saw: where the agents are after a second, under the controls that followed."""
    world = World(generate_all(paired(40, 6_000_000)))
    drive = policy("nwm-2.5")
    rows: list[tuple[npt.NDArray[Any], ...]] = []
    for _ in range(36):
        seen = observe(world)
        rows.append(
            (
                world.agent_x, world.agent_y, world.x, world.y, world.heading, ~world.ended,
                seen["agents"][:, :, -1], outputs("nwm-2.5", seen)["next_agents"],
            )
        )  # fmt: skip
        world.step(np.asarray(drive(seen), dtype=np.float64)[:, 0])
    model, steady = [], []
    for now, then in zip(rows[:-5], rows[5:], strict=True):
        dx, dy = then[0] - now[2][:, None], then[1] - now[3][:, None]
        c, s = np.cos(now[4])[:, None], np.sin(now[4])[:, None]
        truth = np.stack([dx * c + dy * s, dy * c - dx * s], axis=-1)
        known = (now[6][..., 0] == 1) & then[5][:, None]
        plain = now[6][..., 1:3] + now[6][..., 3:5]
        model.append(np.linalg.norm(now[7][:, :, 1, :2] - truth, axis=-1)[known])
        steady.append(np.linalg.norm(plain - truth, axis=-1)[known])
    assert np.concatenate(model).mean() < 0.75 * np.concatenate(steady).mean()


def test_an_absent_vehicle_changes_nothing_and_is_not_predicted() -> None:
    seen = golden("nwm-2.5", "in")
    swapped = {**seen, "agents": seen["agents"][:, ::-1].copy()}
    one, two = outputs("nwm-2.5", seen), outputs("nwm-2.5", swapped)
    assert one["control"] == pytest.approx(two["control"], abs=1e-4)
    assert one["next_agents"] == pytest.approx(two["next_agents"][:, ::-1], abs=1e-3)
    absent = seen["agents"][:, :, -1, 0] == 0
    assert absent.any()
    assert not one["next_agents"][absent].any()


def test_the_newer_model_drives_better_than_the_older_and_than_standing_idle() -> None:
    ids = paired(50, 7_000_000)
    runs = {name: metrics.summarise(episode.run(policy(name), ids)) for name in NAMES}
    idle = metrics.summarise(episode.run(lambda seen: np.zeros((len(seen["ego"]), 2)), ids))
    assert runs["nwm-2.5"].score > runs["nwm-2.0"].score > idle.score + 0.2
    assert runs["nwm-2.5"].off_road_rate <= 0.02
    assert runs["nwm-2.5"].crash_rate < 0.2


def test_the_lineage_tells_measured_stages() -> None:
    older, newer = (card_of(name).lineage for name in NAMES)
    assert [stage.name for stage in older] == [stage.name for stage in newer[: len(older)]]
    assert len(newer) > len(older)
    first, last = newer[0].metrics, newer[-1].metrics
    assert first["agent_error_1.0s_m"] < first["agent_error_1.0s_constant_velocity_m"]
    assert last["closed_loop_score"] > older[-1].metrics["closed_loop_score"]
    assert last["closed_loop_scenarios"] >= 200
