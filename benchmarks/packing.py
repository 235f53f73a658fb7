"""What it costs to put 500 MB of fp16 weights into a signed container, beside other packers on the same bytes.

``python -m benchmarks.packing`` writes its section into ``benchmarks/RESULTS-trust.md``. Every case is a process of
its own, several times; the cheapest counts. CPU seconds (user and system, threads and children) and peak memory are
the kernel's; our own cases and the floors leave out Python's start, which stands in a row of its own.

Weights are drawn from a normal distribution with a fixed seed and rounded to fp16: such bytes hardly compress, as real
weights do not. The signature over the description takes milliseconds and is left out everywhere.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import mmap
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.results import write_section

RESULTS = Path(__file__).with_name("RESULTS-trust.md")
TITLE = "Packing: 500 MB of fp16 weights into a bundle"
MB = 1_000_000
HASHED = """The rows of nwmctl and the floors leave out Python's start (last row) and one small case before, in which
everything is imported; the other programs' rows are the whole process. Wall time and memory are the whole process's
everywhere.

What is hashed: `zstd, all hashes` computes sha256 of the plain bytes, of the packed member and of the whole bundle,
with one reading of the payload. `zstd, payload known from the store` leaves out the first, as the bundle step does for
what the content store has hashed in the same process. `storing` computes that of the whole bundle, the member's being
known from the store, which names its files by it; `members hashed again` adds one more, for files from elsewhere. The
members' digests stand in front of them in the archive, so packed bytes are written to a spool and copied from there:
one more writing and one more reading of them, which the figures contain and the floors do not.

