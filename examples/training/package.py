"""Write a model package: ``python -m examples.training.package --work DIR --upto STAGE --version V --out FOLDER``.

The folder holds ``model.onnx``, ``calibration.npz`` (64 observations), ``golden.npz`` (16 observations with the fp32
outputs of onnxruntime, each computed at batch 1) and ``model-card.json``; ``sign`` adds the signature. The same
checkpoint gives the same bytes. Every figure in the lineage was measured by ``train``; none is entered by hand.
"""

from __future__ import annotations

import argparse
import json
from io import BytesIO
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import onnxruntime as ort
import torch

from examples.training import recipe as r
from examples.training.collect import collect
from examples.training.contract import contract
from examples.training.export import INPUTS, Tensors, export, outputs, session
from examples.training.files import write
from examples.training.network import Driver
from nwmctl.domain.digest import digest_bytes
from nwmctl.domain.model import CARD_NAME, FileEntry, ModelCard, TrainingStage
from nwmctl.formats import model_card

CALIBRATION: Final = r.Drives("calibration", 96, 3_000_000, 0.6)
GOLDEN: Final = r.Drives("golden", 48, 3_500_000, 0.6)
FILES: Final = {"weights": "model.onnx", "calibration": "calibration.npz", "golden": "golden.npz"}
_IMITATES: Final = (
    "It imitates a rule-based expert: where the expert is wrong, so is the model. No reinforcement learning yet."
)
_REINFORCED: Final = (
    "It learned from a rule-based expert and then from the simulator's own score: it drives for that score, and where "
    "the score is wrong, so is the model. Lateral comfort is not part of the score."
)


def limitations(reinforced: bool) -> tuple[str, ...]:
    """What the card warns of."""
    return (
        "Trained and measured only in nwmctl's own simulator, on synthetic roads with rule-driven traffic.",
        "It has never seen a camera, a real road or a real vehicle, and must not drive one.",
        _REINFORCED if reinforced else _IMITATES,
        "Agents beyond 80 m or beyond eight slots are invisible to it; pedestrians, signs and signals do not exist.",
    )


def pick(drives: r.Drives, count: int) -> Tensors:
    """``count`` observations from expert drives, no two from the same drive, spread over the episode."""
    arrays = collect(drives, say=lambda _: None)
    live = np.asarray(arrays["live"])
    stream = np.random.default_rng(drives.seed)
    chosen = np.sort(stream.permutation(len(live))[:count])
    steps = [int(stream.choice(np.flatnonzero(live[d]))) for d in chosen]
    return {name: np.ascontiguousarray(arrays[name][chosen, steps]).astype(np.float32) for name in INPUTS}


def one_by_one(model: ort.InferenceSession, observations: Tensors) -> Tensors:
    """Outputs computed at batch 1, as in the vehicle, then stacked."""
    count = len(observations["ego"])
    rows = [outputs(model, {n: v[i : i + 1] for n, v in observations.items()}) for i in range(count)]
    return {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}


def archive(tensors: dict[str, npt.NDArray[np.float32]]) -> bytes:
    """A compressed npz; its bytes depend on the values alone."""
    buffer = BytesIO()
    np.savez_compressed(buffer, **tensors)  # type: ignore[arg-type]
    return buffer.getvalue()


def package(work: Path, upto: str, version: str, description: str, out: Path) -> ModelCard:
    """Write the package of the checkpoint ``upto`` into ``out`` and return its card."""
    reports = sorted(path for path in work.glob("[0-9]-*.json") if path.stem <= upto)
    network = Driver()
    network.load_state_dict(torch.load(work / f"{upto}.pt"))
    calibration, golden = pick(CALIBRATION, 64), pick(GOLDEN, 16)
    weights = export(network, calibration)
    expected = one_by_one(session(weights), golden)
    contents = {
        "weights": weights,
        "calibration": archive({f"in/{name}": values for name, values in calibration.items()}),
        "golden": archive(
            {f"in/{name}": values for name, values in golden.items()}
            | {f"out/{name}": values for name, values in expected.items()}
        ),
    }
    card = ModelCard(
        name="nwm",
        version=version,
        description=description,
        parameters=sum(parameter.numel() for parameter in network.parameters()),
        contract=contract(),
        lineage=tuple(_stage(json.loads(report.read_text())) for report in reports),
        files={role: FileEntry(FILES[role], digest_bytes(data), len(data)) for role, data in contents.items()},
        licence="Apache-2.0",
        limitations=limitations(upto.endswith("reinforce")),
    )
    out.mkdir(parents=True, exist_ok=True)
    for role, data in contents.items():
        write(out / FILES[role], data)
    write(out / CARD_NAME, model_card.encode(card))
    return card


def _stage(entry: dict[str, object]) -> TrainingStage:
    seeds, metrics = entry["seeds"], entry["metrics"]
    assert isinstance(seeds, list)
    assert isinstance(metrics, dict)
    return TrainingStage(
        str(entry["name"]),
        str(entry["data"]),
        tuple(int(seed) for seed in seeds),
        {str(name): float(value) for name, value in metrics.items()},
    )


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--upto", required=True, help="the last stage, for example 2-finetune")
    parser.add_argument("--version", required=True)
    parser.add_argument("--description", required=True)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    torch.set_num_threads(1)
    card = package(given.work, given.upto, given.version, given.description, given.out)
    print(f"{card.name} {card.version}: {digest_bytes((given.out / CARD_NAME).read_bytes())}")


if __name__ == "__main__":
    main()
