"""nwmctl: take one trained driving model to every hardware generation of a fleet, prove it, ship it, take it back."""

__version__ = "0.1.0"
