"""Carries erasures out: in Redis, in the database, in bundles and their folders."""
