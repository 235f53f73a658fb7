"""Everything that a release file refers to, read and checked before anything starts.

A project is a value: the release, its platform profiles and catalogue, the policy with its verified signature, and
the rules that follow. Reading it changes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from nwmctl.agent.building import SearchOrder
from nwmctl.agent.plan import PlanRequest, build_plan
from nwmctl.app.recipes import Pinned, pin
from nwmctl.domain.delta import FleetCensus
from nwmctl.domain.digest import Digest, digest_bytes
from nwmctl.domain.evidence import Check
from nwmctl.domain.platform import Catalogue, PlatformProfile
from nwmctl.domain.policy import FleetRules, Policy, tightened
from nwmctl.domain.release import Release
from nwmctl.domain.requires import RuntimeFile
from nwmctl.domain.step import PlannedStep
from nwmctl.errors import (
    FileUnreadableError,
    JudgeUnknownError,
    PolicySignatureError,
    RuntimeFileError,
    SchemaError,
    VerificationError,
)
from nwmctl.formats import canonical, documents, yamldoc
from nwmctl.formats.platform_files import PlatformFiles, parse_platform_files
from nwmctl.storage.content import ContentStore
from nwmctl.storage.resources import templates_folder


@dataclass(frozen=True, slots=True)
class Project:
    """A release with all that it names. ``base`` is the folder that its relative paths start from."""

    base: Path
    release: Release
    release_bytes: bytes
    profiles: dict[str, PlatformProfile]
    catalogue: Catalogue
    policy: Policy
    policy_bytes: bytes
    policy_envelope: bytes
    chassis_template: bytes
    rules: FleetRules
    pinned: frozenset[str] = frozenset()
    """Builds whose recipes the release pins; they stand in ``profiles`` already."""

    @property
    def digest(self) -> Digest:
        """Identifies the release and everything that it names and is read here, whatever the files look like."""
        names = self.release.platforms
        parts = {
            "release": documents.encode(self.release),
            "policy": self.policy_bytes,
            "chassis_template": self.chassis_template,
            **{f"profile {name}": documents.encode(self.profiles[name]) for name in names},
            **{f"catalogue {name}": documents.encode(Catalogue(self.catalogue.on(name))) for name in names},
        }
        return digest_bytes(canonical.encode({name: str(digest_bytes(data)) for name, data in parts.items()}))

    def plan(
        self, store: ContentStore, search: SearchOrder | None = None, census: FleetCensus | None = None
    ) -> tuple[PlannedStep, ...]:
        """The whole plan; puts the documents that steps read into the store. ``census`` is what deltas are planned by,
        for a release that asks for some. Raises RuntimeFileError."""
        names = self.release.platforms
        for runtime in self.release.runtimes:
            _keep_runtime(self.base, runtime, store)
        request = PlanRequest(
            release=self.release,
            profiles=self.profiles,
            rules=self.rules,
            profile_digests={name: store.put_bytes(documents.encode(self.profiles[name])) for name in names},
            catalogue_digests={
                name: store.put_bytes(documents.encode(Catalogue(self.catalogue.on(name)))) for name in names
            },
            chassis_template=store.put_bytes(self.chassis_template),
            policy=store.put_bytes(self.policy_bytes),
            policy_signature=store.put_bytes(self.policy_envelope),
            judges=self.policy.judges,
            search=search,
            census=store.put_bytes(documents.encode(census)) if census else None,
            pinned=self.pinned,
        )
        return build_plan(request)


def _keep_runtime(base: Path, runtime: RuntimeFile, store: ContentStore) -> None:
    """Bring a runtime that the release carries into the store."""
    if store.has(runtime.digest):
        return
    path = base / runtime.file
    found = digest_bytes(read_file(path, f"runtime '{runtime.name}'"))
    if found != runtime.digest:
        raise RuntimeFileError(
            f"'{path.name}' is not the runtime {runtime.name} {runtime.version} that the release pins",
            why=f"it is {found}, the release says {runtime.digest}",
            next="fetch the pinned file again, or correct its digest under 'runtimes:' after checking where it is from",
        )
    store.put_file(path)


def read_file(path: Path, what: str) -> bytes:
    """A file's bytes. Raises FileUnreadableError."""
    try:
        return path.read_bytes()
    except OSError as problem:
        raise FileUnreadableError(
            f"{what} '{path}' cannot be read",
            why=problem.strerror or str(problem),
            next="correct the path; relative paths in a release start at the release's own folder",
        ) from problem


