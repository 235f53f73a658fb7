"""Signing what the director says to 700,000 vehicles: all, a tenth, at the poll, and beside python-tuf.

``python -m benchmarks.director [VEHICLES]``. A fleet is registered in a SQLite file (four computers per vehicle), a
campaign is started, and everything goes the product's own way: read what is due, sign in worker processes, keep in the
database. CPU seconds are of this process and its workers together; the machine is shared, so its load is noted.
"""

from __future__ import annotations

import os
import resource
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.results import write_section
from nwmctl.app.clock import SystemClock
from nwmctl.domain.keys import KeyRole
from nwmctl.fleet import director
from nwmctl.fleet.schema import MIGRATIONS
from nwmctl.formats.uptane import Dialect, Directed, Ecu, director_template, ecu_identifiers, expiry_text, key_id
from nwmctl.storage.database import Database, Value
from nwmctl.storage.group_commit import GroupWriter
from nwmctl.storage.sqlite import open_sqlite
from nwmctl.trust.director import DirectorKeys, DirectorPool, DirectorSigner
from nwmctl.trust.keys import init_keys

RESULTS = Path(__file__).with_name("RESULTS-trust.md")
VEHICLES = 700_000
WORKERS = 2
SAMPLE = 5_000
COMPUTERS = ("main-1", "main-2", "backup-1", "fleet_learning-1")
CHANGED = 10
"""One vehicle in ten has another direction in the incremental run."""


@dataclass(slots=True)
class Cost:
    """Seconds."""

    wall: float = 0.0
    cpu: float = 0.0

    def row(self, title: str, count: int) -> str:
        return (
            f"| {title} | {count:,} | {self.wall:.1f} | {self.cpu:.1f} | {self.cpu / count * 1e6:.0f} | "
            f"{count / self.wall:,.0f} |"
        )


@contextmanager
def measured() -> Iterator[Cost]:
    """Wall and CPU seconds of a block, ended children included."""
    cost, wall, cpu = Cost(), time.monotonic(), _cpu()
    yield cost
    cost.wall, cost.cpu = time.monotonic() - wall, _cpu() - cpu


def _cpu() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def vin(number: int) -> str:
    return f"LNVNIOBENCH{number:07}"


def make_fleet(database: Database, vehicles: int) -> None:
    """Vehicles with registered computers, one running campaign whose first wave holds all of them."""
    database.migrate(MIGRATIONS)
    with database.transaction() as tx:
        tx.execute("INSERT INTO fleet (name, is_virtual, poll_s) VALUES ('bench', 0, 300)")
        tx.execute("INSERT INTO ledger (sequence, content, release_name) VALUES (12, 'bench', 'nwm-2.5')")
        tx.execute("INSERT INTO ledger (sequence, content, release_name) VALUES (13, 'bench', 'nwm-2.5')")
        for kind, sequence in (("release", 12), ("return", 13)):
            tx.execute(
                "INSERT INTO bundle (release_sequence, kind, platform, sequence, model_version, filename, path, "
                "tuf_name, sha1, sha256, size, virtual_only) VALUES (12, :kind, 'nt2.0', :sequence, '2.5', :name, "
                ":name, :name, :sha1, :sha256, 241000000, 0)",
                kind=kind,
                sequence=sequence,
                name=f"nwm-2.5-nt2.0-{sequence}.swu",
                sha1="0" * 40,
                sha256=f"{sequence:02x}" * 32,
            )
        tx.execute(
            "INSERT INTO campaign (id, name, fleet, release_sequence, kind, state, generation, max_attempts, poll_s, "
            "reason, created_us, updated_us) "
            "VALUES (1, 'bench', 'bench', 12, 'release', 'running', 1, 3, 300, '', 0, 0)"
        )
        tx.execute(
            "INSERT INTO wave (campaign_id, generation, number, name, state, min_committed, max_failed, abort_failed, "
            "soak_s) VALUES (1, 1, 1, 'all', 'open', 0.5, 0.5, 0.5, 0)"
        )
        tx.many(
            "INSERT INTO vehicle (vin, vin_hash, fleet, vehicle_model, platform, variant, baseline, sequence, "
            "token_sha256) VALUES (:vin, :number, 'bench', 'et7', 'nt2.0', 'base', 'Banyan', 1, '')",
            ({"vin": vin(number), "number": number} for number in range(vehicles)),
        )
        tx.many(
            "INSERT INTO assignment (campaign_id, generation, wave, vin, platform, state, is_open, mode, "
            "from_sequence, to_sequence, updated_us) VALUES (1, 1, 1, :vin, 'nt2.0', 'pending', 1, 'bundle', 1, 12, 0)",
            ({"vin": vin(number)} for number in range(vehicles)),
        )
        tx.many(
            "INSERT INTO vehicle_ecus (vin, dialect, primary_serial, ecus, ecus_sha256, publics, registered_us) "
            "VALUES (:vin, :dialect, :primary, :ecus, :sha, '{}', 0)",
            (registered(number) for number in range(vehicles)),
        )


