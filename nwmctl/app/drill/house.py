"""Builds the honest house of a drill: keys, small real bundles, a real repository and a director.

Everything is made by the product's own code, as a release makes it; only the payload is a few kilobytes of noise that
nothing executes. The keys are new, live in the drill's own folder and go with it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from nwmctl.app.project import load_platforms, read_file
from nwmctl.bundling.bundle import BuiltArtifact, BundleInputs, plan_bundle
from nwmctl.bundling.chassis import TEMPLATE_NAME, render_chassis
from nwmctl.bundling.write import write_bundle
from nwmctl.domain.artifact import ArtifactManifest, Recipe, RuntimeNeeds
from nwmctl.domain.bundle import BundleKind, BundleTarget
from nwmctl.domain.clock import Clock
from nwmctl.domain.digest import digest_bytes
from nwmctl.domain.keys import KeyRole
from nwmctl.domain.platform import PlatformProfile, Slots, VehicleModel
from nwmctl.formats.uptane import Dialect, Directed, Ecu, ecu_identifiers, expiry_text
from nwmctl.storage.resources import platforms_folder, templates_folder
from nwmctl.trust.attacks.scene import House, MadeBundle
from nwmctl.trust.attacks.staging import CURRENT, NEWER, OLDER
from nwmctl.trust.cms import sign_cms
from nwmctl.trust.director import LIFETIME_US, DirectorKeys, Order
from nwmctl.trust.director_root import next_root
from nwmctl.trust.keys import KeyRing, init_keys
from nwmctl.trust.metadata import ListedBundle
from nwmctl.trust.repository import Publication, add_targets, create_repository, rotate_keys
from nwmctl.vehicle.record import VehicleRecord
from nwmctl.vehicle.uptane import ecus_of

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

RELEASE = "drill"
PLATFORM = "virtual"
_DAY_US = 86_400_000_000
_MADE_AGO_US = 10 * _DAY_US
_PAYLOAD_BYTES = 16_384
_FOREIGN_BOARD = "other-board"
_VIN = "DRILL0000000CAR01"
_RUNTIME = RuntimeNeeds("onnxruntime", "1.0")


@dataclass(frozen=True, slots=True)
class At:
    """A clock that stands at ``time_us``."""

    time_us: int

    def now_us(self) -> int:
        """The time at which it stands."""
        return self.time_us

    def monotonic(self) -> float:
        """No time passes."""
        return 0.0


@dataclass(frozen=True, slots=True)
class Car:
    """The vehicle that the bundles are for."""

    record: VehicleRecord
    profile: PlatformProfile
    model: VehicleModel

    @property
    def hardware(self) -> dict[str, str]:
        """Serial -> hardware id of its computers, as its director knows them."""
        return ecus_of(self.record)


def make_car(folder: Path) -> Car:
    """The virtual platform's vehicle, with its slots below ``folder``."""
    files = load_platforms(platforms_folder())
    profile = replace(files.profiles[PLATFORM], slots=Slots(f"{folder}/a", f"{folder}/b"))
    model = files.catalogue.on(PLATFORM)[0]
    variant = next(one for one in profile.variants if one.name == model.variant)
    record = VehicleRecord(
        _VIN, model.code, profile.name, variant.name, profile.board, variant.revision, "drill", 1,
        runtimes={_RUNTIME.runtime: _RUNTIME.version},
    )  # fmt: skip
    return Car(record, profile, model)


def make_house(folder: Path, car: Car, clock: Clock) -> House:
    """The house of one drill; ``folder`` must be new. Takes a second or two: it makes RSA keys."""
    folder.mkdir(parents=True, exist_ok=True)
    early = At(clock.now_us() - _MADE_AGO_US)
    ring = init_keys(folder / "keys", early, list(KeyRole), development=True, platforms=(PLATFORM,))
    bundles = {n: _bundle(folder, car.profile, car.model, n, ring) for n in (OLDER, CURRENT, NEWER)}
    foreign = _bundle(folder, replace(car.profile, board=_FOREIGN_BOARD), car.model, NEWER + 1, ring)
    factory = create_repository(ring, early)
    current = _after(factory, add_targets(factory.state, [bundles[CURRENT].listed], ring, clock))
    newer = _after(current, add_targets(current.state, [bundles[NEWER].listed], ring, clock))

    @cache
    def rotated() -> Publication:
        roles = [KeyRole.ROOT, KeyRole.TARGETS, KeyRole.SNAPSHOT, KeyRole.TIMESTAMP]
        new = init_keys(folder / "rotated", clock, roles, development=True, platforms=(PLATFORM,))
        return _after(newer, rotate_keys(newer.state, ring, new, clock))

    def relist(publication: Publication, bundle: MadeBundle, at_us: int) -> Publication:
        return _after(publication, add_targets(publication.state, [bundle.listed], ring, At(at_us)))

    return House(
        ring=ring,
        clock=clock,
        hardware=car.hardware,
        bundles=bundles,
        foreign=foreign,
        factory=factory,
        current=current,
        newer=newer,
        director=_director(ring, clock),
        expired_cms=_expired(folder / "keys", early),
        stranger_cms=_stranger(early),
        rotated=rotated,
        relist=relist,
    )