def load_platforms(folder: Path) -> PlatformFiles:
    """All profiles and catalogues of a folder. Raises SchemaError, FileUnreadableError."""
    files = {path.name: read_file(path, "platform file") for path in sorted(folder.glob("*.yaml"))}
    if not files:
        raise FileUnreadableError(
            f"no platform profiles in '{folder}'",
            why="there is no *.yaml file in that folder",
            next="name the right folder with --platforms, or leave the option out for the embedded profiles",
        )
    return parse_platform_files(files)


def load_project(path: Path, platforms: Path) -> Project:
    """Read a release and all it names; verify the policy's signature. Raises InputError, VerificationError and
    RefusedError subclasses."""
    data = read_file(path, "release")
    release = documents.decode_yaml(Release, data, path.name)
    files = load_platforms(platforms)
    _refuse_unknown_platforms(release, data, path.name, files)
    policy_path = path.parent / release.policy
    policy_bytes = read_file(policy_path, "policy")
    envelope = read_file(policy_path.with_name(policy_path.name + ".sig"), "policy signature")
    _verify_policy(policy_bytes, envelope, release, policy_path.name)
    policy = documents.decode_yaml(Policy, policy_bytes, policy_path.name)
    _refuse_unknown_judges(release, data, path.name, policy)
    rules = tightened(policy.rules(virtual=release.fleet.virtual), release.tighten.platforms, release.tighten.approvals)
    pinned = _pinned(path, release, {name: files.profiles[name] for name in release.platforms})
    return Project(
        base=path.parent.resolve(),
        release=release,
        release_bytes=data,
        profiles=pinned.profiles,
        catalogue=files.catalogue,
        policy=policy,
        policy_bytes=policy_bytes,
        policy_envelope=envelope,
        chassis_template=read_file(templates_folder() / "chassis.json.j2", "chassis template"),
        rules=rules,
        pinned=pinned.places,
    )


def _pinned(path: Path, release: Release, profiles: dict[str, PlatformProfile]) -> Pinned:
    """The profiles, with the recipes that the release pins. Raises SchemaError, FileUnreadableError."""
    if not release.recipes:
        return Pinned(profiles, frozenset())
    place = path.parent / release.recipes
    return pin(read_file(place, "recipe file"), place.name, release, profiles)


def _refuse_unknown_platforms(release: Release, data: bytes, name: str, files: PlatformFiles) -> None:
    for index, platform in enumerate(release.platforms):
        if platform not in files.profiles:
            _, source = yamldoc.parse(data, name)
            raise SchemaError(
                f"{source.at(('platforms', index))}: there is no platform '{platform}'",
                why=f"known platforms are {', '.join(sorted(files.profiles))}",
                next="correct the name, or add a profile for it (see `nwmctl platforms list`)",
            )


def _refuse_unknown_judges(release: Release, data: bytes, name: str, policy: Policy) -> None:
    """A release chooses among the judges whom the safety role trusts, and never brings its own."""
    trusted = {judge.name: judge.checks for judge in policy.judges}
    for index, source in enumerate(release.judges):
        asked = (Check.LOG_REPLAY,) if source.log else source.checks
        beyond = [check for check in asked if check not in trusted.get(source.name, asked)]
        unknown = [place for place in source.platforms if place not in release.platforms]
        if source.name in trusted and not beyond and not unknown:
            continue
        _, lines = yamldoc.parse(data, name)
        where = f"{lines.at(('judges', index))}: judge '{source.name}'"
        if unknown:
            what, why = f"is asked about '{unknown[0]}'", f"the release goes to {', '.join(release.platforms)}"
        elif beyond:
            what, why = f"is asked for '{beyond[0]}'", f"the policy trusts it with {', '.join(trusted[source.name])}"
        else:
            what, why = "is not trusted by the policy", f"it trusts {', '.join(trusted) or 'no outside judge'}"
        raise JudgeUnknownError(
            f"{where} {what}",
            why=why,
            next="correct the entry, or have the safety role sign a policy that trusts this judge (see docs/judges.md)",
        )


def _verify_policy(policy: bytes, envelope: bytes, release: Release, name: str) -> None:
    from nwmctl.trust.dsse import POLICY_TYPE, verify_dsse

    try:
        verified = verify_dsse(envelope, POLICY_TYPE, release.trust.safety_keys)
    except VerificationError as problem:
        raise PolicySignatureError(
            f"the signature of '{name}' does not hold: {problem.what}",
            why=problem.why,
            next="have the safety role sign this policy: `nwmctl keys sign` (see docs/trust.md)",
        ) from problem
    if verified.payload != policy:
        raise PolicySignatureError(
            f"'{name}' is not what the safety role signed",
            why="the file and the signed bytes differ",
            next="restore the signed file, or have the safety role sign the new one with `nwmctl keys sign`",
        )
