"""Signs of life that processes give, what they count, and the watch on a worker that works no more."""
