"""The engine's small models and bundles."""

from tests.tiny import micro_bundle, micro_model_dir, tiny_bundle, tiny_model_dir

__all__ = ["micro_bundle", "micro_model_dir", "tiny_bundle", "tiny_model_dir"]
