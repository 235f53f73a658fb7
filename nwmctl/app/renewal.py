"""Renews a repository's metadata before they expire, takes new keys and roots over, and says what only persons can do.

Where the key folder holds enough root keys, a root that ends soon gets its next version too, the director's as well.
A workspace that came out of a backup is told by its vehicles: what is signed lies above every version they reported.

The workspace's own copy is signed anew and kept first; the mirrors then get the versioned files and, last of all, the
timestamp: an interrupted renewal is completed by repeating it. Bundles are not signed again here: their certificate is
part of their bytes, so a fresh signature is a new publication under a higher sequence (``resign``).
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from nwmctl.app.ceremony import NextRoot
from nwmctl.app.ceremony import renew as renew_roots
from nwmctl.app.clock import SystemClock
from nwmctl.app.director import renewed_root, root_watched
from nwmctl.app.fleets import fleet_database
from nwmctl.app.keychanges import Watched, watch
from nwmctl.app.keys import deployment_keys
from nwmctl.app.passphrases import unlock
from nwmctl.app.project import load_project
from nwmctl.app.resign import published_expiry
from nwmctl.app.settings import Settings
from nwmctl.errors import RepositoryEmptyError
from nwmctl.fleet.manifests import highest_reported
from nwmctl.publishing.mirrors import open_mirror
from nwmctl.publishing.stage import StagedFile, stage
from nwmctl.publishing.train import publish
from nwmctl.steps.stage import load_repository, save_repository
from nwmctl.storage.workspace import Workspace
from nwmctl.trust.current import needs_renewal
from nwmctl.trust.expiry import check_clock, repository_expiries
from nwmctl.trust.metadata import TIMESTAMP_PATH
from nwmctl.trust.repository import Publication, add_targets, is_behind, is_below


@dataclass(frozen=True, slots=True)
class Renewal:
    """``renewed``: whether anything was signed; ``mirrors`` those that got a timestamp now; ``watched`` every expiry
    of repository and keys as they are now; ``roots`` the next versions of roots that would have ended soon."""

    renewed: bool
    mirrors: tuple[str, ...]
    watched: tuple[Watched, ...]
    roots: tuple[NextRoot, ...] = ()


def refresh(settings: Settings, release: Path, *, force: bool = False, passphrase_env: str | None = None) -> Renewal:
    """Renew the metadata of the workspace's repository and publish them to the release's mirrors.

    Signs only what is past half of its life, or under keys that the ring has replaced (``force``: everything). Raises
    RepositoryEmptyError, MetadataSignatureError, key errors and what the mirrors raise.
    """
    project = load_project(release, settings.platforms)
    clock = SystemClock()
    with ExitStack() as stack:
        workspace = settings.open()
        stack.enter_context(workspace.locked("nwmctl keys refresh"))
        ring = deployment_keys(settings, virtual=project.release.fleet.virtual)
        kept = load_repository(workspace.repository)
        if kept is None:
            raise RepositoryEmptyError(
                "there are no metadata to renew",
                why=f"nothing was published from the workspace {workspace.root} yet",
                next="name the workspace that publishes with --workspace, or publish a release first",
            )
        check_clock(ring, clock.now_us())
        secret = unlock(ring, passphrase_env)
        roots = renew_roots(ring, secret, clock.now_us())
        renewed_root(workspace, ring, clock, secret)
        with fleet_database(workspace) as database:
            reported = highest_reported(database.reader)
        state, now_us = kept.state, clock.now_us()
        renew = force or needs_renewal(state, now_us) or is_behind(state, ring) or is_below(state, reported)
        if renew:
            kept = add_targets(state, [], ring, clock, secret, reported=reported)
            save_repository(workspace.repository, kept)
        sessions = [stack.enter_context(open_mirror(mirror, workspace.root)) for mirror in project.release.mirrors]
        stage([StagedFile.of_bytes(path, data) for path, data in kept.files.items()], sessions)
        report = publish(sessions, kept.timestamp, TIMESTAMP_PATH)
        return Renewal(renew, report.published, (*_of_repository(kept), *watch(ring)), roots)


def _of_repository(kept: Publication) -> tuple[Watched, ...]:
    now_us = SystemClock().now_us()
    return tuple(Watched(expiry, expiry.state(now_us)) for expiry in repository_expiries(kept.state))


def watched_repository(folder: Path) -> tuple[Watched, ...]:
    """Every expiry of the repository that is kept in ``folder``; nothing where there is none.

    Raises MetadataFormatError.
    """
    kept = load_repository(folder)
    return _of_repository(kept) if kept else ()


def watched_database(settings: Settings) -> tuple[Watched, ...]:
    """When the root ends that the workspace's director serves, and the signatures of what was published last.

    Raises NwmError for a database that cannot be read.
    """
    workspace, now_us = Workspace(settings.workspace), SystemClock().now_us()
    found = (root_watched(workspace), published_expiry(workspace))
    return tuple(Watched(expiry, expiry.state(now_us)) for expiry in found if expiry)
