"""Decides what a bundle holds, under which names, and what SWUpdate is told about it.

Pure: artifacts, evidence digests and rendered chassis files in, a whole plan out; the same inputs give the same
bytes. Every build of every compute variant has exactly one artifact, every vehicle model its chassis file. Payload
and manifest names come from their digests, so a payload that two builds share is in the bundle once. Writes nothing
and signs nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from nwmctl.bundling.terms import carried, required
from nwmctl.domain.artifact import ArtifactManifest
from nwmctl.domain.bundle import (
    BUNDLE_MANIFEST_NAME,
    BundleKind,
    BundleManifest,
    BundleTerms,
    ChassisFile,
    Payload,
)
from nwmctl.domain.digest import Digest, digest_bytes
from nwmctl.domain.platform import PlatformProfile
from nwmctl.errors import BundlePlanError
from nwmctl.formats import documents
from nwmctl.formats.cpio import plain_name
from nwmctl.formats.swu import InstalledFile, SwDescription, render_description
from nwmctl.trust.coherence import check_coherence


@dataclass(frozen=True, slots=True)
class BuiltArtifact:
    """The artifact of one build, and the digest of the evidence about it."""

    variant: str
    build: str
    manifest: ArtifactManifest
    evidence: Digest


@dataclass(frozen=True, slots=True)
class BundleInputs:
    """Everything that decides a bundle. ``chassis`` maps vehicle model codes to rendered adaptations;
    ``runtime_sizes`` gives the bytes of each runtime that the terms carry, by its name."""

    release: str
    kind: BundleKind
    sequence: int
    profile: PlatformProfile
    model: Digest
    model_version: str
    policy: Digest
    artifacts: tuple[BuiltArtifact, ...]
    chassis: Mapping[str, bytes]
    virtual_only: bool
    terms: BundleTerms = field(default_factory=BundleTerms)
    runtime_sizes: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class BundlePlan:
    """A bundle before it is signed. ``documents`` are the small files by name; ``payloads`` the large ones, whose
    bytes lie elsewhere under their digest. ``description_bytes`` are what has to be signed."""

    manifest: BundleManifest
    description: SwDescription
    documents: Mapping[str, bytes]
    payloads: Mapping[str, Digest]

    @property
    def manifest_bytes(self) -> bytes:
        """The bytes of ``bundle.json``."""
        return self.documents[BUNDLE_MANIFEST_NAME]

    @property
    def description_bytes(self) -> bytes:
        """The bytes of ``sw-description``."""
        return render_description(self.description)


def plan_bundle(inputs: BundleInputs) -> BundlePlan:
    """The plan of one platform's bundle. Raises BundlePlanError, BundleContentsError."""
    _check_builds(inputs)
    _check_names(inputs)
    manifests = {digest_bytes(data): data for data in (documents.encode(a.manifest) for a in inputs.artifacts)}
    artifact_files = {_artifact_name(digest): data for digest, data in manifests.items()}
    chassis_files = {_chassis_name(code): data for code, data in sorted(inputs.chassis.items())}
    payloads = {_payload_name(built.manifest): built.manifest.payload for built in inputs.artifacts}
    manifest = _manifest(inputs)
    payloads |= {runtime.filename: runtime.digest for runtime in manifest.runtimes}
    files = {BUNDLE_MANIFEST_NAME: documents.encode(manifest), **dict(sorted(artifact_files.items())), **chassis_files}
    try:
        description = SwDescription(
            release=inputs.release,
            sequence=inputs.sequence,
            board=inputs.profile.board,
            revisions=manifest.revisions,
            slot_a=inputs.profile.slots.a,
            slot_b=inputs.profile.slots.b,
            files=(
                *(InstalledFile(name, digest_bytes(data)) for name, data in files.items()),
                *(InstalledFile(name, digest) for name, digest in sorted(payloads.items())),
            ),
        )
    except ValueError as problem:
        raise _refuse(inputs, str(problem), "correct the release's name or the platform's profile") from problem
    artifacts = {digest_bytes(documents.encode(a.manifest)): a.manifest for a in inputs.artifacts}
    check_coherence(description, manifest, digest_bytes(files[BUNDLE_MANIFEST_NAME]), artifacts)
    return BundlePlan(manifest, description, files, dict(sorted(payloads.items())))


