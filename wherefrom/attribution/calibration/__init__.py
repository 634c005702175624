"""What a score is worth: features of an audit, the fitted calibration, and the judgement on a new audit."""
