"""Outside judges on the whole road: asked once, weighed twice (validation, signing process), and never ignored."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from nwmctl.domain.evidence import Check, Evidence, Verdict
from nwmctl.domain.figure import Obtained
from nwmctl.driving.scenarios import paired
from nwmctl.formats import documents
from nwmctl.trust.keys import KeyRing, KeyRole, init_keys
from nwmctl.validation.judges.record import record_expert
from tests.e2e.command import Place, Ran
from tests.judges.papers import CONTRACT, KEY, write_key
from tests.trust.conftest import real_now

SCRIPT = Path(__file__).with_name("judge_script.py")
TRUSTED = {"name": "rig", "key": KEY.public, "checks": ["closed_loop", "log_replay"], "strongest": "bench"}
SOURCE = {"name": "rig", "command": ["{python}", "./rig.py", "./judge.pem"], "checks": ["closed_loop"]}


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> KeyRing:
    folder = tmp_path_factory.mktemp("judges-xdg") / "nwmctl" / "development-keys"
    folder.parent.mkdir(parents=True)
    return init_keys(folder, real_now(), list(KeyRole), development=True)


@pytest.fixture
def place(tmp_path: Path, keys: KeyRing) -> Place:
    """A release whose policy wants the closed loop to be passed by the rig as well."""
    made = Place.new(tmp_path / "place", keys.folder)
    folder = made.project.folder
    write_key(folder)
    counting = f"open({str(folder / 'asked')!r}, 'a').write('x')\n"
    (folder / "rig.py").write_text(f"{SCRIPT.read_text()}\n{counting}")
    made.project.edit_policy(lambda policy: demand(policy, "closed_loop", "bench", {"score_shift": 0.05}))
    made.project.edit_release(lambda release: release.update(judges=[SOURCE]))
    return made


def demand(policy: dict[str, Any], check: str, weakest: str, margins: dict[str, float]) -> None:
    policy["judges"] = [TRUSTED]
    policy["schema"] = "nwmctl.policy/2"
    rule: dict[str, Any] = {"weakest": weakest, "margins": margins}
    if check == "closed_loop":
        rule["judges"] = ["rig"]
    policy["virtual"]["platforms"]["*"][check] = rule


def asked(place: Place) -> int:
    """How often the rig has been asked, by its own count."""
    mark = place.project.folder / "asked"
    return len(mark.read_text()) if mark.exists() else 0


def bundle(place: Place) -> Ran:
    return place.run("bundle", place.project.release, "--json")


def packs(place: Place) -> list[Evidence]:
    """Every evidence pack in the workspace."""
    found = []
    for path in (place.workspace / "content").rglob("*"):
        if path.is_file() and b"nwmctl.evidence/" in path.read_bytes()[-200:]:
            found.append(documents.decode(Evidence, path.read_bytes(), "evidence"))
    return found


def test_a_judge_is_asked_once_and_its_word_counts(place: Place) -> None:
    first = bundle(place).ok()
    assert asked(place) == 2  # the release's artifact, and that of the way back
    results = [check for row in first.json["artifacts"] for check in row["checks"] if check["check"] == "closed_loop"]
    theirs = [check for check in results if check.get("judge") == "rig"]
    assert [(check["verdict"], check["obtained"]) for check in theirs] == [("passed", "bench")]
    made = packs(place)
    assert made
    assert all(len(pack.envelopes) == 1 for pack in made)
    again = bundle(place).ok()
    assert asked(place) == 2
    assert again.json["run"]["found_in_store"] == again.json["run"]["steps"]
    # Whoever verifies the release sees whose word it rests on.
    place.run("stage", place.project.release).ok()
    links = place.run("verify", place.project.release, "--json").ok().json["links"]
    judged = [link for link in links if link["topic"] == "judge"]
    assert len(judged) == 2
    assert all(link["state"] == "established" and "'rig'" in link["text"] for link in judged)


@pytest.mark.long
def test_a_changed_judge_is_asked_again(place: Place) -> None:
    bundle(place).ok()
    script = place.project.folder / "rig.py"
    script.write_text(script.read_text().replace("script 1", "script 2"))
    bundle(place).ok()
    assert asked(place) == 4


def test_without_its_judge_a_release_is_not_signed(place: Place) -> None:
    (place.project.folder / "judge.pem").unlink()
    refused = bundle(place)
    assert refused.code == 5
    assert "closed_loop" in refused.json["why"]
    write_key(place.project.folder)
    bundle(place).ok()  # what could not be asked is asked again


@pytest.mark.long
@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (("bench", "measured"), "claims 'measured'"),
        (("0.01", "0.06"), "own interval"),
        (('"high": 0.02', '"high": 0.2'), "settles nothing"),
        (('"rig",', '"maker",'), "speaks for somebody else"),
        (('"verdict": "passed"', '"verdict": "failed"'), "drove 400 laps"),
        (("canonical(envelope)", "b'{}'"), "not a DSSE envelope"),
        (('request["case"]', '{**request["case"], "platform": "nt9"}'), "another platform"),
    ],
)
def test_what_is_wrong_with_its_answer_stops_the_release(place: Place, edit: tuple[str, str], said: str) -> None:
    script = place.project.folder / "rig.py"
    changed = script.read_text().replace(*edit)
    assert changed != script.read_text()
    script.write_text(changed)
    refused = bundle(place)
    assert refused.code == 5, refused.err
    assert said in refused.json["why"]


def test_a_judge_that_hangs_costs_its_time_and_nothing_else(place: Place) -> None:
    (place.project.folder / "rig.py").write_text("import time; time.sleep(60)")
    place.project.edit_release(lambda release: release["judges"][0].update(timeout_s=0.5))
    refused = bundle(place)
    assert refused.code == 5
    assert "did not end within 0.5 s" in refused.json["why"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"name": "stranger"}, "'stranger' is not trusted by the policy"),
        ({"checks": ["parity"]}, "'rig' is asked for 'parity'"),
        ({"platforms": ["nt3.0"]}, "'rig' is asked about 'nt3.0'"),
    ],
)
def test_a_release_cannot_bring_a_judge_of_its_own(place: Place, change: dict[str, Any], said: str) -> None:
    place.project.edit_release(lambda release: release["judges"][0].update(change))
    refused = bundle(place)
    assert refused.code == 5
    assert said in refused.json["what"]
    assert "release.yaml:" in refused.json["what"]
    assert not place.workspace.exists()


# --- drive logs ---------------------------------------------------------------------------------------------------


@pytest.fixture
def logged(place: Place) -> Place:
    """The same release, judged on a drive log instead."""
    folder = place.project.folder
    record_expert(folder / "drives.parquet", CONTRACT, paired(4, 9_400_000))
    key = folder / "judge.pem"
    place.run("judge", "sign-log", folder / "drives.parquet", "--name", "rig", "--origin", "a test", "--key", key).ok()

    def policy(plain: dict[str, Any]) -> None:
        del plain["virtual"]["platforms"]["*"]["closed_loop"]
        demand(plain, "log_replay", "proxy", {"disagreements_per_km": 60.0})

    place.project.edit_policy(policy)
    place.project.edit_release(lambda release: release.update(judges=[{"name": "rig", "log": "drives.parquet"}]))
    return place


def test_a_drive_log_judges(logged: Place) -> None:
    found = bundle(logged).ok().json
    replayed = [check for row in found["artifacts"] for check in row["checks"] if check["check"] == Check.LOG_REPLAY]
    assert [(check["verdict"], check["obtained"]) for check in replayed] == [(Verdict.PASSED, Obtained.BENCH)]
    assert "4 drives" in replayed[0]["summary"]
    again = bundle(logged).ok()
    assert again.json["run"]["found_in_store"] == again.json["run"]["steps"]


@pytest.mark.long
@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("another log", "is not the log that 'rig' signed"),
        ("no signature", "cannot be read"),
        ("a stranger's signature", "is not trusted"),
        ("too strict", "would settle it"),
    ],
)
def test_a_drive_log_that_settles_nothing_stops_the_release(logged: Place, what: str, said: str) -> None:
    folder = logged.project.folder
    log, signature = folder / "drives.parquet", folder / "drives.parquet.sig"
    match what:
        case "another log":
            record_expert(log, CONTRACT, paired(2, 9_500_000))
        case "no signature":
            signature.unlink()
        case "a stranger's signature":
            shutil.copy(folder / "policy.yaml.sig", signature)
        case _:
            margins = {"disagreements_per_km": 0.01}
            logged.project.edit_policy(lambda policy: demand(policy, "log_replay", "proxy", margins))
    refused = bundle(logged)
    assert refused.code == 5, refused.err
    assert said in refused.json["why"] + refused.json["next"]


# --- those who run judges -----------------------------------------------------------------------------------------


def test_a_question_is_written_answered_signed_and_tried_out(place: Place, tmp_path: Path) -> None:
    out, key = tmp_path / "questions", place.project.folder / "judge.pem"
    written = place.run("judge", "request", place.project.release, "--judge", "rig", "--out", out, "--json").ok().json
    assert asked(place) == 0
    assert {Path(each).name for each in written["questions"]} == {
        "release-virtual-host-host", "return-virtual-host-host",
    }  # fmt: skip
    folder = out / "release-virtual-host-host"
    answered = place.run(
        "judge", "answer", "--name", "rig", "--key", key, "--folder", folder, "--scenarios", "20", "--json"
    )
    answered.ok()
    common = ("--request", folder / "request.json", "--public", KEY.public, "--json")
    tried = place.run("judge", "check", folder / "evidence.json", "--name", "rig", *common).ok().json
    assert [result["verdict"] for result in tried["results"]] == ["passed"]
    refused = place.run("judge", "check", folder / "evidence.json", "--name", "other", *common)
    assert refused.code == 5
    # The same evidence, as a file that arrives before the release is built.
    for name in ("release", "return"):
        where = out / f"{name}-virtual-host-host"
        place.run("judge", "answer", "--name", "rig", "--key", key, "--folder", where, "--scenarios", "20").ok()
        artifact = documents_case(where)["artifact"][7:19]
        shutil.copy(where / "evidence.json", place.project.folder / f"rig-{artifact}.json")
    source = {"name": "rig", "file": "rig-{artifact}.json", "checks": ["closed_loop"]}
    place.project.edit_release(lambda release: release.update(judges=[source]))
    place.project.edit_policy(lambda policy: demand(policy, "closed_loop", "proxy", {"score_shift": 0.05}))
    bundle(place).ok()


def documents_case(folder: Path) -> dict[str, Any]:
    import json

    plain: dict[str, Any] = json.loads((folder / "request.json").read_bytes())["case"]
    return plain


def test_evidence_by_hand_is_checked_before_it_is_signed(place: Place, tmp_path: Path) -> None:
    key, out = tmp_path / "new.pem", tmp_path / "evidence.json"
    made = place.run("judge", "key", key, "--json").ok().json
    assert made["public"].startswith("ed25519:")
    assert key.stat().st_mode & 0o777 == 0o600
    assert place.run("judge", "key", key).code == 8
    template = (Path(__file__).parents[2] / "templates" / "judges" / "evidence.yaml").read_text()
    (tmp_path / "evidence.yaml").write_text(template)
    place.run("judge", "sign", tmp_path / "evidence.yaml", "--key", key, "--out", out).ok()
    (tmp_path / "evidence.yaml").write_text(template.replace("verdict: passed", "verdict: fine"))
    refused = place.run("judge", "sign", tmp_path / "evidence.yaml", "--key", key, "--out", tmp_path / "none", "--json")
    assert refused.code == 3
    assert "evidence.yaml:" in refused.json["what"]
    assert not (tmp_path / "none").exists()
