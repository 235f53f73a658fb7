"""The assembler: its words, its figures, the same bytes from any folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from nwmctl.errors import AssemblyFailedError, InspectionFailedError, ToolchainMissingError, ToolchainTimeoutError
from nwmctl.toolchains import ptxas
from nwmctl.toolchains.cubin import read_cubin
from nwmctl.toolchains.process import Limits
from tests.real import require_real
from tests.toolchains.kernels import PLAIN, TENSOR, source

LIMITS = Limits(60)


@pytest.fixture(autouse=True)
def real() -> None:
    require_real("ptxas", not ptxas.missing(), ptxas.INSTALL)


def written(folder: Path, name: str, *kinds: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    bodies = {kind.replace(".", "_"): {**PLAIN, **TENSOR}[kind] for kind in kinds}
    (folder / name).write_text(source(bodies), "utf-8")
    return folder / name


def test_the_program_states_the_version_that_its_package_has(tmp_path: Path) -> None:
    assert ptxas.stated_version(tmp_path, LIMITS) == ptxas.version()
    assert ptxas.version().startswith("12.")


def test_another_program_under_the_package_s_name_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ptxas, "version_of", lambda package: "12.8.93")
    with pytest.raises(AssemblyFailedError, match="not the one that its package names") as caught:
        ptxas.stated_version(tmp_path, LIMITS)
    assert "12.8.93" in caught.value.why


def test_the_same_bytes_from_another_folder_and_file_name(tmp_path: Path) -> None:
    first = ptxas.assemble(written(tmp_path / "a", "one.ptx", "FFMA", "HMMA.16816.F32"), "sm_87", tmp_path, LIMITS)
    elsewhere = tmp_path / "b" / "deeper"
    again = ptxas.assemble(written(elsewhere, "two.ptx", "FFMA", "HMMA.16816.F32"), "sm_87", elsewhere, LIMITS)
    assert again == first
    assert read_cubin(first.cubin).kernels == ("FFMA", "HMMA_16816_F32")
    assert str(tmp_path).encode() not in first.cubin


def test_every_kernel_s_figures(tmp_path: Path) -> None:
    kernels = ptxas.assemble(written(tmp_path, "k.ptx", "FFMA", "LDSM"), "sm_87", tmp_path, LIMITS).kernels
    assert [kernel.name for kernel in kernels] == ["FFMA", "LDSM"]
    assert all(8 <= kernel.registers <= 255 for kernel in kernels)
    assert [kernel.shared for kernel in kernels] == [0, 4096]
    assert "2 kernels" in ptxas.summary(kernels)
    assert "none spills registers" in ptxas.summary(kernels)


def test_spilled_registers_are_told(tmp_path: Path) -> None:
    path = written(tmp_path, "k.ptx", "FFMA")
    many = 60
    regs = f".reg .b32 %z<{many}>;" + "".join(f"ld.volatile.global.b32 %z{i},[%p];" for i in range(many))
    body = "{" + regs + "".join(f"st.volatile.global.b32 [%q],%z{i};" for i in range(many)) + "}"
    path.write_text(source({"k": body}).replace("){", ") .maxnreg 24 {", 1), "utf-8")
    (kernel,) = ptxas.assemble(path, "sm_87", tmp_path, LIMITS).kernels
    assert kernel.registers <= 24
    assert kernel.spill_stores > 0
    assert kernel.spill_loads > 0
    assert kernel.stack > 0
    assert "1 spill registers (k first)" in ptxas.summary([kernel])


def test_a_refusal_is_in_the_assembler_s_words(tmp_path: Path) -> None:
    path = written(tmp_path, "k.ptx", "FFMA")
    path.write_text(path.read_text("utf-8").replace("fma.rn.f32", "fma.rn.f33"), "utf-8")
    with pytest.raises(AssemblyFailedError, match="exit status") as caught:
        ptxas.assemble(path, "sm_87", tmp_path, LIMITS)
    assert "f33" in caught.value.why


def test_an_instruction_that_the_chip_lacks_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "k.ptx"
    path.write_text(source({"k": TENSOR["HMMA.16816.F32"]}, "sm_70"), "utf-8")
    with pytest.raises(AssemblyFailedError) as caught:
        ptxas.assemble(path, "sm_70", tmp_path, LIMITS)
    assert "sm_80" in caught.value.why


def test_results_come_in_the_order_of_the_files(tmp_path: Path) -> None:
    kinds = [*TENSOR][:6]
    files = [written(tmp_path, f"{number}.ptx", kind) for number, kind in enumerate(kinds)]
    done = ptxas.assemble_all(files, "sm_87", tmp_path, LIMITS)
    assert [each.kernels[0].name for each in done] == [kind.replace(".", "_") for kind in kinds]


def test_a_time_limit_holds(tmp_path: Path) -> None:
    with pytest.raises(ToolchainTimeoutError):
        ptxas.assemble(written(tmp_path, "k.ptx", "FFMA"), "sm_87", tmp_path, Limits(timeout_s=0.001))


def imposter(path: Path, script: str) -> Path:
    path.write_text(f"#!/bin/sh\n{script}\n", "utf-8")
    path.chmod(0o755)
    return path


@pytest.mark.parametrize(
    ("script", "refusal", "said"),
    [
        ("exit 0", AssemblyFailedError, "left no machine code"),
        ("cp kernel.ptx kernel.cubin", InspectionFailedError, "no ELF file"),
        ("echo 'ptxas error : no room' >&2; exit 0", AssemblyFailedError, "no room"),
        ("cp ../other.cubin kernel.cubin", AssemblyFailedError, "speaks of 0 kernels"),
        ("echo \"ptxas info : Compiling entry function 'k' for 'sm_87'\"", AssemblyFailedError, "k"),
    ],
)
def test_an_assembler_that_lies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, refusal: type[Exception], said: str
) -> None:
    other = ptxas.assemble(written(tmp_path, "other.ptx", "FFMA"), "sm_87", tmp_path, LIMITS)
    (tmp_path / "other.cubin").write_bytes(other.cubin)
    monkeypatch.setattr(ptxas, "program", lambda: imposter(tmp_path / "ptxas", script))
    with pytest.raises(refusal) as caught:
        ptxas.assemble(written(tmp_path, "k.ptx", "FFMA"), "sm_87", tmp_path, LIMITS)
    problem = caught.value
    assert said in f"{getattr(problem, 'what', '')} {getattr(problem, 'why', '')}"


def test_without_the_package_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ptxas, "packaged_program", lambda package, inside: None)
    assert "nwmctl[ptxas]" in ptxas.missing()
    assert ptxas.version() == "absent"
    with pytest.raises(ToolchainMissingError) as caught:
        ptxas.program()
    assert "nwmctl[ptxas]" in caught.value.next
