"""All settings, read from the environment (prefix `WHEREFROM_`) and from nowhere else."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from wherefrom.errors import ConfigurationError, MeasuringUnavailable
from wherefrom.masking import mask, readable_url, secrets_of
from wherefrom.records import Severity
from wherefrom.redis_url import check_redis_url

_empty_is_unset = BeforeValidator(lambda value: None if value == "" else value)
#: A path; an empty variable, as compose makes them, is not set.
_OptionalPath = Annotated[Path | None, _empty_is_unset]
#: `module:factory`.
_OptionalFactory = Annotated[
    str | None, Field(pattern=r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*$"), _empty_is_unset
]


class Settings(BaseSettings):
    """Settings of the service, the workers and the client; each can be set as `WHEREFROM_<NAME>`."""

    model_config = SettingsConfigDict(
        env_prefix="WHEREFROM_", extra="ignore", frozen=True, hide_input_in_errors=True
    )

    database_url: SecretStr = Field(
        default=SecretStr("sqlite:///.wherefrom/wherefrom.db"),
        description="SQLAlchemy URL: `sqlite:///PATH` or `postgresql+psycopg://USER:PASSWORD@HOST/NAME`.",
    )
    redis_url: SecretStr = Field(
        default=SecretStr("redis://127.0.0.1:6379/0"),
        description="Redis of the stream and of the hints: `redis://HOST:PORT/0`, `rediss://` with TLS, or `unix:///PATH?db=0`.",
    )
    key_prefix: str = Field(default="", description="Put before every Redis key, to share one Redis.")
    bundles_dir: Path = Field(
        default=Path(".wherefrom/bundles"), description="Folder that holds the bundles by name."
    )
    models_dir: Path = Field(
        default=Path(".wherefrom/models"),
        description="Folder that holds the models and adapters that bundles name, each under its folder's name.",
    )

    state_dir: Path = Field(
        default=Path(".wherefrom/state"),
        description="Folder of this machine's running processes: their signs of life, the page's address, embedded Redis.",
    )

    log_format: Literal["console", "json"] = Field(default="console", description="`json` in production.")
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="Least level logged."
    )

    batch_audits: int = Field(default=32, ge=1, le=1024, description="Audits claimed at once by one worker.")
    batch_tokens: int = Field(
        default=1024, ge=64, description="Tokens, padding included, in one pass through the model."
    )
    max_tokens: int = Field(
        default=1024,
        ge=8,
        description="Tokens of prompt and completion of one output; what is more is cut or rejected.",
    )
    over_long: Literal["truncate", "reject"] = Field(
        default="truncate",
        description="What to do with an output over `max_tokens`: cut it with a mark, or reject it.",
    )
    top_k: int = Field(default=10, ge=1, le=200, description="Citations stored per audit.")
    opponents: int = Field(
        default=3, ge=0, le=50, description="Opponents (negative influence) stored per audit."
    )
    full_tier_severities: str = Field(
        default="critical",
        description="Severities whose audits also get the full tier (EK-FAC) where the bundle holds it; separated by commas, empty = never.",
    )
    torch_threads: int = Field(
        default=0, ge=0, description="Threads of one worker process; 0 lets torch decide."
    )

    engine: _OptionalFactory = Field(
        default=None,
        description="Another engine than wherefrom's own, as `module:factory` (`wherefrom.attribution.interface.EngineFactory`); for tests and research.",
    )
    allow_other_engine: bool = Field(
        default=False,
        description="Allow `engine`. Its citations are stored and shown like wherefrom's own, so never set it beside real audits.",
    )

    lease_seconds: float = Field(
        default=60.0, gt=0, description="How long a claim lasts without a heartbeat."
    )
    heartbeat_seconds: float = Field(
        default=15.0, gt=0, description="Time between two extensions of a lease."
    )
    max_attempts: int = Field(default=5, ge=1, description="Attempts before an audit is dead.")
    backoff_base_seconds: float = Field(
        default=2.0, gt=0, description="Wait after the first transient failure; doubles."
    )
    backoff_cap_seconds: float = Field(default=300.0, gt=0, description="Longest wait between two attempts.")
    batch_time_limit_seconds: int = Field(
        default=600, ge=1, description="Hard limit of one claimed batch, from the moment its model is loaded."
    )

    recipe: _OptionalPath = Field(
        default=None,
        description="Recipe (JSON) of how the audited model was fine-tuned; where it is set, effects can be measured.",
    )
    base_model_dir: _OptionalPath = Field(
        default=None, description="Folder of the model before that fine-tune; needed to train again."
    )
    recipe_corpus: _OptionalPath = Field(
        default=None,
        description="Corpus file of the fine-tune; needed where its rows are chats with system or several turns, which bundles hold as text only.",
    )
    measure_dir: Path = Field(
        default=Path(".wherefrom/measure"),
        description="Folder of retrained models and their losses; measurements of one bundle share them.",
    )
    measure_time_limit_seconds: int = Field(
        default=86_400, ge=1, description="Hard limit of one measurement."
    )

    sweep_seconds: float = Field(default=2.0, gt=0, description="Time between two rounds of the sweeper.")
    worker_processes: int = Field(
        default=1, ge=1, le=64, description="Processes of one `python -m worker run`."
    )
    watchdog_seconds: float = Field(
        default=120.0, gt=0, description="Pending work and no claim for this long: the worker exits non-zero."
    )
    intake_batch: int = Field(
        default=100, ge=1, le=10_000, description="Stream entries committed in one transaction."
    )
    intake_batch_bytes: int = Field(
        default=16_000_000,
        ge=1024,
        description="Bytes of stream entries read and committed at once, about; intake needs some ten times as much memory.",
    )
    quarantine_limit: int = Field(
        default=1000,
        ge=1,
        description="Entries that the quarantine holds; when it is full, intake pauses until some are replayed or dropped.",
    )
    intake_idle_claim_seconds: float = Field(
        default=30.0, gt=0, description="Stream entries of a dead intake are taken over after this long."
    )

    host: str = Field(default="127.0.0.1", description="Address that the web service binds to.")
    port: int = Field(
        default=8077, ge=0, le=65535, description="Port of the web service; 0 takes a free one."
    )
    allowed_hosts: tuple[str, ...] = Field(
        default=("127.0.0.1", "localhost", "[::1]"),
        description="Host headers that are answered (JSON list); others get 400 (DNS rebinding).",
    )
    production: bool = Field(
        default=False,
        description="Refuse what is for trying out only: every request needs an API key, from loopback too. Set in docker-compose.yml.",
    )
    unsafe_no_auth: bool = Field(
        default=False,
        description="Answer without API keys where loopback is reached through a proxy. Do not. Refused in production and on an address that is not loopback.",
    )
    body_limit_bytes: int = Field(default=4_500_000, ge=1024, description="Largest request body.")
    max_records_per_request: int = Field(
        default=1000, ge=1, description="Most records in one `POST /v1/flagged`."
    )
    max_page_size: int = Field(default=200, ge=1, le=1000, description="Largest page of a list.")
    max_concurrent_writes: int = Field(
        default=4, ge=1, le=256, description="Requests of one web process that store flagged outputs at once."
    )
    max_concurrent_reads: int = Field(
        default=16, ge=1, le=256, description="Lists and pages that one web process makes at once."
    )
    max_waiting_requests: int = Field(
        default=16,
        ge=0,
        le=10_000,
        description="Requests of each kind that may wait for their turn; one more gets 429 at once.",
    )
    max_wait_seconds: float = Field(
        default=0.15,
        ge=0,
        le=60,
        description="How long a flagged output waits for its turn before it gets 429 with `Retry-After`.",
    )

    service_url: str = Field(
        default="http://127.0.0.1:8077", description="Where the client and the CLI find the service."
    )
    api_key: SecretStr | None = Field(default=None, description="API key that the client and the CLI send.")
    spool_path: Path = Field(
        default=Path(".wherefrom/spool.db"), description="The client's file of records that are not sent yet."
    )
    spool_max_bytes: int = Field(
        default=64_000_000, ge=4096, description="Largest spool; more records are refused."
    )

    @field_validator("redis_url")
    @classmethod
    def _usable(cls, url: SecretStr) -> SecretStr:
        check_redis_url(url.get_secret_value())
        return url

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.heartbeat_seconds * 2 > self.lease_seconds:
            raise ValueError(
                "heartbeat_seconds must be at most half of lease_seconds, or one late heartbeat loses the lease"
            )
        if self.backoff_base_seconds > self.backoff_cap_seconds:
            raise ValueError("backoff_base_seconds must not exceed backoff_cap_seconds")
        if self.engine is not None and not self.allow_other_engine:
            raise ValueError(
                f"engine names {self.engine}, which is not wherefrom's own; set WHEREFROM_ALLOW_OTHER_ENGINE=true if its citations are what you want"
            )
        self.full_tier()
        return self

    @field_validator("database_url", "redis_url")
    @classmethod
    def _readable(cls, url: SecretStr) -> SecretStr:
        """A password may hold `#`, `/`, `?` and `@`: libraries read them only percent-encoded."""
        return SecretStr(readable_url(url.get_secret_value()))

    def secrets(self) -> frozenset[str]:
        """Everything in the settings that must not stand in a log or an error."""
        urls = (self.database_url.get_secret_value(), self.redis_url.get_secret_value(), self.service_url)
        keys = set() if self.api_key is None else {self.api_key.get_secret_value()}
        return frozenset().union(keys, *map(secrets_of, urls))

    def recipe_file(self) -> Path:
        """The file of the recipe.

        Raises:
            MeasuringUnavailable: none is set; the text says what to set.
        """
        if self.recipe is None:
            raise MeasuringUnavailable(
                "effects cannot be measured: set WHEREFROM_RECIPE to the recipe (JSON) of how the audited model was fine-tuned and "
                "WHEREFROM_BASE_MODEL_DIR to the model before it, for all processes of the service, and run `python -m worker measure`"
            )
        return self.recipe

    def full_tier(self) -> frozenset[Severity]:
        """The severities of `full_tier_severities`.

        Raises:
            ValueError: a name is no severity; at the start this becomes a `ConfigurationError`.
        """
        names = [name.strip().lower() for name in self.full_tier_severities.split(",") if name.strip()]
        known = [one.value for one in Severity]
        if unknown := [name for name in names if name not in known]:
            raise ValueError(
                f"full_tier_severities: {unknown[0]!r} is no severity; there are {', '.join(known)}"
            )
        return frozenset(Severity(name) for name in names)


def load_settings() -> Settings:
    """The settings of this process.

    Raises:
        ConfigurationError: an environment variable has a value that cannot be used; the text names it.
    """
    try:
        return Settings()
    except ValidationError as error:
        lines = [
            f"WHEREFROM_{'_'.join(str(part) for part in item['loc']).upper()}: {item['msg']}"
            if item["loc"]
            else item["msg"]
            for item in error.errors(include_input=False, include_url=False)
        ]
        raise ConfigurationError("unusable settings:\n  " + "\n  ".join(lines)) from error


def masked(text: str) -> str:
    """The text without secrets: what looks like one, and what this process's environment holds, however it is written."""
    return mask(text, _secrets_of_environment())


