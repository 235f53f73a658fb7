"""Slots on disk: what is written is proven, and power loss at any moment leaves the old state or the new one."""

from __future__ import annotations

import errno
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from nwmctl.domain.digest import digest_bytes
from nwmctl.domain.fleet import SlotName
from nwmctl.errors import NoSpaceError, NotCanonicalError, SlotBrokenError, SlotRuleError, VehicleStateError
from nwmctl.vehicle import boot
from nwmctl.vehicle.boot import SlotStatus
from nwmctl.vehicle.slots import SlotEntry, SlotFile, Slots
from tests.vehicle.helpers import slot_file, software


def test_install_trial_commit(tmp_path: Path) -> None:
    slots = Slots.create(tmp_path, 3, software(3))
    assert slots.install(4, software(4)) is SlotName.B
    assert slots.state().active is SlotName.A, "installing changes nothing that runs"
    slots.activate()
    assert Slots(tmp_path).start().on_trial
    state = Slots(tmp_path).commit()
    assert (state.active, state.highest) == (SlotName.B, 4)
    for slot in SlotName:
        assert [entry.name for entry in slots.prove(slot)] == ["bundle.json", "model.bin"]


def test_a_flipped_bit_is_found(tmp_path: Path) -> None:
    slots = Slots.create(tmp_path, 3, software(3))
    path = slots.folder_of(SlotName.A) / "model.bin"
    data = bytearray(path.read_bytes())
    data[777] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(SlotBrokenError, match="slot a is not what was installed"):
        slots.prove(SlotName.A)


def test_a_changed_list_of_files_is_found(tmp_path: Path) -> None:
    slots = Slots.create(tmp_path, 3, software(3))
    (slots.folder_of(SlotName.A) / "slot.json").write_bytes(b'{"files":[],"schema":"nwmctl.slot/1"}')
    with pytest.raises(SlotBrokenError):
        slots.prove(SlotName.A)


def test_a_factory_without_a_bundle_proves_nothing(tmp_path: Path) -> None:
    slots = Slots.create(tmp_path, 3, [])
    with pytest.raises(SlotBrokenError) as caught:
        slots.prove(SlotName.A)
    assert "no list of its files" in caught.value.why


def test_a_vehicle_is_delivered_once(tmp_path: Path) -> None:
    Slots.create(tmp_path, 3, software(3))
    with pytest.raises(VehicleStateError, match="is a vehicle already"):
        Slots.create(tmp_path, 4, software(4))


@pytest.mark.parametrize("data", [b"", b"{", b'{"active":"a"}', b'{"schema":"nwmctl.boot/1"}', b'{"schema":"x/1"}'])
def test_a_damaged_boot_state_is_refused(tmp_path: Path, data: bytes) -> None:
    slots = Slots.create(tmp_path, 3, software(3))
    (tmp_path / "boot.json").write_bytes(data)
    with pytest.raises(VehicleStateError):
        slots.state()


def wrong_size(data: bytes, size: int) -> SlotFile:
    return SlotFile(SlotEntry("model.bin", digest_bytes(data), size), lambda: iter([data]))


@pytest.mark.parametrize(
    "file",
    [
        wrong_size(b"x" * 100, 99),
        wrong_size(b"x" * 100, 101),
        SlotFile(SlotEntry("model.bin", digest_bytes(b"other"), 5), lambda: iter([b"bytes"])),
        slot_file("../escape", b"x"),
        slot_file("slot.json", b"x"),
        slot_file("", b"x"),
    ],
)
def test_wrong_bytes_leave_the_slot_unbootable_and_the_other_intact(tmp_path: Path, file: SlotFile) -> None:
    slots = Slots.create(tmp_path, 3, software(3))
    with pytest.raises(SlotBrokenError):
        slots.install(4, [file])
    assert slots.state().b.status is SlotStatus.UNBOOTABLE
    slots.prove(SlotName.A)
    with pytest.raises(SlotRuleError):
        slots.activate()
    assert not (tmp_path / "escape").exists()


def test_a_full_disk_is_a_refusal_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slots = Slots.create(tmp_path, 3, software(3))

    def full() -> Iterator[bytes]:
        yield b"x"
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(NoSpaceError, match=r"no space left to write 'model\.bin'"):
        slots.install(4, [SlotFile(SlotEntry("model.bin", digest_bytes(b"x"), 1), full)])
    assert slots.state().active is SlotName.A


