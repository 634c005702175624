"""What the sweeper does beside taking leases back: findings, notices, seals and anchors."""
