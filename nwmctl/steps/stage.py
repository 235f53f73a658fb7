"""stage: signed bundles and dossier -> every mirror holds them and versioned metadata, read back.

Idempotent. The repository's state is kept in the workspace before anything is uploaded, so a staging that was
interrupted goes on with the same metadata bytes; only the timestamp, which makes them count, is left to ``publish``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from nwmctl.bundling.read import BundleContents, read_bundle
from nwmctl.domain.bundle import BundleKind, BundleManifest, BundleTarget
from nwmctl.domain.certificate import LeafKind, dossier_name
from nwmctl.domain.clock import Clock
from nwmctl.domain.delta import DeltaBundle, DeltaBundles
from nwmctl.domain.digest import Digest, digest_bytes
from nwmctl.domain.release import Release
from nwmctl.domain.step import Outcome
from nwmctl.domain.train import BundleFile, BundleResult, TrainSpec, check_train
from nwmctl.domain.work import StageWork, StepName
from nwmctl.fleet.manifests import highest_reported
from nwmctl.fleet.releases import claim_sequence
from nwmctl.formats import canonical, documents
from nwmctl.formats.bundle_names import bundle_filename, change_of
from nwmctl.publishing.mirrors import MirrorSession, open_mirror
from nwmctl.publishing.stage import StagedFile, stage
from nwmctl.steps.base import Progress, Step
from nwmctl.storage.content import ContentStore, write_atomically
from nwmctl.storage.database import Database
from nwmctl.trust.cms import verify_cms
from nwmctl.trust.current import as_publication, needs_renewal, state_files
from nwmctl.trust.dossier import by_name, expect_leaf, expect_release, open_certificate, read_dossier
from nwmctl.trust.keys import KeyRing
from nwmctl.trust.metadata import ListedBundle
from nwmctl.trust.repository import (
    Publication,
    add_targets,
    create_repository,
    is_behind,
    is_below,
    listed_bundles,
    read_state,
)
from nwmctl.trust.uptane_image import ReferenceImage, reference_image


@dataclass(frozen=True, slots=True)
class StageSetting:
    """What staging and publishing share. ``content`` is what the release's sequence stands for; ``repository`` the
    folder with the repository's own state; relative mirrors start at ``base``."""

    release: Release
    content: Digest
    repository: Path
    base: Path
    keys: KeyRing
    database: Database
    clock: Clock
    passphrase: bytes | None = None

    @contextmanager
    def mirrors(self) -> Iterator[tuple[MirrorSession, ...]]:
        """All mirrors of the release, open."""
        with ExitStack() as stack:
            yield tuple(stack.enter_context(open_mirror(mirror, self.base)) for mirror in self.release.mirrors)


@dataclass(frozen=True, slots=True)
class SignedBundle:
    """A bundle whose signature was verified again, from its bytes."""

    path: Path
    contents: BundleContents

    @property
    def manifest(self) -> BundleManifest:
        return self.contents.manifest

    @property
    def filename(self) -> str:
        """Its name, which tells a bundle with deltas from the full one."""
        return bundle_filename(self.manifest, self.contents.description)

    @property
    def listed(self) -> ListedBundle:
        """As the repository lists it."""
        about = BundleTarget.of(self.manifest, change_of(self.contents.description))
        return ListedBundle(self.filename, self.contents.size, self.contents.digest, about)


def open_signed(path: Path, keys: KeyRing, now_us: int) -> SignedBundle:
    """Read a bundle whole and verify its signature by the key ring's authority."""
    authority = keys.ca_pem()

    def verify(description: bytes, signature: bytes) -> None:
        verify_cms(description, signature, authority, now_us)

    return SignedBundle(path, read_bundle(path, verify))


def bundle_results(bundles: Sequence[SignedBundle], release: Release) -> list[BundleResult]:
    """What the bundles say about themselves, platform by platform."""
    results = []
    for platform in dict.fromkeys(bundle.manifest.platform for bundle in bundles):
        own = [bundle for bundle in bundles if bundle.manifest.platform == platform]
        models = {bundle.manifest.kind: bundle.manifest.model for bundle in own}
        first = own[0].manifest
        evidence = sorted({payload.evidence for bundle in own for payload in bundle.manifest.payloads})
        results.append(
            BundleResult(
                release=first.release,
                sequence=release.sequence,
                platform=platform,
                model=models.get(BundleKind.RELEASE, release.model.digest),
                previous=models.get(BundleKind.RETURN, release.previous.digest),
                policy=first.policy,
                evidence=tuple(evidence),
                bundles=tuple(
                    BundleFile(
                        bundle.manifest.kind,
                        bundle.manifest.filename,
                        bundle.contents.digest,
                        bundle.contents.size,
                        bundle.manifest.sequence,
                        digest_bytes(documents.encode(bundle.manifest)),
                        bundle.manifest.model,
                    )
                    for bundle in own
                ),
            )
        )
    return results


def delta_bundles(store: ContentStore, inputs: Mapping[str, Digest]) -> tuple[DeltaBundle, ...]:
    """The delta bundles among a step's inputs; none where the release asks for none."""
    listed = inputs.get("delta_bundles")
    return documents.decode(DeltaBundles, store.read(listed), "delta bundles").bundles if listed else ()


