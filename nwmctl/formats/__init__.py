"""Bytes to values and back, for every wire and file format. No I/O, no clock."""
