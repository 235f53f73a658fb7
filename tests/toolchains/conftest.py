"""Artifacts that several tests look at, compiled once per session by the real compiler."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from nwmctl.domain.artifact import Precision
from nwmctl.toolchains.iree import Iree
from nwmctl.toolchains.protocol import Compiled
from tests.real import require_real
from tests.sshd import Sshd, running_sshd
from tests.toolchains.models import inputs, request, write_model

Build = Callable[[Path], Compiled]


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("model") / "model.onnx", "exported from /home/somebody/train.py")


@pytest.fixture(scope="session")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    with running_sshd(tmp_path_factory.mktemp("sshd")) as server:
        yield server


@pytest.fixture(scope="session")
def iree() -> Iree:
    driver = Iree()
    require_real("iree-compile", driver.probe().available, "pip install 'nwmctl[iree]'")
    return driver


@pytest.fixture(scope="session")
def gpu_fp16(iree: Iree, model: Path, tmp_path_factory: pytest.TempPathFactory) -> Compiled:
    scratch = tmp_path_factory.mktemp("gpu") / "s"
    return iree.compile(request(model, scratch, "iree", Precision.FP16, "gpu", arch="sm_87"))


@pytest.fixture(scope="session")
def arm_fp32(iree: Iree, model: Path, tmp_path_factory: pytest.TempPathFactory) -> Compiled:
    scratch = tmp_path_factory.mktemp("arm") / "s"
    return iree.compile(request(model, scratch, "iree", Precision.FP32, "cpu", cpu="cortex-a78ae"))


@pytest.fixture(scope="session")
def calibration(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("calibration") / "calibration.npz"
    np.savez(path, **inputs(32, seed=5))  # type: ignore[arg-type]
    return path


@pytest.fixture(scope="session")
def arm_int8(iree: Iree, model: Path, calibration: Path, tmp_path_factory: pytest.TempPathFactory) -> Compiled:
    ask = request(model, tmp_path_factory.mktemp("int8") / "s", "iree", Precision.INT8, "cpu", cpu="cortex-a78ae")
    return iree.compile(dataclasses.replace(ask, calibration=calibration))


@pytest.fixture(scope="session")
def arm_bf16(iree: Iree, model: Path, tmp_path_factory: pytest.TempPathFactory) -> Compiled:
    scratch = tmp_path_factory.mktemp("armv9") / "s"
    options = {"cpu": "generic", "features": "+v9a,+dotprod,+i8mm,+bf16,+fullfp16,+fp16fml", "data_tiling": True}
    return iree.compile(request(model, scratch, "iree", Precision.BF16, "cpu", **options))
