"""Runs the benchmark; see `run`."""

from benchmarks.calibration.run import main

main()
