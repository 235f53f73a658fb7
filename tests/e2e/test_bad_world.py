"""What lies outside goes wrong: compilers, mirrors, vehicles, and a fleet for which the evidence is not enough."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import re
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from nwmctl.errors import ExitCode
from tests.e2e.command import Place, refused, rows, served, tree
from tests.project import VINS
from tests.sshd import make_key, running_sshd
from tests.toolchains import vendor

_RECIPE = "          - {toolchain: onnxruntime, precision: fp32}\n"


def vendor_recipe(place: Place, mode: str, *, then: str = "") -> Path:
    """Profiles whose virtual platform is built by a vendor's compiler that behaves as ``mode`` says."""
    declarations = vendor.install(place.folder / "sdk")
    declared = declarations / "tiny.yaml"
    declared.write_text(declared.read_text().replace("units: [npu]", "units: [npu, host]"))
    place.environment["NWMCTL_TOOLCHAINS"] = str(declarations)
    mine = f"          - {{toolchain: external, precision: fp32, options: {{template: tiny, mode: {mode}}}}}\n"
    return place.project.edit_platforms("virtual.yaml", lambda text: text.replace(_RECIPE, mine + then))


def nothing(place: Place) -> bool:
    return not any(served(place).values()) and not tree(place.workspace / "content" / "tmp")


@pytest.mark.parametrize(
    ("mode", "error", "words"),
    [
        pytest.param("fail", "CompileFailedError", ("exit status 1", "too many nodes"), marks=pytest.mark.long),
        ("hang", "ToolchainTimeoutError", ("did not end within 20 s",)),
        ("lie", "ErrorSaidError", ("exited 0 and yet said", "could not build the engine")),
        pytest.param("nothing", "CompileFailedError", ("exited 0 and left no payload",), marks=pytest.mark.long),
    ],
)
def test_a_compiler_that_fails_is_refused(place: Place, mode: str, error: str, words: tuple[str, ...]) -> None:
    platforms = vendor_recipe(place, mode)
    # Enough for the lowering before it, on a busy machine too.
    place.environment["NWMCTL_COMPILE_TIMEOUT"] = "20"
    began = time.monotonic()
    ran = place.run_apart("compile", place.project.release, "--platforms", platforms, "--json")
    assert time.monotonic() - began < 120
    refused(ran, error, ExitCode.TOOLCHAIN, *words)
    assert nothing(place)


@pytest.mark.long
def test_the_next_recipe_is_tried_and_the_story_says_why(place: Place) -> None:
    platforms = vendor_recipe(place, "fail", then=_RECIPE)
    ran = place.run_apart("compile", place.project.release, "--platforms", platforms, "--json").ok()
    assert ran.json["run"]["state"] == "done"
    events = place.run("runs", "show", "--json").ok().json["events"]
    decisions = [event for event in events if event["event"] == "Decided"]
    assert {decision["rule"] for decision in decisions} == {"next-alternative"}
    assert "alternative 2 of 2 is next" in decisions[0]["reason"]
    assert "too many nodes" in place.run("runs", "show").ok().out


@pytest.mark.long
def test_a_driver_that_explodes_is_not_a_defect_of_ours(place: Place) -> None:
    site = place.folder / "site"
    (site / "broken-1.dist-info").mkdir(parents=True)
    (site / "broken-1.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 1\n")
    (site / "broken-1.dist-info" / "entry_points.txt").write_text("[nwmctl.toolchains]\nbroken = broken:Broken\n")
    (site / "broken.py").write_text(
        "class Broken:\n    name = 'broken'\n    def fingerprint(self, recipe): return 'broken 1'\n"
        "    def compile(self, request): raise ZeroDivisionError('by the driver')\n"
    )
    place.environment["PYTHONPATH"] = os.pathsep.join([str(site), place.environ["PYTHONPATH"]])
    recipe = "          - {toolchain: broken, precision: fp32}\n"
    platforms = place.project.edit_platforms("virtual.yaml", lambda text: text.replace(_RECIPE, recipe))
    ran = place.run_apart("compile", place.project.release, "--platforms", platforms, "--json")
    refused(ran, "CompileFailedError", ExitCode.TOOLCHAIN, "'broken'", "ZeroDivisionError: by the driver")


def test_a_toolchain_that_nobody_knows_is_named(place: Place) -> None:
    recipe = "          - {toolchain: magic, precision: fp32}\n"
    platforms = place.project.edit_platforms("virtual.yaml", lambda text: text.replace(_RECIPE, recipe))
    ran = place.run("compile", place.project.release, "--platforms", platforms, "--json")
    refused(ran, "UnknownToolchainError", ExitCode.INPUT, "magic", "onnxruntime")


def sftp_mirror(place: Place, uri: str, host_key: str, identity: Path) -> None:
    mirror = {"name": "far", "uri": uri, "host_key": host_key, "identity": str(identity)}
    place.project.edit_release(lambda release: release["mirrors"].append(mirror))


def test_a_mirror_with_another_host_key_changes_nothing(place: Place) -> None:
    with running_sshd(place.folder / "sshd") as sshd:
        (place.folder / "far").mkdir()
        other = make_key(place.folder / "other")
        sftp_mirror(place, sshd.uri(place.folder / "far"), other, sshd.identity)
        ran = place.deploy("--json")
        refused(ran, "HostKeyError", ExitCode.VERIFICATION, "127.0.0.1")
        assert nothing(place), served(place)
        assert not tree(place.folder / "far")

        # The same release goes on with the right key: nothing was claimed for ever.
        place.project.edit_release(lambda release: release["mirrors"][1].update(host_key=sshd.host_key))
        place.run("publish", place.project.release).ok()
        far, near = tree(place.folder / "far"), tree(place.workspace / "mirrors" / "local")
        assert far == near
        assert "metadata/timestamp.json" in far


