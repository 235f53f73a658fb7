"""The generated model of the benchmarks: a driving transformer with seeded weights, as a whole model package.

Seven camera images, history, ego and navigation go in; control [20,3] and the trajectory that follows from it come
out. Nothing is trained: weights have the scales of a trained network (activations of order one, a few channels far
larger, as normalisations leave them), so that reduced precision costs what it costs in practice. The same arguments
give the same weights and the same recorded inputs. ``torch_model`` builds a network with these very weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from benchmarks.model_graph import (
    CAMERAS,
    COLUMNS,
    EGO,
    HISTORY,
    HORIZON,
    NAVIGATION,
    RATE_HZ,
    ROWS,
    Size,
    write_graph,
)
from nwmctl.domain.digest import Digest, digest_bytes
from nwmctl.domain.model import BATCH, CARD_NAME, Channel, FileEntry, ModelCard, ModelContract, TensorSpec
from nwmctl.formats import model_card
from nwmctl.toolchains.files import file_digest

Floats = NDArray[np.float32]

_MOTION: Final = (
    Channel("speed", "m/s", 0.0, 60.0),
    Channel("steer", "rad", -0.5, 0.5),
    Channel("acceleration", "m/s2", -6.0, 3.0),
    Channel("lateral_offset", "m", -4.0, 4.0),
    Channel("heading_error", "rad", -1.0, 1.0),
    Channel("cruise_speed", "m/s", 0.0, 60.0),
)
_PLACE: Final = (Channel("x", "m", -200.0, 200.0), Channel("y", "m", -200.0, 200.0))


@dataclass(frozen=True, slots=True)
class Generated:
    """A package on disk. ``data`` is the graph's external data where it has such, ``digest`` that of the card."""

    folder: Path
    model: Path
    calibration: Path
    golden: Path
    data: Path | None
    card: ModelCard
    digest: Digest
    size: Size


def driving_transformer(
    folder: Path,
    *,
    width: int = 384,
    layers: int = 8,
    tokens: int = 224,
    seed: int = 1,
    rows: tuple[int, int] = (16, 8),
    external: bool = False,
) -> Generated:
    """Write the package into ``folder``. ``tokens`` of the images: 112, 224, 280 or 448; ``rows`` of calibration and
    golden data; ``external`` keeps the weights beside the graph (needed from 2 GiB on; written piece by piece).

    The card is not signed: ``examples.training.sign.sign(folder, signer)`` does that where a release needs it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    size = Size(width, layers, tokens)
    model = folder / "model.onnx"
    data = folder / "model.onnx.data" if external else None
    parameters = write_graph(model, size, seed, data)
    calibration, golden = folder / "calibration.npz", folder / "golden.npz"
    _save(calibration, {f"in/{name}": values for name, values in observations(rows[0], seed + 1).items()})
    seen = observations(rows[1], seed + 2)
    expected = _reference(model, seen)
    _save(
        golden,
        {f"in/{name}": values for name, values in seen.items()}
        | {f"out/{name}": values for name, values in expected.items()},
    )
    files = {"weights": model, "calibration": calibration, "golden": golden} | ({"weights_data": data} if data else {})
    card = ModelCard(
        name="benchmark-transformer",
        version=f"{width}.{layers}.{tokens}",
        description="A generated network for benchmarks; it has learned nothing.",
        parameters=parameters,
        contract=contract(),
        lineage=(),
        files={role: FileEntry(path.name, file_digest(path), path.stat().st_size) for role, path in files.items()},
        licence="Apache-2.0",
        limitations=("It drives nothing: its weights are random numbers of plausible scale.",),
    )
    encoded = model_card.encode(card)
    (folder / CARD_NAME).write_bytes(encoded)
    return Generated(folder, model, calibration, golden, data, card, digest_bytes(encoded), size)


def contract() -> ModelContract:
    """What the generated model promises."""
    colours = tuple(Channel(name, "1", 0.0, 1.0) for name in ("red", "green", "blue"))
    control = (*_MOTION[1:3], Channel("indicator", "1", -1.0, 1.0))
    poses = (Channel("x", "m"), Channel("y", "m"), Channel("heading", "rad"))
    inputs = (
        TensorSpec("images", "float32", (BATCH, CAMERAS, ROWS, COLUMNS, 3), colours, "Seven cameras, rows from above."),
        TensorSpec("history", "float32", (BATCH, HISTORY, EGO), _MOTION, "The ego's motion before, oldest first."),
        TensorSpec("ego", "float32", (BATCH, EGO), _MOTION, "The ego's motion of now."),
        TensorSpec("navigation", "float32", (BATCH, NAVIGATION, 2), _PLACE, "The route ahead."),
    )
    outputs = (
        TensorSpec("control", "float32", (BATCH, HORIZON, 3), control, "Commands for the next 2 s."),
        TensorSpec("trajectory", "float32", (BATCH, HORIZON, 3), poses, "The poses that follow from the commands."),
    )
    return ModelContract(inputs, outputs, RATE_HZ)


def observations(rows: int, seed: int) -> dict[str, Floats]:
    """Synthetic inputs within the contract: smooth images with texture, plausible motion, a bending route."""
    stream = np.random.default_rng([seed, 77])
    coarse = stream.uniform(0.0, 1.0, (rows, CAMERAS, ROWS // 16, COLUMNS // 16, 3))
    smooth = coarse.repeat(16, axis=2).repeat(16, axis=3)
    light = stream.uniform(0.2, 1.0, (rows, CAMERAS, 1, 1, 1))
    texture = stream.normal(0.0, 0.06, (rows, CAMERAS, ROWS, COLUMNS, 3))
    images = np.clip(smooth * light + texture, 0.0, 1.0)
    speed = stream.uniform(0.0, 30.0, (rows, 1))
    low, high = ([getattr(each, side) for each in _MOTION] for side in ("low", "high"))
    ego = stream.uniform(low, high, (rows, EGO)) * 0.5
    ego[:, :1] = speed
    drift = stream.normal(0.0, 0.3, (rows, HISTORY, EGO)).cumsum(axis=1) * 0.1
    history = np.clip(ego[:, None] + drift, low, high)
    along = np.linspace(0.0, 90.0, NAVIGATION)[None]
    bend = stream.uniform(-0.004, 0.004, (rows, 1))
    route = np.stack([along * np.cos(bend * along), along * np.sin(bend * along)], axis=-1)
    seen = {"images": images, "history": history, "ego": ego, "navigation": route}
    return {name: np.ascontiguousarray(values, np.float32) for name, values in seen.items()}


def torch_model(model: Path) -> Any:
    """The same network in torch, in evaluation mode, with the weights of the file. Takes the inputs in the contract's
    order, returns control and trajectory."""
    from benchmarks.model_torch import load

    return load(model)


def _reference(model: Path, seen: Mapping[str, Floats]) -> dict[str, Floats]:
    """What onnxruntime answers in fp32, each row alone, as in the vehicle."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    names = [spec.name for spec in contract().outputs]
    count = len(seen["ego"])
    rows = [session.run(names, {name: values[i : i + 1] for name, values in seen.items()}) for i in range(count)]
    return {name: np.concatenate([row[index] for row in rows]) for index, name in enumerate(names)}


def _save(path: Path, tensors: Mapping[str, Floats]) -> None:
    with path.open("wb") as file:
        np.savez(file, **tensors)  # type: ignore[arg-type]
