"""Drivers of real compilers and runtimes behind one protocol. Knows no check, no fleet, no step."""