def _after(before: Publication, publication: Publication) -> Publication:
    """What a mirror has: the older files stay."""
    return replace(publication, files={**before.files, **publication.files})


def _bundle(folder: Path, profile: PlatformProfile, model: VehicleModel, sequence: int, ring: KeyRing) -> MadeBundle:
    payloads: dict[str, bytes] = {}
    built = []
    for variant in profile.variants:
        for build in variant.builds:
            data = _noise(f"{sequence} {variant.name} {build.name}")
            payloads[digest_bytes(data).hex] = data
            manifest = _artifact(data, build.recipes[0])
            built.append(BuiltArtifact(variant.name, build.name, manifest, digest_bytes(b"no evidence: a drill")))
    template = read_file(templates_folder() / TEMPLATE_NAME, "chassis template").decode()
    plan = plan_bundle(
        BundleInputs(
            release=RELEASE,
            kind=BundleKind.RELEASE,
            sequence=sequence,
            profile=profile,
            model=digest_bytes(b"model of the drill"),
            model_version="0",
            policy=digest_bytes(b"policy of the drill"),
            artifacts=tuple(built),
            chassis={model.code: render_chassis(model, template, profile.envelope)},
            virtual_only=True,
        )
    )
    store = folder / "store"
    store.mkdir(exist_ok=True)
    for name, data in payloads.items():
        (store / name).write_bytes(data)
    out = folder / f"{profile.board}-{plan.manifest.filename}"
    write_bundle(plan, sign_cms(plan.description_bytes, ring), lambda digest: store / digest.hex, out)
    data = out.read_bytes()
    about = BundleTarget.of(plan.manifest)
    return MadeBundle(ListedBundle(plan.manifest.filename, len(data), digest_bytes(data), about), data)


def _noise(seed: str) -> bytes:
    """Bytes that do not compress and are the same for the same seed."""
    return b"".join(
        bytes.fromhex(digest_bytes(f"{seed} {number}".encode()).hex) for number in range(_PAYLOAD_BYTES // 32)
    )


def _artifact(data: bytes, recipe: Recipe) -> ArtifactManifest:
    return ArtifactManifest(
        model=digest_bytes(b"model of the drill"),
        recipe=recipe,
        payload=digest_bytes(data),
        size=len(data),
        format="onnx",
        argv=("noise",),
        toolchain_version="0",
        instruction_set="none",
        found={},
        found_precision=recipe.precision,
        needs=_RUNTIME,
    )


def _director(ring: KeyRing, clock: Clock) -> Callable[[MadeBundle, int, Mapping[str, str]], Mapping[str, bytes]]:
    signer = DirectorKeys(ring.folder).open()
    root = next_root(ring, None, clock.now_us()).tuf
    nobody = f"ed25519:{'0' * 64}"

    def files(bundle: MadeBundle, version: int, hardware: Mapping[str, str]) -> Mapping[str, bytes]:
        listed = bundle.listed
        ecus = ecu_identifiers([Ecu(serial, board, nobody) for serial, board in hardware.items()])
        wanted = Directed(listed.name, listed.length, listed.digest.hex, listed.about.sequence)
        text = signer.sign(Order(Dialect.TUF, ecus, wanted, version), expiry_text(clock.now_us() + LIFETIME_US))
        return {"1.root.json": root, "targets.json": text.encode()}

    return files


def _expired(keys: Path, early: Clock) -> Callable[[bytes], bytes]:
    """Signs with the real release key, whose certificate held for a day."""
    from nwmctl.trust.authority import issue_leaf

    leaf_key, ca_key = _rsa(keys / "release.pem"), _rsa(keys / "release-ca.pem")
    authority = (keys / "release-ca.crt").read_bytes()
    leaf = issue_leaf(ca_key, authority, leaf_key.public_key(), early.now_us(), days=1)
    return lambda description: _cms(description, leaf, leaf_key)


def _stranger(early: Clock) -> Callable[[bytes], bytes]:
    from nwmctl.trust.authority import make_authority

    other = make_authority(early.now_us())
    return lambda description: _cms(description, other.leaf_pem, other.leaf_key)


def _rsa(path: Path) -> RSAPrivateKey:
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    key = load_pem_private_key(path.read_bytes(), None)
    assert isinstance(key, RSAPrivateKey)
    return key


def _cms(description: bytes, leaf_pem: bytes, key: RSAPrivateKey) -> bytes:
    """A detached signature by the library's own builder: attackers do not use ours."""
    from cryptography import x509
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.serialization import Encoding, pkcs7

    leaf = x509.load_pem_x509_certificate(leaf_pem)
    options = [pkcs7.PKCS7Options.DetachedSignature, pkcs7.PKCS7Options.Binary, pkcs7.PKCS7Options.NoAttributes]
    builder = pkcs7.PKCS7SignatureBuilder().set_data(description).add_signer(leaf, key, SHA256())
    return builder.sign(Encoding.DER, options)
