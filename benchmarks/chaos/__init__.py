"""Storms of faults over the whole service, and what was lost in them: `python -m benchmarks.chaos`."""
