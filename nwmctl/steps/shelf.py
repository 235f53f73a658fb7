"""Drives of models as trained, kept in the content store between runs, and the model as trained itself.

A block of drives is found under a key of its own (weights, scenarios, simulator, runtimes here), so every artifact of a
model, every build and every later run shares it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from nwmctl.domain.artifact import Port
from nwmctl.domain.digest import Digest, digest_bytes, step_key
from nwmctl.domain.model import ModelContract
from nwmctl.domain.step import Outcome
from nwmctl.errors import ContentCorruptError, ContentMissingError
from nwmctl.formats import canonical
from nwmctl.formats.codec import to_plain
from nwmctl.steps.base import load_outcome, save_outcome
from nwmctl.storage.content import ContentStore
from nwmctl.toolchains.files import versions
from nwmctl.toolchains.lowering import GraphFiles
from nwmctl.toolchains.protocol import Session
from nwmctl.toolchains.registry import runtime_fingerprint
from nwmctl.toolchains.sessions import open_worker
from nwmctl.validation.drives import ModelDrives, Question

VERSION = 1
_TIMEOUT_S = 60.0
_BLOCK = "drives"


@dataclass(frozen=True, slots=True)
class _Shelf:
    store: ContentStore

    def load(self, question: Question) -> bytes | None:
        kept = load_outcome(self.store, _key(question))
        if kept is None:
            return None
        try:
            return self.store.read(kept.outputs[_BLOCK])
        except (ContentMissingError, ContentCorruptError):
            return None  # driven anew

    def save(self, question: Question, data: bytes) -> None:
        save_outcome(self.store, _key(question), Outcome({_BLOCK: self.store.put_bytes(data)}))


def _key(question: Question) -> Digest:
    asked = canonical.encode(to_plain(question))
    return step_key("validate/drives", VERSION, asked, {"weights": question.weights}, runtimes())


def runtimes() -> str:
    """The versions of everything that executes here."""
    return f"{versions('numpy', 'onnx')}, {runtime_fingerprint()}"


def kept_drives(store: ContentStore) -> ModelDrives:
    """Drives of models as trained, with the store as their shelf."""
    return ModelDrives(_Shelf(store))


@dataclass(frozen=True, slots=True)
class Trained:
    """A model as trained, in the store. ``digest`` stands for the graph and for weights that it keeps outside."""

    files: GraphFiles
    digest: Digest


def trained(store: ContentStore, inputs: Mapping[str, Digest], prefix: str = "") -> Trained:
    """The model among a step's inputs: ``weights`` and, where they lie outside the graph, ``weights_data``."""
    names = [name for name in (f"{prefix}weights", f"{prefix}weights_data") if name in inputs]
    paths = [store.path(inputs[name]) for name in names]
    if len(names) == 1:
        return Trained(GraphFiles(paths[0]), inputs[names[0]])
    both = canonical.encode([str(inputs[name]) for name in names])
    return Trained(GraphFiles(paths[0], paths[1]), digest_bytes(both))


def open_model(files: GraphFiles, contract: ModelContract) -> Session:
    """A model as trained, executed by onnxruntime on this host; tensors are checked by the contract."""
    inputs, outputs = (
        tuple(Port(spec.name, spec.dtype, spec.shape) for spec in side) for side in (contract.inputs, contract.outputs)
    )
    return open_worker("onnxruntime", files.model, inputs, outputs, _TIMEOUT_S, data=files.data)
