"""Judges besides nwmctl's own checks: where signed evidence comes from, and the replay of drive logs."""