def _manifest(inputs: BundleInputs) -> BundleManifest:
    needs = [(built.variant, built.manifest.needs) for built in inputs.artifacts]
    try:
        runtimes = carried(inputs.terms, needs, inputs.runtime_sizes)
        requires = required(inputs.terms, needs)
    except ValueError as problem:
        next = "correct 'runtimes:' or 'requires:' in the release file"
        raise _refuse(inputs, str(problem), next) from problem
    return BundleManifest(
        release=inputs.release,
        kind=inputs.kind,
        sequence=inputs.sequence,
        platform=inputs.profile.name,
        board=inputs.profile.board,
        revisions=tuple(dict.fromkeys(variant.revision for variant in inputs.profile.variants)),
        model=inputs.model,
        model_version=inputs.model_version,
        policy=inputs.policy,
        payloads=tuple(
            _payload(built, inputs.profile)
            for built in sorted(inputs.artifacts, key=lambda built: (built.variant, built.build))
        ),
        chassis=tuple(
            ChassisFile(_chassis_name(code), digest_bytes(data), len(data), code)
            for code, data in sorted(inputs.chassis.items())
        ),
        virtual_only=inputs.virtual_only,
        requires=requires,
        runtimes=runtimes,
        markets=inputs.terms.markets,
    )


def _payload(built: BuiltArtifact, profile: PlatformProfile) -> Payload:
    build = profile.build(built.variant, built.build)
    assert build is not None, "_check_builds has looked"
    return Payload(
        filename=_payload_name(built.manifest),
        digest=built.manifest.payload,
        size=built.manifest.size,
        variant=built.variant,
        build=built.build,
        manifest=digest_bytes(documents.encode(built.manifest)),
        evidence=built.evidence,
        roles=build.roles,
    )


def _payload_name(manifest: ArtifactManifest) -> str:
    return f"payload-{manifest.payload.hex[:16]}.{manifest.format}"


def _artifact_name(digest: Digest) -> str:
    return f"artifact-{digest.hex[:16]}.json"


def _chassis_name(code: str) -> str:
    return f"chassis-{code}.json"


def _check_builds(inputs: BundleInputs) -> None:
    wanted = {(variant.name, build.name) for variant in inputs.profile.variants for build in variant.builds}
    given = [(built.variant, built.build) for built in inputs.artifacts]
    for variant, build in sorted(wanted - set(given)):
        raise _refuse(inputs, f"the artifact of {variant}/{build} is missing", "compile and validate this build first")
    for variant, build in given:
        if (variant, build) not in wanted or given.count((variant, build)) > 1:
            why = f"{variant}/{build} is not a build of the profile, or has two artifacts"
            raise _refuse(inputs, why, "give one artifact per build of the platform's profile")
    for built in inputs.artifacts:
        if built.manifest.model != inputs.model:
            why = f"the artifact of {built.variant}/{built.build} was compiled from {built.manifest.model.short}"
            raise _refuse(inputs, f"{why}, not from {inputs.model.short}", "compile the release's model")
    if not inputs.chassis:
        why = f"no vehicle model of the catalogue is on '{inputs.profile.name}'"
        raise _refuse(inputs, why, "add the vehicle models to the catalogue, or leave the platform out of the release")


def _check_names(inputs: BundleInputs) -> None:
    """Names hold 16 digits of a digest; two files that share them would be one."""
    contents: dict[str, set[Digest]] = {}
    for built in inputs.artifacts:
        encoded = digest_bytes(documents.encode(built.manifest))
        contents.setdefault(_artifact_name(encoded), set()).add(encoded)
        contents.setdefault(_payload_name(built.manifest), set()).add(built.manifest.payload)
    runtimes = [runtime.file for runtime in inputs.terms.runtimes]
    for name in (*contents, *(_chassis_name(code) for code in inputs.chassis), *runtimes):
        if not plain_name(name):
            raise _refuse(inputs, f"'{name}' cannot be a file's name", "use letters, digits and ._- in names")
        if len(contents.get(name, ())) > 1:
            raise _refuse(inputs, f"two different files would be '{name}'", "change one of the recipes")


def _refuse(inputs: BundleInputs, why: str, next: str) -> BundlePlanError:
    return BundlePlanError(f"the bundle of '{inputs.profile.name}' cannot be put together", why=why, next=next)
