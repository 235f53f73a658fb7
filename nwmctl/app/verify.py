"""What a bundle, or a whole release, establishes offline: from the bytes in the car back to the trained weights.

Finds the files (bundles, the dossier beside them, the trained model) and the keys, has ``trust.walk`` judge them, and
puts the lines together. Changes nothing and needs no workspace, except where a release file is named: its bundles are
then looked for on the mirrors of this machine.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from nwmctl.app.bundle_links import bundle_links, further, unopened, unpapered
from nwmctl.app.clock import SystemClock
from nwmctl.app.project import read_file
from nwmctl.app.settings import load_settings
from nwmctl.bundling.read import BundleContents, read_bundle
from nwmctl.domain.bundle import BundleKind, BundleManifest
from nwmctl.domain.certificate import LeafKind, Link, LinkState, LinkTopic, dossier_name
from nwmctl.domain.digest import Digest, digest_bytes
from nwmctl.domain.model import CARD_NAME, ModelCard
from nwmctl.domain.release import RETURN_OFFSET, Release
from nwmctl.errors import (
    ChainBrokenError,
    ChainOpenError,
    DossierMissingError,
    FileUnreadableError,
    KeysNeededError,
)
from nwmctl.formats import documents
from nwmctl.formats.bundle_names import bundle_filename
from nwmctl.trust.cms import verify_cms
from nwmctl.trust.dossier import MAX_DOSSIER, expect_leaf, expect_release, open_certificate, read_dossier
from nwmctl.trust.keys import load_keyring
from nwmctl.trust.payload_key import PayloadKey, load_payload_key
from nwmctl.trust.walk import Anchors, Certified, walk

_DOSSIER = ".dossier.json"
_BUNDLE = ".swu"
_DELTA = re.compile(r"-delta-[0-9a-f]{16}(?=\.swu\Z)")


@dataclass(frozen=True, slots=True)
class VerifyOrder:
    """What is verified (``path``: a bundle, a dossier, a folder of both, or a release file) and by what."""

    path: Path
    authority: Path | None = None
    keys: Path | None = None
    dossier: Path | None = None
    release: Path | None = None
    models: tuple[Path, ...] = ()
    workspace: Path | None = None
    safety_keys: tuple[str, ...] = ()
    model_keys: tuple[str, ...] = ()
    complete: bool = False
    aes_key: str = ""
    """URI of the key that opens encrypted payloads; empty for the settings' one, or none."""


@dataclass(frozen=True, slots=True)
class Verified:
    """What held. ``bundles`` were read whole; ``links`` are in the order of the chain."""

    bundles: tuple[BundleContents, ...]
    links: tuple[Link, ...]
    facts: dict[str, object] = field(default_factory=dict)

    def texts(self, state: LinkState) -> list[str]:
        """The lines of one state."""
        return [link.text for link in self.links if link.state is state]

    def plain(self) -> dict[str, object]:
        """For JSON."""
        return {
            **self.facts,
            "established": self.texts(LinkState.ESTABLISHED),
            "open": self.texts(LinkState.OPEN),
            "links": [{"topic": str(one.topic), "state": str(one.state), "text": one.text} for one in self.links],
        }


def verify(order: VerifyOrder) -> Verified:
    """Walk every chain that can be walked. Raises VerificationError subclasses for whatever does not hold,
    DossierMissingError, KeysNeededError, FileUnreadableError, and ChainOpenError where ``complete`` was asked for and
    a link stays open."""
    release = _release(order)
    found = _find(order, release)
    anchors = _anchors(order, release)
    key = _payload_key(order.aes_key)
    bundles = tuple(_read(path, anchors, key) for path in found.bundles)
    certified = _certified(found.dossier, anchors, bundles, release)
    links = [link for bundle in bundles for link in bundle_links(bundle, key.name if key else "")]
    if certified is None:
        links += [Link(LinkTopic.CERTIFICATE, LinkState.OPEN, _NO_DOSSIER), *unpapered(bundles)]
        manifests: list[BundleManifest] = [bundle.manifest for bundle in bundles]
    else:
        anchors = _with_weights(anchors, order.models, certified)
        # A bundle with deltas has the manifest of the full one.
        found_here = {one.manifest.filename: one.manifest for one in bundles}
        manifests = list(found_here.values() or certified.manifests.values())
        for bundle in bundles:
            name = bundle_filename(bundle.manifest, bundle.description)
            expect_leaf(certified.leaves, LeafKind.BUNDLE, name, bundle.digest)
            if name != bundle.manifest.filename:
                text = f"it names the bundle {name}, which brings the same by deltas"
                links.append(Link(LinkTopic.CERTIFICATE, LinkState.ESTABLISHED, text))
        here = {bundle.manifest.filename for bundle in bundles}
        for manifest in manifests:
            if manifest.filename not in here:
                text = f"the bytes of {manifest.filename} (only the dossier was given)"
                links.append(Link(LinkTopic.BUNDLE, LinkState.OPEN, text))
            links += walk(manifest, certified, anchors)
        links += unopened(certified.certificate, manifests, bundles)
    links += [link for bundle in bundles for link in further(bundle)]
    verified = Verified(bundles, tuple(dict.fromkeys(links)), _facts(bundles, certified))
    _refuse_open(verified, order.complete)
    return verified


