"""What attributes and measures: pool processes, their engine, their devices, and the watch on them."""
