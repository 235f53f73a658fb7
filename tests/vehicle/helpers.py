"""What the vehicle's tests share: slot files made of seeded bytes."""

from __future__ import annotations

import random
from collections.abc import Iterator

from nwmctl.domain.digest import digest_bytes
from nwmctl.vehicle.slots import SlotEntry, SlotFile


def slot_file(name: str, data: bytes, chunk: int = 4096) -> SlotFile:
    def read() -> Iterator[bytes]:
        for at in range(0, len(data), chunk):
            yield data[at : at + chunk]

    return SlotFile(SlotEntry(name, digest_bytes(data), len(data)), read)


def software(sequence: int, size: int = 10_000) -> list[SlotFile]:
    """Files that differ with the sequence."""
    source = random.Random(sequence)
    return [slot_file("bundle.json", source.randbytes(300)), slot_file("model.bin", source.randbytes(size))]
