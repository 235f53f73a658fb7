"""What the director should say to each vehicle, what it has said, and the keeping of signed files.

A file is due where the vehicle's direction, its computers or the director's keys are others than in the kept one, where
half of its lifetime is gone, or where the vehicle has reported a higher version (then this database was restored from a
backup). What is shown is what a poll would offer: nothing of a planned wave, nothing that was withdrawn. Keeping is a
compare-and-set on the version, so two signers at once cannot set a vehicle back.

Only reads and keeps; the signing itself is ``trust.director``'s.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from nwmctl.domain.bundle import BundleKind
from nwmctl.domain.campaign import CampaignState, WaveState
from nwmctl.domain.fleet import AssignmentState
from nwmctl.errors import DirectorNotReadyError, EcusNotRegisteredError
from nwmctl.fleet.consequences import InstallMode, may_see
from nwmctl.fleet.delivery import offered_bundle
from nwmctl.fleet.releases import EnabledBundle
from nwmctl.formats.uptane import Dialect, Directed, Direction, DirectorRoot, UseSlot, expiry_text
from nwmctl.storage.database import Database, Reader, Row, Transaction, Value
from nwmctl.trust.director import LIFETIME_US, RENEW_US, DirectorPool, DirectorSigner, Order
from nwmctl.trust.metadata import next_version

PAGE = 4_000
_MINUTE_US = 60_000_000
_SKEW_US = 86_400_000_000
"""How far the clocks of machines that sign may differ."""
_VEHICLES = (
    "SELECT e.vin, e.dialect, e.ecus, e.ecus_sha256, e.reported_version, f.version, f.content, f.expires_us "
    "FROM vehicle_ecus e LEFT JOIN director_file f ON f.vin = e.vin "
)
_OWED = (
    "SELECT a.vin, a.state, a.mode, a.to_sequence, a.platform, c.state, c.kind, c.release_sequence, w.state, "
    "x.id, x.base_sequence, v.sequence, a.delta_failed FROM assignment a JOIN campaign c ON c.id = a.campaign_id "
    "JOIN vehicle v ON v.vin = a.vin LEFT JOIN action x ON x.assignment_id = a.id AND x.state <> 'closed' "
    "JOIN wave w ON w.campaign_id = a.campaign_id AND w.generation = a.generation AND w.number = a.wave "
    "WHERE a.is_open = 1 "
)
_KEEP = """
INSERT INTO director_file (vin, version, content, expires_us, body)
VALUES (:vin, :version, :content, :expires_us, :body)
ON CONFLICT (vin) DO UPDATE SET version = excluded.version, content = excluded.content,
  expires_us = excluded.expires_us, body = excluded.body
WHERE director_file.version < excluded.version
"""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What one vehicle's file should say, and what is kept. ``version`` is 0 and ``content`` empty for none yet."""

    vin: str
    dialect: Dialect
    ecus: str
    ecus_sha256: str
    direction: Direction
    reported: int
    version: int
    content: str
    expires_us: int

    def content_with(self, fingerprint: str) -> str:
        """Names what the file says and who signs it, without version and expiry."""
        match self.direction:
            case Directed(_, _, sha256, sequence):
                what = f"{sha256}/{sequence}"
            case UseSlot(sequence):
                what = f"slot/{sequence}"
            case None:
                what = "nothing"
        return f"{self.dialect}/{fingerprint}/{self.ecus_sha256[:32]}/{what}"

    def due(self, fingerprint: str, now_us: int) -> bool:
        """Whether it has to be signed anew."""
        # A file that outlives what is ever granted was signed by a clock that ran ahead.
        fresh = RENEW_US <= self.expires_us - now_us <= LIFETIME_US + _SKEW_US and self.version >= self.reported
        return not fresh or self.content != self.content_with(fingerprint)

    def order(self, now_us: int) -> Order:
        """The order to sign it."""
        version = next_version(max(self.version, version_floor(now_us)), self.reported)
        return Order(self.dialect, self.ecus, self.direction, version)


@dataclass(frozen=True, slots=True)
class Kept:
    """A signed file to keep."""

    vin: str
    version: int
    content: str
    expires_us: int
    body: str


def version_floor(now_us: int) -> int:
    """Versions start from the minute: a client that reports no versions is passed too after a restored backup."""
    return now_us // _MINUTE_US


def wanted(reader: Reader, vin: str) -> Wanted:
    """One vehicle's. Raises EcusNotRegisteredError."""
    row = reader.one(_VEHICLES + "WHERE e.vin = :vin", vin=vin)
    if row is None:
        raise EcusNotRegisteredError(
            f"the vehicle {vin} has not registered its computers",
            why="the director names computers by serial and hardware, and knows none of this vehicle",
            next="let the vehicle send its registration first (POST director/ecus)",
        )
    owed = reader.all(_OWED + "AND a.vin = :vin ORDER BY a.id", vin=vin)
    stopping = reader.one("SELECT 1 FROM action WHERE vin = :vin AND state = 'cancelling'", vin=vin)
    direction = _direction(_Bundles(reader), owed[-1] if owed and not stopping else None)
    return _wanted(row, direction)


