"""What people find: verdicts, review queues, agreement, and verdicts for calibration."""
