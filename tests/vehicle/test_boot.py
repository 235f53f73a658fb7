"""The boot loader's laws, over every history that hypothesis can think of."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nwmctl.domain.digest import digest_bytes
from nwmctl.domain.fleet import SlotName
from nwmctl.errors import SlotRuleError
from nwmctl.vehicle import boot
from nwmctl.vehicle.boot import BootState, SlotRecord, SlotStatus

LISTING = digest_bytes(b"listing")


def on_trial(trials: int = 2) -> BootState:
    state = boot.mark_installed(boot.mark_unbootable(boot.factory(3, LISTING)), 4, LISTING)
    return boot.activate(state, trials)


MOVES = {
    "mark_unbootable": lambda state, number: boot.mark_unbootable(state),
    "mark_installed": lambda state, number: boot.mark_installed(state, number, LISTING),
    "activate": lambda state, number: boot.activate(state, number % 4),
    "start": lambda state, number: boot.start(state),
    "commit": lambda state, number: boot.commit(state),
    "fall_back": lambda state, number: boot.fall_back(state),
}


@given(st.lists(st.tuples(st.sampled_from(sorted(MOVES)), st.integers(0, 50)), max_size=40))
def test_no_history_breaks_the_laws(history: list[tuple[str, int]]) -> None:
    state = boot.factory(5, LISTING)
    for name, number in history:
        before = state
        try:
            state = MOVES[name](state, number)
        except SlotRuleError:
            continue
        good = before.record(before.last_good)
        assert state.record(before.last_good) == good, "the way back was changed"
        assert state.highest >= before.highest
        assert state.record(state.last_good).status is SlotStatus.GOOD
        if name in ("mark_unbootable", "mark_installed"):
            assert state.active is before.active
            assert state.record(state.active) == before.record(before.active)


def test_a_trial_that_is_never_committed_ends_on_the_last_good_slot() -> None:
    state = on_trial(trials=2)
    seen = []
    for _ in range(5):
        state = boot.start(state)
        seen.append(state.active)
    assert seen == [SlotName.B, SlotName.B, SlotName.A, SlotName.A, SlotName.A]
    assert state.b.status is SlotStatus.UNBOOTABLE


def test_commit_makes_the_slot_good_and_raises_the_highest_sequence() -> None:
    state = boot.commit(boot.start(on_trial()))
    assert (state.active, state.last_good, state.highest, state.trials_left) == (SlotName.B, SlotName.B, 4, 0)
    assert state.b.status is SlotStatus.GOOD


def test_going_back_by_slot_keeps_the_highest_sequence() -> None:
    state = boot.commit(on_trial())
    back = boot.commit(boot.activate(state))
    assert (back.active, back.record(back.active).sequence, back.highest) == (SlotName.A, 3, 4)


def test_neither_slot_may_be_written_during_a_trial() -> None:
    with pytest.raises(SlotRuleError, match="cannot write the inactive slot"):
        boot.mark_unbootable(on_trial())


@pytest.mark.parametrize("status", [SlotStatus.EMPTY, SlotStatus.UNBOOTABLE])
def test_an_unbootable_slot_is_never_activated(status: SlotStatus) -> None:
    state = BootState(SlotName.A, SlotName.A, SlotRecord(SlotStatus.GOOD, 1, LISTING), SlotRecord(status), 1)
    with pytest.raises(SlotRuleError, match="cannot be activated"):
        boot.activate(state)


def test_a_slot_that_was_not_marked_before_cannot_become_installed() -> None:
    with pytest.raises(SlotRuleError, match="cannot become installed"):
        boot.mark_installed(boot.factory(3, LISTING), 4, LISTING)


def test_outside_a_trial_there_is_nothing_to_decide() -> None:
    for move in (boot.commit, boot.fall_back):
        with pytest.raises(SlotRuleError, match="there is nothing to"):
            move(boot.factory(3, LISTING))


def test_impossible_states_cannot_be_said() -> None:
    good = SlotRecord(SlotStatus.GOOD, 5, LISTING)
    for wrong in (
        lambda: BootState(SlotName.A, SlotName.A, SlotRecord(), good, 5),
        lambda: BootState(SlotName.B, SlotName.A, good, SlotRecord(), 5),
        lambda: BootState(SlotName.A, SlotName.A, good, SlotRecord(), 5, trials_left=1),
        lambda: BootState(SlotName.A, SlotName.A, good, SlotRecord(), 4),
    ):
        with pytest.raises(ValueError):
            wrong()
