"""What people are told through the webhook: what is news, and the notices on their way."""
