"""The service's processes: intake, sweeper, workers, web door and supervisor; `python -m worker` is the operator's door."""
