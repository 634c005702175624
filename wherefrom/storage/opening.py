"""Opens the store that a path or a URL names."""

import re
from pathlib import Path
from urllib.parse import unquote, urlsplit

from wherefrom.errors import ConfigurationError
from wherefrom.storage.folder import FolderStore
from wherefrom.storage.objects import PROVIDERS, ObjectStore
from wherefrom.storage.store import Store

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")


def is_url(place: str) -> bool:
    """Whether a text is a URL and not a path."""
    return _URL.match(place) is not None


def open_store(url: str) -> Store:
    """The store at a place; nothing is asked of it yet.

    Args:
        url: `s3://BUCKET/PREFIX`, `gs://...`, `abfs://...`, `file:///PATH`, or a path.

    Raises:
        ConfigurationError: the URL cannot be used, or what it needs is not installed.
        StorageRefused: the environment lacks something without which the store cannot be used.
    """
    if not is_url(url):
        return FolderStore(Path(url))
    check_store_url(url)
    scheme = urlsplit(url).scheme
    if scheme == "file":
        return FolderStore(Path(unquote(urlsplit(url).path)))
    return ObjectStore(url, PROVIDERS[scheme])


def check_store_url(url: str) -> None:
    """Return when a URL can name a store. The text of an error quotes nothing that may be a secret.

    Raises:
        ConfigurationError: it cannot.
    """
    parts = urlsplit(url)
    if parts.scheme not in {*PROVIDERS, "file"}:
        raise ConfigurationError(
            f"a store cannot be at {parts.scheme}://; write a path, s3://BUCKET/PREFIX, gs://BUCKET/PREFIX or abfs://CONTAINER/PREFIX"
        )
    container = parts.scheme.startswith("abfs") and ":" not in parts.netloc
    if ("@" in parts.netloc and not container) or parts.query or parts.fragment:
        raise ConfigurationError(
            "the URL of a store must not hold credentials, a query or #; give credentials in the environment, such as AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        )
    if parts.scheme == "file":
        if parts.netloc not in {"", "localhost"} or not parts.path.strip("/"):
            raise ConfigurationError("the URL names no folder; write file:///PATH")
    elif not parts.netloc:
        raise ConfigurationError(f"the URL names no bucket; write {parts.scheme}://BUCKET/PREFIX")
