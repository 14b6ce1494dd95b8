"""Faults: storage that misbehaves, kills, and bad input."""
