"""What single bundles establish, in lines: of their own bytes, and of what lies behind them where no dossier says more.

Says nothing that the reader of bundles has not proven; judges nothing and reads no file.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from nwmctl.bundling.read import BundleContents
from nwmctl.domain.bundle import BundleManifest
from nwmctl.domain.certificate import Certificate, Link, LinkState, LinkTopic
from nwmctl.formats.bundle_names import bundle_filename

_SHOWN = 5


def bundle_links(contents: BundleContents, key: str) -> Iterator[Link]:
    """What was seen in a bundle that was read whole. ``key`` names the payload key that was given, empty for none."""
    manifest, name = contents.manifest, bundle_filename(contents.manifest, contents.description)
    whole = f"{contents.size} bytes in all, {contents.digest.short}"
    texts = [
        f"{name}: the release authority signed its description",
        f"{name}: {len(contents.sizes)} files have the hashes that were signed ({whole})",
        f"release {manifest.release}, sequence {manifest.sequence}, for {manifest.platform}",
        f"hardware: board {manifest.board}, revisions {', '.join(manifest.revisions)}",
        f"model {manifest.model_version}, card {manifest.model}",
        f"{len(contents.chassis)} chassis adaptations agree with their own worked examples",
    ]
    packings = {file.filename: file.packing for file in contents.description.files if file.packing}
    encrypted = [file for file, packing in packings.items() if packing.encrypted]
    opened = [file for file in encrypted if file not in contents.sealed]
    if opened:
        texts.append(f"{manifest.filename}: {_files(opened)} unpack with the key {key} to what was signed")
    for text in texts:
        yield Link(LinkTopic.BUNDLE, LinkState.ESTABLISHED, text)
    closed = [file for file in encrypted if file in contents.sealed]
    if closed:
        text = f"{manifest.filename}: what {_files(closed)} unpack to: encrypted, no key was given (--aes-key)"
        yield Link(LinkTopic.BUNDLE, LinkState.OPEN, text)
    deltas = [file for file in contents.sealed if file not in encrypted]
    if deltas:
        text = (
            f"{name}: that the delta of {_files(deltas)} makes what was signed: it starts from a file in the "
            "vehicle, which is not here (the signing and the certifying process each had it made)"
        )
        yield Link(LinkTopic.BUNDLE, LinkState.OPEN, text)


def unopened(
    certificate: Certificate, manifests: Sequence[BundleManifest], bundles: Sequence[BundleContents]
) -> Iterator[Link]:
    """Encrypted files that nobody opened for the certificate, but for those that were opened here."""
    here = {bundle.manifest.filename: bundle for bundle in bundles}
    for manifest in manifests:
        place = f"{manifest.kind}/{manifest.platform}/"
        names = [name.removeprefix(place) for name in certificate.unopened if name.startswith(place)]
        found = here.get(manifest.filename)
        left = [name for name in names if found is None or name in found.sealed]
        if left:
            text = (
                f"{place[:-1]}: whoever certified it could not open {_files(left)}: their packed bytes alone were seen"
            )
            yield Link(LinkTopic.CERTIFICATE, LinkState.OPEN, text)


def unpapered(bundles: Sequence[BundleContents]) -> Iterator[Link]:
    """What bundles alone say of the rest of the chain."""
    for contents in bundles:
        manifest = contents.manifest
        for payload in manifest.payloads:
            artifact = contents.artifacts[payload.manifest]
            text = (
                f"{payload.variant}/{payload.build}: {artifact.toolchain_version}, {artifact.found_precision} for "
                f"{artifact.instruction_set.partition(' ')[0]}, evidence {payload.evidence.short}"
            )
            yield Link(LinkTopic.ARTIFACT, LinkState.ESTABLISHED, text)
        text = f"the evidence, policy {manifest.policy.short} and model card: their digests are here, their texts not"
        yield Link(LinkTopic.EVIDENCE, LinkState.OPEN, text)
        if manifest.virtual_only:
            text = "fit for a real fleet: NO. Its evidence satisfies the rules of virtual fleets only"
            yield Link(LinkTopic.FITNESS, LinkState.OPEN, text)


def further(contents: BundleContents) -> Iterator[Link]:
    """What happens to a bundle's payloads behind everything that can be verified."""
    if any(artifact.jit_in_vehicle for artifact in contents.artifacts.values()):
        text = "the code that runs in the car: a driver there compiles the GPU payload further"
        yield Link(LinkTopic.FITNESS, LinkState.OPEN, text)


def _files(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"{len(names)} file(s) ({', '.join(names[:_SHOWN])}{more})"
