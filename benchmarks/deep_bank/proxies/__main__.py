"""Runs the benchmark; see `run`."""

from benchmarks.deep_bank.proxies.run import main

main()