def opened(order: VerifyOrder) -> Certified:
    """The dossier of an order alone, its certificate and leaves believed. Raises as ``verify``."""
    release = _release(order)
    found = _find(order, release)
    certified = _certified(found.dossier, _anchors(order, release), (), release)
    if certified is None:
        raise DossierMissingError(
            f"there is no dossier for '{order.path.name}'",
            why="none lies in its place",
            next="name the dossier that was published with the release (*.dossier.json)",
        )
    return certified


_NO_DOSSIER = "the release's certificate: no dossier was given, and none lies beside the bundle (--dossier)"


@dataclass(frozen=True, slots=True)
class _Found:
    bundles: tuple[Path, ...]
    dossier: Path | None


def _release(order: VerifyOrder) -> Release | None:
    path = order.release or (order.path if order.path.suffix in (".yaml", ".yml") else None)
    if path is None:
        return None
    return documents.decode_yaml(Release, read_file(path, "release"), path.name)


def _find(order: VerifyOrder, release: Release | None) -> _Found:
    path = order.path
    if path.is_dir():
        return _chosen(path, [path, path / "targets"], order.dossier, None)
    if path.suffix in (".yaml", ".yml"):
        assert release is not None
        root = load_settings(order.workspace).workspace
        uris = [mirror.uri.removeprefix("file:") for mirror in release.mirrors if mirror.uri.startswith("file:")]
        return _chosen(path, [root / uri / "targets" for uri in uris], order.dossier, release)
    if path.name.endswith(_DOSSIER):
        return _Found((), path)
    return _Found((path,), order.dossier or _beside(path))


def _chosen(named: Path, folders: Sequence[Path], dossier: Path | None, release: Release | None) -> _Found:
    """Bundles and dossier of the first folder that has any; of a mirror, those of this release alone."""
    mark = f".{dossier_name(release.name, release.sequence)}" if release else _DOSSIER
    for folder in folders:
        dossiers = sorted(one for one in folder.glob(f"*{_DOSSIER}") if f".{one.name}".endswith(mark))
        bundles = sorted(folder.glob(f"*{_BUNDLE}"))
        if release:
            numbers = [f"-{release.sequence}{_BUNDLE}", f"-{release.return_sequence}-return{_BUNDLE}"]
            mine = [one for one in bundles if f".{release.name}-" in one.name]
            bundles = [one for one in mine if _DELTA.sub("", one.name).endswith(tuple(numbers))]
        if len(dossiers) > 1 and dossier is None:
            raise DossierMissingError(
                f"'{folder.name}' holds {len(dossiers)} dossiers",
                why=", ".join(one.name for one in dossiers)[:300],
                next="name one of them with --dossier, or name its release file",
            )
        if dossiers or bundles:
            return _Found(tuple(bundles), dossier or (dossiers[0] if dossiers else None))
    raise DossierMissingError(
        f"there is nothing to verify for '{named.name}'",
        why="no bundle (*.swu) and no dossier (*.dossier.json) was found in its place",
        next="name a bundle, a dossier, a folder that holds them, or a release that was staged from this workspace",
    )


def _beside(bundle: Path) -> Path | None:
    """The dossier in a bundle's folder that has the name for it, or the only one there; what it is about is checked
    later."""
    found = sorted(bundle.parent.glob(f"*{_DOSSIER}")) if bundle.parent.is_dir() else []
    fitting = [one for one in found if _named_alike(one, bundle)]
    chosen = fitting or found
    return chosen[0] if len(chosen) == 1 else None


def _named_alike(dossier: Path, bundle: Path) -> bool:
    """Whether ``[HEX.]RELEASE-SEQUENCE.dossier.json`` and ``[HEX.]RELEASE-PLATFORM-N[-return].swu`` go together."""
    release, _, number = _bare(dossier.name.removesuffix(_DOSSIER)).rpartition("-")
    name = _bare(_DELTA.sub("", bundle.name).removesuffix(_BUNDLE))
    sequence = int(number) if number.isascii() and number.isdigit() and len(number) < 12 else -1
    ends = (f"-{sequence}", f"-{sequence + RETURN_OFFSET}-return")
    return name.startswith(f"{release}-") and name.endswith(ends)


def _bare(name: str) -> str:
    """Without the digest that a repository puts in front."""
    digest, dot, rest = name.partition(".")
    return rest if dot and len(digest) == 64 else name


