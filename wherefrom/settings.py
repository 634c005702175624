"""All settings, read from the environment (prefix `WHEREFROM_`) and from nowhere else."""

import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from wherefrom.bundle_settings import BundleSettings
from wherefrom.errors import ConfigurationError, MeasuringUnavailable
from wherefrom.index_settings import IndexSettings
from wherefrom.masking import mask, readable_url, secrets_of, secrets_of_variables
from wherefrom.notify_settings import NotifySettings, empty_is_unset
from wherefrom.proxy_settings import ProxySettings
from wherefrom.records import Severity
from wherefrom.redis_url import check_redis_url
from wherefrom.trace_settings import TraceExport, read_trace_export
from wherefrom.traceparent import read_traceparent

#: A path; an empty variable, as compose makes them, is not set.
_OptionalPath = Annotated[Path | None, empty_is_unset]
#: `module:factory`.
_OptionalFactory = Annotated[
    str | None, Field(pattern=r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*$"), empty_is_unset
]


class Settings(BundleSettings, NotifySettings, IndexSettings, ProxySettings, BaseSettings):
    """Settings of the service, the workers and the client; each can be set as `WHEREFROM_<NAME>`."""

    model_config = SettingsConfigDict(
        env_prefix="WHEREFROM_", extra="ignore", frozen=True, hide_input_in_errors=True
    )

    database_url: SecretStr = Field(
        default=SecretStr("sqlite:///.wherefrom/wherefrom.db"),
        description="SQLAlchemy URL of the database: `sqlite:///PATH` or `postgresql+psycopg://USER:PASSWORD@HOST/NAME`.",
    )
    redis_url: SecretStr = Field(
        default=SecretStr("redis://127.0.0.1:6379/0"),
        description="URL of the Redis that holds the stream and the hints: `redis://HOST:PORT/0`, `rediss://` with TLS, or `unix:///PATH?db=0`.",
    )
    key_prefix: str = Field(
        default="", description="Prefix of every Redis key. It lets several services share one Redis."
    )
    models_dir: Path = Field(
        default=Path(".wherefrom/models"),
        description="Folder that holds the models and adapters that bundles name, one subfolder each.",
    )

    state_dir: Path = Field(
        default=Path(".wherefrom/state"),
        description="Folder for the running processes of this machine: heartbeat files, the address of the page and the embedded Redis.",
    )

    log_format: Literal["console", "json"] = Field(
        default="console", description="Format of the log. Use `json` in production."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="Lowest level that is logged."
    )

    batch_audits: int = Field(default=32, ge=1, le=1024, description="Audits that one worker claims at once.")
    batch_tokens: int = Field(
        default=1024, ge=64, description="Tokens in one pass through the model, padding included."
    )
    max_tokens: int = Field(
        default=1024,
        ge=8,
        description="Most tokens of one output, prompt and completion together. A longer output is cut or rejected.",
    )
    over_long: Literal["truncate", "reject"] = Field(
        default="truncate",
        description="Handling of an output over `max_tokens`: cut it and mark it as cut, or reject it.",
    )
    top_k: int = Field(default=10, ge=1, le=200, description="Citations stored per audit.")
    opponents: int = Field(
        default=3, ge=0, le=50, description="Opponents (negative influence) stored per audit."
    )
    full_tier_severities: str = Field(
        default="critical",
        description="Severities whose audits also get the full tier (EK-FAC), if the bundle has it. Separate them with commas; empty means never.",
    )
    device: str = Field(
        default="auto",
        description="Device of the model: `auto` (a GPU if there is one), `cpu`, `cuda` or `cuda:N`. With `auto` and `cuda`, process i of a worker takes GPU i modulo their number.",
    )
    dtype: Literal["auto", "float32", "bfloat16"] = Field(
        default="auto",
        description="Numbers of the pass through the model. `auto` is bfloat16 on a GPU that has it, else float32. Curvature and scores are float32 or better in any case.",
    )
    torch_threads: int = Field(
        default=0, ge=0, description="Torch threads of one worker process; 0 lets torch decide."
    )

    engine: _OptionalFactory = Field(
        default=None,
        description="Replacement for wherefrom's own engine, as `module:factory` (`wherefrom.attribution.interface.EngineFactory`). For tests and research.",
    )
    allow_other_engine: bool = Field(
        default=False,
        description="Allow `engine`. Its citations are stored and shown like wherefrom's own, so never allow it in a service with real audits.",
    )

    lease_seconds: float = Field(
        default=60.0, gt=0, description="Time after which a claim without a heartbeat ends."
    )
    heartbeat_seconds: float = Field(
        default=15.0, gt=0, description="Time between two extensions of a lease."
    )
    max_attempts: int = Field(default=5, ge=1, description="Failed attempts after which an audit is dead.")
    backoff_base_seconds: float = Field(
        default=2.0,
        gt=0,
        description="Wait after the first transient failure. It doubles with each further one.",
    )
    backoff_cap_seconds: float = Field(default=300.0, gt=0, description="Longest wait between two attempts.")
    batch_time_limit_seconds: int = Field(
        default=600,
        ge=1,
        description="Hard time limit of one claimed batch. It starts when the model is loaded.",
    )

    recipe: _OptionalPath = Field(
        default=None,
        description="Recipe file (JSON) of the audited model's fine-tune. Measuring effects needs it.",
    )
    base_model_dir: _OptionalPath = Field(
        default=None, description="Folder of the model before the fine-tune. Retraining starts from it."
    )
    recipe_corpus: _OptionalPath = Field(
        default=None,
        description="Corpus file of the fine-tune. Needed if its rows have a system turn or several turns: a bundle holds those as text only.",
    )
    measure_dir: Path = Field(
        default=Path(".wherefrom/measure"),
        description="Folder of retrained models and their losses. All measurements of a bundle share them.",
    )
    measure_time_limit_seconds: int = Field(
        default=86_400, ge=1, description="Hard time limit of one measurement."
    )

    sweep_seconds: float = Field(default=2.0, gt=0, description="Time between two rounds of the sweeper.")
    worker_processes: int = Field(
        default=1,
        ge=1,
        le=64,
        description="Processes of one `python -m worker run` or `python -m worker build-worker`.",
    )
    watchdog_seconds: float = Field(
        default=120.0,
        gt=0,
        description="A worker exits with an error when work is pending and it claims nothing for this long.",
    )
    intake_batch: int = Field(
        default=100, ge=1, le=10_000, description="Stream entries committed in one transaction."
    )
    intake_batch_bytes: int = Field(
        default=16_000_000,
        ge=1024,
        description="Approximate size in bytes of the stream entries read and committed at once. Intake needs about ten times as much memory.",
    )
    quarantine_limit: int = Field(
        default=1000,
        ge=1,
        description="Most entries in the quarantine. When it is full, intake pauses until an operator replays or drops some.",
    )
    intake_idle_claim_seconds: float = Field(
        default=30.0,
        gt=0,
        description="Idle time after which another intake takes over the stream entries of a dead one.",
    )

    host: str = Field(default="127.0.0.1", description="Address that the web service binds to.")
    port: int = Field(
        default=8077, ge=0, le=65535, description="Port of the web service; 0 picks a free port."
    )
    web_processes: int = Field(
        default=1,
        ge=1,
        le=16,
        description="Processes of one `python -m worker web` that share its port. Each has its own slots and takes about 170 MB.",
    )
    allowed_hosts: tuple[str, ...] = Field(
        default=("127.0.0.1", "localhost", "[::1]"),
        description="Host headers that the service accepts (JSON list). Others get 400, as a defence against DNS rebinding.",
    )
    production: bool = Field(
        default=False,
        description="Production mode: every request needs an API key, also from loopback. docker-compose.yml sets it.",
    )
    unsafe_no_auth: bool = Field(
        default=False,
        description="Accept requests without an API key when a proxy forwards them to loopback. Unsafe. Refused in production mode and on any other address.",
    )
    session_secret: SecretStr | None = Field(
        default=None,
        min_length=32,
        description="Secret that signs the sessions of people in browsers, at least 32 characters. Without it, each machine makes one in `state_dir`. Set the same one on all machines that serve the page.",
    )
    session_hours: float = Field(
        default=12.0, gt=0, le=720, description="Hours after which people in browsers must sign in again."
    )
    trail_reads: Literal["required", "best_effort", "off"] = Field(
        default="best_effort",
        description="What the trail notes of reads of flagged texts: with `required`, a text is shown only after the read is on the disk of this machine; with `best_effort`, it is shown in any case; with `off`, reads are not noted.",
    )
    trail_anchor_file: _OptionalPath = Field(
        default=None,
        description="File that gets the end of the trail's chain from time to time. Put it outside the database's machine; without it, it is `trail/anchors.jsonl` in `state_dir`.",
    )
    trail_anchor_seconds: float = Field(
        default=60.0, gt=0, description="Shortest time between two anchors of the trail."
    )
    body_limit_bytes: int = Field(default=4_500_000, ge=1024, description="Largest request body, in bytes.")
    max_records_per_request: int = Field(
        default=1000, ge=1, description="Most records in one `POST /v1/flagged`."
    )
    max_page_size: int = Field(default=200, ge=1, le=1000, description="Most items on one page of a list.")
    max_concurrent_writes: int = Field(
        default=2,
        ge=1,
        le=256,
        description="Requests that store flagged outputs at the same time, per web process. SQLite always takes one at a time.",
    )
    max_concurrent_reads: int = Field(
        default=16, ge=1, le=256, description="Lists and pages produced at the same time, per web process."
    )
    max_waiting_requests: int = Field(
        default=16,
        ge=0,
        le=10_000,
        description="Requests of each kind that may wait for a slot. Any further request gets 429 at once.",
    )
    max_wait_seconds: float = Field(
        default=0.15,
        ge=0,
        le=60,
        description="Longest wait of a flagged output for a slot. After it, the request gets 429 with `Retry-After`.",
    )

    service_url: str = Field(
        default="http://127.0.0.1:8077", description="URL at which the client and the CLI reach the service."
    )
    api_key: SecretStr | None = Field(default=None, description="API key that the client and the CLI send.")
    spool_path: Path = Field(
        default=Path(".wherefrom/spool.db"),
        description="The client's spool file: records that are not sent yet.",
    )
    spool_max_bytes: int = Field(
        default=64_000_000,
        ge=4096,
        description="Largest size of the spool, in bytes. Further records are refused.",
    )

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
                f"engine names {self.engine}, which is not wherefrom's own engine; set WHEREFROM_ALLOW_OTHER_ENGINE=true to use it"
            )
        self.full_tier()
        self.webhook()
        return self

    @field_validator("database_url", "redis_url")
    @classmethod
    def _readable(cls, url: SecretStr) -> SecretStr:
        """A password may hold `#`, `/`, `?` and `@`: libraries read them only percent-encoded."""
        return SecretStr(readable_url(url.get_secret_value()))

    @field_validator("device")
    @classmethod
    def _named(cls, device: str) -> str:
        if re.fullmatch(r"auto|cpu|cuda(:(0|[1-9]\d*))?", device) is None:
            raise ValueError(f"{device!r} is no device; use auto, cpu, cuda or cuda:N")
        return device

    @field_validator("redis_url")
    @classmethod
    def _usable(cls, url: SecretStr) -> SecretStr:
        """Runs behind `_readable`: pydantic keeps the order in which validators are written."""
        check_redis_url(url.get_secret_value())
        return url

    def secrets(self) -> frozenset[str]:
        """Everything in the settings that must not stand in a log or an error."""
        urls = (self.database_url.get_secret_value(), self.redis_url.get_secret_value(), self.service_url)
        keys = {
            one.get_secret_value()
            for one in (self.api_key, self.session_secret, self.proxy_secret)
            if one is not None
        }
        return frozenset().union(keys, self.notify_secrets(), *map(secrets_of, urls))

    def recipe_file(self) -> Path:
        """The file of the recipe.

        Raises:
            MeasuringUnavailable: none is set; the text says what to set.
        """
        if self.recipe is None:
            raise MeasuringUnavailable(
                "effects cannot be measured: set WHEREFROM_RECIPE to the recipe file (JSON) of the audited model's fine-tune, and "
                "WHEREFROM_BASE_MODEL_DIR to the folder of the model before it. All processes of the service need both. Then run `python -m worker measure`"
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
                f"full_tier_severities: {unknown[0]!r} is not a severity; the severities are {', '.join(known)}"
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
    return mask(text, secrets_of_variables(os.environ))


#: Read by the client and by the compose file.
_OTHER_VARIABLES = {
    "WHEREFROM_SERVICE_URL",
    "WHEREFROM_API_KEY",
    "WHEREFROM_SPOOL_PATH",
    "WHEREFROM_SPOOL_MAX_BYTES",
    "WHEREFROM_IMAGE_TAG",
}


#: The variable by which build systems and other tools hand their trace on.
_TRACEPARENT = "TRACEPARENT"


def trace_export() -> TraceExport | None:
    """Whether the OTEL_* variables ask for traces."""
    return read_trace_export(os.environ)


def trace_around() -> str | None:
    """The trace that this command belongs to, as whoever began it says in `TRACEPARENT` (https://opentelemetry.io/docs/specs/otel/context/env-carriers/); None without a valid one."""
    return read_traceparent(os.environ.get(_TRACEPARENT))


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
