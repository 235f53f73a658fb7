"""The model as its trainers hand it over: contract, lineage, files.

A model package is a folder with ``model-card.json`` (canonical JSON, schema ``nwmctl.model-card/1``), its detached
signature ``model-card.json.sig`` and the files that the card lists. The digest of the card's bytes is the model's
digest: through the listed file digests it binds the whole package.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from nwmctl.domain.digest import Digest

CARD_NAME = "model-card.json"
SIGNATURE_NAME = "model-card.json.sig"
OPENSSF_NAME = "model.sig"
"""An OpenSSF model signature, which may stand in place of the one above."""
BATCH = "B"
"""The symbolic first dimension of every tensor."""


@dataclass(frozen=True, slots=True)
class Channel:
    """One entry of a tensor's last axis. ``low`` and ``high`` are physical limits in ``unit``; None means none."""

    name: str
    unit: str
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One input or output. ``shape`` starts with "B"; ``channels`` describe the last axis."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]
    channels: tuple[Channel, ...]
    description: str


@dataclass(frozen=True, slots=True)
class ModelContract:
    """What the model promises to every caller. ``rate_hz`` is the control rate it was trained at."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    rate_hz: float
    control_output: str = "control"
    """The output whose first step is executed: steer in rad, acceleration in m/s2."""


@dataclass(frozen=True, slots=True)
class TrainingStage:
    """One layer of the lineage: what was trained on what, with which seeds, and what came out."""

    name: str
    data: str
    seeds: tuple[int, ...]
    metrics: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class FileEntry:
    """A file of the package: ``path`` relative to the card, ``size`` in bytes."""

    path: str
    digest: Digest
    size: int


@dataclass(frozen=True, slots=True)
class ModelCard:
    """Everything the package says about itself. ``files`` has the roles ``weights``, ``calibration``, ``golden``, and
    ``weights_data`` (the graph's external data, one file) where the graph does not hold its weights itself."""

    name: str
    version: str
    description: str
    parameters: int
    contract: ModelContract
    lineage: tuple[TrainingStage, ...]
    files: dict[str, FileEntry]
    licence: str
    limitations: tuple[str, ...] = ()


class SignatureMethod(StrEnum):
    """How a model was signed."""

    MODEL_CARD = "model-card"
    """A DSSE envelope around the card, which lists every file (nwmctl's own)."""
    OPENSSF = "openssf"
    """An OpenSSF model signature over every file of the package."""


@dataclass(frozen=True, slots=True)
class ModelOrigin:
    """Who signed a model, as it was pulled: part of its lineage. ``signer`` is a trusted public key as text."""

    model: Digest
    method: SignatureMethod
    signer: str


@dataclass(frozen=True, slots=True)
class ModelReference:
    """Where a model is and what it must be. ``uri`` is a path or URL of the package's folder."""

    uri: str
    digest: Digest
