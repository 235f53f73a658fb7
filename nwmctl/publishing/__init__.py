"""Staging to mirrors and the release train: from signed bundles to a release that exists for all platforms at once."""
