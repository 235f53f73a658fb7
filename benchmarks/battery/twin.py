"""A clean artifact of another toolchain: the twin of a vehicle's CPU build, compiled by IREE for this machine.

Compiled once into the battery's work folder; every trial opens it anew, in a process of its own and at batch 1.
"""

from __future__ import annotations

from pathlib import Path

from benchmarks.battery.shop import shop
from nwmctl.domain.artifact import ArtifactManifest
from nwmctl.domain.platform import PlatformProfile
from nwmctl.formats import documents
from nwmctl.formats.documents import decode_yaml
from nwmctl.toolchains.protocol import CompileRequest, Place, Session
from nwmctl.toolchains.registry import Registry

_PROFILE = Path(__file__).parents[2] / "platforms" / "nt2.0.yaml"
_PAYLOAD, _MANIFEST = "twin.bin", "twin.json"


def prepare(folder: Path) -> bool:
    """Compile the twin of the first CPU build into ``folder``; False where the toolchain is not installed."""
    if (folder / _MANIFEST).exists():
        return True
    profile = decode_yaml(PlatformProfile, _PROFILE.read_bytes(), _PROFILE.name)
    build = next(build for variant in profile.variants for build in variant.builds if build.unit == "cpu")
    recipe = build.recipes[0]
    driver = Registry().get(recipe.toolchain)
    if not driver.probe().available:
        return False
    scratch = folder / "twin"
    scratch.mkdir(parents=True, exist_ok=True)
    material = shop()
    request = CompileRequest(
        material.weights, material.weights_digest, recipe, build.unit, profile.runtime_driver, scratch
    )
    made = driver.compile(request).twin
    if made is None:
        return False
    (folder / _PAYLOAD).write_bytes(made.payload.read_bytes())
    (folder / _MANIFEST).write_bytes(documents.encode(made.manifest))
    return True


def open_twin(folder: Path) -> Session:
    """Load what ``prepare`` compiled."""
    manifest = documents.decode(ArtifactManifest, (folder / _MANIFEST).read_bytes(), "the twin's manifest")
    return Registry().get(manifest.recipe.toolchain).open(folder / _PAYLOAD, manifest, Place.HOST)