def _anchors(order: VerifyOrder, release: Release | None) -> Anchors:
    trust = release.trust if release else None
    return Anchors(
        ca_pem=read_file(order.authority, "authority certificate") if order.authority else _authority(order.keys),
        at_us=SystemClock().now_us(),
        safety_keys=order.safety_keys or (trust.safety_keys if trust else ()),
        model_keys=order.model_keys or (trust.model_keys if trust else ()),
        approver_keys=trust.approver_keys if trust else (),
    )


def _authority(keys: Path | None) -> bytes:
    settings = load_settings(keys=keys)
    folder = settings.keys or settings.development_keys
    if not folder.exists():
        raise KeysNeededError(
            "no release authority is named",
            why="a signature can only be checked against a certificate that you trust",
            next="name its PEM with --authority, or the key folder with --keys",
        )
    return load_keyring(folder).ca_pem()


def _payload_key(uri: str) -> PayloadKey | None:
    found = load_settings(aes_key=uri or None).aes_key
    return load_payload_key(found) if found else None


def _read(path: Path, anchors: Anchors, key: PayloadKey | None) -> BundleContents:
    def verify(data: bytes, signature: bytes) -> None:
        verify_cms(data, signature, anchors.ca_pem, anchors.at_us)

    return read_bundle(path, verify, key.secret if key else None)


def _certified(
    path: Path | None, anchors: Anchors, bundles: Sequence[BundleContents], release: Release | None
) -> Certified | None:
    if path is None:
        return None
    try:
        with path.open("rb") as file:
            data = file.read(MAX_DOSSIER + 1)
    except OSError as problem:
        raise FileUnreadableError(
            f"the dossier '{path}' cannot be read", why=problem.strerror or str(problem), next="correct the path"
        ) from problem
    dossier = read_dossier(data, path.name)
    certificate = open_certificate(dossier, anchors.ca_pem, anchors.at_us)
    if release is not None:
        expect_release(certificate, release.name, release.sequence)
    for bundle in bundles:
        manifest = bundle.manifest
        offset = RETURN_OFFSET if manifest.kind is BundleKind.RETURN else 0
        expect_release(certificate, manifest.release, manifest.sequence - offset)
    return Certified.of(dossier, certificate)


def _with_weights(anchors: Anchors, folders: Sequence[Path], certified: Certified) -> Anchors:
    """The anchors with the digests of the trained models' files, of those whose folders were named."""
    weights = {place: digest for folder in folders for place, digest in _weights(folder, certified).items()}
    return replace(anchors, weights=weights)


def _weights(folder: Path, certified: Certified) -> dict[str, Digest]:
    card_bytes = read_file(folder / CARD_NAME, "model card")
    model = digest_bytes(card_bytes)
    kinds = [kind for kind in BundleKind if certified.leaves.get((LeafKind.MODEL, str(kind))) == model]
    if not kinds:
        raise ChainBrokenError(
            f"'{folder.name}' is no model of this release",
            why=f"its card is {model.short}, which the certificate does not name",
            next="name the folder of the model that the release deploys, or of the one that it returns to",
        )
    card = documents.decode(ModelCard, card_bytes, CARD_NAME)
    own = {role: _digest(folder / entry.path) for role, entry in card.files.items() if role.startswith("weights")}
    return {f"{kind}/{role}": digest for kind in kinds for role, digest in own.items()}


def _digest(path: Path) -> Digest:
    try:
        with path.open("rb") as file:
            return Digest(hashlib.file_digest(file, "sha256").hexdigest())
    except OSError as problem:
        raise FileUnreadableError(
            f"the model's file '{path}' cannot be read",
            why=problem.strerror or str(problem),
            next="complete the folder",
        ) from problem


def _facts(bundles: Sequence[BundleContents], certified: Certified | None) -> dict[str, object]:
    facts: dict[str, object] = {}
    if len(bundles) == 1:
        manifest = bundles[0].manifest
        facts |= {
            "bundle": str(bundles[0].digest),
            "size": bundles[0].size,
            "release": manifest.release,
            "kind": str(manifest.kind),
            "sequence": manifest.sequence,
            "platform": manifest.platform,
            "model": str(manifest.model),
            "policy": str(manifest.policy),
            "virtual_only": manifest.virtual_only,
        }
    if certified is not None:
        certificate = certified.certificate
        facts["certificate"] = {
            "release": certificate.release,
            "sequence": certificate.sequence,
            "root": str(certificate.root),
            "leaves": certificate.leaves,
            "key": certified.key,
            "status": certificate.status,
            "virtual_only": certificate.virtual_only,
            "development": certificate.development,
        }
    return facts


def _refuse_open(verified: Verified, complete: bool) -> None:
    """What is said about fitness is no link: it is never 'established'."""
    left = [one for one in verified.links if one.state is LinkState.OPEN and one.topic is not LinkTopic.FITNESS]
    if complete and left:
        raise ChainOpenError(
            f"{len(left)} link(s) of the chain stay open",
            why="\n        ".join(f"{one.topic}: {one.text}" for one in left[:20]),
            next="give what is missing (see `nwmctl verify --help`), or leave out --complete",
        )
