"""Which places can be stores."""

from pathlib import Path

import pytest

from wherefrom.errors import ConfigurationError
from wherefrom.storage import is_url, open_store


@pytest.mark.parametrize(
    "url",
    [
        "s3://AKIAKEY:hunter22@bucket/x",
        "s3://AKIAKEY@bucket/x",
        "gs://user:hunter22@bucket",
        "abfs://container:hunter22@account.dfs.core.windows.net/x",
        "s3://bucket/x?token=hunter22",
        "az://container/x#hunter22",
        "https://user:hunter22@bucket.example/x",
    ],
)
def test_credentials_in_a_url_are_refused_and_not_repeated(url: str) -> None:
    """The error says where credentials belong, and nothing of them."""
    with pytest.raises(ConfigurationError) as told:
        open_store(url)
    assert "hunter22" not in str(told.value)
    assert "AKIAKEY" not in str(told.value)


@pytest.mark.parametrize(
    ("url", "named"),
    [
        ("s3://", "names no bucket"),
        ("s3:///x", "names no bucket"),
        ("file://", "names no folder"),
        ("file://server/share", "names no folder"),
        ("https://bucket.example/x", "https://"),
        ("ftp://host/x", "ftp://"),
        ("memory://x", "memory://"),
    ],
)
def test_a_place_that_can_be_no_store_is_refused(url: str, named: str) -> None:
    """The error says what is wrong with it."""
    with pytest.raises(ConfigurationError, match=named):
        open_store(url)


def test_a_missing_library_is_named() -> None:
    """A provider whose library is not installed says what to install."""
    with pytest.raises(ConfigurationError, match="gcsfs"):
        open_store("gs://bucket/x")


def test_a_path_is_no_url(tmp_path: Path) -> None:
    """Paths, with a colon too, are folders."""
    assert not is_url("a:b/c")
    assert is_url("s3://bucket")
    assert open_store(f"file://{tmp_path}/a%20b").url == str(tmp_path / "a b")
