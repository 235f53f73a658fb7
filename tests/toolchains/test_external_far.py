"""External toolchains over a real sshd: hosts by name, what stays behind (nothing), and every way in which a host, a
connection or a compiler there can fail. The compiler is a vendor's tiny SDK; IREE's is in the contract suite."""

from __future__ import annotations

import contextlib
import dataclasses
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from nwmctl.domain.artifact import Precision, Recipe
from nwmctl.domain.figure import Obtained
from nwmctl.domain.model import ModelContract, TensorSpec
from nwmctl.domain.platform import Build, Role
from nwmctl.errors import (
    CompileFailedError,
    HostChangedError,
    HostKeyError,
    HostUndeclaredError,
    HostUnreachableError,
    NwmError,
    PlaceUnavailableError,
    RemoteDiskFullError,
    RemoteFileError,
    RuntimeFailedError,
    SchemaError,
    ToolchainError,
    ToolchainMissingError,
    ToolchainTimeoutError,
)
from nwmctl.formats import documents
from nwmctl.steps.ways import Artifact, ways_of
from nwmctl.toolchains.external import External
from nwmctl.toolchains.external_hosts import Hosts
from nwmctl.toolchains.protocol import BenchOrder, Compiled, CompileRequest
from nwmctl.toolchains.registry import Registry
from nwmctl.validation.candidate import Candidate
from nwmctl.validation.subject import Pace, Unreachable, Way
from tests.disks import small_disk
from tests.sshd import Sshd, make_key
from tests.toolchains import far, vendor
from tests.toolchains.models import expected, inputs, request, worst

FP32 = Precision.FP32


class Cable:
    """A connection through which bytes pass until it is cut."""

    def __init__(self, port: int) -> None:
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = self._server.getsockname()[1]
        self._to, self._open = port, [self._server]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._server.accept()
                distant = socket.create_connection(("127.0.0.1", self._to))
                self._open += [near, distant]
                for ends in ((near, distant), (distant, near)):
                    threading.Thread(target=self._carry, args=ends, daemon=True).start()

    def _carry(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                sink.sendall(data)

    def cut(self) -> None:
        for end in self._open:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()


@dataclasses.dataclass
class Site:
    """A host, the declaration of an SDK on it, and a driver that knows both."""

    folder: Path
    sshd: Sshd
    declarations: Path
    model: Path

    @property
    def driver(self) -> External:
        return External((self.declarations,), Hosts(self.folder / "hosts.yml"))

    @property
    def rooms(self) -> list[Path]:
        return list((self.folder / "rooms").iterdir())

    def ask(self, scratch: Path, **options: str | bool | int) -> CompileRequest:
        return request(self.model, scratch, "external", FP32, "npu", template="tiny", **options)

    def edit(self, old: str, new: str, path: Path | None = None) -> None:
        path = path or self.declarations / "tiny.yaml"
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new))


@pytest.fixture
def site(tmp_path: Path, sshd: Sshd, model: Path) -> Site:
    folder = tmp_path / "site"
    declarations = vendor.install(folder, far=True)
    (folder / "rooms").mkdir()
    far.hosts(folder, sshd)
    return Site(folder, sshd, declarations, model)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory, sshd: Sshd, model: Path) -> tuple[Site, Compiled]:
    """One artifact, for all tests that only execute."""
    folder = tmp_path_factory.mktemp("built")
    declarations = vendor.install(folder, far=True)
    (folder / "rooms").mkdir()
    far.hosts(folder, sshd)
    made = Site(folder, sshd, declarations, model)
    return made, made.driver.compile(made.ask(folder / "s"))


def until(true: object, seconds: float = 15.0) -> bool:
    """Whether something becomes true in time."""
    assert callable(true)
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if true():
            return True
        time.sleep(0.05)
    return False


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


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


# --- a bench ------------------------------------------------------------------------------------------------------


def artifact(site: Site, compiled: Compiled) -> Artifact:
    return Artifact(compiled.payload, compiled.manifest, site.driver)


def build_for(chip: str) -> Build:
    return Build("npu", chip, "npu", (Role.MAIN,), (Recipe("external", FP32, {"template": "tiny"}),))


