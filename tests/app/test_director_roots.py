"""The director's own root through the commands: ceremony, both dialects, rotation, loss, renewal, adoption."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from nwmctl.app import ceremony, doctor, keychanges
from nwmctl.app.clock import SystemClock
from nwmctl.app.director import check_root, ensure_root
from nwmctl.app.fleets import fleet_database
from nwmctl.app.keys import Folder, make_keys
from nwmctl.app.settings import load_settings
from nwmctl.cli.app import app
from nwmctl.domain.keys import KeyRole, RootSignatures
from nwmctl.errors import (
    KeyElsewhereError,
    KeyThresholdError,
    MetadataSignatureError,
    RootChainError,
    UntrustedSignatureError,
)
from nwmctl.fleet import director
from nwmctl.formats import documents
from nwmctl.storage.workspace import Workspace
from nwmctl.trust.expiry import ExpiryState
from nwmctl.trust.keyfiles import keep_root
from nwmctl.trust.keyfolder import Wish, init_keys
from nwmctl.trust.keys import KeyRing, load_keyring
from nwmctl.trust.roots import (
    DIRECTOR_ROLES,
    check_chain,
    draft_root,
    finish_reference,
    finish_root,
    sign_root,
    view_root,
)
from tests.formats.reference_client import _root
from tests.trust.conftest import real_now
from tests.trust.test_repository import DAY

DIRECTOR = [KeyRole.DIRECTOR_ROOT, KeyRole.DIRECTOR]


def nwmctl(*arguments: object) -> str:
    done = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert done.exit_code == 0, (arguments, done.output, done.exception)
    return done.stdout


def refused(*arguments: object) -> BaseException | None:
    return CliRunner().invoke(app, [str(argument) for argument in arguments]).exception


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace.open(tmp_path / "workspace")


def served(workspace: Workspace) -> list[tuple[bytes, bytes]]:
    """Both files of every version that vehicles can fetch."""
    with fleet_database(workspace) as database:
        newest = director.newest_root(database.reader)
        roots = [
            director.root_at(database.reader, number) for number in range(1, (newest.version if newest else 0) + 1)
        ]
    return [(root.tuf, root.reference) for root in roots if root]


def accepted(roots: list[tuple[bytes, bytes]]) -> int:
    """The version that a client of either dialect arrives at from the first one."""
    check_chain([tuf for tuf, _ in roots])
    files = {f"director/{number}.root.json": reference for number, (_, reference) in enumerate(roots, start=1)}
    found = _root(files.get, "director")
    assert set(found["roles"]) == {"root", "targets"}
    version: int = found["version"]
    return version


def test_a_ceremony_on_separate_machines(workspace: Workspace, tmp_path: Path) -> None:
    holders = []
    for name in ("ada", "ben", "cleo"):
        make_keys(tmp_path / name, development=True, content=Folder((KeyRole.DIRECTOR_ROOT,)))
        holders.append(tmp_path / name)
    publics = [part for one in holders for part in ("--director-root-public", one / "director-root.pub")]
    keys = tmp_path / "office"
    nwmctl("keys", "init", keys, "--development", "--root-threshold", "2", *publics)
    here = ("--keys", keys, "--workspace", workspace.root)
    assert isinstance(refused("director", "root", *here), KeyThresholdError)
    draft = tmp_path / "draft.json"
    said = json.loads(nwmctl("keys", "ceremony", "draft", "--director", "--keys", keys, "--out", draft, "--json"))
    assert (said["version"], said["holders"], said["roles"]["root"]["threshold"]) == (1, "director-root", 2)
    for holder in holders:
        nwmctl("keys", "ceremony", "sign", draft, "--keys", holder, "--out", tmp_path / f"{holder.name}.sig")
    finish = ("keys", "ceremony", "finish", draft)
    assert isinstance(refused(*finish, tmp_path / "ada.sig", "--keys", keys), KeyThresholdError)
    nwmctl(*finish, tmp_path / "ada.sig", tmp_path / "cleo.sig", "--keys", keys)
    made = json.loads(nwmctl("director", "root", *here, "--json"))
    assert made == {"version": 1, "new": True, "reference_dialect": True}
    assert json.loads(nwmctl("director", "root", *here, "--json"))["new"] is False

    # The director's key is replaced, and one holder's: old and new thresholds sign the next one.
    make_keys(tmp_path / "dora", development=True, content=Folder((KeyRole.DIRECTOR_ROOT,)))
    lost = (holders[0] / "director-root.pub").read_text().strip()
    nwmctl("keys", "rotate", "director", "--keys", keys)
    change = json.loads(
        nwmctl("keys", "revoke", lost, "--public", tmp_path / "dora" / "director-root.pub", "--keys", keys, "--json")
    )
    assert change["roots"]["director-root"]["finished"] is False
    assert any("director root" in line for line in change["todo"])
    with fleet_database(workspace) as database, pytest.raises(MetadataSignatureError):
        check_root(database.reader, load_keyring(keys))
    second = keys / "2.director-root.draft.json"
    for holder in (holders[1], holders[2]):
        nwmctl("keys", "ceremony", "sign", second, "--keys", holder, "--out", tmp_path / f"{holder.name}.2.sig")
    nwmctl("keys", "ceremony", "finish", second, tmp_path / "ben.2.sig", tmp_path / "cleo.2.sig", "--keys", keys)
    assert json.loads(nwmctl("director", "root", *here, "--json"))["version"] == 2
    assert accepted(served(workspace)) == 2
    listed = json.loads(nwmctl("keys", "list", "--keys", keys, "--json"))
    assert (listed["director_root"], listed["root_pending"]) == (2, False)
    assert "director's root, version 2" in {row["name"] for row in listed["expiries"]}


@pytest.fixture
def ring(tmp_path: Path) -> KeyRing:
    return init_keys(tmp_path / "ring", SystemClock(), DIRECTOR, development=True)


def test_a_folder_with_enough_keys_has_its_root_at_once(ring: KeyRing, workspace: Workspace) -> None:
    (first,) = ring.roots(KeyRole.DIRECTOR_ROOT)
    assert ring.roots() == ()
    assert ensure_root(workspace, ring, SystemClock())[0].tuf == first
    for role in DIRECTOR:
        change = keychanges.rotate(ring.folder, role, "", keychanges.NewKeys())
        assert [root.finished for root in change.roots] == [True]
    # A workspace that slept takes both over at once.
    root, new = ensure_root(workspace, load_keyring(ring.folder), SystemClock())
    assert (root.version, new) == (3, True)
    assert accepted(served(workspace)) == 3


def test_an_older_workspace_goes_its_own_way(ring: KeyRing, workspace: Workspace) -> None:
    """Its first root was made apart from the key folder: vehicles are pinned to it, so it is continued."""
    (ring.folder / "1.director-root.json").rename(ring.folder / "kept-away")
    before, _ = ensure_root(workspace, ring, SystemClock())
    (ring.folder / "kept-away").rename(ring.folder / "1.director-root.json")
    assert ensure_root(workspace, ring, SystemClock()) == (before, False)
    keychanges.rotate(ring.folder, KeyRole.DIRECTOR, "", keychanges.NewKeys())
    root, new = ensure_root(workspace, load_keyring(ring.folder), SystemClock())
    assert (root.version, new) == (2, True)
    assert accepted(served(workspace)) == 2


def test_a_root_that_ends_soon_is_followed(tmp_path: Path, workspace: Workspace) -> None:
    long_ago = replace(real_now(), us=real_now().us - 1700 * DAY)
    ring = init_keys(tmp_path / "ring", long_ago, DIRECTOR, development=True)
    ensure_root(workspace, ring, long_ago)
    settings = load_settings(workspace.root, keys=ring.folder, environment={"HOME": str(tmp_path)})
    lines = {line.name: line for line in doctor._expiries(settings)}
    for name in ("director's root, version 1", "served: director's root, version 1"):
        assert lines[name].health is doctor.Health.WARNING
        assert "ceremony draft --director" in lines[name].install
    root, new = ensure_root(workspace, ring, SystemClock())
    assert (root.version, new) == (2, True)
    assert ceremony.renew(ring, None, SystemClock().now_us()) == ()
    assert accepted(served(workspace)) == 2
    lines = {line.name: line for line in doctor._expiries(settings)}
    assert lines["served: director's root, version 2"].health is doctor.Health.OK
    assert {str(watched.state) for watched in keychanges.watch(ring)} == {str(ExpiryState.HOLDS)}


def test_holders_who_are_elsewhere_are_not_gone_round(tmp_path: Path, workspace: Workspace) -> None:
    long_ago = replace(real_now(), us=real_now().us - 1900 * DAY)
    ring = init_keys(tmp_path / "ring", long_ago, DIRECTOR, development=True)
    ensure_root(workspace, ring, long_ago)
    away = KeyRing(ring.folder, replace(ring.document, keys=tuple(replace(key, uri="") for key in ring.document.keys)))
    assert ceremony.renew(away, None, SystemClock().now_us()) == ()
    assert ensure_root(workspace, away, SystemClock())[0].version == 1
    settings = load_settings(workspace.root, keys=ring.folder, environment={"HOME": str(tmp_path)})
    lines = {line.name: line for line in doctor._expiries(settings)}
    assert lines["served: director's root, version 1"].health is doctor.Health.PROBLEM


def test_what_is_no_ceremony_of_this_root_is_refused(ring: KeyRing, tmp_path: Path) -> None:
    image = init_keys(tmp_path / "image", SystemClock(), list(KeyRole), development=True)
    draft = tmp_path / "draft.json"
    view = ceremony.draft(ring.folder, draft, KeyRole.DIRECTOR_ROOT)
    assert (view.version, view.holders) == (2, KeyRole.DIRECTOR_ROOT)
    with pytest.raises(UntrustedSignatureError):
        ceremony.sign(draft, image.folder, tmp_path / "x.sig")
    only_image = init_keys(tmp_path / "other", SystemClock(), [KeyRole.ROOT], development=True)
    with pytest.raises(KeyElsewhereError, match="director-root"):
        ceremony.sign(draft, only_image.folder, tmp_path / "x.sig")
    # One repository's root never continues the other's, even by keys that would be enough.
    with pytest.raises(RootChainError, match="does not follow"):
        finish_root(draft.read_bytes(), [], image.roots()[0])
    # A holder who signs something else in the second dialect is refused; one who leaves it out only costs that dialect.
    first = ring.roots(KeyRole.DIRECTOR_ROOT)[0]
    signed = [sign_root(draft.read_bytes(), one, first) for one in ring.signers(KeyRole.DIRECTOR_ROOT)]
    out = tmp_path / "all.sig"
    lie = replace(signed[0], reference=signed[1].reference)
    out.write_bytes(documents.encode(RootSignatures((lie, signed[1]))))
    with pytest.raises(UntrustedSignatureError):
        ceremony.finish(draft, [out], ring.folder)
    assert len(ring.roots(KeyRole.DIRECTOR_ROOT)) == 1
    out.write_bytes(documents.encode(RootSignatures((replace(signed[0], reference=""), signed[1]))))
    ceremony.finish(draft, [out], ring.folder)
    assert (len(ring.roots(KeyRole.DIRECTOR_ROOT)), ring.reference_root(2, KeyRole.DIRECTOR_ROOT)) == (2, b"")


def test_a_folder_with_a_broken_chain_is_refused(ring: KeyRing, workspace: Workspace, tmp_path: Path) -> None:
    first = ensure_root(workspace, ring, SystemClock())[0]
    other = init_keys(tmp_path / "other", SystemClock(), DIRECTOR, development=True)
    forged = draft_root(other.document, first.tuf, SystemClock().now_us(), DIRECTOR_ROLES)
    signatures = [sign_root(forged, one) for one in other.signers(KeyRole.DIRECTOR_ROOT)]
    assert view_root(forged).version == 2
    with pytest.raises(KeyThresholdError):
        finish_root(forged, signatures, first.tuf)
    alone = replace(signatures[0], key=other.publics(KeyRole.DIRECTOR_ROOT)[0])
    assert finish_reference(forged, [alone], first.tuf) == b""
    # Somebody puts a root into the folder that the old holders have not signed.
    from tuf.api.metadata import Metadata, Root

    from nwmctl.trust.tuf_signer import tuf_signer

    metadata = Metadata[Root].from_bytes(forged)
    for signer in other.signers(KeyRole.DIRECTOR_ROOT):
        metadata.sign(tuf_signer(signer), append=True)
    keep_root(ring, metadata.to_bytes(), 2, KeyRole.DIRECTOR_ROOT)
    with pytest.raises(MetadataSignatureError):
        ensure_root(workspace, ring, SystemClock())
    assert len(served(workspace)) == 1


def test_a_key_held_elsewhere_counts_in_the_reference_dialect_too(tmp_path: Path) -> None:
    holder = init_keys(tmp_path / "holder", SystemClock(), [Wish(KeyRole.DIRECTOR_ROOT)], development=True)
    wish = Wish(KeyRole.DIRECTOR_ROOT, held=holder.publics(KeyRole.DIRECTOR_ROOT), threshold=2)
    ring = init_keys(tmp_path / "ring", SystemClock(), [wish, KeyRole.DIRECTOR], development=True)
    assert ring.roots(KeyRole.DIRECTOR_ROOT) == ()
    draft = draft_root(ring.document, None, SystemClock().now_us(), DIRECTOR_ROLES)
    one = sign_root(draft, ring.signer(KeyRole.DIRECTOR_ROOT))
    assert finish_reference(draft, [one]) == b""
    assert finish_reference(draft, [one, sign_root(draft, holder.signer(KeyRole.DIRECTOR_ROOT))]) != b""
