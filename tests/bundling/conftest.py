"""Keys for the bundling tests."""

from __future__ import annotations

from tests.trust.conftest import keyring

__all__ = ["keyring"]
