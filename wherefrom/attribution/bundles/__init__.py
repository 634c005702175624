"""The bundle: how it is built, what it states about itself, and how it is opened."""
