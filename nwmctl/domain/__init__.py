"""Frozen nouns, enums, transition tables and pure laws. No I/O, no clock, no third-party package."""