def _secrets_of_environment() -> frozenset[str]:
    """Secrets of the variables, also of those that cannot be used: the error about them must not tell them."""
    found: set[str] = set()
    for name in ("DATABASE_URL", "REDIS_URL", "SERVICE_URL"):
        found |= secrets_of(os.environ.get(f"WHEREFROM_{name}", ""))
    return frozenset(found | {os.environ.get("WHEREFROM_API_KEY", "")} - {""})


#: Read by the client and by the compose file.
_OTHER_VARIABLES = {
    "WHEREFROM_SERVICE_URL",
    "WHEREFROM_API_KEY",
    "WHEREFROM_SPOOL_PATH",
    "WHEREFROM_SPOOL_MAX_BYTES",
    "WHEREFROM_IMAGE_TAG",
}


def unknown_variables(environment: Iterable[str]) -> list[str]:
    """Names of variables that begin like a setting and are none: a misspelt one changes nothing, and nobody notices."""
    known = {f"WHEREFROM_{name.upper()}" for name in Settings.model_fields} | _OTHER_VARIABLES
    return sorted(name for name in environment if name.startswith("WHEREFROM_") and name not in known)


def child_environment(**overrides: str) -> dict[str, str]:
    """This process's environment with settings replaced, for a child process.

    Args:
        overrides: Values by the setting's name, as they would be written in the environment.

    Raises:
        ConfigurationError: there is no such setting.
    """
    unknown = overrides.keys() - Settings.model_fields.keys()
    if unknown:
        raise ConfigurationError(f"no such setting: {', '.join(sorted(unknown))}")
    return {**os.environ, **{f"WHEREFROM_{name.upper()}": value for name, value in overrides.items()}}
