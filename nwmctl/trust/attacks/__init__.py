"""Attacks on an update as values: what is served, and what a client must do. For drills and for tests."""
