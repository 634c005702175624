"""Looks the service over: `health` for one process, `doctor` for the whole installation."""
