"""A release's dossier as files: the certificate, in-toto statements, the bill of materials, and every other paper.

Everything is verified before anything is written, and the folder appears whole or not at all. Adds nothing of its own
but an index of which leaf is in which file, and a list of the markets that the bundles name.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from nwmctl.app.verify import VerifyOrder, opened
from nwmctl.domain.bundle import BundleManifest
from nwmctl.domain.certificate import DRAFT, Dossier, LeafKind
from nwmctl.domain.homologation import MarketApproval
from nwmctl.errors import OutputUnwritableError
from nwmctl.formats import canonical, documents

_ENDINGS = {
    LeafKind.PROVENANCE: ".intoto.json",
    LeafKind.CHECKS: ".intoto.json",
    LeafKind.BILL: ".cdx.json",
    LeafKind.POLICY: ".yaml",
}


def export_papers(order: VerifyOrder, out: Path) -> list[str]:
    """Write the papers of a dossier below ``out``; gives the files' names. Raises what ``verify`` raises about
    dossiers, OutputUnwritableError."""
    certified = opened(order)
    files = {"certificate.dsse.json": certified.dossier.certificate.encode()}
    index: list[canonical.Plain] = []
    for proven in certified.dossier.leaves:
        leaf = proven.leaf
        text = certified.dossier.papers.get(str(leaf.digest))
        name = "" if text is None else f"{leaf.kind}/{leaf.name.replace('/', '.')}{_ENDINGS.get(leaf.kind, '.json')}"
        index.append({"kind": str(leaf.kind), "name": leaf.name, "digest": str(leaf.digest), "file": name})
        if text is not None:
            files[name] = text.encode()
    files["index.json"] = canonical.encode({"status": DRAFT, "leaves": index})
    files["markets.json"] = canonical.encode({"status": DRAFT, "markets": _markets(certified.dossier)})
    _write(out, files)
    return sorted(files)


def _markets(dossier: Dossier) -> list[canonical.Plain]:
    """Market by market what the bundles say about their approval, and which platforms say so."""
    found: dict[MarketApproval, list[canonical.Plain]] = {}
    for proven in dossier.leaves:
        text = dossier.papers.get(str(proven.leaf.digest)) if proven.leaf.kind is LeafKind.BUNDLE_MANIFEST else None
        if text is None:
            continue
        manifest = documents.decode(BundleManifest, text.encode(), proven.leaf.name)
        for each in manifest.markets:
            platforms = found.setdefault(each, [])
            if manifest.platform not in platforms:
                platforms.append(manifest.platform)
    return [
        {"market": each.market, "rxswin": each.rxswin, "approval": each.approval, "platforms": platforms}
        for each, platforms in sorted(found.items(), key=lambda item: (item[0].market, item[0].rxswin))
    ]


def _write(out: Path, files: dict[str, bytes]) -> None:
    partial = out.parent / f".{out.name}.partial-{os.getpid()}"
    try:
        if out.exists():
            raise FileExistsError(17, "it is there already")
        for name, data in files.items():
            place = partial / name
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(data)
        os.rename(partial, out)
    except OSError as problem:
        raise OutputUnwritableError(
            f"'{out}' cannot be written", why=problem.strerror or str(problem), next="name a new folder"
        ) from problem
    finally:
        shutil.rmtree(partial, ignore_errors=True)
