"""Toolchains by name. A driver is imported when it is asked for, so that listing them costs nothing.

Another package adds a driver by an entry point in the group ``nwmctl.toolchains``: a callable without arguments that
returns a ``Toolchain``. It cannot replace a driver of this list.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path

from nwmctl.errors import UnknownToolchainError
from nwmctl.toolchains.protocol import Probe, Toolchain

GROUP = "nwmctl.toolchains"


class Registry:
    """All drivers of this installation. ``declarations``: the folders of external toolchains' declarations."""

    def __init__(self, declarations: tuple[Path, ...] = ()) -> None:
        self._declarations = declarations
        self._built: dict[str, Toolchain] = {}

    def names(self) -> tuple[str, ...]:
        """Every name that a recipe can use."""
        own = self._own()
        return (*own, *sorted(name for name in _foreign() if name not in own))

    def get(self, name: str) -> Toolchain:
        """The driver of that name. Raises UnknownToolchainError."""
        if name not in self._built:
            self._built[name] = self._build(name)
        return self._built[name]

    def probe_all(self) -> tuple[Probe, ...]:
        """What works here, in the order of ``names``. Never raises."""
        return tuple(self._probe(name) for name in self.names())

    def _probe(self, name: str) -> Probe:
        try:
            return self.get(name).probe()
        except Exception as problem:  # a foreign driver may fail in any way; doctor lists it all the same
            return Probe(name, False, "", f"the driver does not load: {type(problem).__name__}: {problem}")

    def _build(self, name: str) -> Toolchain:
        own = self._own()
        if name in own:
            return own[name]()
        foreign = _foreign()
        if name not in foreign:
            raise UnknownToolchainError(
                f"there is no toolchain '{name}'",
                why=f"known are {', '.join(self.names())}",
                next="correct the recipe, or install the package that brings the driver",
            )
        try:
            driver: Toolchain = foreign[name].load()()
        except Exception as problem:
            raise UnknownToolchainError(
                f"the toolchain '{name}' cannot be loaded",
                why=f"{type(problem).__name__}: {problem}",
                next="repair or remove the package that brings this driver",
            ) from problem
        return driver

    def _own(self) -> dict[str, Callable[[], Toolchain]]:
        return {"iree": _iree, "onnxruntime": _onnxruntime, "external": lambda: _external(self._declarations)}


def _foreign() -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=GROUP)}


def _iree() -> Toolchain:
    from nwmctl.toolchains.iree import Iree

    return Iree()


def _onnxruntime() -> Toolchain:
    from nwmctl.toolchains.onnxruntime import OnnxRuntime

    return OnnxRuntime()


def _external(declarations: tuple[Path, ...]) -> Toolchain:
    from nwmctl.toolchains.external import External

    return External(declarations)
