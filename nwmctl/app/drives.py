"""Drives for people: one scenario to watch, many scenarios as a table, and what there is to choose from.

A reference and a candidate always drive the same scenarios. Nothing is judged here and nothing is kept: checks with
verdicts belong to a release's evidence (`nwmctl validate`). Every figure says how it was obtained.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from nwmctl.app.artifacts import Drivable, example_model, find
from nwmctl.app.project import read_file
from nwmctl.app.settings import Settings
from nwmctl.domain.model import ModelContract
from nwmctl.driving import constants as k
from nwmctl.driving import draw, episode, metrics, scenario_file, traps
from nwmctl.driving.families import generate
from nwmctl.driving.guard import REASONS, Plan, PlanPolicy
from nwmctl.driving.guarded import Interventions, run_guarded
from nwmctl.driving.metrics import Outcomes, Summary
from nwmctl.driving.observe import Observation
from nwmctl.driving.record import Recording, record
from nwmctl.driving.scenarios import Family, Scenario, ScenarioId, Trap, named, paired
from nwmctl.errors import OutputUnwritableError, ScenarioNameError
from nwmctl.formats.codec import to_plain
from nwmctl.storage.content import write_atomically
from nwmctl.storage.resources import templates_folder
from nwmctl.toolchains.protocol import Session

SCENARIOS = 100
SEED = 20_260_000
"""Where ``drive run`` starts if nothing is said: the seeds that the checks of a release use, too."""
TRAJECTORY = "trajectory"
_BATCH = 100
_Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Pairing:
    """Who drives against whom."""

    reference: Drivable
    candidate: Drivable
    guarded: bool
    """The guard watches the candidate."""


@dataclass(frozen=True, slots=True, eq=False)
class Replay:
    """One scenario, driven by both, and its picture."""

    pairing: Pairing
    reference: Recording
    candidate: Recording
    svg: str

    def plain(self, out: Path) -> dict[str, object]:
        """For JSON."""
        return {
            "scenario": self.reference.scenario.id.label,
            "out": str(out),
            "bytes": len(self.svg.encode()),
            "simulator": "nwmctl",
            "guard": self.pairing.guarded,
            "reference": _told(self.pairing.reference, self.reference),
            "candidate": _told(self.pairing.candidate, self.candidate),
        }


@dataclass(frozen=True, slots=True)
class Row:
    """One family or trap ('all': every scenario). ``recovered`` counts where traps were driven."""

    name: str
    reference: Summary
    candidate: Summary
    reference_recovered: float | None
    candidate_recovered: float | None
    interventions_per_km: float | None


@dataclass(frozen=True, slots=True, eq=False)
class Drives:
    """Many scenarios, driven by both."""

    pairing: Pairing
    seed: int
    rows: tuple[Row, ...]
    only_reference_failed: int
    only_candidate_failed: int
    interventions: Interventions | None

    def plain(self) -> dict[str, object]:
        """For JSON; rates are shares, jerk is in m/s3."""
        return {
            "simulator": "nwmctl",
            "seed": self.seed,
            "reference": _who(self.pairing.reference),
            "candidate": _who(self.pairing.candidate),
            "guard": self.pairing.guarded,
            "rows": [to_plain(row) for row in self.rows],
            "only_reference_failed": self.only_reference_failed,
            "only_candidate_failed": self.only_candidate_failed,
            "interventions": None if self.interventions is None else _counted(self.interventions),
        }


def pair_up(artifact: str, reference: str | None, guarded: bool, settings: Settings) -> Pairing:
    """Find both. Without a ``reference`` it is the model that the candidate was compiled from, else the example's.

    Raises what ``artifacts.find`` raises.
    """
    candidate = find(artifact, settings, _package(reference))
    if reference is not None:
        other = find(reference, settings)
    elif candidate.model is not None:
        other = candidate.model.drivable()
    else:
        other = find(str(example_model()), settings)
    return Pairing(other, candidate, guarded)


def replay(name: str, pairing: Pairing) -> Replay:
    """Drive one scenario (``family:seed``, ``family:seed:trap`` or a scenario file) twice and draw it.

    Raises InputError subclasses for the scenario, ToolchainError subclasses for what an artifact does.
    """
    scenario = scenario_of(name)
    with pairing.reference.open() as session:
        reference = record(policy_of(session, pairing.reference.contract), scenario)
    with pairing.candidate.open() as session:
        candidate = record(policy_of(session, pairing.candidate.contract), scenario, guarded=pairing.guarded)
    sides = (_side(pairing.reference, reference, False), _side(pairing.candidate, candidate, pairing.guarded))
    identity = scenario.id
    title = f"{identity.family}:{identity.seed}" if not identity.file else Path(name).name
    trap = f"{identity.trap}: {_TRAPS[identity.trap]}" if identity.trap else ""
    drawn = f"scenario digest {identity.file[:12]}" if identity.file else f"seed {identity.seed}"
    origin = f"Simulator revision {k.REVISION}, decisions at {1 / k.CONTROL_DT:g} Hz, up to 12 s; {drawn}."
    note = _NOTES[identity.family] if not identity.file else "a scenario that somebody wrote"
    template = read_file(templates_folder() / "replay.svg.j2", "replay template").decode()
    return Replay(pairing, reference, candidate, draw.render(draw.scene(title, trap, note, origin, *sides), template))


def drive(pairing: Pairing, count: int, seed: int, *, trapped: bool = False, say: _Say = lambda text: None) -> Drives:
    """Drive ``count`` scenarios from ``seed`` on, families (or traps) taking turns. Raises ToolchainError."""
    ids = traps.paired(count, seed) if trapped else paired(count, seed)
    say(f"{pairing.reference.name} drives {count} scenarios")
    with pairing.reference.open() as session:
        policy = policy_of(session, pairing.reference.contract)
        reference = episode.run(lambda seen: policy(seen).control, ids, _BATCH)
    say(f"{pairing.candidate.name} drives {count} scenarios")
    interventions = None
    with pairing.candidate.open() as session:
        watched = policy_of(session, pairing.candidate.contract)
        if pairing.guarded:
            candidate, interventions = run_guarded(watched, ids, _BATCH)
        else:
            candidate = episode.run(lambda seen: watched(seen).control, ids, _BATCH)
    compared = metrics.compare(reference, candidate)
    return Drives(
        pairing=pairing,
        seed=seed,
        rows=tuple(_rows(reference, candidate, interventions, trapped)),
        only_reference_failed=compared.only_reference_failed,
        only_candidate_failed=compared.only_candidate_failed,
        interventions=interventions,
    )


def choices() -> dict[str, list[dict[str, object]]]:
    """Families and traps, each with what it is."""
    return {
        "families": [{"name": str(family), "what": _NOTES[family]} for family in Family],
        "traps": [
            {
                "name": str(trap),
                "what": _TRAPS[trap],
                "families": [str(family) for family in traps.WAYS[trap].families],
                "ranges": {name: list(span) for name, span in traps.WAYS[trap].ranges.items()},
            }
            for trap in Trap
        ],
    }


def scenario_of(name: str) -> Scenario:
    """The scenario of a name or of a file. Raises ScenarioNameError, FileUnreadableError and what a file's reader
    raises."""
    path = Path(name)
    if path.suffix in (".yaml", ".yml") and not path.is_file():
        raise ScenarioNameError(f"there is no scenario file '{name}'", why="no such file", next="correct the path")
    if path.is_file():
        return scenario_file.load(read_file(path, "scenario file"), path.name)
    identity = named(name)
    if identity.trap is not None and identity.family not in traps.WAYS[identity.trap].families:
        raise ScenarioNameError(
            f"'{name}' names no scenario",
            why=f"the trap '{identity.trap}' is not laid on the family '{identity.family}'",
            next=f"it is laid on {', '.join(traps.WAYS[identity.trap].families)}",
        )
    return generate(identity)


def write_picture(path: Path, svg: str) -> None:
    """Write the whole file or nothing. Raises OutputUnwritableError."""
    try:
        write_atomically(path, svg.encode())
    except OSError as problem:
        raise OutputUnwritableError(
            f"'{path}' cannot be written", why=problem.strerror or str(problem), next="choose another path"
        ) from problem


def policy_of(session: Session, contract: ModelContract) -> PlanPolicy:
    """A loaded artifact as a policy, with its own trajectory where its contract has one."""
    traced = any(spec.name == TRAJECTORY and spec.shape[1:] == (k.HORIZON, 3) for spec in contract.outputs)

    def plan(seen: Observation) -> Plan:
        said = session.run(seen)
        trajectory = said[TRAJECTORY].astype(np.float64) if traced else None
        return Plan(said[contract.control_output].astype(np.float64), trajectory)

    return plan


_NOTES: Final = {
    Family.HIGHWAY: "three lanes in a wide bend; others cut in and slow down, sometimes the route changes lane",
    Family.MERGE: "down a ramp into a lane where one vehicle in ten does not make room",
    Family.ROUNDABOUT: "into a ring and out again; a quarter of the traffic ignores the ego",
    Family.INTERSECTION: "across four arms without lights; a fifth of the crossing traffic does not care",
    Family.CURVY: "a winding country road with slow vehicles ahead and oncoming traffic",
}
_TRAPS: Final = {
    Trap.OFF_CENTRE: "starts beside its route",
    Trap.HEADING_ERROR: "starts turned away from its route",
    Trap.TOO_FAST: "starts too fast, shortly before the sharpest bend",
    Trap.CUT_IN: "somebody slower takes the ego's lane without looking",
    Trap.STALLED: "a vehicle stands in the way",
    Trap.RIGHT_OF_WAY: "somebody crosses or joins the ego's way and does not look",
    Trap.DROPPED: "perception of other vehicles comes and goes",
    Trap.LATE: "commands take effect late",
}


def _package(reference: str | None) -> Path | None:
    return Path(reference) if reference is not None and Path(reference).is_dir() else None


def _side(drivable: Drivable, recording: Recording, guarded: bool) -> draw.Side:
    watched = "; guarded" if guarded else ""
    return draw.Side(drivable.name, f"{drivable.obtained}: {drivable.how}{watched}", recording)


def _rows(
    reference: Outcomes, candidate: Outcomes, interventions: Interventions | None, trapped: bool
) -> Sequence[Row]:
    kinds: Sequence[Family | Trap] = tuple(Trap) if trapped else tuple(Family)
    back = (metrics.recovered(reference), metrics.recovered(candidate)) if trapped else None
    rows = []
    for kind in (*kinds, None):
        chosen = np.array([_is(kind, identity) for identity in reference.ids], dtype=bool)
        if not chosen.any():
            continue
        one, other = (metrics.summarise(metrics.select(run, chosen)) for run in (reference, candidate))
        came = tuple(float(each[chosen].mean()) for each in back) if back else (None, None)
        per_km = interventions.chosen(chosen).per_km() if interventions else None
        rows.append(Row(str(kind) if kind else "all", one, other, came[0], came[1], per_km))
    return rows


def _is(kind: Family | Trap | None, identity: ScenarioId) -> bool:
    return kind is None or kind in (identity.family, identity.trap)


def _who(drivable: Drivable) -> dict[str, object]:
    return {"name": drivable.name, "obtained": str(drivable.obtained), "how": drivable.how}


def _told(drivable: Drivable, recording: Recording) -> dict[str, object]:
    found = recording.outcomes
    return {
        **_who(drivable),
        "crashed": recording.crashed,
        "off_road": recording.off_road,
        "seconds": round(recording.decisions * k.CONTROL_DT, 1),
        "progress": float(found.progress[0]),
        "jerk_m_s3": float(found.jerk[0]),
        "closest_m": float(found.closest[0]),
        "score": float(found.score[0]),
        "faults": int(found.faults[0]),
        "interventions": recording.interventions,
    }


def _counted(found: Interventions) -> dict[str, object]:
    return {
        "decisions": int(found.counts.sum()),
        "of": int(found.decisions.sum()),
        "per_km": found.per_km(),
        "km": float(found.way.sum()) / 1000.0,
        "episodes": int(found.episodes.sum()),
        "by_reason": {str(reason): found.of(reason) for reason in REASONS},
    }
