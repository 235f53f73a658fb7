"""The command line with a chip whose compiler and whose bench are on another machine, behind a real sshd."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from nwmctl.errors import ExitCode
from tests.e2e.command import Place
from tests.sshd import Sshd, running_sshd
from tests.toolchains import far, vendor

RECIPE = "{toolchain: external, precision: fp32, options: {template: tiny}}"


@pytest.fixture(scope="module")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    with running_sshd(tmp_path_factory.mktemp("sshd")) as server:
        yield server


@pytest.fixture
def site(place: Place, sshd: Sshd) -> Path:
    """The virtual platform gets a chip whose SDK is on a build host that is also its bench."""
    folder = place.folder / "site"
    declarations = vendor.install(folder, far=True, measures=True)
    path = declarations / "tiny.yaml"
    # Each row starts a Python there: that is a crawl, and no closed loop.
    path.write_text(path.read_text().replace("quick: true", "quick: false"))
    (folder / "rooms").mkdir()
    far.hosts(folder, sshd)
    place.environment |= {"NWMCTL_TOOLCHAINS": str(declarations), "NWMCTL_HOSTS": str(folder / "hosts.yml")}

    def with_a_chip(text: str) -> str:
        text = text.replace("name: host\n    description", "name: tiny-npu\n    description").replace(
            "chip: host", "chip: tiny-npu"
        )
        return text.replace("unit: host", "unit: npu").replace("{toolchain: onnxruntime, precision: fp32}", RECIPE)

    place.project.edit_platforms("virtual.yaml", with_a_chip)
    return folder


def results(place: Place) -> dict[str, list[dict[str, object]]]:
    (build,) = place.run_apart("runs", "evidence", "--build", "virtual", "--json").ok().json["builds"]
    found: dict[str, list[dict[str, object]]] = {}
    for result in build["evidence"]["results"]:
        found.setdefault(result["check"], []).append(result)
    return found


@pytest.mark.long
def test_evidence_from_a_bench(place: Place, site: Path) -> None:
    arguments = ("validate", place.project.release, "--platforms", place.project.platforms)
    ran = place.run_apart(*arguments, timeout=280)
    assert ran.code in (ExitCode.OK, ExitCode.REFUSED), ran.err
    found = results(place)
    for check in ("contract", "parity", "latency"):
        # The ways that do not exist here are reported, too.
        [result] = [each for each in found[check] if each["verdict"] != "not_run"]
        assert (result["obtained"], result["verdict"]) == ("bench", "passed"), result
    assert list((site / "rooms").iterdir()) == []


@pytest.mark.long
def test_a_build_host_that_is_gone_ends_the_run_with_its_own_code(place: Place, site: Path) -> None:
    hosts = site / "hosts.yml"
    hosts.write_text(hosts.read_text().replace("    port: ", "    port: 1 # "))
    ran = place.run_apart(
        "compile", place.project.release, "--platforms", place.project.platforms, "--json", timeout=280
    )
    assert ran.code == ExitCode.REMOTE
    assert "cannot be reached" in ran.out + ran.err
