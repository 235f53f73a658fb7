"""All drivers, one line each, and how a test asks each of them for an artifact that executes here.

A new driver joins the contract suite by a line in ``LISTED``.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from nwmctl.domain.artifact import Option, Precision, Quantisation, Recipe
from nwmctl.toolchains.external import External
from nwmctl.toolchains.files import file_digest
from nwmctl.toolchains.iree import Iree
from nwmctl.toolchains.onnxruntime import OnnxRuntime
from nwmctl.toolchains.protocol import (
    Capability,
    Compiled,
    CompileRequest,
    Effort,
    Place,
    Session,
    Toolchain,
    WithBench,
)
from nwmctl.toolchains.registry import Registry
from tests.real import require_real
from tests.sshd import Sshd
from tests.toolchains import far, vendor
from tests.toolchains.models import DRIVER, inputs

FP32 = Precision.FP32
DOCUMENT = Path(__file__).parents[2] / "docs" / "toolchains.md"
SETS: dict[str, tuple[tuple[str, ...], ...]] = {
    "gpu": (("sm_87",),),
    "vulkan": (("sm_87",),),
    "cpu": (("armv9-a", "bf16", "i8mm"), ("armv8.2-a",), ("x86-64-v3",)),
    "host": (("host",), ()),
    "npu": (("tiny-npu",),),
}
"""Instruction sets of chips with such a unit, as platform profiles name them."""


@dataclass(frozen=True)
class Given:
    """What drivers are made of."""

    folder: Path
    sshd: Callable[[], Sshd]


@dataclass(frozen=True)
class Listed:
    """One driver. ``unit`` and ``options`` give an artifact that executes here; ``chip``: on a bench that is this
    machine. ``able``: what it builds, where asking the driver takes more than making it. ``tells``: its runtime says
    what executions take."""

    name: str
    make: Callable[[Given], Toolchain]
    unit: str = "host"
    options: tuple[tuple[str, Option], ...] = ()
    chip: str = ""
    able: tuple[Capability, ...] = ()
    tells: bool = True

    def capabilities(self) -> tuple[Capability, ...]:
        return self.able or _asked(self.name)


def _here(given: Given) -> Toolchain:
    return External((vendor.install(given.folder),))


def _far(given: Given) -> Toolchain:
    require_real("iree-compile", Iree().probe().available, "pip install 'nwmctl[iree]'")
    return far.set_up(given.folder, given.sshd()).driver


def _openvino(given: Given) -> Toolchain:
    driver = Registry().get("openvino")
    require_real("openvino", driver.probe().available, "pip install 'nwmctl[openvino]'")
    return driver


def _iree(given: Given) -> Toolchain:
    require_real("iree-compile", Iree().probe().available, "pip install 'nwmctl[iree]'")
    return Iree()


def _fifth(given: Given) -> Toolchain:
    """The driver of the documentation, installed as a package of its own beside nwmctl."""
    install_example(given.folder)
    sys.path.append(str(given.folder))
    try:
        return Registry().get("reference")
    finally:
        sys.path.remove(str(given.folder))


def install_example(folder: Path) -> None:
    """Write the driver of docs/toolchains.md with the metadata of an installed package."""
    [text] = re.findall(r"```python\n(# nwmctl_reference\.py.*?)```", DOCUMENT.read_text("utf-8"), re.DOTALL)
    [entry] = re.findall(r"```toml\n(.*?)```", DOCUMENT.read_text("utf-8"), re.DOTALL)
    (folder / "nwmctl_reference.py").write_text(text)
    metadata = folder / "nwmctl_reference-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: nwmctl-reference\nVersion: 1.0\n")
    # What a build tool makes of the lines in pyproject.toml that the document shows.
    [(group, name, value)] = re.findall(r'\[project\.entry-points\."([^"]+)"\]\n(\w+) = "([^"]+)"', entry)
    (metadata / "entry_points.txt").write_text(f"[{group}]\n{name} = {value}\n")


def _able(unit: str, *precisions: Precision) -> tuple[Capability, ...]:
    return tuple(Capability(unit, precision) for precision in precisions)


LISTED = (
    Listed("iree", _iree),
    Listed("onnxruntime", lambda given: OnnxRuntime()),
    Listed("openvino", _openvino),
    Listed("external-here", _here, "npu", (("template", "tiny"),), able=_able("npu", FP32, Precision.FP16)),
    Listed("external-far", _far, "cpu", (("template", "far-iree"),), far.CHIP, _able("cpu", FP32), tells=False),
    Listed("fifth", _fifth, able=_able("host", FP32)),
)


@cache
def _asked(name: str) -> tuple[Capability, ...]:
    try:
        return Registry().get(name).probe().capabilities
    except Exception:  # the suite's own fixture says what is missing
        return ()


@dataclass(frozen=True)
class Case:
    """One driver of the list, made."""

    listed: Listed
    driver: Toolchain
    model: Path
    calibration: Path

    def ask(
        self, scratch: Path, precision: Precision = FP32, unit: str = "", model: Path | None = None, **more: Option
    ) -> CompileRequest:
        """A request for an artifact that executes here."""
        options = {**dict(self.listed.options), **more}
        recipe = Recipe(self.driver.name, precision, options)
        return replace(self.order(recipe, unit or self.listed.unit, scratch), model=model or self.model)

    def order(self, recipe: Recipe, unit: str, scratch: Path) -> CompileRequest:
        scratch.mkdir(parents=True)
        return CompileRequest(
            self.model,
            file_digest(self.model),
            recipe,
            unit,
            DRIVER,
            scratch,
            timeout_s=240,
            calibration=self.calibration,
        )

    def open(self, compiled: Compiled, payload: Path | None = None) -> Session:
        """A session where this driver's artifacts execute."""
        payload = payload or compiled.payload
        if not self.listed.chip:
            return self.driver.open(payload, compiled.manifest, Place.HOST)
        assert isinstance(self.driver, WithBench)
        return self.driver.open_bench(payload, compiled.manifest, self.listed.chip)

    def recipe(self, able: Capability, how: Quantisation | None) -> Recipe:
        """A recipe for a capability: what the driver itself finds worth trying, or the plainest."""
        for sets in SETS[able.unit]:
            for recipe in self.driver.variations(able.unit, sets, Effort.FULL):
                same = recipe.options.get("quantisation", how) == how
                if recipe.precision is able.precision and same:
                    return (
                        recipe
                        if how is None
                        else replace(recipe, options={**recipe.options, "quantisation": how.value})
                    )
        options: dict[str, Option] = dict(self.listed.options) if able.unit == self.listed.unit else {}
        return Recipe(self.driver.name, able.precision, {**options, "quantisation": how.value} if how else options)


def write_calibration(path: Path) -> Path:
    """Rows of plausible inputs, as a model package brings them."""
    np.savez(path, allow_pickle=False, **inputs(16, seed=3))
    return path


def capability_cases() -> list[object]:
    """Every capability of every driver, with every quantisation of its own."""
    return [
        pytest.param(listed, able, how, id=f"{listed.name}-{able.unit}-{able.precision}{f'-{how}' if how else ''}")
        for listed in LISTED
        for able in listed.capabilities()
        for how in able.quantisations or (None,)
    ]
