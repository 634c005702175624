"""Bundles as the database knows them: registered, active for a model, compared with one another."""
