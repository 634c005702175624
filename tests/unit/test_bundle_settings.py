"""Where the settings say that bundles are: a folder, or a URL whose copies are in a folder of this machine."""

from pathlib import Path

import pytest

from wherefrom.errors import ConfigurationError
from wherefrom.settings import Settings, load_settings

CACHE = Path(".wherefrom/bundle-cache")


@pytest.mark.parametrize(
    ("variables", "folder", "url"),
    [
        ({}, Path(".wherefrom/bundles"), None),
        ({"BUNDLES_DIR": "/srv/bundles"}, Path("/srv/bundles"), None),
        ({"BUNDLES_DIR": "a:b/c"}, Path("a:b/c"), None),
        ({"BUNDLES_DIR": "file:///srv/b%20c"}, Path("/srv/b c"), None),
        ({"BUNDLES_DIR": "s3://audits/bundles"}, CACHE, "s3://audits/bundles"),
        ({"BUNDLES_URL": "gs://audits"}, CACHE, "gs://audits"),
        ({"BUNDLES_DIR": "s3://a/b", "BUNDLES_URL": "s3://a/b"}, CACHE, "s3://a/b"),
        ({"BUNDLES_DIR": "s3://a/b", "BUNDLE_CACHE_DIR": "/fast"}, Path("/fast"), "s3://a/b"),
        ({"BUNDLES_URL": ""}, Path(".wherefrom/bundles"), None),
    ],
)
def test_where_bundles_are(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], folder: Path, url: str | None
) -> None:
    """`bundles_dir` is a folder of this machine in every case."""
    for name, value in variables.items():
        monkeypatch.setenv(f"WHEREFROM_{name}", value)
    found = load_settings()
    assert (found.bundles_dir, found.bundles_url) == (folder, url)


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"BUNDLES_DIR": "s3://KEY:hunter22@audits/x"}, "must not hold credentials"),
        ({"BUNDLES_URL": "s3://audits/x?sig=hunter22"}, "must not hold credentials"),
        ({"BUNDLES_DIR": "https://user:hunter22@audits/x"}, "cannot be at https://"),
        ({"BUNDLES_DIR": "s3://a/b", "BUNDLES_URL": "s3://a/c"}, "different URLs"),
        ({"BUNDLES_DIR": "/a", "BUNDLES_URL": "s3://a/c"}, "set one of them"),
        ({"BUNDLE_CACHE_BYTES": "10"}, "BUNDLE_CACHE_BYTES"),
    ],
)
def test_what_cannot_be_meant_is_refused(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], said: str
) -> None:
    """The error says what is wrong, and no secret."""
    for name, value in variables.items():
        monkeypatch.setenv(f"WHEREFROM_{name}", value)
    with pytest.raises(ConfigurationError, match=said) as told:
        load_settings()
    assert "hunter22" not in str(told.value)


def test_a_copy_of_the_settings_keeps_the_url() -> None:
    """As the processes of one program pass settings on."""
    made = Settings.model_validate({"bundles_dir": "s3://a/b"})
    assert made.model_copy(update={"key_prefix": "x"}).bundles_url == "s3://a/b"
    assert Settings.model_validate(made.model_dump(exclude={"bundles_dir"})).bundles_dir == made.bundles_dir
