"""The settings of the webhook; `wherefrom.settings` reads them with all the others."""

from typing import Annotated

from pydantic import BaseModel, BeforeValidator, Field, SecretStr

from wherefrom.webhook import WebhookTarget

#: An empty variable, as compose makes them, is not set.
empty_is_unset = BeforeValidator(lambda value: None if value == "" else value)
_OptionalSecret = Annotated[SecretStr | None, empty_is_unset]


class NotifySettings(BaseModel):
    """Where notices go, and from which number on something is told."""

    notify_url: _OptionalSecret = Field(
        default=None,
        description="URL of the webhook (https) that is told when something needs people. Without it, nothing is told. It is masked in logs, because such URLs often contain a token.",
    )
    notify_secret: _OptionalSecret = Field(
        default=None,
        description="Secret that signs notices: `whsec_` and base64, from `python -m worker notify secret`. Several, with spaces between, all sign while you change it.",
    )
    notify_hosts: tuple[str, ...] = Field(
        default=(), description="Host names that `notify_url` may have (JSON list)."
    )
    notify_private: bool = Field(
        default=False,
        description="Allow a webhook at a private, loopback or link-local address, there also over http.",
    )
    notify_timeout_seconds: float = Field(
        default=10.0, gt=0, le=120, description="How long one try to tell the webhook may take, all in all."
    )
    notify_max_attempts: int = Field(
        default=12,
        ge=1,
        le=100,
        description="Tries after which a notice is dead. The wait doubles from 10 seconds up to one hour, so 12 tries take about 4 hours.",
    )
    notify_every_seconds: float = Field(
        default=60.0,
        gt=0,
        description="Time between two looks at what may have to be told.",
    )
    notify_pause_seconds: float = Field(
        default=3600.0,
        ge=0,
        description="Time for which a source, a queue or the dead audits are not told again, however their numbers move.",
    )
    notify_blame_outputs: int = Field(
        default=20,
        ge=0,
        description="Outputs among the newest 1,000 answered ones whose first citation lies in one source: from this number on the source is told. 0: never.",
    )
    notify_blame_q: float = Field(
        default=0.01,
        gt=0,
        le=1,
        description="Largest q of a source that is told: how surprising its first citations are for its size, corrected for the number of sources. A source of unknown size is told by the number alone.",
    )
    notify_queue_audits: int = Field(
        default=100,
        ge=0,
        le=10_000,
        description="Audits that wait in a review queue: from this number on the queue is told. 0: never.",
    )
    notify_dead_audits: int = Field(
        default=10,
        ge=0,
        le=100_000,
        description="Dead audits: from this number on they are told. 0: never.",
    )

    def webhook(self) -> WebhookTarget | None:
        """The receiver of notices; None where nothing is told.

        Raises:
            ValueError: the settings describe none that can be used; at the start this becomes a `ConfigurationError`.
        """
        if self.notify_url is None:
            return None
        secret = "" if self.notify_secret is None else self.notify_secret.get_secret_value()
        return WebhookTarget.of(
            self.notify_url.get_secret_value(),
            secret=secret,
            hosts=self.notify_hosts,
            private=self.notify_private,
        )

    def notify_secrets(self) -> frozenset[str]:
        """What of these settings must not stand in a log or an error."""
        held = (self.notify_url, self.notify_secret)
        return frozenset(
            one for secret in held if secret is not None for one in secret.get_secret_value().split()
        )
