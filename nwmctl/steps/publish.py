"""publish: the timestamp goes to every mirror, then one transaction makes the release eligible.

Idempotent. Before the timestamp the release exists nowhere; a crash between timestamp and transaction leaves bundles
that are listed and that no vehicle is offered, and repeating the step completes it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypedDict, cast

from nwmctl.domain.digest import Digest
from nwmctl.domain.step import Outcome
from nwmctl.domain.work import PublishWork, StepName
from nwmctl.fleet.releases import EnabledBundle, enable_release
from nwmctl.formats import canonical
from nwmctl.publishing.train import publish
from nwmctl.steps.base import Progress, Step
from nwmctl.steps.stage import SignedBundle, StageSetting, open_signed
from nwmctl.storage.content import ContentStore
from nwmctl.trust.metadata import TIMESTAMP_PATH


class _Named(TypedDict):
    name: str
    path: str
    swu: str


# `from` is no name for a field, so that this one cannot be written as a class.
_Serving = TypedDict("_Serving", {"swu": str, "from": list[int]})


@dataclass(frozen=True, slots=True)
class _Publish:
    store: ContentStore
    setting: StageSetting

    def __call__(self, work: PublishWork, inputs: Mapping[str, Digest], progress: Progress) -> Outcome:
        setting = self.setting
        receipt = canonical.decode(self.store.read(inputs["staged"]), "staging receipt")
        assert isinstance(receipt, dict)
        staged = cast(list[_Named], receipt["bundles"])
        bundles = [
            _enabled(open_signed(self.store.path(Digest.parse(row["swu"])), setting.keys, setting.clock.now_us()))
            for row in staged
        ]
        deltas = [each for row in cast(list[_Serving], receipt["deltas"]) for each in self._serving(row)]
        with setting.mirrors() as mirrors:
            report = publish(mirrors, self.store.read(inputs["timestamp"]), TIMESTAMP_PATH)
        now_us = setting.clock.now_us()
        enable_release(setting.database, setting.release, setting.content, bundles, now_us, deltas)
        note = canonical.encode({"sequence": work.sequence, "timestamp": str(inputs["timestamp"])})
        return Outcome(
            {"published": self.store.put_bytes(note)},
            {
                "platforms": len(work.platforms),
                "delta_bundles": len({each.sha256 for each in deltas}),
                "mirrors_published": len(report.published),
                "mirrors_already_current": len(report.already),
            },
        )

    def _serving(self, row: _Serving) -> list[EnabledBundle]:
        """A delta bundle, once for each sequence that it serves."""
        path = self.store.path(Digest.parse(row["swu"]))
        bundle = _enabled(open_signed(path, self.setting.keys, self.setting.clock.now_us()))
        return [replace(bundle, base_sequence=sequence) for sequence in row["from"]]


def _enabled(bundle: SignedBundle) -> EnabledBundle:
    listed, manifest = bundle.listed, bundle.manifest
    return EnabledBundle(
        kind=manifest.kind,
        platform=manifest.platform,
        sequence=manifest.sequence,
        model_version=manifest.model_version,
        filename=bundle.filename,
        path=listed.path,
        tuf_name=listed.name,
        # DDI demands sha1; nothing of ours trusts it.
        sha1=_sha1(bundle.path),
        sha256=listed.digest.hex,
        size=listed.length,
        virtual_only=manifest.virtual_only,
        requires=manifest.requires,
    )


def _sha1(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.sha1(usedforsecurity=False)).hexdigest()


def publish_step(store: ContentStore, setting: StageSetting) -> Step[PublishWork]:
    """The step."""
    return Step(StepName.PUBLISH, 2, False, PublishWork, _Publish(store, setting))
