"""Connections to Redis, the transport of Celery, and the hints that travel on it."""
