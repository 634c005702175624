"""The settings of bundles: where they are, who signs them, what this machine keeps of them; `wherefrom.settings` reads them with all the others."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import unquote, urlsplit

from pydantic import BaseModel, Field, model_validator

from wherefrom.errors import ConfigurationError
from wherefrom.notify_settings import empty_is_unset
from wherefrom.storage import check_store_url, is_url

_CACHE = Path(".wherefrom/bundle-cache")


class BundleSettings(BaseModel):
    """Where bundles are."""

    bundles_dir: Path = Field(
        default=Path(".wherefrom/bundles"),
        description="Folder that holds the bundles, one subfolder per bundle; or the URL of object storage: `s3://BUCKET/PREFIX`, `gs://...`, `abfs://...`. Workers then fetch what they lack into `bundle_cache_dir`.",
    )
    bundles_url: Annotated[str | None, empty_is_unset] = Field(
        default=None,
        description="URL of the object storage that holds the bundles. The same as a URL in `bundles_dir`; set one of the two.",
    )
    bundle_cache_dir: Path = Field(
        default=_CACHE,
        description="Folder for the bundles that this machine has fetched from object storage.",
    )
    bundle_cache_bytes: int = Field(
        default=50_000_000_000,
        ge=1_000_000,
        description="Most bytes in `bundle_cache_dir`. The bundle that was used longest ago goes first, never one that a process has open.",
    )
    bundle_keys: tuple[Path, ...] = Field(
        default=(),
        description="Files with public keys (JSON list). With it, every bundle must be signed by one of them; others are refused before anything of them is parsed.",
    )
    verify_bundles: bool = Field(
        default=False,
        description="Hash every file of a bundle whenever it is opened. Without it, a file that has not changed since this machine hashed it is not read again, unless another user can write to it.",
    )

    @model_validator(mode="before")
    @classmethod
    def _split_url(cls, given: Any) -> Any:
        """A URL in `bundles_dir` goes to `bundles_url`; `bundles_dir` is then the folder of what was fetched, so every path below it is one of this machine."""
        if not isinstance(given, Mapping):
            return given
        place, url = given.get("bundles_dir"), given.get("bundles_url") or None
        if isinstance(place, str) and is_url(place):
            if url not in {None, place}:
                raise ValueError("bundles_dir and bundles_url name different URLs; set one of them")
            url = place
        elif url is not None and place is not None:
            raise ValueError("bundles_dir names a folder and bundles_url a URL; set one of them")
        if url is None:
            return given
        try:
            check_store_url(url)
        except ConfigurationError as error:
            raise ValueError(f"bundles_dir: {error}") from error
        if urlsplit(url).scheme == "file":
            return {**given, "bundles_dir": unquote(urlsplit(url).path), "bundles_url": None}
        return {**given, "bundles_dir": given.get("bundle_cache_dir", _CACHE), "bundles_url": url}
