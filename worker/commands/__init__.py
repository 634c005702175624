"""The commands of `python -m worker`, one module per subject."""
