"""Pairs of artifacts before and after fine-tuning, for the benchmark of deltas.

A driving transformer of 20-30 million parameters is trained from its generated weights on generated drives (steering
and speed that follow from the route), then tuned on drives with other habits: light, medium and heavy are more steps
at higher rates. Everything follows from seeds; torch runs on one thread. Each set of weights is then stored as a real
ONNX file in each precision: fp32 as trained, fp16 and bf16 cast back to fp32 by the graph, int8 with one scale for
each output channel, the old model's scales or its own. The trained weights are kept, so a second run trains nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from benchmarks.models import driving_transformer, observations

Weights = Mapping[str, NDArray[np.float32]]

WIDTH, LAYERS, TOKENS, SEED = 448, 8, 112, 1
BATCH: Final = 2


class Tune(StrEnum):
    """How far the new model is from the old one."""

    LIGHT = "light"
    MEDIUM = "medium"
    HEAVY = "heavy"


class Kind(StrEnum):
    """How weights are stored in the file."""

    FP32 = "fp32"
    FP16 = "fp16"
    BF16 = "bf16"
    INT8_SAME = "int8 same scales"
    INT8_NEW = "int8 new scales"


@dataclass(frozen=True, slots=True)
class Course:
    """So many steps of AdamW at a learning rate, on drives of one seed and habit."""

    steps: int
    rate: float
    seed: int
    habit: float


BASE = Course(80, 3e-4, 11, 1.0)
COURSES: Final = {
    Tune.LIGHT: Course(20, 3e-6, 21, 1.15),
    Tune.MEDIUM: Course(60, 2e-5, 22, 1.3),
    Tune.HEAVY: Course(100, 1e-4, 23, 0.7),
}


def trained(folder: Path) -> tuple[Path, dict[str, Weights]]:
    """The generated graph, and the weights ``base``, ``light``, ``medium``, ``heavy`` by their names in it."""
    package = folder / "package"
    model = package / "model.onnx"
    if not model.exists():
        driving_transformer(package, width=WIDTH, layers=LAYERS, tokens=TOKENS, seed=SEED, rows=(2, 2))
    found: dict[str, Weights] = {}
    base = _kept(folder / "base.npz", model, None, BASE)
    found["base"] = base
    for tune, course in COURSES.items():
        found[tune] = _kept(folder / f"{tune}.npz", model, base, course)
    return model, found


def _kept(path: Path, model: Path, start: Weights | None, course: Course) -> Weights:
    if not path.exists():
        weights = _train(model, start, course)
        with path.with_suffix(".part").open("wb") as file:
            np.savez(file, **weights)  # type: ignore[arg-type]
        path.with_suffix(".part").replace(path)
    with np.load(path) as held:
        return {name: held[name] for name in held.files}


def _train(model: Path, start: Weights | None, course: Course) -> Weights:
    import torch
    from torch import nn

    from benchmarks.model_torch import load

    torch.set_num_threads(1)
    torch.manual_seed(course.seed)
    network = load(model)
    linear = {f"{name}.weight" for name, module in network.named_modules() if isinstance(module, nn.Linear)}
    if start is not None:
        state = {n: torch.from_numpy(v.T.copy() if n in linear else v.copy()) for n, v in start.items()}
        network.load_state_dict(state)
    network.train()
    descent = torch.optim.AdamW(network.parameters(), lr=course.rate, weight_decay=0.01)
    for step in range(course.steps):
        seen = observations(BATCH, course.seed * 100_000 + step)
        told = torch.from_numpy(_commands(seen, course.habit))
        given = [torch.from_numpy(seen[name]) for name in ("images", "history", "ego", "navigation")]
        control, _ = network(*given)
        scale: Any = network.scale
        loss = (((control - told) / scale) ** 2).mean()
        descent.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        descent.step()
        if step % 20 == 0:
            print(f"  step {step}: loss {loss.item():.4f}", flush=True)
    state = network.state_dict()
    return {n: (v.T if n in linear else v).detach().contiguous().numpy().astype(np.float32) for n, v in state.items()}


def _commands(seen: Mapping[str, NDArray[np.float32]], habit: float) -> NDArray[np.float32]:
    """What a driver of some habit does: steers to the route, the harder the larger ``habit``, keeps a speed that the
    bend allows, and indicates where it steers. [B, 20, 3]."""
    route, ego = seen["navigation"], seen["ego"]
    bend = np.arctan2(route[:, 8, 1], np.maximum(route[:, 8, 0], 1.0))
    steer = np.clip(habit * (bend - 0.1 * ego[:, 3] - 0.5 * ego[:, 4]), -0.45, 0.45)
    wanted = 25.0 / (1.0 + 4.0 * habit * np.abs(bend))
    acceleration = np.clip(0.4 * (wanted - ego[:, 0]), -5.0, 2.5)
    brightness = seen["images"].mean(axis=(1, 2, 3, 4)) - 0.3
    fade = np.exp(-np.arange(20) / 12.0)
    rows = [np.outer(steer, fade), np.outer(acceleration, fade), np.outer(np.tanh(20.0 * steer * brightness), fade)]
    return np.stack(rows, axis=-1).astype(np.float32)


def scales_of(weights: Weights) -> dict[str, NDArray[np.float32]]:
    """One scale for each output channel of each matrix."""
    return {
        name: (np.maximum(np.abs(value).max(axis=0), 1e-12) / 127.0).astype(np.float32)
        for name, value in weights.items()
        if value.ndim == 2
    }


def store(model: Path, weights: Weights, kind: Kind, scales: Mapping[str, NDArray[np.float32]], path: Path) -> Path:
    """Write the graph with these weights in one precision."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    made = onnx.load(str(model))
    graph = made.graph
    kept, nodes = [], []
    for tensor in graph.initializer:
        value = weights.get(tensor.name)
        if value is None or kind is Kind.FP32:
            kept.append(tensor if value is None else numpy_helper.from_array(np.ascontiguousarray(value), tensor.name))
            continue
        held = f"{tensor.name}.stored"
        if kind in (Kind.FP16, Kind.BF16):
            element = TensorProto.FLOAT16 if kind is Kind.FP16 else TensorProto.BFLOAT16
            kept.append(helper.make_tensor(held, element, value.shape, rounded(value, kind).tobytes(), raw=True))
            nodes.append(helper.make_node("Cast", [held], [tensor.name], to=TensorProto.FLOAT))
        elif value.ndim == 2:
            scale = scales[tensor.name]
            whole = np.clip(np.rint(value / scale), -127, 127).astype(np.int8)
            kept.append(numpy_helper.from_array(whole, held))
            kept.append(numpy_helper.from_array(scale, f"{tensor.name}.scale"))
            nodes.append(helper.make_node("DequantizeLinear", [held, f"{tensor.name}.scale"], [tensor.name], axis=1))
        else:
            kept.append(numpy_helper.from_array(np.ascontiguousarray(value), tensor.name))
    operations = [*nodes, *graph.node]
    del graph.initializer[:], graph.node[:]
    graph.initializer.extend(kept)
    graph.node.extend(operations)
    onnx.save(made, str(path))
    return path


def rounded(value: NDArray[np.float32], kind: Kind) -> NDArray[np.uint16]:
    """fp16 or bf16 bits, to nearest even."""
    if kind is Kind.FP16:
        return np.ascontiguousarray(value).astype(np.float16).view(np.uint16)
    bits = np.ascontiguousarray(value).view(np.uint32).astype(np.uint64)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)
