"""A small driver in plain numpy, its contract and golden data, and the ways in which a compiler might break it.

It steers by pure pursuit and keeps its distance; good enough to drive the simulator's scenarios, and fast enough to
break it twenty times in a test run.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from nwmctl.domain.artifact import ArtifactManifest, Precision, Recipe, RuntimeNeeds
from nwmctl.domain.chassis import Chassis
from nwmctl.domain.digest import digest_bytes
from nwmctl.domain.figure import Confidence, Figure, Obtained
from nwmctl.domain.model import Channel, ModelContract, TensorSpec
from nwmctl.domain.platform import (
    Budget,
    Build,
    Chip,
    Envelope,
    EnvelopeLimit,
    PlatformProfile,
    Role,
    Seat,
    Slots,
    Variant,
    VehicleModel,
)
from nwmctl.domain.policy import FleetRules, Rule
from nwmctl.driving import constants as k
from nwmctl.driving import episode
from nwmctl.driving.scenarios import paired
from nwmctl.toolchains.protocol import Tensors
from nwmctl.validation.suite import Pace, StepCost, Subject, Way

Drive = Callable[[Mapping[str, NDArray[np.generic]]], Tensors]


def channels(*named: tuple[str, str, float | None, float | None]) -> tuple[Channel, ...]:
    return tuple(Channel(*entry) for entry in named)


CONTRACT = ModelContract(
    inputs=(
        TensorSpec(
            "ego",
            "float32",
            ("B", 4, 6),
            channels(
                ("speed", "m/s", 0.0, 45.0),
                ("steer", "rad", -0.5, 0.5),
                ("accel", "m/s2", -6.0, 3.0),
                ("lateral", "m", -3.0, 3.0),
                ("heading_error", "rad", -1.0, 1.0),
                ("cruise", "m/s", 3.0, 40.0),
            ),
            "own state",
        ),
        TensorSpec(
            "agents",
            "float32",
            ("B", 8, 4, 6),
            channels(
                ("presence", "1", 0.0, 1.0),
                ("x", "m", -120.0, 120.0),
                ("y", "m", -120.0, 120.0),
                ("vx", "m/s", None, None),
                ("vy", "m/s", None, None),
                ("turned", "1", -1.0, 1.0),
            ),
            "others",
        ),
        TensorSpec("route", "float32", ("B", 15, 2), channels(("x", "m", -10.0, 95.0), ("y", "m", -90.0, 90.0)), "way"),
    ),
    outputs=(
        TensorSpec(
            "control",
            "float32",
            ("B", 10, 2),
            channels(("steer", "rad", -0.5, 0.5), ("accel", "m/s2", -6.0, 3.0)),
            "commands",
        ),
        TensorSpec("outlook", "float32", ("B", 2), channels(("gap", "m", None, None), ("bend", "rad", None, None)), ""),
    ),
    rate_hz=5.0,
)


def drive(seen: Mapping[str, NDArray[np.generic]]) -> Tensors:
    """The model as trained."""
    ego, agents, route = (seen[name].astype(np.float64) for name in ("ego", "agents", "route"))
    speed, cruise = ego[:, -1, 0], ego[:, -1, 5]
    look = np.clip(0.6 * speed + 3.0, 4.0, 20.0)
    x = np.array([np.interp(d, k.ROUTE_DISTANCES, r) for d, r in zip(look, route[..., 0], strict=True)])
    y = np.array([np.interp(d, k.ROUTE_DISTANCES, r) for d, r in zip(look, route[..., 1], strict=True)])
    bearing = np.arctan2(y, np.maximum(x, 0.1))
    steer = np.arctan(2.0 * k.WHEELBASE * np.sin(bearing) / np.hypot(x, y).clip(1.0))
    here, ax, ay, vx = (agents[:, :, -1, i] for i in range(4))
    path_y = np.stack([np.interp(a, r[:, 0], r[:, 1]) for a, r in zip(ax, route, strict=True)])
    ahead = (here > 0.5) & (ax > 0.0) & (np.abs(ay - path_y) < 2.5)
    gap = np.where(ahead, ax - 4.0, 200.0).min(axis=1).clip(0.5)
    closing = speed - np.where(ahead, vx, np.inf).min(axis=1).clip(None, 60.0)
    wish = 2.0 + 1.2 * speed + np.clip(speed * closing / 4.0, 0.0, None)
    bend = np.abs(np.arctan2(route[:, 8, 1], np.maximum(route[:, 8, 0], 0.1)))
    goal = np.maximum(cruise * (1.0 - 0.6 * np.minimum(bend, 1.0)), 2.0)
    accel = 1.5 * (1.0 - (speed / goal) ** 4 - (wish / gap) ** 2)
    fade = np.linspace(1.0, 0.4, k.HORIZON)
    control = np.stack([steer[:, None] * fade, accel[:, None] * fade], axis=-1)
    limited = np.clip(control, [-0.5, -6.0], [0.5, 3.0]).astype(np.float32)
    return {"control": limited, "outlook": np.stack([gap, bend], axis=-1).astype(np.float32)}


class FunctionSession:
    """A session over a function, one row at a time or in batches."""

    def __init__(self, function: Drive) -> None:
        self.function = function
        self.closed = 0
        self.calls = 0

    def run(self, inputs: Mapping[str, NDArray[np.generic]]) -> Tensors:
        self.calls += 1
        return self.function(inputs)

    @property
    def seconds(self) -> tuple[float, ...]:
        return (0.001,)

    def close(self) -> None:
        self.closed += 1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


# --- broken on purpose --------------------------------------------------------------------------------------------


def on_control(change: Callable[[NDArray[np.float32]], NDArray[np.float32]]) -> Callable[[], Drive]:
    def build() -> Drive:
        def broken(seen: Mapping[str, NDArray[np.generic]]) -> Tensors:
            out = drive(seen)
            return {**out, "control": change(out["control"].astype(np.float32)).astype(np.float32)}

        return broken

    return build


def scaled(steer: float, accel: float) -> Callable[[], Drive]:
    return on_control(lambda control: control * np.array([steer, accel], np.float32))


def delayed() -> Drive:
    """Answers the question before."""
    last: list[NDArray[np.generic]] = []

    def broken(seen: Mapping[str, NDArray[np.generic]]) -> Tensors:
        out = drive(seen)
        now = out["control"]
        before = last[0] if last and last[0].shape == now.shape else now
        last[:] = [now]
        return {**out, "control": before}

    return broken


def kilometres_per_hour() -> Drive:
    def broken(seen: Mapping[str, NDArray[np.generic]]) -> Tensors:
        ego = seen["ego"] * np.array([3.6, 1, 1, 1, 1, 1], np.float32)
        return drive({**seen, "ego": ego})

    return broken


def half_precision() -> Drive:
    """A clean fp16 artifact: inputs and outputs rounded to half precision."""

    def rounded(values: NDArray[np.generic]) -> NDArray[np.generic]:
        return values.astype(np.float16).astype(np.float32)

    def clean(seen: Mapping[str, NDArray[np.generic]]) -> Tensors:
        return {name: rounded(values) for name, values in drive({n: rounded(v) for n, v in seen.items()}).items()}

    return clean


def nan_on_rare_input() -> Drive:
    """Finite on everyday inputs, NaN at the far end of an input's range."""

    def broken(seen: Mapping[str, NDArray[np.generic]]) -> Tensors:
        out = drive(seen)
        rare = seen["ego"][:, -1, 0] > 44.0
        control = out["control"].copy()
        control[rare, 0, 1] = np.nan
        return {**out, "control": control}

    return broken


