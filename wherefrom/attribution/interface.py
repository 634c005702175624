"""What the rest of wherefrom may expect of an engine: prepare one query, attribute a packed batch."""

from collections.abc import Sequence
from typing import Literal, Protocol

from wherefrom.records import Attribution, Query

OverLong = Literal["truncate", "reject"]


class PreparedQuery(Protocol):
    """A query that passed all checks and was turned into tokens."""

    @property
    def key(self) -> str:
        """The query's key."""

    @property
    def tokens(self) -> int:
        """Tokens of one pass through the model, prompt included; what a token budget counts."""

    @property
    def completion_tokens(self) -> int:
        """Those of them that the completion has; batches of like completions need less padding."""


class Attributor(Protocol):
    """An engine over one bundle."""

    @property
    def bundle_name(self) -> str:
        """Content name of the bundle that the citations come from."""

    def prepare(self, query: Query, *, max_tokens: int, over_long: OverLong) -> PreparedQuery:
        """Check one query and turn it into tokens.

        Raises:
            EmptyCompletion: no completion token is left to explain.
            OutputTooLong: more than `max_tokens` tokens and `over_long` is ``reject``.
            TemplateNotPrefix: the chat template does not keep the prompt as a prefix.
        """

    def attribute(
        self, prepared: Sequence[PreparedQuery], *, top_k: int, opponents: int
    ) -> list[Attribution]:
        """Attribute one batch in one pass; answers stand in the order of `prepared`.

        An answer does not depend on the other members of the batch.

        Raises:
            OutOfMemory: the batch did not fit; smaller batches may.
        """
