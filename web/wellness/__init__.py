"""Whether the web process is well: `/healthz`, `/readyz`, `/metrics`, and counts of requests."""
