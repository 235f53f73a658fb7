"""Drivers by name, drivers of other packages, and the emulation's installation."""

from __future__ import annotations

import shutil
import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from nwmctl.errors import EmulationInstallError, UnknownToolchainError
from nwmctl.toolchains import emulation, registry
from nwmctl.toolchains.onnxruntime import OnnxRuntime
from nwmctl.toolchains.registry import Registry
from tests.real import require_real


class Fifth(OnnxRuntime):
    """A driver of another package."""

    name = "fifth"


def broken() -> Fifth:
    raise RuntimeError("no licence")


def foreign(**points: str) -> dict[str, EntryPoint]:
    return {name: EntryPoint(name, value, registry.GROUP) for name, value in points.items()}


def test_the_names_and_the_same_driver_each_time() -> None:
    known = Registry()
    assert known.names()[:4] == ("iree", "onnxruntime", "openvino", "external")
    for name in known.names()[:4]:
        assert known.get(name).name == name
        assert known.get(name) is known.get(name)


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(UnknownToolchainError) as caught:
        Registry().get("gcc")
    assert "iree, onnxruntime, openvino, external" in caught.value.why


def test_another_package_adds_a_driver_and_replaces_none(monkeypatch: pytest.MonkeyPatch) -> None:
    here = "tests.toolchains.test_registry"
    monkeypatch.setattr(registry, "_foreign", lambda: foreign(fifth=f"{here}:Fifth", iree=f"{here}:Fifth"))
    known = Registry()
    assert known.names() == ("iree", "onnxruntime", "openvino", "external", "fifth")
    assert known.get("fifth").name == "fifth"
    assert known.get("iree").name == "iree"


def test_a_driver_that_does_not_load_is_listed_as_such(monkeypatch: pytest.MonkeyPatch) -> None:
    here = "tests.toolchains.test_registry"
    monkeypatch.setattr(registry, "_foreign", lambda: foreign(sick=f"{here}:broken", lost="no.such:Driver"))
    probes = {probe.name: probe for probe in Registry().probe_all()}
    assert "no licence" in probes["sick"].detail
    assert not probes["lost"].available
    with pytest.raises(UnknownToolchainError, match="'sick' cannot be loaded"):
        Registry().get("sick")


def test_listing_drivers_imports_no_compiler() -> None:
    code = (
        "import sys; from nwmctl.toolchains.registry import probe_all; probe_all();"
        "heavy = {'onnx', 'onnxruntime', 'iree.compiler', 'iree.runtime', 'jinja2'} & set(sys.modules);"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


def test_a_damaged_emulation_runtime_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    require_real("qemu-aarch64", not emulation.missing(), emulation.missing())
    copy = tmp_path / "iree"
    shutil.copytree(emulation.folder(), copy)
    monkeypatch.setenv(emulation.ENVIRONMENT, str(copy))
    assert emulation.missing() == ""
    program = copy / "iree/_runtime_libs/iree-run-module"
    program.write_bytes(program.read_bytes()[:-1] + b"\x00\x00")
    assert "is not the file that its wheel lists" in emulation.missing()
    assert emulation.fingerprint() == "no emulation"
    program.unlink()
    assert "is not installed" in emulation.missing()


def test_a_failed_installation_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "iree"
    place.mkdir()
    (place / "old").write_text("kept")
    monkeypatch.setenv(emulation.ENVIRONMENT, str(place))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    with pytest.raises(EmulationInstallError) as caught:
        emulation.install()
    assert "index" in caught.value.next
    assert (place / "old").read_text() == "kept"
    assert [path.name for path in tmp_path.iterdir()] == ["iree"]


def test_the_module_says_whether_it_is_set_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(emulation.ENVIRONMENT, str(tmp_path))
    assert emulation.main(["check"]) == 7
    assert emulation.main(["explode"]) == 2