def wanted_pages(reader: Reader, page: int = PAGE) -> Iterator[list[Wanted]]:
    """Everybody's, in pages by VIN."""
    after, bundles = "", _Bundles(reader)
    while rows := reader.all(_VEHICLES + "WHERE e.vin > :after ORDER BY e.vin LIMIT :page", after=after, page=page):
        last = rows[-1][0]
        between: dict[str, Value] = {"after": after, "last": last}
        owed = reader.all(_OWED + "AND a.vin > :after AND a.vin <= :last ORDER BY a.id", **between)
        newest = {row[0]: row for row in owed}
        for (stopping,) in reader.all(
            "SELECT vin FROM action WHERE state = 'cancelling' AND vin > :after AND vin <= :last", **between
        ):
            newest.pop(stopping, None)
        yield [_wanted(row, _direction(bundles, newest.get(row[0]))) for row in rows]
        after = last


def kept_body(reader: Reader, vin: str) -> str:
    """The kept file of a vehicle. Raises DirectorNotReadyError."""
    row = reader.one("SELECT body FROM director_file WHERE vin = :vin", vin=vin)
    if row is None:
        raise DirectorNotReadyError(
            f"there are no director metadata for {vin} yet",
            why="none were signed beforehand, and this gateway has no director key",
            next="run `nwmctl director sign`, or give the gateway the key folder with --director-keys",
        )
    return str(row[0])


def keep(tx: Transaction, files: Sequence[Kept]) -> None:
    """Keep signed files, each unless a higher version is kept already."""
    tx.many(
        _KEEP,
        [
            {
                "vin": one.vin,
                "version": one.version,
                "content": one.content,
                "expires_us": one.expires_us,
                "body": one.body,
            }
            for one in files
        ],
    )


def sign_one(tx: Transaction, vin: str, signer: DirectorSigner, now_us: int) -> str:
    """The vehicle's file, signed now if it is due; judged anew in the transaction. Raises EcusNotRegisteredError."""
    found = wanted(tx, vin)
    if not found.due(signer.fingerprint, now_us):
        return kept_body(tx, vin)
    order, expires_us = found.order(now_us), now_us + LIFETIME_US
    body = signer.sign(order, expiry_text(expires_us))
    keep(tx, [Kept(vin, order.version, found.content_with(signer.fingerprint), expires_us, body)])
    return body


def sign_due(
    database: Database, pool: DirectorPool, fingerprint: str, now_us: int, told: Callable[[int, int], None]
) -> int:
    """Sign and keep everything that is due; gives how many. ``told`` hears (looked at, signed) after each page."""
    seen = signed = 0
    expires_us = now_us + LIFETIME_US

    def chunks() -> Iterator[tuple[list[tuple[Wanted, Order]], list[Order]]]:
        nonlocal seen
        for page in wanted_pages(database.reader):
            seen += len(page)
            due = [(one, one.order(now_us)) for one in page if one.due(fingerprint, now_us)]
            if due:
                yield due, [order for _, order in due]

    for due, bodies in pool.sign(chunks(), expires_us):
        files = [
            Kept(one.vin, order.version, one.content_with(fingerprint), expires_us, body)
            for (one, order), body in zip(due, bodies, strict=True)
        ]
        with database.transaction() as tx:
            keep(tx, files)
        signed += len(files)
        told(seen, signed)
    return signed


def keep_root(tx: Transaction, root: DirectorRoot) -> None:
    """Keep a version of the director's root."""
    tx.execute(
        "INSERT INTO director_root (version, tuf, reference) VALUES (:version, :tuf, :reference)",
        version=root.version,
        tuf=root.tuf.decode(),
        reference=root.reference.decode(),
    )


def root_at(reader: Reader, version: int) -> DirectorRoot | None:
    """A version of the director's root, or None."""
    row = reader.one("SELECT version, tuf, reference FROM director_root WHERE version = :version", version=version)
    return DirectorRoot(row[0], row[1].encode(), row[2].encode()) if row else None


def newest_root(reader: Reader) -> DirectorRoot | None:
    """The newest version of the director's root, or None where there is no director yet."""
    row = reader.one("SELECT max(version) FROM director_root")
    return root_at(reader, row[0]) if row and row[0] is not None else None


class _Bundles:
    """Enabled bundles, each looked up once."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._found: dict[tuple[int, str, str, int | None], EnabledBundle | None] = {}

    def find(self, release_sequence: int, kind: str, platform: str, base: int | None) -> EnabledBundle | None:
        """The bundle with a delta from ``base``, or the full one where there is none."""
        key = (release_sequence, kind, platform, base)
        if key not in self._found:
            self._found[key] = offered_bundle(self._reader, release_sequence, BundleKind(kind), platform, base)
        return self._found[key]


def _direction(bundles: _Bundles, row: Row | None) -> Direction:
    if row is None:
        return None
    _, state, mode, to_sequence, platform, campaign, kind, release_sequence, wave, *way = row
    planned = WaveState(wave) is WaveState.PLANNED
    if planned or not may_see(CampaignState(campaign), AssignmentState(state)):
        return None
    if InstallMode(mode) is InstallMode.SLOT:
        return UseSlot(to_sequence)
    action, base, installed, failed = way
    if action is None:
        # Nothing is offered yet: what the next poll would be.
        base = installed if BundleKind(kind) is BundleKind.RELEASE and not failed else None
    found = bundles.find(release_sequence, kind, platform, base)
    return Directed(found.tuf_name, found.size, found.sha256, found.sequence) if found else None


def _wanted(row: Row, direction: Direction) -> Wanted:
    vin, dialect, ecus, ecus_sha256, reported, version, content, expires_us = row
    return Wanted(
        vin, Dialect(dialect), ecus, ecus_sha256, direction, reported, version or 0, content or "", expires_us or 0
    )
