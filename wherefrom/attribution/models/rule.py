"""How a bundle's texts become what the model read, where its own folder does not say it all.

Kept in the manifest, so that training examples and flagged outputs are rendered alike wherever the bundle is used. Needs neither torch nor transformers.
"""

from pathlib import Path
from typing import Any

from pydantic import Field

from wherefrom.errors import ConfigurationError
from wherefrom.json_text import read_json
from wherefrom.records import Frozen

#: Arguments of `apply_chat_template` that are wherefrom's own to set.
_RESERVED = frozenset(
    {
        "add_generation_prompt",
        "chat_template",
        "continue_final_message",
        "conversation",
        "documents",
        "max_length",
        "messages",
        "padding",
        "return_assistant_tokens_mask",
        "return_dict",
        "return_tensors",
        "sanitize_control_tokens",
        "tokenize",
        "tokenizer_kwargs",
        "tools",
        "truncation",
    }
)


class RenderingRule(Frozen):
    """What is used beside the tokenizer's own chat template, or in its place."""

    #: Text of a chat template that replaces the model's own.
    chat_template: str | None = None
    #: Variables handed to the chat template, such as `enable_thinking`.
    template_args: dict[str, Any] = Field(default_factory=dict)
    #: What stands between prompt and completion of a model without a chat template.
    join: str = ""
    #: Whether the end-of-text token stands behind a joined prompt and completion.
    join_ends: bool = False


def read_template(file: Path | None) -> str | None:
    """The text of a chat template file; None where none is named.

    Raises:
        ConfigurationError: the file cannot be read as text.
    """
    if file is None:
        return None
    try:
        return file.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigurationError(f"{file}: the chat template cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"{file}: the chat template is not UTF-8 text") from error


def parse_template_args(text: str | None) -> dict[str, Any]:
    """Template variables from a JSON object; none where there is no text.

    Raises:
        ConfigurationError: no JSON object, or a name that wherefrom sets itself.
    """
    if text is None:
        return {}
    wanted = "give one JSON object, such as '{\"enable_thinking\": false}'"
    try:
        found = read_json(text)
    except ValueError as error:
        raise ConfigurationError(f"--template-args is not JSON ({error}); {wanted}") from error
    if not isinstance(found, dict):
        raise ConfigurationError(f"--template-args is a JSON {type(found).__name__}; {wanted}")
    taken = sorted(found.keys() & _RESERVED)
    if taken:
        raise ConfigurationError(
            f"--template-args: {', '.join(taken)} cannot be set; wherefrom sets it for each row"
        )
    return found