A floor is one loop over one buffer, with the same library calls and neither format nor threads: nothing that hashes
and compresses with these libraries can take less. nwmctl writes bundles and spool past the page cache (`O_DIRECT`),
and so do the floors; the other programs write through it, where a fresh page costs a virtual machine more than another
one. While others use the machine, two runs of one case lie up to a fifth apart, floors as well: see the load above."""
_KEY = bytes(range(32))
_MIB = 1 << 20


@dataclass(frozen=True)
class Taken:
    """What one case took. ``size`` in bytes of the container; ``why`` where it did not run."""

    name: str
    cpu_s: float = 0.0
    wall_s: float = 0.0
    peak_mb: float = 0.0
    size: int = 0
    why: str = ""


def weights(path: Path, size: int) -> None:
    """``size`` bytes of fp16 numbers."""
    import numpy as np

    generator = np.random.default_rng(2026)
    with path.open("wb") as file:
        left = size
        while left:
            count = min(left, 16 * MB) // 2
            file.write((generator.standard_normal(count, dtype=np.float32) * 0.02).astype(np.float16).tobytes())
            left -= count * 2


def own(case: str, source: Path, digest: str, out: Path) -> None:
    """One of our own cases, in this process."""
    from nwmctl.bundling.bundle import BundlePlan
    from nwmctl.bundling.pack import PackingOrder, PayloadFile, pack_payload
    from nwmctl.bundling.write import write_bundle
    from nwmctl.domain.bundle import BundleKind, BundleManifest
    from nwmctl.domain.digest import Digest, digest_bytes
    from nwmctl.domain.packing import Compression
    from nwmctl.formats.swu import InstalledFile, SwDescription
    from nwmctl.trust.payload_key import PayloadKey

    compression = Compression.NONE if "storing" in case else Compression.ZSTD
    order = PackingOrder(compression, PayloadKey(_KEY) if "AES" in case else None)
    plain = Digest(digest)
    spool = out.parent / "spool"
    spool.mkdir()
    payload = PayloadFile("weights.bin", plain, source.stat().st_size, source)
    packing = pack_payload(payload, order, spool, proven="known" in case)
    file = InstalledFile("weights.bin", plain, packing)
    description = SwDescription("bench", 1, "b", ("r1",), "/a", "/b", (file,))
    manifest = BundleManifest(
        "bench", BundleKind.RELEASE, 1, "p", "b", ("r1",), plain, "1", digest_bytes(b""), (), (), virtual_only=True
    )
    plan = BundlePlan(manifest, description, {}, {"weights.bin": plain})

    def find(wanted: Digest) -> Path:
        return source if wanted == plain else spool / wanted.hex

    # The parts were hashed while they were spooled; a payload that is stored was when it came into the store.
    write_bundle(plan, bytes(2000), find, out, proven="again" not in case)


@dataclass(frozen=True)
class Floor:
    """What a loop does with every byte: sha256 of plain and packed bytes so many times, zstd -1, one writing."""

    plain: int = 0
    compress: bool = False
    packed: int = 0
    write: bool = False


def floor(case: str, source: Path, out: Path) -> None:
    """What nothing can be cheaper than, in Python: the same calls without a format."""
    import zstandard

    kind = FLOORS[case]
    plain = [hashlib.sha256() for _ in range(kind.plain)]
    packed = [hashlib.sha256() for _ in range(kind.packed)]
    frame = zstandard.ZstdCompressor(level=1).compressobj(size=source.stat().st_size)
    buffer, full = memoryview(mmap.mmap(-1, _MIB)), memoryview(mmap.mmap(-1, _MIB))
    filled = 0
    # Blocks of zstd's size: larger pieces do not stay in the core's cache.
    step = _MIB // 8 if kind.compress else _MIB
    with source.open("rb", buffering=0) as file, _Target(out if kind.write else None) as target:
        while size := file.readinto(buffer[:step]):
            for state in plain:
                state.update(buffer[:size])
            if not kind.compress:
                target.write(buffer[:size])
                continue
            piece = memoryview(frame.compress(buffer[:size]))
            for state in packed:
                state.update(piece)
            while kind.write and piece:
                room = min(len(piece), _MIB - filled)
                full[filled : filled + room], piece, filled = piece[:room], piece[room:], filled + room
                if filled == _MIB:
                    target.write(full)
                    filled = 0
        target.write(full[:filled])


class _Target:
    """A file that is written past the page cache where that is possible, or none."""

    def __init__(self, path: Path | None) -> None:
        self._path = path

    def __enter__(self) -> _Target:
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
        if self._path:
            try:
                self._handle = os.open(self._path, flags | os.O_DIRECT, 0o644)
            except OSError:
                self._handle = os.open(self._path, flags, 0o644)
        return self

    def write(self, data: memoryview) -> None:
        """A whole buffer, or less at the end."""
        if not self._path:
            return
        if len(data) % 4096:
            fcntl.fcntl(self._handle, fcntl.F_SETFL, fcntl.fcntl(self._handle, fcntl.F_GETFL) & ~os.O_DIRECT)
        while data:
            data = data[os.write(self._handle, data) :]

    def __exit__(self, *problem: object) -> None:
        if self._path:
            os.fsync(self._handle)
            os.close(self._handle)


def _mender(source: Path, out: Path) -> list[str]:
    return [
        "mender-artifact", "write", "module-image", "--type", "files", "--artifact-name", "bench", "--device-type", "b",
        "--compression", "none", "--file", str(source), "--output-path", str(out),
    ]  # fmt: skip


def _tar(source: Path, out: Path) -> list[str]:
    return ["tar", "--use-compress-program=zstd -1 -T1", "-cf", str(out), "-C", str(source.parent), source.name]


def _swugenerator(source: Path, out: Path) -> list[str]:
    folder = out.parent / "swugenerator"
    folder.mkdir()
    text = 'software = { version = "1"; files: ({ filename = "%s"; path = "/a/w"; compressed = "zstd"; }); };'
    (folder / "sw-description").write_text(text % source.name)
    return ["swugenerator", "-s", str(folder / "sw-description"), "-a", str(source.parent), "-o", str(out), "create"]


def _rauc(source: Path, out: Path) -> list[str]:
    folder = out.parent / "rauc"
    folder.mkdir()
    os.link(source, folder / "weights.bin")
    manifest = "[update]\ncompatible=b\nversion=1\n[bundle]\nformat=%s\n[image.app]\nfilename=weights.bin\n"
    (folder / "manifest.raucm").write_text(manifest % "verity")
    key, certificate = folder.parent / "key.pem", folder.parent / "cert.pem"
    order = ["openssl", "req", "-x509", "-newkey", "rsa:3072", "-nodes", "-subj", "/CN=bench", "-days", "9"]
    subprocess.run([*order, "-keyout", str(key), "-out", str(certificate)], check=True, capture_output=True)
    return ["rauc", f"--cert={certificate}", f"--key={key}", "bundle", str(folder), str(out)]


PEERS: dict[str, Callable[[Path, Path], list[str]]] = {
    "mender-artifact (no compression)": _mender,
    "rauc (verity, squashfs)": _rauc,
    "swugenerator (zstd)": _swugenerator,
    "tar --zstd (level 1, no hash)": _tar,
}
OWN = (
    "nwmctl: storing",
    "nwmctl: storing, members hashed again",
    "nwmctl: zstd, all hashes",
    "nwmctl: zstd, payload known from the store",
    "nwmctl: zstd + AES, all hashes",
)
START = "start of Python with our imports"
STORING_FLOOR = "floor: read + 1x sha256 + write"
ZSTD_FLOOR = "floor: read + zstd -1 + 3x sha256 + write"
FLOORS = {
    "floor: read + 1x sha256": Floor(plain=1),
    "floor: read + zstd -1": Floor(compress=True),
    STORING_FLOOR: Floor(plain=1, write=True),
    ZSTD_FLOOR: Floor(plain=1, compress=True, packed=2, write=True),
}
GOALS = {
    "nwmctl: zstd, all hashes": (400.0, ZSTD_FLOOR),
    "nwmctl: storing": (1000.0, STORING_FLOOR),
}
MARK = "cpu seconds: "


def in_python(name: str, source: Path, digest: str, out: Path) -> None:
    """One case in this process; says the CPU seconds behind the start."""
    # A first small case imports what the case needs.
    with tempfile.TemporaryDirectory(dir=out.parent) as folder:
        small = Path(folder) / "weights.bin"
        small.write_bytes(b"1")
        one_case("nwmctl: zstd, all hashes" if name == START else name, small, hashlib.sha256(b"1").hexdigest(), small)
    began = 0.0 if name == START else time.process_time()
    if name != START:
        one_case(name, source, digest, out)
    sys.stdout.write(f"{MARK}{time.process_time() - began}\n")


def one_case(name: str, source: Path, digest: str, out: Path) -> None:
    """One of our own cases, or a floor. Writes beside ``out``."""
    if name in FLOORS:
        floor(name, source, out.with_suffix(".out"))
    else:
        own(name, source, digest, out.with_suffix(".swu"))


def measure(name: str, order: list[str], out: Path) -> Taken:
    """Run a process and wait for what the kernel says about it and its children."""
    began = time.monotonic()
    with tempfile.TemporaryFile() as talk:
        process = subprocess.Popen(order, stdout=talk, stderr=subprocess.STDOUT)
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        talk.seek(0)
        said = talk.read()[-300:].decode(errors="replace").strip()
    if process.returncode:
        return Taken(name, why=f"not_run: it ended with {process.returncode}: {said}")
    size = out.stat().st_size if out.exists() else 0
    cpu = float(said.rpartition(MARK)[2]) if MARK in said else used.ru_utime + used.ru_stime
    return Taken(name, cpu, time.monotonic() - began, used.ru_maxrss / 1024, size)


def run(name: str, source: Path, digest: str, folder: Path) -> Taken:
    """One case in a folder of its own, which is removed afterwards."""
    with tempfile.TemporaryDirectory(dir=folder) as work:
        out = Path(work) / "out.swu"
        if name in PEERS:
            program = name.partition(" ")[0]
            if not shutil.which(program):
                return Taken(name, why=f"not_run: `{program}` is not installed here")
            return measure(name, PEERS[name](source, out), out)
        order = [sys.executable, "-m", "benchmarks.packing", "--case", name, str(source), digest, str(out)]
        return measure(name, order, out)


def cheapest(name: str, source: Path, digest: str, folder: Path, times: int) -> Taken:
    """The case's run with the fewest CPU seconds: other work on the machine only ever adds some."""
    runs = [run(name, source, digest, folder)]
    # What takes minutes is not repeated: nothing that slow is decided by a few percent.
    while len(runs) < times and runs[0].cpu_s < 10:
        runs.append(run(name, source, digest, folder))
    return min(runs, key=lambda one: (bool(one.why), one.cpu_s))


