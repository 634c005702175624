"""From records to rows: flagged outputs, groups of them, training examples, citations, and the words they are found by."""
