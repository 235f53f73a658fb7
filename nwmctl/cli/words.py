"""Small words and numbers for people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import assert_never

from nwmctl.domain.step import Scalar, StepState

_UNITS = {
    "peak_mb": "{:.0f} MB at most",
    "cpu_s": "{:.1f} CPU s",
    "prediction_error": "predictions within {:.0%}",
}
"""How a step's figures read, by their names."""


def duration(seconds: float) -> str:
    """``0.3 s``, ``41 s``, ``3:07``, ``2:00:00``."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 100:
        return f"{seconds:.0f} s"
    whole = round(seconds)
    hours, minutes = whole // 3600, whole // 60 % 60
    return f"{hours}:{minutes:02}:{whole % 60:02}" if hours else f"{minutes}:{whole % 60:02}"


def size(bytes_: float) -> str:
    """``512 B``, ``1.7 MB`` (decimal units)."""
    for unit in ("B", "kB", "MB", "GB"):
        if bytes_ < 1000 or unit == "GB":
            return f"{bytes_:.0f} {unit}" if unit == "B" else f"{bytes_:.1f} {unit}"
        bytes_ /= 1000
    raise AssertionError


def glyph(state: StepState) -> str:
    """One character per state."""
    match state:
        case StepState.PENDING:
            return "·"
        case StepState.RUNNING:
            return "▶"
        case StepState.CACHED:
            return "="
        case StepState.DONE:
            return "✓"
        case StepState.FAILED:
            return "✗"
        case StepState.BLOCKED:
            return "○"
        case _:
            assert_never(state)


def summary_text(summary: Mapping[str, Scalar]) -> str:
    """A step's scalars in one line; ``size`` in bytes is shown as such."""
    parts = []
    for key, value in summary.items():
        if key == "size" and isinstance(value, int):
            parts.append(size(value))
        elif key.startswith("_"):
            continue
        elif isinstance(value, bool):
            if value:
                parts.append(key.replace("_", " "))
        elif isinstance(value, str):
            parts.append(value)
        elif key in _UNITS:
            parts.append(_UNITS[key].format(value))
        else:
            parts.append(f"{value:g} {key.replace('_', ' ')}")
    return ", ".join(part for part in parts if part)
