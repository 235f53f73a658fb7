"""The peers of the delta benchmark, each as its users would run it, in a process with a limit on its CPU time.

``python -m benchmarks.delta_peers PEER ACTION OLD IN OUT KIND`` is that process for peers that are Python packages, and
for our own codec; it prints the CPU-seconds of the work itself, without those of starting Python. Programs are measured
whole, as the system counts them; that favours neither, since they start in milliseconds.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

OURS = "nwmctl"
ZSTD_9, ZSTD_19, BSDIFF, XDELTA, DETOOLS = (
    "zstd --patch-from -9",
    "zstd --patch-from -19",
    "bsdiff",
    "xdelta3",
    "detools",
)
BLOSC, BLOCKS = "blosc2 on the subtraction", "4 KiB blocks"
BYTE_LEVEL: Final = (ZSTD_9, ZSTD_19, BSDIFF, XDELTA, DETOOLS, BLOCKS)
QUICK: Final = (OURS, ZSTD_9, BLOSC, BLOCKS)
PEERS: Final = (OURS, *BYTE_LEVEL[:-1], BLOSC, BLOCKS)
_PYTHON: Final = (OURS, DETOOLS, BLOSC, BLOCKS)
_TYPES: Final = {"fp32": "uint32", "fp16": "uint16", "bf16": "uint16"}


@dataclass(frozen=True, slots=True)
class Measured:
    """What a peer did: bytes, CPU-seconds for each direction (None: it has no such direction, or came to no end)."""

    size: int | None
    encode_s: float | None
    decode_s: float | None
    note: str = ""


def absent(peer: str) -> str:
    """Why a peer cannot be measured here; '' if it can."""
    programs = {ZSTD_9: "zstd", ZSTD_19: "zstd", BSDIFF: "bsdiff", XDELTA: "xdelta3"}
    packages = {DETOOLS: "detools", BLOSC: "blosc2"}
    if peer in programs and shutil.which(programs[peer]) is None:
        return f"{programs[peer]} is not installed"
    if peer in packages and find_spec(packages[peer]) is None:
        return f"{packages[peer]} is not installed"
    return ""


def measure(peer: str, old: Path, new: Path, kind: str, folder: Path, limit_s: int, times: int = 1) -> Measured:
    """Run a peer both ways, ``times`` times, the best counts; what it decodes must be the new file."""
    why = absent(peer)
    if why:
        return Measured(None, None, None, f"not_run: {why}")
    patch, back = folder / "patch", folder / "back"
    best: list[float | None] = [None, None]
    for _ in range(times):
        for place in (patch, back):
            place.unlink(missing_ok=True)
        for index, (action, given, out) in enumerate((("encode", new, patch), ("decode", patch, back))):
            if peer == BLOCKS and action == "decode":
                continue
            used = _run(peer, action, old, given, out, kind, limit_s)
            if used is None:
                half = "" if action == "encode" else " to decode"
                return Measured(None, None, None, f"no end within {limit_s} CPU-seconds{half}")
            before = best[index]
            best[index] = used if before is None else min(before, used)
        if peer not in (BLOCKS, BLOSC) and back.read_bytes() != new.read_bytes():
            return Measured(None, None, None, "what it decodes is not the new file")
    size = int(patch.read_text()) if peer == BLOCKS else patch.stat().st_size
    return Measured(size, best[0], best[1])


def _run(peer: str, action: str, old: Path, given: Path, out: Path, kind: str, limit_s: int) -> float | None:
    if peer in _PYTHON:
        arguments = [str(each) for each in (old, given, out)]
        command = [sys.executable, "-m", "benchmarks.delta_peers", peer, action, *arguments, kind]
    else:
        command = _program(peer, action, old, given, out)

    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_CPU, (limit_s, limit_s + 2))

    before = _children()
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "BLOSC_NTHREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, preexec_fn=limited, env=environment, check=False)
    used = _children() - before
    if done.returncode < 0 or used >= limit_s:
        return None
    if done.returncode:
        raise RuntimeError(f"{peer} {action}: {done.stderr[-400:]}")
    return float(done.stdout) if peer in _PYTHON else used


def _children() -> float:
    found = resource.getrusage(resource.RUSAGE_CHILDREN)
    return found.ru_utime + found.ru_stime


def _program(peer: str, action: str, old: Path, given: Path, out: Path) -> list[str]:
    here, there, made = str(old), str(given), str(out)
    if peer in (ZSTD_9, ZSTD_19):
        level = "-9" if peer == ZSTD_9 else "-19"
        way = [level] if action == "encode" else ["-d"]
        return ["zstd", "-q", "-f", "--single-thread", "--long=31", *way, f"--patch-from={here}", there, "-o", made]
    if peer == XDELTA:
        way = ["-e", "-9"] if action == "encode" else ["-d"]
        return ["xdelta3", "-f", *way, "-B", str(1 << 28), "-s", here, there, made]
    return ["bsdiff", here, there, made] if action == "encode" else ["bspatch", here, made, there]


Work = Callable[[Path, Path, Path, str], None]


def _ours(old: Path, given: Path, out: Path, _: str) -> None:
    from nwmctl.bundling.delta_encode import encode_delta

    encode_delta(old, given, out)


def _ours_back(old: Path, given: Path, out: Path, _: str) -> None:
    from nwmctl.vehicle.delta import apply_delta

    apply_delta(old, given, out)


def _detools(old: Path, given: Path, out: Path, _: str) -> None:
    import detools  # type: ignore[import-not-found,unused-ignore]

    with old.open("rb") as before, given.open("rb") as after, out.open("wb") as patch:
        detools.create_patch(before, after, patch, compression="lzma")


def _detools_back(old: Path, given: Path, out: Path, _: str) -> None:
    import detools

    detools.apply_patch_filenames(str(old), str(given), str(out))


def _blosc(old: Path, given: Path, out: Path, kind: str) -> None:
    """Each tensor's bits as integers, minus the old ones, shuffled by bits: what an array library offers."""
    import blosc2  # type: ignore[import-not-found,unused-ignore]
    import numpy as np

    form = np.dtype(_TYPES.get(kind, "uint8"))
    parts = []
    for before, after in _tensors(old, given):
        fit = len(after) % form.itemsize == 0
        type_ = form if fit else np.dtype("uint8")
        difference = np.frombuffer(after, type_) - np.frombuffer(before, type_)
        parts.append(
            blosc2.compress2(
                difference, codec=blosc2.Codec.ZSTD, clevel=5, typesize=type_.itemsize, nthreads=1,
                filters=[blosc2.Filter.BITSHUFFLE],
            )
        )  # fmt: skip
    out.write_bytes(b"".join(parts))
    Path(f"{out}.parts").write_text(json.dumps([len(each) for each in parts]))


