"""The settings of a proxy that signs people in (`web.guard.proxied`); `wherefrom.settings` reads them with all the others."""

from typing import Annotated

from pydantic import BaseModel, Field, SecretStr

from wherefrom.notify_settings import empty_is_unset

_OptionalName = Annotated[str | None, empty_is_unset]
_OptionalSecret = Annotated[Annotated[SecretStr, Field(min_length=32)] | None, empty_is_unset]


class ProxySettings(BaseModel):
    """Which proxy is believed, how it names people, and what their groups may do."""

    proxy_user_header: _OptionalName = Field(
        default=None,
        description="Header in which a proxy names the person whom it has signed in, such as `X-Auth-Request-Email`. Without it, no such header is believed.",
    )
    proxy_secret: _OptionalSecret = Field(
        default=None,
        description="Secret by which the proxy proves that it is the proxy, at least 32 characters. Needed with `proxy_user_header`.",
    )
    proxy_secret_header: str = Field(
        default="X-Wherefrom-Proxy-Secret",
        min_length=1,
        description="Header in which the proxy sends its secret.",
    )
    proxy_addresses: tuple[str, ...] = Field(
        default=("127.0.0.1", "::1"),
        description="Addresses and networks from which the proxy is believed (JSON list).",
    )
    proxy_groups_header: _OptionalName = Field(
        default=None,
        description="Header in which the proxy names the person's groups, separated by commas, such as `X-Auth-Request-Groups`.",
    )
    proxy_groups: dict[str, str] = Field(
        default_factory=dict,
        description='The role of each group: `reviewer`, `auditor` or `admin` (JSON object, such as `{"safety": "auditor"}`). Who is in none may do nothing.',
    )
