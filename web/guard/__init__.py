"""What stands before the routes: who asks, what they may do, how much, and how many at once."""
