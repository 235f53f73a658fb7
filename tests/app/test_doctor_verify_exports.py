"""doctor, verify, and what CI takes out of a run."""

from __future__ import annotations

import shutil
from pathlib import Path
from xml.etree import ElementTree

import pytest

from nwmctl.app import doctor
from nwmctl.app.doctor import Finding, Health, examine
from nwmctl.app.session import open_session
from nwmctl.app.settings import Settings, load_settings
from nwmctl.app.verify import VerifyOrder, verify
from nwmctl.domain.step import StepState
from nwmctl.domain.train import BUNDLE_RESULT_NAME, BundleResult, papers_name
from nwmctl.errors import ExitCode, FileUnreadableError, KeysNeededError, VerificationError
from nwmctl.formats import documents
from nwmctl.toolchains import ptxas
from nwmctl.trust.keys import KeyRole, init_keys
from tests.e2e.command import Place, refused, traces, tree
from tests.trust.conftest import real_now

# --- doctor -------------------------------------------------------------------------------------------------------


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return load_settings(tmp_path / "w", environment={"HOME": str(tmp_path)})


def found(settings: Settings) -> dict[str, Finding]:
    return {finding.name: finding for finding in examine(settings)}


def test_doctor_changes_nothing(place: Place) -> None:
    place.run("doctor", "--json").ok()
    assert not place.workspace.exists()


def test_doctor_tells_toolchains_counterparties_hardware_and_keys(settings: Settings) -> None:
    names = found(settings)
    assert {"python", "onnxruntime", "iree", "external", "swupdate", "sshd", "qemu-aarch64-static"} <= names.keys()
    assert names["Orin, NX9031"].health is Health.OPTIONAL
    assert names["key folder"].install == "nwmctl keys init FOLDER"


def test_a_missing_counterparty_is_optional_and_says_what_to_type(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor.shutil, "which", lambda *_, **__: None)
    finding = found(settings)["swupdate"]
    assert finding.health is Health.OPTIONAL
    assert finding.install == "apt-get install swupdate"


@pytest.mark.parametrize("there", [True, False])
def test_the_gpu_s_assembler_is_told_by_version_or_by_what_to_type(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, there: bool
) -> None:
    monkeypatch.setattr(ptxas, "packaged_program", lambda package, inside: Path("/ptxas") if there else None)
    monkeypatch.setattr(ptxas, "version_of", lambda package: "12.9.86")
    finding = found(settings)["ptxas"]
    assert finding.health is (Health.OK if there else Health.OPTIONAL)
    assert finding.detail.startswith("12.9.86 " if there else "not installed")
    assert finding.install == ("" if there else "pip install 'nwmctl[ptxas]'")


def test_a_full_disk_is_a_problem_and_an_exit_code(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(place.folder)
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda _: usage._replace(free=1 << 20))
    ran = place.run("doctor", "--json")
    assert ran.code == ExitCode.MISSING
    assert ran.json["problems"] == 1


def test_a_damaged_key_folder_is_a_problem(settings: Settings) -> None:
    settings.development_keys.mkdir(parents=True)
    finding = found(settings)[str(settings.development_keys)]
    assert finding.health is Health.PROBLEM
    assert finding.install


# --- verify -------------------------------------------------------------------------------------------------------


def bundle(built: Place) -> Path:
    return next(path for path in (built.folder / "out" / "virtual").glob("*.swu") if "return" not in path.name)


def test_verify_says_what_the_bytes_establish_and_what_they_cannot(built: Place) -> None:
    told = built.run("verify", bundle(built), "--json").ok().json
    assert (told["release"], told["platform"], told["sequence"], told["virtual_only"]) == (
        "tiny-2",
        "virtual",
        20,
        True,
    )
    assert any("the release authority signed" in line for line in told["established"])
    assert any("fit for a real fleet: NO" in line for line in told["open"])


def test_verify_needs_no_workspace_and_leaves_none(built: Place, tmp_path: Path) -> None:
    authority = tmp_path / "authority.pem"
    shutil.copy(built.keys / "release-ca.crt", authority)
    place = Place(tmp_path, tmp_path / "x" / "nwmctl" / "none", built.project)
    place.run("verify", bundle(built), "--authority", authority).ok()
    assert not place.workspace.exists()


