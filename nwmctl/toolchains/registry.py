"""Toolchains by name. A driver is imported when it is asked for, so that listing them costs nothing.

Another package adds a driver by an entry point in the group ``nwmctl.toolchains``: a callable without arguments that
returns a ``Toolchain``. It cannot replace a driver of this list.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path

import nwmctl
from nwmctl.errors import UnknownToolchainError
from nwmctl.toolchains.protocol import Probe, Toolchain

GROUP = "nwmctl.toolchains"
ENVIRONMENT = "NWMCTL_TOOLCHAINS"
HOSTS = "NWMCTL_HOSTS"


class Registry:
    """All drivers of this installation. ``declarations``: the folders of external toolchains' declarations; ``hosts``:
    the file that says where the hosts are that they name."""

    def __init__(self, declarations: tuple[Path, ...] = (), hosts: Path | None = None) -> None:
        self._declarations, self._hosts = declarations, hosts
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

    def benches(self) -> str:
        """The hardware elsewhere that can be asked, by name; '' for none. What executes there depends on it."""
        if self._hosts is None:
            return ""
        from nwmctl.toolchains.external import External

        driver = self.get("external")
        return driver.benches() if isinstance(driver, External) else ""

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
        return {
            "iree": _iree,
            "onnxruntime": _onnxruntime,
            "openvino": _openvino,
            "external": lambda: _external(self._declarations, self._hosts),
        }


@cache
def registry() -> Registry:
    """The drivers of this installation, with the declarations of ``declaration_folders`` and the hosts of
    NWMCTL_HOSTS."""
    hosts = os.environ.get(HOSTS, "")
    return Registry(declaration_folders(), Path(hosts) if hosts else None)


def toolchain(name: str) -> Toolchain:
    """The driver of that name. Raises UnknownToolchainError."""
    return registry().get(name)


def probe_all() -> tuple[Probe, ...]:
    """What works here. Never raises."""
    return registry().probe_all()


def runtime_fingerprint() -> str:
    """What of this machine decides how artifacts can be executed here: runtimes, their versions, emulation."""
    from nwmctl.toolchains import emulation
    from nwmctl.toolchains.files import versions
    from nwmctl.toolchains.iree_options import host_instruction_set

    emulated = emulation.fingerprint()
    return f"{versions('iree-base-runtime', 'onnxruntime')}, {host_instruction_set()}, {emulated}"


def runtimes_here() -> dict[str, str]:
    """The inference runtimes that are installed on this machine, name -> version, without importing any."""
    from importlib.metadata import PackageNotFoundError, version

    found = {}
    for name in ("iree-base-runtime", "onnxruntime", "openvino"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue  # not installed, so not in the answer
    return found


def declaration_folders() -> tuple[Path, ...]:
    """The examples that come along, then the folders of NWMCTL_TOOLCHAINS (separated as PATH is)."""
    package = Path(nwmctl.__file__).parent
    shipped = package / "data" / "templates" / "toolchains"
    if not shipped.is_dir():
        shipped = package.parent / "templates" / "toolchains"
    own = [Path(part) for part in os.environ.get(ENVIRONMENT, "").split(os.pathsep) if part]
    return (shipped, *own)


def _foreign() -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=GROUP)}


def _iree() -> Toolchain:
    from nwmctl.toolchains.iree import Iree

    return Iree()


def _onnxruntime() -> Toolchain:
    from nwmctl.toolchains.onnxruntime import OnnxRuntime

    return OnnxRuntime()


def _openvino() -> Toolchain:
    from nwmctl.toolchains.openvino import OpenVino

    return OpenVino()


def _external(declarations: tuple[Path, ...], hosts: Path | None) -> Toolchain:
    from nwmctl.toolchains.external import External
    from nwmctl.toolchains.external_hosts import Hosts

    return External(declarations, Hosts(hosts))
