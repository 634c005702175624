"""The service's processes: intake, sweeper, workers, web server and supervisor; `python -m worker` is the operator's command line."""
