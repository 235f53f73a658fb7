"""Bundles of the sample platform with packed payloads."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from nwmctl.bundling.bundle import BundleInputs, BundlePlan, plan_bundle
from nwmctl.bundling.pack import PackingOrder, PayloadFile, pack_all
from nwmctl.bundling.settle import settle
from nwmctl.bundling.write import WrittenBundle, write_bundle
from nwmctl.domain.digest import Digest, digest_bytes
from nwmctl.domain.packing import Compression
from nwmctl.formats.scripts import JOIN_TEMPLATE_NAME
from nwmctl.trust.payload_key import PayloadKey
from tests.bundling import samples

JOIN = (samples.ROOT / "templates" / JOIN_TEMPLATE_NAME).read_text()
KEY = PayloadKey(bytes(range(32)))
ORDERS = {
    "stored": PackingOrder(Compression.NONE),
    "zstd": PackingOrder(),
    "encrypted": PackingOrder(Compression.NONE, KEY),
    "zstd and encrypted": PackingOrder(Compression.ZSTD, KEY),
    "in parts": PackingOrder(Compression.NONE, None, 300),
    "zstd in parts": PackingOrder(Compression.ZSTD, None, 300),
    "zstd, encrypted, in parts": PackingOrder(Compression.ZSTD, KEY, 300),
}


@dataclass(frozen=True)
class Made:
    """A plan with packed payloads, whose parts lie in ``spool`` and whose plain payloads in ``store``."""

    plan: BundlePlan
    store: Path
    spool: Path

    def find(self, digest: Digest) -> Path:
        packed = self.spool / digest.hex
        return packed if packed.exists() else self.store / digest.hex

    def write(self, sign: Callable[[bytes], bytes], out: Path) -> WrittenBundle:
        return write_bundle(self.plan, sign(self.plan.description_bytes), self.find, out)


def make(folder: Path, order: PackingOrder, inputs: BundleInputs | None = None) -> Made:
    """Pack the sample payloads."""
    inputs = inputs or samples.inputs()
    store, spool = samples.payload_folder(folder / "store"), folder / "spool"
    spool.mkdir(exist_ok=True)
    plan = plan_bundle(inputs)
    payloads = {
        name: PayloadFile(name, digest, len(samples.PAYLOADS[digest]), store / digest.hex)
        for name, digest in plan.payloads.items()
    }
    packings = pack_all(payloads, order, spool)
    return Made(settle(plan, inputs.profile, packings, JOIN), store, spool)


def sign(description: bytes) -> bytes:
    """A signature that costs nothing."""
    return b"signed " + digest_bytes(description).hex.encode()
