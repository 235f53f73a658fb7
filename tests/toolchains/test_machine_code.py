"""Machine code in an IREE payload: whole, alone, launched as before, and the same from any folder."""

from __future__ import annotations

import dataclasses
import shutil
import struct
import subprocess
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nwmctl.domain.artifact import Option, Precision, Recipe
from nwmctl.domain.evidence import Verdict
from nwmctl.domain.figure import Obtained
from nwmctl.errors import (
    AssemblyFailedError,
    CompileFailedError,
    InspectionFailedError,
    MachineCodeMissingError,
    RecipeOptionError,
    ToolchainMissingError,
)
from nwmctl.toolchains import machine_code, ptxas
from nwmctl.toolchains.cubin import read_cubin
from nwmctl.toolchains.cuda_images import read_executables
from nwmctl.toolchains.files import packaged_program
from nwmctl.toolchains.inspect_ptx import inspect_ptx
from nwmctl.toolchains.inspect_sass import inspect_sass
from nwmctl.toolchains.inspection import Inspection
from nwmctl.toolchains.iree import Iree
from nwmctl.toolchains.iree_options import plan
from nwmctl.toolchains.machine_code import CudaBuild, MachineCode, build_machine_code, padded, proven
from nwmctl.toolchains.process import Limits
from nwmctl.toolchains.protocol import Compiled
from nwmctl.validation.instruction_set import check_instruction_set
from tests.real import require_program, require_real
from tests.toolchains.models import TOKENS, WIDTH, request
from tests.validation import plant

FLAGS = (
    "--iree-opt-level=O3",
    "--iree-flow-inline-constants-max-byte-length=64",
    "--iree-hal-target-device=cuda",
    "--iree-cuda-target=sm_87",
)


@dataclass(frozen=True)
class Built:
    """A build, what it says it made, and its folder."""

    build: CudaBuild
    said: MachineCode

    @property
    def payload(self) -> bytes:
        return self.build.payload.read_bytes()

    @property
    def plain(self) -> bytes:
        """The same program with PTX in it."""
        return (self.build.scratch / "model-ptx.vmfb").read_bytes()


def order(graph: Path, folder: Path, flags: tuple[str, ...] = FLAGS) -> CudaBuild:
    folder.mkdir(parents=True)
    shutil.copyfile(graph, folder / "model.mlir")
    compiler = packaged_program("iree.compiler", "_mlir_libs/iree-compile")
    assert compiler is not None
    return CudaBuild(compiler, "model.mlir", folder / "model.vmfb", flags, "sm_87", Limits(120))


@pytest.fixture(scope="module")
def graph(gpu_fp16: Compiled) -> Path:
    require_real("ptxas", not ptxas.missing(), ptxas.INSTALL)
    return gpu_fp16.payload.parent / "model.mlir"


@pytest.fixture(scope="module")
def built(graph: Path, tmp_path_factory: pytest.TempPathFactory) -> Built:
    build = order(graph, tmp_path_factory.mktemp("sass") / "s")
    return Built(build, build_machine_code(build))


# --- what the artifact carries ------------------------------------------------------------------------------------


def test_every_cubin_lies_whole_in_the_payload_and_no_ptx_does(built: Built) -> None:
    payload = built.payload
    assert built.said.cubins
    for cubin in built.said.cubins:
        assert cubin in payload
        assert read_cubin(cubin).chip == "sm_87"
    assert b".target sm_" not in payload
    assert b".version " not in payload
    assert b".target sm_87" in built.plain, "the search would find PTX if there were any"


@pytest.mark.long
def test_the_compiler_s_own_switch_changes_nothing(graph: Path, built: Built, gpu_fp16: Compiled) -> None:
    """Why the other road is taken. When this fails, the compiler has learnt it: make it simpler then."""
    from nwmctl.toolchains.process import Command, run_tool

    switch = ("--iree-cuda-use-ptxas", f"--iree-cuda-use-ptxas-from={ptxas.program()}")
    argv = (str(built.build.compiler), "model.mlir", "-o", "switched.vmfb", *FLAGS, *switch)
    run_tool(Command("iree-compile", argv, graph.parent, Limits(120)))
    assert (graph.parent / "switched.vmfb").read_bytes() == gpu_fp16.payload.read_bytes()


def test_every_kernel_is_launched_from_its_own_image_as_before(built: Built) -> None:
    before, after = read_executables(built.plain), read_executables(built.payload)
    assert [each.launches for each in before] == [each.launches for each in after]
    for executable in after:
        for launch in executable.launches:
            assert launch.name in read_cubin(executable.images[launch.image]).kernels
            assert 0 < launch.block[0] * launch.block[1] * launch.block[2] <= 1024
    assert all(start % 8 == 0 for executable in after for start in executable.starts)


