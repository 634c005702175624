"""Benchmarks: each prints what it ran on, and with `--json` ends with one JSON line."""
