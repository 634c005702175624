"""What auditors read: lists, filters, searches, one audit, culprits, sources, today."""
