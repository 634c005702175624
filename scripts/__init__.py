"""Scripts of the repository: making the demo's corpora and models. Not part of the wheel."""
