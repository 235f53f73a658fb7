"""Leases: who may tick, and for how long nobody did.

A holder that dies loses its lease after its time. A lease that ends further ahead than any is given for was made by a
clock that was wrong, and holds nobody up. A lease that was given back stays as a mark of when its holder last ticked.
"""

from __future__ import annotations

from nwmctl.storage.database import Transaction

MOST_SKEW_US = 3_600_000_000
"""How far the clocks of two controllers may differ; a lease that ends later than that beyond its time is no lease."""


def hold_lease(tx: Transaction, name: str, holder: str, now_us: int, ttl_us: int) -> bool:
    """Take or keep the lease ``name`` for ``ttl_us``; false while another holder has it."""
    tx.execute(
        "INSERT INTO lease (name, holder, expires_us) VALUES (:name, :holder, :expires) "
        "ON CONFLICT (name) DO UPDATE SET holder = excluded.holder, expires_us = excluded.expires_us "
        "WHERE lease.holder = excluded.holder OR lease.holder = '' OR lease.expires_us <= :now_us "
        "OR lease.expires_us > :absurd",
        name=name,
        holder=holder,
        expires=now_us + ttl_us,
        now_us=now_us,
        absurd=now_us + ttl_us + MOST_SKEW_US,
    )
    row = tx.one("SELECT holder FROM lease WHERE name = :name", name=name)
    return row is not None and row[0] == holder


def give_lease_back(tx: Transaction, name: str, holder: str) -> None:
    """Let the next holder begin at once."""
    tx.execute("UPDATE lease SET holder = '' WHERE name = :name AND holder = :holder", name=name, holder=holder)


def last_held_us(tx: Transaction, name: str, ttl_us: int) -> int | None:
    """When somebody took or kept the lease last, by the clock of then; None if nobody ever has."""
    row = tx.one("SELECT expires_us FROM lease WHERE name = :name", name=name)
    return int(row[0]) - ttl_us if row else None