@pytest.mark.long
def test_a_mirror_that_does_not_answer_changes_nothing(place: Place) -> None:
    key = make_key(place.folder / "key")
    sftp_mirror(place, "sftp://nobody@127.0.0.1:9/srv", key, place.folder / "key")
    ran = place.deploy("--json")
    refused(ran, "HostUnreachableError", ExitCode.REMOTE, "127.0.0.1")
    assert nothing(place), served(place)
    decisions = [e["rule"] for e in place.run("runs", "show", "--json").json["events"] if e["event"] == "Decided"]
    assert decisions[-1] == "retries-spent" or len(decisions) > 1  # it was tried again first


GARBAGE: dict[str, bytes] = {
    "not JSON": b"\xff\x00 not json",
    "no object": b"[]",
    "empty": b"",
    "a number for a word": b'{"id": "1", "status": {"execution": 7, "result": {"finished": "success"}}}',
    "an unknown word": b'{"id": "1", "status": {"execution": "exploded", "result": {"finished": "success"}}}',
    "another action": b'{"id": "99", "status": {"execution": "closed", "result": {"finished": "success"}}}',
    "endless": b'{"id": "' + b"1" * (2 << 20) + b'"}',
    "deep": b'{"id":' + b"[" * 50_000,
}


def facts(place: Place) -> dict[str, Any]:
    """What a report could change. When a vehicle was last seen is noted for every request that it signs."""
    found = rows(place.workspace / "fleet.db")
    return {name: found[name] for name in ("event", "feedback", "action", "assignment", "campaign", "wave", "tally")}


def test_a_vehicle_that_reports_garbage_is_told_so_and_nothing_is_stored(deployed: Place) -> None:
    before = facts(deployed)
    secret = (deployed.workspace / "state" / "fleet-secret").read_bytes()
    token = hmac.new(secret, VINS[0].encode(), hashlib.sha256).hexdigest()
    ready = deployed.folder / "ready.json"
    with deployed.spawn("gateway", "serve", "--port", "0", "--ready-file", ready, "--no-controller") as process:
        deadline = time.monotonic() + 30
        while not ready.exists():
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.02)
        url = f"{json.loads(ready.read_text())['url']}/default/controller/v1/{VINS[0]}"
        with httpx.Client(headers={"Authorization": f"TargetToken {token}"}, trust_env=False) as http:
            for name, body in GARBAGE.items():
                answer = http.post(f"{url}/deploymentBase/1/feedback", content=body)
                assert answer.status_code == 400, (name, answer.status_code, answer.text)
                assert answer.json()["error"], name
            for name in ("not JSON", "no object", "deep", "endless"):
                assert http.put(f"{url}/configData", content=GARBAGE[name]).status_code == 400, name
            assert http.get(url).status_code == 200  # it still serves
        assert httpx.get(url, trust_env=False).status_code == 401
        process.terminate()
        assert process.wait(15) == 0
    assert facts(deployed) == before


# --- a real fleet -------------------------------------------------------------------------------------------------


@pytest.fixture
def real(place: Place) -> Place:
    """The release, addressed to real vehicles."""
    place.project.edit_release(
        lambda release: release.update(fleet={"name": "road", "inventory": "fleet.csv", "virtual": False})
    )
    lines = [f"{vin},virtual-car,Bench,10,{'t' * 16}{number}" for number, vin in enumerate(VINS)]
    place.project.fleet.write_text("\n".join(["vin,vehicle_model,baseline,sequence,token", *lines, ""]))
    return place


def test_a_real_fleet_needs_keys_of_its_own(real: Place) -> None:
    refused(real.deploy("--json"), "KeysNeededError", ExitCode.MISSING, "nwmctl keys init")
    refused(real.deploy("--keys", real.keys, "--json"), "KeysNeededError", ExitCode.MISSING, "development")
    assert nothing(real)


def own_keys(place: Place) -> tuple[str | Path, ...]:
    """Make encrypted keys; the options that name them and their passphrase."""
    place.environment["SECRET"] = "correct horse"
    place.run("keys", "init", place.folder / "keys", "--passphrase-env", "SECRET").ok()
    return "--keys", place.folder / "keys", "--passphrase-env", "SECRET"


def test_this_machine_is_no_platform_of_a_real_fleet(real: Place) -> None:
    own = own_keys(real)
    ran = real.deploy(*own, "--json")
    refused(ran, "HostPlatformError", ExitCode.REFUSED, "virtual", "machine that runs nwmctl")
    assert nothing(real)


def test_a_real_fleet_is_refused_with_the_benches_that_would_settle_it(real: Place) -> None:
    # The chip of the profile is a vendor's now, and none is within reach of this machine.
    vendor_recipe(real, "work")
    platforms = real.project.edit_platforms("virtual.yaml", lambda text: text.replace("unit: host", "unit: npu"))
    arguments = [real.project.release, *own_keys(real), "--platforms", platforms, "--json"]
    document = refused(real.run_apart("deploy", *arguments), "SigningRefusedError", ExitCode.REFUSED, "real fleet")
    for check in ("contract", "parity", "closed_loop", "latency"):
        assert f"virtual host/host {check}: not_run" in document["why"]
        assert re.search(rf"{check}: .*\bbench that carries", document["next"]), document["next"]
    assert nothing(real)
    events = real.run("runs", "show", "--json").ok().json["events"]
    assert not [e for e in events if e["event"] == "StepFinished" and e["step"].startswith("sign/")]