def test_the_tensor_cores_survive_the_assembler(built: Built) -> None:
    texts = [image.decode() for executable in read_executables(built.plain) for image in executable.images]
    promised, _ = inspect_ptx("\n".join(texts))
    found, chip = inspect_sass(built.said.cubins)
    assert chip == "sm_87"
    assert found.precision is promised.precision is Precision.FP16
    assert found.found["kernels"] == promised.found["kernels"] == len(built.said.kernels)
    tensor = sum(count for name, count in found.found.items() if name.startswith("HMMA"))
    assert tensor == sum(count for name, count in promised.found.items() if name.startswith("mma"))
    assert tensor > 0


def test_the_same_bytes_from_another_folder(built: Built, graph: Path, tmp_path: Path) -> None:
    build = order(graph, tmp_path / "elsewhere" / "deep")
    said = build_machine_code(build)
    assert build.payload.read_bytes() == built.payload
    assert said == built.said
    assert str(tmp_path).encode() not in built.payload
    assert not any(str(tmp_path) in word or word.startswith("/") for word in said.argv)


def test_the_commands_are_told_as_they_ran(built: Built) -> None:
    commands = " ".join(built.said.argv).split(" && ")
    assert [command.split()[0] for command in commands] == ["iree-compile", "iree-compile", "ptxas", "iree-compile"]
    assert built.said.assembler == ptxas.version()
    assert all(Counter(command.split())["--iree-cuda-target=sm_87"] == 1 for command in commands if "iree" in command)


# --- the recipe's option ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def compiled(iree: Iree, model: Path, graph: Path, tmp_path_factory: pytest.TempPathFactory) -> Compiled:
    """The same model by way of a recipe, for a fleet whose driver is not known."""
    ask = request(model, tmp_path_factory.mktemp("recipe") / "s", "iree", Precision.FP16, "gpu", machine_code=True)
    return iree.compile(dataclasses.replace(ask, driver=""))


def test_the_manifest_says_what_is_carried_and_what_loads_it(compiled: Compiled, built: Built) -> None:
    manifest = compiled.manifest
    assert compiled.payload.read_bytes() == built.payload
    assert not manifest.jit_in_vehicle
    assert manifest.instruction_set == "sm_87"
    assert manifest.needs.driver == ">= CUDA 12, sm_87"
    assert manifest.toolchain_version.startswith(f"ptxas {ptxas.version()}, iree-base-compiler ")
    assert manifest.sources["ptxas"] == ptxas.program_digest()
    assert manifest.argv == built.said.argv
    assert manifest.found_precision is Precision.FP16
    assert manifest.found["HMMA.16816.F32"] > 0
    assert manifest.found["ptxas"] == manifest.found["kernels"] == len(built.said.kernels)
    assert any("for sm_87 and no other chip" in note and "none spills" in note for note in manifest.notes)
    assert not any("compiles it further" in note for note in manifest.notes)


def test_numerics_are_seen_in_the_same_host_twin_as_with_ptx(compiled: Compiled, gpu_fp16: Compiled) -> None:
    assert compiled.twin is not None
    assert gpu_fp16.twin is not None
    assert compiled.twin.payload.read_bytes() == gpu_fp16.twin.payload.read_bytes()


def test_ptx_is_shown_to_the_assembler_and_stays_for_a_driver(gpu_fp16: Compiled, graph: Path) -> None:
    manifest = gpu_fp16.manifest
    assert manifest.jit_in_vehicle
    assert manifest.found["ptxas"] == manifest.found["kernels"]
    assert any(f"ptxas {ptxas.version()} takes it for sm_87" in note for note in manifest.notes)


