"""The client's whole road against a scripted gateway: what it installs, what it refuses, what survives."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from nwmctl.domain.fleet import AssignmentState, SlotFact, SlotFacts, SlotName
from nwmctl.errors import (
    DdiFormatError,
    DeliveryError,
    GatewayAnswerError,
    GatewayUnreachableError,
    RefusedError,
    SequenceTooLowError,
)
from nwmctl.formats import ddi
from nwmctl.trust.keys import KeyRing
from nwmctl.vehicle import pending, record
from nwmctl.vehicle.boot import SlotStatus
from nwmctl.vehicle.client import SignedFile
from nwmctl.vehicle.delivery import deliver, is_delivered
from nwmctl.vehicle.machine import Machine
from nwmctl.vehicle.order import BundleOrder
from nwmctl.vehicle.pending import Ending, Stage
from nwmctl.vehicle.record import PinnedTrust
from nwmctl.vehicle.reporting import REASON_DETAIL
from tests.vehicle.bundles import RECORD
from tests.vehicle.conftest import TestClock
from tests.vehicle.world import World

S = AssignmentState


@pytest.fixture
def world(tmp_path: Path, clock: TestClock, keyring: KeyRing) -> World:
    return World(tmp_path / RECORD.vin, clock, keyring)


def reason(feedback: ddi.Feedback) -> str:
    found = [detail for detail in feedback.details if detail.startswith(REASON_DETAIL)]
    return found[0].removeprefix(REASON_DETAIL) if found else ""


def unchanged(world: World) -> bool:
    state = world.state
    world.slots.prove(SlotName.A)
    return state.active is SlotName.A and state.last_good is SlotName.A and state.highest == 3


# --- the good road ------------------------------------------------------------------------------------------------


def test_install_try_commit_and_report_every_stage(world: World) -> None:
    world.gateway.offer_bundle(7, 4, world.swu(4).read_bytes())
    world.drive()
    assert world.errors == []
    assert world.gateway.stages == [S.DOWNLOADING, S.INSTALLED, S.TRIAL, S.COMMITTED]
    (closing,) = world.gateway.closings
    assert (closing.action, closing.finished) == (7, ddi.Finished.SUCCESS)
    assert any("inference: not_run, no such chip here" in detail for detail in closing.details)
    assert any("chassis et5: 5 probes right" in detail for detail in closing.details)
    assert (world.state.active, world.state.highest) == (SlotName.B, 4)
    assert world.gateway.facts() == SlotFacts(SlotName.B, SlotFact(3, True), SlotFact(4, True))
    assert world.gateway.attributes[0]["platform"] == "nt2.0"
    assert world.gateway.tokens == {"TargetToken secret"}
    assert not list((world.folder / "download").iterdir()), "the bundle is removed once it is installed"


def test_the_slots_are_told_before_the_end(world: World) -> None:
    world.gateway.offer_bundle(7, 4, world.swu(4).read_bytes())
    heard = []
    world.gateway.attributes = heard  # type: ignore[assignment]
    world.drive()
    assert [facts["nwm.slot.active"] for facts in heard] == ["a", "b"]


def test_an_action_that_is_offered_again_is_answered_and_not_done_again(world: World) -> None:
    world.gateway.offer_bundle(7, 4, world.swu(4).read_bytes())
    offer = world.gateway.offers
    world.drive()
    for _ in range(2):
        world.gateway.offers = offer
        world.drive(cycles=2)
    assert world.gateway.downloads == 1
    assert [closing.finished for closing in world.gateway.closings] == [ddi.Finished.SUCCESS] * 3


def test_another_action_with_the_same_sequence_installs_again(world: World) -> None:
    world.gateway.offer_bundle(7, 4, world.swu(4).read_bytes())
    world.drive()
    world.gateway.offer_bundle(8, 4, world.swu(4).read_bytes())
    world.drive()
    assert world.gateway.downloads == 2
    assert world.state.active is SlotName.A
    assert world.state.a.sequence == 4


def test_the_end_is_reported_until_the_gateway_has_it(world: World) -> None:
    world.gateway.offer_bundle(7, 4, world.swu(4).read_bytes())
    world.drive("garbage::100%:4")
    assert world.gateway.garbage == 4
    assert isinstance(world.errors[0], GatewayAnswerError)
    assert len(world.gateway.closings) == 1
    found = pending.load(world.folder)
    assert found is not None
    assert found.told


def test_an_action_that_the_gateway_forgot_is_let_go(world: World) -> None:
    world.gateway.offer_bundle(7, 4, world.swu(4).read_bytes())
    world.gateway.forgets = True
    world.drive(cycles=1)
    world.gateway.offers = None
    world.drive(cycles=2)
    assert world.errors == []
    assert world.state.highest == 4


def test_a_gateway_that_is_away_changes_nothing(world: World) -> None:
    world.gateway.down = True
    world.drive(cycles=3)
    assert [type(problem) for problem in world.errors] == [GatewayUnreachableError] * 3
    assert unchanged(world)


# --- going back ---------------------------------------------------------------------------------------------------


def test_back_by_the_intact_inactive_slot(world: World) -> None:
    world.gateway.offer_bundle(7, 4, world.swu(4).read_bytes())
    world.drive()
    world.gateway.offer(8, ddi.PART_SLOT, 3)
    world.drive()
    assert world.gateway.stages[4:] == [S.TRIAL, S.COMMITTED]
    assert world.gateway.downloads == 1
    assert (world.state.active, world.state.highest) == (SlotName.A, 4)
    assert world.gateway.facts() == SlotFacts(SlotName.A, SlotFact(3, True), SlotFact(4, True))


def test_no_way_back_by_a_slot_that_was_damaged(world: World) -> None:
    world.gateway.offer_bundle(7, 4, world.swu(4).read_bytes())
    world.drive()
    (world.folder / "slot-a" / "quad.vmfb").write_bytes(b"rotten")
    world.gateway.offer(8, ddi.PART_SLOT, 3)
    world.drive()
    closing = world.gateway.closings[-1]
    # Not refused: the gateway shall try again, with the return bundle.
    assert (closing.stage, reason(closing)) == (S.FAILED, "NoSlotToReturnToError")
    assert world.state.active is SlotName.B
    assert world.gateway.facts() == SlotFacts(SlotName.B, SlotFact(3, False), SlotFact(4, True))


def test_no_way_back_to_a_sequence_that_is_not_there(world: World) -> None:
    world.gateway.offer(8, ddi.PART_SLOT, 2)
    world.drive()
    assert reason(world.gateway.closings[0]) == "NoSlotToReturnToError"
    assert unchanged(world)


def test_a_vehicle_that_is_there_already_says_so(world: World) -> None:
    world.gateway.offer(8, ddi.PART_SLOT, 3)
    world.drive()
    assert world.gateway.stages == [S.COMMITTED]
    assert unchanged(world)


# --- refusals -----------------------------------------------------------------------------------------------------


def test_corrupt_bytes_are_refused_and_the_slots_unchanged(world: World) -> None:
    before = world.state
    world.gateway.offer_bundle(7, 4, world.swu(4).read_bytes())
    world.drive("corrupt")
    assert world.gateway.stages == [S.DOWNLOADING, S.FAILED]
    assert reason(world.gateway.closings[0]) == "DownloadDigestError"
    assert world.gateway.closings[0].finished is ddi.Finished.FAILURE
    assert world.state == before


def test_the_second_attempt_of_the_gateway_is_a_new_action(world: World) -> None:
    world.gateway.offer_bundle(7, 4, world.swu(4).read_bytes())
    offer = world.gateway.offers
    world.drive("corrupt")
    world.gateway.offers = offer
    world.gateway.retry(8)
    world.drive()
    assert [(closing.action, closing.stage) for closing in world.gateway.closings] == [(7, S.FAILED), (8, S.COMMITTED)]


def test_a_bundle_of_another_authority(world: World, stranger: KeyRing) -> None:
    world.gateway.offer_bundle(7, 4, world.swu(4, keyring=stranger).read_bytes())
    world.drive()
    assert reason(world.gateway.closings[0]) == "CertificateUntrustedError"
    assert world.gateway.closings[0].stage is S.REFUSED
    assert unchanged(world)


def test_a_bundle_for_another_board(world: World) -> None:
    path = world.swu(4, change=lambda manifest: replace(manifest, board="nt3-board"))
    world.gateway.offer_bundle(7, 4, path.read_bytes())
    world.drive()
    assert reason(world.gateway.closings[0]) == "WrongHardwareError"
    assert unchanged(world)


def test_a_lower_sequence(world: World) -> None:
    world.gateway.offer_bundle(7, 2, world.swu(2).read_bytes())
    world.drive()
    assert reason(world.gateway.closings[0]) == "SequenceTooLowError"
    assert unchanged(world)


def test_another_sequence_than_offered(world: World) -> None:
    world.gateway.offer_bundle(7, 5, world.swu(4).read_bytes())
    world.drive()
    assert reason(world.gateway.closings[0]) == "BundleContentsError"
    assert unchanged(world)


def test_metadata_that_cannot_be_verified_stop_everything(world: World) -> None:
    def refuse(machine: Machine, order: BundleOrder) -> SignedFile:
        raise SequenceTooLowError("stale", why="test", next="test")

    world.find = refuse
    world.gateway.offer_bundle(7, 4, world.swu(4).read_bytes())
    world.drive()
    assert issubclass(SequenceTooLowError, RefusedError)
    assert world.gateway.closings[0].stage is S.REFUSED
    assert world.gateway.downloads == 0


@pytest.mark.parametrize("part", ["firmware", ""])
def test_an_order_that_is_not_understood_is_closed(world: World, part: str) -> None:
    world.gateway.offer(7, part, 4)
    world.drive()
    assert (world.gateway.closings[0].stage, reason(world.gateway.closings[0])) == (S.FAILED, "GatewayAnswerError")
    assert unchanged(world)


def test_a_full_disk(world: World) -> None:
    world.gateway.offer_bundle(7, 4, world.swu(4).read_bytes())
    world.drive("no_space")
    assert (world.gateway.closings[0].stage, reason(world.gateway.closings[0])) == (S.FAILED, "NoSpaceError")
    assert unchanged(world)


# --- trials -------------------------------------------------------------------------------------------------------


def test_a_failing_health_check_falls_back(world: World) -> None:
    world.gateway.offer_bundle(7, 4, world.swu(4).read_bytes())
    world.drive("health")
    assert world.gateway.stages == [S.DOWNLOADING, S.INSTALLED, S.TRIAL, S.ROLLED_BACK]
    (closing,) = world.gateway.closings
    assert (closing.finished, reason(closing)) == (ddi.Finished.FAILURE, "HealthCheckFailedError")
    assert unchanged(world)
    assert world.state.b.status is SlotStatus.UNBOOTABLE


@pytest.mark.parametrize("stage", list(Stage))
def test_power_loss_at_every_stage_ends_in_a_commit(world: World, stage: Stage) -> None:
    world.gateway.offer_bundle(7, 4, world.swu(4).read_bytes())
    world.drive(f"power={stage}")
    assert world.lives == 2
    assert world.state.highest == 4
    assert world.gateway.downloads == 1, "what was downloaded or installed is not fetched again"
    assert [closing.stage for closing in world.gateway.closings] == [S.COMMITTED]


def test_a_dropped_connection_is_resumed(world: World) -> None:
    world.gateway.offer_bundle(7, 4, world.swu(4).read_bytes())
    world.drive("drop=70000:*::2,drop=150000")
    assert world.gateway.downloads == 4
    assert world.gateway.closings[0].stage is S.COMMITTED


def test_a_power_loss_during_the_trial_until_the_boot_loader_gives_up(world: World) -> None:
    world.gateway.offer_bundle(7, 4, world.swu(4).read_bytes())
    world.drive("power=main-1", cycles=1)
    assert world.state.on_trial
    for _ in range(3):
        world.slots.start()
    assert not world.state.on_trial
    world.drive()
    assert (world.gateway.closings[0].stage, reason(world.gateway.closings[0])) == (
        S.ROLLED_BACK,
        "TrialNotFinishedError",
    )
    assert unchanged(world)


def test_a_slot_that_rots_before_its_trial_falls_back(world: World) -> None:
    world.gateway.offer_bundle(7, 4, world.swu(4).read_bytes())
    world.drive("power=trial", cycles=1)
    (world.folder / "slot-b" / "chassis-et5.json").write_bytes(b"{}")
    world.drive()
    assert world.gateway.closings[0].stage is S.ROLLED_BACK
    assert unchanged(world)


def test_a_silent_vehicle_still_looks_after_itself(world: World) -> None:
    world.gateway.offer_bundle(7, 4, world.swu(4).read_bytes())
    world.drive("silent=installed")
    assert world.gateway.stages == [S.DOWNLOADING]
    assert world.state.highest == 4
    assert {type(problem) for problem in world.errors} == {GatewayUnreachableError}
    world.drive()
    assert world.gateway.closings[0].stage is S.COMMITTED


# --- cancelling ---------------------------------------------------------------------------------------------------


def test_cancelled_during_the_download(world: World) -> None:
    world.gateway.offer_bundle(7, 4, world.swu(4).read_bytes())
    find = world.find

    def cancel_meanwhile(machine: Machine, order: BundleOrder) -> SignedFile:
        world.gateway.cancels = 7
        return find(machine, order)

    world.find = cancel_meanwhile
    world.drive()
    assert [feedback.stage for feedback in world.gateway.cancel_feedbacks] == [S.CANCELLED]
    assert world.gateway.closings == []
    found = pending.load(world.folder)
    assert found is not None
    assert found.outcome is not None
    assert (found.outcome.ending, found.told) == (Ending.CANCELLED, True)
    assert unchanged(world)


def test_cancelled_before_anything_was_begun(world: World) -> None:
    world.gateway.cancels = 7
    world.drive()
    assert [feedback.execution for feedback in world.gateway.cancel_feedbacks] == [ddi.Execution.CLOSED]


def test_a_committed_action_cannot_be_cancelled(world: World) -> None:
    world.gateway.offer_bundle(7, 4, world.swu(4).read_bytes())
    world.drive()
    world.gateway.cancels = 7
    world.drive()
    assert [feedback.execution for feedback in world.gateway.cancel_feedbacks] == [ddi.Execution.REJECTED]
    assert world.state.highest == 4


# --- a gateway that talks nonsense, and the factory ---------------------------------------------------------------


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b'{"config":{"polling":{"sleep":"soon"}}}', b"x" * 300_000])
def test_nonsense_from_the_gateway_changes_nothing(world: World, body: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ddi, "encode_polling", lambda polling: body)
    world.drive(cycles=2)
    assert len(world.errors) == 2
    assert all(isinstance(problem, DdiFormatError | GatewayAnswerError) for problem in world.errors)
    assert unchanged(world)


def test_the_token_stays_with_the_gateway(world: World) -> None:
    world.gateway.offer_bundle(7, 4, world.swu(4).read_bytes())
    assert world.gateway.offers is not None
    chunk = world.gateway.offers.chunks[0]
    elsewhere = replace(chunk.artifacts[0], href="http://mirror.test/files/bundle.swu")
    world.gateway.offers = replace(world.gateway.offers, chunks=(replace(chunk, artifacts=(elsewhere,)),))
    world.drive()
    assert world.gateway.tokens == {"TargetToken secret", None}
    assert world.gateway.closings[0].stage is S.COMMITTED


def test_delivery_with_another_sequence_leaves_no_vehicle(world: World, tmp_path: Path) -> None:
    trust = PinnedTrust(b"{}", world.keyring.ca_pem())
    with pytest.raises(DeliveryError, match="shall leave the factory with sequence 2"):
        deliver(tmp_path / "other", replace(RECORD, sequence=2), trust, world.swu(3, "factory.swu"), world.clock)
    assert not is_delivered(tmp_path / "other")


def test_delivery_happens_once(world: World) -> None:
    trust = PinnedTrust(b"{}", world.keyring.ca_pem())
    assert not deliver(world.folder, RECORD, trust, None, world.clock)
    with pytest.raises(DeliveryError, match="belongs to another vehicle"):
        deliver(world.folder, replace(RECORD, vin="OTHER"), trust, None, world.clock)
    assert record.load_record(world.folder) == RECORD
