"""pull: model reference -> verified model package in the content store."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from nwmctl.domain.clock import Sleep
from nwmctl.domain.digest import Digest
from nwmctl.domain.model import CARD_NAME, ModelReference
from nwmctl.domain.step import Outcome
from nwmctl.domain.work import PullWork, StepName
from nwmctl.errors import InputError, ModelIncompleteError
from nwmctl.formats import documents
from nwmctl.sources.fetch import ModelPackage, fetch_model
from nwmctl.steps.base import Progress, Step
from nwmctl.storage.content import ContentStore
from nwmctl.validation.contract import check_graph

_ROLES = ("weights", "calibration", "golden")
_DATA = "weights_data"
"""The file of the weights, of a model whose graph does not hold them; handed on where the card lists it."""


@dataclass(frozen=True, slots=True)
class _Pull:
    store: ContentStore
    incoming: Path
    base: Path
    sleep: Sleep

    def __call__(self, work: PullWork, inputs: Mapping[str, Digest], progress: Progress) -> Outcome:
        reference = ModelReference(work.uri, inputs["model"])
        # A folder named by the digest, so that an interrupted download is found again and continued.
        folder = self.incoming / reference.digest.hex

        def arrived(name: str, done: int, total: int) -> None:
            progress(name, done / total if total else -1.0)

        self.incoming.mkdir(parents=True, exist_ok=True)
        package = fetch_model(reference, work.trusted_keys, folder, base=self.base, sleep=self.sleep, progress=arrived)
        try:
            outcome = self._keep(package)
        except InputError:
            # It arrived whole and is wrong, so nothing of it is worth keeping for the next try.
            shutil.rmtree(folder, ignore_errors=True)
            raise
        shutil.rmtree(folder, ignore_errors=True)
        return outcome

    def _keep(self, package: ModelPackage) -> Outcome:
        card = package.card
        missing = [role for role in _ROLES if role not in card.files]
        if missing:
            raise ModelIncompleteError(
                f"the model package lacks {', '.join(missing)}",
                why="compiling and checking need weights, calibration and golden data",
                next="have the model's publisher complete the package",
            )
        check_graph(package.file("weights"), card.contract)
        roles = (*_ROLES, _DATA) if _DATA in card.files else _ROLES
        outputs = {role: self.store.put_file(package.file(role)) for role in roles}
        outputs["card"] = self.store.put_file(package.folder / CARD_NAME)
        outputs["signature"] = self.store.put_file(package.folder / package.signature)
        outputs["origin"] = self.store.put_bytes(documents.encode(package.origin))
        size = sum(entry.size for entry in card.files.values())
        return Outcome(
            outputs,
            {
                "model": f"{card.name} {card.version}",
                "parameters": card.parameters,
                "size": size,
                "key": package.key[:20],
                "signed": str(package.origin.method),
            },
        )


def pull_step(store: ContentStore, incoming: Path, base: Path, sleep: Sleep) -> Step[PullWork]:
    """The step. ``incoming`` holds unfinished downloads; relative URIs start at ``base``."""
    return Step(StepName.PULL, 2, True, PullWork, _Pull(store, incoming, base, sleep))
