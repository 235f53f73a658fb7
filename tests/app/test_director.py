"""The director's commands: root, sign, status, forget, each with its refusals."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from nwmctl.app.clock import SystemClock
from nwmctl.app.director import ensure_root, sign_fleet
from nwmctl.cli.app import app
from nwmctl.domain.keys import KeyRole
from nwmctl.errors import DirectorNotReadyError, EcusNotRegisteredError, MetadataSignatureError, NwmError
from nwmctl.fleet import manifests
from nwmctl.storage.sqlite import open_sqlite
from nwmctl.storage.workspace import Workspace
from nwmctl.trust.director import DirectorKeys
from nwmctl.trust.keys import KeyRing, init_keys
from nwmctl.trust.roots import DIRECTOR_ROLES, draft_root, finish_root, sign_root
from tests.fleet import house
from tests.fleet.test_director import registration

ROLES = [KeyRole.DIRECTOR_ROOT, KeyRole.DIRECTOR]


@pytest.fixture(scope="module")
def rings(tmp_path_factory: pytest.TempPathFactory) -> tuple[KeyRing, KeyRing]:
    folder = tmp_path_factory.mktemp("rings")
    one, two = (init_keys(folder / name, SystemClock(), ROLES, development=True) for name in ("one", "two"))
    return one, two


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """A workspace with a small virtual fleet whose vehicles have registered."""
    made = Workspace.open(tmp_path / "workspace")
    database = house.fleet_database(tmp_path, database=open_sqlite(made.database))
    with database.transaction() as tx:
        for (vin,) in tx.all("SELECT vin FROM vehicle"):
            manifests.register(tx, vin, registration(vin), house.T0)
    database.close()
    return made


def run(workspace: Workspace, *arguments: str) -> Result:
    return CliRunner().invoke(app, ["director", *arguments, "--workspace", str(workspace.root), "--json"])


def test_from_root_to_a_signed_fleet(workspace: Workspace, rings: tuple[KeyRing, KeyRing], tmp_path: Path) -> None:
    keys = ("--keys", str(rings[0].folder))
    with pytest.raises(DirectorNotReadyError):
        sign_fleet(workspace, DirectorKeys(rings[0].folder), SystemClock(), 1)
    out = tmp_path / "root.json"
    made = json.loads(run(workspace, "root", *keys, "--out", str(out)).stdout)
    assert made == {"version": 1, "new": True, "reference_dialect": True}
    assert json.loads(out.read_bytes())["signed"]["version"] == 1
    assert json.loads(run(workspace, "root", *keys).stdout)["new"] is False
    assert json.loads(run(workspace, "sign", *keys, "--workers", "1").stdout) == {"signed": 9, "registered": 9}
    assert json.loads(run(workspace, "sign", *keys, "--workers", "1").stdout)["signed"] == 0
    status = json.loads(run(workspace, "status").stdout)
    assert (status["root_version"], status["registered"], status["signed"], status["expired"]) == (1, 9, 9, 0)


def test_other_keys_need_a_root_that_the_old_ones_signed(workspace: Workspace, rings: tuple[KeyRing, KeyRing]) -> None:
    ensure_root(workspace, rings[0], SystemClock())
    with pytest.raises(MetadataSignatureError):
        sign_fleet(workspace, DirectorKeys(rings[1].folder), SystemClock(), 1)
    with pytest.raises(NwmError):
        ensure_root(workspace, rings[1], SystemClock())
    root, new = ensure_root(workspace, rings[0], SystemClock())
    assert (root.version, new) == (1, False)


def test_a_root_of_a_ceremony_is_taken_over_once(
    workspace: Workspace, rings: tuple[KeyRing, KeyRing], tmp_path: Path
) -> None:
    ring = rings[0]
    draft = draft_root(ring.document, None, SystemClock().now_us(), DIRECTOR_ROLES)
    signatures = [sign_root(draft, signer) for signer in ring.signers(KeyRole.DIRECTOR_ROOT)]
    finished = tmp_path / "finished.json"
    finished.write_bytes(draft)
    with pytest.raises(NwmError):
        ensure_root(workspace, ring, SystemClock(), finished=finished)
    finished.write_bytes(finish_root(draft, signatures))
    for new in (True, False):
        root, made = ensure_root(workspace, ring, SystemClock(), finished=finished)
        assert (root.tuf, made) == (finished.read_bytes(), new)


def test_a_vehicle_may_register_again_after_a_person_said_so(workspace: Workspace) -> None:
    vin = house.vins(1)[0][0]
    assert json.loads(run(workspace, "status", vin).stdout) == {"vin": vin, "installed": {}}
    assert json.loads(run(workspace, "forget", vin, "--reason", "computer replaced").stdout)["forgotten"] is True
    refused = run(workspace, "status", vin)
    assert isinstance(refused.exception, EcusNotRegisteredError)
    assert isinstance(run(workspace, "forget", "NOBODY", "--reason", "x").exception, EcusNotRegisteredError)
