"""How well calibrated p-values, confidences and effects are; `python -m benchmarks.calibration`."""
