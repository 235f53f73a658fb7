"""The model card's bytes, by name: a thin door to ``documents`` for those who only ever handle cards."""

from __future__ import annotations

from nwmctl.domain.model import ModelCard
from nwmctl.formats import documents


def encode(card: ModelCard) -> bytes:
    """Canonical JSON of a card."""
    return documents.encode(card)


def decode(data: bytes, where: str) -> ModelCard:
    """Read a card; ``where`` names it in errors. Raises NotCanonicalError, SchemaError, SchemaVersionError."""
    return documents.decode(ModelCard, data, where)
