"""Bundles under a certificate that holds for longer: what was published stays, and is published once more.

A bundle's signature is part of its bytes, and one sequence never stands for two contents; so a release whose signatures
end is published again under the next free sequence, the same artifacts from the store with a fresh certificate. This
module renews the certificate, finds the sequence and writes it into the release file, which stays the one place that
says what a sequence is. Building, judging, signing and publishing are the ordinary road's (and so are approvals, which
name a bundle's digest). Repeating goes on with a sequence that was written and not published yet.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path

from nwmctl.app.clock import SystemClock
from nwmctl.app.fleets import fleet_database
from nwmctl.app.keys import deployment_keys
from nwmctl.app.passphrases import unlock
from nwmctl.app.project import Project, load_project
from nwmctl.app.settings import Settings
from nwmctl.domain.digest import Digest
from nwmctl.errors import NotPublishedError, NwmError, OutputUnwritableError, SchemaError
from nwmctl.fleet.releases import EnabledBundle, enabled_bundles, known_bundles
from nwmctl.formats import cpio
from nwmctl.formats.members import leading
from nwmctl.storage.content import ContentStore, write_atomically
from nwmctl.storage.database import Reader
from nwmctl.storage.workspace import Workspace
from nwmctl.trust.cms import certificate_end_us
from nwmctl.trust.expiry import Expiry, ExpiryState, bundle_expiry, ring_expiries
from nwmctl.trust.keyfolder import renew_certificate
from nwmctl.trust.keys import KeyRing

_SEQUENCE = re.compile(r"^sequence:[ \t]*(\d+)(?=[ \t]*(?:#|$))", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Resigning:
    """What was prepared. ``needed`` is False where all signatures hold for long enough: then nothing was changed.

    ``ends_us``: until when the fresh signatures will hold.
    """

    needed: bool
    renewed: bool
    before: int
    sequence: int
    ends_us: int


def prepare(settings: Settings, release: Path, *, force: bool = False, passphrase_env: str | None = None) -> Resigning:
    """Renew the release certificate where it ends soon, and give the release file the next free sequence where its own
    is published with signatures that end soon (``force``: both in any case).

    Raises NotPublishedError where nothing was ever published, key errors, SchemaError and OutputUnwritableError for a
    release file that cannot be changed.
    """
    project, clock = load_project(release, settings.platforms), SystemClock()
    workspace = settings.open()
    with workspace.locked("nwmctl keys resign"), fleet_database(workspace) as database:
        ring = deployment_keys(settings, virtual=project.release.fleet.virtual)
        before = project.release.sequence
        if not known_bundles(database.reader):
            raise NotPublishedError(
                "there is no bundle to sign again",
                why=f"nothing was published from the workspace {workspace.root} yet",
                next="name the workspace that publishes with --workspace, or publish: `nwmctl publish RELEASE`",
            )
        published = enabled_bundles(database.reader, before)
        ends = _ends(workspace.store(), published, before)
        due = force or not published or ends is None or _soon(ends, clock.now_us())
        if not due:
            assert ends is not None
            return Resigning(False, False, before, before, ends.expires_us)
        renew = force or any(_soon(one, clock.now_us()) for one in _leaf(ring))
        if renew:
            ring = renew_certificate(ring, clock, unlock(ring, passphrase_env))
        sequence = before
        if published:
            sequence = _next_free(database.reader, project)
            _write_sequence(release, project, sequence, settings)
    (leaf,) = _leaf(ring)
    return Resigning(True, renew, before, sequence, leaf.expires_us)


def published_expiry(workspace: Workspace) -> Expiry | None:
    """When the signatures of the newest published release end; None where there is none, or its files are not kept.

    Raises NwmError for a database that cannot be read.
    """
    if not workspace.database.exists():
        return None
    with fleet_database(workspace) as database:
        row = database.reader.one("SELECT max(release_sequence) FROM bundle")
        newest = row[0] if row else None
        published = enabled_bundles(database.reader, newest) if newest is not None else ()
    return _ends(workspace.store(), published, newest or 0)


def _ends(store: ContentStore, published: tuple[EnabledBundle, ...], sequence: int) -> Expiry | None:
    found = []
    for bundle in published:
        digest = Digest(bundle.sha256)
        if not store.has(digest):
            continue
        with store.path(digest).open("rb") as file:
            _, signature = leading(cpio.unpack(file.read))
        found.append(certificate_end_us(signature))
    return bundle_expiry(sequence, min(found)) if found else None


def _leaf(ring: KeyRing) -> list[Expiry]:
    return [one for one in ring_expiries(ring) if one.name == "release certificate"]


def _soon(expiry: Expiry, now_us: int) -> bool:
    return expiry.state(now_us) is not ExpiryState.HOLDS


def _next_free(reader: Reader, project: Project) -> int:
    row = reader.one("SELECT max(sequence) FROM ledger")
    return max(int(row[0] or 0) if row else 0, project.release.return_sequence) + 1


def _write_sequence(path: Path, project: Project, sequence: int, settings: Settings) -> None:
    """Change the one line; what the file says otherwise, its comments too, stays as it is."""
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as problem:
        raise _by_hand(path, sequence, str(problem)) from problem
    changed, count = _SEQUENCE.subn(f"sequence: {sequence}", text)
    if count != 1:
        raise _by_hand(path, sequence, f"a line 'sequence: {project.release.sequence}' stands in it {count} times")
    hidden = path.with_name(f".{path.name}.resigned")
    try:
        write_atomically(hidden, changed.encode())
        again = load_project(hidden, settings.platforms).release
        if again != replace(project.release, sequence=sequence):
            raise _by_hand(path, sequence, "another value would change with it")
        hidden.replace(path)
    except OSError as problem:
        raise OutputUnwritableError(
            f"'{path}' cannot be written", why=problem.strerror or str(problem), next="make the file writable"
        ) from problem
    finally:
        hidden.unlink(missing_ok=True)


def _by_hand(path: Path, sequence: int, why: str) -> NwmError:
    return SchemaError(
        f"the sequence in '{path.name}' cannot be raised here",
        why=why,
        next=f"write 'sequence: {sequence}' into it, and run `nwmctl publish` on it",
    )
