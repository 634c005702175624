"""EK-FAC over all linear layers: factors, gradients, scores, and its sum over points of the fine-tune."""
