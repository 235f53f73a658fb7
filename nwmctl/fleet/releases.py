"""Which release sequence stands for which content, and which bundles of it vehicles may get.

``enable_release`` is the one transaction that makes a published release eligible, for all of its platforms or for
none. Invariants: a sequence is claimed once, by one content; a release's return sequence is claimed with it; what is
enabled is never changed. Does not look at the bundles' bytes: whoever published them did.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from nwmctl.domain.bundle import BundleKind
from nwmctl.domain.digest import Digest
from nwmctl.domain.release import Release
from nwmctl.domain.requires import Requires
from nwmctl.errors import BundleSetIncompleteError, SequenceTakenError
from nwmctl.fleet.events import EventKind, record
from nwmctl.formats import canonical
from nwmctl.formats.codec import Source, from_plain, to_plain
from nwmctl.storage.database import Database, Reader, Row, Transaction, Value

_COLUMNS = (
    "kind, platform, sequence, model_version, filename, path, tuf_name, sha1, sha256, size, virtual_only, requires"
)


@dataclass(frozen=True, slots=True)
class EnabledBundle:
    """A published bundle, full or with deltas. ``path`` is its place below the mirror's root, with '/'; hashes as
    hexadecimal digits."""

    kind: BundleKind
    platform: str
    sequence: int
    model_version: str
    filename: str
    path: str
    tuf_name: str
    sha1: str
    sha256: str
    size: int
    virtual_only: bool
    requires: Requires = field(default_factory=Requires, hash=False)
    base_sequence: int | None = None
    """It brings payloads as deltas, for vehicles that run this sequence; None: it is the full bundle."""


def claim_sequence(database: Database, release: Release, content: Digest, census: str = "") -> None:
    """Let the release's sequences stand for ``content`` for ever. Raises SequenceTakenError.

    May be called before the release is enabled. ``census``: digest of what its deltas were planned by; the first one
    stays, so that building the release again gives the same deltas.
    """
    with database.transaction() as tx:
        _claim(tx, release, content)
        tx.execute(
            "UPDATE ledger SET census = :census WHERE sequence = :sequence AND census = ''",
            census=census,
            sequence=release.sequence,
        )


def check_sequence(reader: Reader, release: Release, content: Digest) -> None:
    """Raise SequenceTakenError where ``claim_sequence`` would, without claiming: a mistaken sequence costs no build."""
    for sequence, stands_for in _claims(release, content):
        _refuse_taken(reader, sequence, stands_for)


def enable_release(
    database: Database,
    release: Release,
    content: Digest,
    bundles: Sequence[EnabledBundle],
    now_us: int,
    deltas: Sequence[EnabledBundle] = (),
) -> None:
    """Make a published release eligible, with its delta bundles. Does nothing if it already is, with the same bundles;
    a delta bundle for a sequence that none served so far is added.

    Raises SequenceTakenError, BundleSetIncompleteError; then nothing has changed.
    """
    _check_set(release, bundles)
    _check_deltas(release, deltas)
    with database.transaction() as tx:
        _claim(tx, release, content)
        known = enabled_bundles(tx, release.sequence)
        if known:
            if set(known) != set(bundles):
                raise _taken(release.sequence, "its enabled bundles are others")
            bundles = ()
        for bundle in bundles:
            _insert(tx, release.sequence, bundle)
        served = {(one.platform, one.base_sequence) for one in delta_bundles(tx, release.sequence)}
        added = [one for one in deltas if (one.platform, one.base_sequence) not in served]
        for bundle in added:
            _insert_delta(tx, release.sequence, bundle)
        if known and not added:
            return
        record(
            tx,
            EventKind.RELEASE_ENABLED,
            now_us,
            {
                "release": release.name,
                "sequence": release.sequence,
                "content": str(content),
                "bundles": {bundle.filename: bundle.sha256 for bundle in (*bundles, *added)},
            },
        )


def enabled_bundles(reader: Reader, release_sequence: int) -> tuple[EnabledBundle, ...]:
    """The bundles of a release; empty while it is not enabled."""
    rows = reader.all(
        f"SELECT {_COLUMNS} FROM bundle WHERE release_sequence = :sequence ORDER BY platform, kind",
        sequence=release_sequence,
    )
    return tuple(_bundle(row) for row in rows)


def enabled_bundle(reader: Reader, release_sequence: int, kind: BundleKind, platform: str) -> EnabledBundle | None:
    """One bundle of a release, or None."""
    row = reader.one(
        f"SELECT {_COLUMNS} FROM bundle WHERE release_sequence = :sequence AND kind = :kind AND platform = :platform",
        sequence=release_sequence,
        kind=kind.value,
        platform=platform,
    )
    return _bundle(row) if row else None


def delta_bundles(reader: Reader, release_sequence: int) -> tuple[EnabledBundle, ...]:
    """The delta bundles of a release, each as often as there are sequences that it serves."""
    return tuple(_delta_rows(reader, "", release_sequence=release_sequence))


def delta_bundle(reader: Reader, release_sequence: int, platform: str, base_sequence: int) -> EnabledBundle | None:
    """The delta bundle of a release for vehicles that run ``base_sequence``, or None."""
    where = "AND d.platform = :platform AND d.base_sequence = :base"
    found = _delta_rows(reader, where, release_sequence=release_sequence, platform=platform, base=base_sequence)
    return next(iter(found), None)


def census_of(reader: Reader, release_sequence: int) -> str:
    """The digest of the census that a claimed release was planned by; '' where none was taken."""
    row = reader.one("SELECT census FROM ledger WHERE sequence = :sequence", sequence=release_sequence)
    return str(row[0]) if row else ""


def known_bundles(reader: Reader) -> tuple[EnabledBundle, ...]:
    """The bundles of all releases, the oldest first."""
    rows = reader.all(f"SELECT {_COLUMNS} FROM bundle ORDER BY sequence, platform, kind")
    return tuple(_bundle(row) for row in rows)


def _bundle(row: Row) -> EnabledBundle:
    kind, platform, sequence, model, filename, path, tuf_name, sha1, sha256, size, virtual_only, text = row
    names = (platform, sequence, model, filename, path, tuf_name)
    requires = from_plain(Requires, canonical.decode(text.encode(), "bundle.requires"), Source("bundle.requires"))
    return EnabledBundle(BundleKind(kind), *names, sha1, sha256, size, bool(virtual_only), requires)


def _insert(tx: Transaction, release_sequence: int, bundle: EnabledBundle) -> None:
    tx.execute(
        f"INSERT INTO bundle (release_sequence, {_COLUMNS}) VALUES (:release_sequence, :kind, :platform, :sequence, "
        ":model_version, :filename, :path, :tuf_name, :sha1, :sha256, :size, :virtual_only, :requires)",
        release_sequence=release_sequence,
        kind=bundle.kind.value,
        platform=bundle.platform,
        sequence=bundle.sequence,
        model_version=bundle.model_version,
        filename=bundle.filename,
        path=bundle.path,
        tuf_name=bundle.tuf_name,
        sha1=bundle.sha1,
        sha256=bundle.sha256,
        size=bundle.size,
        virtual_only=int(bundle.virtual_only),
        requires=canonical.encode(to_plain(bundle.requires)).decode(),
    )


def _delta_rows(reader: Reader, where: str, **values: Value) -> list[EnabledBundle]:
    rows = reader.all(
        "SELECT d.base_sequence, d.filename, d.path, d.tuf_name, d.sha1, d.sha256, d.size, "
        "b.sequence, b.platform, b.model_version, b.virtual_only, b.requires FROM delta_bundle d "
        "JOIN bundle b ON b.release_sequence = d.release_sequence AND b.platform = d.platform AND b.kind = 'release' "
        f"WHERE d.release_sequence = :release_sequence {where} ORDER BY d.platform, d.base_sequence",
        **values,
    )
    found = []
    for base, filename, path, tuf_name, sha1, sha256, size, *full in rows:
        sequence, platform, model, virtual_only, text = full
        row = (BundleKind.RELEASE.value, platform, sequence, model, filename, path, tuf_name, sha1, sha256, size)
        found.append(replace(_bundle((*row, virtual_only, text)), base_sequence=base))
    return found


def _insert_delta(tx: Transaction, release_sequence: int, bundle: EnabledBundle) -> None:
    tx.execute(
        "INSERT INTO delta_bundle (release_sequence, platform, base_sequence, filename, path, tuf_name, sha1, sha256, "
        "size) VALUES (:release_sequence, :platform, :base, :filename, :path, :tuf_name, :sha1, :sha256, :size)",
        release_sequence=release_sequence,
        platform=bundle.platform,
        base=bundle.base_sequence,
        filename=bundle.filename,
        path=bundle.path,
        tuf_name=bundle.tuf_name,
        sha1=bundle.sha1,
        sha256=bundle.sha256,
        size=bundle.size,
    )


def _check_deltas(release: Release, deltas: Sequence[EnabledBundle]) -> None:
    """Each serves another sequence of a platform, and brings this release."""
    places = [(bundle.platform, bundle.base_sequence) for bundle in deltas]
    for bundle in deltas:
        place = (bundle.platform, bundle.base_sequence)
        wrong = (bundle.kind, bundle.sequence) != (BundleKind.RELEASE, release.sequence)
        if wrong or bundle.platform not in release.platforms or bundle.base_sequence is None or places.count(place) > 1:
            raise BundleSetIncompleteError(
                f"the delta bundle '{bundle.filename}' does not belong to release '{release.name}'",
                why=f"it brings {bundle.kind} sequence {bundle.sequence} to {bundle.platform} from "
                f"{bundle.base_sequence}, or another one does the same",
                next="run the release again, so that its deltas are its own",
            )


def _check_set(release: Release, bundles: Sequence[EnabledBundle]) -> None:
    sequences = {BundleKind.RELEASE: release.sequence, BundleKind.RETURN: release.return_sequence}
    wanted = {(kind, platform) for kind in BundleKind for platform in release.platforms}
    given = [(bundle.kind, bundle.platform) for bundle in bundles]
    missing = sorted(f"{platform} ({kind})" for kind, platform in wanted - set(given))
    if missing or len(given) != len(wanted) or set(given) != wanted:
        extra = sorted(f"{platform} ({kind})" for kind, platform in given if (kind, platform) not in wanted)
        raise BundleSetIncompleteError(
            f"the bundles of release '{release.name}' are not complete",
            why=f"missing: {', '.join(missing) or 'none'}; not wanted or twice: {', '.join(extra) or 'none'}",
            next="build and publish every platform of the release; it exists for all of them or for none",
        )
    for bundle in bundles:
        if bundle.sequence != sequences[bundle.kind]:
            raise BundleSetIncompleteError(
                f"the bundle '{bundle.filename}' has sequence {bundle.sequence}",
                why=f"as {bundle.kind} bundle of '{release.name}' it must have {sequences[bundle.kind]}",
                next="build the bundle again from this release file",
            )


def _claim(tx: Transaction, release: Release, content: Digest) -> None:
    for sequence, stands_for in _claims(release, content):
        tx.execute(
            "INSERT INTO ledger (sequence, content, release_name) VALUES (:sequence, :content, :name) "
            "ON CONFLICT (sequence) DO NOTHING",
            sequence=sequence,
            content=stands_for,
            name=release.name,
        )
        _refuse_taken(tx, sequence, stands_for)


def _claims(release: Release, content: Digest) -> tuple[tuple[int, str], ...]:
    return (release.sequence, str(content)), (release.return_sequence, f"return of {content}")


def _refuse_taken(reader: Reader, sequence: int, stands_for: str) -> None:
    row = reader.one("SELECT content, release_name FROM ledger WHERE sequence = :sequence", sequence=sequence)
    if row is not None and row[0] != stands_for:
        raise _taken(sequence, f"it stands for {row[0][:40]}... of release '{row[1]}'")


def _taken(sequence: int, why: str) -> SequenceTakenError:
    return SequenceTakenError(
        f"the release sequence {sequence} is taken by other content",
        why=f"{why}; one sequence never stands for two contents",
        next="give the release a higher sequence (a release also takes the number after its own, for the way back)",
    )
