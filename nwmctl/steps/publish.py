"""publish: the timestamp goes to every mirror, then one transaction makes the release eligible.

Idempotent. Before the timestamp the release exists nowhere; a crash between timestamp and transaction leaves bundles
that are listed and that no vehicle is offered, and repeating the step completes it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
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
        with setting.mirrors() as mirrors:
            report = publish(mirrors, self.store.read(inputs["timestamp"]), TIMESTAMP_PATH)
        enable_release(setting.database, setting.release, setting.content, bundles, setting.clock.now_us())
        note = canonical.encode({"sequence": work.sequence, "timestamp": str(inputs["timestamp"])})
        return Outcome(
            {"published": self.store.put_bytes(note)},
            {
                "platforms": len(work.platforms),
                "mirrors_published": len(report.published),
                "mirrors_already_current": len(report.already),
            },
        )


def _enabled(bundle: SignedBundle) -> EnabledBundle:
    listed, manifest = bundle.listed, bundle.manifest
    return EnabledBundle(
        kind=manifest.kind,
        platform=manifest.platform,
        sequence=manifest.sequence,
        model_version=manifest.model_version,
        filename=manifest.filename,
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
    return Step(StepName.PUBLISH, 1, False, PublishWork, _Publish(store, setting))
