"""A step that makes something else must raise its version. ``tests/steps/replay.py`` says how, and how to settle it."""

from __future__ import annotations

from pathlib import Path

import pytest

from nwmctl.domain.digest import digest_bytes
from tests.steps import replay

SETTLE = "tests/steps/replay.py says what to do"


@pytest.mark.parametrize("name", replay.names())
def test_the_same_question_has_the_same_answer(name: str, tmp_path: Path) -> None:
    known = replay.recorded().get(name)
    assert known, f"'{name}' is not recorded; {SETTLE}"
    now = replay.replay(name, tmp_path)
    if now.asked != known.asked:
        if now.version == known.version and _depends_on_the_machine(name):
            pytest.skip("recorded on another kind of machine, or with other versions of packages in the step's key")
        pytest.fail(f"'{name}' is asked another question than the recorded one (case 3); {SETTLE}")
    assert now.outcome == known.outcome, (
        f"'{name}' makes something else under the same key: results in content stores would be out of date. "
        f"Raise its version, or repair it (cases 1 and 2); {SETTLE}"
    )


def _depends_on_the_machine(name: str) -> bool:
    # Bundles hold what zstd made of the payloads; its library's version is in their keys.
    return name.startswith(("compile", "rebuild", "bundle", "sign"))


def test_every_pure_step_is_recorded() -> None:
    assert {name.split()[0] for name in replay.recorded()} == {
        "pull",
        "compile",
        "rebuild",
        "validate",
        "bundle",
        "sign",
    }


def test_a_forgotten_version_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A change far from the step's own file, in the format of what it makes."""
    from nwmctl.bundling import bundle

    monkeypatch.setattr(bundle, "_chassis_name", lambda code: f"adaptation-{code}.json")
    now, known = replay.replay("bundle", tmp_path), replay.recorded()["bundle"]
    assert now.asked == known.asked
    assert now.outcome != known.outcome


def test_another_answer_to_the_same_question_is_not_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    record = tmp_path / "record.json"
    record.write_bytes(replay.RECORD.read_bytes())
    known = replay.recorded()["pull"]
    monkeypatch.setattr(replay, "RECORD", record)
    changed = replay.Replayed(known.version, known.asked, digest_bytes(b"other"))
    monkeypatch.setattr(replay, "_REPLAYS", {"pull": lambda folder: changed})
    assert replay.main() == 1
    assert "raise its version" in capsys.readouterr().err
    assert record.read_bytes() == replay.Path(replay.__file__).with_name("step-versions.json").read_bytes()
