"""Findings: outputs that say the same kind of thing, grouped by the sweeper and corrected by people."""