def table(found: list[Taken], size: int) -> str:
    """The section's text."""
    about = (
        f"{size / MB:.0f} MB of fp16 weights (seed 2026), the source in the page cache, {platform.machine()}, "
        f"{os.cpu_count()} cores, Python {platform.python_version()}, load {os.getloadavg()[0]:.1f} at the end. "
        "Figures are `measured`; "
        "MB per CPU-second counts plain bytes. Peak memory is the whole process's: what packing adds is the difference "
        "to the last row."
    )
    lines = [about, "", "| case | CPU s | MB/CPU-s | wall s | peak MB | size |", "|---|---|---|---|---|---|"]
    for one in found:
        if one.why:
            lines.append(f"| {one.name} | {one.why.splitlines()[0][:120]} | | | | |")
            continue
        share = f"{100 * one.size / size:.1f} %" if one.size else "-"
        rate = size / MB / one.cpu_s
        lines.append(f"| {one.name} | {one.cpu_s:.2f} | {rate:.0f} | {one.wall_s:.2f} | {one.peak_mb:.0f} | {share} |")
    lines.append("")
    return "\n".join([*lines, *goals({one.name: one for one in found if not one.why}, size), "", HASHED])


def goals(found: dict[str, Taken], size: int) -> list[str]:
    """A sentence for each goal: what was reached, and how near that is to what these libraries can do here."""
    lines = []
    for name, (goal, least) in GOALS.items():
        if name not in found or least not in found:
            continue
        rate, best = size / MB / found[name].cpu_s, size / MB / found[least].cpu_s
        verdict = "reached" if rate >= goal else "MISSED"
        reach = ", so the goal is out of reach here" if best < goal else ""
        lines.append(
            f"- Goal {name}: at least {goal:.0f} MB per CPU-second: {rate:.0f}, {verdict}. The floor on this processor "
            f"is {best:.0f}{reach}; ours takes {best / rate:.2f} times the floor's CPU time."
        )
    return lines


def main() -> None:
    """Run one case, or all and write the section."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--mb", type=int, default=500)
    parser.add_argument("--times", type=int, default=5)
    parser.add_argument("--case", nargs=4)
    parser.add_argument("--print", action="store_true", help="Print the section, write nothing.")
    chosen = parser.parse_args()
    if chosen.case:
        name, source, digest, out = chosen.case
        in_python(name, Path(source), digest, Path(out))
        return
    with tempfile.TemporaryDirectory(prefix="packing-") as folder:
        source = Path(folder) / "weights.bin"
        size = chosen.mb * MB
        # In a process of its own: children inherit the peak of whoever starts them.
        made = f"from benchmarks.packing import *; weights(Path({str(source)!r}), {size})"
        subprocess.run([sys.executable, "-c", made], check=True)
        with source.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        found = [cheapest(name, source, digest, Path(folder), chosen.times) for name in (*OWN, *PEERS, *FLOORS, START)]
    text = table(found, size)
    sys.stdout.write(text + "\n")
    if not chosen.print:
        write_section(TITLE, "python -m benchmarks.packing", text, RESULTS)


if __name__ == "__main__":
    main()