def registered(number: int) -> dict[str, Value]:
    """The registration of a vehicle; every second one speaks the reference dialect."""
    ecus = tuple(Ecu(f"{vin(number)}/{name}", "orin-x4:B1", f"ed25519:{number:064x}") for name in COMPUTERS)
    dialect = Dialect.TUF if number % 2 else Dialect.REFERENCE
    # The digest only has to tell vehicles apart here.
    sha = f"{number:064x}"
    return {
        "vin": vin(number),
        "dialect": dialect.value,
        "primary": ecus[0].serial,
        "ecus": ecu_identifiers(ecus),
        "sha": sha,
    }


def sign_all(database: Database, keys: DirectorKeys, now_us: int) -> tuple[Cost, int]:
    """The product's own way, opening and closing of the workers included."""
    with measured() as cost:
        fingerprint = keys.open().fingerprint
        with DirectorPool(keys, WORKERS) as pool:
            count = director.sign_due(database, pool, fingerprint, now_us, lambda *_: None)
    return cost, count


def at_the_poll(database: Database, signer: DirectorSigner, now_us: int, vehicles: int) -> tuple[Cost, int]:
    """Signed as single polls through the gateway's writer, 64 at a time, as 64 connections would."""
    count = min(20_000, vehicles)
    with database.transaction() as tx:
        tx.execute("DELETE FROM director_file")
    writer = GroupWriter(database)
    with measured() as cost:
        for start in range(0, count, 64):
            names = [vin(number) for number in range(start, min(start + 64, count))]
            futures = [
                writer.submit(lambda tx, name=name: director.sign_one(tx, name, signer, now_us))  # type: ignore[misc]
                for name in names
            ]
            for future in futures:
                future.result()
    writer.close()
    return cost, count