class PowerLoss(BaseException):
    """The process is gone; nothing may catch this."""


def lose_power(monkeypatch: pytest.MonkeyPatch, after: int) -> None:
    """Let the ``after``-th change of the disk from now on be the last one; a write may be torn in the middle."""
    left = after

    def guarded(real: Callable[..., Any], torn: bool) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            nonlocal left
            left -= 1
            if left < 0:
                if torn:
                    real(arguments[0], bytes(arguments[1])[: len(arguments[1]) // 2])
                raise PowerLoss
            return real(*arguments, **named)

        return call

    monkeypatch.setattr(os, "write", guarded(os.write, torn=True))
    for name in ("replace", "fsync", "unlink"):
        monkeypatch.setattr(os, name, guarded(getattr(os, name), torn=False))


def life(folder: Path) -> None:
    """Two installations: the second overwrites the slot that the first one left behind."""
    for sequence in (4, 5):
        slots = Slots(folder)
        slots.install(sequence, software(sequence))
        slots.activate()
        Slots(folder).start()
        Slots(folder).commit()


def check_after_power_loss(folder: Path) -> None:
    slots = Slots(folder)
    state = slots.state()
    assert state.record(state.last_good).sequence in (3, 4, 5)
    slots.prove(state.last_good)
    if state.on_trial or state.record(state.inactive).status is SlotStatus.GOOD:
        slots.prove(boot.other(state.last_good))
    while slots.state().on_trial:
        slots.start()
    assert slots.state().active is state.last_good
    slots.install(9, software(9))
    slots.activate()
    slots.start()
    assert slots.commit().highest == 9
    slots.prove(slots.state().active)


def test_power_loss_at_every_change_of_the_disk(tmp_path: Path) -> None:
    moments = 0
    for after in range(200):
        folder = tmp_path / str(after)
        folder.mkdir()
        Slots.create(folder, 3, software(3))
        with pytest.MonkeyPatch.context() as patch:
            lose_power(patch, after)
            try:
                life(folder)
            except PowerLoss:
                moments += 1
            else:
                break
        check_after_power_loss(folder)
    else:
        pytest.fail("a life of two installations never ended")
    assert moments > 40


def test_power_loss_during_delivery_leaves_no_vehicle(tmp_path: Path) -> None:
    for after in range(100):
        folder = tmp_path / str(after)
        folder.mkdir()
        with pytest.MonkeyPatch.context() as patch:
            lose_power(patch, after)
            try:
                Slots.create(folder, 3, software(3))
            except PowerLoss:
                pass
            else:
                break
        if not (folder / "boot.json").exists():
            Slots.create(folder, 3, software(3))
        Slots(folder).prove(SlotName.A)


KILLED = """
import sys
from pathlib import Path
from nwmctl.vehicle.slots import Slots
from tests.vehicle.helpers import software
folder = Path(sys.argv[1])
print("ready", flush=True)
sequence = Slots(folder).state().highest
while True:
    sequence += 1
    slots = Slots(folder)
    while slots.state().on_trial:
        slots.start()
    slots.install(sequence, software(sequence, 300_000))
    slots.activate()
    slots.start()
    slots.commit()
"""


def test_sigkill_at_random_moments(tmp_path: Path) -> None:
    slots = Slots.create(tmp_path, 3, software(3))
    seed = random.randrange(1 << 32)
    source = random.Random(seed)
    highest = 3
    for _ in range(8):
        with subprocess.Popen([sys.executable, "-c", KILLED, str(tmp_path)], stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
            time.sleep(source.uniform(0.0, 0.15))
            process.send_signal(signal.SIGKILL)
        state = slots.state()
        assert state.highest >= highest
        highest = state.highest
        sys.stdout.write(f"seed {seed}: alive at {highest}\n")
        slots.prove(state.last_good)
        if state.record(state.inactive).status in (SlotStatus.GOOD, SlotStatus.INSTALLED):
            slots.prove(state.inactive)
    assert highest > 3, "the process was always killed before its first commit"


def test_not_canonical_errors_do_not_cross_the_seam(tmp_path: Path) -> None:
    slots = Slots.create(tmp_path, 3, software(3))
    (tmp_path / "boot.json").write_bytes(b'{ "schema": "nwmctl.boot/1" }')
    with pytest.raises(VehicleStateError) as caught:
        slots.state()
    assert isinstance(caught.value.__cause__, NotCanonicalError)