def _blosc_back(old: Path, given: Path, out: Path, kind: str) -> None:
    import blosc2
    import numpy as np

    data, at = given.read_bytes(), 0
    form = np.dtype(_TYPES.get(kind, "uint8"))
    with out.open("wb") as made:
        for size, (before, _) in zip(json.loads(Path(f"{given}.parts").read_text()), _tensors(old, old), strict=True):
            found = blosc2.decompress2(data[at : at + size])
            at += size
            type_ = form if len(before) % form.itemsize == 0 else np.dtype("uint8")
            made.write((np.frombuffer(found, type_) + np.frombuffer(before, type_)).tobytes())


def _tensors(old: Path, new: Path) -> Iterator[tuple[bytes, bytes]]:
    import onnx

    known = {each.name: each.raw_data for each in onnx.load(str(old)).graph.initializer}
    for each in onnx.load(str(new)).graph.initializer:
        if len(known.get(each.name, b"")) == len(each.raw_data) > 0:
            yield known[each.name], each.raw_data


def _blocks(old: Path, given: Path, out: Path, _: str) -> None:
    """Blocks of 4 KiB that the old file has anywhere on the same raster cost a reference, others themselves."""
    import hashlib

    def blocks(path: Path) -> Iterator[bytes]:
        with path.open("rb") as file:
            while block := file.read(4096):
                yield block

    known = {hashlib.sha256(block).digest() for block in blocks(old)}
    size = sum(36 if hashlib.sha256(block).digest() in known else 36 + len(block) for block in blocks(given))
    out.write_text(str(size))


_WORK: dict[tuple[str, str], Work] = {
    (OURS, "encode"): _ours,
    (OURS, "decode"): _ours_back,
    (DETOOLS, "encode"): _detools,
    (DETOOLS, "decode"): _detools_back,
    (BLOSC, "encode"): _blosc,
    (BLOSC, "decode"): _blosc_back,
    (BLOCKS, "encode"): _blocks,
}


def main(arguments: list[str]) -> None:
    """The process of a peer."""
    peer, action, old, given, out, kind = arguments
    work: Any = _WORK[peer, action]
    if peer == OURS:
        import nwmctl.bundling.delta_encode
        import nwmctl.vehicle.delta  # noqa: F401  # loaded before the clock starts
    if peer == DETOOLS:
        import detools  # noqa: F401
    if peer == BLOSC:
        import blosc2  # noqa: F401
        import onnx  # noqa: F401
    begun = time.process_time()
    work(Path(old), Path(given), Path(out), kind)
    print(time.process_time() - begun)


if __name__ == "__main__":
    main(sys.argv[1:])
