"""What of a repository and of a key ring expires, and when somebody should be told. Pure but for the ring's files.

Each thing is warned of long enough before: metadata that a machine renews by days, what persons must sign together or
what old bundles hang on by half a year.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum

from nwmctl.domain.keys import KeyRole
from nwmctl.errors import ClockBehindError, KeyRingError
from nwmctl.trust.keys import KeyRing
from nwmctl.trust.metadata import translated
from nwmctl.trust.repository import MetadataSet

_ROOT = "have the holders sign the next root: `nwmctl keys ceremony draft`, sign, finish; then `nwmctl keys refresh`"
_DIRECTOR_ROOT = (
    "have the holders sign the next one: `nwmctl keys ceremony draft --director`, sign, finish; then "
    "`nwmctl director root`"
)
_ROOT_WARNING = _LEAF_WARNING = timedelta(days=180)
_LISTS = "nwmctl keys refresh RELEASE"
_LEAF = (
    "nwmctl keys resign RELEASE: renews it and publishes the release again under it; swupdate refuses bundles of an "
    "expired certificate, also those that were signed in time"
)
_AUTHORITY = "vehicles carry it: bring a new one to them with a bundle while this one holds"


class ExpiryState(StrEnum):
    """How near the end is."""

    HOLDS = "holds"
    SOON = "soon"
    EXPIRED = "expired"


@dataclass(frozen=True, slots=True)
class Expiry:
    """One thing that expires; ``next`` is what then helps."""

    name: str
    expires_us: int
    warn_us: int
    next: str

    def state(self, now_us: int) -> ExpiryState:
        """How it is at a time."""
        if now_us >= self.expires_us:
            return ExpiryState.EXPIRED
        return ExpiryState.SOON if now_us >= self.expires_us - self.warn_us else ExpiryState.HOLDS


def check_clock(ring: KeyRing, now_us: int) -> None:
    """Return if this machine's clock can be right: it shows no time before the keys were made.

    A clock that runs ahead cannot be told from a long pause; what it has signed is signed anew once it is right again.
    Raises ClockBehindError.
    """
    made_us = ring.document.created_us
    if now_us < made_us - _us(timedelta(days=1)):
        now, made = (datetime.fromtimestamp(at / 1e6, UTC).strftime("%Y-%m-%d") for at in (now_us, made_us))
        raise ClockBehindError(
            f"this machine's clock shows {now}, and the keys in {ring.folder.name} were made on {made}",
            why="metadata that are signed now would have expired already, and every vehicle would refuse them",
            next="set the clock right, and run the command again",
        )


def repository_expiries(state: MetadataSet) -> tuple[Expiry, ...]:
    """Of a repository's metadata. Raises MetadataFormatError."""
    from tuf.api.metadata import Metadata

    parts = [
        ("root", state.roots[-1], _ROOT_WARNING, _ROOT),
        ("targets", state.targets, timedelta(days=60), _LISTS),
        *((name, data, timedelta(days=60), _LISTS) for name, data in state.delegated.items()),
        ("snapshot", state.snapshot, timedelta(days=60), _LISTS),
        ("timestamp", state.timestamp, timedelta(days=10), _LISTS),
    ]
    with translated():
        return tuple(
            Expiry(
                f"repository: {name}",
                int(Metadata.from_bytes(data).signed.expires.timestamp() * 1_000_000),
                _us(before),
                remedy,
            )
            for name, data, before, remedy in parts
        )


def ring_expiries(ring: KeyRing) -> tuple[Expiry, ...]:
    """Of a key ring: its newest roots and the release certificates. Raises KeyRingError, RootDraftError."""
    found = []
    for holders, name in ((KeyRole.ROOT, "root"), (KeyRole.DIRECTOR_ROOT, "director's root")):
        roots = ring.roots(holders)
        if roots:
            found.append(root_expiry(name, roots[-1]))
    if ring.has(KeyRole.RELEASE):
        found.append(_certificate("release certificate", ring.certificate_pem(), _LEAF_WARNING, _LEAF))
        found.append(_certificate("release authority", ring.ca_pem(), timedelta(days=365), _AUTHORITY))
    return tuple(found)


def bundle_expiry(sequence: int, ends_us: int) -> Expiry:
    """Of the bundles of a published release, whose certificate ends at ``ends_us``."""
    return Expiry(f"published bundles, sequence {sequence}", ends_us, _us(_LEAF_WARNING), _LEAF)


def root_expiry(name: str, root: bytes) -> Expiry:
    """Of a root. Raises RootDraftError."""
    from nwmctl.trust.roots import view_root

    view = view_root(root)
    remedy = _ROOT if view.holders is KeyRole.ROOT else _DIRECTOR_ROOT
    return Expiry(f"{name}, version {view.version}", view.expires_us, _us(_ROOT_WARNING), remedy)


def root_due(root: bytes, now_us: int) -> bool:
    """Whether it is time for the next root: this one ends soon, or was made when the clock ran ahead and would hold for
    longer than any is granted. Raises RootDraftError."""
    from nwmctl.trust.roots import ROOT_LIFETIME

    expiry = root_expiry("", root)
    beyond = expiry.expires_us > now_us + _us(ROOT_LIFETIME + timedelta(days=1))
    return beyond or expiry.state(now_us) is not ExpiryState.HOLDS


def _certificate(name: str, pem: bytes, before: timedelta, remedy: str) -> Expiry:
    from cryptography import x509

    try:
        ends = x509.load_pem_x509_certificate(pem).not_valid_after_utc
    except ValueError as problem:
        raise KeyRingError(
            f"the {name} cannot be read", why=str(problem), next="restore the key folder from its backup"
        ) from problem
    return Expiry(name, int(ends.timestamp() * 1_000_000), _us(before), remedy)


def _us(span: timedelta) -> int:
    return span // timedelta(microseconds=1)
