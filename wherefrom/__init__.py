"""wherefrom: which training examples taught a language model a flagged output.

Importing the package loads no torch. `open_bundle` and the types of its answers do when they are first used: they need the engine
(extra ``[engine]``). See docs/library.md.
"""

from typing import TYPE_CHECKING, Any

from wherefrom.version import __version__

if TYPE_CHECKING:
    from wherefrom.library import AttributionResult, AttributionResults, OpenedBundle, open_bundle

__all__ = ["AttributionResult", "AttributionResults", "OpenedBundle", "__version__", "open_bundle"]


def __getattr__(name: str) -> Any:
    """The engine's names, loaded when they are asked for.

    Raises:
        ImportError: the engine is not installed; the text says how to install it.
    """
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        from wherefrom import library  # noqa: PLC0415 - brings torch, which the client does without
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("wherefrom"):
            raise
        raise ImportError(
            f'wherefrom.{name} needs the engine ({error.name} is missing): pip install "wherefrom[engine]"'
        ) from error
    return getattr(library, name)