def test_without_an_assembler_ptx_is_built_and_machine_code_is_not(
    iree: Iree, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = iree.fingerprint(Recipe("iree", Precision.FP16))
    monkeypatch.setattr(ptxas, "packaged_program", lambda package, inside: None)
    assert iree.fingerprint(Recipe("iree", Precision.FP16)) != before
    inspection = Inspection({"mma": 3}, Precision.FP16)
    seen = ptxas.checked(inspection, [tmp_path / "k.ptx"], "sm_87", tmp_path, Limits())
    assert (seen.found, seen.precision) == (inspection.found, inspection.precision)
    assert any("no assembler has seen it" in note for note in seen.notes)
    with pytest.raises(ToolchainMissingError) as caught:
        iree.compile(request(model, tmp_path / "s", "iree", Precision.FP16, "gpu", machine_code=True))
    assert "nwmctl[ptxas]" in caught.value.next


@pytest.mark.parametrize(("unit", "value"), [("gpu", "yes"), ("cpu", True), ("host", True)])
def test_the_option_is_for_the_gpu_and_true_or_false(unit: str, value: str | bool) -> None:
    cpu: dict[str, Option] = {"cpu": "cortex-a78ae"} if unit == "cpu" else {}
    with pytest.raises(RecipeOptionError, match="machine_code"):
        plan(Recipe("iree", Precision.FP32, {**cpu, "machine_code": value}), unit)


@pytest.mark.parametrize("precision", [Precision.FP16, Precision.FP32])
def test_the_instruction_set_is_obtained_from_the_assembler(
    compiled: Compiled, gpu_fp16: Compiled, precision: Precision
) -> None:
    profile = plant.profile(unit="gpu")
    chip = dataclasses.replace(profile.chips[0], instruction_sets=("sm_87",))
    for manifest in (compiled.manifest, gpu_fp16.manifest):
        asked = dataclasses.replace(manifest, recipe=dataclasses.replace(manifest.recipe, precision=precision))
        result = check_instruction_set(asked, profile.variants[0].builds[0], chip, ran_on_chip=False)
        assert result.obtained is Obtained.ASSEMBLED
        assert (result.verdict is Verdict.PASSED) == (precision is Precision.FP16)
        assert {f.name: f.value for f in result.figures}["tensor_core_instructions"] > 0


# --- what the runtime in the vehicle makes of it ------------------------------------------------------------------


@dataclass(frozen=True)
class Seen:
    """What a driver is handed: images in their order, where they lie, and launches with their sizes."""

    images: list[bytes]
    alignment: set[int]
    launches: list[str]


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a driver that executes nothing and writes down what the real runtime asks of it."""
    folder = tmp_path_factory.mktemp("driver")
    source = Path(__file__).with_name("recording_driver.c")
    argv = [
        require_program("gcc", "gcc"),
        "-shared",
        "-fPIC",
        "-w",
        "-o",
        str(folder / "libcuda.so"),
        str(source),
        "-ldl",
    ]
    subprocess.run(argv, check=True, timeout=60)
    shutil.copyfile(folder / "libcuda.so", folder / "libcuda.so.1")
    return folder


def loaded(payload: Path, driver: Path, folder: Path) -> Seen:
    program = packaged_program("iree._runtime_libs", "iree-run-module")
    require_real("iree-run-module", program is not None, "pip install 'nwmctl[iree]'")
    folder.mkdir()
    inputs = [f"--input=1x{shape}xf32=1" for shape in (f"{TOKENS}x{WIDTH}", "1")]
    argv = [str(program), "--device=cuda", f"--module={payload}", "--function=model", *inputs]
    environment = {"LD_LIBRARY_PATH": str(driver), "RECORDING": str(folder), "HOME": str(folder)}
    ended = subprocess.run(argv, env=environment, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 0, ended.stderr[-2000:]
    calls = (folder / "calls").read_text().splitlines()
    images = [line.split() for line in calls if line.startswith("image")]
    return Seen(
        [(folder / name).read_bytes() for _, name, _, _ in images],
        {int(at) for *_, at in images},
        [line for line in calls if line.startswith("launch")],
    )


def test_the_real_runtime_hands_the_machine_code_to_the_driver_and_launches_as_with_ptx(
    built: Built, gpu_fp16: Compiled, driver: Path, tmp_path: Path
) -> None:
    """The runtime of the vehicle is real here and the GPU is not: what it is handed is seen, and nothing executes."""
    ptx = loaded(gpu_fp16.payload, driver, tmp_path / "ptx")
    code = loaded(built.build.payload, driver, tmp_path / "code")
    assert all(image.startswith(b"//") for image in ptx.images), "the driver would compile text"
    assert Counter(code.images) == Counter(built.said.cubins), "every cubin, to its last byte, and nothing else"
    assert code.alignment == {0}
    assert code.launches == ptx.launches
    assert len(code.launches) >= len(built.said.kernels) > 0


# --- what it must not get away with -------------------------------------------------------------------------------


def made(built: Built) -> dict[bytes, bytes]:
    images = [image for executable in read_executables(built.plain) for image in executable.images]
    return dict(zip(images, built.said.cubins, strict=True))


def test_a_payload_is_proven_again_from_its_bytes(built: Built) -> None:
    assert proven(built.payload, read_executables(built.plain), made(built)) == built.said.cubins


def test_ptx_that_stayed_is_noticed(built: Built) -> None:
    with pytest.raises(MachineCodeMissingError, match="does not carry") as caught:
        proven(built.plain, read_executables(built.plain), made(built))
    assert "PTX text left" in caught.value.why


def test_one_changed_byte_of_the_code_is_noticed(built: Built) -> None:
    cubin = built.said.cubins[0]
    at = built.payload.index(cubin) + len(cubin) // 2
    spoilt = built.payload[:at] + bytes([built.payload[at] ^ 1]) + built.payload[at + 1 :]
    with pytest.raises(MachineCodeMissingError) as caught:
        proven(spoilt, read_executables(built.plain), made(built))
    assert "not what the assembler made" in caught.value.why


def test_code_of_another_kernel_is_noticed(built: Built) -> None:
    """Two kernels' machine code changed places: each is whole, and neither is where it belongs."""
    texts = made(built)
    first, second, *_ = texts
    swapped = {**texts, first: texts[second], second: texts[first]}
    with pytest.raises(MachineCodeMissingError):
        proven(built.payload, read_executables(built.plain), swapped)


def test_a_launch_that_changed_is_noticed(built: Built) -> None:
    name = read_executables(built.payload)[0].launches[0].name.encode()
    other = built.payload.replace(struct.pack("<I", len(name)) + name, struct.pack("<I", len(name)) + name[::-1])
    with pytest.raises(MachineCodeMissingError) as caught:
        proven(other, read_executables(built.plain), made(built))
    assert "launched in another way" in caught.value.why


@pytest.mark.long
def test_a_compiler_that_ignores_the_machine_code_is_found_out(
    graph: Path, built: Built, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It exits 0 and puts its own PTX into the payload, as today's does with the switch that it has for this."""
    real = machine_code._compile

    def deaf(build: CudaBuild, arguments: tuple[str, ...]) -> None:
        real(build, tuple(word for word in arguments if "substitute" not in word))

    monkeypatch.setattr(machine_code, "_compile", deaf)
    monkeypatch.setattr(ptxas, "assemble_all", lambda *_: tuple(ptxas.Assembled(c, ()) for c in built.said.cubins))
    with pytest.raises(MachineCodeMissingError):
        build_machine_code(order(graph, tmp_path / "s"))


def test_the_assembler_s_refusal_is_handed_on(graph: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ptxas, "FLAGS", ("-v", "--maxrregcount=nonsense"))
    with pytest.raises(AssemblyFailedError) as caught:
        build_machine_code(order(graph, tmp_path / "s"))
    assert "maxrregcount" in caught.value.why


@pytest.mark.long
def test_a_flag_that_the_compiler_does_not_know(graph: Path, tmp_path: Path) -> None:
    with pytest.raises(CompileFailedError) as caught:
        build_machine_code(order(graph, tmp_path / "s", (*FLAGS, "--no-such-flag")))
    assert "no-such-flag" in caught.value.why


# --- bytes --------------------------------------------------------------------------------------------------------


@given(st.binary(max_size=64))
def test_zeros_after_the_end_make_the_start_even(cubin: bytes) -> None:
    whole = padded(cubin)
    assert whole.startswith(cubin)
    assert not whole[len(cubin) :].strip(b"\0")
    assert (len(whole) + 4) % 8 == 0
    assert len(whole) - len(cubin) < 8


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_a_damaged_payload_is_refused_or_read_and_never_crashes(built: Built, data: st.DataObject) -> None:
    payload = bytearray(built.payload)
    begin = payload.index(b"CDA1")
    for _ in range(data.draw(st.integers(1, 5))):
        payload[data.draw(st.integers(begin, len(payload) - 1))] = data.draw(st.sampled_from([0, 1, 4, 127, 128, 255]))
    cut = data.draw(st.just(len(payload)) | st.integers(0, len(payload)))
    try:
        executables = read_executables(bytes(payload[:cut]))
    except InspectionFailedError:
        return
    assert all(executable.images for executable in executables)


@given(st.binary(max_size=300))
def test_bytes_without_an_executable_are_refused(noise: bytes) -> None:
    for each in (noise, b"CDA1" + bytes(60) + noise, b"CDA1" + bytes(4) + struct.pack("<Q", len(noise)) + bytes(48)):
        with pytest.raises(InspectionFailedError):
            read_executables(each)
