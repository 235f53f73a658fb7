"""The other clients, for real: what tuf-js and swupdate refuse, what they let through, and what they cannot meet."""

from __future__ import annotations

from pathlib import Path

import pytest

from nwmctl.app.drill.swupdate import SwupdateAdapter
from nwmctl.app.drill.tuf_js import TufJsAdapter
from nwmctl.domain.drill import Client, Outcome
from nwmctl.trust.attacks.catalogue import ATTACKS, REPLAYED_REPORT
from tests.drills.conftest import Grounds, attack_named
from tests.real import require_program, require_real

JS = Path(__file__).parents[1] / "trust" / "js"
R, E, U = Outcome.REFUSED, Outcome.EXPOSED, Outcome.UNHARMED
TUF_JS = {
    "tampered-payload": R, "swapped-payload": E, "tampered-description": E, "tampered-metadata": R,
    "wrong-authority": E, "expired-leaf": E, "freeze": R, "rollback": R, "bundle-rollback": E, "mix-and-match": R,
    "fast-forward": E, "fast-forward-recovery": R, "endless-metadata": R, "endless-bundle": R, "slow-transfer": E,
    "unlisted-release": R, "wrong-hardware": E, "expired-role": R,
}  # fmt: skip
SWUPDATE = {
    "tampered-payload": R, "swapped-payload": R, "tampered-description": R, "wrong-authority": R, "expired-leaf": R,
    "freeze": E, "rollback": R, "bundle-rollback": R, "endless-bundle": E, "slow-transfer": E,
    "arbitrary-software": R, "unlisted-release": E, "wrong-hardware": R, "zip-slip": U, "archive-link": R,
}  # fmt: skip


def cases(found: dict[str, Outcome], quick: set[str]) -> list[object]:
    return [
        pytest.param(name, outcome, id=name, marks=() if name in quick else (pytest.mark.long,))
        for name, outcome in found.items()
    ]


@pytest.mark.parametrize(("name", "outcome"), cases(TUF_JS, {"tampered-payload"}))
def test_tuf_js(grounds: Grounds, name: str, outcome: Outcome, tmp_path: Path) -> None:
    require_program("node", "nodejs")
    require_real("tuf-js", (JS / "node_modules" / "tuf-js").is_dir(), "npm ci --prefix tests/trust/js")
    cell = grounds.hold(attack_named(name), TufJsAdapter(JS), tmp_path)
    assert cell.outcome is outcome, cell.words


@pytest.mark.parametrize(("name", "outcome"), cases(SWUPDATE, {"tampered-description"}))
def test_swupdate(grounds: Grounds, name: str, outcome: Outcome, tmp_path: Path) -> None:
    require_program("swupdate", "swupdate")
    cell = grounds.hold(attack_named(name), SwupdateAdapter(grounds.car), tmp_path)
    assert cell.outcome is outcome, cell.words


def test_each_attack_is_expected_or_set_apart() -> None:
    for attack in ATTACKS:
        for client, expected in ((Client.TUF_JS, TUF_JS), (Client.SWUPDATE, SWUPDATE)):
            assert (attack.name in expected) != (client in attack.apart), (attack.name, client)
            if client in attack.apart:
                assert attack.not_for(client).words
    assert set(REPLAYED_REPORT.apart) == {Client.TUF_JS, Client.SWUPDATE}


def test_a_client_that_is_not_here_is_not_run(
    grounds: Grounds, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cell = grounds.hold(attack_named("rollback"), TufJsAdapter(tmp_path / "nowhere"), tmp_path)
    assert cell.outcome is Outcome.NOT_RUN
    monkeypatch.setattr("nwmctl.app.drill.swupdate.shutil.which", lambda *given, **named: None)
    cell = grounds.hold(attack_named("rollback"), SwupdateAdapter(grounds.car), tmp_path)
    assert (cell.outcome, "not installed" in cell.words) == (Outcome.NOT_RUN, True)