def test_verify_without_an_authority_asks_for_one(
    built: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    monkeypatch.delenv("NWMCTL_KEYS", raising=False)
    with pytest.raises(KeysNeededError, match="no release authority"):
        verify(VerifyOrder(bundle(built)))


def test_another_authority_is_not_believed(built: Place, tmp_path: Path) -> None:
    other = init_keys(tmp_path / "other", real_now(), [KeyRole.RELEASE], development=True)
    with pytest.raises(VerificationError):
        verify(VerifyOrder(bundle(built), other.folder / "release-ca.crt"))


@pytest.mark.parametrize("where", [0.1, 0.3, 0.6, 0.9])
def test_a_changed_byte_is_noticed_wherever_it_is(built: Place, tmp_path: Path, where: float) -> None:
    data = bytearray(bundle(built).read_bytes())
    data[int(len(data) * where)] ^= 0x10
    copy = tmp_path / "changed.swu"
    copy.write_bytes(data)
    ran = built.run("verify", copy, "--json")
    assert ran.code in (ExitCode.INPUT, ExitCode.VERIFICATION)


@pytest.mark.parametrize("data", [b"", b"x", b"0" * 5000])
def test_what_is_no_bundle_is_refused(built: Place, tmp_path: Path, data: bytes) -> None:
    copy = tmp_path / "no.swu"
    copy.write_bytes(data)
    ran = built.run("verify", copy, "--json")
    assert ran.code in (ExitCode.INPUT, ExitCode.VERIFICATION)


def test_a_bundle_or_authority_that_is_not_there_is_named(built: Place, tmp_path: Path) -> None:
    assert "nowhere.swu" in built.run("verify", tmp_path / "nowhere.swu", "--json").json["what"]
    with pytest.raises(FileUnreadableError, match="nowhere"):
        verify(VerifyOrder(bundle(built), tmp_path / "nowhere.pem"))
    assert built.run("verify", tmp_path, "--json").code in (ExitCode.INPUT, ExitCode.VERIFICATION)


# --- exports ------------------------------------------------------------------------------------------------------


def test_a_bundle_folder_says_what_it_holds(built: Place) -> None:
    folder = built.folder / "out" / "virtual"
    result = documents.decode(BundleResult, (folder / BUNDLE_RESULT_NAME).read_bytes(), "result")
    assert {each.filename for each in result.bundles} == {path.name for path in folder.glob("*.swu")}
    assert sorted(each.sequence for each in result.bundles) == [20, 21]
    assert len(result.evidence) == 2
    papers = {papers_name(each.filename) for each in result.bundles}
    assert set(tree(folder)) == {*(each.filename for each in result.bundles), *papers, BUNDLE_RESULT_NAME}


def test_a_report_counts_what_it_lists(built: Place) -> None:
    for suite in ElementTree.parse(built.folder / "checks.xml").getroot():
        cases = suite.findall("testcase")
        assert int(suite.attrib["tests"]) == len(cases)
        checks = {case.attrib["name"].partition(" ")[0] for case in cases}
        assert checks >= {"contract", "parity", "negative_control", "budget"}


def test_the_same_checks_give_the_same_report(built: Place, tmp_path: Path) -> None:
    again = tmp_path / "deep" / "checks.xml"
    built.run("validate", built.project.release, "--junit", again).ok()
    assert again.read_bytes() == (built.folder / "checks.xml").read_bytes()


def test_a_report_that_cannot_be_written_is_a_refusal(built: Place, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    ran = built.run("validate", built.project.release, "--junit", tmp_path / "file" / "checks.xml", "--json")
    refused(ran, "OutputUnwritableError", 3)


def test_a_policy_that_would_refuse_ends_with_5_and_names_the_check(place: Place) -> None:
    place.project.edit_policy(
        lambda policy: policy["virtual"]["platforms"]["*"]["parity"]["margins"].update({"steer.max_abs": 1e-12})
    )
    report = place.folder / "checks.xml"
    told = refused(
        place.run("validate", place.project.release, "--junit", report, "--json"), "ChecksRefusedError", 5
    )  # fmt: skip
    assert "parity" in told["why"]
    assert told["result"]["artifacts"], "the result is told as well"
    suites = list(ElementTree.parse(report).getroot())
    assert sum(int(suite.attrib["failures"]) for suite in suites) == 2


def but_lock(place: Place) -> object:
    """What a command left, apart from the name of the last holder of the lock."""
    found = dict(traces(place))
    found["files"] = {name: value for name, value in dict(found["files"]).items() if name != "lock"}  # type: ignore[call-overload]
    return found


def test_a_dry_run_says_what_would_run_and_changes_nothing(built: Place) -> None:
    before = but_lock(built)
    rows = built.run("deploy", built.project.release, "--dry-run", "--json").ok().json["plan"]
    will = {row["step"]: row["will"] for row in rows}
    assert all(row["reason"] for row in rows)
    assert will["sign/release/virtual"] == "be found in the store"
    assert will["stage"] == "run"
    assert but_lock(built) == before


def test_a_rehearsal_makes_neither_workspace_nor_keys(place: Place, tmp_path: Path) -> None:
    fresh = load_settings(place.workspace, environment={"HOME": str(tmp_path / "home")})
    with open_session(fresh, place.project.release, "a test", dry_run=True) as session:
        plan = session.plan()
        assert set(session.forecast(plan).values()) == {StepState.PENDING}
        used = session.workspace.root
    assert not place.workspace.exists()
    assert not fresh.development_keys.exists()
    assert not used.exists()
