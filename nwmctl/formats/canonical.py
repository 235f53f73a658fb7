"""Canonical JSON: one byte string for one value.

UTF-8, keys sorted by code point, no white space, finite floats in Python's shortest form, one final newline-free
line. ``decode`` accepts only what ``encode`` writes, so a digest of the bytes is a digest of the value. Does not
know any schema.
"""

from __future__ import annotations

import json
import math
from typing import TypeAlias

from nwmctl.errors import NotCanonicalError

Plain: TypeAlias = "bool | int | float | str | list[Plain] | dict[str, Plain] | None"


def encode(value: Plain) -> bytes:
    """The canonical bytes of ``value``. Raises ValueError for a float that is not finite."""
    _refuse_non_finite(value)
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return text.encode("utf-8")


def decode(data: bytes, where: str) -> Plain:
    """Read canonical bytes; ``where`` names the document for the error. Raises NotCanonicalError."""
    try:
        value: Plain = json.loads(data.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_refuse_constant)
        same = encode(value) == data
    except (ValueError, RecursionError) as problem:
        raise _not_canonical(where, f"it does not parse: {problem}") from problem
    if not same:
        raise _not_canonical(where, "keys, white space or numbers are not in canonical form")
    return value


def _not_canonical(where: str, reason: str) -> NotCanonicalError:
    return NotCanonicalError(
        f"{where} is not canonical JSON",
        why=reason,
        next="fetch the document again; do not edit or reformat signed documents by hand",
    )


def _refuse_non_finite(value: Plain) -> None:
    match value:
        case float() if not math.isfinite(value):
            raise ValueError("canonical JSON holds finite numbers only")
        case list():
            for item in value:
                _refuse_non_finite(item)
        case dict():
            for item in value.values():
                _refuse_non_finite(item)
        case _:
            return


def _unique(pairs: list[tuple[str, Plain]]) -> dict[str, Plain]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key occurs twice")
    return found


def _refuse_constant(name: str) -> Plain:
    raise ValueError(f"{name} is not a finite number")
