"""Benchmarks: real HTTP through the real firewall, beside the field. `python -m benchmarks --help` teaches."""
