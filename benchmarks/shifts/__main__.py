"""Runs the benchmark; see `run`."""

from benchmarks.shifts.run import main

main()
