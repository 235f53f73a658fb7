"""Which layer of a network a node belongs to, read from the names that exporters give. Pure."""

from __future__ import annotations

import re

OUTSIDE = "(outside any module)"
_OPERATOR = re.compile(r"[A-Z][A-Za-z0-9]*(_\d+)?\Z")
"""How exporters name an operator, as against a module."""


def layer_of(node: str) -> str:
    """The layer that a node belongs to, after the path that exporters give it: ``/blocks.0/key/MatMul`` belongs to
    ``blocks.0.key``. Two levels are named; what lies in no module is ``OUTSIDE``."""
    path = [part for part in node.split("/")[:-1] if part and not _OPERATOR.match(part)]
    if len(path) > 1:
        return path[1] if path[1].startswith(f"{path[0]}.") else f"{path[0]}.{path[1]}"
    return path[0] if path else OUTSIDE
