"""What a gateway's deployment asks this vehicle to do, or why that cannot be made out. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from nwmctl.errors import GatewayAnswerError
from nwmctl.formats.ddi import META_SEQUENCE, META_TUF_NAME, PART_BUNDLE, PART_SLOT, Deployment
from nwmctl.vehicle.pending import Way


@dataclass(frozen=True, slots=True)
class BundleOrder:
    """Install the bundle at ``href``; ``tuf_name`` is its name in the repository. ``sequence``: 0 if none is named."""

    action: int
    sequence: int
    tuf_name: str
    href: str
    sha256: str
    size: int

    @property
    def way(self) -> Way:
        """How the vehicle gets there."""
        return Way.BUNDLE


@dataclass(frozen=True, slots=True)
class SlotOrder:
    """Run the inactive slot, which must hold ``sequence``."""

    action: int
    sequence: int

    @property
    def way(self) -> Way:
        """How the vehicle gets there."""
        return Way.SLOT


Order = BundleOrder | SlotOrder


def read_order(deployment: Deployment) -> Order:
    """The one thing that a deployment asks for. Raises GatewayAnswerError."""
    if len(deployment.chunks) != 1:
        raise _odd(f"it has {len(deployment.chunks)} chunks instead of one")
    chunk = deployment.chunks[0]
    text = chunk.metadata.get(META_SEQUENCE, "")
    if text and not (text.isascii() and text.isdigit() and len(text) < 11):
        raise _odd(f"'{text[:40]}' is not a release sequence")
    if chunk.part == PART_SLOT:
        if not text:
            raise _odd("it does not say which sequence the slot shall hold")
        return SlotOrder(deployment.action, int(text))
    if chunk.part != PART_BUNDLE:
        raise _odd(f"'{chunk.part[:40]}' is not a part that this vehicle has")
    if len(chunk.artifacts) != 1:
        raise _odd(f"it has {len(chunk.artifacts)} files instead of one")
    artifact = chunk.artifacts[0]
    name = chunk.metadata.get(META_TUF_NAME, "") or artifact.filename
    return BundleOrder(deployment.action, int(text or 0), name, artifact.href, artifact.sha256, artifact.size)


def _odd(why: str) -> GatewayAnswerError:
    return GatewayAnswerError(
        "the gateway asks for something that this vehicle does not understand",
        why=why,
        next="check that gateway and vehicle speak the same version",
    )
