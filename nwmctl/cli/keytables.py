"""Key folders and expiries as tables and as JSON. Renders; decides nothing."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from nwmctl.cli.common import page

if TYPE_CHECKING:
    from nwmctl.app.keychanges import Listing, Watched


def day(at_us: int) -> str:
    """A date, UTC."""
    return datetime.fromtimestamp(at_us / 1e6, UTC).strftime("%Y-%m-%d")


def watched_json(watched: Sequence[Watched]) -> list[dict[str, Any]]:
    """Every expiry."""
    return [
        {"name": one.expiry.name, "expires": day(one.expiry.expires_us), "state": str(one.state)} for one in watched
    ]


def print_watched(watched: Sequence[Watched]) -> None:
    """What expires and when; what helps where it is near."""
    from rich.markup import escape
    from rich.table import Table

    from nwmctl.trust.expiry import ExpiryState

    colours = {ExpiryState.HOLDS: "green", ExpiryState.SOON: "yellow", ExpiryState.EXPIRED: "red"}
    table = Table(box=None, padding=(0, 2, 0, 0))
    for title in ("what", "holds until", "state", ""):
        table.add_column(title, overflow="fold")
    for one in watched:
        remedy = "" if one.state is ExpiryState.HOLDS else one.expiry.next
        colour = colours[one.state]
        table.add_row(escape(one.expiry.name), day(one.expiry.expires_us), f"[{colour}]{one.state}[/]", escape(remedy))
    page().print(table)


def listing_json(found: Listing) -> dict[str, Any]:
    """A key folder."""
    document = found.ring.document
    return {
        "folder": str(found.ring.folder),
        "development": document.development,
        "root": found.root,
        "director_root": found.director_root,
        "root_pending": found.pending,
        "keys": [
            {
                "role": str(entry.role),
                "platform": entry.platform,
                "threshold": document.threshold(entry.role, entry.platform),
                "state": str(entry.state),
                "where": entry.uri or "elsewhere",
                "public": entry.public,
            }
            for entry in document.keys
        ],
        "expiries": watched_json(found.watched),
    }


def print_listing(found: Listing) -> None:
    """A key folder, a line per key: public keys stay whole, so that they can be copied."""
    document = found.ring.document
    rows = []
    for entry in document.keys:
        active = len(document.active(entry.role, entry.platform))
        must = f"{document.threshold(entry.role, entry.platform)} of {active}"
        rows.append((entry.label, must, str(entry.state), entry.uri or "elsewhere", entry.public))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)] if rows else []
    for row in rows:
        line = "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True))
        page().print(line.rstrip(), soft_wrap=True, markup=False)
    for name, version in (("root", found.root), ("director's root", found.director_root)):
        page().print(f"{name}: version {version}" if version else f"{name}: none finished yet")
    if found.pending:
        page().print("a next root is still to be finished")
    print_watched(found.watched)
