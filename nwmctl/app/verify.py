"""What a bundle's bytes establish, and what they cannot."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from nwmctl.app.clock import SystemClock
from nwmctl.app.project import read_file
from nwmctl.app.settings import load_settings
from nwmctl.bundling.read import BundleContents, read_bundle
from nwmctl.errors import KeysNeededError
from nwmctl.trust.cms import verify_cms
from nwmctl.trust.keys import load_keyring


@dataclass(frozen=True, slots=True)
class Verified:
    """A bundle that holds together, what that establishes, and what stays open."""

    contents: BundleContents
    established: tuple[str, ...]
    open: tuple[str, ...]

    def plain(self) -> dict[str, object]:
        """For JSON."""
        manifest = self.contents.manifest
        return {
            "bundle": str(self.contents.digest),
            "size": self.contents.size,
            "release": manifest.release,
            "kind": str(manifest.kind),
            "sequence": manifest.sequence,
            "platform": manifest.platform,
            "model": str(manifest.model),
            "policy": str(manifest.policy),
            "virtual_only": manifest.virtual_only,
            "established": list(self.established),
            "open": list(self.open),
        }


def verify_bundle(path: Path, authority: Path | None, keys: Path | None) -> Verified:
    """Read a bundle whole. Raises VerificationError subclasses for whatever does not hold."""
    authority_pem = read_file(authority, "authority certificate") if authority else _authority(keys)
    now_us = SystemClock().now_us()
    contents = read_bundle(path, lambda data, signature: verify_cms(data, signature, authority_pem, now_us))
    return Verified(contents, tuple(_established(contents)), tuple(_open(contents)))


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


def _established(contents: BundleContents) -> list[str]:
    manifest = contents.manifest
    lines = [
        "the release authority signed its description",
        f"{len(contents.sizes)} files have the hashes that were signed ({contents.size} bytes in all)",
        f"release {manifest.release}, sequence {manifest.sequence}, for {manifest.platform}",
        f"hardware: board {manifest.board}, revisions {', '.join(manifest.revisions)}",
        f"model {manifest.model_version}, card {manifest.model}",
    ]
    for payload in manifest.payloads:
        artifact = contents.artifacts[payload.manifest]
        lines.append(
            f"{payload.variant}/{payload.build}: {artifact.toolchain_version}, "
            f"{artifact.found_precision} for {artifact.instruction_set.partition(' ')[0]}, "
            f"evidence {payload.evidence.short}"
        )
    lines.append(f"{len(contents.chassis)} chassis adaptations agree with their own worked examples")
    return lines


def _open(contents: BundleContents) -> list[str]:
    lines = [
        "the evidence itself is not in the bundle: its digests are; `nwmctl runs show` finds it in the workspace",
        "that the payload was compiled from the model: its manifest says so; rebuilding by its recipe would show it",
    ]
    if contents.manifest.virtual_only:
        lines.append("fit for a real fleet: NO. Its evidence satisfies the rules of virtual fleets only")
    if any(artifact.jit_in_vehicle for artifact in contents.artifacts.values()):
        lines.append("the code that runs in the car: a driver there compiles the GPU payload further")
    return lines