# --- subjects -----------------------------------------------------------------------------------------------------


@cache
def golden_rows(rows: int = 48, seed: int = 5) -> Tensors:
    """Observations along drives of the model itself; made once, not to be changed."""
    seen: dict[str, list[NDArray[np.generic]]] = {}

    def recorded(observation: Mapping[str, NDArray[np.float32]]) -> NDArray[np.floating]:
        for name, values in observation.items():
            seen.setdefault(name, []).append(values)
        return drive(observation)["control"].astype(np.float64)

    episode.run(recorded, paired(20, seed))
    joined = {name: np.concatenate(parts[3:40:8]) for name, parts in seen.items()}
    chosen = np.random.default_rng(seed).permutation(len(joined["ego"]))[:rows]
    return {name: np.ascontiguousarray(values[chosen]) for name, values in joined.items()}


def write_golden(path: Path, rows: int = 48) -> Path:
    inputs = golden_rows(rows)
    named = {f"in/{name}": values for name, values in inputs.items()}
    named |= {f"out/{name}": values for name, values in drive(inputs).items()}
    np.savez_compressed(path, **named)  # type: ignore[arg-type]
    return path


def write_graph(path: Path, contract: ModelContract = CONTRACT) -> Path:
    """An ONNX file with the contract's inputs and outputs, which nobody can run."""
    import onnx
    from onnx import TensorProto, helper

    def value(spec: TensorSpec) -> object:
        kind = {"float32": TensorProto.FLOAT, "float16": TensorProto.FLOAT16}[spec.dtype]
        return helper.make_tensor_value_info(spec.name, kind, list(spec.shape))

    nodes = [helper.make_node("Identity", [contract.inputs[0].name], [spec.name]) for spec in contract.outputs]
    graph = helper.make_graph(nodes, "plant", [value(s) for s in contract.inputs], [value(s) for s in contract.outputs])
    onnx.save(helper.make_model(graph), str(path))
    return path


