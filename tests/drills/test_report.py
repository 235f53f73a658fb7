"""The report: signed, whole, readable, and a failure where our client fails."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from nwmctl.app.drill import run
from nwmctl.app.drill.run import DRILL_TYPE, DrillOrder, hold_drill
from nwmctl.cli.drill import _refuse_failures
from nwmctl.domain.drill import Cell, Client, DrillReport, Outcome
from nwmctl.errors import DrillFailedError, DrillNameError, UntrustedSignatureError
from nwmctl.formats import documents
from nwmctl.trust.attacks.catalogue import ATTACKS
from nwmctl.trust.dsse import verify_dsse


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.delenv("NWMCTL_KEYS", raising=False)
    return tmp_path


def order(home: Path) -> DrillOrder:
    attacks = ("rollback", "replayed-report")
    return DrillOrder(home / "out", attacks, (Client.VEHICLE, Client.TUF_JS), tuf_js=home / "nowhere")


@pytest.mark.long
def test_a_drill_writes_a_signed_report(home: Path) -> None:
    seen: list[Cell] = []
    held = hold_drill(order(home), seen.append)
    assert sorted(seen, key=str) == sorted(held.report.cells, key=str)
    data, envelope, page = (path.read_bytes() for path in held.written)
    assert documents.decode(DrillReport, data, "report") == held.report
    assert verify_dsse(envelope, DRILL_TYPE, [held.key]).payload == data
    with pytest.raises(UntrustedSignatureError):
        verify_dsse(envelope, DRILL_TYPE, [f"ed25519:{'0' * 64}"])
    assert str(home) not in data.decode()
    cells = {(cell.attack, cell.client): cell for cell in held.report.cells}
    assert cells["rollback", Client.VEHICLE].outcome is Outcome.REFUSED
    assert cells["rollback", Client.TUF_JS].outcome is Outcome.NOT_RUN
    assert cells["replayed-report", Client.VEHICLE].error == "ReportReplayedError"
    assert cells["replayed-report", Client.TUF_JS].outcome is Outcome.NOT_APPLICABLE
    text = page.decode()
    assert "| Rollback | refused | not run |" in text
    assert "protects nothing" in text
    assert not held.report.failures
    _refuse_failures(held)
    wrong = tuple(replace(cell, error="MetadataMixedError") for cell in held.report.cells)
    failed = replace(held, report=replace(held.report, cells=wrong))
    with pytest.raises(DrillFailedError, match="did not refuse 2 of 2"):
        _refuse_failures(failed)
    assert json.loads(data)["schema"] == "nwmctl.drill-report/1"


def test_an_unknown_attack_is_refused_before_anything_runs(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "make_house", lambda *given: pytest.fail("it ran"))
    with pytest.raises(DrillNameError, match="no attack 'nonsense'"):
        hold_drill(DrillOrder(home, ("nonsense",)), lambda cell: None)
    assert not (home / "data").exists()


def test_a_report_has_one_cell_per_attack_and_client() -> None:
    from tests.formats.samples import SAMPLES

    whole = next(sample for sample in SAMPLES if isinstance(sample, DrillReport))
    with pytest.raises(ValueError, match="exactly one cell"):
        replace(whole, cells=whole.cells[:1])
    with pytest.raises(ValueError, match="exactly one cell"):
        replace(whole, cells=(*whole.cells, whole.cells[0]))
    exposed = replace(whole.cells[0], outcome=Outcome.EXPOSED)
    assert replace(whole, cells=(exposed, whole.cells[1])).failures == (exposed,)
    not_run = replace(whole.cells[0], outcome=Outcome.NOT_RUN)
    assert replace(whole, cells=(not_run, whole.cells[1])).failures == (not_run,)


def test_the_documentation_names_every_attack_with_its_refusal() -> None:
    text = (Path(__file__).parents[2] / "docs" / "drills.md").read_text()
    for attack in ATTACKS:
        head = f"### {attack.title} (`{attack.name}`)"
        assert head in text
        assert f"`{attack.refusal.__name__}`" in text.split(head)[1].split("###")[0]
