"""Train both example models, stage by stage: ``python -m examples.training.train --work DIR [--short]``.

Every stage leaves ``<stage>.pt``, ``<stage>.json`` (its lineage entry) and ``curve-<stage>.json`` in the work folder,
reinforcement learning every iterate besides, and is skipped when they are there: an interrupted training goes on. One
thread, fixed seeds, fixed step counts. Figures of a stage are measured on test scenarios that no stage trains on or
selects by. At the end the stages are compared (``compare``); the exit status is 1 where one is not better than the
one before. ``--short`` takes the 20-minute recipe, whose models are not released.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from examples.training import recipe as r
from examples.training.collect import Arrays, collect
from examples.training.files import write
from examples.training.losses import Drives, imitation_loss, prediction_errors, prediction_loss
from examples.training.network import Driver, policy_of
from examples.training.reinforce import iterate
from nwmctl.driving import episode, metrics
from nwmctl.driving.episode import Policy
from nwmctl.driving.scenarios import paired

_EVERY = 100
"""A curve has a point, the mean loss, for this many steps."""


def fit(model: Driver, drives: Drives, stage: r.Stage, newest: int = 0) -> list[tuple[int, float]]:
    """Run one stage on all drives; ``newest`` is the first fresh drive's index. Returns steps and mean losses."""
    chooser = torch.Generator().manual_seed(stage.seed)
    everything, fresh = drives.samples(), drives.samples(newest)
    from_fresh = int(stage.batch * stage.fresh)
    optimiser = torch.optim.AdamW(model.parameters(), stage.rate, weight_decay=1e-2)
    losses: list[float] = []
    curve: list[tuple[int, float]] = []

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
        if (step + 1) % _EVERY == 0 or step + 1 == stage.steps:
            curve.append((step + 1, round(float(np.mean(losses[-_EVERY:])), 4)))
            print(f"{stage.name}: step {step + 1}/{stage.steps} loss {curve[-1][1]:.4f}", flush=True)
    return curve


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


def rounded(values: Mapping[str, float]) -> dict[str, float]:
    """As written into reports."""
    return {name: round(value, 4) for name, value in values.items()}


def keep_json(path: Path, value: object) -> None:
    """Write a report in one step."""
    write(path, (json.dumps(value, indent=1, sort_keys=True) + "\n").encode())


def keep_weights(path: Path, model: Driver) -> None:
    """Write a checkpoint in one step."""
    partial = path.with_name(f".{path.name}.partial")
    torch.save(model.state_dict(), partial)
    partial.replace(path)


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

    def _taken(self, name: str) -> bool:
        """Whether a stage was done before; if so, the model is now its result."""
        weights = self.work / f"{name}.pt"
        if not weights.exists() or not (self.work / f"{name}.json").exists():
            return False
        self.model.load_state_dict(torch.load(weights))
        return True

    def _keep(self, name: str, title: str, data: str, seeds: list[int], figures: dict[str, float]) -> None:
        keep_weights(self.work / f"{name}.pt", self.model)
        measured = figures | measure(self.model, self.held_out, self.test_scenarios)
        entry = {"name": title, "data": data, "seeds": seeds, "metrics": measured}
        keep_json(self.work / f"{name}.json", entry)
        print(json.dumps(entry), flush=True)

    def stage(self, name: str, stage: r.Stage, data: str, newest: int = 0) -> None:
        """Run a supervised or self-supervised stage, or take its kept result."""
        if self._taken(name):
            return
        curve = fit(self.model, self.drives, stage, newest)
        keep_json(self.work / f"curve-{name}.json", {"name": stage.name, "points": curve})
        figures = {"steps": float(stage.steps), "batch": float(stage.batch), "loss": curve[-1][1]}
        self._keep(name, stage.name, data, [r.INIT_SEED, stage.seed], figures)

    def reinforce(self, name: str, plan: r.Reinforce) -> None:
        """All iterates, each kept and judged on validation scenarios; the best is the stage's result."""
        if self._taken(name):
            return
        folder = self.work / name
        folder.mkdir(exist_ok=True)
        keep_json(folder / "00.json", self._judged(plan, {}))
        for number in range(1, plan.iterates + 1):
            weights, report = folder / f"{number:02d}.pt", folder / f"{number:02d}.json"
            if weights.exists() and report.exists():
                self.model.load_state_dict(torch.load(weights))
                continue
            found = iterate(self.model, self.drives, plan, number)
            keep_weights(weights, self.model)
            keep_json(report, self._judged(plan, found))
            print(f"{plan.name}: iterate {number}/{plan.iterates} {report.read_text()}", flush=True)
        scores = {i: json.loads((folder / f"{i:02d}.json").read_text()) for i in range(1, plan.iterates + 1)}
        best = max(scores, key=lambda i: float(scores[i]["closed_loop_score"]))
        self.model.load_state_dict(torch.load(folder / f"{best:02d}.pt"))
        count = plan.exploration.scenarios
        data = (
            f"closed loop: up to {plan.iterates} iterates of {count} scenarios from seed {plan.first_scenario}, the "
            f"score as reward; iterate {best} by its score on {plan.validation} validation scenarios"
        )
        figures = {
            "iterates": float(plan.iterates), "iterate": float(best), "steps": float(plan.steps * best),
            "batch": float(plan.batch + plan.keep_batch + plan.anchor_batch),
            "loss": float(scores[best]["loss"]), "validation_score": float(scores[best]["closed_loop_score"]),
        }  # fmt: skip
        self._keep(name, plan.name, data, [r.INIT_SEED, plan.seed, plan.first_scenario], figures)

    def _judged(self, plan: r.Reinforce, found: Mapping[str, float]) -> dict[str, float]:
        return rounded({**found, **closed_loop(self.model, r.VALIDATION_SEED, plan.validation)})

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
        self.reinforce(f"{4 + len(rec.rounds)}-reinforce", rec.reinforce)


def main() -> None:
    """Command line."""
    from examples.training.compare import compare

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True, help="folder for drives, checkpoints and figures")
    parser.add_argument("--short", action="store_true", help="the 20-minute recipe")
    given = parser.parse_args()
    torch.set_num_threads(1)
    Training(given.work, r.SHORT if given.short else r.Recipe()).run()
    sys.exit(0 if compare(given.work).in_order else 1)


if __name__ == "__main__":
    main()
