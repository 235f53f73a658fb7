"""What must agree between a bundle's three statements: ``sw-description``, ``bundle.json``, artifact manifests.

The signer looks before it signs, the reader after it verified. Pure: typed values in, one refusal out.
"""

from __future__ import annotations

from collections.abc import Mapping

from nwmctl.domain.artifact import ArtifactManifest
from nwmctl.domain.bundle import BUNDLE_MANIFEST_NAME, BundleManifest
from nwmctl.domain.digest import Digest
from nwmctl.errors import BundleContentsError
from nwmctl.formats.swu import SwDescription


def check_coherence(
    description: SwDescription,
    manifest: BundleManifest,
    manifest_digest: Digest,
    artifacts: Mapping[Digest, ArtifactManifest],
) -> None:
    """Return if all three agree and nothing is listed that no manifest explains. Raises BundleContentsError.

    ``manifest_digest`` is the digest of ``bundle.json``; ``artifacts`` are the artifact manifests by their digests.
    """
    said = (manifest.release, manifest.sequence, manifest.board, manifest.revisions)
    signed = (description.release, description.sequence, description.board, description.revisions)
    if said != signed:
        raise _refuse(f"{BUNDLE_MANIFEST_NAME} says {said}, sw-description says {signed}")
    listed = {file.filename: file.digest for file in description.files}
    if listed.get(BUNDLE_MANIFEST_NAME) != manifest_digest:
        raise _refuse(f"sw-description lists another {BUNDLE_MANIFEST_NAME}")
    explained = {BUNDLE_MANIFEST_NAME}
    for name, digest in _named(manifest):
        if listed.get(name) != digest:
            raise _refuse(f"'{name}' is {digest} in {BUNDLE_MANIFEST_NAME} and {listed.get(name)} in sw-description")
        explained.add(name)
    _check_payloads(manifest, artifacts)
    needed = {payload.manifest for payload in manifest.payloads}
    explained |= {name for name, digest in listed.items() if digest in needed}
    for digest in needed - set(listed.values()):
        raise _refuse(f"sw-description lacks the artifact manifest {digest}")
    for name in listed.keys() - explained:
        raise _refuse(f"sw-description lists '{name}', which nothing in {BUNDLE_MANIFEST_NAME} explains")


def _named(manifest: BundleManifest) -> list[tuple[str, Digest]]:
    payloads = [(payload.filename, payload.digest) for payload in manifest.payloads]
    runtimes = [(runtime.filename, runtime.digest) for runtime in manifest.runtimes]
    return payloads + runtimes + [(file.filename, file.digest) for file in manifest.chassis]


def _check_payloads(manifest: BundleManifest, artifacts: Mapping[Digest, ArtifactManifest]) -> None:
    builds = [(payload.variant, payload.build) for payload in manifest.payloads]
    vehicles = [file.vehicle_model for file in manifest.chassis]
    for what, names in (("build", builds), ("vehicle model", vehicles)):
        if not names or len(set(names)) != len(names):
            raise _refuse(f"{BUNDLE_MANIFEST_NAME} lists no {what}, or one twice")
    for payload in manifest.payloads:
        where = f"{payload.variant}/{payload.build}"
        artifact = artifacts.get(payload.manifest)
        if artifact is None:
            raise _refuse(f"the artifact manifest of {where} is missing ({payload.manifest})")
        if (artifact.payload, artifact.size) != (payload.digest, payload.size):
            raise _refuse(f"the artifact manifest of {where} describes another payload")
        if artifact.model != manifest.model:
            raise _refuse(f"the artifact of {where} was compiled from another model ({artifact.model})")
    for digest in artifacts.keys() - {payload.manifest for payload in manifest.payloads}:
        raise _refuse(f"the artifact manifest {digest} belongs to no payload")


def _refuse(why: str) -> BundleContentsError:
    return BundleContentsError(
        "the bundle contradicts itself", why=why, next="fetch the bundle again; if it stays so, build it again"
    )
