"""Train both example models, stage by stage: ``python -m examples.training.train --work DIR``.

Every stage leaves ``<stage>.pt`` and ``<stage>.json`` (its lineage entry) in the work folder and is skipped when they
are there, so an interrupted training goes on. One thread, fixed seeds, fixed step counts. Figures of a stage are
measured on test scenarios that no stage trains on or selects by.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from examples.training import recipe as r
from examples.training.collect import Arrays, collect
from examples.training.losses import Drives, imitation_loss, prediction_errors, prediction_loss
from examples.training.network import Driver
from nwmctl.driving import episode, metrics
from nwmctl.driving.episode import Policy
from nwmctl.driving.scenarios import paired


def policy_of(model: Driver) -> Policy:
    """The model as a policy (torch, one call per decision)."""

    def policy(seen: Mapping[str, npt.NDArray[np.float32]]) -> npt.NDArray[np.floating]:
        with torch.inference_mode():
            tokens = model.encode(*(torch.from_numpy(seen[name]) for name in ("ego", "agents", "route")))
            return model.limited(model.plan(tokens)).numpy()

    return policy


def fit(model: Driver, drives: Drives, stage: r.Stage, newest: int = 0) -> float:
    """Run one stage on all drives; ``newest`` is the index of the first fresh drive. Returns the last mean loss."""
    chooser = torch.Generator().manual_seed(stage.seed)
    everything, fresh = drives.samples(), drives.samples(newest)
    from_fresh = int(stage.batch * stage.fresh)
    optimiser = torch.optim.AdamW(model.parameters(), stage.rate, weight_decay=1e-2)
    losses: list[float] = []

    def draw(pool: Tensor, count: int) -> Tensor:
        return pool[torch.randint(len(pool), (count,), generator=chooser)]

    for step in range(stage.steps):
        warm = min(1.0, (step + 1) / 40)
        for group in optimiser.param_groups:
            group["lr"] = stage.rate * warm * (0.51 + 0.49 * math.cos(math.pi * step / stage.steps))
        picked = torch.cat([draw(everything, stage.batch - from_fresh), draw(fresh, from_fresh)])
        d, t = picked[:, 0], picked[:, 1]
        tokens = model.encode(*drives.observation(d, t))
        loss = torch.zeros(())
        if stage.predict:
            loss = loss + stage.predict * prediction_loss(model, tokens, drives, d, t)
        if stage.imitate:
            loss = loss + stage.imitate * imitation_loss(model, tokens, drives, d, t)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        losses.append(loss.item())
        if step % 100 == 99:
            print(f"{stage.name}: step {step + 1}/{stage.steps} loss {np.mean(losses[-100:]):.4f}", flush=True)
    return float(np.mean(losses[-100:]))


def closed_loop(model: Driver, seed: int, count: int) -> dict[str, float]:
    """Closed-loop figures on ``count`` scenarios from ``seed``."""
    outcomes = episode.run(policy_of(model), paired(count, seed))
    found = asdict(metrics.summarise(outcomes))
    return {f"closed_loop_{name}": float(value) for name, value in found.items()}


def measure(model: Driver, held_out: Drives, scenarios: int) -> dict[str, float]:
    """Everything that a stage reports."""
    chooser = torch.Generator().manual_seed(5)
    pool = held_out.samples()
    found = prediction_errors(model, held_out, pool[torch.randint(len(pool), (4_000,), generator=chooser)])
    found |= closed_loop(model, r.TEST_SEED, scenarios)
    return {name: round(value, 4) for name, value in found.items()}


class Training:
    """Walks through the recipe, keeping each stage's result in ``work``."""

    def __init__(self, work: Path, recipe: r.Recipe, test_scenarios: int = r.TEST_SCENARIOS) -> None:
        self.work, self.recipe, self.test_scenarios = work, recipe, test_scenarios
        work.mkdir(parents=True, exist_ok=True)
        torch.manual_seed(r.INIT_SEED)
        self.model = Driver()
        self.drives = Drives.of(self._drives(recipe.expert_drives, None))
        self.held_out = Drives.of(collect(r.Drives("held out", 120, r.VALIDATION_SEED + 50_000, 0.6)))

    def _drives(self, drives: r.Drives, policy: Policy | None) -> Arrays:
        kept = self.work / f"{drives.name}.npz"
        if kept.exists():
            with np.load(kept) as found:
                return dict(found)
        arrays = collect(drives, policy)
        np.savez(kept, **arrays)  # type: ignore[arg-type]
        return arrays

    def stage(self, name: str, stage: r.Stage, data: str, newest: int = 0) -> None:
        """Run a stage, or take its kept result."""
        weights, report = self.work / f"{name}.pt", self.work / f"{name}.json"
        if weights.exists() and report.exists():
            self.model.load_state_dict(torch.load(weights))
            return
        loss = fit(self.model, self.drives, stage, newest)
        torch.save(self.model.state_dict(), weights)
        found = {"steps": float(stage.steps), "batch": float(stage.batch), "loss": round(loss, 4)}
        found |= measure(self.model, self.held_out, self.test_scenarios)
        entry = {"name": stage.name, "data": data, "seeds": [r.INIT_SEED, stage.seed], "metrics": found}
        report.write_text(json.dumps(entry, indent=1, sort_keys=True) + "\n")
        print(json.dumps(entry), flush=True)

    def run(self) -> None:
        """All stages in order."""
        rec = self.recipe
        said = f"{rec.expert_drives.count} noise-perturbed expert drives from seed {rec.expert_drives.seed}"
        self.stage("1-pretrain", rec.pretrain, f"{said}, observations and executed controls only")
        self.stage("2-finetune", rec.finetune, f"{said}, expert's controls")
        self.stage("3-extend", rec.extend, f"{said}, expert's controls")
        for number, (drives, stage) in enumerate(rec.rounds, start=1):
            newest = len(self.drives.live)
            self.drives = self.drives.joined(Drives.of(self._drives(drives, policy_of(self.model))))
            data = f"the drives so far and {drives.count} drives of the model itself from seed {drives.seed}"
            self.stage(f"{3 + number}-dagger-{number}", stage, f"{data}, labelled by the expert", newest)


def select(work: Path, scenarios: int = r.VALIDATION_SCENARIOS) -> str:
    """The fine-tuned checkpoint with the best validation score, by closed loop; the test scenarios have no say."""
    scores: dict[str, float] = {}
    for weights in sorted(work.glob("[2-9]-*.pt")):
        model = Driver()
        model.load_state_dict(torch.load(weights))
        found = closed_loop(model, r.VALIDATION_SEED, scenarios)
        scores[weights.stem] = round(found["closed_loop_score"], 4)
        print(f"{weights.stem}: validation score {scores[weights.stem]}, crashes {found['closed_loop_crash_rate']:.3f}")
    (work / "selected.json").write_text(json.dumps(scores, indent=1) + "\n")
    return max(scores, key=lambda name: scores[name])


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True, help="folder for drives, checkpoints and figures")
    torch.set_num_threads(1)
    work = parser.parse_args().work
    Training(work, r.Recipe()).run()
    print(f"selected: {select(work)}")


if __name__ == "__main__":
    main()
