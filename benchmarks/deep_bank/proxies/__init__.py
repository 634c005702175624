"""What stands in for a bank on deep models: agreement with EK-FAC, known causes, ten refits without one source; `python -m benchmarks.deep_bank.proxies`."""
