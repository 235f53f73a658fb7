"""Fixed keys and values for the golden vectors of both dialects."""

from __future__ import annotations

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from nwmctl.formats.uptane import (
    Dialect,
    Directed,
    Ecu,
    RoleKeys,
    UseSlot,
    director_template,
    ecu_identifiers,
    expiry_text,
    key_id,
    root_text,
    sealed,
)
from nwmctl.formats.uptane_image import Delegation, ImageFile, ImageList, image_text, snapshot_text, timestamp_text
from nwmctl.formats.uptane_reports import Installed, Registration, encode_registration
from nwmctl.trust.keys import Ed25519Signer
from nwmctl.trust.vehicle_report import sign_report

EXPIRES = expiry_text(1_900_000_000_000_000)


def signer(number: int) -> Ed25519Signer:
    return Ed25519Signer(Ed25519PrivateKey.from_private_bytes(bytes([number]) * 32))


ROOTS = tuple(signer(number) for number in (1, 2, 3))
DIRECTOR, TARGETS, SNAPSHOT, TIMESTAMP, PLATFORM = (signer(number) for number in range(4, 9))
MAIN, BACKUP = signer(20), signer(21)
ECUS = (
    Ecu("LNV00000000000001/main-1", "orin-x4:B1", MAIN.public),
    Ecu("LNV00000000000001/backup-1", "orin-x4:B1", BACKUP.public),
)
BUNDLE = Directed("nwm-2.5-nt2.0-12.swu", 123_456_789, "ab" * 32, 12)
IMAGE = ImageFile(BUNDLE.name, BUNDLE.length, BUNDLE.sha256, ("orin-x4:B1", "orin-x4:C0"), 12)
INSTALLED = Installed(BUNDLE.name, BUNDLE.length, BUNDLE.sha256)


def seal(dialect: Dialect, text: str, *signers: Ed25519Signer) -> bytes:
    rows = [(key_id(dialect, one.public), one.sign(text.encode())) for one in signers]
    return sealed(dialect, text, rows).encode()


def golden() -> dict[str, bytes]:
    """Every vector by its file name."""
    old = Dialect.REFERENCE
    made: dict[str, bytes] = {}
    for dialect in Dialect:
        for name, direction in (("file", BUNDLE), ("slot", UseSlot(11)), ("nothing", None)):
            text = director_template(dialect, direction, EXPIRES).signed(ecu_identifiers(ECUS), 7)
            made[f"{dialect}-director-{name}.json"] = seal(dialect, text, DIRECTOR)
        made[f"{dialect}-ecus.json"] = encode_registration(Registration(ECUS[0].serial, ECUS, dialect))
        made[f"{dialect}-report.json"] = sign_report(
            MAIN,
            ECUS[0].serial,
            3,
            INSTALLED,
            dialect=dialect,
            metadata={"director": {"root": 1, "targets": 7}, "image": {"timestamp": 4}},
            others=((BACKUP, ECUS[1].serial, 2, INSTALLED),),
        )
    roots = RoleKeys(tuple(one.public for one in ROOTS), 2)
    director = {"root": roots, "targets": RoleKeys((DIRECTOR.public,), 1)}
    made[f"{old}-director-root.json"] = seal(old, root_text(1, EXPIRES, director, consistent=False), *ROOTS[:2])
    image = {
        "root": roots,
        "snapshot": RoleKeys((SNAPSHOT.public,), 1),
        "targets": RoleKeys((TARGETS.public,), 1),
        "timestamp": RoleKeys((TIMESTAMP.public,), 1),
    }
    made[f"{old}-image-root.json"] = seal(old, root_text(1, EXPIRES, image, consistent=False), *ROOTS[:2])
    delegation = Delegation("nt2.0", RoleKeys((PLATFORM.public,), 1), ("*-nt2.0-*.swu",))
    top = ImageList(5, EXPIRES, (), (delegation,))
    made[f"{old}-image-targets.json"] = seal(old, image_text(top), TARGETS)
    made[f"{old}-image-nt2.0.json"] = seal(old, image_text(ImageList(2, EXPIRES, (IMAGE,))), PLATFORM)
    snapshot = seal(old, snapshot_text(6, EXPIRES, {"targets.json": 5, "nt2.0.json": 2}), SNAPSHOT)
    made[f"{old}-image-snapshot.json"] = snapshot
    made[f"{old}-image-timestamp.json"] = seal(old, timestamp_text(8, EXPIRES, 6, snapshot), TIMESTAMP)
    return made


if __name__ == "__main__":
    from pathlib import Path

    for name, data in golden().items():
        (Path(__file__).parent / "golden" / "uptane" / name).write_bytes(data)
