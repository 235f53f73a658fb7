"""Small signed model packages for tests."""

from __future__ import annotations

import dataclasses
import random
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from nwmctl.domain.digest import digest_bytes
from nwmctl.domain.model import CARD_NAME, SIGNATURE_NAME, FileEntry, ModelCard, ModelContract, ModelReference
from nwmctl.formats import documents
from nwmctl.trust.dsse import MODEL_CARD_TYPE, sign_dsse
from nwmctl.trust.keys import Ed25519Signer

KEY = Ed25519Signer(Ed25519PrivateKey.from_private_bytes(bytes(range(32))))
OTHER = Ed25519Signer(Ed25519PrivateKey.from_private_bytes(bytes(range(1, 33))))
TRUSTED = (KEY.public,)
BIG = "weights/model.onnx"


@dataclass(frozen=True)
class Made:
    folder: Path
    reference: ModelReference
    card: ModelCard
    contents: dict[str, bytes]


def make_package(folder: Path, uri: str = "", seed: int = 0, size: int = 600_000, **changes: object) -> Made:
    """A package with one big and two small files. ``changes`` replace fields of the card before it is signed."""
    rng = random.Random(seed)
    contents = {
        BIG: rng.randbytes(size),
        "calibration.npz": rng.randbytes(5_000),
        "golden set.npz": rng.randbytes(3_000),
    }
    entries = {
        role: FileEntry(path, digest_bytes(data), len(data))
        for role, (path, data) in zip(("weights", "calibration", "golden"), contents.items(), strict=True)
    }
    card = ModelCard("nwm", "2.5", "a test", 1, ModelContract((), (), 5.0), (), entries, "none")
    card = dataclasses.replace(card, **changes)  # type: ignore[arg-type]
    for path, data in contents.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)
    data = documents.encode(card)
    (folder / CARD_NAME).write_bytes(data)
    (folder / SIGNATURE_NAME).write_bytes(sign_dsse(data, MODEL_CARD_TYPE, KEY))
    return Made(folder, ModelReference(uri or str(folder), digest_bytes(data)), card, contents)


def assert_whole(made: Made, into: Path) -> None:
    """``into`` is the package and nothing else, and nothing hidden lies beside it."""
    found = {str(p.relative_to(into)): p.read_bytes() for p in into.rglob("*") if p.is_file()}
    expected = dict(made.contents)
    for name in (CARD_NAME, SIGNATURE_NAME):
        expected[name] = (made.folder / name).read_bytes()
    assert found == expected
    assert [p.name for p in into.parent.iterdir()] == [into.name]
