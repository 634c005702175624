"""What takes texts away: requests, retention rules, legal holds, and what is left behind."""
