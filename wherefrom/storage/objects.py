"""A store in object storage (S3, Google Cloud, Azure), by fsspec. An object appears whole when its upload ends, so readers never see half a file.

Credentials come from the environment, as each provider's own library reads them.
"""

import errno
import importlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wherefrom.atomic import atomic_file, tells_full_disk
from wherefrom.errors import ConfigurationError, NotStored, StorageRefused, StorageUnavailable
from wherefrom.storage.store import check_name

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

_Errors = tuple[type[Exception], ...]
#: Errors of the system by which s3fs says that a request can never succeed.
_REFUSING = frozenset(
    {
        errno.EINVAL,
        errno.EPERM,
        errno.ENAMETOOLONG,
        errno.EMSGSIZE,
        errno.ENOSYS,
        getattr(errno, "EREMCHG", -1),
    }
)


@dataclass(frozen=True)
class Provider:
    """One kind of object storage."""

    #: What fsspec calls it.
    protocol: str
    #: The library to install.
    package: str
    #: Where the credentials are looked for, for people.
    credentials: str
    #: Dotted names of the errors that its libraries raise beside those of the system.
    errors: tuple[str, ...]
    #: Those of them that say that a request can never succeed as it is.
    refusals: tuple[str, ...]
    options: Mapping[str, Any] = field(default_factory=dict)


_S3 = Provider(
    "s3",
    "s3fs",
    "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or the role of this machine",
    ("botocore.exceptions.BotoCoreError", "botocore.exceptions.ClientError", "aiohttp.ClientError"),
    (
        "botocore.exceptions.NoCredentialsError",
        "botocore.exceptions.PartialCredentialsError",
        "botocore.exceptions.ProfileNotFound",
        "botocore.exceptions.ParamValidationError",
    ),
    {"config_kwargs": {"retries": {"max_attempts": 1}}},  # s3fs itself tries five times
)
_GOOGLE = Provider(
    "gs",
    "gcsfs",
    "GOOGLE_APPLICATION_CREDENTIALS, or the account of this machine",
    ("gcsfs.retry.HttpError", "google.auth.exceptions.GoogleAuthError", "aiohttp.ClientError"),
    ("google.auth.exceptions.DefaultCredentialsError",),
)
_AZURE = Provider(
    "abfs",
    "adlfs",
    "AZURE_STORAGE_ACCOUNT_NAME with AZURE_STORAGE_ACCOUNT_KEY or a client's id and secret",
    ("azure.core.exceptions.AzureError", "aiohttp.ClientError"),
    ("azure.core.exceptions.ClientAuthenticationError",),
)
#: By the scheme of a URL.
PROVIDERS = {
    "s3": _S3,
    "s3a": _S3,
    "gs": _GOOGLE,
    "gcs": _GOOGLE,
    "az": _AZURE,
    "abfs": _AZURE,
    "abfss": _AZURE,
}


class ObjectStore:
    """Satisfies `Store`."""

    def __init__(self, url: str, provider: Provider) -> None:
        """Prepare the connection; nothing is asked of the store yet.

        Args:
            url: `SCHEME://BUCKET/PREFIX`, which was checked.
            provider: of the scheme.

        Raises:
            ConfigurationError: the provider's library is not installed.
            StorageRefused: it cannot be used with what the environment says.
        """
        self.url = url.rstrip("/")
        self._provider = provider
        self._system = self._connect()
        self._root = str(self._system._strip_protocol(self.url))  # noqa: SLF001 - fsspec has no public name for it
        self._errors_of_provider: _Errors = (OSError, ValueError, *_named(provider.errors))
        self._refusals: _Errors = (PermissionError, ValueError, *_named(provider.refusals))

    def names(self, prefix: str = "") -> Sequence[str]:
        """See `Store`."""
        folder = prefix.rpartition("/")[0]
        top = f"{self._root}/{check_name(folder)}" if folder else self._root
        with self._errors():
            found = [str(one).removeprefix(f"{self._root}/") for one in self._system.find(top)]
        return sorted(name for name in found if name.startswith(prefix))

    def exists(self, name: str) -> bool:
        """See `Store`."""
        try:
            self.size(name)
        except NotStored:
            return False
        return True

    def size(self, name: str) -> int:
        """See `Store`."""
        with self._errors(name):
            found = self._system.info(self._object(name))
            if found["type"] != "file":  # others lie below it
                raise FileNotFoundError(name)
            return int(found["size"])

    def fetch(self, name: str, to: Path) -> None:
        """See `Store`."""
        to.parent.mkdir(parents=True, exist_ok=True)
        with atomic_file(to) as unfinished, self._errors(name):
            self._system.get_file(self._object(name), str(unfinished))

    def put(self, path: Path, name: str) -> None:
        """See `Store`."""
        with path.open("rb"):  # what cannot be read is no error of the store
            pass
        with self._errors(name):
            self._system.put_file(str(path), self._object(name))

    def delete(self, name: str) -> None:
        """See `Store`."""
        with self._errors(name):
            try:
                self._system.rm_file(self._object(name))
            except FileNotFoundError as error:
                if _lacks_bucket(error):
                    raise

    def _object(self, name: str) -> str:
        return f"{self._root}/{check_name(name)}"

    def _connect(self) -> "AbstractFileSystem":
        provider = self._provider
        try:
            import fsspec  # noqa: PLC0415 - optional extra [storage]

            return fsspec.filesystem(
                provider.protocol, skip_instance_cache=True, use_listings_cache=False, **provider.options
            )
        except ImportError as error:
            raise ConfigurationError(
                f'{self.url}: {provider.package} is not installed; run pip install "wherefrom[storage]" {provider.package}'
            ) from error
        except ValueError as error:
            raise StorageRefused(f"{self.url}: {error}") from error

    @contextmanager
    def _errors(self, name: str | None = None) -> Iterator[None]:
        """Turn the errors of the provider's libraries, met over a file or over the list of all, into those of a store; a full disk of this machine passes."""
        try:
            yield
        except self._errors_of_provider as error:
            if tells_full_disk(error):
                raise
            raise self._told(error, name) from error

    def _told(self, error: Exception, name: str | None) -> NotStored | StorageRefused | StorageUnavailable:
        if isinstance(error, FileNotFoundError):
            if name is None or _lacks_bucket(error):
                return StorageRefused(f"{self.url}: there is no such bucket; create it, or correct the URL")
            return NotStored(f"{self.url}: there is no file {name}")
        where = self.url if name is None else f"{self.url}: {name}"
        said = str(error) or type(error).__name__
        if isinstance(error, self._refusals) or (isinstance(error, OSError) and error.errno in _REFUSING):
            return StorageRefused(
                f"{where}: the store refuses ({said}); check the URL, the credentials ({self._provider.credentials}) and what they may do"
            )
        return StorageUnavailable(f"{where}: the store does not answer ({said})")


def _lacks_bucket(error: BaseException) -> bool:
    """Whether a store that misses a file misses the whole bucket."""
    response = getattr(error.__cause__, "response", None)
    return isinstance(response, Mapping) and response.get("Error", {}).get("Code") == "NoSuchBucket"


def _named(dotted: Sequence[str]) -> _Errors:
    """Classes by their dotted names; those whose library is not installed are left out."""
    found = []
    for one in dotted:
        module, _, name = one.rpartition(".")
        try:
            found.append(getattr(importlib.import_module(module), name))
        except ImportError:
            continue
    return tuple(found)