def test_a_bench_is_a_way_only_for_its_own_chip(built: tuple[Site, Compiled]) -> None:
    site, compiled = built
    ways, _ = ways_of(build_for("tiny-npu"), artifact(site, compiled), None)
    assert [(way.obtained, way.pace, way.label) for way in ways] == [
        (Obtained.BENCH, Pace.ROWS, "a bench with tiny-npu")
    ]
    with ways[0].open() as session:
        assert worst(session.run(inputs(2)), expected(inputs(2))) < 1e-5
    ways, unreachable = ways_of(build_for("orin-x"), artifact(site, compiled), None)
    assert ways == ()
    assert "carries tiny-npu" in unreachable[-1].reason
    assert not unreachable[-1].passing


@pytest.mark.parametrize("said", ["tiny-npu-2\n", "", None])
def test_a_host_that_does_not_say_so_is_no_bench(built: tuple[Site, Compiled], said: str | None) -> None:
    site, compiled = built
    chip = site.folder / "chip"
    chip.unlink() if said is None else chip.write_text(said)
    try:
        reach = site.driver.bench(compiled.manifest, "tiny-npu")
        assert "is not known to carry tiny-npu" in reach.reason
        with pytest.raises(PlaceUnavailableError, match="is not known to carry tiny-npu"):
            site.driver.open_bench(compiled.payload, compiled.manifest, "tiny-npu")
    finally:
        chip.write_text("tiny-npu\n")


def test_a_bench_that_does_not_answer_may_answer_tomorrow(built: tuple[Site, Compiled], tmp_path: Path) -> None:
    site, compiled = built
    cable = Cable(site.sshd.port)
    cable.cut()
    far.hosts(tmp_path, site.sshd, cable.port)
    gone = dataclasses.replace(
        artifact(site, compiled), toolchain=External((site.declarations,), Hosts(tmp_path / "hosts.yml"))
    )
    ways, unreachable = ways_of(build_for("tiny-npu"), gone, None)
    assert ways == ()
    assert isinstance(unreachable[-1], Unreachable)
    assert unreachable[-1].passing


def test_the_benches_are_known_by_name_alone(built: tuple[Site, Compiled]) -> None:
    site, _ = built
    known = Registry((site.declarations,), site.folder / "hosts.yml")
    assert known.benches() == "builder with tiny-npu for tiny"
    assert Registry((site.declarations,)).benches() == ""


def test_a_session_there(built: tuple[Site, Compiled]) -> None:
    site, compiled = built
    with site.driver.open_bench(compiled.payload, compiled.manifest, "tiny-npu") as session:
        given = inputs(3, seed=3)
        assert worst(session.run(given), expected(given)) < 1e-5
        assert len(session.seconds) == 3
        assert all(0 < each < 5 for each in session.seconds)
        assert len(site.rooms) == 1
    assert site.rooms == []


@pytest.mark.parametrize(
    ("program", "words"),
    [
        ("exit 3", "failed with exit status 3"),
        ("echo '[E] no device'", r"exited 0 and yet said '\[E\] no device'"),
        pytest.param("true", "left no outputs that can be read", marks=pytest.mark.long),
        pytest.param("echo nonsense > out0.npy; cp out0.npy out1.npy", "left no outputs", marks=pytest.mark.long),
    ],
)
def test_a_runtime_there_that_fails(built: tuple[Site, Compiled], tmp_path: Path, program: str, words: str) -> None:
    site, compiled = built
    with with_runtime(site, program) as driver:
        with driver.open_bench(compiled.payload, compiled.manifest, "tiny-npu", timeout_s=30) as session:
            with pytest.raises(RuntimeFailedError, match=words):
                session.run(inputs(1))
    assert site.rooms == []


@contextlib.contextmanager
def with_runtime(site: Site, program: str) -> Iterator[External]:
    """The same site, with another runtime on the host."""
    path = site.folder / "tinyrun"
    kept = path.read_text()
    path.write_text(f"#!/bin/sh\n{program}\n")
    try:
        yield site.driver
    finally:
        path.write_text(kept)


def test_a_runtime_there_that_hangs(built: tuple[Site, Compiled]) -> None:
    site, compiled = built
    with with_runtime(site, "sleep 600") as driver:
        with driver.open_bench(compiled.payload, compiled.manifest, "tiny-npu", timeout_s=1) as session:
            with pytest.raises(ToolchainError):
                session.run(inputs(1))