def known(value: float | None, unit: str) -> Figure:
    return Figure(value, unit, "test", Confidence.UNKNOWN if value is None else Confidence.ASSUMED)


def envelope() -> Envelope:
    """Limits as the shipped profiles have them."""
    return Envelope(
        EnvelopeLimit(known(0.2, "1/m")),
        EnvelopeLimit(known(3.0, "m/s2")),
        EnvelopeLimit(known(5.0, "m/s3"), 0.5),
        EnvelopeLimit(known(4.0, "m/s2")),
        EnvelopeLimit(known(5.0, "m/s2")),
        EnvelopeLimit(known(5.0, "m/s3"), 1.0),
    )


def vehicle(code: str = "car", **changes: float) -> VehicleModel:
    """A vehicle model that can do all that the simulator's can, with chassis figures changed."""
    figures = {
        "wheelbase": 2.8,
        "steering_ratio": 14.0,
        "max_road_wheel_angle": 0.6,
        "max_acceleration": 4.0,
        "max_deceleration": 9.0,
        "actuation_delay": 0.15,
        **changes,
    }
    chassis = Chassis(**{name: known(value, "") for name, value in figures.items()})
    return VehicleModel(code, code, "none", "nt2.0", "one", "Bench", chassis, "test", Confidence.ASSUMED)


def profile(name: str = "nt2.0", unit: str = "cpu", bandwidth: float | None = 200.0) -> PlatformProfile:
    chip = Chip(
        "chip", "", known(bandwidth, "GB/s"), known(None, "GB"), {f"{unit}.fp32": known(1.0, "TFLOPS")}, ("sm_87",)
    )
    build = Build("main", "chip", unit, (Role.MAIN,), (Recipe("iree", Precision.FP32),))
    seat = Seat(Role.MAIN, "chip", 1, "test", Confidence.ASSUMED)
    variant = Variant("one", "1", (seat,), (build,), "test", Confidence.ASSUMED)
    budget = Budget(known(50.0, "ms"), known(100.0, "MB"), known(0.5, ""))
    return PlatformProfile(
        name, name.upper(), "board", "", (chip,), (variant,), budget, Slots("/a", "/b"), envelope=envelope()
    )


def manifest(**changes: object) -> ArtifactManifest:
    made = ArtifactManifest(
        model=digest_bytes(b"model"),
        recipe=Recipe("iree", Precision.FP32),
        payload=digest_bytes(b"payload"),
        size=3_000_000,
        format="vmfb",
        argv=("iree-compile",),
        toolchain_version="1",
        instruction_set="armv8.2-a",
        found={"fmla.4s": 900},
        found_precision=Precision.FP32,
        needs=RuntimeNeeds("iree", "1"),
    )
    return replace(made, **changes)  # type: ignore[arg-type]


MARGINS = {
    "parity": Rule(
        Obtained.PROXY,
        margins={
            "steer.max_abs": 0.01,
            "accel.max_abs": 0.1,
            "steer.gain_error": 0.02,
            "accel.gain_error": 0.02,
            "steer.offset": 0.003,
            "accel.offset": 0.03,
            "steer.sign_flips": 0.0,
            "steer.p99_abs": 0.003,
            "accel.p99_abs": 0.03,
            "steer.delay_steps": 0.15,
            "accel.delay_steps": 0.15,
        },
    ),
    "control_envelope": Rule(
        Obtained.PROXY,
        margins={"limited_share": 0.0, "guarded_shift": 0.03, "infeasible_share": 0.01},
    ),
    "closed_loop": Rule(
        Obtained.PROXY,
        margins={
            "median_path_deviation_m": 0.3,
            "failure_rate_shift": 0.15,
            "score_shift": 0.1,
            "outcome_change_confidence": 0.99,
        },
    ),
}
RULES = FleetRules({"*": MARGINS})


def subject(
    folder: Path, build: Callable[[], Drive], obtained: Obtained = Obtained.PROXY, pace: Pace = Pace.BATCH
) -> Subject:
    """An artifact that behaves as ``build()`` does, beside the model as trained."""
    golden, weights = folder / "golden.npz", folder / "weights.onnx"
    if not golden.exists():
        write_golden(golden)
        write_graph(weights)
    place = profile()
    return Subject(
        contract=CONTRACT,
        weights=weights,
        weights_digest=digest_bytes(b"plant"),
        golden=golden,
        manifest=manifest(),
        profile=place,
        build=place.variants[0].builds[0],
        reference=lambda: FunctionSession(drive),
        ways=(Way(obtained, "host twin", pace, lambda: FunctionSession(build())),),
        cost=StepCost(2_700_000, 400_000, 20_000_000),
        vehicles=(vehicle(), vehicle("long-car", wheelbase=3.1)),
    )
