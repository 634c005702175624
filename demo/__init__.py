"""The demo: what it shows (`story`, `adapter`, `tiny`) and how that was made (`making`)."""
