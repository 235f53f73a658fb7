"""A whole small release folder in a temporary place: two tiny driving models, policy, fleet, release file.

``write_project(folder)`` writes a release that deploys in a few seconds: the platform is ``virtual`` only (three
virtual cars that left their factory with the previous model), both models are small networks that onnxruntime executes,
and every document is signed by keys of this module. Nothing in it is shared between two calls.

To break exactly one thing, write the project and change it through the object that comes back; what has to be signed
again is signed again unless you say otherwise:

    made = write_project(tmp_path / "release")
    made.edit_release(lambda release: release.update(platforms=["nt9"]))      # an unknown platform
    made.edit_policy(lambda policy: policy["virtual"].update(approvals=2))    # another policy, signed
    made.edit_policy(lambda policy: policy.update(version=2), sign=False)     # a policy edited after signing
    made.put_model("model", Network(seed=3))                                  # another model; the release names it
    made.put_model("model", Network(fault=Fault.NAN_AT_SPEED))                # a model that breaks its contract
    made.put_model("model", Network(), signer=STRANGER)                       # a signature by nobody we trust
    (made.folder / "model" / "model.onnx").write_bytes(b"...")                # a file that is not what the card lists
    made.edit_platforms("virtual.yaml", lambda text: text + "speed: 3\n")     # a folder for --platforms

Paths are attributes of the object. Does not run anything; ``tests/e2e/command.py`` does.
"""

from __future__ import annotations

import io
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum, auto
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from numpy.typing import NDArray

from nwmctl.domain.digest import Digest, digest_bytes
from nwmctl.domain.model import (
    CARD_NAME,
    SIGNATURE_NAME,
    Channel,
    FileEntry,
    ModelCard,
    ModelContract,
    TensorSpec,
    TrainingStage,
)
from nwmctl.formats import documents
from nwmctl.storage.resources import platforms_folder
from nwmctl.trust.dsse import MODEL_CARD_TYPE, POLICY_TYPE, sign_dsse
from nwmctl.trust.keys import Ed25519Signer

MODEL_KEY = Ed25519Signer(Ed25519PrivateKey.from_private_bytes(bytes(range(32))))
SAFETY_KEY = Ed25519Signer(Ed25519PrivateKey.from_private_bytes(bytes(range(1, 33))))
STRANGER = Ed25519Signer(Ed25519PrivateKey.from_private_bytes(bytes(range(2, 34))))
"""A key that no release trusts."""

VINS = tuple(f"VIRTUAL-CAR-{number:03}" for number in range(1, 4))
SEQUENCE, FACTORY_SEQUENCE = 20, 10
MARKET = {"market": "CN", "rxswin": "R157 TINY 2", "approval": "CN-2026-0001"}
"""The one market that the release is approved for; its virtual vehicles are of none."""

_STEER = Channel("steer", "rad", -0.5, 0.5)
_ACCEL = Channel("acceleration", "m/s2", -6.0, 3.0)
_SPEED = Channel("speed", "m/s", 0.0, 45.0)
_SEEN = tuple(Channel(name, "m", -100.0, 100.0) for name in ("x", "y", "vx", "vy"))
CONTRACT = ModelContract(
    inputs=(
        TensorSpec(
            "ego",
            "float32",
            ("B", 4, 6),
            (
                _SPEED,
                _STEER,
                _ACCEL,
                Channel("lateral_offset", "m", -3.0, 3.0),
                Channel("heading_error", "rad", -1.0, 1.0),
                Channel("cruise_speed", "m/s", 0.0, 45.0),
            ),
            "own motion",
        ),
        TensorSpec(
            "agents",
            "float32",
            ("B", 8, 4, 6),
            (Channel("presence", "1", 0.0, 1.0), *_SEEN, Channel("sin_heading", "1", -1.0, 1.0)),
            "other vehicles",
        ),
        TensorSpec(
            "route",
            "float32",
            ("B", 15, 2),
            (Channel("x", "m", -100.0, 100.0), Channel("y", "m", -100.0, 100.0)),
            "the route ahead",
        ),
    ),
    outputs=(TensorSpec("control", "float32", ("B", 10, 2), (_STEER, _ACCEL), "commands for two seconds"),),
    rate_hz=5.0,
)

PARITY = {
    "steer.max_abs": 0.005,
    "steer.gain_error": 0.02,
    "steer.offset": 0.002,
    "steer.sign_flips": 0.0,
    "acceleration.max_abs": 0.2,
    "acceleration.gain_error": 0.03,
    "acceleration.offset": 0.02,
    "acceleration.sign_flips": 0.0,
}
DRIVING = {
    "median_path_deviation_m": 0.4,
    "failure_rate_shift": 0.1,
    "score_shift": 0.06,
    "outcome_change_confidence": 0.99,
}


