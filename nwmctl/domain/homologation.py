"""What an authority of a market has to know about a release: its software identification number and its approval.

UN R156 asks for one number per type-approval-relevant system (RXSWIN, where X is the regulation: R157 for automated
lane keeping, R79 for steering), readable from the vehicle and tied to an approval. The words here are those of the
release file; nothing is checked with an authority.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_MARKET = re.compile(r"[A-Z]{2}\Z")
_RXSWIN = re.compile(r"R[0-9]{1,3}[A-Za-z ._/*-][A-Za-z0-9 ._/*-]{0,59}\Z")


@dataclass(frozen=True, slots=True)
class MarketApproval:
    """One market's approval. ``market`` is two capital letters (ISO 3166, or EU), ``approval`` the authority's
    reference."""

    market: str
    rxswin: str
    approval: str

    def __post_init__(self) -> None:
        if not is_market(self.market):
            raise ValueError(f"market is {self.market[:40]!r}, it must be two capital letters")
        if not _RXSWIN.match(self.rxswin):
            raise ValueError(f"rxswin is {self.rxswin[:80]!r}, it is written R, the regulation's number, and a name")
        if not 1 <= len(self.approval.strip()) <= 120 or not self.approval.isprintable():
            raise ValueError("approval must be the authority's reference, 1 to 120 characters")


def is_market(text: str) -> bool:
    """Whether this is how a market is written."""
    return bool(_MARKET.match(text))


def unapproved(markets: tuple[MarketApproval, ...], wanted: frozenset[str]) -> tuple[str, ...]:
    """The markets of ``wanted`` for which there is no approval, in order."""
    return tuple(sorted(wanted - {approval.market for approval in markets}))
