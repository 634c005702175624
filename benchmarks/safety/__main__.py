"""Runs the benchmark; see `run`."""

from benchmarks.safety.run import main

main()
