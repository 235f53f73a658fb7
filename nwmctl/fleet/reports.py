"""What vehicles say becomes facts: one transaction stores the report and applies its consequence.

Every report is kept with every detail, the late and repeated ones too. State, counters and audited event change
together, and only from the state that was read. The caller brings the transaction (see ``storage.group_commit``) and
acknowledges the vehicle after the commit.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from nwmctl.domain.bundle import BundleKind
from nwmctl.domain.fleet import FINAL, AssignmentState, SlotFacts
from nwmctl.errors import CampaignChangedError, UnknownVehicleError
from nwmctl.fleet.consequences import (
    ActionState,
    Consequence,
    Heard,
    InstallMode,
    Report,
    after_report,
    after_restart,
    blames_delta,
)
from nwmctl.fleet.events import EventKind, record
from nwmctl.fleet.restarts import begins_anew, run_before
from nwmctl.fleet.tally import Place, shift
from nwmctl.formats import canonical
from nwmctl.storage.database import Reader, Transaction

FAILURES = frozenset({AssignmentState.FAILED, AssignmentState.ROLLED_BACK, AssignmentState.REFUSED})


@dataclass(frozen=True, slots=True)
class Case:
    """An action with all that decides about it."""

    action: int
    vin: str
    attempt: int
    mode: InstallMode
    action_state: ActionState
    asked: bool
    """It has asked for the action since its last report on the way."""
    restarts: int
    run_from: int
    """The report with which it began last."""
    assignment: int
    assignment_state: AssignmentState
    to_sequence: int
    place: Place
    kind: BundleKind
    max_attempts: int
    release_sequence: int
    base_sequence: int | None
    """From which sequence the delta starts that the action brings; None: it brings none."""


def find_case(reader: Reader, vin: str, action: int) -> Case:
    """The action ``action`` of a vehicle. Raises UnknownVehicleError if it has none of that id."""
    row = reader.one(
        "SELECT x.id, x.vin, x.attempt, x.mode, x.state, x.started, x.restarts, a.id, a.state, a.to_sequence, "
        "a.campaign_id, a.generation, a.wave, a.platform, c.kind, c.max_attempts, c.release_sequence, x.run_from, "
        "x.base_sequence "
        "FROM action x JOIN assignment a ON a.id = x.assignment_id JOIN campaign c ON c.id = x.campaign_id "
        "WHERE x.id = :action AND x.vin = :vin",
        action=action,
        vin=vin,
    )
    if row is None:
        raise UnknownVehicleError(
            f"the vehicle {vin} has no action {action}",
            why="it was never offered to this vehicle",
            next="let the vehicle poll and follow the links that it gets",
        )
    return Case(
        action=row[0],
        vin=row[1],
        attempt=row[2],
        mode=InstallMode(row[3]),
        action_state=ActionState(row[4]),
        asked=not row[5],
        restarts=row[6],
        run_from=row[17],
        assignment=row[7],
        assignment_state=AssignmentState(row[8]),
        to_sequence=row[9],
        place=Place(row[10], row[11], row[12], row[13]),
        kind=BundleKind(row[14]),
        max_attempts=row[15],
        release_sequence=row[16],
        base_sequence=row[18],
    )


def record_report(tx: Transaction, vin: str, action: int, report: Report, now_us: int) -> Consequence:
    """Store a report and apply its consequence. Raises UnknownVehicleError."""
    case = find_case(tx, vin, action)
    found = after_report(case.assignment_state, case.action_state, report, case.attempt, case.max_attempts)
    anew = not found.late and case.action_state is ActionState.OPEN and case.asked and _anew(tx, case, report)
    said = report.details[-1] if report.details else ""
    number = _keep(tx, case, report, found.late, now_us)
    if anew:
        found = after_restart(found, case.restarts + 1, case.max_attempts)
        said = f"begun anew {case.restarts + 1} times without a result"
    if not found.late:
        _heard(tx, case, report, number if anew else None)
        if report.heard is Heard.SUCCESS:
            _arrived(tx, case, now_us)
        failed = report.heard is Heard.FAILURE and case.base_sequence is not None
        if failed and blames_delta(report.details, case.attempt):
            _use_full_bundle(tx, case, now_us)
    _apply(tx, case, found, said, now_us)
    return found


def record_asked(tx: Transaction, vin: str, action: int) -> None:
    """The vehicle asks again for an action that it has reported on; a beginning would follow now."""
    tx.execute("UPDATE action SET started = 0 WHERE id = :action AND vin = :vin", action=action, vin=vin)


def record_attributes(
    tx: Transaction, vin: str, attributes: Mapping[str, str], slots: SlotFacts | None, now_us: int
) -> None:
    """Store what a vehicle says about itself; new attributes are laid over the old ones."""
    row = tx.one("SELECT attributes FROM vehicle WHERE vin = :vin", vin=vin)
    if row is None:
        raise UnknownVehicleError(
            f"there is no vehicle {vin}", why="it is in no inventory", next="import the fleet's inventory"
        )
    merged = {**json.loads(row[0]), **attributes}
    tx.execute(
        "UPDATE vehicle SET attributes = :attributes, link = coalesce(:link, link), seen_us = :now_us WHERE vin = :vin",
        attributes=canonical.encode(merged).decode(),
        link=merged.get("link"),
        now_us=now_us,
        vin=vin,
    )
    if slots is None:
        return
    tx.execute(
        "UPDATE vehicle SET slot_active = :active, slot_a_sequence = :a_sequence, slot_a_intact = :a_intact, "
        "slot_b_sequence = :b_sequence, slot_b_intact = :b_intact, sequence = coalesce(:running, sequence), "
        "reported_us = :now_us WHERE vin = :vin",
        active=slots.active.value,
        a_sequence=slots.a.sequence,
        a_intact=int(slots.a.intact),
        b_sequence=slots.b.sequence,
        b_intact=int(slots.b.intact),
        running=slots.running.sequence,
        now_us=now_us,
        vin=vin,
    )
    record(
        tx,
        EventKind.SLOTS_REPORTED,
        now_us,
        {"active": slots.active.value, "a": slots.a.sequence, "b": slots.b.sequence},
        vin=vin,
    )


def set_state(
    tx: Transaction, case_id: int, place: Place, old: AssignmentState, new: AssignmentState, now_us: int
) -> None:
    """Move one assignment on, if it still is where it was read. Raises CampaignChangedError."""
    if old is new:
        return
    changed = tx.execute(
        "UPDATE assignment SET state = :new, is_open = :is_open, updated_us = :now_us WHERE id = :id AND state = :old",
        new=new.value,
        is_open=int(new not in FINAL),
        now_us=now_us,
        id=case_id,
        old=old.value,
    )
    if changed != 1:
        raise CampaignChangedError(
            f"assignment {case_id} is no longer {old}", why="another process changed it", next="repeat the request"
        )
    shift(tx, place, old, new)


def _keep(tx: Transaction, case: Case, report: Report, late: bool, now_us: int) -> int:
    """Store a report; gives its number."""
    made = tx.one(
        "INSERT INTO feedback (action_id, vin, at_us, heard, stage, progress_done, progress_of, details, late) "
        "VALUES (:action, :vin, :now_us, :heard, :stage, :done, :of, :details, :late) RETURNING id",
        action=case.action,
        vin=case.vin,
        now_us=now_us,
        heard=report.heard.value,
        stage=report.stage.value if report.stage else "",
        done=report.progress[0] if report.progress else None,
        of=report.progress[1] if report.progress else None,
        details=canonical.encode(list(report.details)).decode(),
        late=int(late),
    )
    assert made is not None, "INSERT ... RETURNING gives a row"
    number: int = made[0]
    return number


def _anew(reader: Reader, case: Case, report: Report) -> bool:
    return begins_anew(report, run_before(reader, case.vin, case.action, case.run_from, report))


def _heard(tx: Transaction, case: Case, report: Report, anew: int | None) -> None:
    """Remember that it spoke; ``anew`` is the number of the report with which it began again."""
    if anew is not None:
        tx.execute(
            "UPDATE action SET started = 1, restarts = restarts + 1, run_from = :anew WHERE id = :action",
            anew=anew,
            action=case.action,
        )
    elif case.asked and report.heard is Heard.PROGRESS:
        tx.execute("UPDATE action SET started = 1 WHERE id = :action", action=case.action)


def _arrived(tx: Transaction, case: Case, now_us: int) -> None:
    tx.execute(
        "UPDATE vehicle SET sequence = :sequence, reported_us = :now_us WHERE vin = :vin",
        sequence=case.to_sequence,
        now_us=now_us,
        vin=case.vin,
    )


def _apply(tx: Transaction, case: Case, found: Consequence, said: str, now_us: int) -> None:
    if found.action is not case.action_state:
        closed = found.action is ActionState.CLOSED
        tx.execute(
            "UPDATE action SET state = :state, closed_us = :closed_us WHERE id = :action",
            state=found.action.value,
            closed_us=now_us if closed else None,
            action=case.action,
        )
        if closed:
            _note(tx, EventKind.ATTEMPT_CLOSED, case, case.assignment_state, found.assignment, said, now_us)
            if found.assignment is AssignmentState.OFFERED and case.mode is InstallMode.SLOT:
                _use_bundle(tx, case)
    if found.assignment is not case.assignment_state:
        set_state(tx, case.assignment, case.place, case.assignment_state, found.assignment, now_us)
        if found.action is not ActionState.CLOSED:
            _note(tx, EventKind.ASSIGNMENT_STATE, case, case.assignment_state, found.assignment, said, now_us)
        if found.assignment in FAILURES:
            _disturb(tx, case.place, now_us)


def _use_bundle(tx: Transaction, case: Case) -> None:
    """The slot did not do: the next attempt gets the return bundle."""
    tx.execute(
        "UPDATE assignment SET mode = :mode, to_sequence = "
        "(SELECT min(sequence) FROM bundle WHERE release_sequence = :release AND kind = :kind) WHERE id = :id",
        mode=InstallMode.BUNDLE.value,
        release=case.release_sequence,
        kind=case.kind.value,
        id=case.assignment,
    )


def _use_full_bundle(tx: Transaction, case: Case, now_us: int) -> None:
    """The delta did not do: the next attempt gets the full bundle, where link and budget allow it."""
    tx.execute("UPDATE assignment SET delta_failed = 1 WHERE id = :id", id=case.assignment)
    record(
        tx,
        EventKind.DELTA_FAILED,
        now_us,
        {"action": case.action, "attempt": case.attempt, "delta_from": case.base_sequence, "next": "the full bundle"},
        campaign=case.place.campaign,
        vin=case.vin,
    )


def _disturb(tx: Transaction, place: Place, now_us: int) -> None:
    """A failure begins the wave's time of quiet anew."""
    tx.execute(
        "UPDATE wave SET quiet_since_us = :now_us WHERE campaign_id = :campaign AND generation = :generation "
        "AND number = :wave AND quiet_since_us IS NOT NULL",
        now_us=now_us,
        campaign=place.campaign,
        generation=place.generation,
        wave=place.wave,
    )


def _note(
    tx: Transaction, kind: EventKind, case: Case, old: AssignmentState, new: AssignmentState, said: str, now_us: int
) -> None:
    record(
        tx,
        kind,
        now_us,
        {"action": case.action, "attempt": case.attempt, "from": old.value, "to": new.value, "said": said[:500]},
        campaign=case.place.campaign,
        vin=case.vin,
    )