def load_repository(folder: Path) -> Publication | None:
    """The repository's own state, or None if there is none yet."""

    def fetch(path: str) -> bytes | None:
        try:
            return (folder / path).read_bytes()
        except FileNotFoundError:
            return None

    state = read_state(fetch)
    return as_publication(state) if state else None


def save_repository(folder: Path, publication: Publication) -> None:
    """Keep a publication as the repository's own state, its timestamp last."""
    for path, data in state_files(publication).items():
        place = folder / path
        place.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(place, data)


@dataclass(frozen=True, slots=True)
class _Stage:
    store: ContentStore
    setting: StageSetting

    def __call__(self, work: StageWork, inputs: Mapping[str, Digest], progress: Progress) -> Outcome:
        setting, release = self.setting, self.setting.release
        now = setting.clock.now_us()
        bundles = [
            open_signed(self.store.path(digest), setting.keys, now)
            for name, digest in sorted(inputs.items())
            if name.startswith("swu:")
        ]
        check_train(TrainSpec.of(release, inputs["policy"]), bundle_results(bundles, release))
        deltas = delta_bundles(self.store, inputs)
        full, with_deltas = bundles, [open_signed(self.store.path(one.swu), setting.keys, now) for one in deltas]
        bundles = [*full, *with_deltas]
        dossier = self._dossier(inputs["dossier"], bundles, now)
        # Every mirror is opened before anything is claimed or signed: one that cannot be used changes nothing.
        with setting.mirrors() as mirrors:
            census = inputs.get("census")
            claim_sequence(setting.database, release, setting.content, str(census) if census else "")
            publication = self._publication([bundle.listed for bundle in bundles])
            reference = self._reference(publication)
            files = [
                *(StagedFile(b.listed.path, b.path, b.contents.digest, b.contents.size) for b in bundles),
                dossier,
                *(StagedFile.of_bytes(path, data) for path, data in reference.files.items()),
                *(StagedFile.of_bytes(path, data) for path, data in publication.files.items()),
            ]
            report = stage(
                files, mirrors, lambda mirror, name, done, total: progress(f"{mirror}: {name}", done / max(total, 1))
            )
        receipt = canonical.encode(
            {
                "bundles": [
                    {"name": b.listed.name, "path": b.listed.path, "swu": str(b.contents.digest)} for b in full
                ],
                "deltas": [{"swu": str(one.swu), "from": list(one.serves.sequences)} for one in deltas],
                "timestamp": str(digest_bytes(publication.timestamp)),
            }
        )
        outputs = {
            "staged": self.store.put_bytes(receipt),
            "timestamp": self.store.put_bytes(publication.timestamp),
        }
        return Outcome(
            outputs,
            {
                "mirrors": len(release.mirrors),
                "files_uploaded": len(report.uploaded),
                "files_already_there": len(report.verified),
                "reference_dialect": (
                    f"not in the reference dialect: {reference.why_not}" if reference.why_not else "in both dialects"
                ),
                "size": report.sent_bytes,
            },
        )

    def _dossier(self, digest: Digest, bundles: list[SignedBundle], now_us: int) -> StagedFile:
        """The release's dossier as a file beside the bundles, if it certifies every one of them."""
        setting, data = self.setting, self.store.read(digest)
        dossier = read_dossier(data, "dossier")
        certificate = open_certificate(dossier, setting.keys.ca_pem(), now_us)
        expect_release(certificate, setting.release.name, setting.release.sequence)
        certified = by_name(dossier.leaves)
        for bundle in bundles:
            expect_leaf(certified, LeafKind.BUNDLE, bundle.filename, bundle.contents.digest)
        name = dossier_name(setting.release.name, setting.release.sequence)
        return StagedFile.of_bytes(f"targets/{digest.hex}.{name}", data)

    def _publication(self, wanted: list[ListedBundle]) -> Publication:
        """Metadata that list the bundles: the kept ones if they do already, so that repeating changes nothing."""
        setting = self.setting
        kept = load_repository(setting.repository)
        if kept is None:
            kept = create_repository(setting.keys, setting.clock, setting.passphrase)
        known = listed_bundles(kept.state, setting.keys)
        reported = highest_reported(setting.database.reader)
        current = not needs_renewal(kept.state, setting.clock.now_us()) and not is_behind(kept.state, setting.keys)
        if set(wanted) <= set(known) and current and not is_below(kept.state, reported):
            return kept
        new = add_targets(kept.state, wanted, setting.keys, setting.clock, setting.passphrase, reported=reported)
        save_repository(setting.repository, new)
        return new

    def _reference(self, publication: Publication) -> ReferenceImage:
        """The same metadata for clients of the reference dialect; kept, since its roots cannot be made twice."""
        setting = self.setting

        def kept(path: str) -> bytes | None:
            place = setting.repository / path
            return place.read_bytes() if place.exists() else None

        made = reference_image(publication.state, setting.keys, kept, setting.passphrase)
        for path, data in made.files.items():
            place = setting.repository / path
            place.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(place, data)
        return made


def stage_step(store: ContentStore, setting: StageSetting) -> Step[StageWork]:
    """The step."""
    return Step(StepName.STAGE, 3, False, StageWork, _Stage(store, setting))
