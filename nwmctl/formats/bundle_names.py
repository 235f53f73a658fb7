"""What a bundle's file is called: by its manifest, and for one with deltas by what they start from, too.

The same manifest may be brought in several ways: whole, or by deltas from one earlier version or another. Each way is
a file of its own under a name of its own, and everybody who holds the bytes can tell the name from them. Pure.
"""

from __future__ import annotations

from nwmctl.domain.bundle import BundleManifest
from nwmctl.domain.digest import digest_bytes
from nwmctl.formats import canonical
from nwmctl.formats.swu import InstalledFile, SwDescription

_DIGITS = 16


def delta_files(description: SwDescription) -> tuple[InstalledFile, ...]:
    """The files that a bundle brings as deltas; none in a full bundle."""
    return tuple(file for file in description.files if file.packing and file.packing.base)


def change_of(description: SwDescription) -> str:
    """Names a bundle's deltas: what each starts from, what it leads to, and its own bytes. '' for a full bundle."""
    rows: list[canonical.Plain] = [
        [str(file.packing.base.digest), str(file.digest), str(file.packing.parts[0].digest)]
        for file in delta_files(description)
        if file.packing and file.packing.base
    ]
    return digest_bytes(canonical.encode(sorted(rows, key=str))).hex[:_DIGITS] if rows else ""


def bundle_filename(manifest: BundleManifest, description: SwDescription) -> str:
    """The file name of a signed bundle: ``RELEASE-PLATFORM-SEQUENCE.swu``, with ``-delta-CHANGE`` for one with
    deltas."""
    change = change_of(description)
    return f"{manifest.filename.removesuffix('.swu')}-delta-{change}.swu" if change else manifest.filename