class Fault(Enum):
    """What is wrong with a network's graph."""

    NONE = auto()
    MISSING_OUTPUT = auto()
    """The graph has no ``control``."""
    WRONG_SHAPE = auto()
    """``control`` has nine steps, the contract says ten."""
    NAN_AT_SPEED = auto()
    """Not a number above 30 m/s: far from the golden data, inside the contract."""
    BIAS = auto()
    """Steers 0.03 rad to the left of what the golden data say."""


@dataclass(frozen=True)
class Network:
    """A tiny driver: pursues the route, holds its speed, and a small hidden layer that ``seed`` makes its own.

    ``width`` of the hidden layer; ``tuned``: how far a fine-tune has moved its weights, as a share of each."""

    seed: int = 0
    fault: Fault = Fault.NONE
    version: str = ""
    width: int = 16
    tuned: float = 0.0

    @property
    def weights(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Of the hidden layer: [246,width] and [width,2]."""
        dice = np.random.default_rng(self.seed)
        up = dice.normal(size=(246, self.width)) * 0.004
        down = dice.normal(size=(self.width, 2)) * np.array([0.02, 0.2]) * np.sqrt(16 / self.width)
        if self.tuned:
            up *= 1 + self.tuned * dice.normal(size=up.shape)
        return up.astype(np.float32), down.astype(np.float32)

    def answer(self, seen: Mapping[str, NDArray[np.float32]]) -> NDArray[np.float32]:
        """The network in numpy: the independent reference of the graph (without its fault)."""
        flat = np.concatenate([seen[name].reshape(len(seen[name]), -1) for name in ("ego", "agents", "route")], axis=1)
        up, down = self.weights
        hidden = np.tanh(flat.astype(np.float64) @ up) @ down
        ego = seen["ego"][:, -1].astype(np.float64)
        plain = np.stack([0.03 * seen["route"][:, 5, 1], 0.4 * (ego[:, 5] - ego[:, 0])], axis=1)
        now = np.clip(plain + hidden, [-0.5, -6.0], [0.5, 3.0])
        return (now[:, None, :] * _fade()).astype(np.float32)

    def graph(self) -> bytes:
        """The same as ONNX."""
        import onnx
        from onnx import TensorProto, helper, numpy_helper

        up, down = self.weights
        steps = 9 if self.fault is Fault.WRONG_SHAPE else 10
        name = "controls" if self.fault is Fault.MISSING_OUTPUT else "control"
        bias = np.array([0.03 if self.fault is Fault.BIAS else 0.0, 0.0], np.float32)
        held = {
            "up": up,
            "down": down,
            "flat": np.array([0, -1], np.int64),
            "newest": np.array(3, np.int64),
            "ahead": np.array(5, np.int64),
            "zero": np.array([0], np.int64),
            "one": np.array([1], np.int64),
            "five": np.array([5], np.int64),
            "gains": np.array([0.03, 0.4], np.float32),
            "bias": bias,
            "low": np.array([-0.5, -6.0], np.float32),
            "high": np.array([0.5, 3.0], np.float32),
            "fade": _fade()[:, :steps].astype(np.float32),
            "edge": np.array(30.0, np.float32),
            "none": np.array(0.0, np.float32),
        }
        nodes = [
            *(helper.make_node("Reshape", [part, "flat"], [f"{part}_flat"]) for part in ("ego", "agents", "route")),
            helper.make_node("Concat", ["ego_flat", "agents_flat", "route_flat"], ["seen"], axis=1),
            helper.make_node("MatMul", ["seen", "up"], ["raised"]),
            helper.make_node("Tanh", ["raised"], ["bent"]),
            helper.make_node("MatMul", ["bent", "down"], ["hidden"]),
            helper.make_node("Gather", ["ego", "newest"], ["now"], axis=1),
            helper.make_node("Gather", ["now", "zero"], ["speed"], axis=1),
            helper.make_node("Gather", ["now", "five"], ["cruise"], axis=1),
            helper.make_node("Gather", ["route", "ahead"], ["point"], axis=1),
            helper.make_node("Gather", ["point", "one"], ["side"], axis=1),
            helper.make_node("Sub", ["cruise", "speed"], ["slow"]),
            helper.make_node("Concat", ["side", "slow"], ["wish"], axis=1),
            helper.make_node("Mul", ["wish", "gains"], ["plain"]),
            helper.make_node("Add", ["plain", "hidden"], ["sum"]),
            helper.make_node("Add", ["sum", "bias"], ["free"]),
            helper.make_node("Max", ["free", "low"], ["above"]),
            helper.make_node("Min", ["above", "high"], ["limited"]),
        ]
        last = "limited"
        if self.fault is Fault.NAN_AT_SPEED:
            nodes += [
                helper.make_node("Sub", ["edge", "speed"], ["left"]),
                helper.make_node("Sqrt", ["left"], ["root"]),
                helper.make_node("Mul", ["root", "none"], ["poison"]),
                helper.make_node("Add", ["limited", "poison"], ["poisoned"]),
            ]
            last = "poisoned"
        nodes += [
            helper.make_node("Unsqueeze", [last, "one"], ["first"]),
            helper.make_node("Mul", ["first", "fade"], [name]),
        ]
        used = {source for node in nodes for source in node.input}
        graph = helper.make_graph(
            nodes,
            "tiny",
            [helper.make_tensor_value_info(spec.name, TensorProto.FLOAT, list(spec.shape)) for spec in CONTRACT.inputs],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["B", steps, 2])],
            [numpy_helper.from_array(values, key) for key, values in held.items() if key in used],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        onnx.checker.check_model(model, full_check=True)
        return bytes(model.SerializeToString())


def _fade() -> NDArray[np.float64]:
    return np.linspace(1.0, 0.6, 10)[None, :, None]


def _observations(rows: int, seed: int) -> dict[str, NDArray[np.float32]]:
    """Plausible inputs, every row another."""
    dice = np.random.default_rng(seed)
    made = {spec.name: dice.uniform(-1, 1, (rows, *map(int, spec.shape[1:]))) for spec in CONTRACT.inputs}
    made["ego"] *= [0, 0.2, 2.0, 1.0, 0.3, 0]
    made["ego"][..., 0], made["ego"][..., 5] = dice.uniform(3, 25, (rows, 1)), dice.uniform(8, 25, (rows, 1))
    made["agents"][..., 0] = made["agents"][..., 0] > 0
    made["agents"][..., 1:5] *= made["agents"][..., :1] * 40
    made["route"][..., 0] = np.linspace(0, 90, 15)
    made["route"][..., 1] = dice.uniform(-0.1, 0.1, (rows, 1)) * np.linspace(0, 90, 15)
    return {name: values.astype(np.float32) for name, values in made.items()}


def _packed(arrays: Mapping[str, NDArray[np.float32]]) -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
    return buffer.getvalue()


def write_model(folder: Path, network: Network, *, name: str = "tiny", signer: Ed25519Signer = MODEL_KEY) -> Digest:
    """Write a signed model package; gives the digest that a release names."""
    folder.mkdir(parents=True, exist_ok=True)
    seen = _observations(24, 7)
    files = {
        "weights": ("model.onnx", network.graph()),
        "calibration": ("calibration.npz", _packed({f"in/{key}": values for key, values in seen.items()})),
        "golden": (
            "golden.npz",
            _packed({**{f"in/{key}": values for key, values in seen.items()}, "out/control": network.answer(seen)}),
        ),
    }
    card = ModelCard(
        name=name,
        version=network.version or f"0.{network.seed}" + (f"-tuned-{network.tuned:g}" if network.tuned else ""),
        description="a tiny driver for tests",
        parameters=sum(values.size for values in network.weights),
        contract=CONTRACT,
        lineage=(TrainingStage("none", "drawn, not trained", (network.seed,)),),
        files={role: FileEntry(path, digest_bytes(data), len(data)) for role, (path, data) in files.items()},
        licence="Apache-2.0",
    )
    for path, data in files.values():
        (folder / path).write_bytes(data)
    data = documents.encode(card)
    (folder / CARD_NAME).write_bytes(data)
    (folder / SIGNATURE_NAME).write_bytes(sign_dsse(data, MODEL_CARD_TYPE, signer))
    return digest_bytes(data)


def policy_plain(*, driving: bool = False) -> dict[str, Any]:
    """The policy as a person would write it. ``driving`` demands the closed loop, which costs a second per model."""

    def rules(weakest: str) -> dict[str, Any]:
        made: dict[str, Any] = {
            "contract": {"weakest": weakest},
            "negative_control": {"weakest": weakest},
            "parity": {"weakest": weakest, "margins": dict(PARITY)},
            "instruction_set": {"weakest": "estimated"},
            "budget": {"weakest": "estimated"},
        }
        if driving:
            made["closed_loop"] = {"weakest": weakest, "margins": dict(DRIVING)}
        return made

    real = rules("bench")
    real["closed_loop"] = {"weakest": "bench", "margins": dict(DRIVING)}
    real["latency"] = {"weakest": "bench", "margins": {"latency_p99_ms": 50.0}}
    return {
        "schema": "nwmctl.policy/1",
        "name": "test",
        "version": 1,
        "virtual": {"approvals": 0, "platforms": {"*": rules("proxy")}},
        "real": {"approvals": 0, "platforms": {"*": real}},
    }


def release_plain() -> dict[str, Any]:
    """The release file without its digests."""
    return {
        "schema": "nwmctl.release/1",
        "name": "tiny-2",
        "sequence": SEQUENCE,
        "model": {"uri": "model"},
        "previous": {"uri": "previous"},
        "platforms": ["virtual"],
        "policy": "policy.yaml",
        "trust": {"model_keys": [MODEL_KEY.public], "safety_keys": [SAFETY_KEY.public]},
        "fleet": {
            "name": "yard",
            "inventory": "fleet.csv",
            "virtual": True,
            "factory_sequence": FACTORY_SEQUENCE,
        },
        "mirrors": [{"name": "local", "uri": "file:mirrors/local"}],
        "waves": [
            {"name": "canary", "per_model": 1, "gate": {"min_committed": 1.0, "max_failed": 0.0}},
            {"name": "rest", "share": 1.0, "gate": {"min_committed": 1.0, "max_failed": 0.0}},
        ],
        "markets": [MARKET],
        "max_attempts": 1,
        "poll_s": 0.2,
    }


@dataclass(frozen=True)
class ProjectFiles:
    """A release folder on disk, and how to change one thing in it."""

    folder: Path

    @property
    def release(self) -> Path:
        return self.folder / "release.yaml"

    @property
    def policy(self) -> Path:
        return self.folder / "policy.yaml"

    @property
    def fleet(self) -> Path:
        return self.folder / "fleet.csv"

    @property
    def platforms(self) -> Path:
        """The folder for ``--platforms``; exists once ``edit_platforms`` was called."""
        return self.folder / "platforms"

    def edit_release(self, change: Callable[[dict[str, Any]], object]) -> None:
        """Change the release file through its plain value."""
        plain = yaml.safe_load(self.release.read_bytes())
        change(plain)
        self.release.write_text(yaml.safe_dump(plain, sort_keys=False))

    def edit_policy(self, change: Callable[[dict[str, Any]], object], *, sign: bool = True) -> None:
        """Change the policy; ``sign=False`` leaves the signature of what it was."""
        plain = yaml.safe_load(self.policy.read_bytes())
        change(plain)
        self._write_policy(plain, sign=sign)

    def put_model(self, which: str, network: Network, *, signer: Ed25519Signer = MODEL_KEY) -> Digest:
        """Replace ``model`` or ``previous`` and let the release name the new digest."""
        digest = write_model(self.folder / which, network, signer=signer)
        self.edit_release(lambda release: release[which].update(digest=str(digest)))
        return digest

    def edit_platforms(self, name: str, change: Callable[[str], str]) -> Path:
        """Copy the embedded profiles once and change the text of one file; gives the folder for ``--platforms``."""
        if not self.platforms.exists():
            shutil.copytree(platforms_folder(), self.platforms)
        file = self.platforms / name
        text = file.read_text() if file.exists() else ""
        changed = change(text)
        assert changed != text, "the change changed nothing"
        file.write_text(changed)
        return self.platforms

    def _write_policy(self, plain: dict[str, Any], *, sign: bool) -> None:
        data = yaml.safe_dump(plain, sort_keys=False).encode()
        self.policy.write_bytes(data)
        if sign:
            self.policy.with_name("policy.yaml.sig").write_bytes(sign_dsse(data, POLICY_TYPE, SAFETY_KEY))


def write_project(folder: Path, *, driving: bool = False) -> ProjectFiles:
    """A release folder in which nothing is wrong. ``driving`` lets the policy demand the closed loop."""
    folder.mkdir(parents=True)
    made = ProjectFiles(folder)
    made.release.write_text(yaml.safe_dump(release_plain(), sort_keys=False))
    made._write_policy(policy_plain(driving=driving), sign=True)
    lines = [f"{vin},virtual-car,Bench,{FACTORY_SEQUENCE}" for vin in VINS]
    made.fleet.write_text("\n".join(["vin,vehicle_model,baseline,sequence", *lines, ""]))
    made.put_model("model", Network(seed=2))
    made.put_model("previous", Network(seed=1))
    return made
