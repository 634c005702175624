"""`python -m benchmarks.chaos`."""

from benchmarks.chaos.run import main

main()
