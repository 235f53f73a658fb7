"""Inputs for the checks: the package's golden data, and seeded random and extreme inputs within the contract.

Golden data come from outside, so every entry is measured before it is read and nothing is ever unpickled. Generated
inputs stay within the channels' physical limits; a channel without limits stays within what the golden data show.
The same seed gives the same inputs.
"""

from __future__ import annotations

import math
import tokenize
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from nwmctl.domain.model import ModelContract, TensorSpec
from nwmctl.errors import GoldenDataError
from nwmctl.toolchains.protocol import Tensors

GOLDEN_LIMIT = 256 << 20
"""Bytes that golden data may take in memory."""
CORNERS = 5
"""Leading rows of ``extreme_inputs`` in which every input is extreme at once."""


@dataclass(frozen=True, slots=True, eq=False)
class Golden:
    """Recorded inputs and the trained model's outputs for them, batch first, all with the same number of rows."""

    inputs: Tensors
    outputs: Tensors

    @property
    def rows(self) -> int:
        """Number of recorded cases."""
        return len(next(iter(self.inputs.values())))

    def head(self, rows: int) -> Golden:
        """Only the first ``rows`` cases."""
        return Golden(take(self.inputs, slice(0, rows)), take(self.outputs, slice(0, rows)))


def take(tensors: Mapping[str, NDArray[np.generic]], rows: slice) -> Tensors:
    """Some rows of every tensor."""
    return {name: values[rows] for name, values in tensors.items()}


def read_golden(path: Path, contract: ModelContract, limit: int = GOLDEN_LIMIT) -> Golden:
    """Read ``golden.npz`` (keys ``in/<tensor>``, ``out/<tensor>``). Raises GoldenDataError, never unpickles."""
    wanted = {f"in/{spec.name}": spec for spec in contract.inputs}
    wanted |= {f"out/{spec.name}": spec for spec in contract.outputs}
    try:
        with zipfile.ZipFile(path) as archive:
            found = _read_entries(archive, set(wanted), limit)
    except (OSError, zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, EOFError) as problem:
        raise _refuse("cannot be read", f"it is not a whole .npz file ({type(problem).__name__})") from problem
    rows = {len(values) for values in found.values() if values.ndim}
    if len(rows) != 1 or rows == {0}:
        raise _refuse("has no common number of rows", f"its tensors have {sorted(rows)} rows")
    for key, spec in wanted.items():
        values = found[key]
        expected = (*rows, *spec.shape[1:])
        if values.shape != expected or values.dtype != np.dtype(spec.dtype):
            raise _refuse(
                "does not follow the contract",
                f"{key} is {values.dtype}{list(values.shape)}, the contract says {spec.dtype}{list(expected)}",
            )
        if not np.isfinite(values).all():
            raise _refuse("holds values that are not finite", f"{key} has some")
    return Golden(
        {spec.name: found[f"in/{spec.name}"] for spec in contract.inputs},
        {spec.name: found[f"out/{spec.name}"] for spec in contract.outputs},
    )


def _read_entries(archive: zipfile.ZipFile, wanted: set[str], limit: int) -> dict[str, NDArray[np.generic]]:
    entries = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
    if set(entries) != wanted or len(archive.infolist()) != len(wanted):
        missing, extra = sorted(wanted - set(entries)), sorted(set(entries) - wanted)
        raise _refuse("does not hold exactly the contract's tensors", f"missing: {missing}; too many: {extra}")
    total = sum(info.file_size for info in entries.values())
    if total > limit:
        raise _refuse("is too large", f"it unpacks to {total} bytes, {limit} are allowed")
    return {key: _read_array(archive, info, key) for key, info in entries.items()}


def _read_array(archive: zipfile.ZipFile, info: zipfile.ZipInfo, key: str) -> NDArray[np.generic]:
    with archive.open(info) as stream:
        shape, fortran, dtype = _read_header(stream, key)
        size = math.prod(shape) * dtype.itemsize
        data = stream.read(size + 1)
    if dtype.kind not in "fiub" or len(data) != size or min(shape, default=0) < 0:
        raise _refuse("is damaged", f"{key} claims {dtype}{list(shape)} and holds {len(data)} bytes")
    values = np.frombuffer(data, dtype=dtype).reshape(shape, order="F" if fortran else "C")
    return np.ascontiguousarray(values, dtype=dtype.newbyteorder("="))


def _read_header(stream: IO[bytes], key: str) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    try:
        version = np.lib.format.read_magic(stream)
        if version == (1, 0):
            return np.lib.format.read_array_header_1_0(stream)
        if version == (2, 0):
            return np.lib.format.read_array_header_2_0(stream)
    except (ValueError, TypeError, SyntaxError, tokenize.TokenError, MemoryError, RecursionError) as problem:
        raise _refuse("is damaged", f"{key} has no readable array header") from problem
    raise _refuse("cannot be read", f"{key} has array format {version}, versions 1.0 and 2.0 are read")


def _refuse(what: str, why: str) -> GoldenDataError:
    return GoldenDataError(
        f"the golden data {what}", why=why, next="write the model package again, with golden data from this contract"
    )


# --- generated inputs ---------------------------------------------------------------------------------------------


def bounds(spec: TensorSpec, seen: NDArray[np.generic]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Lowest and highest value per channel [C]: the contract's, or the golden data's where it names none."""
    flat = seen.reshape(-1, seen.shape[-1] if seen.ndim > 1 else 1).astype(np.float64)
    low, high = flat.min(axis=0), flat.max(axis=0)
    for index, channel in enumerate(spec.channels[: len(low)]):
        low[index] = low[index] if channel.low is None else channel.low
        high[index] = high[index] if channel.high is None else channel.high
    return low, high


def random_inputs(contract: ModelContract, golden: Golden, rows: int, seed: int) -> Tensors:
    """``rows`` uniform draws between the bounds."""
    stream = np.random.default_rng([0x72616E64, seed])
    made: Tensors = {}
    for spec in contract.inputs:
        seen = golden.inputs[spec.name]
        low, high = bounds(spec, seen)
        drawn = low + (high - low) * stream.random((rows, *seen.shape[1:]))
        made[spec.name] = _as(drawn, seen)
    return made


def extreme_inputs(contract: ModelContract, golden: Golden) -> Tensors:
    """Corners: all low, all high, all zero (or nearest), alternating; then each input alone low and high.

    The rows in which one input is extreme take the first golden case for the others.
    """
    corners: dict[str, list[NDArray[np.generic]]] = {}
    for spec in contract.inputs:
        seen = golden.inputs[spec.name]
        low, high = bounds(spec, seen)
        zero = np.clip(0.0, low, high)
        swap = np.arange(seen.shape[1]).reshape(-1, *[1] * (seen.ndim - 2)) % 2 == 0 if seen.ndim > 2 else True
        fills = [low, high, zero, np.where(swap, low, high), np.where(swap, high, low)]
        corners[spec.name] = [_as(np.broadcast_to(fill, seen.shape[1:]), seen) for fill in fills]
    made: dict[str, list[NDArray[np.generic]]] = {name: list(rows) for name, rows in corners.items()}
    for moved in corners:
        for corner in (0, 1):
            for name, rows in made.items():
                rows.append(corners[name][corner] if name == moved else golden.inputs[name][0])
    return {name: np.stack(rows) for name, rows in made.items()}


def _as(values: NDArray[np.float64], like: NDArray[np.generic]) -> NDArray[np.generic]:
    return np.rint(values).astype(like.dtype) if like.dtype.kind in "iub" else values.astype(like.dtype)
