"""What the service says where influence scores are no more than those of unrelated training examples; `attribution.noise` decides it."""

#: Beside an influence score whose sign could be that of noise.
SIGN_NOT_DETERMINED = "sign not determined"


def weak_text(noise_best: float | None) -> str:
    """Why an audit is weak, in one sentence."""
    reached = "" if noise_best is None else f" ({noise_best:.3f})"
    return f"Weak: no influence score is above what the best of as many unrelated training examples may reach{reached}."
