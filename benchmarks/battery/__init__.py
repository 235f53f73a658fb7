"""A battery that attacks the checks: artifacts broken on purpose, clean ones beside them, and the count of both."""
