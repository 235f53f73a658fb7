"""External toolchains over a real sshd: hosts by name, what stays behind (nothing), and every way in which a host, a
connection or a compiler there can fail. The compiler is a vendor's tiny SDK; IREE's is in the contract suite."""

from __future__ import annotations

import dataclasses
import threading
from pathlib import Path

import pytest

from nwmctl.domain.artifact import Recipe
from nwmctl.errors import (
    CompileFailedError,
    HostChangedError,
    HostKeyError,
    HostUndeclaredError,
    HostUnreachableError,
    NwmError,
    RemoteDiskFullError,
    RemoteFileError,
    SchemaError,
    ToolchainError,
    ToolchainMissingError,
    ToolchainTimeoutError,
)
from nwmctl.formats import documents
from nwmctl.toolchains.external import External
from nwmctl.toolchains.external_hosts import Hosts
from nwmctl.toolchains.protocol import Compiled
from tests.disks import small_disk
from tests.sshd import Sshd, make_key
from tests.toolchains import far
from tests.toolchains.site import FP32, Cable, Site, alive, make_site, until


@pytest.fixture
def site(tmp_path: Path, sshd: Sshd, model: Path) -> Site:
    return make_site(tmp_path / "site", sshd, model)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory, sshd: Sshd, model: Path) -> tuple[Site, Compiled]:
    """One artifact, for all tests that only execute."""
    made = make_site(tmp_path_factory.mktemp("built"), sshd, model)
    return made, made.driver.compile(made.ask(made.folder / "s"))


# --- compiling ----------------------------------------------------------------------------------------------------


def test_nothing_of_the_host_is_in_what_is_hashed(built: tuple[Site, Compiled], tmp_path: Path) -> None:
    site, compiled = built
    assert site.rooms == []
    told = documents.encode(compiled.manifest) + compiled.payload.read_bytes()
    for secret in (
        "127.0.0.1",
        str(site.sshd.port),
        site.sshd.host_key.split()[1],
        "builder",
        str(site.folder / "rooms"),
    ):
        assert secret.encode() not in told
    recipe = compiled.manifest.recipe
    cable = Cable(site.sshd.port)
    try:
        (tmp_path / "moved" / "rooms").mkdir(parents=True)
        far.hosts(tmp_path / "moved", site.sshd, cable.port)
        moved = External((site.declarations,), Hosts(tmp_path / "moved" / "hosts.yml"))
        assert moved.fingerprint(recipe) == site.driver.fingerprint(recipe), "a host that moves is the same host"
    finally:
        cable.cut()


def test_arguments_reach_the_program_as_they_are(site: Site, tmp_path: Path) -> None:
    """Quotes, blanks, line ends and dollars: each argument is one argument there, too."""
    (site.folder / "tinycc").write_text(
        "#!/bin/sh\ncase $1 in --version) echo tinycc 4.2 ;; *) printf '%s|' \"$@\" > model.tiny ;; esac\n"
    )
    site.edit("inspect: {fp16: 'mac=fp16', fp32: 'mac=fp32'}\n", "")
    odd = f"a b'c\"d $(touch {tmp_path}/broken) `id` ;& \\ *\n--level=9 é"
    compiled = site.driver.compile(site.ask(tmp_path / "s", mode=odd))
    wanted = ["--model=lowered.onnx", "--out=model.tiny", "--format=fp32", "--level=3", f"--mode={odd}", ""]
    assert compiled.payload.read_text().split("|") == wanted
    assert not (tmp_path / "broken").exists()


def test_another_version_there_is_another_key(site: Site, tmp_path: Path) -> None:
    driver, recipe = site.driver, Recipe("external", FP32, {"template": "tiny"})
    before = driver.fingerprint(recipe)
    site.edit("tinycc 4.2", "tinycc 4.3", site.folder / "tinycc")
    assert driver.fingerprint(recipe) == before, "a run asks once"
    with pytest.raises(HostChangedError, match="became another version"):
        driver.compile(site.ask(tmp_path / "s"))
    assert driver.fingerprint(recipe) != before


@pytest.mark.parametrize(
    ("mode", "kind", "words"),
    [
        ("lie", CompileFailedError, r"exited 0 and yet said '\[E\] could not build the engine'"),
        pytest.param("copy", CompileFailedError, "exited 0 and compiled nothing", marks=pytest.mark.long),
        pytest.param("empty", CompileFailedError, "exited 0 and left no payload", marks=pytest.mark.long),
        pytest.param("nothing", CompileFailedError, "exited 0 and left no payload", marks=pytest.mark.long),
        pytest.param("fail", CompileFailedError, "failed with exit status 1", marks=pytest.mark.long),
        pytest.param("signal", CompileFailedError, "was ended by SIGSEGV", marks=pytest.mark.long),
        pytest.param("spam", ToolchainError, "printed more than", marks=pytest.mark.long),
        pytest.param("memory", ToolchainError, "memory", marks=pytest.mark.long),
    ],
)
def test_a_compiler_there_that_fails_in_its_own_way(
    site: Site, tmp_path: Path, mode: str, kind: type[NwmError], words: str
) -> None:
    ask = dataclasses.replace(site.ask(tmp_path / "s", mode=mode), memory_bytes=1 << 30)
    with pytest.raises(kind, match=words):
        site.driver.compile(ask)
    assert site.rooms == []