def test_a_bench_that_goes_away_is_no_failure_of_the_artifact(built: tuple[Site, Compiled], tmp_path: Path) -> None:
    site, compiled = built
    cable = Cable(site.sshd.port)
    shutil.copytree(site.folder / "rooms", tmp_path / "rooms")
    far.hosts(tmp_path, site.sshd, cable.port)
    driver = External((site.declarations,), Hosts(tmp_path / "hosts.yml"))
    manifest = compiled.manifest
    way = Way(Obtained.BENCH, "bench", Pace.ROWS, lambda: driver.open_bench(compiled.payload, manifest, "tiny-npu"))
    with Candidate(contract(), way) as candidate:
        assert worst(candidate.run(inputs(1)), expected(inputs(1))) < 1e-5
        cable.cut()
        with pytest.raises(HostUnreachableError):
            candidate.run(inputs(1, seed=5))


def contract() -> ModelContract:
    def spec(name: str, *shape: int | str) -> TensorSpec:
        return TensorSpec(name, "float32", ("B", *shape), (), "")

    return ModelContract(
        (spec("tokens", 16, 32), spec("gain", 1)), (spec("features", 16, 32), spec("level", 1)), 20.0, "level"
    )


# --- measuring ----------------------------------------------------------------------------------------------------


def measured(site: Site, compiled: Compiled, measure: str, order: BenchOrder) -> object:
    """What a declared measurement gives."""
    path = site.declarations / "tiny.yaml"
    kept = path.read_text()
    path.write_text(kept + measure)
    try:
        return site.driver.measure_on_bench(compiled.payload, compiled.manifest, "tiny-npu", inputs(1), order)
    finally:
        path.write_text(kept)


SAMPLES = """measure:
  command: {program: sh, arguments: [-c, "for i in 9 9 1 2 3 4; do echo took $i ms > /dev/stderr; done"]}
  samples: 'took (\\S+) ms'
  co_load: {program: sleep, arguments: ["600"]}
"""


def test_samples_of_a_program_there_become_a_latency(built: tuple[Site, Compiled]) -> None:
    from nwmctl.domain.measurement import Latency

    found = measured(*built, SAMPLES, BenchOrder(4, 2, 2.5, "stream:2"))
    assert isinstance(found, Latency)
    assert (found.n, found.p50_ms, found.most_ms, found.misses) == (4, 2.5, 4.0, 2), "the warm-up does not count"
    assert (found.obtained, found.co_load, found.deadline_ms) == (Obtained.BENCH, "stream:2", 2.5)
    assert found.load >= 0
    assert built[0].rooms == []


def test_without_a_measurement_the_runtime_tells_its_own_time(built: tuple[Site, Compiled]) -> None:
    from nwmctl.domain.measurement import Latency

    found = measured(*built, "", BenchOrder(2, 1, 1000.0))
    assert isinstance(found, Latency)
    assert (found.n, found.misses, found.obtained) == (2, 0, Obtained.BENCH)


FIGURES = """measure:
  command: {{program: echo, arguments: ["{said}"]}}
  figures: 'n=(?P<n>\\d+) (?P<p50_ms>\\S+) (?P<p99_ms>\\S+) (?P<p999_ms>\\S+) (?P<most_ms>\\S+) (?P<misses>\\d+)'
"""


@pytest.mark.parametrize(
    ("measure", "order", "words"),
    [
        (SAMPLES, BenchOrder(9, 2, 2.5), "told 6 of 9 executions"),
        (SAMPLES.split("  co_load")[0], BenchOrder(4, 2, 2.5, "stream:1"), "no 'co_load:'"),
        ("", BenchOrder(4, 2, 2.5, "stream:1"), "neither 'measure:' nor"),
        (FIGURES.format(said="n=9 5 4 6 7 0"), BenchOrder(9, 0, 2.5), "contradict one another"),
        (FIGURES.format(said="nothing"), BenchOrder(9, 0, 2.5), "match nothing"),
    ],
)
def test_what_is_not_told_is_not_made_up(
    built: tuple[Site, Compiled], measure: str, order: BenchOrder, words: str
) -> None:
    with pytest.raises(PlaceUnavailableError) as caught:
        measured(*built, measure, order)
    assert words in str(caught.value)


def test_figures_that_the_program_has_computed(built: tuple[Site, Compiled]) -> None:
    from nwmctl.domain.measurement import Latency

    found = measured(*built, FIGURES.format(said="n=900 4.5 5 6 7.25 1"), BenchOrder(900, 0, 7.0))
    assert isinstance(found, Latency)
    assert (found.n, found.p999_ms, found.most_ms, found.misses) == (900, 6.0, 7.25, 1)