def peers(signer: DirectorSigner, now_us: int) -> list[str]:
    """python-tuf's own way, ours, and the bare signature, in this process, on the same documents."""
    from securesystemslib.signer import CryptoSigner
    from tuf.api.metadata import Metadata, TargetFile, Targets

    ours = signer.signers[0]
    ecus = {f"{vin(1)}/{name}": {"hardwareId": "orin-x4:B1"} for name in COMPUTERS}
    bundle = Directed("nwm-2.5-nt2.0-12.swu", 241_000_000, "0c" * 32, 12)
    expires = datetime.fromtimestamp(now_us // 1_000_000, UTC)
    library = CryptoSigner(ours.key)  # type: ignore[attr-defined]
    with measured() as tuf:
        for number in range(SAMPLE):
            custom = {"ecuIdentifiers": ecus, "releaseSequence": 12}
            file = TargetFile(bundle.length, {"sha256": bundle.sha256}, bundle.name, {"custom": custom})
            metadata = Metadata(Targets(version=number + 1, expires=expires, targets={bundle.name: file}))
            metadata.sign(library)
            metadata.to_bytes()
    text = ecu_identifiers(tuple(Ecu(serial, "orin-x4:B1", f"ed25519:{1:064x}") for serial in ecus))
    template = director_template(Dialect.TUF, bundle, expiry_text(now_us))
    assert key_id(Dialect.TUF, ours.public) == library.public_key.keyid
    with measured() as template_cost:
        for number in range(SAMPLE):
            signer.seal(Dialect.TUF, template.signed(text, number + 1))
    data = template.signed(text, 1).encode()
    with measured() as raw:
        for _ in range(SAMPLE):
            ours.sign(data)
    return [
        tuf.row("python-tuf signs and serialises (sample, one process)", SAMPLE),
        template_cost.row("template + ed25519 (sample, one process)", SAMPLE),
        raw.row("the bare signature over the same bytes (sample)", SAMPLE),
    ]


def places(database: Database, folder: Path) -> list[str]:
    """The same files kept as rows and as one packed file with an index by VIN."""
    rows = database.reader.all("SELECT vin, version, content, expires_us, body FROM director_file")
    with measured() as as_rows, database.transaction() as tx:
        tx.execute("DELETE FROM director_file")
        for start in range(0, len(rows), director.PAGE):
            director.keep(tx, [director.Kept(*row) for row in rows[start : start + director.PAGE]])
    with measured() as packed:
        index: dict[str, tuple[int, int]] = {}
        with (folder / "packed").open("wb") as file:
            for name, _, _, _, body in rows:
                data = body.encode()
                index[name] = (file.tell(), len(data))
                file.write(data)
            file.flush()
            os.fsync(file.fileno())
    sizes = sum(size for _, size in index.values())
    return [
        as_rows.row(f"keeping alone, as rows ({sizes / len(rows):.0f} bytes of metadata each)", len(rows)),
        packed.row("keeping alone, one packed file and an index in memory", len(rows)),
    ]


def main(vehicles: int) -> str:
    """Everything; the table."""
    clock = SystemClock()
    lines = ["| | files | wall s | CPU s | CPU us each | per wall s |", "|---|---|---|---|---|---|"]
    with tempfile.TemporaryDirectory(prefix="nwm-director-") as name:
        folder = Path(name)
        ring = init_keys(folder / "keys", clock, [KeyRole.DIRECTOR_ROOT, KeyRole.DIRECTOR], development=True)
        keys, now_us = DirectorKeys(ring.folder), clock.now_us()
        with open_sqlite(folder / "fleet.db") as database:
            make_fleet(database, vehicles)
            load = os.getloadavg()[0]
            cost, count = sign_all(database, keys, now_us)
            assert count == vehicles
            lines.append(cost.row(f"all, {WORKERS} worker processes, kept in SQLite", count))
            again, none = sign_all(database, keys, now_us)
            assert none == 0
            with database.transaction() as tx:
                changed = tx.execute(f"UPDATE assignment SET is_open = 0 WHERE id % {CHANGED} = 0")
            cost, count = sign_all(database, keys, now_us)
            assert count == changed
            lines.append(cost.row("incremental: one in ten was changed, all are looked at", count))
            lines.append(again.row("incremental: nothing was changed, all are looked at", vehicles))
            lines += places(database, folder)
            cost, count = at_the_poll(database, keys.open(), now_us, vehicles)
            lines.append(cost.row("lazy: signed and kept at the poll, group commit, 64 polls at a time", count))
            lines += peers(keys.open(), now_us)
            size = database.reader.one("SELECT page_count * page_size FROM pragma_page_count(), pragma_page_size()")
            assert size is not None
    lines.append(
        f"\n{vehicles:,} vehicles, {len(COMPUTERS)} computers each, both dialects in halves; "
        f"{os.cpu_count()} cores, load {load:.1f} at the beginning and {os.getloadavg()[0]:.1f} at the end: other "
        f"processes shared the machine, so compare CPU seconds. The database has {size[0] / 1e9:.2f} GB with the fleet."
    )
    return "\n".join(lines)


if __name__ == "__main__":
    wanted = int(sys.argv[1]) if len(sys.argv) > 1 else VEHICLES
    table = main(wanted)
    print(table)
    if wanted == VEHICLES:
        write_section("Director: signing for every vehicle", "python -m benchmarks.director", table, RESULTS)