@pytest.mark.long
def test_a_compiler_there_that_hangs_is_killed_with_its_children(site: Site, tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    ask = dataclasses.replace(site.ask(tmp_path / "s", mode="children", pids=str(pids)), timeout_s=8.0)
    with pytest.raises(ToolchainTimeoutError, match="tiny did not end within 8 s"):
        site.driver.compile(ask)
    assert site.rooms == []
    assert not any(alive(int(pid)) for pid in pids.read_text().split())


def test_a_broken_connection_ends_everything_there(site: Site, tmp_path: Path) -> None:
    """The compiler and its child die, the folder is removed, and the error is one that is worth a retry."""
    cable, pids, caught = Cable(site.sshd.port), tmp_path / "pids", []
    far.hosts(site.folder, site.sshd, cable.port)

    def compile_it() -> None:
        try:
            site.driver.compile(site.ask(tmp_path / "s", mode="children", pids=str(pids)))
        except NwmError as problem:
            caught.append(problem)

    thread = threading.Thread(target=compile_it)
    thread.start()
    try:
        assert until(lambda: pids.is_file() and len(pids.read_text().split()) == 2, 60)
        assert all(alive(int(pid)) for pid in pids.read_text().split())
        assert len(site.rooms) == 1
    finally:
        cable.cut()
        thread.join(60)
    assert [type(problem) for problem in caught] == [HostUnreachableError]
    assert until(lambda: not any(alive(int(pid)) for pid in pids.read_text().split()))
    assert until(lambda: not site.rooms)


def test_another_host_key_is_told_nothing(site: Site, tmp_path: Path) -> None:
    site.edit(site.sshd.host_key, make_key(tmp_path / "other"), site.folder / "hosts.yml")
    with pytest.raises(HostKeyError, match="not the host whose key is pinned"):
        site.driver.compile(site.ask(tmp_path / "s"))
    assert not (tmp_path / "s" / "lowered.onnx").exists(), "the host is asked before any work is done"


@pytest.mark.parametrize("when", ["before the upload", pytest.param("while it compiles", marks=pytest.mark.long)])
def test_a_full_disk_there(site: Site, tmp_path: Path, when: str) -> None:
    with small_disk(tmp_path / "small") as disk:
        site.edit(str(site.folder / "rooms"), str(disk), site.folder / "hosts.yml")
        if when == "before the upload":
            (disk / "others").write_bytes(b"x" * ((1 << 20) - (12 << 10)))
        with pytest.raises(RemoteDiskFullError, match="is full") as caught:
            site.driver.compile(site.ask(tmp_path / "s", mode="disk"))
        assert "kB are left" in caught.value.why
        assert [path.name for path in disk.iterdir() if path.name != "others"] == []


def test_a_folder_that_is_not_there(site: Site, tmp_path: Path) -> None:
    site.edit(str(site.folder / "rooms"), str(site.folder / "no-rooms"), site.folder / "hosts.yml")
    with pytest.raises(RemoteFileError, match="could not make a folder"):
        site.driver.compile(site.ask(tmp_path / "s"))


def test_a_program_that_the_host_lacks(site: Site, tmp_path: Path) -> None:
    (site.folder / "tinycc").unlink()
    with pytest.raises(ToolchainMissingError, match="is not installed on the host 'builder'"):
        site.driver.fingerprint(Recipe("external", FP32, {"template": "tiny"}))


@pytest.mark.parametrize(
    ("old", "new", "kind", "words"),
    [
        ("builder:", "other:", HostUndeclaredError, "known are other"),
        ("    host_key: ", "    key: ", SchemaError, "unknown key 'key'"),
        ("    port: ", "    port: 9", SchemaError, "65535"),
        ("    folder: ", "    folder: .", SchemaError, "absolute path"),
    ],
)
def test_a_wrong_file_of_hosts(
    site: Site, tmp_path: Path, old: str, new: str, kind: type[NwmError], words: str
) -> None:
    site.edit(old, new, site.folder / "hosts.yml")
    with pytest.raises(kind) as caught:
        site.driver.compile(site.ask(tmp_path / "s"))
    assert words in str(caught.value)


def test_no_host_key_is_no_host(site: Site, tmp_path: Path) -> None:
    site.edit(f"host_key: {site.sshd.host_key}", "host_key: ''", site.folder / "hosts.yml")
    with pytest.raises(HostKeyError, match="no host key is pinned"):
        site.driver.compile(site.ask(tmp_path / "s"))
